"""The controller: what one process does for the whole cluster.

It completes pools that were made with kubectl (address family, finalizer), writes every pool's status, lets a deleted
pool go with its last address, and takes back addresses whose holder is gone without a DEL. It allocates nothing: agents
do, and go on when there is no controller; then pool status stands still, and nothing is taken back.
"""

from __future__ import annotations

import logging
import socket
from dataclasses import dataclass, field

from actors.block import BlockActor
from actors.coordinator import CoordinatorActor
from actors.decisions.settings import Settings
from actors.events import EventsActor
from actors.gc import GCActor
from actors.ledger import LedgerActor
from actors.runtime import get
from actors.seat import OnlyHere
from actors.store.census import Census
from actors.store.contract import Store
from actors.views import ViewsActor
from cni.block_follower import BlockFollower
from cni.gc_follower import GCFollower
from cni.process import START_TIMEOUT, Process, log_failure

log = logging.getLogger("orbweaver.controller")

METRICS_PORT = 5721


@dataclass(frozen=True, slots=True)
class ControllerOptions:
    """`metrics_port`: 0 takes a free port, None serves no HTTP."""

    metrics_host: str = "127.0.0.1"
    metrics_port: int | None = METRICS_PORT
    drain: float = 10.0
    settings: Settings = field(default_factory=Settings)


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
            "events",
            lambda context: EventsActor(
                context, store=store, component="orbweaver-controller", host=socket.gethostname()
            ),
            mailbox=4096,
        )
        census = Census(store, catalog)
        system.register(
            "gc",
            lambda context: GCActor(
                context, seat=seat, store=store, census=census, settings=options.settings, observer=observer
            ),
            mailbox=64,
            idle=None,
        )
        system.register("coordinator", lambda context: CoordinatorActor(context, store=store), idle=None)
        self._blocks = BlockFollower(store, system)
        self.gc = GCFollower(system, catalog, census)

    def start(self) -> None:
        """Load what is recorded, then work. Raises `StoreUnavailable` when that cannot be done in time."""
        self.start_caches()
        self._blocks.start(START_TIMEOUT)
        get(self.local("views").repair.options(timeout=START_TIMEOUT).remote())
        self.look_after_objects()
        self.catalog.informer("SpiderCoordinator").subscribe(lambda _: self._sync_coordinator())
        self._sync_coordinator()
        if self.options.settings.gc.enabled:
            self.gc.start()
        self.serving = True
        log.info(
            "working", extra={"pools": len(self.catalog.pools().pools), "metrics_port": self.metrics_port}
        )

    def _sync_coordinator(self) -> None:
        self.local("coordinator").sync.remote().subscribe(log_failure)

    def stop(self) -> None:
        """Finish what has begun, for a bounded time, then end."""
        self.serving = False
        self.gc.stop()
        self._blocks.stop()
        self.stop_actors(self.options.drain)
