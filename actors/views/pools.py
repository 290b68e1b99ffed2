"""The status of pools, and what a pool that was made with kubectl lacks.

What must always hold: what another IPAM wrote into a status is truth until it is taken over; only then may a view take its
place. A pool that is being deleted goes with its last address.
"""

from __future__ import annotations

import json
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from actors.allocation.takeover import take_over
from actors.errors import InvalidObject
from actors.resources.addresses import format_address
from actors.resources.admission import FINALIZER, admit
from actors.resources.blocks.allocation import Allocation
from actors.resources.intervals import IntervalSet
from actors.resources.ippool import IPPool
from actors.resources.pool_status import DIGEST, digest_of
from actors.runtime import ActorSource
from actors.store.caches.catalog import Catalog
from actors.store.contract import Object, Store, version_number

log = logging.getLogger("orbweaver.views")

OVERLAPS, OVERLAP_COUNT = "overlaps", "overlapCount"
_LAST_MOST, _LISTED_MOST = 4096, 64
"""How many pools are remembered as they were stored, of so many addresses in use at most."""


@dataclass(frozen=True, slots=True)
class Written:
    """What became of one pool's status. `taken_over`: pods whose addresses were taken over instead, so that it is to be
    written again; `listed`: how many addresses the object lists, if it was written."""

    taken_over: tuple[str, ...] = ()
    listed: int = 0


@dataclass(frozen=True, slots=True)
class PoolViews:
    """Writes pools' status."""

    store: Store
    """Where it is written."""
    catalog: Catalog
    """Has the pools as a cache knows them."""
    actors: ActorSource
    """Where the Ledger and the Events are."""
    usage: Callable[[str], tuple[int, tuple[Allocation, ...]]]
    """How many addresses of a pool are recorded, and which, if they are not too many."""
    clock: Callable[[], float] = time.time
    """Seconds since the epoch."""
    last: OrderedDict[str, Object] = field(default_factory=OrderedDict)
    """Pools as they were stored when they were looked at last. Whoever changed one since has given it another version."""

    def write(self, name: str, overlaps: Sequence[str]) -> Written:
        """Make the status of a pool say what is recorded. Raises `NotFound`, `InvalidObject`, and what the store does."""
        obj = self.last.pop(name, None) or self.catalog.as_made(name)
        cached = self.catalog.pools().pools.get(name)
        if obj is None or cached is None or _version_of(obj) < version_number(cached.version):
            obj = self._completed(self.store.get("SpiderIPPool", name))
        return self._write(name, obj, overlaps)

    def _write(self, name: str, obj: Object, overlaps: Sequence[str]) -> Written:
        """The same of a pool that was read, or written, before: who changed it since is met as `Conflict`, or tells of it by
        an event."""
        pool = IPPool.from_object(obj)
        pods = take_over(pool, self.store, self.actors, self.clock, obj)
        if pods:
            return Written(taken_over=pods)
        count, held = self.usage(name)
        if obj["metadata"].get("deletionTimestamp") and not count:
            finalizers = [name for name in obj["metadata"].get("finalizers", ()) if name != FINALIZER]
            self.store.update({**obj, "metadata": {**obj["metadata"], "finalizers": finalizers}})
            log.info("pool removed with its last address", extra={"pool": name})
            return Written()
        before = obj.get("status") or {}
        foreign = {key: value for key, value in before.items() if key not in (OVERLAPS, OVERLAP_COUNT)}
        usable = pool.available.minus(self.catalog.reserved(pool.family))
        status = {**foreign, **pool_status(pool, usable, count, held, overlaps)}
        if status != before:
            obj = self.store.update_status({**obj, "status": status})
        if len(held) <= _LISTED_MOST:
            self.last[name] = obj
        if len(self.last) > _LAST_MOST:
            self.last.popitem(last=False)
        return Written(listed=len(held) if status != before else 0)

    def _completed(self, obj: Object) -> Object:
        """A pool that was made past `apply`, with kubectl, gets what `apply` would have added: defaults, finalizer."""
        if obj["metadata"].get("deletionTimestamp"):
            return obj
        try:
            admitted = admit(obj, obj)
        except InvalidObject as error:
            # Let in by the API server, or an edit that takes an address in use away: it serves as far as it can.
            log.warning(
                "a pool is not as it should be", extra={"pool": obj["metadata"]["name"], "error": str(error)}
            )
            return obj
        return self.store.update(admitted) if admitted != obj else obj


def _version_of(obj: Object) -> int:
    return version_number(obj["metadata"]["resourceVersion"])


def pool_status(
    pool: IPPool, usable: IntervalSet, count: int, held: Sequence[Allocation], overlaps: Sequence[str]
) -> dict[str, Any]:
    """The fields of a pool's status that are computed here; `held`: what is recorded, empty where that is too much to
    list."""
    listed = {
        format_address(allocation.family, allocation.value): {
            "pod": allocation.record.holder,
            "podUid": allocation.record.uid,
        }
        for allocation in held
    }
    allocated = json.dumps(listed, separators=(",", ":"))
    return {
        "allocatedIPs": allocated,
        DIGEST: digest_of(allocated),
        "allocatedIPCount": count,
        "totalIPCount": min(usable.size, 2**63 - 1),
        **({OVERLAPS: list(overlaps), OVERLAP_COUNT: len(overlaps)} if overlaps else {}),
    }
