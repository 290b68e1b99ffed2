"""Which pools have addresses in common.

Such pools never give one address twice, because an address is recorded in one place whatever pools there are; but
whoever made them should know. What must always hold: cost grows with the number of intervals, not with the number of
pairs: one pass over all intervals in order, in which a pool that knows `LIMIT` others is told of no more.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from itertools import islice

from actors.resources.ippool import IPPool

LIMIT = 100
"""Other pools that are named for one pool, so that a status stays small."""


def overlapping(pools: Iterable[IPPool], limit: int = LIMIT) -> dict[str, tuple[str, ...]]:
    """For each pool that shares addresses with others their names, sorted; of more than `limit` just so many."""
    found: dict[str, set[str]] = {}
    every = list(pools)
    for family in (4, 6):
        spans = sorted(
            (low, high, pool.name) for pool in every if pool.family == family for low, high in pool.available
        )
        _sweep(spans, limit, found)
    return {name: tuple(sorted(others)) for name, others in found.items()}


def _sweep(spans: list[tuple[int, int, str]], limit: int, found: dict[str, set[str]]) -> None:
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
            others = found.setdefault(other, set())
            others.add(name)
            if len(others) >= limit:
                del open_[other]
        mine = found.setdefault(name, set()) if here else found.get(name, set())
        # Those it knows already are fewer than the limit, so this many hold enough that are new.
        for other in islice(here, limit):
            if len(mine) >= limit:
                break
            mine.add(other)
        here[name] = None
        if len(mine) < limit:
            open_[name] = None
        heapq.heappush(ends, (high, name))
