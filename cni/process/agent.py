"""The agent: one process tree on a node that answers CNI requests out of a store.

What must always hold: nothing is served before the caches have listed and, where this process allocates, the blocks are
indexed; the parts stop in the order in which requests pass through them, so that what was accepted is answered. In a
cluster the leader allocates while there is one (`leader_failover.py`), pods have objects, refused pods get an Event, and
pool status is the controller's to write.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from actors.allocation.application_pools import KIND as APPLICATION_POOLS
from actors.allocation.endpoint import EndpointActor
from actors.allocation.messages import NodeSandbox, Sandbox
from actors.allocation.persistent_claims import PersistentClaims
from actors.allocation.pod_warnings import PodWarnings
from actors.allocation.registration import register_allocators
from actors.allocation.router import AllocatorRouter, AlwaysLocal
from actors.cluster.block_follower import BlockFollower
from actors.cluster.leader_failover import LeaderFailover
from actors.cluster.leadership import Leadership
from actors.cluster.local_allocators import OwnAllocators
from actors.cluster.peer_rules import OF_A_NODE
from actors.decisions.annotations import FIRST_INTERFACE, read_default_route_nic, read_networks
from actors.decisions.brief import in_brief
from actors.decisions.settings import Settings
from actors.errors import AskedToEnd, OrbweaverError
from actors.reclaim.leaving_pods import of_node
from actors.reclaim.node_gc import NodeGCActor
from actors.reclaim.sandbox_watch import SandboxWatchActor
from actors.resources.application import Application
from actors.resources.pod import Pod
from actors.runtime import ObjectRef
from actors.store.caches.informer import ObjectKey
from actors.store.contract import Store
from actors.subnets.application_follower import ApplicationFollower
from actors.subnets.existing_pools import ExistingPoolsActor
from actors.subnets.reading_threads import ReadingThreads
from actors.subnets.subnets import SubnetFollower
from actors.views.events import EventsActor
from actors.views.node_cni import NodeCniActor
from actors.views.views import ViewsActor
from cni.dataplane.coordinator import reply_marks
from cni.dataplane.coordinator.plugin import Coordinator, PodInterfaces
from cni.dataplane.ifacer.plugin import Ifacer
from cni.dataplane.probing.worker_prober import WorkerProber
from cni.dataplane.workers.pool import Workers
from cni.networks.agent_cluster import AgentCluster
from cni.networks.attaching import Networks
from cni.networks.attachment_cache import DIRECTORY as NETWORKS_CACHE
from cni.networks.attachment_cache import AttachmentCache
from cni.networks.network_list import NAME as NETWORKS
from cni.networks.plugin import NetworksPlugin
from cni.process.base import START_TIMEOUT, Process, log_failure
from cni.process.node_taint import NodeTaint
from cni.release import version
from cni.server.del_spool import DelSpool
from cni.server.dispatcher import ChainedPlugin
from cni.server.frontend import FrontEnd
from cni.server.libcni_cache import CACHE, Namespaces, read_sandboxes
from cni.server.node_cni_files import DIRECTORY as CNI_DIRECTORY
from cni.server.node_cni_files import look_at_node_cni
from cni.server.node_conf import NodeConf
from cni.server.node_sandboxes import NodeSandboxes
from cni.server.protocol import CniRequest
from cni.server.reserved_addresses import ReservedAddresses
from cni.shim.keeper import PluginKeeper

log = logging.getLogger("orbweaver.agent")

SOCKET = Path("/var/run/spidernet/spiderpool.sock")
METRICS_PORT = 5711
FIRST_LOOK = 1.0
"""Seconds from its start in which an agent should find a leader that is there; later it is found as well."""


@dataclass(frozen=True, slots=True)
class AgentOptions:
    """What an agent needs to know."""

    node: str = field(default_factory=socket.gethostname)
    """Its name in the cluster; the host's name without one."""
    cni_socket: Path = SOCKET
    """Where the shim reaches it."""
    metrics_host: str = "127.0.0.1"
    """The address on which metrics and health are served."""
    metrics_port: int | None = METRICS_PORT
    """0 takes a free port, None serves no HTTP."""
    timeout: float = 20.0
    """Seconds in which every CNI request is answered."""
    drain: float = 10.0
    """Seconds that requests under way have when it ends."""
    cluster: bool = False
    """Whether its store is an API server, which has pods."""
    leadership: Leadership | None = None
    """How a leader is found that allocates; without it the agent does so by itself."""
    settings: Settings = field(default_factory=Settings)
    """The cluster's."""
    attachments: Path = CACHE
    """Where the runtime notes its CNI attachments."""
    namespaces: Namespaces = field(default_factory=Namespaces)
    """Where its network namespaces can be seen."""
    cni_conf: Path = CNI_DIRECTORY
    """Where the runtime finds the node's network."""
    networks_cache: Path = NETWORKS_CACHE
    """Where it is noted which networks pods were attached to."""
    host_root: Path = Path("/")
    """Where the node's own file system is mounted, in which the plugins of these networks are executed."""
    plugins: PluginKeeper | None = None
    """Who keeps the plugins on the node as this version has them."""
    conf: NodeConf | None = None
    """Who writes the network configuration that the node's runtime finds."""
    take_taint_off: bool = False
    """Whether its node has a taint until it serves, which it takes off."""
    spool: Path | None = None
    """Where the shim keeps DELs that come while no agent runs; None for beside the socket."""


class Agent(Process):
    """The actors and the front end of one agent."""

    def __init__(self, store: Store, options: AgentOptions) -> None:
        cluster, node = options.cluster, options.node
        settings = replace(options.settings, networks_annotated=cluster)
        super().__init__(
            store,
            f"agent-{node}",
            metrics_host=options.metrics_host,
            metrics_port=options.metrics_port,
            has_pods=cluster,
        )
        self.options = options
        system, catalog, observer = self.system, self.catalog, self.observer
        self._departures = of_node(catalog, node, options.settings, has_pods=cluster)
        self._leader: LeaderFailover | None = None
        self._blocks: BlockFollower | None = None
        router: AllocatorRouter
        if options.leadership is not None:
            router = self._leader = LeaderFailover(system.name, store, options.leadership, self._open_own)
            self.metrics.watch_flag(
                "orbweaver_agent_linked",
                "Whether the leader allocates for this agent (1), or the agent itself (0)",
                lambda: bool(self._leader and self._leader.leader),
            )
        else:
            self._blocks = BlockFollower(store, system) if cluster else None
            known = self._blocks.known if self._blocks is not None else None
            register_allocators(
                system, store, catalog, observer, shared=cluster, known=known, departures=self._departures
            )
            router = AlwaysLocal(system, alone=not cluster)
            self.metrics.watch_pools(self.usage)
        self._subnets: SubnetFollower | None = None
        if settings.enable_subnets and not cluster:
            self._subnets = SubnetFollower(system, store, catalog, is_enabled=settings.enabled)
            self.metrics.watch_subnets(self._subnets.usage)
        self._applications: ApplicationFollower | None = None
        if self._subnets is not None and settings.enable_auto_pools:
            self._applications = ApplicationFollower(
                system,
                store,
                catalog,
                self._subnets,
                settings,
                leads=lambda: True,
                tell=_log_application,
                proven=False,
            )
        self._readers = ReadingThreads()
        if cluster and options.leadership is None:
            system.register(
                APPLICATION_POOLS,
                lambda context: ExistingPoolsActor(
                    context, catalog=catalog, store=store, settings=settings, threads=self._readers
                ),
            )
        self.prober = WorkerProber(timeout=options.timeout / 2)
        self.pod_warnings = PodWarnings(self._tell)  # an Endpoint ends soon after its request
        self.sandboxes = NodeSandboxes(options.attachments, options.namespaces)
        system.register(
            "endpoint",
            lambda context: EndpointActor(
                context,
                router=router,
                catalog=catalog,
                settings=settings,
                node=node,
                observer=observer,
                prober=self.prober,
                sandboxes=self.sandboxes,
                tell=self._tell,
                warnings=self.pod_warnings,
                departures=self._departures,
                claims=PersistentClaims(store),
            ),
            mailbox=64,
            idle=0,
        )
        system.register(
            "views",
            lambda context: ViewsActor(
                context,
                router=router,
                store=store,
                catalog=catalog,
                node=node if cluster else None,
                pools=not cluster,
                leave=self._leave_views,
            ),
            mailbox=65536,
        )
        system.register(
            "events",
            lambda context: EventsActor(context, store=store, component="orbweaver-agent", host=node),
            mailbox=256,
        )
        system.register(
            "node-gc",
            lambda context: NodeGCActor(
                context,
                router=router,
                catalog=catalog,
                settings=options.settings,
                node=node,
                observer=observer,
                has_pods=cluster,
            ),
            mailbox=64,
        )
        system.register(
            "sandbox-watch",
            lambda context: SandboxWatchActor(
                context,
                router=router,
                sandboxes=self.sandboxes,
                pod=self._pod_now if cluster else None,
                node=node,
                observer=observer,
                announce=self._announce,
            ),
            mailbox=4096,
            idle=None,
        )
        system.register(
            "node-cni",
            lambda context: NodeCniActor(
                context, look=lambda: look_at_node_cni(options.cni_conf), tell=self._tell_cni
            ),
            idle=None,
        )
        self.workers = Workers(timeout=options.timeout / 2)
        self.coordinator = Coordinator(
            self.workers,
            self._pod_interfaces,
            catalog.coordinator,
            cluster=cluster,
            prober=self.prober,
            detection=options.settings.detection,
        )
        chained: dict[str, ChainedPlugin] = {
            "ifacer": Ifacer(self.workers),
            "coordinator": self.coordinator,
        }
        self._networks: NetworksPlugin | None = None
        self._networks_cluster = AgentCluster(system, store, catalog, has_pods=cluster)
        reserved = ReservedAddresses()
        if settings.networks.enabled:
            attaching = Networks(
                self._networks_cluster,
                settings.networks,
                AttachmentCache(options.networks_cache),
                reserved,
                settings.agent_namespace,
                settings.multus_cluster_network,
                options.host_root,
                options.namespaces,
            )
            self._networks = chained[NETWORKS] = NetworksPlugin(attaching, self._tell)
        self.front_end = FrontEnd(
            system,
            options.cni_socket,
            observer=observer,
            not_ready=self.not_ready,
            on_refused=self._refused,
            timeout=options.timeout,
            chained=chained,
            longer={} if self._networks is None else {NETWORKS: self._networks.timeout},
            reserved=reserved,
            spool=DelSpool(options.cni_socket, options.spool),
        )
        self._taint = NodeTaint(store, node) if options.take_taint_off else None
        self.metrics.watch_mailboxes(self.mailboxes)

    def start(self) -> None:
        """Load what is recorded, then serve. Raises `StoreUnavailable` when that cannot be done in time."""
        look_until = time.monotonic() + FIRST_LOOK
        if self._leader is not None:
            self._leader.start()  # beside the lists: neither needs the other
        self.start_caches()
        if self._blocks is not None:
            self.wait_listed(self._blocks.begin())
        if self._leader is not None:
            self._leader.wait_looked(look_until - time.monotonic())
        self.wait_answer(self.local("views").repair.options(timeout=None).remote())
        if not self.options.cluster:
            self.look_after_objects()
            if self._subnets is not None:
                listed = self._subnets.start()
                self._subnets.lead()
                if self._applications is not None:
                    self._applications.start(listed)
                    self._applications.lead()
            self._sweep()
            self.catalog.informer("StatefulSet").subscribe(lambda _: self._sweep())
            self.catalog.follow_machines(lambda _: self._sweep())
        self._reconcile()
        self._watch()
        self.coordinator.renumbering.start()
        self.coordinator.cidr_changes.start()
        self.catalog.informer("SpiderCoordinator").subscribe(
            lambda _: self.coordinator.cidr_changes.changed()
        )
        if self.options.settings.detection.conflicts or self.options.settings.detection.gateways:
            self.prober.start()
        if self._networks is not None:
            self._networks_cluster.start()
            self._networks.start()
        self.front_end.start()
        self.serving = True
        for keeper in self._keepers():
            keeper.start()
        log.info(
            "serving",
            extra={
                "version": version(),
                "socket": str(self.options.cni_socket),
                "node": self.options.node,
                "pools": len(self.catalog.pools().pools),
                "leader": self._leader.leader if self._leader is not None else "",
                "metrics_port": self.metrics_port,
                "pid": os.getpid(),
            },
        )
        # Only now: it waits for the kernel, and no request waits for it.
        if not reply_marks.supported():
            log.warning("this kernel has no nftables: replies of pods leave by the routing tables alone")

    def stop(self) -> None:
        """Answer what was accepted, for a bounded time, then end."""
        if self.serving:
            self.serving = False
            for keeper in self._keepers():
                keeper.stop()
            if self._networks is not None:
                self._networks.stop()
                self._networks_cluster.stop()
            self.front_end.stop(self.options.drain)
            self.coordinator.renumbering.stop()
            self.coordinator.cidr_changes.stop()
            self.workers.stop()
            self.prober.stop()
        if self._blocks is not None:
            self._blocks.stop()
        self._readers.stop()
        if self._applications is not None:
            self._applications.stop()
        if self._subnets is not None:
            self._subnets.stop()
        self.stop_actors(self.options.drain)
        if self._leader is not None:
            self._leader.stop(self.options.drain)

    def _keepers(self) -> tuple[PluginKeeper | NodeConf | NodeTaint, ...]:
        """What looks after the node while this agent serves."""
        all_of_them = (self.options.plugins, self.options.conf, self._taint)
        return tuple(keeper for keeper in all_of_them if keeper is not None)

    def _open_own(self, wrote: Callable[[int, int, str], None]) -> OwnAllocators:
        return OwnAllocators(
            self.system,
            self.store,
            self.catalog,
            self.observer,
            wrote,
            self._departures,
            self.options.settings,
        )

    def _reconcile(self) -> None:
        """Release what sandboxes hold that went while no agent ran. Before requests are served, so that every record is
        older than what is compared with it; what fails is left for the next start."""
        if not self.options.settings.gc.enabled:
            return
        sandboxes = read_sandboxes(self.options.attachments, self.options.namespaces)
        try:
            reconciled = self.local("node-gc").reconcile.options(timeout=None).remote(sandboxes)
            done = self.wait_answer(reconciled)
        except AskedToEnd:
            raise
        except OrbweaverError as error:
            log.warning("records were not compared with the node's sandboxes", extra={"error": str(error)})
        else:
            log.info(
                "records compared with the node's sandboxes",
                extra={"alive": len(sandboxes.alive), "gone": len(sandboxes.gone), "released": done},
            )

    def _watch(self) -> None:
        """From now on release what sandboxes held whose end nobody tells of."""
        if self._leader is not None:
            self._leader.on_linked(self._cni_linked)
        if not self.options.settings.gc.enabled:
            return
        self.local("sandbox-watch").start.options(timeout=None).remote().subscribe(log_failure)
        if self.options.cluster:
            self.catalog.informer("Pod").subscribe(self._pod_changed)
        if self._leader is not None:
            self._leader.on_linked(self._linked)

    def _pod_changed(self, key: ObjectKey) -> None:
        changed = self.local("sandbox-watch").pod_changed.options(timeout=None)
        changed.remote(f"{key.namespace}/{key.name}").subscribe(_log_unwatched)

    def _linked(self) -> None:
        self.local("sandbox-watch").linked.options(timeout=None).remote().subscribe(_log_unwatched)

    def _pod_now(self, pod: str) -> Pod | None:
        namespace, _, name = pod.partition("/")
        cached: Pod | None = self.catalog.informer("Pod").get(name, namespace)
        return cached

    def _announce(self, sees: bool, unseen: tuple[NodeSandbox, ...]) -> None:
        watches = self._leader.at_leader("watches/local") if self._leader is not None else None
        if watches is not None:
            heard = watches.watching.options(timeout=START_TIMEOUT).remote(self.options.node, sees, unseen)
            heard.subscribe(self._announced)

    def _announced(self, heard: ObjectRef[int | None]) -> None:
        _log_unwatched(heard)
        foreign_version = heard.result() if heard.error() is None else None
        if foreign_version is not None:  # as it is of an older leader
            watch = self.local("sandbox-watch")
            watch.heard.options(timeout=None).remote(foreign_version).subscribe(_log_unwatched)

    def _leave_views(self, pods: tuple[str, ...]) -> None:
        """Have the leader write SpiderEndpoints that this agent may not. One that comes to lead looks at all of them."""
        watches = self._leader.at_leader("watches/local") if self._leader is not None else None
        if watches is None:
            return
        for first in range(0, len(pods), OF_A_NODE):
            heard = watches.moved.options(timeout=START_TIMEOUT).remote(
                self.options.node, pods[first : first + OF_A_NODE]
            )
            heard.subscribe(_log_unwatched)

    def _cni_linked(self) -> None:
        self.local("node-cni").linked.options(timeout=None).remote().subscribe(_log_unwatched)

    def _tell_cni(self, kind: str) -> None:
        watches = self._leader.at_leader("watches/local") if self._leader is not None else None
        if watches is not None:
            heard = watches.cni.options(timeout=START_TIMEOUT).remote(self.options.node, kind)
            heard.subscribe(_log_unwatched)

    def _sweep(self) -> None:
        self.local("node-gc").sweep_kept.remote().subscribe(log_failure)

    def _refused(self, request: CniRequest, error: OrbweaverError) -> None:
        if self.options.cluster:
            sandbox = request.sandbox
            arguments = (sandbox.namespace, sandbox.pod, sandbox.uid, type(error).__name__, in_brief(error))
            self.local("events").refused.remote(*arguments).subscribe(log_failure)

    def _tell(self, sandbox: Sandbox, reason: str, text: str) -> None:
        if self.options.cluster:
            arguments = (sandbox.namespace, sandbox.pod, sandbox.uid, reason, text)
            self.local("events").refused.options(timeout=None).remote(*arguments).subscribe(log_failure)

    def _pod_interfaces(self, request: CniRequest) -> PodInterfaces:
        sandbox = request.sandbox
        if not request.named:
            return PodInterfaces()
        pod = self.catalog.pod(sandbox.namespace, sandbox.pod, sandbox.uid)
        networks = tuple(network.interface for network in read_networks(pod))
        # Without a list of networks only Kubernetes says that there is one interface alone.
        known = (FIRST_INTERFACE, *networks) if networks or self.options.cluster else ()
        return PodInterfaces(read_default_route_nic(pod) or "", known)


def _log_application(application: Application, reason: str, text: str) -> None:
    """Without Kubernetes there are no Events."""
    log.warning(
        "an application's pools", extra={"application": application.title, "reason": reason, "why": text}
    )


def _log_unwatched(ref: ObjectRef[Any]) -> None:
    error = ref.error()
    if error is not None:  # it is told or looked at again soon
        log.debug("the watch over sandboxes was not told", extra={"error": str(error)})
