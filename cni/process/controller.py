"""The controller: several processes of which one leads, for the whole cluster.

The leader hosts the pools and blocks that agents allocate from (see `leader_failover.py` for their side), writes every
pool's status, completes pools that were made with kubectl (address family, finalizer), lets a deleted pool go with its last
address, and takes back what nobody comes back for. The others stand by: they follow the blocks, so that their Ledger is
warm, and try to win the Lease.

What must always hold: who does not hold the Lease at this moment refuses its peers' calls and leaves the views alone; a
new leader first reads which versions the blocks have, and reads those that its Ledger has not seen. Two leaders at once
would cost retries, never an address twice: every write is a compare-and-swap.
"""

from __future__ import annotations

import logging
import os
import socket
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from actors.allocation.messages import content_of
from actors.allocation.node_watches import NodeWatches, NodeWatchesActor
from actors.allocation.registration import SERVED, register_allocators
from actors.allocation.router import AlwaysLocal
from actors.cluster.authority import LIFE as AUTHORITY_LIFE
from actors.cluster.block_follower import BlockFollower
from actors.cluster.gc_follower import GCFollower
from actors.cluster.leader_certificate import LIFE, LeaderCertificate
from actors.cluster.leadership import AGENT, AUDIENCE, LEASE, Leadership
from actors.cluster.lease import LeaseCandidate
from actors.cluster.peer_guard import PeerGuard
from actors.cluster.token_review import TokenReviewer
from actors.cluster.webhook_certificates import WebhookCertificates
from actors.decisions.settings import Settings
from actors.errors import NotFound, OrbweaverError, PeerLost, StoreUnavailable
from actors.networks.multus_config_actor import MultusConfigActor
from actors.networks.sources import NAME as MULTUS_CONFIG
from actors.networks.sources import NetworkSources
from actors.reclaim.cluster_gc import GCActor
from actors.reclaim.evidence import CachedClusterState
from actors.reclaim.leaving_pods import of_cluster
from actors.resources.application import Application
from actors.resources.blocks.block import Block
from actors.resources.blocks.record import Record
from actors.review.messages import ReviewVerdict
from actors.review.network_review import NetworkReviewActor
from actors.review.overlap_review import OverlapReviewActor
from actors.review.subnet_review import SubnetReviewActor
from actors.runtime import GateLimits, LinkLimits, Listener, ObjectRef, TlsDoor, get
from actors.store.contract import Store
from actors.subnets.application_follower import ApplicationFollower
from actors.subnets.subnets import SubnetFollower
from actors.views.cidr_watch import CidrWatch
from actors.views.coordinator import CoordinatorActor
from actors.views.events import EventsActor
from actors.views.views import ViewsActor
from cni.admission.reviews import Review, network_review, overlap_review, placement_review
from cni.admission.webhook import ANSWER_TIMEOUT, Webhook, WebhookOptions
from cni.dataplane.own_plugins import check_plugins
from cni.process.base import START_TIMEOUT, Process, log_failure
from cni.release import version

log = logging.getLogger("orbweaver.controller")

METRICS_PORT = 5721
MAILBOX = 65536
"""Calls that may wait for one pool: the pods of all nodes may start at once."""
IN_FLIGHT = 1024
"""Calls of one agent without an answer: more than all pods of a node make at once."""
BEGIN_WITHIN = 0.5
"""Of the time that a caller has, the part in which each actor begins with its call or refuses it: the rest is for the block's
write. So whatever is asked of this process, callers are answered while they still wait, and none takes it for lost."""


def own_address(host: str, port: int) -> str:
    """The address of this host on the way to another one, such as the API server's, as the routes have it."""
    try:
        family, *_, where = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(where)  # nothing is sent
            return str(probe.getsockname()[0])
    except OSError as error:
        raise StoreUnavailable(
            f"no address of this host leads to {host}: {error}; name one with --leader-address",
            maybe_written=False,
        ) from error


@dataclass(frozen=True, slots=True)
class ControllerOptions:
    """What a controller needs to know."""

    metrics_host: str = "127.0.0.1"
    """The address on which metrics and health are served."""
    metrics_port: int | None = METRICS_PORT
    """0 takes a free port, None serves no HTTP."""
    drain: float = 10.0
    """Seconds that requests under way have when it ends."""
    leadership: Leadership = field(default_factory=Leadership)
    """How it takes part in the election, and how long agents are heard."""
    address: str = "127.0.0.1"
    """Where agents reach this process, with a port if it is another than this process listens on."""
    listen: str = ""
    """On which address it listens, empty for all."""
    identity: str = field(default_factory=lambda: f"{socket.gethostname()}_{uuid.uuid4().hex[:8]}")
    """Its name in the Lease, unique to each start."""
    certificate_life: timedelta = LIFE
    """After so long it shows agents another certificate."""
    gate: GateLimits = field(default_factory=GateLimits)
    """How many connections may wait to show who they are, and for how long."""
    settings: Settings = field(default_factory=Settings)
    """The cluster's."""
    webhook_port: int | None = None
    """Where API servers reach the webhook; None serves none."""
    webhook_life: timedelta = AUTHORITY_LIFE
    """Of the authority that signs the webhook's certificates."""


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
        self._blocks = BlockFollower(store, system, self._recorded)
        cluster_state = CachedClusterState(store, catalog)
        departures = of_cluster(cluster_state, options.settings)
        register_allocators(
            system,
            store,
            catalog,
            observer,
            shared=True,
            mailbox=MAILBOX,
            start_fraction=BEGIN_WITHIN,
            known=self._blocks.known,
            departures=departures,
        )
        router = AlwaysLocal(system, alone=False)
        system.register(
            "views",
            lambda context: ViewsActor(
                context, router=router, store=store, catalog=catalog, follow=True, may_write=self.leads
            ),
            mailbox=65536,
        )
        system.register(
            "events",
            lambda context: EventsActor(
                context, store=store, component="orbweaver-controller", host=socket.gethostname()
            ),
            mailbox=4096,
        )
        self._watches = NodeWatches()
        system.register(
            "watches",
            lambda context: NodeWatchesActor(context, watches=self._watches),
            mailbox=MAILBOX,
            idle=None,
            start_fraction=BEGIN_WITHIN,
        )
        system.register(
            "gc",
            lambda context: GCActor(
                context,
                router=router,
                store=store,
                cluster_state=cluster_state,
                settings=options.settings,
                observer=observer,
                watches=self._watches,
            ),
            mailbox=64,
            idle=None,
        )
        self._networks = NetworkSources(system, store) if options.settings.multus_configs else None
        if self._networks is not None:
            sources = self._networks
            system.register(
                MULTUS_CONFIG,
                lambda context: MultusConfigActor(context, sources=sources, store=store, check=check_plugins),
                mailbox=64,
                idle=None,
            )
            system.register(
                "network-review",
                lambda context: NetworkReviewActor(context, store=store, sources=sources),
                mailbox=1024,
                idle=None,
                start_fraction=BEGIN_WITHIN,
            )
        system.register(
            "coordinator",
            lambda context: CoordinatorActor(
                context, store=store, nodes=self._watches.cni_types, may_write=self._keeps_coordinators
            ),
            idle=None,
        )
        self._cidrs = CidrWatch(store, self._cidrs_changed)
        system.register(
            "overlap-review",
            lambda context: OverlapReviewActor(
                context,
                store=store,
                catalog=catalog,
                subnets=self._subnets.table if self._subnets is not None else None,
            ),
            mailbox=1024,
            idle=None,
            start_fraction=BEGIN_WITHIN,
        )
        self._subnets: SubnetFollower | None = None
        if options.settings.enable_subnets:
            self._subnets = subnets = SubnetFollower(
                system, store, catalog, leads=self.leads, is_enabled=options.settings.enabled
            )
            self.metrics.watch_subnets(self._subnets.usage)
            system.register(
                "subnet-review",
                lambda context: SubnetReviewActor(
                    context,
                    store=store,
                    catalog=catalog,
                    subnets=subnets.table,
                    settings=options.settings,
                ),
                mailbox=1024,
                idle=None,
                start_fraction=BEGIN_WITHIN,
            )
        self._applications: ApplicationFollower | None = None
        if self._subnets is not None and options.settings.enable_auto_pools:
            self._applications = ApplicationFollower(
                system,
                store,
                catalog,
                self._subnets,
                options.settings,
                leads=self.leads,
                tell=self._tell_application,
                proven=True,
            )
        self.webhook, self.webhook_certificates = self._make_webhook()
        self._cluster_state = cluster_state
        self._certificate = LeaderCertificate(life=options.certificate_life, on_replaced=self._replaced)
        account = f"system:serviceaccount:{options.leadership.namespace}:{AGENT}"
        self._reviewer = TokenReviewer(store, account, AUDIENCE)
        self._guard = PeerGuard(
            store, node_of=self._node_of, has_pool=self._has_pool, has_block=self._has_block
        )
        self._listener: Listener | None = None
        self.gc = GCFollower(system, catalog, cluster_state, departures.changed)
        self._candidate: LeaseCandidate | None = None
        self._caught_up = False
        self.metrics.watch_flag(
            "orbweaver_leader", "Whether this controller leads (1) or stands by (0)", self.leads
        )
        self.metrics.watch_mailboxes(self.mailboxes)
        self.metrics.watch_pools(self.usage)

    def _recorded(self, records: tuple[Record, ...]) -> None:
        """Somebody else recorded sandboxes of which agents do not know, and whose pods may be gone."""
        self._watches.recorded({record.node for record in records})
        self.gc.recorded({record.pod for record in records})

    def leads(self) -> bool:
        """Whether this process is the leader at this moment."""
        return self._caught_up and self._candidate is not None and self._candidate.holds()

    def start(self) -> None:
        """Load what is recorded, then stand by. Raises `StoreUnavailable` when that cannot be done in time."""
        began = time.monotonic()
        self.start_caches()
        self.wait_listed(self._blocks.begin())
        ref = self.local("ledger").counts.options(timeout=None).remote()
        counts: dict[str, int] = self.wait_answer(ref)
        loaded = time.monotonic()
        self._reviewer.start()
        port, address = self._listen()
        self.look_after_objects()
        self.catalog.informer("SpiderCoordinator").subscribe(lambda _: self._sync_coordinator())
        if self._subnets is not None:
            listed = self._subnets.start()
            if self._applications is not None:
                self._applications.start(listed)
        leadership = self.options.leadership
        self._candidate = LeaseCandidate(
            self.store,
            LEASE,
            leadership.namespace,
            identity=self.options.identity,
            address=address,
            timing=leadership.timing,
            on_won=self._won,
            on_lost=self._lost,
            shown=self._certificate,
        )
        self._candidate.start()
        if self.webhook is not None and self.webhook_certificates is not None:
            self.webhook_certificates.start()
            self.webhook.start()
        self.serving = True
        log.info(
            "standing by",
            extra={
                "version": version(),
                "identity": self.options.identity,
                "address": address,
                "port": port,
                "pools": len(self.catalog.pools().pools),
                "addresses": sum(counts.values()),
                "load_seconds": round(loaded - began, 3),
                "metrics_port": self.metrics_port,
                "pid": os.getpid(),
            },
        )

    def _make_webhook(self) -> tuple[Webhook | None, WebhookCertificates | None]:
        options = self.options
        if options.webhook_port is None:
            return None, None
        certificates = WebhookCertificates(
            self.store,
            options.leadership.namespace,
            names=(self._host(options.address),),
            leads=self.leads,
            life=options.webhook_life,
        )
        shown = WebhookOptions(
            certificates.server, certificates.client, certificates.name, options.listen, options.webhook_port
        )
        reviews: tuple[Review[Any], ...] = (overlap_review(self._ask_here("overlap-review")),)
        if self._subnets is not None:
            reviews = (*reviews, placement_review(self._ask_here("subnet-review")))
        if self._networks is not None:
            reviews = (*reviews, network_review(self._ask_here("network-review")))
        return Webhook(shown, reviews, self._leading_host), certificates

    def _ask_here(self, kind: str) -> Callable[[object], ObjectRef[ReviewVerdict] | None]:
        """How to ask this process's own reviewer, which answers if it is the one that counts."""

        def ask(request: object) -> ObjectRef[ReviewVerdict] | None:
            if not self.leads():
                return None
            pending: ObjectRef[ReviewVerdict] = (
                self.local(kind).review.options(timeout=ANSWER_TIMEOUT).remote(request)
            )
            return pending

        return ask

    def _leading_host(self) -> str | None:
        """Where the leader is, as far as this process has read it in the Lease."""
        holder = self._candidate.holder if self._candidate is not None else None
        return self._host(holder.address) or None if holder is not None else None

    def _host(self, address: str) -> str:
        """Of an address that may have a port."""
        host, _, _ = (
            address.rpartition(":") if address.count(":") == 1 or "]" in address else (address, "", "")
        )
        return host.strip("[]")

    def _keeps_coordinators(self) -> bool:
        return self.leads() and self.options.settings.coordinators

    def _cidrs_changed(self) -> None:
        if self._keeps_coordinators():
            self.local("coordinator").changed.remote().subscribe(log_failure)

    def _sync_coordinator(self) -> None:
        if self._keeps_coordinators():
            self.local("coordinator").sync.remote().subscribe(log_failure)

    def stop(self) -> None:
        """Finish what has begun, for a bounded time, give the Lease up, then end."""
        self.serving = False
        if self.webhook is not None and self.webhook_certificates is not None:
            self.webhook.stop()
            self.webhook_certificates.stop()
        self._caught_up = False  # agents are refused from now on, and go to the next leader
        self._end_waiting()
        self._finish_calls()
        if self._candidate is not None:
            self._candidate.stop()
        self.gc.stop()
        if self._networks is not None:
            self._networks.stop()
        self._cidrs.stop()
        self._reviewer.stop()
        self._guard.stop()
        self._blocks.stop()
        if self._applications is not None:
            self._applications.stop()
        if self._subnets is not None:
            self._subnets.stop()
        self.stop_actors(self.options.drain)

    def _end_waiting(self) -> None:
        """Requests that wait for an address wait at the next leader, or at their agents."""
        for row in self.system.describe():
            if row.name.startswith("pool/"):
                self.system.get_actor(row.name).end_waiting.options(timeout=None).remote().subscribe(
                    log_failure
                )

    def _finish_calls(self) -> None:
        """Answer what agents were accepted with: the next leader reads the blocks once, and is to find all of it."""
        until = time.monotonic() + self.options.drain
        while time.monotonic() < until and any(
            row.mailbox or row.deferred or row.state == "busy"
            for row in self.system.describe()
            if row.name.partition("/")[0] in ("pool", "block")
        ):
            time.sleep(0.01)

    def _listen(self) -> tuple[int, str]:
        """Serve the agents, who are refused while this is not the leader; returns the port, and the address to be
        dialled."""
        door = TlsDoor(
            self.options.listen,
            self.options.leadership.port,
            self._certificate.context,
            self._reviewer.identify,
            self.options.gate,
        )
        limits = LinkLimits(
            in_flight=IN_FLIGHT, lasting=self.options.leadership.lasting, ping_every=20.0, ping_timeout=60.0
        )
        listener = self.system.serve(door, SERVED, limits, refuse=self._refusal, guard=self._guard)
        self._listener = listener
        host = self.options.address
        if host.count(":") == 1:
            return listener.port, host  # with a port of its own: what is dialled leads here some other way
        return listener.port, f"[{host}]:{listener.port}" if ":" in host else f"{host}:{listener.port}"

    def _refusal(self) -> OrbweaverError | None:
        if self.leads():
            return None
        return PeerLost(f"{self.options.identity} is not the leader; nothing was done")

    def _replaced(self) -> None:
        """The Lease shows another certificate: who trusted the one before reads it there."""
        if self._listener is not None:
            self._listener.send_away(PeerLost("the leader's certificate was replaced; connect again"))

    def _node_of(self, pod: str) -> str | None:
        cached = self._cluster_state.pod(pod)
        return cached.node if cached is not None else None

    def _has_pool(self, name: str) -> bool:
        return self.catalog.knows_pool(name)

    def _has_block(self, name: str) -> bool:
        return self.system.is_active(f"block/{name}") or self._blocks.has(name)

    def _won(self) -> None:
        began = time.monotonic()
        behind = self._catch_up()
        self._watches.begin()
        self._caught_up = True
        log.info(
            "leading",
            extra={
                "identity": self.options.identity,
                "blocks_read": behind,
                "seconds": round(time.monotonic() - began, 3),
            },
        )
        if self.webhook_certificates is not None:
            self.webhook_certificates.wake()
        self.local("views").repair.options(timeout=None).remote().subscribe(log_failure)
        self._sync_coordinator()
        if self._subnets is not None:
            self._subnets.lead()
        if self._applications is not None:
            self._applications.lead()
        if self.options.settings.gc.enabled:
            self.gc.start()
        if self._networks is not None:
            self._networks.start()
        if self.options.settings.coordinators:
            self._cidrs.start()
        elected = self.local("events").elected.options(timeout=None)
        elected.remote(self.options.leadership.namespace, LEASE, self.options.identity).subscribe(log_failure)

    def _tell_application(self, application: Application, reason: str, text: str) -> None:
        involved = {
            "apiVersion": application.api_version,
            "kind": application.kind,
            "namespace": application.namespace,
            "name": application.name,
            "uid": application.uid,
        }
        events = self.local("events").of_application.options(timeout=None)
        events.remote(involved, reason, text).subscribe(log_failure)

    def _lost(self, why: str) -> None:
        self._caught_up = False
        if self._applications is not None:
            self._applications.follow()
        self._end_waiting()
        self.gc.stop()
        if self._networks is not None:
            self._networks.stop()
        self._cidrs.stop()
        log.warning("not leading any more", extra={"identity": self.options.identity, "why": why})

    def _catch_up(self) -> int:
        """See what the leader before wrote last, which the watch may not have told yet; returns how many blocks that were."""
        versions = self.store.versions("SpiderIPBlock", timeout=self.options.leadership.timing.renew)
        ledger = self.local("ledger")
        behind: tuple[str, ...] = get(ledger.behind.options(timeout=START_TIMEOUT).remote(versions))
        for name in behind:
            try:
                block = Block.from_object(self.store.get("SpiderIPBlock", name))
            except NotFound:
                continue
            get(
                ledger.block_watched.options(timeout=START_TIMEOUT).remote(
                    block.family, block.base, block.version, content_of(block)
                )
            )
        return len(behind)
