"""An informer: a cache of one kind, kept by list and watch, that tells handlers which keys changed.

The shape is that of client-go's reflector and sigs.k8s.io/controller-runtime: handlers get keys, not events,
and read the state anew, so a lost or doubled event cannot mislead them.

What must always hold:

* The cache is changed before a handler hears of it, and by the informer's thread alone.
* After a list the cache is replaced at one stroke, and the keys of what vanished meanwhile are told too.
* A watch goes on from the last version seen; only an expired one (or an error without a name) lists again.
* Neither a handler's exception, nor an object that cannot be transformed, nor a store that is away ends the
  informer: it logs, waits (0.1 s doubling up to 5 s, with jitter) and goes on.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from actors.errors import NoSuchResource, OrbweaverError, StoreUnavailable, WatchExpired
from actors.store.contract import Object, Store, Watch, WatchEvent

log = logging.getLogger("orbweaver.informer")

NOT_SERVED_WAIT = 30.0
"""Seconds until an optional kind that the store does not have is looked for again."""

FIRST_WAIT = 0.1
LONGEST_WAIT = 5.0
_SHORT_WATCH = 1.0  # seconds: a watch that ends sooner and empty counts as a failure, or it would spin


class ObjectKey(NamedTuple):
    """Which object changed; `namespace` is "" for a kind of cluster scope."""

    kind: str
    namespace: str
    name: str


class _Entry(NamedTuple):
    version: str
    value: Any


class Informer:
    """Caches the objects of `kind`, in one `namespace` or all.

    `transform` makes of each object what `get` and `items` return; None leaves the object out. One that it
    raises for is logged and left out. `jitter` gives the random part of the waits. `optional`: that
    the store does not have the kind is no error; it may come, and is looked for every `absent_wait` seconds.
    `list_timeout`: seconds.
    """

    def __init__(
        self,
        store: Store,
        kind: str,
        *,
        namespace: str | None = None,
        transform: Callable[[Object], Any] | None = None,
        optional: bool = False,
        jitter: random.Random | None = None,
        list_timeout: float = 30.0,
        absent_wait: float = NOT_SERVED_WAIT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.kind = kind
        self.is_absent = False
        """Whether the store does not have the kind, as far as it was looked for."""
        self._absent_wait = absent_wait
        self._store = store
        self._namespace = namespace or None
        self._transform = transform
        self._optional = optional
        self._jitter = jitter or random.Random()
        self._list_timeout = list_timeout
        self._clock = clock
        self._handlers: list[Callable[[ObjectKey], None]] = []
        self._lock = threading.Lock()
        self._cache: dict[ObjectKey, _Entry] = {}
        self._snapshot: tuple[Any, ...] | None = ()
        self._version = ""
        self._failures = 0
        self._last_error: OrbweaverError | None = None
        self._synced = threading.Event()
        self._stopping = threading.Event()
        self._watch: Watch | None = None
        self._thread = threading.Thread(target=self._run, name=f"informer-{kind}", daemon=True)

    def subscribe(self, handler: Callable[[ObjectKey], None]) -> None:
        """Call `handler` with each changed key, on the informer's thread; it must not block.

        Subscribe before `start`, or read `items` afterwards: what is cached already is not told again.
        """
        with self._lock:
            self._handlers = [*self._handlers, handler]

    def start(self) -> None:
        """Begin to list and watch. Call it once."""
        self._thread.start()

    def stop(self, timeout: float = 5.0) -> None:
        """End the watch and wait for the thread, `timeout` seconds at most. The cache stays readable."""
        self._stopping.set()
        with self._lock:
            watch = self._watch
        if watch is not None:
            watch.close()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(timeout)

    def wait_synced(self, timeout: float) -> bool:
        """Whether the first list was cached within `timeout` seconds; `last_error` may say why not."""
        return self._synced.wait(timeout)

    def get(self, name: str, namespace: str = "") -> Any | None:
        """The cached object, or None. It is shared: copy before you change it."""
        entry = self._cache.get(ObjectKey(self.kind, namespace, name))
        return None if entry is None else entry.value

    def items(self) -> tuple[Any, ...]:
        """All cached objects at one moment; the same tuple until something changes."""
        snapshot = self._snapshot
        if snapshot is None:
            with self._lock:
                snapshot = self._snapshot = tuple([entry.value for entry in self._cache.values()])
        return snapshot

    @property
    def version(self) -> str:
        """The version that the cache has reached; "" before the first list."""
        return self._version

    @property
    def last_error(self) -> OrbweaverError | None:
        """Why the last attempt failed; None once the store answers again."""
        return self._last_error

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                if not self._version:
                    self._relist()
                self._follow()
            except WatchExpired as exc:
                self._version = ""
                self._failed(exc)
            except NoSuchResource as exc:
                if not self._optional:
                    self._failed(exc)
                    continue
                log.debug("the store does not have %s", self.kind)
                self.is_absent = True
                self._forget()
                self._stopping.wait(self._absent_wait)
            except StoreUnavailable as exc:
                self._failed(exc)
            except OrbweaverError as exc:
                self._version = ""
                self._failed(exc)
            except Exception as exc:
                # A bug. Without this thread every cache would go stale in silence, which is worse.
                log.exception("informer failed", extra={"what": "informer-failed", "kind": self.kind})
                self._version = ""
                self._failed(OrbweaverError(f"the informer of {self.kind} met an unexpected error: {exc!r}"))

    def _relist(self) -> None:
        listing = self._store.list(self.kind, self._namespace, timeout=self._list_timeout)
        cache: dict[ObjectKey, _Entry] = {}
        for obj in listing.items:
            value = self._value(obj)
            if value is not None:
                cache[self._key(obj)] = _Entry(obj["metadata"]["resourceVersion"], value)
        before = self._cache
        with self._lock:
            self._cache, self._snapshot = cache, None
            self._version = listing.version
        self._heard()
        self._synced.set()
        log.debug(
            "listed",
            extra={
                "what": "informer-listed",
                "kind": self.kind,
                "objects": len(cache),
                "version": listing.version,
            },
        )
        for key, entry in cache.items():
            if key not in before or before[key].version != entry.version:
                self._tell(key)
        for key in before:
            if key not in cache:
                self._tell(key)

    def _forget(self) -> None:
        """The kind is gone, and with it whatever there was of it."""
        before = self._cache
        with self._lock:
            self._cache, self._snapshot, self._version = {}, None, ""
        for key in before:
            self._tell(key)

    def _follow(self) -> None:
        """Watch from the version reached until the watch ends."""
        began = self._clock()
        watch = self._store.watch(self.kind, self._version)
        with self._lock:
            self._watch = watch
        if self._stopping.is_set():  # `stop` may have looked before there was a watch to close
            watch.close()
        events = 0
        try:
            for event in watch:
                if self._stopping.is_set():
                    return
                events += 1
                self._apply(event)
        finally:
            with self._lock:
                self._watch = None
            watch.close()
        if not events and self._clock() - began < _SHORT_WATCH and not self._stopping.is_set():
            raise StoreUnavailable(
                f"the watch of {self.kind} ended as soon as it had begun", maybe_written=False
            )

    def _apply(self, event: WatchEvent) -> None:
        version = event.object["metadata"]["resourceVersion"]
        if event.type == "BOOKMARK":
            self._version = version
            self._heard()
            return
        key = self._key(event.object)
        changed = self._namespace is None or key.namespace == self._namespace
        if changed:
            value = None if event.type == "DELETED" else self._value(event.object)
            held = self._cache.get(key)
            changed = value is not None or held is not None
            with self._lock:
                if value is not None:
                    changed = held is None or held.version != version
                    self._cache[key] = _Entry(version, value)
                else:
                    self._cache.pop(key, None)
                self._snapshot = None
                self._version = version
        else:
            self._version = version
        self._heard()
        if changed:
            self._tell(key)

    def _tell(self, key: ObjectKey) -> None:
        for handler in self._handlers:
            try:
                handler(key)
            except Exception:
                log.exception(
                    "handler failed for %s %s",
                    self.kind,
                    key.name,
                    extra={
                        "what": "handler-failed",
                        "kind": self.kind,
                        "namespace": key.namespace,
                        "object": key.name,
                    },
                )

    def _value(self, obj: Object) -> Any | None:
        if self._transform is None:
            return obj
        try:
            return self._transform(obj)
        except Exception as exc:  # whatever is wrong with it, one object costs itself
            key = self._key(obj)
            log.warning(
                "%s %s is left out: %s",
                self.kind,
                key.name,
                exc,
                extra={
                    "what": "object-refused",
                    "kind": self.kind,
                    "namespace": key.namespace,
                    "object": key.name,
                },
                exc_info=None if isinstance(exc, OrbweaverError) else exc,
            )
            return None

    def _key(self, obj: Object) -> ObjectKey:
        metadata = obj["metadata"]
        return ObjectKey(self.kind, metadata.get("namespace", ""), metadata["name"])

    def _heard(self) -> None:
        self.is_absent = False
        self._failures = 0
        self._last_error = None

    def _failed(self, error: OrbweaverError) -> None:
        """Remember, log and wait. Half of the wait is random, so that a fleet does not come back in step."""
        if self._stopping.is_set():
            return
        self._last_error = error
        wait = min(LONGEST_WAIT, FIRST_WAIT * 2 ** min(self._failures, 10))
        wait *= 0.5 + 0.5 * self._jitter.random()
        self._failures += 1
        log.warning(
            "%s: %s",
            self.kind,
            error,
            extra={
                "what": "informer-retry",
                "kind": self.kind,
                "error": type(error).__name__,
                "wait": round(wait, 3),
            },
        )
        self._stopping.wait(wait)
