"""The leader's actors around SpiderSubnets, on a real store, with faults where a test wants them; a process can end and
another one take its place."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from actors.allocation.block_writer import BlockActor, block_of
from actors.allocation.ledger import LedgerActor, ledger_of
from actors.allocation.observer import Silent
from actors.allocation.router import AlwaysLocal
from actors.allocation.supervision import TABLE
from actors.decisions.auto_pool import Size, pool_affinity, pool_annotations, pool_labels
from actors.resources.addresses import Address, format_address, parse_address
from actors.resources.admission import SPIDERPOOL
from actors.resources.application import Application
from actors.resources.blocks.block import Claim, Granted, Release
from actors.resources.blocks.record import Fence, Record
from actors.resources.intervals import IntervalSet
from actors.resources.ippool import IPPool
from actors.resources.subnet import SpiderSubnet
from actors.runtime import ActorSystem, get
from actors.store.caches.catalog import Catalog
from actors.store.caches.informer import ObjectKey
from actors.store.contract import Object, Store
from actors.store.sqlite.store import SQLiteStore
from actors.subnets.messages import AutoPool, EnsureAnswer
from actors.subnets.subnets import SubnetFollower
from actors.views.events import EventsActor
from actors.views.views import ViewsActor
from tests.support.checker import eventually

TIMEOUT = 60.0


def subnet(name: str = "rack", *ips: str, cidr: str = "10.6.0.0/16", **spec: Any) -> dict[str, Any]:
    """A SpiderSubnet as kubectl would send it."""
    body = {"subnet": cidr, "ips": list(ips or ("10.6.0.1-10.6.0.9",)), **spec}
    return {"apiVersion": SPIDERPOOL, "kind": "SpiderSubnet", "metadata": {"name": name}, "spec": body}


def application(name: str = "web", uid: str = "1a2b3") -> Application:
    return Application("apps", "v1", "Deployment", "shop", name, uid)


def auto_pool(
    owner: Application, wanted: int, *, family: int = 4, reclaim: bool = True, spare: int = 1
) -> AutoPool:
    """What an application's part asks a subnet for."""
    name = f"auto{family}-{owner.name}-eth0-{owner.uid[-5:]}"
    return AutoPool(
        name,
        family,
        owner,
        wanted,
        pool_labels(owner, "eth0", reclaim=reclaim),
        pool_annotations(owner, Size(spare, beside_replicas=True)),
        pool_affinity(owner),
    )


class SubnetProcess:
    """One process that leads, from its start to its end. `leads`: what it believes."""

    def __init__(self, store: Store, *, leads: Callable[[], bool] = lambda: True, **actor: Any) -> None:
        self.store = store
        self.fatal: list[str] = []
        self.system = ActorSystem("leader", supervision=TABLE, on_fatal=self.fatal.append)
        self.catalog = Catalog(store, has_pods=False)
        system = self.system
        system.register("ledger", lambda context: LedgerActor(context, store=store), mailbox=65536, idle=None)
        system.register(
            "block",
            lambda context: BlockActor(context, store=store, observer=Silent(), shared=True),
            idle=60.0,
        )
        system.register(
            "events",
            lambda context: EventsActor(context, store=store, component="leader", host="node1"),
        )
        router = AlwaysLocal(system, alone=False)
        system.register(
            "views",
            lambda context: ViewsActor(
                context, router=router, store=store, catalog=self.catalog, follow=True
            ),
            mailbox=65536,
        )
        self.subnets = SubnetFollower(system, store, self.catalog, leads=leads, **actor)
        self.catalog.start()
        informer = self.subnets.start()
        self.catalog.informer("SpiderIPPool").subscribe(self._pool_changed)
        assert self.catalog.wait_synced(TIMEOUT)
        assert informer.wait_synced(TIMEOUT)
        get(system.get_actor("views/local").repair.remote(), TIMEOUT)
        self.subnets.lead()

    def _pool_changed(self, key: ObjectKey) -> None:
        self.system.get_actor("views/local").changed.remote((), (key.name,))

    def stop(self) -> None:
        """End at once, as a process that is killed: what it has not written is lost."""
        self.system.shutdown(0.0)
        self.subnets.stop()
        self.catalog.stop()


class SubnetRig:
    """The store, and the process that leads now."""

    def __init__(self, inner: SQLiteStore, store: Store, **actor: Any) -> None:
        self.inner, self.store, self._actor = inner, store, actor
        self.process = SubnetProcess(store, **actor)

    def restart(self, store: Store | None = None) -> None:
        """Another process takes over, on another store if one is given."""
        self.process.stop()
        self.store = store or self.store
        self.process = SubnetProcess(self.store, **self._actor)

    # What is asked.

    def ensure(self, pool: AutoPool, subnet: str = "rack") -> EnsureAnswer:
        return get(self.process.subnets.ensure(subnet, pool), TIMEOUT)

    def drop(self, pool: str, subnet: str = "rack") -> None:
        get(self.process.subnets.drop(subnet, pool), TIMEOUT)

    def claim(self, address: str, pool: str, pod: str = "shop/web-0") -> None:
        """Record an address for a pod, as a pool does that was asked for one."""
        family, value = parse_address(address)
        record = Record(pool, pod, "u", f"c-{address}", "eth0", "node1", "", "2025-01-31T12:00:00Z")
        block = block_of(self.process.system, Address(family, value)).within(TIMEOUT)
        assert isinstance(get(block.order(BlockActor.claim, Claim(value, record))), Granted)

    def release(self, address: str) -> None:
        family, value = parse_address(address)
        (held,) = [
            allocation
            for allocation in get(ledger_of(self.process.system).within(TIMEOUT).ask(LedgerActor.everything))
            if (allocation.family, allocation.value) == (family, value)
        ]
        block = block_of(self.process.system, held.address).within(TIMEOUT)
        get(block.order(BlockActor.release, Release(value, Fence.of(held.record), time.time())))

    def used(self) -> dict[str, str]:
        """What is recorded, each address with its pool."""
        everything = get(ledger_of(self.process.system).within(TIMEOUT).ask(LedgerActor.everything))
        return {
            format_address(allocation.family, allocation.value): allocation.record.pool
            for allocation in everything
        }

    def edit(self, kind: str, name: str, **spec: Any) -> None:
        """Change fields of an object's spec, as a person does; None takes one away."""

        def change() -> None:
            current = self.inner.get(kind, name)
            body = {key: value for key, value in {**current["spec"], **spec}.items() if value is not None}
            self.inner.update({**current, "spec": body})

        eventually(change)

    # What is there.

    def subnet(self, name: str = "rack") -> SpiderSubnet:
        return SpiderSubnet.from_object(self.inner.get("SpiderSubnet", name))

    def pool(self, name: str) -> IPPool:
        return IPPool.from_object(self.inner.get("SpiderIPPool", name))

    def pools(self) -> dict[str, Object]:
        return {obj["metadata"]["name"]: obj for obj in self.inner.list("SpiderIPPool").items}

    def share(self, pool: str, name: str = "rack") -> list[str]:
        """What the subnet's status says that a pool has."""
        entry = self.subnet(name).controlled.get(pool)
        return list(entry.ips.ranges_text(4)) if entry is not None else []


@contextmanager
def subnet_rig(
    directory: Path,
    *objects: dict[str, Any],
    wrap: Callable[[Store], Store] = lambda store: store,
    **actor: Any,
) -> Iterator[SubnetRig]:
    """A leader on a new store with these objects. `actor`: options of the subnets. Views are written sooner than in earnest,
    so that tests need not wait."""
    inner = SQLiteStore(directory / "orbweaver.db")
    patch = pytest.MonkeyPatch()
    patch.setattr("actors.views.views.POOL_INTERVAL", 0.02)
    patch.setattr("actors.views.views.RETRY", 0.05)
    patch.setattr("actors.subnets.subnet.RETRY", 0.05)
    try:
        for obj in objects:
            inner.create(obj)
        subnet_rig = SubnetRig(inner, wrap(inner), **actor)
        try:
            yield subnet_rig
            assert subnet_rig.process.fatal == []
        finally:
            subnet_rig.process.stop()
    finally:
        patch.undo()
        inner.close()


def prove_division(store: Store, name: str = "rack") -> None:
    """No address is in two pools, and what the status says is what the pools have."""
    spider_subnet = SpiderSubnet.from_object(store.get("SpiderSubnet", name))
    pools = [IPPool.from_object(obj) for obj in store.list("SpiderIPPool").items]
    mine = {
        pool.name: pool.ips.minus(pool.exclude_ips) for pool in pools if pool.subnet == spider_subnet.subnet
    }
    taken = IntervalSet()
    for pool, ips in mine.items():
        assert not ips.intersect(taken), (pool, ips, mine)
        taken = taken.union(ips)
    assert {pool: entry.ips for pool, entry in spider_subnet.controlled.items()} == mine
    assert spider_subnet.allocated == taken.size
    assert not taken.minus(spider_subnet.listed)
