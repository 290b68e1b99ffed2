"""Tells the GC actor which objects changed, while this process is the one that collects.

What must always hold: one message is under way at a time, and what changes meanwhile is gathered for the next, so that
no burst of events fills the actor's mailbox; a message that fails is not repeated, since a scan finds all of it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable

from actors.reclaim.evidence import CachedClusterState
from actors.runtime import ActorSystem, ObjectRef
from actors.store.caches.catalog import Catalog
from actors.store.caches.informer import ObjectKey

log = logging.getLogger("orbweaver.gc")

FOLLOWED = ("Node", "Namespace", "StatefulSet")
STOP_TIMEOUT = 10.0
LOOK = 0.5
"""Seconds between two looks at whether the pods are known."""


class GCFollower:
    """Starts and stops the garbage collection of a whole cluster in this process, as often as need be."""

    def __init__(
        self,
        system: ActorSystem,
        catalog: Catalog,
        cluster_state: CachedClusterState,
        pod_changed: Callable[[ObjectKey], object] = lambda key: None,
    ) -> None:
        """`pod_changed` is told of every pod that changes or goes, too."""
        self._gc = system.get_actor("gc/local")
        self._cluster_state = cluster_state
        self._pod_changed = pod_changed
        self._lock = threading.Lock()
        self._wish = 0
        self._running = False
        self._gathered: dict[tuple[str, str, str], None] = {}
        self._under_way = False
        for kind in FOLLOWED:
            catalog.informer(kind).subscribe(self._changed)
        catalog.follow_machines(self._changed)

    @property
    def running(self) -> bool:
        """Whether garbage is collected now."""
        return self._running

    def start(self) -> None:
        """Follow the pods, and collect as soon as all of them are known; returns at once."""
        with self._lock:
            self._wish += 1
            wish = self._wish
        self._cluster_state.start(self._followed)
        threading.Thread(target=self._begin, args=(wish,), name="gc-start", daemon=True).start()

    def stop(self) -> None:
        """Collect nothing any more, and forget the pods."""
        with self._lock:
            self._wish += 1
            running, self._running = self._running, False
            self._gathered.clear()
            if running:
                self._gc.stop.options(timeout=STOP_TIMEOUT).remote().subscribe(self._log_failure)
        self._cluster_state.stop()

    def _begin(self, wish: int) -> None:
        while not self._cluster_state.wait_synced(LOOK):
            if wish != self._wish:
                return
        with self._lock:
            if wish == self._wish:
                # What changed before is found by the scan that it begins with.
                self._running = True
                self._gc.start.options(timeout=None).remote().subscribe(self._log_failure)

    def _followed(self, key: ObjectKey) -> None:
        self._pod_changed(key)
        self._changed(key)

    def _changed(self, key: ObjectKey) -> None:
        self._gather([(key.kind, key.namespace, key.name)])

    def recorded(self, pods: Iterable[str]) -> None:
        """Something was recorded for these pods `namespace/name`, which may be gone already: no event of theirs would tell."""
        self._gather([("Pod", *pod.partition("/")[::2]) for pod in pods])

    def _gather(self, objects: Iterable[tuple[str, str, str]]) -> None:
        with self._lock:
            if self._running:
                self._gathered.update(dict.fromkeys(objects))
        self._send()

    def _send(self) -> None:
        with self._lock:
            if self._under_way or not self._gathered or not self._running:
                return
            objects = tuple(self._gathered)
            self._gathered.clear()
            self._under_way = True
        self._gc.changed.options(timeout=None).remote(objects).subscribe(self._sent)

    def _sent(self, ref: ObjectRef[None]) -> None:
        self._log_failure(ref)
        with self._lock:
            self._under_way = False
        self._send()

    def _log_failure(self, ref: ObjectRef[None]) -> None:
        error = ref.error()
        if error is not None:
            log.warning("a change was not looked at, the next scan does it", extra={"error": str(error)})
