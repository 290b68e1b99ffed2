"""The Catalog: pools, reserved addresses, pods, namespaces, nodes, StatefulSets and virtual machines, parsed, as
decisions read them.

It reads the informers' caches and goes to the store itself where a cache cannot prove that it is right: for an
object that it does not hold, for a pod whose UID the request does not name or names otherwise, and before a pod
is refused (`fresh_pools`), so that nobody is refused for what a cache had not seen yet.
What must always hold: it never writes, and what it returns is frozen.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import ChainMap, OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from actors.errors import InvalidObject, NoSuchResource, NotFound, PodRefused, StoreUnavailable
from actors.resources import coordinator, ipam_claim
from actors.resources.coordinator import SpiderCoordinator
from actors.resources.intervals import IntervalSet
from actors.resources.ippool import IPPool
from actors.resources.namespace import Namespace
from actors.resources.node import Node
from actors.resources.pod import Pod
from actors.resources.reservedip import ReservedIP
from actors.resources.statefulset import StatefulSet
from actors.resources.virtualmachine import INSTANCE, MACHINE, VirtualMachine, lives
from actors.store.caches.excerpts import cached_namespace, cached_pod
from actors.store.caches.informer import Informer, ObjectKey
from actors.store.caches.unreadable import Unreadable, parsed, sorted_out
from actors.store.contract import Object, Store, version_number

log = logging.getLogger("orbweaver.catalog")


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
        watched = {**_WATCHED, "StatefulSet": self._watch_statefulset, "Namespace": cached_namespace}
        if has_pods:
            watched["Pod"] = cached_pod
        self._informers = {kind: Informer(store, kind, transform=parse) for kind, parse in watched.items()}
        self._machines: dict[str, Informer] = {}
        self._started = False
        self._followers: dict[object, tuple[str, Callable[[], object]]] = {}
        for kind in ("SpiderIPPool", "SpiderReservedIP"):
            self._informers[kind].subscribe(self._tell_followers)
        self._ahead: dict[str, IPPool] = {}
        """Pools that were read before the cache heard of them, until it does."""
        self._ahead_lock = threading.Lock()
        self._made: OrderedDict[str, tuple[Object, float]] = OrderedDict()
        """The objects of pools that this process made, each with the monotonic second until which others may not know it."""
        self._table: tuple[tuple[Any, ...], PoolTable] = ((), PoolTable({}, {}))
        self._reserved: tuple[tuple[Any, ...], dict[int, IntervalSet]] = ((), {})

    def follow_machines(self, handler: Callable[[ObjectKey], None]) -> None:
        """Watch KubeVirt's objects and IPAMClaims as well, once the API server has them, and tell of every change."""
        for kind, parse in _MACHINES.items():
            informer = Informer(self._store, kind, transform=parse, optional=True)
            informer.subscribe(handler)
            self._machines[kind] = informer
            if self._started:
                informer.start()

    def start(self) -> None:
        """Start the informers; `wait_synced` says when they have listed, apart from what need not be there."""
        self._started = True
        for informer in (*self._informers.values(), *self._machines.values()):
            informer.start()

    def wait_synced(self, timeout: float) -> bool:
        """Whether every informer has listed within `timeout` seconds."""
        until = time.monotonic() + timeout
        return all(
            informer.wait_synced(max(0.0, until - time.monotonic())) for informer in self._informers.values()
        )

    def required(self) -> tuple[Informer, ...]:
        """The informers of what a store must have."""
        return tuple(self._informers.values())

    def stop(self) -> None:
        """Stop the informers, all at once: each may be waiting for a store that does not answer."""
        informers = (*self._informers.values(), *self._machines.values())
        for informer in informers:
            informer.stop(0)
        until = time.monotonic() + _STOP_TIMEOUT
        for informer in informers:
            informer.stop(max(0.0, until - time.monotonic()))

    def informer(self, kind: str) -> Informer:
        """The informer of a watched kind, to subscribe to."""
        return self._machines[kind] if kind in _MACHINES else self._informers[kind]

    def pools(self) -> PoolTable:
        """The pools as the cache has them."""
        items = self._informers["SpiderIPPool"].items()
        known, table = self._table
        if known is not items:
            table = _tabulate(items)
            self._table = (items, table)
        return table

    def fresh_pools(self) -> PoolTable:
        """The pools as the store has them now."""
        return _tabulate(tuple(_parse_pool(obj) for obj in self._store.list("SpiderIPPool").items))

    def with_pools(self, table: PoolTable, names: Iterable[str]) -> PoolTable:
        """The table with these pools, of which some may be so new that the cache has not heard of them."""
        missing: dict[str, IPPool] = {}
        for name in names:
            if name not in table.pools and name not in table.damaged:
                with contextlib.suppress(NotFound, InvalidObject):
                    missing[name] = self.pool(name)
        return PoolTable(ChainMap(missing, table.pools), table.damaged) if missing else table  # type: ignore[arg-type]

    def pool(self, name: str) -> IPPool:
        """One pool. Raises `NotFound` when the store does not know it either, `InvalidObject` when it is damaged."""
        pool = self.pools().pools.get(name) or self._ahead.get(name)
        if pool is None:
            pool = self.fresh_pool(name)
            self._get_ahead(pool)
        return pool

    def hear_of(self, obj: Object) -> None:
        """A pool that was made a moment ago, here or at the leader: it need not be read before the watch tells of it."""
        known, version = self.pools().pools.get(obj["metadata"]["name"]), obj["metadata"]["resourceVersion"]
        with contextlib.suppress(InvalidObject):
            if known is None or version_number(known.version) < version_number(version):
                self._get_ahead(IPPool.from_object(obj))

    def _get_ahead(self, pool: IPPool) -> None:
        """Know a pool until the cache does, unless a newer state of it is known already."""
        if not self._started:
            return
        with (
            contextlib.suppress(InvalidObject),
            self._ahead_lock,
        ):  # a version that is no number cannot be compared
            known = self._ahead.get(pool.name)
            if known is None or version_number(known.version) < version_number(pool.version):
                known = self._ahead[pool.name] = pool
            if version_number(self._informers["SpiderIPPool"].version) >= version_number(known.version):
                del self._ahead[pool.name]  # the watch was faster

    def made(self, obj: Object) -> None:
        """As `hear_of`, of a pool that this process made; others may be told of it for some seconds (`made_lately`)."""
        self.hear_of(obj)
        self._made[obj["metadata"]["name"]] = (obj, time.monotonic() + _NEW)
        if len(self._made) > _MADE_MOST:
            with contextlib.suppress(KeyError):
                self._made.popitem(last=False)

    def made_lately(self, names: Iterable[str]) -> tuple[Object, ...]:
        """What decisions read of those of these pools that this process made a moment ago, as objects."""
        return tuple(_told(obj) for name in names if (obj := self._new(name)) is not None)

    def is_own(self, name: str) -> bool:
        """Whether this process made the pool a moment ago."""
        return self._new(name) is not None

    def _new(self, name: str) -> Object | None:
        entry = self._made.get(name)  # once, since other threads forget the oldest meanwhile
        return entry[0] if entry is not None and time.monotonic() < entry[1] else None

    def as_made(self, name: str) -> Object | None:
        """A pool as it was stored when this process made it, which others may have changed since; None where that is not
        known."""
        entry = self._made.get(name)
        return entry[0] if entry is not None else None

    def knows_pool(self, name: str) -> bool:
        """Whether there is such a pool, as far as that is known without asking."""
        table = self.pools()
        return name in table.pools or name in table.damaged or name in self._ahead

    def fresh_pool(self, name: str) -> IPPool:
        """One pool as the store has it now."""
        return IPPool.from_object(self._store.get("SpiderIPPool", name))

    def follow_pool(self, name: str, changed: Callable[[], object]) -> Callable[[], object]:
        """Call `changed`, on an informer's thread, whenever the pool or what is reserved may have changed, until what
        this returns is called."""
        key = object()
        self._followers[key] = (name, changed)
        return lambda: self._followers.pop(key, None)

    def _tell_followers(self, key: ObjectKey) -> None:
        with self._ahead_lock:
            self._ahead.pop(key.name, None)
        for name, changed in tuple(self._followers.values()):
            if key.kind != "SpiderIPPool" or key.name == name:
                changed()

    def reserved(self, family: int) -> IntervalSet:
        """What no pool may give out, from all SpiderReservedIPs of the family."""
        items = self._informers["SpiderReservedIP"].items()
        known, table = self._reserved
        if known is not items:
            table = {}
            for reserved in items:
                table[reserved.family] = table.get(reserved.family, IntervalSet()).union(reserved.ips)
            self._reserved = (items, table)
        return table.get(family, _NOTHING)

    def coordinator(self) -> SpiderCoordinator | None:
        """The defaults of the coordinator plugin: the object `default`, else another one, else None."""
        default: SpiderCoordinator | None = self._informers[coordinator.KIND].get(coordinator.NAME)
        if default is not None:
            return default
        others: tuple[SpiderCoordinator, ...] = self._informers[coordinator.KIND].items()
        return min(others, key=lambda other: other.name, default=None)

    def pod(self, namespace: str, name: str, uid: str) -> Pod:
        """The pod of a request. Without Kubernetes the request is the pod, and an applied Pod object adds its
        annotations. Raises `PodRefused` when there must be an object and there is none."""
        if self._has_pods and uid:
            cached: Pod | None = self._informers["Pod"].get(name, namespace)
            if cached is not None and cached.uid == uid and cached.is_whole:
                return cached
        try:
            return Pod.from_object(self._store.get("Pod", name, namespace))
        except (NotFound, InvalidObject) as error:
            if self._has_pods:
                raise PodRefused(
                    f"pod {namespace}/{name} does not exist (any more); the runtime asks for an address for a pod that "
                    "the API server does not know"
                ) from error
            return Pod.bare(namespace, name, uid)
        except StoreUnavailable as error:
            raise StoreUnavailable(
                f"pod {namespace}/{name} is not known here yet, and cannot be read: {error}; try again when the API server "
                "answers this node",
                maybe_written=False,
            ) from error

    def goes_on(self, namespace: str, name: str, uid: str) -> bool:
        """Whether the pod with this UID is there and alive, as the API server says at this moment; False where no API server
        has pods. Raises `StoreUnavailable`."""
        if not self._has_pods:
            return False
        try:
            pod = Pod.from_object(self._store.get("Pod", name, namespace))
        except (NotFound, InvalidObject):
            return False
        return pod.uid == uid and pod.alive

    def namespace(self, name: str) -> Namespace | None:
        """The namespace, or None where there is no such object."""
        cached: Namespace | None = self._cached("Namespace", name)
        if cached is None or cached.is_whole:
            return cached
        try:
            return Namespace.from_object(self._store.get("Namespace", name))
        except (NotFound, InvalidObject):
            return None

    def node(self, name: str) -> Node | None:
        """The node, or None where there is no such object."""
        cached: Node | None = self._cached("Node", name)
        return cached

    def statefulset(self, namespace: str, name: str) -> StatefulSet | None:
        """The StatefulSet, or None when neither the cache nor the store has it."""
        cached: StatefulSet | None = self._cached("StatefulSet", name, namespace)
        return cached

    def _watch_statefulset(self, obj: Object) -> StatefulSet:
        metadata = obj["metadata"]
        before = self._informers["StatefulSet"].get(metadata["name"], metadata.get("namespace", ""))
        return StatefulSet.watched(obj, before)

    def proven(self, pod: Pod) -> Pod:
        """The pod without its owner, where that would have its addresses kept and is not what the pod says: anybody who may
        create pods writes ownerReferences as he likes, with the name of another's virtual machine too. Where nobody but
        the operator makes pods, without Kubernetes, they are believed."""
        owner = pod.owner
        kind = "StatefulSet" if pod.statefulset is not None else INSTANCE if pod.machine is not None else ""
        if not self._has_pods or owner is None or not kind:
            return pod
        informer = (self._informers | self._machines).get(kind)
        cached = informer.get(owner.name, pod.namespace) if informer is not None else None
        if cached is not None and cached.uid == owner.uid:
            return pod
        uid = ""
        with contextlib.suppress(NotFound, NoSuchResource, InvalidObject):
            uid = str(self._store.get(kind, owner.name, pod.namespace)["metadata"].get("uid", ""))
        if uid == owner.uid:
            return pod
        log.warning(
            "a pod names an owner that is not there, and is served as nobody's",
            extra={
                "pod": pod.key,
                "owner": f"{kind}/{owner.name}",
                "claimed_uid": owner.uid,
                "found_uid": uid,
            },
        )
        return replace(pod, owner=None)

    def machine_lives(self, namespace: str, name: str) -> bool:
        """Whether the virtual machine runs or will run again. Without KubeVirt there is none."""
        try:
            machine, instance = (self._cached(kind, name, namespace) for kind in (MACHINE, INSTANCE))
        except NoSuchResource:
            return False
        return lives(machine, instance)

    def claim_lives(self, namespace: str, name: str) -> bool:
        """Whether the IPAMClaim is there."""
        try:
            return self._cached(ipam_claim.KIND, name, namespace) is not None
        except NoSuchResource:
            return False

    def _cached(self, kind: str, name: str, namespace: str = "") -> Any:
        informer = (self._informers | self._machines).get(kind)
        cached = informer.get(name, namespace) if informer is not None else None
        if cached is not None:
            return cached
        try:
            return (_WATCHED | _MACHINES)[kind](self._store.get(kind, name, namespace))
        except (NotFound, InvalidObject):
            return None


def _told(obj: Object) -> Object:
    metadata = {key: value for key, value in obj["metadata"].items() if key in _TOLD}
    return {key: obj[key] for key in ("apiVersion", "kind", "spec")} | {"metadata": metadata}


def _parse_pool(obj: Object) -> IPPool | Unreadable:
    return parsed(IPPool.from_object, obj, "pool")


def _parse_coordinator(obj: Object) -> SpiderCoordinator:
    try:
        return SpiderCoordinator.from_object(obj)
    except InvalidObject as error:
        name = str(obj["metadata"]["name"])
        log.error("a SpiderCoordinator cannot be used", extra={"coordinator": name, "error": str(error)})
        # Not left out: pods would start without the routes that it asks for.
        return SpiderCoordinator(name, "none", {}, coordinator.NOT_READY, str(error))


def _claim_key(obj: Object) -> str:
    """Of a claim all that counts for what is recorded is whether it is there; its status may be another's, and wrong."""
    return f"{obj['metadata'].get('namespace', '')}/{obj['metadata']['name']}"


_WATCHED: dict[str, Callable[[Object], Any]] = {
    "SpiderIPPool": _parse_pool,
    "SpiderReservedIP": ReservedIP.from_object,
    "SpiderCoordinator": _parse_coordinator,
    "Namespace": Namespace.from_object,
    "Node": Node.from_object,
    "StatefulSet": StatefulSet.from_object,
}
# What need not be there.
_MACHINES: dict[str, Callable[[Object], Any]] = {
    MACHINE: VirtualMachine.from_machine,
    INSTANCE: VirtualMachine.from_instance,
    ipam_claim.KIND: _claim_key,
}
_NOTHING = IntervalSet()
_NEW = 10.0
"""Seconds after which every cache has heard of a pool."""
_MADE_MOST = 1024
_TOLD = ("name", "uid", "resourceVersion", "labels", "deletionTimestamp")
"""What of a pool's metadata a decision reads."""
_STOP_TIMEOUT = 5.0


def _tabulate(items: tuple[IPPool | Unreadable, ...]) -> PoolTable:
    return PoolTable(*sorted_out(items))
