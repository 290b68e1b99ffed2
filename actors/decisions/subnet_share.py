"""Which addresses of a subnet a pool gets when it grows, and which it gives back when it shrinks.

Growing. First those that the pool gave back before, because firewalls know them as its own; then those that no pool would
like to have again; then the rest. Within each of these an address that was never used goes first, the lowest one, then the
one that was released longest ago, so that neighbours have time to forget it.

Shrinking. Addresses that pods use stay, whatever is asked. Of the others those that were never used go first, the highest
one, because nobody knows them; then the one that was released longest ago.

What must always hold: pure, and nothing enumerates addresses: cost grows with the number of intervals and with how many
addresses are known to have been used, never with the size of a subnet.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from actors.resources.intervals import Interval, IntervalSet

_NOTHING = IntervalSet()


@dataclass(frozen=True, slots=True)
class KnownUse:
    """What is known of addresses. `used`: a pod has them, or nobody can tell, or they are set aside; `cooling`: they are
    free, and `released` says since when (seconds since the epoch). Of all others nothing was ever seen."""

    used: IntervalSet = field(default_factory=IntervalSet)
    cooling: IntervalSet = field(default_factory=IntervalSet)
    released: Mapping[int, float] = field(default_factory=dict)


def grow(
    free: IntervalSet,
    count: int,
    known: KnownUse,
    *,
    own: IntervalSet = _NOTHING,
    wanted_by_others: IntervalSet = _NOTHING,
) -> IntervalSet | None:
    """So many addresses out of `free`, which no pool has; None where there are not as many. `own`: what this pool gave back
    before; `wanted_by_others`: what other pools did."""
    left = free.minus(known.used)
    if left.size < count:
        return None
    preferred = left.intersect(own)
    others = left.minus(preferred).intersect(wanted_by_others)
    chosen: list[Interval] = []
    for candidates in (preferred, left.minus(preferred).minus(others), others):
        for low, high in _coldest(candidates, count, known):
            chosen.append((low, high))
            count -= high - low + 1
        if not count:
            break
    return IntervalSet(chosen)


def shrink(present: IntervalSet, count: int, known: KnownUse) -> IntervalSet:
    """What a pool gives back of `present`: so many addresses, or as many as are not used."""
    unused = present.minus(known.used)
    count = min(count, unused.size)
    given = list(_highest(unused.minus(known.cooling), count))
    left = count - sum(high - low + 1 for low, high in given)
    return IntervalSet([*given, *_oldest(unused.intersect(known.cooling), left, known.released)])


def _coldest(candidates: IntervalSet, count: int, known: KnownUse) -> Iterable[Interval]:
    """At most so many of the candidates: those never used from the lowest up, then those released longest ago."""
    for low, high in _lowest(candidates.minus(known.cooling), count):
        yield low, high
        count -= high - low + 1
    yield from _oldest(candidates.intersect(known.cooling), count, known.released)


def _oldest(cooling: IntervalSet, count: int, released: Mapping[int, float]) -> Iterable[Interval]:
    if count <= 0:
        return
    members = (
        value for low, high in cooling for value in range(low, high + 1)
    )  # each of them was once a pod's
    for value in sorted(members, key=lambda value: (released[value], value))[:count]:
        yield value, value


def _lowest(addresses: IntervalSet, count: int) -> Iterable[Interval]:
    for low, high in addresses:
        if count <= 0:
            return
        high = min(high, low + count - 1)
        yield low, high
        count -= high - low + 1


def _highest(addresses: IntervalSet, count: int) -> Iterable[Interval]:
    for low, high in reversed(tuple(addresses)):
        if count <= 0:
            return
        low = max(low, high - count + 1)
        yield low, high
        count -= high - low + 1
