"""Which addresses a pool gets and gives back, against a model that looks at each address by itself."""

from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st

from actors.decisions.subnet_share import KnownUse, grow, shrink
from actors.resources.addresses import parse_cidr
from actors.resources.intervals import IntervalSet

ADDRESSES = st.frozensets(st.integers(0, 30))
RELEASED = st.dictionaries(st.integers(0, 30), st.sampled_from([1.0, 2.0, 3.0]))


def points(values: object) -> IntervalSet:
    assert isinstance(values, frozenset | set)
    return IntervalSet((value, value) for value in values)


def known(used: object, released: dict[int, float]) -> KnownUse:
    return KnownUse(points(used), points(set(released)), released)


def members(addresses: IntervalSet) -> set[int]:
    return {value for low, high in addresses for value in range(low, high + 1)}


@given(
    free=ADDRESSES,
    used=ADDRESSES,
    released=RELEASED,
    own=ADDRESSES,
    others=ADDRESSES,
    count=st.integers(0, 40),
)
def test_growing_is_what_a_sort_of_all_addresses_gives(
    free: frozenset[int],
    used: frozenset[int],
    released: dict[int, float],
    own: frozenset[int],
    others: frozenset[int],
    count: int,
) -> None:
    def place(value: int) -> tuple[int, float, int]:
        tier = 0 if value in own else 2 if value in others else 1
        return tier, released.get(value, 0.0), value

    expected = sorted(free - used, key=place)[:count]

    chosen = grow(
        points(free),
        count,
        known(used, released),
        own=points(own),
        wanted_by_others=points(others),
    )

    assert (chosen is None) == (len(free - used) < count)
    if chosen is not None:
        assert members(chosen) == set(expected)
        assert chosen.size == count


@given(present=ADDRESSES, used=ADDRESSES, released=RELEASED, count=st.integers(0, 40))
def test_shrinking_takes_no_used_address_and_the_least_known_first(
    present: frozenset[int], used: frozenset[int], released: dict[int, float], count: int
) -> None:
    def place(value: int) -> tuple[float, int]:
        return (released[value], value) if value in released else (0.0, -value)

    expected = sorted(present - used, key=place)[:count]

    assert members(shrink(points(present), count, known(used, released))) == set(expected)


@given(present=ADDRESSES, released=RELEASED, away=st.integers(0, 10))
def test_a_pool_that_shrinks_and_grows_again_has_what_it_had(
    present: frozenset[int], released: dict[int, float], away: int
) -> None:
    seen = known(frozenset(), released)
    had = points(present)
    given_back = shrink(had, away, seen)
    free = IntervalSet([(0, 50)]).minus(had).union(given_back)

    again = grow(free, given_back.size, seen, own=given_back)

    assert again == given_back


def test_a_huge_subnet_costs_what_a_small_one_does() -> None:
    """Intervals alone: a loop over the addresses of either would not end."""
    for text in ("10.0.0.0/8", "fd00::/48"):
        subnet = parse_cidr(text)
        free = IntervalSet([(subnet.first + 1, subnet.last - 1)])
        released = {subnet.first + 1 + 2 * number: float(number) for number in range(1000)}
        seen = known(frozenset(), released)
        began = time.thread_time()
        for _ in range(20):
            taken = grow(free, 100_000, seen)
            assert taken is not None
            assert shrink(taken, 50_000, seen).size == 50_000
        assert time.thread_time() - began < 5, text
