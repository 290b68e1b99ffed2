"""The agent: one process tree on a node that answers CNI requests out of a store.

What must always hold: nothing is served before the blocks are indexed and the caches have listed; the parts stop in
the order in which requests pass through them, so that what was accepted is answered. `standalone` runs every actor
in this process on the store that it is given; nothing here knows which store that is.
"""

from __future__ import annotations

import logging
import os
import socket
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from actors.block import BlockActor
from actors.decisions.annotations import read_default_route_nic
from actors.decisions.settings import Settings
from actors.endpoint import EndpointActor
from actors.errors import OrbweaverError, StoreUnavailable
from actors.gc import GCActor
from actors.ledger import LedgerActor
from actors.observer import Guarded
from actors.pool import PoolActor
from actors.runtime import ActorSystem, ObjectRef, get
from actors.store.catalog import Catalog
from actors.store.contract import Store
from actors.store.informer import Key
from actors.supervision import TABLE
from actors.views import ViewsActor
from cni.dataplane.coordinator import Coordinator
from cni.dataplane.workers import Workers
from cni.frontend import FrontEnd
from cni.protocol import CniRequest
from metrics.http import HealthServer
from metrics.prometheus import Metrics, PoolUsage

log = logging.getLogger("orbweaver.agent")

SOCKET = Path("/var/run/spidernet/spiderpool.sock")
METRICS_PORT = 5711
START_TIMEOUT = 30.0
SCRAPE_TIMEOUT = 5.0


@dataclass(frozen=True, slots=True)
class AgentOptions:
    """What an agent needs to know. `metrics_port`: 0 takes a free port, None serves no HTTP. `timeout`: seconds in
    which every CNI request is answered."""

    node: str = field(default_factory=socket.gethostname)
    cni_socket: Path = SOCKET
    metrics_host: str = "127.0.0.1"
    metrics_port: int | None = METRICS_PORT
    timeout: float = 20.0
    drain: float = 10.0
    settings: Settings = field(default_factory=Settings)


class Agent:
    """Owns the actors, the front end and the HTTP endpoint of one process; the store stays the caller's."""

    def __init__(self, store: Store, options: AgentOptions, *, has_pods: bool = False) -> None:
        self.options = options
        self.fatal: str | None = None
        self._on_fatal: list[Any] = []
        self._metrics = metrics = Metrics()
        observer = Guarded(metrics)
        self.catalog = catalog = Catalog(store, has_pods=has_pods)
        self.system = system = ActorSystem(
            f"agent-{options.node}", metrics, supervision=TABLE, on_fatal=self._give_up
        )
        node = options.node
        system.register("ledger", lambda context: LedgerActor(context, store=store), mailbox=65536, idle=None)
        system.register(
            "block", lambda context: BlockActor(context, store=store, observer=observer), idle=60.0
        )
        system.register(
            "pool", lambda context: PoolActor(context, source=catalog, store=store), mailbox=4096, idle=300.0
        )
        system.register(
            "endpoint",
            lambda context: EndpointActor(
                context, catalog=catalog, settings=options.settings, node=node, observer=observer
            ),
            mailbox=64,
            idle=1.0,
        )
        system.register(
            "views", lambda context: ViewsActor(context, store=store, catalog=catalog), mailbox=65536
        )
        system.register(
            "gc", lambda context: GCActor(context, catalog=catalog, node=node, observer=observer), mailbox=64
        )
        self.workers = Workers(timeout=options.timeout / 2)
        self.front_end = FrontEnd(
            system,
            options.cni_socket,
            observer=observer,
            not_ready=self.not_ready,
            timeout=options.timeout,
            chained={"coordinator": Coordinator(self.workers, self._default_route_nic)},
        )
        metrics.watch_mailboxes(self._mailboxes)
        metrics.watch_pools(self._usage)
        self._http: HealthServer | None = None
        if options.metrics_port is not None:
            self._http = HealthServer(options.metrics_host, options.metrics_port, metrics, self.not_ready)
        self._ready = False

    @property
    def metrics_port(self) -> int | None:
        """The port that HTTP is served on, None if it is not."""
        return self._http.port if self._http is not None else None

    def start(self) -> None:
        """Load what is recorded, then serve. Raises `StoreUnavailable` when that cannot be done in time."""
        if self._http is not None:
            self._http.start()
        self.catalog.start()
        if not self.catalog.wait_synced(START_TIMEOUT):
            raise StoreUnavailable(
                f"the store did not list its objects within {START_TIMEOUT:g} s; is it there?"
            )
        counts: dict[str, int] = get(self._local("ledger").counts.options(timeout=START_TIMEOUT).remote())
        get(self._local("views").repair.options(timeout=START_TIMEOUT).remote())
        self._sweep()
        self.catalog.informer("SpiderIPPool").subscribe(self._pool_changed)
        self.catalog.informer("StatefulSet").subscribe(lambda _: self._sweep())
        self.workers.start()
        self.front_end.start()
        self._ready = True
        log.info(
            "serving",
            extra={
                "socket": str(self.options.cni_socket),
                "node": self.options.node,
                "pools": len(self.catalog.pools().pools),
                "addresses": sum(counts.values()),
                "metrics_port": self.metrics_port,
                "pid": os.getpid(),
            },
        )

    def stop(self) -> None:
        """Answer what was accepted, for a bounded time, then end."""
        if self._ready:
            self._ready = False
            self.front_end.stop(self.options.drain)
            self.workers.stop()
        left = self.system.shutdown(self.options.drain)
        if left:
            log.warning("some actors had not finished", extra={"actors": [row.name for row in left][:20]})
        self.catalog.stop()
        if self._http is not None:
            self._http.stop()
        log.info("stopped")

    def not_ready(self) -> str | None:
        """Why an ADD cannot be served now, or None."""
        if self.fatal is not None:
            return self.fatal
        if not self._ready:
            return "the agent is starting or stopping"
        error = self.catalog.informer("SpiderIPPool").last_error
        return f"the store does not answer: {error}" if error is not None else None

    def on_fatal(self, callback: Any) -> None:
        """Call back, from any thread, when the process should end."""
        self._on_fatal.append(callback)

    def _give_up(self, why: str) -> None:
        self.fatal = why
        for callback in self._on_fatal:
            callback()

    def _default_route_nic(self, request: CniRequest) -> str:
        sandbox = request.sandbox
        if not request.named:
            return ""
        return read_default_route_nic(self.catalog.pod(sandbox.namespace, sandbox.pod, sandbox.uid)) or ""

    def _local(self, kind: str) -> Any:
        return self.system.get_actor(f"{kind}/local")

    def _sweep(self) -> None:
        self._local("gc").sweep_statefulsets.remote().subscribe(_log_failure)

    def _pool_changed(self, key: Key) -> None:
        self._local("views").changed.remote((), (key.name,)).subscribe(_log_failure)

    def _mailboxes(self) -> dict[str, int]:
        depths: Counter[str] = Counter(dict.fromkeys(self.system.local_kinds(), 0))
        for row in self.system.describe():
            depths[row.name.partition("/")[0]] += row.mailbox
        return dict(depths)

    def _usage(self) -> Iterable[PoolUsage]:
        try:
            counts = get(self._local("ledger").counts.options(timeout=SCRAPE_TIMEOUT).remote())
        except OrbweaverError as error:
            log.warning("pools are left out of this scrape", extra={"error": str(error)})
            return
        for pool in self.catalog.pools().pools.values():
            total = pool.available.minus(self.catalog.reserved(pool.family)).size
            yield PoolUsage(pool.name, total, counts.get(pool.name, 0))


def _log_failure(ref: ObjectRef[Any]) -> None:
    error = ref.error()
    if error is not None:
        log.warning("work in the background failed, the next change repeats it", extra={"error": str(error)})
