"""Pods whose interfaces get addresses from router advertisements after their ADD: planned again when that happens.

How it works. An advertisement may come seconds after an ADD, or months, with another prefix. The kernel tells one
socket in the host's namespace of every new address in the pods' (netlink's NETLINK_LISTEN_ALL_NSID); the host's end of
the pod's veth pair has the number of that namespace. Only pods are known that were added since the agent started, and
that have a veth pair.
What must always hold: a pod is planned once for each new address, not each time its lifetime is renewed; no socket is
held in a pod's namespace, which would keep it alive.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import threading
from collections.abc import Callable

from cni.dataplane.coordinator.plan import host_veth_name
from cni.dataplane.netlink.netlink import Netlink, NewAddresses

log = logging.getLogger("orbweaver.dataplane")


class Renumbering:
    """`attach` before an ADD begins, `detach` at its DEL or when it failed."""

    def __init__(self) -> None:
        self._plans: dict[str, dict[str, Callable[[], object]]] = {}
        self._seen: dict[str, set[str]] = {}
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
        self._thread = threading.Thread(target=self._listen, args=(news,), name="renumbering", daemon=True)
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
            self._plans.setdefault(container, {})[interface] = plan

    def detach(self, container: str, interface: str) -> None:
        """Forget an interface."""
        with self._lock:
            plans = self._plans.get(container, {})
            plans.pop(interface, None)
            if not plans:
                self._plans.pop(container, None)
                self._seen.pop(container, None)

    def _listen(self, news: NewAddresses) -> None:
        try:
            while self._wake[0] not in select.select((news.fileno(), self._wake[0]), (), ())[0]:
                for namespace, address in _read(news):
                    try:
                        self._changed(namespace, address)
                    except OSError as error:
                        log.warning(
                            "a pod's new address was not looked at, the next one is",
                            extra={"error": str(error)},
                        )
        finally:
            news.close()

    def _changed(self, namespace: int | None, address: str) -> None:
        with self._lock:
            containers = [one for one in self._plans if address not in self._seen.get(one, ())]
        if not containers:
            return
        with Netlink() as host:
            numbers = {nic.name: nic.namespace for nic in host.nics()}
        for container in containers:
            if namespace is not None and numbers.get(host_veth_name(container)) != namespace:
                continue
            with self._lock:
                if address:
                    self._seen.setdefault(container, set()).add(address)
                plans = tuple(self._plans.get(container, {}).values())
            log.info(
                "a pod has a new address, planning it again",
                extra={"container": container, "address": address},
            )
            for plan in plans:
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
