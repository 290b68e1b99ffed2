"""Which pools have addresses in common, and whether an object may be stored beside those that are there.

Such pools never give one address twice, because an address is recorded in one place whatever pools there are; but
whoever made them should know. What must always hold: cost grows with the number of intervals, not with the number of
pairs: one pass over all intervals in order, in which a pool that knows `LIMIT` others is told of no more.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from actors.resources import ippool
from actors.resources.intervals import IntervalSet
from actors.resources.ippool import IPPool
from actors.resources.metadata import open_object
from actors.resources.space import parse_ranges, parse_subnet

LIMIT = 100
"""Other pools that are named for one pool, so that a status stays small."""
_RANGES_NAMED = 5
_NOTHING = IntervalSet()


def overlapping(pools: Iterable[IPPool], limit: int = LIMIT) -> dict[str, tuple[str, ...]]:
    """For each pool that shares addresses with others their names, sorted; of more than `limit` just so many."""
    overlaps: dict[str, set[str]] = {}
    every = list(pools)
    for family in (4, 6):
        spans = sorted(
            (low, high, pool.name) for pool in every if pool.family == family for low, high in pool.available
        )
        _sweep(spans, limit, overlaps)
    return {name: tuple(sorted(others)) for name, others in overlaps.items()}


def _sweep(spans: list[tuple[int, int, str]], limit: int, overlaps: dict[str, set[str]]) -> None:
    """`here`: the pools that have the address which the sweep has reached; `open_`: those of them that may learn of
    more. All of `here` overlap each other, so there are never many more than `limit` in `open_`."""
    ends: list[tuple[int, str]] = []
    here: dict[str, None] = {}
    open_: dict[str, None] = {}
    for low, high, name in spans:
        while ends and ends[0][0] < low:
            _, gone = heapq.heappop(ends)
            del here[gone]
            open_.pop(gone, None)
        for other in tuple(open_):
            others = overlaps.setdefault(other, set())
            others.add(name)
            if len(others) >= limit:
                del open_[other]
        mine = overlaps.setdefault(name, set()) if here else overlaps.get(name, set())
        # Those it knows already are fewer than the limit, so this many hold enough that are new.
        for other in islice(here, limit):
            if len(mine) >= limit:
                break
            mine.add(other)
        here[name] = None
        if len(mine) < limit:
            open_[name] = None
        heapq.heappush(ends, (high, name))


@dataclass(frozen=True, slots=True)
class Extent:
    """The addresses that one pool, or one subnet that pools are made of, has."""

    kind: str
    name: str
    family: int
    addresses: IntervalSet

    @property
    def title(self) -> str:
        return f"{self.kind} {self.name}"


def extent_of(obj: Mapping[str, Any]) -> Extent:
    """Of a SpiderIPPool or SpiderSubnet. Raises `InvalidObject`."""
    kind = str(obj.get("kind"))
    meta, top = open_object(obj, kind)
    if kind == ippool.KIND:
        pool = IPPool.from_object(obj)
        return Extent(kind, pool.name, pool.family, pool.available)
    spec = top.inner("spec")
    subnet = parse_subnet(spec)
    addresses = parse_ranges(spec, "ips", subnet).minus(parse_ranges(spec, "excludeIPs", subnet))
    return Extent(kind, meta.name, subnet.family, addresses)


def added(wanted: Extent, before: Extent | None) -> Extent:
    """What an edit adds: pools that overlap since before anybody looked may still be edited, and mended."""
    if before is None or before.family != wanted.family:
        return wanted
    return replace(wanted, addresses=wanted.addresses.minus(before.addresses))


def shared(extent: Extent, other: Extent) -> IntervalSet:
    """The addresses that both have, if they are two objects of one kind: a pool lies in the subnet that it is made of."""
    apart = extent.kind != other.kind or extent.name == other.name or extent.family != other.family
    if apart or not extent.addresses or not other.addresses:
        return _NOTHING
    return extent.addresses.intersect(other.addresses)


def refusal(wanted: Extent, other: Extent, common: IntervalSet) -> str:
    """Why an object cannot be stored beside another one: both, the addresses, and what helps."""
    ranges = common.ranges_text(wanted.family)
    more = f" and {len(ranges) - _RANGES_NAMED} more ranges" if len(ranges) > _RANGES_NAMED else ""
    return (
        f"{wanted.title}: spec.ips overlaps with {other.title} in {', '.join(ranges[:_RANGES_NAMED])}{more}; an address may be "
        f"in one {wanted.kind} only, so take it out of spec.ips or add it to spec.excludeIPs of one of them"
    )
