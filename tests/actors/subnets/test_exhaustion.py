"""When a subnet counts as exhausted, and what its condition says of that."""

from __future__ import annotations

from typing import Any

from actors.subnets.exhaustion import FORGOTTEN, PAUSE, Exhaustion
from actors.subnets.messages import Exhausted

CLOCK = 1_738_324_800.0


def need(required: int, left: int = 1) -> Exhausted:
    return Exhausted("rack", required, left, ())


def statuses(conditions: list[dict[str, Any]] | None) -> list[str]:
    return [one["status"] for one in conditions or []]


def test_without_a_need_nothing_is_written() -> None:
    one = Exhaustion()

    assert one.condition(None, 5, 0.0, CLOCK) is None
    assert one.condition([{"type": "Mine", "status": "True"}], 5, 0.0, CLOCK) == [
        {"type": "Mine", "status": "True"}
    ]


def test_it_is_true_until_there_is_enough_for_each() -> None:
    one = Exhaustion()
    one.met("a", need(3), 0.0)
    one.met("b", need(9), 1.0)
    first = one.condition(None, 1, 1.0, CLOCK)
    assert statuses(first) == ["True"]
    assert first is not None
    assert "required 9, left 1" in first[0]["message"]

    assert statuses(one.condition(first, 5, 2.0, CLOCK)) == ["True"]
    over = one.condition(first, 9, 3.0, CLOCK + 100)
    assert statuses(over) == ["False"]
    assert over is not None
    assert over[0]["lastTransitionTime"] == "2025-01-31T12:01:40Z"
    assert one.condition(over, 9, 4.0, CLOCK + 200) == over


def test_refused_pods_that_ask_often_do_not_have_it_written_often() -> None:
    one = Exhaustion()
    one.met("a", need(3), 0.0)
    first = one.condition(None, 1, 0.0, CLOCK)
    one.met("a", need(4), 1.0)

    assert one.condition(first, 1, 1.0, CLOCK + 1) == first
    later = one.condition(first, 1, PAUSE + 1, CLOCK + PAUSE)
    assert later is not None
    assert "required 4" in later[0]["message"]
    assert later[0]["lastTransitionTime"] == "2025-01-31T12:00:00Z"


def test_a_need_ends_when_it_is_not_repeated_or_its_pool_is_dropped() -> None:
    one = Exhaustion()
    one.met("a", need(3), 0.0)
    one.met("b", need(3), FORGOTTEN / 2)
    assert one.next_look(0.0) == FORGOTTEN
    one.condition(None, 1, FORGOTTEN + 1, CLOCK)
    assert one.outstanding

    one.forget("b")
    assert not one.outstanding
