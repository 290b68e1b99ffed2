"""One subnet divided among its pools: what each has, what is free, and what becomes of that when one grows or goes.

What must always hold: no address is in two pools' shares; what a pool holds for a pod is never taken out of its share; an
address that some other pool lists, whether it is of this subnet or not, is not free. Values in, values out: the actor
reads, writes, and asks again when it lost a race.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from actors.decisions.subnet_share import KnownUse, grow, shrink
from actors.resources.intervals import IntervalSet
from actors.resources.ippool import IPPool
from actors.resources.subnet import (
    CONTROLLED,
    FORMER,
    Controlled,
    SpiderSubnet,
    write_controlled,
    write_former,
)
from actors.subnets.messages import Exhausted

MOST = 2**63 - 1
"""What the API's integers hold: a large IPv6 subnet has more addresses."""
_NOTHING = IntervalSet()
_NAMED = 5
"""Pools that are named when a subnet is exhausted."""
_FORMER_RANGES, _FORMER_POOLS = 64, 1024
"""What is remembered of addresses that were given back: ranges of one pool, and pools."""


@dataclass(frozen=True, slots=True)
class SubnetUse:
    """What the blocks say of a subnet's addresses: `known` of all, and `held` for which pool each was recorded."""

    known: KnownUse = field(default_factory=KnownUse)
    held: Mapping[str, IntervalSet] = field(default_factory=dict)

    def of(self, pool: str) -> IntervalSet:
        """What is recorded out of a pool."""
        return self.held.get(pool, _NOTHING)

    def of_others(self, pool: str, ips: IntervalSet) -> IntervalSet:
        """Which of these are recorded out of another pool than this one."""
        elsewhere = ips.intersect(self.known.used).minus(self.of(pool))
        if not elsewhere:  # as nearly always; there may be thousands of pools
            return _NOTHING
        return elsewhere.intersect(
            IntervalSet(span for name, held in self.held.items() if name != pool for span in held)
        )


class SubnetShares:
    """`pools`: all that list addresses of the subnet, as they are stored."""

    def __init__(
        self, subnet: SpiderSubnet, reserved: IntervalSet, pools: Iterable[IPPool], use: SubnetUse
    ) -> None:
        self.subnet = subnet
        self.controlled = dict(subnet.controlled)
        self.former = dict(subnet.former)
        self._use = use
        self._usable = subnet.available.minus(reserved)
        given = [span for entry in self.controlled.values() for span in entry.ips]
        elsewhere = [span for pool in pools for span in pool.listed.minus(self.share(pool.name))]
        self._free = self._usable.minus(IntervalSet([*given, *elsewhere]))

    @property
    def free(self) -> int:
        """How many addresses no pool has."""
        return self._free.size

    @property
    def left(self) -> int:
        """How many addresses a pool could have now: free, and not used by a pod without a pool."""
        return self._free.minus(self._use.known.used).size

    @property
    def allocated(self) -> int:
        """How many addresses pools have."""
        return sum(entry.ips.size for entry in self.controlled.values())

    def share(self, pool: str) -> IntervalSet:
        """What a pool has."""
        entry = self.controlled.get(pool)
        return entry.ips if entry is not None else _NOTHING

    def ensure(self, pool: str, application: str, wanted: int) -> Exhausted | None:
        """Let a pool have at least `wanted` addresses; what says why not, and then nothing has changed."""
        kept = self._kept(pool)
        missing = wanted - kept.size
        if missing <= 0 and self.controlled.get(pool) == Controlled(kept, application):
            return None  # as with most pools of most looks
        more: IntervalSet | None = _NOTHING
        if missing > 0:
            others = [span for name, ips in self.former.items() if name != pool for span in ips]
            own = self.former.get(pool, _NOTHING)
            free, known = self._free.minus(kept), self._use.known
            more = grow(free, missing, known, own=own, wanted_by_others=IntervalSet(others))
        if more is None:
            return self._exhausted(missing)
        self._set(pool, Controlled(kept.union(more), application))
        return None

    def _kept(self, pool: str) -> IntervalSet:
        """What a pool has and may have, and what its pods hold although it has lost it; not what a pod of the pool that had it
        before got in the moment in which that one shrank."""
        held, had = self._use.of(pool), self.share(pool)
        had = had.minus(self._use.of_others(pool, had))
        if not held.minus(had) and not had.minus(self._usable):
            return had
        return had.intersect(self._usable.union(held)).union(held.intersect(self._free))

    def excess(self, pool: str, wanted: int) -> IntervalSet:
        """What a pool can give back now to have no more than `wanted`."""
        share = self.share(pool)
        if share.size <= wanted:
            return _NOTHING
        return shrink(share, share.size - wanted, self._use.known)

    def give_back(self, pool: str, addresses: IntervalSet) -> None:
        """A pool has these no more, and gets them again first."""
        entry = self.controlled[pool]
        former = self.former.get(pool, _NOTHING).union(addresses.intersect(entry.ips))
        self._set(pool, Controlled(entry.ips.minus(addresses), entry.application))
        self.former.pop(pool, None)
        self.former[pool] = IntervalSet(list(former)[:_FORMER_RANGES])
        while len(self.former) > _FORMER_POOLS:
            del self.former[next(iter(self.former))]

    def adopt(self, pool: IPPool, application: str = "") -> None:
        """Take note of what a pool lists that somebody else made: as much of it as no other pool has."""
        others = IntervalSet(
            span for name, entry in self.controlled.items() if name != pool.name for span in entry.ips
        )
        mine = pool.listed.intersect(self.subnet.available).minus(others)
        self._set(pool.name, Controlled(mine, application))

    def drop(self, pool: str) -> None:
        """A pool is gone."""
        self._set(pool, None)
        self.former.pop(pool, None)

    def _set(self, pool: str, entry: Controlled | None) -> None:
        before = self.share(pool)
        now = entry.ips if entry is not None else _NOTHING
        if entry is None:
            self.controlled.pop(pool, None)
        else:
            self.controlled[pool] = entry
        added = now.minus(before)
        self._free = self._free.union(before.minus(now).intersect(self._usable)).minus(added)
        if added:
            for name, ips in tuple(self.former.items()):
                if left := ips.minus(added):
                    self.former[name] = left
                else:
                    del self.former[name]

    def _exhausted(self, missing: int) -> Exhausted:
        largest = sorted(self.controlled.items(), key=lambda item: (-item[1].ips.size, item[0]))
        holders = tuple((name, entry.ips.size) for name, entry in largest[:_NAMED] if entry.ips)
        return Exhausted(self.subnet.name, missing, self.left, holders)


def status_of(
    before: Mapping[str, Any], shares: SubnetShares, conditions: list[dict[str, Any]] | None
) -> dict[str, Any]:
    """A SpiderSubnet's status, in Spiderpool's fields, that says how the subnet is divided. What others wrote beside it stays.
    `allocatedIPCount` counts what pools have, not what pods have."""
    family = shares.subnet.family
    computed: dict[str, Any] = {
        CONTROLLED: write_controlled(shares.controlled, family),
        FORMER: write_former(shares.former, family),
        "totalIPCount": min(shares.free + shares.allocated, MOST),
        "allocatedIPCount": min(shares.allocated, MOST),
        "conditions": conditions,
    }
    return {key: value for key, value in {**before, **computed}.items() if value is not None}
