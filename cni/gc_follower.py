"""Tells the GC actor which objects changed, while this process is the one that collects.

What must always hold: one message is under way at a time, and what changes meanwhile is gathered for the next, so that
no burst of events fills the actor's mailbox; a message that fails is not repeated, since a scan finds all of it.
"""

from __future__ import annotations

import logging
import threading

from actors.runtime import ActorSystem, ObjectRef, get
from actors.store.catalog import Catalog
from actors.store.census import Census
from actors.store.informer import Key

log = logging.getLogger("orbweaver.gc")

FOLLOWED = ("Node", "Namespace", "StatefulSet")
STOP_TIMEOUT = 10.0


class GCFollower:
    """Starts and stops the garbage collection of a whole cluster in this process, as often as need be."""

    def __init__(self, system: ActorSystem, catalog: Catalog, census: Census) -> None:
        self._gc = system.get_actor("gc/local")
        self._census = census
        self._lock = threading.Lock()
        self._running = False
        self._gathered: dict[tuple[str, str, str], None] = {}
        self._under_way = False
        for kind in FOLLOWED:
            catalog.informer(kind).subscribe(self._changed)

    def start(self, timeout: float) -> None:
        """Follow the pods, then collect. Raises `StoreUnavailable` when they are not listed in time."""
        self._census.start(self._changed, timeout)
        with self._lock:
            self._running = True  # what was told before is found by the scan that `start` begins with
        get(self._gc.start.options(timeout=timeout).remote())

    def stop(self) -> None:
        """Collect nothing any more, and forget the pods."""
        with self._lock:
            running, self._running = self._running, False
            self._gathered.clear()
        if running:
            self._gc.stop.options(timeout=STOP_TIMEOUT).remote().subscribe(self._log_failure)
            self._census.stop()

    def _changed(self, key: Key) -> None:
        with self._lock:
            if self._running:
                self._gathered[key.kind, key.namespace, key.name] = None
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
