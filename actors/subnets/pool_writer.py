"""Writes the pools of one subnet, and knows which of them need no look into their objects.

How it works. The cache of pools is a moment behind what was written here, and has no annotations. So what was written is
remembered, and of the two the newer one counts; a pool whose object was written, or looked at, is left alone while nothing
of it and of the subnet changes, which saves reading it each time that a pod comes or goes.
What must always hold: every write is a compare-and-swap on the object that was read, and whoever writes led when it had been
read: a leader that stood still meanwhile may have divided the subnet as nobody does any more; a pool of another subnet, and one
that somebody made by hand under an application's name, is refused and not changed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from actors.errors import Conflict, InvalidObject, NotFound
from actors.resources.addresses import Subnet
from actors.resources.intervals import IntervalSet
from actors.resources.ippool import KIND, IPPool
from actors.resources.names import label_value
from actors.resources.subnet import OWNER_SUBNET, SpiderSubnet
from actors.store.caches.catalog import PoolTable
from actors.store.contract import Object, Store, version_number
from actors.subnets.messages import AutoPool
from actors.subnets.pool_objects import adopted_pool, automatic_pool

ATTEMPTS = 20
"""Writes of one pool, of which each found that somebody else had written meanwhile."""
NEWS_TIMEOUT = 10.0
"""Seconds after which the cache has heard of a pool that was written here, unless it is gone already."""


@dataclass(frozen=True, slots=True)
class WrittenPool:
    """A pool as it was written, or looked at, here. `request`: as the application wanted it; None for one that somebody made by
    hand. `generation`: of the subnet. `at`: monotonic seconds."""

    pool: IPPool
    request: AutoPool | None
    generation: int
    at: float


class PoolWriter:
    """Of one subnet. Several threads may write different pools; all else is for one thread."""

    def __init__(
        self,
        store: Store,
        on_new: Callable[[Object], object] = lambda obj: None,
        check_leads: Callable[[], object] = lambda: None,
    ) -> None:
        """`on_new`: is told of each pool that did not exist before, as it is stored. `check_leads`: raises `PeerLost` where
        this process does not lead; from any thread."""
        self._store = store
        self._on_new = on_new
        self._check_leads = check_leads
        self._written: dict[str, WrittenPool] = {}

    def forget(self, pool: str) -> None:
        """The cache says that the pool is gone."""
        self._written.pop(pool, None)

    def seen(self, name: str, table: PoolTable) -> IPPool | None:
        """A pool as the cache has it, or as it was written here, whichever is newer; None where there is none."""
        cached, written = table.pools.get(name), self._written.get(name)
        if written is None or (cached is not None and _is_newer(cached, written.pool)):
            return cached
        if cached is None and time.monotonic() > written.at + NEWS_TIMEOUT and not self.exists(name):
            del self._written[name]  # it came and went while nobody watched
            return None
        return written.pool

    def of_cidr(self, cidr: Subnet, table: PoolTable) -> Iterator[IPPool]:
        """Every pool that is written with a CIDR, in the order of names."""
        network = cidr.network  # tells most of thousands of pools apart, and quickly
        names = {
            name
            for name, pool in table.pools.items()
            if pool.subnet.network == network and pool.subnet == cidr
        }
        for name in sorted(names | self._written.keys()):
            pool = self.seen(name, table)
            if pool is not None and pool.subnet == cidr:
                yield pool

    def exists(self, pool: str) -> bool:
        """Whether the store has a pool."""
        try:
            self._store.get(KIND, pool)
        except NotFound:
            return False
        return True

    def delete(self, pool: IPPool) -> None:
        """Let a pool go with its last address. Raises `PeerLost`."""
        self._check_leads()
        try:
            self._store.delete(KIND, pool.name, uid=pool.uid or None)
        except NotFound:
            self.forget(pool.name)
        else:  # nobody may take it for one that stays before the cache knows
            self._written[pool.name] = WrittenPool(replace(pool, terminating=True), None, 0, time.monotonic())

    def write(
        self,
        name: str,
        present: IPPool | None,
        request: AutoPool | None,
        subnet: SpiderSubnet,
        subnet_object: Object,
        ips: IntervalSet,
    ) -> None:
        """Make one pool's object say what it should; `present`: what there is of it, `request`: as its application wants it, if
        one does. Raises `InvalidObject` or `WriteRefused` when it cannot be written so, `Conflict`, and `PeerLost`."""
        exists = present is not None
        for _ in range(ATTEMPTS):
            try:
                if exists:
                    stored = self._update(name, request, subnet, subnet_object, ips)
                else:
                    self._check_leads()
                    stored = self._store.create(automatic_pool(None, request, subnet, subnet_object, ips))
                    self._on_new(stored)
            except Conflict:
                exists = True  # somebody was faster: look at what he wrote
            except NotFound:
                exists = False
                if request is None:
                    return
            else:
                self._note(IPPool.from_object(stored), request, _generation(subnet_object))
                return
        raise Conflict(f"SpiderIPPool {name} was changed by others {ATTEMPTS} times in a row")

    def _update(
        self,
        name: str,
        request: AutoPool | None,
        subnet: SpiderSubnet,
        subnet_object: Object,
        ips: IntervalSet,
    ) -> Object:
        current = self._store.get(KIND, name)
        self._check_leads()  # behind the read: what another leader writes from now on is a conflict
        pool = IPPool.from_object(current)
        if pool.subnet != subnet.subnet:
            raise InvalidObject(f"there is a pool of this name in another subnet, {pool.subnet}")
        if pool.terminating:
            raise InvalidObject("it is being deleted; it can be made again when its last address is free")
        if request is not None and not pool.auto_created:
            raise InvalidObject("somebody made a pool of this name by hand")
        if pool.auto_created:
            wanted = automatic_pool(current, request, subnet, subnet_object, ips)
        else:
            wanted = adopted_pool(current, subnet, subnet_object)
        return self._store.update(wanted) if wanted != current else current

    def _note(self, pool: IPPool, request: AutoPool | None, generation: int) -> None:
        self._written[pool.name] = WrittenPool(pool, request, generation, time.monotonic())

    def is_written(
        self,
        present: IPPool,
        request: AutoPool | None,
        subnet: SpiderSubnet,
        subnet_object: Object,
        ips: IntervalSet,
    ) -> bool:
        """Whether the pool says what it should, as far as that can be told without its object."""
        generation = _generation(subnet_object)
        if present.auto_created and present.listed != ips:
            return False
        known = self._written.get(present.name)
        if known is None:
            if not _agrees(present, subnet, request):
                return False
            self._note(present, request, generation)
            return True
        return (known.request, known.generation) == (request, generation) and self.is_known(present)

    def is_known(self, pool: IPPool) -> bool:
        """Whether a pool is as it was written, or looked at, here, apart from its status."""
        known = self._written.get(pool.name)
        if known is None or known.pool is pool:
            return known is not None
        if replace(known.pool, version="") != replace(pool, version=""):
            return False
        if _is_newer(pool, known.pool):
            self._written[pool.name] = replace(known, pool=pool)  # to be compared no more
        return True


@dataclass(frozen=True, slots=True)
class PoolWrite:
    """What one pool's object is to say; the fields are those of `PoolWriter.write`."""

    pools: PoolWriter
    """Writes it."""
    name: str
    present: IPPool | None
    request: AutoPool | None
    subnet: SpiderSubnet
    subnet_object: Object
    ips: IntervalSet

    def is_done(self) -> bool:
        """Whether it says so already."""
        args = self.request, self.subnet, self.subnet_object, self.ips
        return self.present is not None and self.pools.is_written(self.present, *args)

    def run(self) -> None:
        """Write it. Raises what `PoolWriter.write` raises."""
        args = self.request, self.subnet, self.subnet_object, self.ips
        self.pools.write(self.name, self.present, *args)


def _generation(subnet_object: Object) -> int:
    return int(subnet_object["metadata"].get("generation") or 0)


def _agrees(pool: IPPool, subnet: SpiderSubnet, request: AutoPool | None) -> bool:
    """Whether a pool that this process never wrote has all that another leader of the same subnet would have given it."""
    labels = {OWNER_SUBNET: label_value(subnet.name), **dict(request.labels if request is not None else ())}
    return (
        all(pool.labels.get(key) == value for key, value in labels.items())
        and pool.gateway == subnet.gateway
        and pool.routes == subnet.routes
    )


def _is_newer(pool: IPPool, other: IPPool) -> bool:
    return version_number(pool.version) > version_number(other.version)
