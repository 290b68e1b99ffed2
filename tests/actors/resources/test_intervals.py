"""Interval sets: they are sets (checked against Python's), in one canonical form, at a cost that spans do not
set."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from actors.resources.intervals import FreeSet, IntervalSet

TOP = 60
points = st.integers(0, TOP)
ranges = st.lists(st.tuples(points, points).map(lambda pair: (min(pair), max(pair))), max_size=8)


def members(intervals: IntervalSet | FreeSet) -> set[int]:
    return {member for low, high in intervals for member in range(low, high + 1)}


def assert_canonical(intervals: IntervalSet | FreeSet) -> None:
    found = list(intervals)
    assert all(low <= high for low, high in found)
    assert all(before[1] + 1 < after[0] for before, after in pairwise(found))
    assert intervals.size == sum(high - low + 1 for low, high in found)
    assert intervals.intervals == len(found)
    assert bool(intervals) == bool(found)
    assert intervals.first == (found[0][0] if found else None)


@given(ranges, ranges, points)
def test_algebra_is_that_of_sets(a: list[tuple[int, int]], b: list[tuple[int, int]], point: int) -> None:
    """Union, difference, intersection, points, membership and search agree with Python's sets."""
    one, two = IntervalSet(a), IntervalSet(b)
    first, second = members(one), members(two)
    results = {
        one.union(two): first | second,
        one.minus(two): first - second,
        one.intersect(two): first & second,
    }

    for result, expected in results.items():
        assert members(result) == expected
        assert_canonical(result)
    assert all((member in one) == (member in first) == one.contains(member) for member in range(-1, TOP + 2))
    assert one.lowest_from(point) == min((m for m in first if m >= point), default=None)
    assert one.last == max(first, default=None)
    assert (one == two) == (first == second)


class CountedInt(int):
    """An integer that counts how often it is compared."""

    comparisons = 0

    def __lt__(self, other: int) -> bool:
        CountedInt.comparisons += 1
        return int(self) < int(other)

    def __le__(self, other: int) -> bool:
        CountedInt.comparisons += 1
        return int(self) <= int(other)

    def __gt__(self, other: int) -> bool:
        CountedInt.comparisons += 1
        return int(self) > int(other)


@pytest.mark.parametrize("how", [IntervalSet.intersect, IntervalSet.minus])
def test_few_addresses_beside_thousands_of_intervals_cost_no_walk_over_them(
    how: Callable[[IntervalSet, IntervalSet], IntervalSet],
) -> None:
    """A subnet's look asks for each pool what of it is in use, among all that the subnet has given out."""
    used = IntervalSet((CountedInt(3 * n), CountedInt(3 * n + 1)) for n in range(10_000))
    pool = IntervalSet([(29_991, 29_994)])
    CountedInt.comparisons = 0

    result = how(pool, used)

    assert members(result) in ({29_991, 29_992, 29_994}, {29_993})
    assert CountedInt.comparisons < 100


def test_an_interval_that_ends_before_it_starts_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="ends before it starts"):
        IntervalSet([(2, 1)])


def test_prints_as_a_pool_writes_it() -> None:
    assert IntervalSet([(0x0A000001, 0x0A000001), (0x0A000005, 0x0A000007)]).ranges_text(4) == (
        "10.0.0.1",
        "10.0.0.5-10.0.0.7",
    )


class FreeSetIsASet(RuleBasedStateMachine):
    """Any sequence of changes leaves a FreeSet with the members that a Python set has."""

    @initialize(start=ranges)
    def begin(self, start: list[tuple[int, int]]) -> None:
        self.free = FreeSet(IntervalSet(start))
        self.model = members(self.free)

    @rule(member=points)
    def add(self, member: int) -> None:
        assert self.free.add(member) == (member not in self.model)
        self.model.add(member)

    @rule(member=points)
    def discard(self, member: int) -> None:
        assert self.free.discard(member) == (member in self.model)
        self.model.discard(member)

    @rule()
    def take_lowest(self) -> None:
        assert self.free.take_lowest() == min(self.model, default=None)
        self.model -= {min(self.model, default=-1)}

    @rule(low=points, high=points)
    def discard_range(self, low: int, high: int) -> None:
        self.free.discard_range(low, high)
        self.model -= set(range(low, high + 1))

    @rule(start=points)
    def lowest_from(self, start: int) -> None:
        assert self.free.lowest_from(start) == min((m for m in self.model if m >= start), default=None)

    @invariant()
    def is_the_model(self) -> None:
        if hasattr(self, "free"):
            assert members(self.free) == self.model
            assert_canonical(self.free)
            assert all((member in self.free) == (member in self.model) for member in range(-1, TOP + 2))
            assert members(self.free.frozen()) == self.model


TestFreeSetIsASet = FreeSetIsASet.TestCase


@pytest.mark.parametrize("bits", [8, 22, 64, 128])
def test_a_huge_set_takes_as_many_intervals_as_a_small_one(bits: int) -> None:
    """A /24, a /10, an IPv6 /64 and all of IPv6: the same operations, the same number of intervals."""
    top = 2**bits - 1
    everything = IntervalSet([(0, top)])
    free = FreeSet(everything)
    middle = 2 ** (bits - 1)

    assert [free.take_lowest() for _ in range(3)] == [0, 1, 2]
    assert free.discard(middle)
    assert free.add(1)
    assert free.size == 2**bits - 3
    assert list(free) == [(1, 1), (3, middle - 1), (middle + 1, top)]
    assert list(everything.minus(IntervalSet([(0, 9), (middle, middle)]))) == [
        (10, middle - 1),
        (middle + 1, top),
    ]
    assert list(everything.intersect(IntervalSet([(5, top * 2)]))) == [(5, top)]
    assert everything.size == 2**bits
