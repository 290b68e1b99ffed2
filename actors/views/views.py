"""The Views actor: SpiderEndpoint objects and pool status, computed from what is recorded.

What must always hold: a view is never read to decide anything here, so one that is missing or stale loses and
leaks nothing; what differs when the process starts is put right. A view that cannot be written is tried again and
never delays an allocation: SpiderEndpoints wait until nothing has changed for `QUIET` seconds, at most `LATEST`, so that
pods that start together do not wait for one another's views; what came and went meanwhile is never written. A pool's
status is written at most once a second; one that lists many addresses less often, a second for each thousand.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from actors.allocation.messages import Allocation
from actors.allocation.router import Allocator, AllocatorRouter, ask
from actors.allocation.takeover import DIGEST, digest_of, take_over
from actors.decisions.overlaps import overlapping
from actors.errors import Conflict, InvalidObject, NotFound, OrbweaverError
from actors.resources.addresses import format_address
from actors.resources.admission import FINALIZER, admit
from actors.resources.ippool import IPPool
from actors.runtime import Actor, ActorContext, ObjectRef, get, message
from actors.store.caches.catalog import Catalog, PoolTable
from actors.store.contract import Object, Store
from actors.store.kinds import SPIDERPOOL

log = logging.getLogger("orbweaver.views")

QUIET, LATEST = 0.3, 5.0
"""Seconds without a change after which SpiderEndpoints are written, and after which they are under any load."""

POOL_INTERVAL = 1.0
RETRY = 1.0
LISTED = 5000
"""Addresses up to which `status.allocatedIPs` lists each one; Spiderpool's own limit, set by the object's size."""

LISTED_A_SECOND = 1000
"""Addresses that one pool's status is rewritten with in a second: all that it lists are 80 bytes each, every time."""

OVERLAPS, OVERLAP_COUNT = "overlaps", "overlapCount"

POD = "ipam.spidernet.io/pod"
"""Annotation of a SpiderEndpoint whose pod's name is no valid object name: the pod, as `namespace/name`."""

LOOK_AGAIN = 5.0
"""Seconds after which a process that repairs others' SpiderEndpoints looks at those it wrote again: by then it has heard of
what was recorded meanwhile."""

LEDGER_TIMEOUT = 10.0
_AT_ONCE = 32
_NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")


def endpoint_name(pod: str) -> str:
    """The SpiderEndpoint's name for a pod. Without Kubernetes a pod may be named by a container id, which need not
    be a valid object name; then it is made one, and stays unique."""
    if _NAME.fullmatch(pod):
        return pod
    legal = re.sub(r"[^a-z0-9]+", "-", pod.lower()).strip("-")[:200]
    return f"{legal}-{hashlib.sha256(pod.encode()).hexdigest()[:8]}".lstrip("-")


@dataclass(slots=True)
class State:
    """`pods` and `pools` are to be written; `changed` and `waiting` are the monotonic seconds of the last change of `pods`
    and of the first that is not written; `written` are the SpiderEndpoints as this process left them, `rewritten` the
    pods whose view had to be written since the last round; `overlaps` are those of the pools in `table`. `later`: of
    pools that list many addresses the monotonic seconds before which they are not written again."""

    written: dict[str, Object] = field(default_factory=dict)
    pods: set[str] = field(default_factory=set)
    pools: set[str] = field(default_factory=set)
    sequence: int = -1
    changed: float = 0.0
    waiting: float = 0.0
    ending: bool = False
    pods_set: bool = False
    pools_set: bool = False
    rewritten: set[str] = field(default_factory=set)
    table: PoolTable | None = None
    overlaps: dict[str, tuple[str, ...]] = field(default_factory=dict)
    later: dict[str, float] = field(default_factory=dict)


class ViewsActor(Actor):
    """One per process that allocates, named `views/local`."""

    def __init__(
        self,
        context: ActorContext,
        *,
        router: AllocatorRouter,
        store: Store,
        catalog: Catalog,
        node: str | None = None,
        pools: bool = True,
        follow: bool = False,
        may_write: Callable[[], bool] = lambda: True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`node`: repair only the SpiderEndpoints of its pods. `pools`: look after the pools' status and what other
        IPAMs left, as one process in a cluster does. `follow`: look by itself for
        pools that other processes allocated from. `may_write`: whether the pools' status is for this process to write at
        this moment; who comes to write it repairs it first."""
        super().__init__(context)
        self._router = router
        self._store = store
        self._catalog = catalog
        self._node = node
        self._pools = pools
        self._follow = follow
        self._may_write = may_write
        self._clock = clock
        self._state = State()

    def on_activate(self) -> None:
        if self._follow:
            self.after(POOL_INTERVAL, self._look)

    @message
    def changed(self, pods: tuple[str, ...], pools: tuple[str, ...] = ()) -> None:
        """What is recorded for these pods, and with it for their pools, changed."""
        state = self._state
        state.pods.update(pods)
        if self._pools:
            state.pools.update(pools)
        if pods:
            state.changed = time.monotonic()
            if not state.pods_set:
                state.pods_set, state.waiting = True, state.changed
                self.after(QUIET, self._when_quiet)
        self._pools_soon(POOL_INTERVAL)

    def _when_quiet(self) -> None:
        state, now = self._state, time.monotonic()
        left = min(state.changed + QUIET, state.waiting + LATEST) - now
        if left > 0:
            self.after(left, self._when_quiet)
        else:
            self._write_endpoints()

    def on_passivate(self) -> bool:
        state = self._state
        if state.pods and not state.ending:
            state.ending = True
            self.post(self._write_endpoints)  # the process ends, and timers are not waited for
        return False

    @message
    def repair(self) -> None:
        """Compare every view with what is recorded, and write those that differ."""
        pools = {obj["metadata"]["name"]: obj for obj in self._store.list("SpiderIPPool").items}
        if self._pools:
            # First: the SpiderEndpoints of another IPAM's pods are views of nothing until its records are taken over.
            for name, obj in pools.items():
                self._take_over(name, obj)
        pods = set(self._holders())
        if self._pools:
            pods.update(pod_of(obj) for obj in self._store.list("SpiderEndpoint").items)
        self.changed(tuple(pods), tuple(pools))

    def _holders(self) -> tuple[str, ...]:
        """Whose SpiderEndpoints this process looks after."""

        def task(allocator: Allocator) -> tuple[str, ...]:
            method = allocator.get_actor("ledger/local").holders.options(timeout=LEDGER_TIMEOUT)
            (names,) = ask(allocator, method.remote(self._node or ""))
            return tuple(names)

        return self._router.work(task)

    def _recorded(self, question: str, *arguments: Any) -> tuple[Allocation, ...]:
        """What the Ledger answers, wherever it lives."""

        def task(allocator: Allocator) -> tuple[Allocation, ...]:
            method = getattr(allocator.get_actor("ledger/local"), question).options(timeout=LEDGER_TIMEOUT)
            (held,) = ask(allocator, method.remote(*arguments))
            found: tuple[Allocation, ...] = held
            return found

        return self._router.work(task)

    def _take_over(self, name: str, obj: Object) -> None:
        try:
            take_over(IPPool.from_object(obj), self._store, self.get_actor, self._clock)
        except InvalidObject as error:
            log.error(
                "a pool's earlier allocations cannot be taken over", extra={"pool": name, "error": str(error)}
            )

    def _look(self) -> None:
        state = self._state
        changed = self.get_actor("ledger/local").changed_pools.options(timeout=LEDGER_TIMEOUT)
        try:
            state.sequence, pools = get(changed.remote(state.sequence))
            self.changed((), pools)
        except OrbweaverError as error:
            log.warning("could not look for changed pools, will try again", extra={"error": str(error)})
        self.after(POOL_INTERVAL, self._look)

    def _pools_soon(self, seconds: float) -> None:
        state = self._state
        if state.pools and not state.pools_set:
            state.pools_set = True
            self.after(seconds, self._write_pools)

    def _write_endpoints(self) -> None:
        state = self._state
        state.pods_set = False
        pods, state.pods = state.pods, set()
        waiting = sorted(pods)
        for first in range(0, len(waiting), _AT_ONCE):
            self._write_some(waiting[first : first + _AT_ONCE])
        if state.pods and not state.pods_set:
            state.pods_set = True
            self.after(RETRY, self._write_endpoints)
        self._pools_soon(POOL_INTERVAL)
        rewritten, state.rewritten = tuple(state.rewritten), set()
        if self._follow and rewritten:
            # The pods' agents write these views too. What was read before an agent's DEL or ADD, and written after the agent
            # wrote, stays wrong unless it is looked at once more; this ends when nothing had to be written.
            self.after(LOOK_AGAIN, self._look_at, rewritten)

    def _look_at(self, pods: tuple[str, ...]) -> None:
        self.changed(pods)

    def _write_some(self, pods: Sequence[str]) -> None:
        """One question for all of them: the Ledger may be the leader's. What changes meanwhile is told once more."""
        recorded: dict[str, dict[tuple[int, int], Allocation]] = {pod: {} for pod in pods}
        try:
            for one in self._recorded("of_pods", tuple(pods)):
                if one.record.holder in recorded:
                    recorded[one.record.holder][one.family, one.value] = one
        except OrbweaverError as error:
            log.warning("SpiderEndpoints were not written, will try again", extra={"error": str(error)})
            self._state.pods.update(pods)
            return
        for pod, places in recorded.items():
            held = tuple(places.values())
            try:
                pools = {one.record.pool for one in held} | self._write_endpoint(pod, held)
                self.changed((), tuple(pools))
            except InvalidObject as error:
                log.error("a SpiderEndpoint cannot be written", extra={"pod": pod, "error": str(error)})
            except OrbweaverError as error:
                log.warning(
                    "a SpiderEndpoint was not written, will try again",
                    extra={"pod": pod, "error": str(error)},
                )
                self._state.pods.add(pod)

    def _write_endpoint(self, pod: str, held: Sequence[Allocation]) -> set[str]:
        """Write one view with as few requests as can be; returns the pools that the view named before."""
        # Taken out until it is known again: if the answer is lost, what was written last is no longer known.
        before = self._state.written.pop(pod, None)
        try:
            after = self._replace(pod, before, held)
        except (Conflict, NotFound):
            # It is not as this process left it, or was there before: read it, and try once more.
            before = self._find(pod)
            after = self._replace(pod, before, held)
        if after is not None:
            self._state.written[pod] = after
        return _pools_of(before) if before is not None else set()

    def _replace(self, pod: str, before: Object | None, held: Sequence[Allocation]) -> Object | None:
        """Make the view say what is recorded; `before` is the object as it is believed to be."""
        if not held:
            if before is None:
                before = self._find(pod)
            if before is not None:
                self._state.rewritten.add(pod)
                self._remove(before)
            return None
        status = self._endpoint_status(pod, held)
        if before is None:
            namespace, _, name = pod.partition("/")
            metadata: dict[str, Any] = {"name": endpoint_name(name), "namespace": namespace}
            if metadata["name"] != name:
                metadata["annotations"] = {POD: pod}
            body = {
                "apiVersion": SPIDERPOOL,
                "kind": "SpiderEndpoint",
                "metadata": metadata,
                "status": status,
            }
            self._state.rewritten.add(pod)
            return self._store.create(body)
        if before.get("status") == status:
            return before
        self._state.rewritten.add(pod)
        return self._store.update({**before, "status": status})

    def _find(self, pod: str) -> Object | None:
        namespace, _, name = pod.partition("/")
        try:
            return self._store.get("SpiderEndpoint", endpoint_name(name), namespace)
        except NotFound:
            return None

    def _remove(self, found: Object) -> None:
        metadata = found["metadata"]
        if metadata.get("finalizers"):
            # Spiderpool puts one on; it goes with the last address.
            found = self._store.update({**found, "metadata": {**metadata, "finalizers": []}})
        try:
            self._store.delete("SpiderEndpoint", metadata["name"], metadata["namespace"], uid=metadata["uid"])
        except NotFound:
            log.debug("a SpiderEndpoint went by itself", extra={"pod": metadata["name"]})

    def _endpoint_status(self, pod: str, held: Sequence[Allocation]) -> dict[str, Any]:
        """Spiderpool's form: one entry an interface, both families in it. A pod's earlier sandbox, whose DEL is still to
        come, is not shown beside the current one."""
        table = self._catalog.pools()
        first = max(held, key=lambda one: (bool(one.record.container), one.record.since)).record
        entries: dict[str, dict[str, Any]] = {}
        for one in held:
            record, family = one.record, one.family
            if (record.container, record.uid) != (first.container, first.uid):
                continue
            pool = table.pools.get(record.pool)
            entry = entries.setdefault(record.interface, {"interface": record.interface, "vlan": 0})
            bits = pool.subnet.prefix if pool is not None else {4: 32, 6: 128}[family]
            entry[f"ipv{family}"] = f"{format_address(family, one.value)}/{bits}"
            entry[f"ipv{family}Pool"] = record.pool
            if pool is not None:
                entry["vlan"] = pool.vlan or entry["vlan"]  # the pool of the other family may name none
                if pool.gateway is not None:
                    entry[f"ipv{family}Gateway"] = format_address(family, pool.gateway)
        kind, _, owner = first.owner.partition("/")
        kind, _, _ = kind.partition(".")  # a third party's is recorded with its API group
        return {
            "current": {
                "uid": first.uid,
                "node": first.node,
                "ips": [entries[name] for name in sorted(entries)],
            },
            "ownerControllerType": kind or "Pod",
            "ownerControllerName": owner or pod.partition("/")[2],
        }

    def _write_pools(self) -> None:
        state = self._state
        state.pools_set = False
        if not self._may_write():
            state.pools = set()
            return
        self._compare_pools()
        now = time.monotonic()
        state.later = {name: until for name, until in state.later.items() if until > now}
        pools, state.pools = state.pools - state.later.keys(), state.pools & state.later.keys()
        for name in sorted(pools):
            try:
                self._write_pool(name)
            except NotFound:
                log.debug("the pool of a view is gone", extra={"pool": name})
            except InvalidObject as error:
                log.error("a pool's status cannot be written", extra={"pool": name, "error": str(error)})
            except OrbweaverError as error:
                log.warning(
                    "a pool's status was not written, will try again",
                    extra={"pool": name, "error": str(error)},
                )
                state.pools.add(name)
        self._pools_soon(RETRY)

    def _compare_pools(self) -> None:
        """Which pools overlap now; those for which that changed are to be written."""
        state, table = self._state, self._catalog.pools()
        if table is state.table:
            return
        before, state.overlaps, state.table = state.overlaps, overlapping(table.pools.values()), table
        for name in before.keys() | state.overlaps.keys():
            others = state.overlaps.get(name, ())
            if others != before.get(name, ()):
                state.pools.add(name)
                if self._follow and others and name not in before:
                    self._tell_overlap(table.pools[name], others)

    def _tell_overlap(self, pool: IPPool, others: tuple[str, ...]) -> None:
        text = f"pool {pool.name} has addresses in common with {', '.join(others)}; each is given out once, by one of them"
        ref = (
            self.get_actor("events/local").overlapping.options(timeout=None).remote(pool.name, pool.uid, text)
        )
        ref.subscribe(_log_untold)

    def _write_pool(self, name: str) -> None:
        obj = self._completed(self._store.get("SpiderIPPool", name))
        # What another IPAM wrote there is truth until it is taken over; only then may a view take its place.
        pods = take_over(IPPool.from_object(obj), self._store, self.get_actor, self._clock)
        if pods:
            self.changed(pods, (name,))
            return
        count, held = self._usage(name)
        if obj["metadata"].get("deletionTimestamp") and not count:
            finalizers = [one for one in obj["metadata"].get("finalizers", ()) if one != FINALIZER]
            self._store.update({**obj, "metadata": {**obj["metadata"], "finalizers": finalizers}})
            log.info("pool removed with its last address", extra={"pool": name})
            return
        before = obj.get("status") or {}
        kept = {key: value for key, value in before.items() if key not in (OVERLAPS, OVERLAP_COUNT)}
        status = {**kept, **self._pool_status(IPPool.from_object(obj), count, held)}
        if status != before:
            self._store.update_status({**obj, "status": status})
            if len(held) > LISTED_A_SECOND:
                self._state.later[name] = time.monotonic() + len(held) / LISTED_A_SECOND

    def _completed(self, obj: Object) -> Object:
        """A pool that was made past `apply`, with kubectl, gets what `apply` would have added: defaults, finalizer."""
        if obj["metadata"].get("deletionTimestamp"):
            return obj
        try:
            admitted = admit(obj, obj)
        except InvalidObject as error:
            # Let in by the API server, or an edit that takes an address in use away: it serves as far as it can.
            log.warning(
                "a pool is not as it should be", extra={"pool": obj["metadata"]["name"], "error": str(error)}
            )
            return obj
        return self._store.update(admitted) if admitted != obj else obj

    def _usage(self, pool: str) -> tuple[int, tuple[Allocation, ...]]:
        def task(allocator: Allocator) -> tuple[int, tuple[Allocation, ...]]:
            method = allocator.get_actor("ledger/local").usage.options(timeout=LEDGER_TIMEOUT)
            (found,) = ask(allocator, method.remote(pool, LISTED))
            count, held = found
            return count, tuple(held)

        return self._router.work(task)

    def _pool_status(self, pool: IPPool, count: int, held: Sequence[Allocation]) -> dict[str, Any]:
        usable = pool.available.minus(self._catalog.reserved(pool.family))
        listed = {
            format_address(one.family, one.value): {"pod": one.record.holder, "podUid": one.record.uid}
            for one in held
        }
        allocated = json.dumps(listed, separators=(",", ":"))
        others = self._state.overlaps.get(pool.name, ())
        return {
            "allocatedIPs": allocated,
            DIGEST: digest_of(allocated),
            "allocatedIPCount": count,
            "totalIPCount": min(usable.size, 2**63 - 1),
            **({OVERLAPS: list(others), OVERLAP_COUNT: len(others)} if others else {}),
        }


def _log_untold(ref: ObjectRef[None]) -> None:
    error = ref.error()
    if error is not None:  # it is in the pool's status too
        log.debug("an Event was left out", extra={"error": str(error)})


def pod_of(obj: Object) -> str:
    """`namespace/name` of the pod that a SpiderEndpoint tells of."""
    metadata = obj["metadata"]
    annotated = metadata.get("annotations", {}).get(POD)
    return str(annotated or f"{metadata.get('namespace', '')}/{metadata['name']}")


def _pools_of(obj: Object) -> set[str]:
    entries = obj.get("status", {}).get("current", {}).get("ips", ())
    return {entry[key] for entry in entries for key in ("ipv4Pool", "ipv6Pool") if entry.get(key)}
