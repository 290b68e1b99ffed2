"""The Views actor: SpiderEndpoint objects and pool status, computed from what is recorded.

What must always hold: a view is never read to decide anything here, so one that is missing or stale loses and
leaks nothing; what differs when the process starts is put right. A view that cannot be written is tried again and
never delays an allocation: SpiderEndpoints wait until nothing has changed for `QUIET` seconds, at most `LATEST`, so that
pods that start together do not wait for one another's views; what came and went meanwhile is never written. A pool's
status is written at most once a second; one that lists many addresses less often, a second for each thousand.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Concatenate, ParamSpec

from actors.allocation.ledger import LedgerActor, ledger_of
from actors.allocation.router import Allocator, AllocatorRouter, ask
from actors.allocation.takeover import take_over
from actors.decisions.overlaps import overlapping
from actors.errors import InvalidObject, NotFound, OrbweaverError
from actors.resources.blocks.allocation import Allocation
from actors.resources.ippool import IPPool
from actors.resources.pool_status import LISTED
from actors.resources.spider_endpoint import pod_of
from actors.runtime import Actor, ActorContext, ObjectRef, get, message
from actors.store.caches.catalog import Catalog, PoolTable
from actors.store.contract import Object, Store
from actors.views.endpoints import EndpointViews
from actors.views.pools import PoolViews

log = logging.getLogger("orbweaver.views")

P = ParamSpec("P")

QUIET, LATEST = 0.3, 5.0
"""Seconds without a change after which SpiderEndpoints are written, and after which they are under any load."""

POOL_INTERVAL = 1.0
RETRY = 1.0
LISTED_A_SECOND = 1000
"""Addresses that one pool's status is rewritten with in a second: all that it lists are 80 bytes each, every time."""

LOOK_AGAIN = 5.0
"""Seconds after which a process that repairs others' SpiderEndpoints looks at those it wrote again: by then it has heard of
what was recorded meanwhile."""

LEDGER_TIMEOUT = 10.0
_AT_ONCE = 32


@dataclass(slots=True)
class ViewsState:
    """What is to be written, and what it was decided by."""

    pods: set[str] = field(default_factory=set)
    """To be written."""
    pools: set[str] = field(default_factory=set)
    """To be written."""
    sequence: int | None = None
    """Up to which of the Ledger's changes it has heard; None before it has asked."""
    changed: float = 0.0
    """Monotonic seconds of the last change of `pods`."""
    waiting: float = 0.0
    """Monotonic seconds of the first change that is not written."""
    ending: bool = False
    """Whether the process ends, and the last write is ordered."""
    pods_set: bool = False
    """Whether the timer for pods is set."""
    pools_set: bool = False
    """Whether the timer for pools is set."""
    table: PoolTable | None = None
    """The pools as they were looked at last."""
    overlaps: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Of the pools in `table`."""
    withheld: dict[str, str] = field(default_factory=dict)
    """By pool, why some of what it lists is not given out, as far as an Event has told."""
    later: dict[str, float] = field(default_factory=dict)
    """Of pools that list many addresses, the monotonic seconds before which they are not written again."""


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
        leave: Callable[[tuple[str, ...]], object] = lambda pods: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`node`: repair only the SpiderEndpoints of its pods. `pools`: look after the pools' status and what other
        IPAMs left, as one process in a cluster does. `follow`: look by itself for
        pools that other processes allocated from. `may_write`: whether the pools' status is for this process to write at
        this moment; who comes to write it repairs it first. `leave` hears of pods that came to `node` from another one, whose
        SpiderEndpoints the leader has to write."""
        super().__init__(context)
        self._router = router
        self._store = store
        self._catalog = catalog
        self._node = node
        self._pools = pools
        self._follow = follow
        self._may_write = may_write
        self._clock = clock
        self._state = ViewsState()
        self._leave = leave
        self._endpoints = EndpointViews(store, catalog, node)
        self._pool_views = PoolViews(store, catalog, context.system, self._usage, clock)

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
        if (state.pods or state.pools) and not state.ending:
            state.ending = True
            self.post(self._write_rest)  # the process ends, and timers are not waited for
        return False

    def _write_rest(self) -> None:
        self._write_endpoints()
        self._write_pools()

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
        """Whose SpiderEndpoints this process looks after. In the caller's time: at a start the Ledger reads all blocks first,
        and no number of seconds is right for that."""

        def task(allocator: Allocator) -> tuple[str, ...]:
            (names,) = ask(allocator, ledger_of(allocator).ask(LedgerActor.holders, self._node or ""))
            return names

        return self._router.work(task)

    def _recorded(
        self,
        question: Callable[Concatenate[LedgerActor, P], tuple[Allocation, ...]],
        *arguments: P.args,
        **named: P.kwargs,
    ) -> tuple[Allocation, ...]:
        """What the Ledger answers, wherever it lives."""

        def task(allocator: Allocator) -> tuple[Allocation, ...]:
            ledger = ledger_of(allocator).within(LEDGER_TIMEOUT)
            (allocations,) = ask(allocator, ledger.ask(question, *arguments, **named))
            return allocations

        return self._router.work(task)

    def _take_over(self, name: str, obj: Object) -> None:
        try:
            take_over(IPPool.from_object(obj), self._store, self.context.system, self._clock)
        except InvalidObject as error:
            log.error(
                "a pool's earlier allocations cannot be taken over", extra={"pool": name, "error": str(error)}
            )

    def _look(self) -> None:
        self._learn_pools()
        self._pools_soon(POOL_INTERVAL)
        self.after(POOL_INTERVAL, self._look)

    def _learn_pools(self) -> bool:
        """Have the pools written of which anything changed since the last look; whether the Ledger answered. Who grants an
        address again may do so out of another pool than before, and tells of that one alone."""
        state = self._state
        first, since = state.sequence is None, -1 if state.sequence is None else state.sequence
        ledger = ledger_of(self).within(LEDGER_TIMEOUT)
        try:
            state.sequence, pools = get(ledger.ask(LedgerActor.changed_pools, since))
        except OrbweaverError as error:
            log.warning("could not look for changed pools, will try again", extra={"error": str(error)})
            return False
        if self._follow or not first:  # what was there before, `repair` looks after
            state.pools.update(pools)
        return True

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
        left, self._endpoints.left = tuple(sorted(self._endpoints.left)), set()
        if left:
            self._leave(left)
        rewritten = tuple(self._endpoints.rewritten)
        self._endpoints.rewritten.clear()
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
            for allocation in self._recorded(LedgerActor.of_pods, tuple(pods)):
                if allocation.record.holder in recorded:
                    recorded[allocation.record.holder][allocation.family, allocation.value] = allocation
        except OrbweaverError as error:
            log.warning("SpiderEndpoints were not written, will try again", extra={"error": str(error)})
            self._state.pods.update(pods)
            return
        for pod, places in recorded.items():
            held = tuple(places.values())
            try:
                pools = {allocation.record.pool for allocation in held} | self._endpoints.write(pod, held)
                self.changed((), tuple(pools))
            except InvalidObject as error:
                log.error("a SpiderEndpoint cannot be written", extra={"pod": pod, "error": str(error)})
            except OrbweaverError as error:
                log.warning(
                    "a SpiderEndpoint was not written, will try again",
                    extra={"pod": pod, "error": str(error)},
                )
                self._state.pods.add(pod)

    def _write_pools(self) -> None:
        state = self._state
        state.pools_set = False
        if not self._may_write():
            state.pools = set()
            return
        if not self._follow and not self._learn_pools():
            self._pools_soon(RETRY)
            return
        self._compare_pools()
        now = time.monotonic()
        state.later = {name: until for name, until in state.later.items() if until > now}
        pools, state.pools = state.pools - state.later.keys(), state.pools & state.later.keys()
        for name in sorted(pools):
            try:
                written = self._pool_views.write(name, state.overlaps.get(name, ()))
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
            else:
                if written.taken_over:
                    self.changed(written.taken_over, (name,))
                if written.listed > LISTED_A_SECOND:
                    state.later[name] = time.monotonic() + written.listed / LISTED_A_SECOND
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
        if self._follow:
            self._tell_withheld(table)

    def _tell_overlap(self, pool: IPPool, others: tuple[str, ...]) -> None:
        text = f"pool {pool.name} has addresses in common with {', '.join(others)}; each is given out once, by one of them"
        ref = (
            self.get_actor("events/local").overlapping.options(timeout=None).remote(pool.name, pool.uid, text)
        )
        ref.subscribe(_log_untold)

    def _tell_withheld(self, table: PoolTable) -> None:
        """Tell of each pool that lists what no pod may have, when it begins to."""
        known, self._state.withheld = self._state.withheld, {}
        for name, pool in table.pools.items():
            if reason := pool.withheld_reason:
                self._state.withheld[name] = reason
                if known.get(name) != reason:
                    events = self.get_actor("events/local")
                    ref = events.withheld.options(timeout=None).remote(
                        name, pool.uid, f"pool {name}: {reason}"
                    )
                    ref.subscribe(_log_untold)

    def _usage(self, pool: str) -> tuple[int, tuple[Allocation, ...]]:
        def task(allocator: Allocator) -> tuple[int, tuple[Allocation, ...]]:
            ledger = ledger_of(allocator).within(LEDGER_TIMEOUT)
            (usage,) = ask(allocator, ledger.ask(LedgerActor.usage, pool, LISTED))
            return usage

        return self._router.work(task)


def _log_untold(ref: ObjectRef[None]) -> None:
    error = ref.error()
    if error is not None:  # it is in the pool's status too
        log.debug("an Event was left out", extra={"error": str(error)})
