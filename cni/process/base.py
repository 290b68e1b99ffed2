"""What every long-running process of ours is made of: caches, actors, metrics and health, and an orderly end."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from actors.allocation.observer import AllocationObserver
from actors.allocation.supervision import TABLE
from actors.errors import AskedToEnd, OrbweaverError, StoreUnavailable
from actors.resources.blocks.block import span_of
from actors.resources.intervals import IntervalSet
from actors.runtime import ActorSystem, ObjectRef, get, guarded, wait
from actors.store.caches.catalog import Catalog
from actors.store.caches.informer import Informer, ObjectKey
from actors.store.contract import Store
from cni.release import version
from metrics.health import HealthServer
from metrics.prometheus import Metrics, PoolUsage

log = logging.getLogger("orbweaver.process")

START_TIMEOUT = 30.0
"""Seconds after which a start gives a store up that refuses or does not answer. What is under way is waited for: on a node that
is short of CPU it takes as long as it takes, and a start that is given up begins anew, under the same load."""
SCRAPE_TIMEOUT = 5.0
_LOOK = 0.1
"""How often a start looks whether it is still wanted, in seconds."""

T = TypeVar("T")


class Process:
    """One process's catalog, actor system and HTTP endpoint; the store stays the caller's.

    `metrics_port`: 0 takes a free port, None serves no HTTP. `has_pods`: see `Catalog`.
    """

    def __init__(
        self, store: Store, name: str, *, metrics_host: str, metrics_port: int | None, has_pods: bool
    ) -> None:
        self.fatal: str | None = None
        self.store = store
        self.metrics = Metrics()
        self.metrics.tell_version(version())
        self.observer: AllocationObserver = guarded(self.metrics, "the allocations'")
        self.catalog = Catalog(store, has_pods=has_pods)
        self.system = ActorSystem(name, self.metrics, supervision=TABLE, on_fatal=self._give_up)
        self.serving = False
        self._ending = threading.Event()
        self._on_fatal: list[Callable[[], object]] = []
        self._http: HealthServer | None = None
        if metrics_port is not None:
            self._http = HealthServer(metrics_host, metrics_port, self.metrics, self.not_ready)

    @property
    def metrics_port(self) -> int | None:
        """The port that HTTP is served on, None if it is not."""
        return self._http.port if self._http is not None else None

    def not_ready(self) -> str | None:
        """Why the process cannot do its work now, or None."""
        if self.fatal is not None:
            return self.fatal
        if not self.serving:
            return f"{self.system.name} is starting or stopping"
        error = self.catalog.informer("SpiderIPPool").last_error
        if error is not None:
            return f"the store does not answer: {error}"
        return self.store.trouble()

    def on_fatal(self, callback: Callable[[], object]) -> None:
        """Call back, from any thread, when the process should end."""
        self._on_fatal.append(callback)

    def local(self, kind: str) -> Any:
        """The handle of the one actor of a kind that has one in each process."""
        return self.system.get_actor(f"{kind}/local")

    def start_caches(self) -> None:
        """Serve health and metrics, list and watch. Raises `StoreUnavailable` when the lists do not come in time."""
        if self._http is not None:
            self._http.start()
        self.catalog.start()
        self.wait_listed(*self.catalog.required())

    def end(self) -> None:
        """Give up a start that is under way: it raises `AskedToEnd` soon. From any thread."""
        self._ending.set()

    def wait_listed(self, *informers: Informer) -> None:
        """Wait for their first lists. Raises `StoreUnavailable`, with why for each kind that is not there, when one has failed
        and `START_TIMEOUT` is over, and `AskedToEnd`. A list that has not failed is under way, within its own time."""
        until = time.monotonic() + START_TIMEOUT
        for informer in informers:
            while not informer.wait_synced(_LOOK):
                self._go_on()
                if informer.last_error is not None and time.monotonic() > until:
                    raise _not_listed(informers)

    def wait_answer(self, ref: ObjectRef[T]) -> T:
        """What an actor answers that the start needs; ask it without a deadline, for it may have thousands of blocks to read
        first, and its calls to the store end by themselves. Raises its error, and `AskedToEnd`."""
        while not wait([ref], timeout=_LOOK)[0]:
            self._go_on()
        return get(ref)

    def _go_on(self) -> None:
        if self._ending.is_set():
            raise AskedToEnd(f"{self.system.name} was asked to end before it had started")

    def usage(self) -> Iterable[PoolUsage]:
        """Every pool's addresses, for metrics; of processes that have a Ledger."""
        try:
            ledger = self.local("ledger")
            counts = get(ledger.counts.options(timeout=SCRAPE_TIMEOUT).remote())
            damaged = get(ledger.damaged.options(timeout=SCRAPE_TIMEOUT).remote())
            unjudged = get(ledger.unjudged.options(timeout=SCRAPE_TIMEOUT).remote())
        except OrbweaverError as error:
            log.warning("pools are left out of this scrape", extra={"error": str(error)})
            return
        unreadable = {
            family: span_of(base for of, base in damaged if of == family).union(
                IntervalSet((value, value) for of, value in unjudged if of == family)
            )
            for family in (4, 6)
        }
        for pool in self.catalog.pools().pools.values():
            usable = pool.available.minus(self.catalog.reserved(pool.family))
            lost = usable.intersect(unreadable[pool.family]).size
            yield PoolUsage(pool.name, usable.size, counts.get(pool.name, 0), lost)

    def mailboxes(self) -> dict[str, int]:
        """How many messages wait, by kind of actor, for metrics."""
        depths: Counter[str] = Counter(dict.fromkeys(self.system.local_kinds(), 0))
        for row in self.system.describe():
            depths[row.name.partition("/")[0]] += row.mailbox
        return dict(depths)

    def look_after_objects(self) -> None:
        """Follow pools: their status and finalizers."""
        self.catalog.informer("SpiderIPPool").subscribe(self._pool_changed)
        self.catalog.informer("SpiderReservedIP").subscribe(lambda _: self._reserved_changed())

    def stop_actors(self, drain: float) -> None:
        """Let the actors finish what has begun for up to `drain` seconds, then end everything."""
        left = self.system.shutdown(drain)
        if left:
            log.warning("some actors had not finished", extra={"actors": [row.name for row in left][:20]})
        self.catalog.stop()
        if self._http is not None:
            self._http.stop()
        log.info("stopped")

    def _give_up(self, why: str) -> None:
        self.fatal = why
        for callback in self._on_fatal:
            callback()

    def _pool_changed(self, key: ObjectKey) -> None:
        self.local("views").changed.remote((), (key.name,)).subscribe(log_failure)

    def _reserved_changed(self) -> None:
        """What a pool may give out, and so its total, changed for any of them."""
        self.local("views").changed.remote((), tuple(self.catalog.pools().pools)).subscribe(log_failure)


def log_failure(ref: ObjectRef[Any]) -> None:
    """For calls whose answer nobody waits for."""
    error = ref.error()
    if error is not None:
        log.warning("work in the background failed, the next change repeats it", extra={"error": str(error)})


def _not_listed(informers: Sequence[Informer]) -> StoreUnavailable:
    missing = [informer for informer in informers if not informer.wait_synced(0)]
    names = ", ".join(informer.kind for informer in missing)
    return StoreUnavailable(
        f"the store did not list {names} within {START_TIMEOUT:g} s",
        details=tuple(
            f"{informer.kind}: {informer.last_error or 'the list is under way'}" for informer in missing
        ),
        maybe_written=False,
    )
