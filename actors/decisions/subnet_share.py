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
    """What is known of addresses. `used`: a pod has them, or nobody can tell, or they are set aside; `released`: free since
    then (seconds since the epoch). Of all others nothing was ever seen."""

    used: IntervalSet = field(default_factory=IntervalSet)
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
        for low, high in _coldest(candidates, count, known.released):
            chosen.append((low, high))
            count -= high - low + 1
        if not count:
            break
    return IntervalSet(chosen)


def shrink(present: IntervalSet, count: int, known: KnownUse) -> IntervalSet:
    """What a pool gives back of `present`: so many addresses, or as many as are not used."""
    unused = present.minus(known.used)
    count = min(count, unused.size)
    seen = {value: at for value, at in known.released.items() if value in unused}
    never = unused.minus(_points(seen))
    given = list(_highest(never, count))
    left = count - sum(high - low + 1 for low, high in given)
    oldest = sorted(seen, key=lambda value: (seen[value], value))[:left]
    return IntervalSet([*given, *((value, value) for value in oldest)])


def _coldest(candidates: IntervalSet, count: int, released: Mapping[int, float]) -> Iterable[Interval]:
    """At most so many of the candidates: those never used from the lowest up, then those released longest ago."""
    if not candidates or not count:
        return
    seen = {value: at for value, at in released.items() if value in candidates}
    for low, high in _lowest(candidates.minus(_points(seen)), count):
        yield low, high
        count -= high - low + 1
    for value in sorted(seen, key=lambda value: (seen[value], value))[:count]:
        yield value, value


def _points(values: Iterable[int]) -> IntervalSet:
    return IntervalSet((value, value) for value in values)


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
