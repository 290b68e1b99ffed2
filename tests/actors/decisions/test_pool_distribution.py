"""Which subnet is asked for how many addresses of an application's."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.decisions.pool_distribution import Outcome, PoolDistribution, distribute


def play(
    subnets: list[str],
    present: Mapping[str, int],
    wanted: int,
    pods: int,
    room: Mapping[str, int],
    used: Mapping[str, int] | None = None,
) -> tuple[PoolDistribution, list[tuple[str, int]]]:
    """Answer as subnets that have `room` for so many more addresses, and whose pools do not go below what is `used`."""
    left, sizes = dict(room), dict(present)
    asked: list[tuple[str, int]] = []
    questions = distribute(subnets, present, wanted, pods)
    outcome: Outcome | None = None
    while True:
        try:
            name, number = questions.send(outcome) if outcome is not None else next(questions)
        except StopIteration as end:
            return end.value, asked
        asked.append((name, number))
        number = max(number, (used or {}).get(name, 0))
        more = number - sizes.get(name, 0)
        if more > left[name]:
            outcome = Outcome(None, left[name], f"{name} has {left[name]} left")
        else:
            sizes[name] = number
            left[name] -= more
            outcome = Outcome(number)


@pytest.mark.parametrize(
    ("present", "wanted", "pods", "room", "sizes", "missing"),
    [
        pytest.param({}, 3, 0, {"a": 5, "b": 5}, {"a": 3}, 0, id="the first one has room"),
        pytest.param({}, 6, 0, {"a": 5, "b": 9}, {"b": 6}, 0, id="the second one has room for all"),
        pytest.param({"b": 2}, 4, 2, {"a": 9, "b": 9}, {"b": 4}, 0, id="the pool that is there grows"),
        pytest.param({"a": 2}, 6, 2, {"a": 3, "b": 9}, {"a": 2, "b": 4}, 0, id="a second pool beside it"),
        pytest.param(
            {}, 9, 7, {"a": 3, "b": 2}, {"a": 3, "b": 2}, 4, id="what is left, for pods that are there"
        ),
        pytest.param({}, 9, 4, {"a": 3, "b": 2}, {"a": 3, "b": 1}, 5, id="no spare address of what is left"),
        pytest.param({}, 10**9, 0, {"a": 200, "b": 200}, {}, 10**9, id="a wish takes nothing from anybody"),
        pytest.param(
            {"a": 4, "b": 3}, 5, 7, {"a": 0, "b": 0}, {"a": 4, "b": 1}, 0, id="the last shrinks first"
        ),
        pytest.param({"a": 4, "b": 3}, 2, 7, {"a": 0, "b": 0}, {"a": 2, "b": 0}, 0, id="then the one before"),
        pytest.param({"a": 4, "b": 3}, 7, 7, {"a": 0, "b": 0}, {"a": 4, "b": 3}, 0, id="nothing changes"),
        pytest.param({}, 0, 0, {"a": 5, "b": 5}, {}, 0, id="nothing is wanted"),
    ],
)
def test_who_is_asked_for_how_many(
    present: dict[str, int], wanted: int, pods: int, room: dict[str, int], sizes: dict[str, int], missing: int
) -> None:
    found, _ = play(["a", "b"], present, wanted, pods, room)

    assert (found.sizes, found.missing, found.over) == (sizes, missing, False)
    assert bool(found.why) == bool(missing)


def test_every_pool_that_is_there_is_asked_once_even_if_nothing_changes() -> None:
    """So that it learns whose it is by now."""
    _, asked = play(["a", "b"], {"a": 4, "b": 3}, 7, 7, {"a": 0, "b": 0})

    assert sorted(asked) == [("a", 4), ("b", 3)]


def test_a_pool_whose_addresses_are_used_is_over() -> None:
    found, _ = play(["a"], {"a": 9}, 3, 9, {"a": 0}, used={"a": 5})

    assert (found.sizes, found.over, found.missing) == ({"a": 5}, True, 0)


@given(
    st.lists(st.sampled_from("abcd"), unique=True, min_size=1),
    st.dictionaries(st.sampled_from("abcd"), st.integers(0, 9)),
    st.integers(0, 30),
    st.integers(0, 30),
    st.fixed_dictionaries({name: st.integers(0, 9) for name in "abcd"}),
)
def test_it_takes_what_is_wanted_or_says_what_is_missing(
    subnets: list[str], present: dict[str, int], wanted: int, pods: int, room: dict[str, int]
) -> None:
    found, asked = play(subnets, present, wanted, pods, room)

    total = sum(found.sizes.values())
    before = sum(count for name, count in present.items() if name in subnets)
    assert total + found.missing == wanted or (wanted < before and total == wanted)
    assert {name for name, _ in asked} <= set(subnets)
    if found.missing:
        assert total <= max(before, pods)  # only pods that are there take the last addresses
    growth = {name: found.sizes.get(name, 0) - present.get(name, 0) for name in subnets}
    assert all(more <= room[name] for name, more in growth.items())
    if wanted >= before and any(wanted - before <= room[name] for name in subnets):
        assert found.missing == 0
