"""Who is about to give its addresses back, as far as the caches of this process tell: for pools whose requests wait.

What must always hold: it answers from memory and never waits; an address of which it says so may still stay (a pod's
end takes as long as its containers like), but nothing is ever taken or given because of it. What stays for a pod's
next incarnation is not on its way back, nor is what a node holds that nobody reaches.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from actors.decisions.inherit import is_fixed, owning_statefulset, still_wanted, wanted
from actors.decisions.settings import Settings
from actors.reclaim.evidence import CachedClusterState
from actors.resources.blocks.record import Record
from actors.resources.node import Node
from actors.resources.pod import Pod
from actors.store.caches.catalog import Catalog
from actors.store.caches.informer import ObjectKey

GONE_FOR = 60.0
"""Seconds for which a pod that is gone counts: by then its address is back, or nobody knows when it will be."""


class PodCache(Protocol):
    """What is asked about pods; nothing in it may wait."""

    def pod(self, pod: str) -> Pod | None: ...

    def node(self, name: str) -> Node | None: ...


class LeavingPods:
    """Safe to use from any thread."""

    def __init__(
        self,
        cache: PodCache,
        *,
        stays: Callable[[Record], bool],
        complete: Callable[[Record], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`stays`: whether a record is kept when its pod ends. `complete`: whether the cache has all pods of the record's
        node, so that one that is not in it is gone."""
        self._cache = cache
        self._stays = stays
        self._complete = complete
        self._clock = clock
        self._lock = threading.Lock()
        self._ending: dict[str, None] = {}
        self._gone: dict[str, float] = {}
        """Since when; the first one is gone for longest."""
        self._stopping: Counter[str] = Counter()

    def changed(self, key: ObjectKey) -> None:
        """A pod changed, or went; for an informer to call."""
        name = f"{key.namespace}/{key.name}"
        pod = self._cache.pod(name)
        with self._lock:
            self._ending.pop(name, None)
            if pod is None:
                self._gone.pop(name, None)
                self._gone[name] = self._clock()
            elif pod.ended is not None or pod.finished:
                self._ending[name] = None

    @contextmanager
    def stopping(self, pods: Sequence[str]) -> Iterator[None]:
        """While a DEL for one of these pods is served."""
        with self._lock:
            self._stopping.update(pods)
        try:
            yield
        finally:
            with self._lock:
                self._stopping.subtract(pods)
                self._stopping += Counter()  # forget those at zero

    def pods(self) -> tuple[str, ...]:
        """See `actors.allocation.departures.Departures`."""
        with self._lock:
            horizon = self._clock() - GONE_FOR
            while self._gone and next(iter(self._gone.values())) < horizon:
                del self._gone[next(iter(self._gone))]
            return tuple({**self._stopping, **self._gone, **self._ending})

    def why(self, record: Record) -> str | None:
        """See `actors.allocation.departures.Departures`."""
        if record.is_retained or self._stays(record):
            return None
        with self._lock:
            if record.pod in self._stopping:
                return f"pod {record.pod} is being stopped"
        return leaving(
            record, self._cache.pod(record.pod), self._cache.node(record.node), self._complete(record)
        )


def leaving(record: Record, pod: Pod | None, node: Node | None, complete: bool) -> str | None:
    """Why an address is on its way back, in words; None if it is not, or if nobody knows when it will be. `complete`:
    all pods of its node are known, so that one that is not (None) is gone."""
    if node is not None and not node.ready:
        return None
    if pod is None:
        return f"pod {record.pod} is gone" if complete else None
    if record.uid and pod.uid and record.uid != pod.uid:
        return f"pod {record.pod} was replaced by another one of its name"
    if pod.deleted_at is not None:
        return f"pod {record.pod} is Terminating"
    if pod.finished:
        return f"pod {record.pod} has ended"
    return None


class NodePods:
    """The pods that an agent's catalog has: those of its node, or none on a host without Kubernetes."""

    def __init__(self, catalog: Catalog, *, has_pods: bool) -> None:
        self._catalog = catalog
        self._has_pods = has_pods

    def pod(self, pod: str) -> Pod | None:
        namespace, _, name = pod.partition("/")
        cached: Pod | None = self._catalog.informer("Pod").get(name, namespace) if self._has_pods else None
        return cached

    def node(self, name: str) -> Node | None:
        cached: Node | None = self._catalog.informer("Node").get(name)
        return cached


def of_node(catalog: Catalog, node: str, settings: Settings, *, has_pods: bool) -> LeavingPods:
    """For an agent that allocates by itself: the pods of its node, and the DELs that it serves."""

    def stays(record: Record) -> bool:
        if record.machine or not is_fixed(record):
            return bool(record.machine)
        namespace, name = record.pod.partition("/")[0], owning_statefulset(record)
        owner = catalog.informer("StatefulSet").get(name, namespace) if name is not None else None
        return still_wanted(record, owner, settings)

    pods = NodePods(catalog, has_pods=has_pods)
    leaving = LeavingPods(pods, stays=stays, complete=lambda record: has_pods and record.node == node)
    if has_pods:
        catalog.informer("Pod").subscribe(leaving.changed)
    return leaving


def of_cluster(cluster_state: CachedClusterState, settings: Settings) -> LeavingPods:
    """For a leader: all pods, while garbage is collected; `changed` is to be told of each."""
    return LeavingPods(
        cluster_state,
        stays=lambda record: bool(wanted(record, cluster_state, settings)),
        complete=lambda record: cluster_state.wait_synced(0),
    )
