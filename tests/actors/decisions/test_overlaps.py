"""Which pools have addresses in common: against the plain definition, and at a cost that does not square."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
from hypothesis import given

from actors.decisions.overlaps import overlapping
from actors.resources.addresses import Subnet, parse_cidr
from actors.resources.intervals import IntervalSet
from actors.resources.ippool import IPPool

NET: Subnet = parse_cidr("10.0.0.0/8")
SIX: Subnet = parse_cidr("fd00::/64")


def pool(name: str, *intervals: tuple[int, int], subnet: Subnet = NET) -> IPPool:
    return IPPool(
        name, subnet, available=IntervalSet((subnet.first + a, subnet.first + b) for a, b in intervals)
    )


def plainly(pools: list[IPPool]) -> dict[str, set[str]]:
    return {
        one.name: others
        for one in pools
        if (
            others := {
                two.name
                for two in pools
                if two is not one and two.family == one.family and two.available.intersect(one.available)
            }
        )
    }


spans = st.tuples(st.integers(0, 30), st.integers(0, 8)).map(lambda one: (one[0], one[0] + one[1]))


@given(st.lists(st.lists(spans, max_size=4), max_size=8), st.integers(1, 3))
def test_as_the_definition_says(found: list[list[tuple[int, int]]], limit: int):
    pools = [pool(f"p{number}", *intervals) for number, intervals in enumerate(found)]
    expected = plainly(pools)

    assert {name: set(others) for name, others in overlapping(pools).items()} == expected

    limited = overlapping(pools, limit)
    assert {name: len(others) for name, others in limited.items()} == {
        name: min(limit, len(others)) for name, others in expected.items()
    }
    assert all(set(others) <= expected[name] for name, others in limited.items())


def test_families_have_nothing_in_common():
    assert overlapping([pool("four", (0, 9)), pool("six", (0, 9), subnet=SIX)]) == {}


def test_names_are_sorted():
    assert overlapping([pool(name, (0, 9)) for name in "cab"]) == {
        "a": ("b", "c"),
        "b": ("a", "c"),
        "c": ("a", "b"),
    }


def steps(function: Callable[[], Any]) -> int:
    """How many lines of the sweep were executed."""
    count = 0

    def trace(frame: Any, event: str, argument: Any) -> Any:
        nonlocal count
        if not frame.f_code.co_filename.endswith("overlaps.py"):
            return None
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        function()
    finally:
        sys.settrace(before)
    return count


def test_ten_times_as_many_pools_that_are_all_alike_cost_ten_times_as_much():
    few, many = ([pool(f"p{number}", (0, 9)) for number in range(count)] for count in (100, 1000))

    assert steps(lambda: overlapping(many, 10)) < 15 * steps(lambda: overlapping(few, 10))
