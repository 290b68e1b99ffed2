"""CIDRs of the cluster that change under running pods: ways to new ones are added where that is safe.

How it works. An ADD is noted with what it was told. When the SpiderCoordinator is another, each noted interface is compared
with what it would be told now; what is new is planned and applied as the ADD was, one interface after the other, behind
whatever pods ask for meanwhile.
What must always hold: nothing is taken away from a running pod, whose connections may use it; a CIDR that overlaps with a
subnet of the pod, or holds the node's own way to it, is left out, because the pod would lose its neighbours; a pod that
cannot be told is told again with the next change. Only pods are known that were added since the agent started.
"""

from __future__ import annotations

import ipaddress
import logging
import threading
from collections.abc import Callable, Iterable
from dataclasses import replace

from actors.errors import OrbweaverError
from actors.runtime import ObjectRef, get
from cni.dataplane.coordinator.settings import CoordinatorSettings
from cni.dataplane.workers.job import Job
from cni.server.protocol import CniRequest

log = logging.getLogger("orbweaver.dataplane")

PATIENCE = 60.0
"""Seconds in which a worker has ended a job, or given it up."""

STOP_TIMEOUT = 5.0

_Place = tuple[str, str]
"""Container and interface."""


def with_more_cidrs(
    current: CoordinatorSettings, wanted: CoordinatorSettings, subnets: Iterable[str]
) -> CoordinatorSettings | None:
    """What the pod was told, with the CIDRs that came since and overlap with none of its subnets; None without any."""
    own = [ipaddress.ip_interface(cidr).network for cidr in subnets]
    new = tuple(
        cidr
        for cidr in wanted.hijack
        if cidr not in current.hijack and not any(_overlap(cidr, network) for network in own)
    )
    return replace(current, hijack=(*current.hijack, *new)) if new else None


def _overlap(cidr: str, network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> bool:
    other = ipaddress.ip_network(cidr, strict=False)
    return other.version == network.version and other.overlaps(network)


class CidrChanges:
    """`wanted`: what an ADD would be told now, raising `OrbweaverError` if it would be refused; `plan`: does a job."""

    def __init__(
        self,
        wanted: Callable[[CniRequest], CoordinatorSettings],
        plan: Callable[[CniRequest, Job], ObjectRef[int]],
    ) -> None:
        self._wanted = wanted
        self._plan = plan
        self._lock = threading.Lock()
        self._running: dict[_Place, tuple[CniRequest, Job]] = {}
        self._news = threading.Event()
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to follow changes."""
        self._thread = threading.Thread(target=self._follow, name="cidr-changes", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._ending.set()
        self._news.set()
        if self._thread is not None:
            self._thread.join(STOP_TIMEOUT)

    def note(self, request: CniRequest, job: Job) -> None:
        """An interface is added."""
        with self._lock:
            self._running[job.container, job.interface] = (request, job)

    def forget(self, container: str, interface: str) -> None:
        """It is taken away, or could not be added."""
        with self._lock:
            self._running.pop((container, interface), None)

    def current(self, job: Job) -> Job:
        """The job of an ADD with what was added to it since."""
        with self._lock:
            noted = self._running.get((job.container, job.interface))
        return job if noted is None else noted[1]

    def changed(self) -> None:
        """The SpiderCoordinator may be another. From any thread; returns at once."""
        self._news.set()

    def _follow(self) -> None:
        while True:
            self._news.wait()
            self._news.clear()
            if self._ending.is_set():
                return
            with self._lock:
                places = list(self._running)
            for place in places:
                if self._ending.is_set():
                    return
                try:
                    self._look(place)
                except OrbweaverError as error:
                    log.warning(
                        "a running pod was not told of the cluster's new CIDRs, a new pod is",
                        extra={"container": place[0], "interface": place[1], "error": str(error)},
                    )

    def _look(self, place: _Place) -> None:
        with self._lock:
            noted = self._running.get(place)
            subnets = [
                cidr
                for (container, _), (_, job) in self._running.items()
                if container == place[0]
                for cidr in _addresses(job)
            ]
        if noted is None:
            return
        request, job = noted
        assert isinstance(job.settings, CoordinatorSettings)
        try:
            wanted = self._wanted(request)
        except OrbweaverError as error:  # new pods are refused with it, or wait
            log.debug("the cluster's CIDRs are not known now", extra={"error": str(error)})
            return
        more = with_more_cidrs(job.settings, wanted, subnets)
        if more is None:
            return
        again = replace(job, settings=more, again=True)
        get(self._plan(request, again), PATIENCE)
        with self._lock:
            if self._running.get(place) is noted:
                self._running[place] = (request, replace(job, settings=more))
        log.info(
            "a running pod has ways to new CIDRs",
            extra={
                "pod": job.pod,
                "interface": job.interface,
                "cidrs": list(more.hijack[len(job.settings.hijack) :]),
            },
        )


def _addresses(job: Job) -> Iterable[str]:
    """The interface's addresses in CIDR form, as the plugin before has them."""
    ips = job.previous.get("ips")
    for ip in ips if isinstance(ips, (list, tuple)) else ():
        text = ip.get("address") if isinstance(ip, dict) else None
        if isinstance(text, str):
            try:
                yield str(ipaddress.ip_interface(text))
            except ValueError:
                continue  # the ADD was refused where it was needed
