"""Puts right what an audit found, with the actors that write the same things in earnest.

What must always hold: a record is released only by its own fence, and only after the pod that it names was read
again and is still gone; what a StatefulSet still wants is kept for it. Views are written by the Views actor, so that
they are what the agent would have written. Doing it twice changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from actors.audit import Finding, ReleaseRecord, WriteEndpoint, WriteStatus, why_gone, why_unwanted
from actors.block import BlockActor
from actors.decisions.inherit import owning_statefulset, still_wanted
from actors.decisions.settings import Settings
from actors.errors import NoSuchResource, NotFound, OrbweaverError, StoreUnavailable
from actors.ledger import LedgerActor
from actors.messages import Held
from actors.observer import Silent
from actors.resources.addresses import format_address
from actors.resources.block import Release, Released, block_name
from actors.resources.pod import Pod
from actors.resources.record import Fence, Record
from actors.resources.statefulset import StatefulSet
from actors.resources.virtualmachine import INSTANCE, MACHINE, VirtualMachine, lives
from actors.runtime import ActorSystem, get
from actors.seat import OnlyHere
from actors.store.catalog import Catalog
from actors.store.contract import Object, Store
from actors.supervision import TABLE
from actors.views import POOL_INTERVAL, RETRY, ViewsActor

T = TypeVar("T")

TIMEOUT = 20.0
SETTLE = POOL_INTERVAL + 2 * RETRY
"""Seconds after which the views that were asked for are written, unless the store is away."""


class Repairs:
    """The actors of one repair; `repairs` starts and ends them. `cluster`: pods have objects."""

    def __init__(self, store: Store, system: ActorSystem, settings: Settings, *, cluster: bool) -> None:
        self._store = store
        self._system = system
        self._settings = settings
        self._cluster = cluster

    def do(self, findings: Iterable[Finding]) -> Iterator[str]:
        """Repair what can be; tells of each thing that it did, or why it did not. Views follow within `SETTLE`."""
        pods: dict[str, None] = {}
        pools: dict[str, None] = {}
        for finding in findings:
            match finding.repair:
                case ReleaseRecord(held):
                    yield self._release(held)
                    pods[held.record.holder] = pools[held.record.pool] = None
                case WriteEndpoint(pod):
                    yield f"writing the SpiderEndpoint of pod {pod}"
                    pods[pod] = None
                case WriteStatus(pool):
                    if pool not in pools:
                        yield f"writing the status of pool {pool}"
                    pools[pool] = None
                case None:
                    continue
        if pods or pools:
            views = self._system.get_actor("views/local")
            get(views.changed.options(timeout=TIMEOUT).remote(tuple(pods), tuple(pools)))

    def _release(self, held: Held) -> str:
        text, record = format_address(held.family, held.value), held.record
        namespace, _, name = record.pod.partition("/")
        wanted = self._wanted(record)
        why = why_unwanted(record, wanted)
        if why is None and self._cluster:
            why = why_gone(record, self._find("Pod", name, namespace, Pod.from_object))
        if why is None:
            return f"left {text} alone: pod {record.pod} is there again"
        keep = bool(record.container) and wanted
        # Nobody knows whether the pod's containers ended; whoever gets the address next probes it first.
        forced = bool(record.container) and not keep
        release = Release(held.value, Fence.of(record), time.time(), keep, forced)
        block = self._system.get_actor("block/" + block_name(held.family, held.value))
        try:
            released: Released = get(block.release.options(timeout=TIMEOUT).remote(release))
        except OrbweaverError as error:
            return f"could not release {text}: {error}"
        if not released.done:
            return f"left {text} alone: what was recorded there is gone"
        return f"{'kept' if keep else 'released'} {text}{f' for {_whose(record)}' if keep else ''}: {why}"

    def _wanted(self, record: Record) -> bool:
        """Whether its StatefulSet or virtual machine is there and may come back for the address."""
        namespace = record.pod.partition("/")[0]
        if record.machine:
            name = record.machine
            machine = self._find(MACHINE, name, namespace, VirtualMachine.from_machine)
            instance = self._find(INSTANCE, name, namespace, VirtualMachine.from_instance)
            return self._settings.enable_kubevirt and lives(machine, instance)
        owner = owning_statefulset(record)
        if owner is None:
            return False
        found = self._find("StatefulSet", owner, namespace, StatefulSet.from_object)
        return still_wanted(record, found, self._settings)

    def _find(self, kind: str, name: str, namespace: str, parse: Callable[[Object], T]) -> T | None:
        """As it is now. Raises `InvalidObject` when it cannot be read: then nothing is known of it."""
        try:
            return parse(self._store.get(kind, name, namespace))
        except (NotFound, NoSuchResource):
            return None


def _whose(record: Record) -> str:
    return f"virtual machine {record.holder}" if record.machine else "its StatefulSet"


@contextmanager
def repairs(store: Store, settings: Settings, *, cluster: bool) -> Iterator[Repairs]:
    """Raises `StoreUnavailable` when the store does not list its objects in time."""
    catalog = Catalog(store, has_pods=False)
    system = ActorSystem("repair", supervision=TABLE)
    system.register("ledger", lambda context: LedgerActor(context, store=store), mailbox=65536, idle=None)
    system.register(
        "block", lambda context: BlockActor(context, store=store, observer=Silent(), shared=True), idle=60.0
    )
    seat = OnlyHere(system, alone=False)
    system.register(
        "views",
        lambda context: ViewsActor(context, seat=seat, store=store, catalog=catalog),
        mailbox=65536,
    )
    try:
        catalog.start()
        if not catalog.wait_synced(TIMEOUT):
            raise StoreUnavailable(f"the store did not list its objects within {TIMEOUT:g} s")
        yield Repairs(store, system, settings, cluster=cluster)
    finally:
        system.shutdown(SETTLE)
        catalog.stop()
