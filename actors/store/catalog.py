"""The Catalog: pools, reserved addresses, pods, namespaces, nodes and StatefulSets, parsed, as decisions read them.

It reads the informers' caches and goes to the store itself where a cache cannot prove that it is right: for an
object that it does not hold, for a pod whose UID the request does not name or names otherwise, and before a pod
is refused (`fresh_pools`), so that nobody is refused for what a cache had not seen yet.
What must always hold: it never writes, and what it returns is frozen.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from actors.errors import InvalidObject, NotFound, PodRefused
from actors.resources.intervals import IntervalSet
from actors.resources.ippool import IPPool
from actors.resources.namespace import Namespace
from actors.resources.node import Node
from actors.resources.pod import Pod
from actors.resources.reservedip import ReservedIP
from actors.resources.statefulset import StatefulSet
from actors.store.contract import Object, Store
from actors.store.informer import Informer

log = logging.getLogger("orbweaver.catalog")

WATCHED = ("SpiderIPPool", "SpiderReservedIP", "Namespace", "Node", "StatefulSet")


@dataclass(frozen=True, slots=True)
class PoolTable:
    """All pools at one moment; `damaged` says, for each pool that could not be parsed, why."""

    pools: Mapping[str, IPPool]
    damaged: Mapping[str, str]


class Catalog:
    """One per process. `has_pods`: pod objects are complete (Kubernetes), so that a pod without one is refused."""

    def __init__(self, store: Store, *, has_pods: bool) -> None:
        self._store = store
        self._has_pods = has_pods
        self._informers = {kind: Informer(store, kind) for kind in WATCHED}
        self._table: tuple[str, PoolTable] = ("", PoolTable({}, {}))
        self._reserved: tuple[str, dict[int, IntervalSet]] = ("", {})

    def start(self) -> None:
        """Start the informers; `wait_synced` says when they have listed."""
        for informer in self._informers.values():
            informer.start()

    def wait_synced(self, timeout: float) -> bool:
        """Whether every informer has listed within `timeout` seconds."""
        return all(informer.wait_synced(timeout) for informer in self._informers.values())

    def stop(self) -> None:
        """Stop the informers."""
        for informer in self._informers.values():
            informer.stop()

    def informer(self, kind: str) -> Informer:
        """The informer of a watched kind, to subscribe to."""
        return self._informers[kind]

    def pools(self) -> PoolTable:
        """The pools as the cache has them."""
        informer = self._informers["SpiderIPPool"]
        version = informer.version
        known, table = self._table
        if known != version:
            table = _parse_pools(informer.items())
            self._table = (version, table)
        return table

    def fresh_pools(self) -> PoolTable:
        """The pools as the store has them now."""
        return _parse_pools(self._store.list("SpiderIPPool").items)

    def pool(self, name: str) -> IPPool:
        """One pool. Raises `NotFound` when the store does not know it either, `InvalidObject` when it is damaged."""
        table = self.pools()
        found = table.pools.get(name)
        return found if found is not None else self.fresh_pool(name)

    def fresh_pool(self, name: str) -> IPPool:
        """One pool as the store has it now."""
        return IPPool.from_object(self._store.get("SpiderIPPool", name))

    def reserved(self, family: int) -> IntervalSet:
        """What no pool may give out, from all SpiderReservedIPs of the family."""
        informer = self._informers["SpiderReservedIP"]
        version = informer.version
        known, table = self._reserved
        if known != version:
            table = _parse_reserved(informer.items())
            self._reserved = (version, table)
        return table.get(family, IntervalSet())

    def pod(self, namespace: str, name: str, uid: str) -> Pod:
        """The pod of a request. Without Kubernetes the request is the pod, and an applied Pod object adds its
        annotations. Raises `PodRefused` when there must be an object and there is none."""
        try:
            return Pod.from_object(self._store.get("Pod", name, namespace))
        except NotFound as error:
            if self._has_pods:
                raise PodRefused(
                    f"pod {namespace}/{name} does not exist (any more); the runtime asks for an address for a pod that "
                    "the API server does not know"
                ) from error
            return Pod.bare(namespace, name, uid)

    def namespace(self, name: str) -> Namespace:
        """The namespace; one that has no object has no labels and no annotations."""
        found = self._cached("Namespace", name)
        return Namespace.from_object(found) if found is not None else Namespace.bare(name)

    def node(self, name: str) -> Node:
        """The node; one that has no object has no labels."""
        found = self._cached("Node", name)
        return Node.from_object(found) if found is not None else Node.bare(name)

    def statefulset(self, namespace: str, name: str) -> StatefulSet | None:
        """The StatefulSet, or None when neither the cache nor the store has it."""
        found = self._cached("StatefulSet", name, namespace)
        return StatefulSet.from_object(found) if found is not None else None

    def _cached(self, kind: str, name: str, namespace: str = "") -> Object | None:
        found = self._informers[kind].get(name, namespace)
        if found is not None:
            return found
        try:
            return self._store.get(kind, name, namespace)
        except NotFound:
            return None


def _parse_pools(objects: tuple[Object, ...]) -> PoolTable:
    pools: dict[str, IPPool] = {}
    damaged: dict[str, str] = {}
    for obj in objects:
        name = str(obj["metadata"]["name"])
        try:
            pools[name] = IPPool.from_object(obj)
        except InvalidObject as error:
            damaged[name] = str(error)
            log.error("a pool cannot be used", extra={"pool": name, "error": str(error)})
    return PoolTable(pools, damaged)


def _parse_reserved(objects: tuple[Object, ...]) -> dict[int, IntervalSet]:
    table: dict[int, IntervalSet] = {}
    for obj in objects:
        try:
            reserved = ReservedIP.from_object(obj)
        except InvalidObject as error:
            log.error("a SpiderReservedIP is damaged; what it reserves is not known", extra={"error": str(error)})
            continue
        table[reserved.family] = table.get(reserved.family, IntervalSet()).union(reserved.ips)
    return table
