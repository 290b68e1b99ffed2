"""Pods whose interfaces get addresses from router advertisements after their ADD: planned again when that happens.

How it works. An advertisement may come seconds after an ADD, or months, with another prefix. The kernel tells one
socket in the host's namespace of every new address in the pods' (netlink's NETLINK_LISTEN_ALL_NSID); the host's end of
the pod's veth pair has the number of that namespace. Another socket hears the advertisements themselves, on the host's
interfaces, because only what was advertised there gets a way from the host (`advertised.py`). Only pods are known that
were added since the agent started, and that have a veth pair.
What must always hold: a pod is planned once for each new address, not each time its lifetime is renewed; no socket is
held in a pod's namespace, which would keep it alive; a pod that gives itself addresses without end costs one plan a
minute in the end, and memory for a few addresses.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cni.dataplane.coordinator.advertised import AdvertisedPrefixes
from cni.dataplane.coordinator.veth import host_veth_name
from cni.dataplane.netlink.router_advertisements import RouterAdvertisements
from cni.dataplane.netlink.rtnetlink import Netlink, NewAddresses

log = logging.getLogger("orbweaver.dataplane")

REMEMBERED = 64
"""Addresses of a pod of which is known that it was planned with them."""
PAUSE, PAUSE_MOST = 1.0, 60.0
"""Seconds between two plans of a pod: doubled with each that follows at once, as long at most."""
LOOK_PAUSE, UNPLACED = 1.0, 1024
"""Seconds between two looks at whose the namespaces are, and news that wait for the next one."""
_REST = 0.05
"""Seconds after each batch of news in which none are read: a flood of them is lost in the kernel, not handled here."""


@dataclass(slots=True)
class Replanning:
    """When a pod is planned again."""

    plans: dict[str, Callable[[], object]] = field(default_factory=dict)
    """By interface, what plans it."""
    known: dict[str, None] = field(default_factory=dict)
    """The addresses that it was planned with; the oldest first."""
    due: float | None = None
    """When it will be planned next, in monotonic seconds; None for not at all."""
    pause: float = 0.0
    """How many seconds it waits after a plan; it grows while plans follow each other."""
    after: float = 0.0
    """When that is over, in monotonic seconds."""

    def wants(self, address: str, now: float) -> None:
        """The pod has an address; empty for "something changed"."""
        if address in self.known:
            return
        if address:
            self.known[address] = None
            if len(self.known) > REMEMBERED:
                del self.known[next(iter(self.known))]
        if self.due is None:
            self.due = max(now, self.after)

    def take(self, now: float) -> bool:
        """Whether it is planned now."""
        if self.due is None or self.due > now:
            return False
        quiet = now - self.after > 10 * self.pause
        self.pause = PAUSE if quiet or not self.pause else min(2 * self.pause, PAUSE_MOST)
        self.due, self.after = None, now + self.pause
        return True


class Renumbering:
    """`attach` before an ADD begins, `detach` at its DEL or when it failed."""

    def __init__(self) -> None:
        self._pods: dict[str, Replanning] = {}
        self._prefixes = AdvertisedPrefixes()
        self._numbers: dict[int, str] = {}
        self._looked = 0.0
        self._unplaced: set[tuple[int | None, str]] = set()
        self._lock = threading.Lock()
        self._wake = os.pipe()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Listen, where that is allowed."""
        try:
            news = NewAddresses()
        except OSError as error:
            log.warning(
                "pods get no rules for addresses that come after their ADD: the kernel tells of none; the agent needs the "
                "capability NET_BROADCAST",
                extra={"error": str(error)},
            )
            return
        heard: RouterAdvertisements | None = None
        try:
            heard = RouterAdvertisements()
        except OSError as error:
            log.warning(
                "the host gets no way to addresses that routers give to pods: it cannot hear routers; the agent needs the "
                "capability NET_RAW, and IPv6",
                extra={"error": str(error)},
            )
        self._thread = threading.Thread(
            target=self._listen, args=(news, heard), name="renumbering", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        if self._thread is not None:
            os.write(self._wake[1], b"x")
            self._thread.join()
        for descriptor in self._wake:
            os.close(descriptor)

    def attach(self, container: str, interface: str, plan: Callable[[], object]) -> None:
        """`plan` is called when the pod has a new address; it must not block."""
        with self._lock:
            self._pods.setdefault(container, Replanning()).plans[interface] = plan

    def detach(self, container: str, interface: str) -> None:
        """Forget an interface."""
        with self._lock:
            pod = self._pods.get(container)
            if pod is not None:
                pod.plans.pop(interface, None)
                if not pod.plans:
                    del self._pods[container]
                    self._numbers = {n: other for n, other in self._numbers.items() if other != container}

    def advertised(self) -> tuple[tuple[int, str], ...]:
        """What routers advertise, as (index of the host's interface, prefix)."""
        with self._lock:
            return self._prefixes.valid(time.monotonic())

    def _listen(self, news: NewAddresses, heard: RouterAdvertisements | None) -> None:
        sources: list[Any] = [news, *([heard] if heard is not None else [])]
        try:
            while True:
                # While it rests, the kernel gathers what comes.
                if self._wake[0] in select.select((self._wake[0],), (), (), _REST)[0]:
                    return
                ready = select.select((*sources, self._wake[0]), (), (), self._until_due())[0]
                if self._wake[0] in ready:
                    return
                try:
                    self._take_in(news if news in ready else None, heard if heard in ready else None)
                    self._plan_due()
                except OSError as error:
                    log.warning(
                        "a pod's new address was not looked at, the next one is", extra={"error": str(error)}
                    )
        finally:
            for source in sources:
                source.close()

    def _until_due(self) -> float | None:
        with self._lock:
            due = [pod.due for pod in self._pods.values() if pod.due is not None]
        if self._unplaced:
            due.append(self._looked + LOOK_PAUSE)
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _take_in(self, news: NewAddresses | None, heard: RouterAdvertisements | None) -> None:
        now = time.monotonic()
        if heard is not None:
            advertised = heard.read()
            with self._lock:
                if advertised is not None and self._prefixes.heard(*advertised, now):
                    log.info(
                        "a router advertises a new prefix, pods with addresses of routers are planned again"
                    )
                    for pod in self._pods.values():
                        if pod.known:
                            pod.wants("", now)
        came = self._unplaced | set(_read(news) if news is not None else ())
        self._unplaced = set()
        if any(number not in self._numbers for number, _ in came if number is not None):
            self._look(now)
        with self._lock:
            for number, address in came:
                if number is None:
                    for pod in self._pods.values():
                        pod.wants(address, now)
                elif number in self._numbers:
                    self._pods[self._numbers[number]].wants(address, now)
                elif self._looked < now and len(self._unplaced) < UNPLACED:
                    self._unplaced.add((number, address))  # its veth pair may be younger than the last look

    def _look(self, now: float) -> None:
        """Which pods' namespaces have which numbers, by their veth pairs; not more often than a pause, because a namespace
        that is no pod's has a number too."""
        if now < self._looked + LOOK_PAUSE:
            return
        self._looked = now
        with self._lock:
            names = {host_veth_name(container): container for container in self._pods}
        with Netlink() as host:
            there = {nic.namespace: names[nic.name] for nic in host.nics() if nic.name in names}
        with self._lock:
            self._numbers = {
                number: container for number, container in there.items() if container in self._pods
            }

    def _plan_due(self) -> None:
        now = time.monotonic()
        with self._lock:
            due = [(container, pod) for container, pod in self._pods.items() if pod.take(now)]
            plans = [(container, tuple(pod.plans.values())) for container, pod in due]
        for container, of_interfaces in plans:
            log.info("a pod has a new address, planning it again", extra={"container": container})
            for plan in of_interfaces:
                plan()


def _read(news: NewAddresses) -> list[tuple[int | None, str]]:
    """What came; (None, "") stands for news that were lost, and means every pod."""
    try:
        return [*news.read()]
    except OSError as error:
        if error.errno != errno.ENOBUFS:
            raise
        log.warning("news of addresses were lost, every pod is planned again")
        return [(None, "")]
