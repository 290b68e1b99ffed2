"""The SpiderSubnets of a cluster: follows them and their pools, and tells each subnet's actor what concerns it.

What must always hold: an actor hears of every pool that is or was in its subnet, and only while this process leads; which
subnet a pool is in is asked of `subnet_pools.py` alone. Informers' threads do nothing here but send messages.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from actors.errors import OrbweaverError
from actors.resources.addresses import Subnet
from actors.resources.subnet import KIND, SpiderSubnet
from actors.runtime import ActorSystem, ObjectRef
from actors.store.caches.catalog import Catalog
from actors.store.caches.informer import Informer, ObjectKey
from actors.store.caches.unreadable import Unreadable, parsed, sorted_out
from actors.store.contract import Object, Store
from actors.subnets.messages import AutoPool, EnsureAnswer
from actors.subnets.subnet import GRACE, SubnetActor, subnet_actor_of

log = logging.getLogger("orbweaver.subnets")


@dataclass(frozen=True, slots=True)
class SubnetUsage:
    """One subnet, as its status counts."""

    subnet: str
    """Its name."""
    total: int
    """Addresses that pools can be made of."""
    allocated: int
    """Those that pools have."""
    pools: int
    """How many pools that are."""
    exhausted: bool
    """Whether one of them needs more than is left."""


class SubnetFollower:
    """One per process that may lead. `leads`: whether it does at this moment. All methods are safe to call from any
    thread."""

    def __init__(
        self,
        system: ActorSystem,
        store: Store,
        catalog: Catalog,
        *,
        leads: Callable[[], bool] = lambda: True,
        is_enabled: Callable[[int], bool] = lambda family: True,
        grace: float = GRACE,
    ) -> None:
        """Registers the actors `subnet/NAME`. `is_enabled`: whether addresses of a family are given out at all. `grace`: see
        `SubnetActor`."""
        self._system = system
        self._catalog = catalog
        self._leads = leads
        self._informer = Informer(store, KIND, transform=_parse, optional=True)
        self._table: tuple[tuple[Any, ...], dict[str, SpiderSubnet], dict[str, str]] = ((), {}, {})
        """What the cache had when it was sorted out: the subnets, and why others could not be parsed."""
        self._lock = threading.Lock()
        self._cidrs: dict[str, Subnet] = {}
        """The CIDR of each pool when it was seen last."""
        system.register(
            "subnet",
            lambda context: SubnetActor(
                context,
                store=store,
                catalog=catalog,
                subnets=self.table,
                may_write=leads,
                is_enabled=is_enabled,
                grace=grace,
            ),
            mailbox=65536,
            idle=300.0,
        )

    def start(self) -> Informer:
        """Follow subnets and pools; the informer, to wait for."""
        self._informer.subscribe(self._subnet_changed)
        self._catalog.informer("SpiderIPPool").subscribe(self._pool_changed)
        self._catalog.informer("SpiderReservedIP").subscribe(lambda _: self._reserved_changed())
        with self._lock:  # those that the cache had before, or nobody would be told when one of them goes
            for pool in self._catalog.pools().pools.values():
                self._cidrs.setdefault(pool.name, pool.subnet)
        self._informer.start()
        return self._informer

    def stop(self) -> None:
        """End the watch; the actors end with their system."""
        self._informer.stop()

    def lead(self) -> None:
        """Divide all subnets from now on: this process has come to lead."""
        for name in self._names():
            subnet_actor_of(self._system, name).within(None).ask(SubnetActor.begin).subscribe(_log_failure)

    def table(self) -> Mapping[str, SpiderSubnet]:
        """The subnets as the cache has them, by name."""
        return self._tabulated()[1]

    def damaged(self) -> Mapping[str, str]:
        """Those whose object cannot be parsed, and why."""
        return self._tabulated()[2]

    def _tabulated(self) -> tuple[tuple[Any, ...], dict[str, SpiderSubnet], dict[str, str]]:
        table, items = self._table, self._informer.items()
        if table[0] is not items:
            self._table = table = (items, *sorted_out(items))
        return table

    def subscribe(self, handler: Callable[[str], None]) -> None:
        """Call `handler`, on the informer's thread, with the name of each subnet that changed: also when addresses came back
        to it, because its status tells."""

        def changed(key: ObjectKey) -> None:
            handler(key.name)

        self._informer.subscribe(changed)

    def ensure(self, subnet: str, pool: AutoPool, timeout: float | None = None) -> ObjectRef[EnsureAnswer]:
        """Let an application have a pool out of a subnet; answered when it is stored. `timeout` in seconds, None for no
        limit."""
        return subnet_actor_of(self._system, subnet).within(timeout).order(SubnetActor.ensure, pool)

    def drop(self, subnet: str, pool: str, timeout: float | None = None) -> ObjectRef[None]:
        """An application needs its pool no more."""
        return subnet_actor_of(self._system, subnet).within(timeout).ask(SubnetActor.drop, pool)

    def content(self, subnet: str, pool: str, timeout: float | None = None) -> ObjectRef[None]:
        """An application for whose pool the subnet had too few addresses lacks none any more."""
        return subnet_actor_of(self._system, subnet).within(timeout).ask(SubnetActor.content, pool)

    def usage(self) -> Iterable[SubnetUsage]:
        """Every subnet's addresses, for metrics: as its status counts them."""
        for subnet in self.table().values():
            yield SubnetUsage(
                subnet.name, subnet.total, subnet.allocated, len(subnet.controlled), subnet.exhausted
            )

    def _names(self) -> Iterable[str]:
        return (*self.table(), *self.damaged())

    def _subnet_changed(self, key: ObjectKey) -> None:
        if self._leads():
            cached = self.table().get(key.name)
            actor = subnet_actor_of(self._system, key.name).within(None)
            version = cached.version if cached is not None else ""
            actor.ask(SubnetActor.changed, version).subscribe(_log_failure)

    def _pool_changed(self, key: ObjectKey) -> None:
        pool = self._catalog.pools().pools.get(key.name)
        with self._lock:
            cidrs = {self._cidrs.get(key.name), pool.subnet if pool is not None else None}
            if pool is not None:
                self._cidrs[key.name] = pool.subnet
            else:
                self._cidrs.pop(key.name, None)
        if self._leads():
            for subnet in self.table().values():
                if subnet.subnet in cidrs:
                    actor = subnet_actor_of(self._system, subnet.name).within(None)
                    actor.ask(SubnetActor.pool_changed, key.name).subscribe(_log_failure)

    def _reserved_changed(self) -> None:
        if self._leads():
            for name in self._names():
                subnet_actor_of(self._system, name).within(None).ask(SubnetActor.look).subscribe(_log_failure)


def _parse(obj: Object) -> SpiderSubnet | Unreadable:
    return parsed(SpiderSubnet.from_object, obj, "subnet")


def _log_failure(ref: ObjectRef[None]) -> None:
    error = ref.error()
    if isinstance(error, OrbweaverError):  # whatever happens next is looked at with everything else
        log.warning("a subnet was not told of a change", extra={"error": str(error)})
