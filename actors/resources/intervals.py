"""Sets of integers as sorted, disjoint, inclusive intervals: `IntervalSet` (a value) and `FreeSet` (it
changes).

What must always hold:

* Intervals are sorted, do not overlap and do not touch: there is exactly one form for each set, so equality
  of sets is equality of intervals.
* Nothing enumerates members. Cost and memory depend on the number of intervals, never on how many addresses
  they span: a full /10 or IPv6 /64 is one interval.
* Membership is a binary search.

`len()` is not offered: CPython limits it to 2**63-1 and an IPv6 /64 has more. Use `.size`.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from typing import TypeAlias

from actors.resources.addresses import format_range

Interval: TypeAlias = tuple[int, int]
"""(low, high), both inside"""


class IntervalSet:
    """An immutable set of integers."""

    __slots__ = ("_highs", "_lows", "size")

    _lows: tuple[int, ...]
    _highs: tuple[int, ...]
    size: int
    """How many integers are in it."""

    def __init__(self, intervals: Iterable[Interval] = ()) -> None:
        """`intervals` in any order, overlapping or touching as they like. A ValueError if one ends before it
        starts."""
        lows: list[int] = []
        highs: list[int] = []
        for low, high in sorted(intervals):
            if high < low:
                raise ValueError(f"interval {low}-{high} ends before it starts")
            if highs and low <= highs[-1] + 1:
                highs[-1] = max(highs[-1], high)
            else:
                lows.append(low)
                highs.append(high)
        self._lows = tuple(lows)
        self._highs = tuple(highs)
        self.size = sum(highs) - sum(lows) + len(lows)

    def __iter__(self) -> Iterator[Interval]:
        """The intervals from low to high; never the single members."""
        return zip(self._lows, self._highs, strict=True)

    def __contains__(self, member: int) -> bool:
        index = bisect_right(self._lows, member) - 1
        return index >= 0 and member <= self._highs[index]

    def __bool__(self) -> bool:
        return bool(self._lows)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, IntervalSet):
            return NotImplemented
        return self._lows == other._lows and self._highs == other._highs

    def __hash__(self) -> int:
        return hash((self._lows, self._highs))

    def __repr__(self) -> str:
        return f"IntervalSet({list(self)})"

    @property
    def intervals(self) -> int:
        """How many intervals it takes."""
        return len(self._lows)

    @property
    def first(self) -> int | None:
        """The lowest member."""
        return self._lows[0] if self._lows else None

    @property
    def last(self) -> int | None:
        """The highest member."""
        return self._highs[-1] if self._highs else None

    def contains(self, member: int) -> bool:
        return member in self

    def lowest_from(self, start: int) -> int | None:
        """The lowest member that is `start` or above."""
        index = bisect_left(self._highs, start)
        return max(start, self._lows[index]) if index < len(self._lows) else None

    def union(self, other: Iterable[Interval]) -> IntervalSet:
        """What is in either."""
        return IntervalSet((*self, *other))

    def intersect(self, other: IntervalSet) -> IntervalSet:
        """What is in both."""
        if not self or not other:
            return IntervalSet()
        common: list[Interval] = []
        # Few addresses of a pool are looked for in all that a subnet has given out: what lies before them is skipped.
        i, j = bisect_left(self._highs, other._lows[0]), bisect_left(other._highs, self._lows[0])
        while i < len(self._lows) and j < len(other._lows):
            low = max(self._lows[i], other._lows[j])
            high = min(self._highs[i], other._highs[j])
            if low <= high:
                common.append((low, high))
            if self._highs[i] < other._highs[j]:
                i += 1
            else:
                j += 1
        return IntervalSet(common)

    def minus(self, other: IntervalSet) -> IntervalSet:
        """What is in this one alone."""
        left: list[Interval] = []
        j = bisect_left(other._highs, self._lows[0]) if self else 0
        for low, high in self:
            while j < len(other._highs) and other._highs[j] < low:
                j += 1
            k = j
            while k < len(other._lows) and other._lows[k] <= high:
                if low < other._lows[k]:
                    left.append((low, other._lows[k] - 1))
                low = other._highs[k] + 1
                k += 1
            if low <= high:
                left.append((low, high))
        return IntervalSet(left)

    def ranges_text(self, family: int) -> tuple[str, ...]:
        """The intervals as `spec.ips` writes them: "10.6.0.10" and "10.6.0.20-10.6.0.29"."""
        return tuple(format_range(family, low, high) for low, high in self)


class FreeSet:
    """A mutable set of integers, for one owner: what a pool has left. Not safe for use from several threads.

    Finding is a binary search. Changing moves at most the arrays' tails (a memmove of 8 bytes an interval),
    which for the 10,000 intervals of a badly fragmented pool is a microsecond or two; a tree would only be
    slower.
    """

    __slots__ = ("_highs", "_lows", "size")

    _lows: list[int]
    _highs: list[int]
    size: int
    """How many integers are in it."""

    def __init__(self, start: IntervalSet | None = None) -> None:
        start = start or IntervalSet()
        self._lows = [low for low, _ in start]
        self._highs = [high for _, high in start]
        self.size = start.size

    def __iter__(self) -> Iterator[Interval]:
        """The intervals from low to high. Do not change the set meanwhile."""
        return zip(self._lows, self._highs, strict=True)

    def __contains__(self, member: int) -> bool:
        index = bisect_right(self._lows, member) - 1
        return index >= 0 and member <= self._highs[index]

    def __bool__(self) -> bool:
        return bool(self._lows)

    def __repr__(self) -> str:
        return f"FreeSet({list(self)})"

    @property
    def intervals(self) -> int:
        """How many intervals it takes."""
        return len(self._lows)

    @property
    def first(self) -> int | None:
        """The lowest member."""
        return self._lows[0] if self._lows else None

    def frozen(self) -> IntervalSet:
        """The members now, as a value."""
        return IntervalSet(self)

    def lowest_from(self, start: int) -> int | None:
        """The lowest member that is `start` or above."""
        index = bisect_left(self._highs, start)
        return max(start, self._lows[index]) if index < len(self._lows) else None

    def take_lowest(self) -> int | None:
        """Remove and return the lowest member; None when there is none."""
        if not self._lows:
            return None
        member = self._lows[0]
        self.discard(member)
        return member

    def discard(self, member: int) -> bool:
        """Remove one; False if it was not there."""
        index = bisect_right(self._lows, member) - 1
        if index < 0 or member > self._highs[index]:
            return False
        low, high = self._lows[index], self._highs[index]
        if low == high:
            del self._lows[index], self._highs[index]
        elif member == low:
            self._lows[index] = member + 1
        elif member == high:
            self._highs[index] = member - 1
        else:
            self._highs[index] = member - 1
            self._lows.insert(index + 1, member + 1)
            self._highs.insert(index + 1, high)
        self.size -= 1
        return True

    def add(self, member: int) -> bool:
        """Put one in; False if it was there."""
        index = bisect_right(self._lows, member)
        if index and member <= self._highs[index - 1]:
            return False
        touches_below = index > 0 and self._highs[index - 1] == member - 1
        touches_above = index < len(self._lows) and self._lows[index] == member + 1
        if touches_below and touches_above:
            self._highs[index - 1] = self._highs[index]
            del self._lows[index], self._highs[index]
        elif touches_below:
            self._highs[index - 1] = member
        elif touches_above:
            self._lows[index] = member
        else:
            self._lows.insert(index, member)
            self._highs.insert(index, member)
        self.size += 1
        return True

    def discard_range(self, low: int, high: int) -> None:
        """Remove every member from `low` to `high`, both included."""
        start = bisect_left(self._highs, low)
        stop = bisect_right(self._lows, high)
        if start >= stop or low > high:
            return
        left, right = self._lows[start], self._highs[stop - 1]
        kept = [(a, b) for a, b in ((left, low - 1), (high + 1, right)) if a <= b]
        self.size -= sum(self._highs[start:stop]) - sum(self._lows[start:stop]) + (stop - start)
        self.size += sum(b - a + 1 for a, b in kept)
        self._lows[start:stop] = [a for a, _ in kept]
        self._highs[start:stop] = [b for _, b in kept]
