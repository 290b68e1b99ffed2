"""Puts right what an audit found, with the actors that write the same things in earnest.

What must always hold: a record is released only by its own fence, and only after the pod that it names was read
again and is still gone; what a StatefulSet still wants is kept for it. Views are written by the Views actor, so that
they are what the agent would have written. Doing it twice changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from actors.audit import Finding, ReleaseRecord, WriteEndpoint, WriteStatus, why_gone, why_unwanted
from actors.block import BlockActor
from actors.decisions.inherit import owning_statefulset, still_wanted
from actors.errors import NotFound, OrbweaverError, StoreUnavailable
from actors.ledger import LedgerActor
from actors.messages import Held
from actors.observer import Silent
from actors.resources.addresses import format_address
from actors.resources.block import Release, Released, block_name
from actors.resources.pod import Pod
from actors.resources.record import Fence
from actors.resources.statefulset import StatefulSet
from actors.runtime import ActorSystem, get
from actors.seat import OnlyHere
from actors.store.catalog import Catalog
from actors.store.contract import Store
from actors.supervision import TABLE
from actors.views import POOL_INTERVAL, RETRY, ViewsActor

T = TypeVar("T", Pod, StatefulSet)

TIMEOUT = 20.0
SETTLE = POOL_INTERVAL + 2 * RETRY
"""Seconds after which the views that were asked for are written, unless the store is away."""


class Repairs:
    """The actors of one repair; `repairs` starts and ends them. `cluster`: pods have objects."""

    def __init__(self, store: Store, system: ActorSystem, *, cluster: bool) -> None:
        self._store = store
        self._system = system
        self._cluster = cluster

    def do(self, findings: Iterable[Finding]) -> Iterator[str]:
        """Repair what can be; tells of each thing that it did, or why it did not. Views follow within `SETTLE`."""
        pods: dict[str, None] = {}
        pools: dict[str, None] = {}
        for finding in findings:
            match finding.repair:
                case ReleaseRecord(held):
                    yield self._release(held)
                    pods[held.record.pod] = pools[held.record.pool] = None
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
        owner = owning_statefulset(record)
        statefulset = self._find("StatefulSet", owner, namespace, StatefulSet) if owner else None
        why = why_unwanted(record, statefulset)
        if why is None and self._cluster:
            why = why_gone(record, self._find("Pod", name, namespace, Pod))
        if why is None:
            return f"left {text} alone: pod {record.pod} is there again"
        keep = bool(record.container) and owner is not None and still_wanted(record, statefulset)
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
        return f"{'kept' if keep else 'released'} {text}{' for its StatefulSet' if keep else ''}: {why}"

    def _find(self, kind: str, name: str, namespace: str, parse: type[T]) -> T | None:
        """As it is now. Raises `InvalidObject` when it cannot be read: then nothing is known of it."""
        try:
            return parse.from_object(self._store.get(kind, name, namespace))
        except NotFound:
            return None


@contextmanager
def repairs(store: Store, *, cluster: bool) -> Iterator[Repairs]:
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
        yield Repairs(store, system, cluster=cluster)
    finally:
        system.shutdown(SETTLE)
        catalog.stop()
