"""Has pools made for applications while this process leads: starts and stops what that takes, and tells the actor of changes.

What must always hold: one message of a kind is under way at a time, and what changes meanwhile is gathered for the next, so
that no burst of events fills the actor's mailbox; informers' threads do nothing but gather.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Hashable
from typing import Any, Generic, Protocol, TypeVar

from actors.allocation.application_pools import KIND
from actors.decisions.settings import Settings
from actors.resources.application import Application
from actors.runtime import ActorContext, ActorSystem, ObjectRef
from actors.store.caches.catalog import Catalog
from actors.store.caches.informer import Informer, ObjectKey
from actors.store.contract import Store
from actors.subnets.applications import Applications, Identity
from actors.subnets.auto_pools import AutoPoolsActor
from actors.subnets.pool_rounds import Subnets
from actors.subnets.reading_threads import ReadingThreads

log = logging.getLogger("orbweaver.subnets")
K = TypeVar("K", bound=Hashable)
LOOK = 0.5
"""Seconds between two looks at whether the applications are known."""
MAILBOX = 65_536


class FollowedSubnets(Subnets, Protocol):
    """The same, and who hears of their changes."""

    def subscribe(self, handler: Callable[[str], None]) -> None: ...


class Gathered(Generic[K]):
    """Keys that changed, sent together while nothing is under way."""

    def __init__(self, send: Callable[[tuple[K, ...]], ObjectRef[Any]]) -> None:
        self._send = send
        self._lock = threading.Lock()
        self._keys: dict[K, None] = {}
        self._under_way = False

    def add(self, key: K) -> None:
        """From any thread; does not block."""
        with self._lock:
            self._keys[key] = None
        self._next()

    def _next(self) -> None:
        with self._lock:
            if self._under_way or not self._keys:
                return
            keys = tuple(self._keys)
            self._keys.clear()
            self._under_way = True
        self._send(keys).subscribe(self._sent)

    def _sent(self, ref: ObjectRef[Any]) -> None:
        _log_failure(ref)
        with self._lock:
            self._under_way = False
        self._next()


class ApplicationFollower:
    """One per process that may lead. `leads`: whether it does at this moment; `tell`: news about an application, by reason and
    text; `proven`: owners count by their UIDs."""

    def __init__(
        self,
        system: ActorSystem,
        store: Store,
        catalog: Catalog,
        subnets: FollowedSubnets,
        settings: Settings,
        *,
        leads: Callable[[], bool],
        tell: Callable[[Application, str, str], object],
        proven: bool,
    ) -> None:
        self._catalog = catalog
        self._subnets = subnets
        self._leads = leads
        self._threads = ReadingThreads()
        self._applications = Applications(store, self._changed, proven=proven)
        self._lock = threading.Lock()
        self._wish = 0
        self._listed: Callable[[float], bool] = lambda seconds: False
        system.register(
            KIND,
            lambda context: self._actor(context, store, settings, tell),
            mailbox=MAILBOX,
            idle=None,
        )
        self._actor_handle = system.get_actor(f"{KIND}/local")
        self._changes: Gathered[Identity] = Gathered(
            lambda keys: self._actor_handle.changed.options(timeout=None).remote(keys)
        )
        self._pools: Gathered[str] = Gathered(
            lambda names: self._actor_handle.pools_changed.options(timeout=None).remote(names)
        )

    def _actor(
        self,
        context: ActorContext,
        store: Store,
        settings: Settings,
        tell: Callable[[Application, str, str], object],
    ) -> AutoPoolsActor:
        return AutoPoolsActor(
            context,
            applications=self._applications,
            subnets=self._subnets,
            catalog=self._catalog,
            store=store,
            settings=settings,
            threads=self._threads,
            tell=tell,
            leads=self._leads,
            scan=settings.gc.interval,
        )

    def start(self, subnets: Informer) -> None:
        """Follow applications, pools and subnets; `subnets` follows those already."""
        self._listed = subnets.wait_synced
        self._applications.start()
        self._catalog.informer("SpiderIPPool").subscribe(self._pool_changed)
        self._subnets.subscribe(self._subnet_changed)

    def lead(self) -> None:
        """Make pools from now on, as soon as all applications are known; returns at once."""
        with self._lock:
            self._wish += 1
            wish = self._wish
        threading.Thread(target=self._begin, args=(wish,), name="applications-start", daemon=True).start()

    def follow(self) -> None:
        """Make no pools any more."""
        with self._lock:
            self._wish += 1
            self._actor_handle.end.options(timeout=None).remote().subscribe(_log_failure)

    def stop(self) -> None:
        """End what was started; the actor ends with its system."""
        with self._lock:
            self._wish += 1
        self._applications.stop()
        self._threads.stop()

    def _begin(self, wish: int) -> None:
        while not (self._applications.wait_listed(LOOK) and self._listed(LOOK)):
            if wish != self._wish:
                return
        with self._lock:
            if wish == self._wish:
                self._actor_handle.begin.options(timeout=None).remote().subscribe(_log_failure)

    def _changed(self, identity: Identity) -> None:
        if self._leads():
            self._changes.add(identity)

    def _pool_changed(self, key: ObjectKey) -> None:
        self._pools.add(key.name)

    def _subnet_changed(self, name: str) -> None:
        if self._leads():
            self._actor_handle.subnets_changed.options(timeout=None).remote().subscribe(_log_failure)


def _log_failure(ref: ObjectRef[Any]) -> None:
    error = ref.error()
    if error is not None:
        log.warning("a change was not looked at, the next scan does it", extra={"error": str(error)})
