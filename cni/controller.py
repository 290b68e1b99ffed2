"""The controller: what one process does for the whole cluster.

It completes pools that were made with kubectl (address family, finalizer), writes every pool's status, lets a deleted
pool go with its last address, and takes back what StatefulSets leave behind. It allocates nothing: agents do, and go
on when there is no controller; then pool status stands still.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from actors.block import BlockActor
from actors.coordinator import CoordinatorActor
from actors.gc import GCActor
from actors.ledger import LedgerActor
from actors.runtime import get
from actors.seat import OnlyHere
from actors.store.contract import Store
from actors.views import ViewsActor
from cni.block_follower import BlockFollower
from cni.process import START_TIMEOUT, Process, log_failure

log = logging.getLogger("orbweaver.controller")

METRICS_PORT = 5721


@dataclass(frozen=True, slots=True)
class ControllerOptions:
    """`metrics_port`: 0 takes a free port, None serves no HTTP."""

    metrics_host: str = "127.0.0.1"
    metrics_port: int | None = METRICS_PORT
    drain: float = 10.0


class Controller(Process):
    """The actors of one controller process."""

    def __init__(self, store: Store, options: ControllerOptions) -> None:
        super().__init__(
            store,
            "controller",
            metrics_host=options.metrics_host,
            metrics_port=options.metrics_port,
            has_pods=False,
        )
        self.options = options
        system, catalog, observer = self.system, self.catalog, self.observer
        system.register("ledger", lambda context: LedgerActor(context, store=store), mailbox=65536, idle=None)
        system.register(
            "block",
            lambda context: BlockActor(context, store=store, observer=observer, shared=True),
            idle=60.0,
        )
        seat = OnlyHere(system, alone=False)
        system.register(
            "views",
            lambda context: ViewsActor(context, seat=seat, store=store, catalog=catalog, follow=True),
            mailbox=65536,
        )
        system.register(
            "gc",
            lambda context: GCActor(context, seat=seat, catalog=catalog, node="", observer=observer),
            mailbox=64,
        )
        system.register("coordinator", lambda context: CoordinatorActor(context, store=store), idle=None)
        self._blocks = BlockFollower(store, system)

    def start(self) -> None:
        """Load what is recorded, then work. Raises `StoreUnavailable` when that cannot be done in time."""
        self.start_caches()
        self._blocks.start(START_TIMEOUT)
        get(self.local("views").repair.options(timeout=START_TIMEOUT).remote())
        self.look_after_objects()
        self.catalog.informer("SpiderCoordinator").subscribe(lambda _: self._sync_coordinator())
        self._sync_coordinator()
        self.serving = True
        log.info(
            "working", extra={"pools": len(self.catalog.pools().pools), "metrics_port": self.metrics_port}
        )

    def _sync_coordinator(self) -> None:
        self.local("coordinator").sync.remote().subscribe(log_failure)

    def stop(self) -> None:
        """Finish what has begun, for a bounded time, then end."""
        self.serving = False
        self._blocks.stop()
        self.stop_actors(self.options.drain)
