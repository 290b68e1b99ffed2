"""The GC actor: takes back the addresses of a cluster whose holder is gone without a DEL.

It is level-based: whatever tells it of a change names an object and nothing more, and it looks at what is recorded and
at what the cluster is like now. A scan of everything does the same at start and at intervals.

What must always hold: caches only say where to look. Before an address is released its pod, node, owner and
namespace are read from the store and judged anew (`actors/reclaim/rules.py`), and the release carries the
record's fence. A healthy cluster's scan reads nothing from the store; what must be read is read by a few threads, a
slice of pods at a time. One pod whose records cannot be judged is passed over, and told. What it remembers (since when
a pod has been gone, what to look at later) only delays.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from actors.allocation.block_writer import BlockActor, block_of
from actors.allocation.ledger import LedgerActor, ledger_of
from actors.allocation.node_watches import NodeWatches
from actors.allocation.observer import AllocationObserver
from actors.allocation.router import Allocator, AllocatorRouter, ask
from actors.decisions.inherit import owning_statefulset, wanted
from actors.decisions.node_watch import NOBODY
from actors.decisions.settings import Settings
from actors.errors import OrbweaverError
from actors.reclaim.evidence import CachedClusterState, LiveClusterState
from actors.reclaim.facts import ClusterState, facts_of
from actors.reclaim.release import RELEASE_TIMEOUT, Reclaim, reclaim
from actors.reclaim.rules import Action, RecordedAddress, Verdict, judge
from actors.resources import ipam_claim
from actors.resources.addresses import format_address
from actors.resources.blocks.allocation import Allocation
from actors.resources.blocks.block import MarkSuspect
from actors.resources.blocks.record import Fence, Record
from actors.resources.node import Node
from actors.resources.statefulset import StatefulSet
from actors.resources.virtualmachine import INSTANCE, MACHINE
from actors.runtime import Actor, ActorContext, message
from actors.runtime.actor import Cancellable
from actors.store.contract import Store

log = logging.getLogger("orbweaver.gc")

SLICE = 64
"""Pods that are judged together; other messages come in between."""

READERS = 4
"""Requests to the API server at a time."""

RETRY = 5.0
UNREADABLE = 60.0
"""Seconds until a pod is looked at again whose objects cannot be understood."""
LEDGER_TIMEOUT = 10.0

_OWNERS = ("StatefulSet", MACHINE, INSTANCE, ipam_claim.KIND)

T = TypeVar("T")

RecordKey = tuple[int, int, Fence]
"""One record: family, address, fence."""


@dataclass(frozen=True, slots=True)
class Judged:
    """What was found out about one record of a pod. `uid`: the pod's that has the name now, else empty."""

    held: Allocation
    verdict: Verdict
    uid: str = ""


@dataclass(slots=True)
class GCState:
    """What the actor remembers between two messages; none of it is needed to judge aright."""

    running: bool = False
    """Between `start` and `stop`."""
    todo: dict[str, None] = field(default_factory=dict)
    """Pods to look at, in order."""
    posted: bool = False
    """Whether a look at them is on its way."""
    noticed: dict[str, dict[RecordKey, float]] = field(default_factory=dict)
    """For each pod, since when its records have looked abandoned."""
    due: dict[str, float] = field(default_factory=dict)
    """Pods to look at again, and when."""
    timer: Cancellable | None = None
    """Rings at `timer_at`, for the first of those."""
    timer_at: float = float("inf")
    """Monotonic seconds; infinite while no timer is set."""
    tick: Cancellable | None = None
    """For the next scan of everything."""
    nodes: dict[str, Node | None] = field(default_factory=dict)
    """As last acted on, because most of their changes concern nobody here."""
    statefulsets: dict[tuple[str, str], StatefulSet | None] = field(default_factory=dict)
    """Likewise, by namespace and name."""
    readers: ThreadPoolExecutor | None = None
    """The threads that read from the store."""


@dataclass(frozen=True, slots=True)
class Concerned:
    """Whose records changes of nodes, owners and namespaces may concern; owners by namespace and name."""

    nodes: frozenset[str]
    owners: frozenset[tuple[str, str]]
    namespaces: frozenset[str]

    @classmethod
    def by(cls, objects: Sequence[tuple[str, str, str]]) -> Concerned:
        """By what changed: kind, namespace and name."""
        return cls(
            # `Watch`: a node that nobody watches over any more.
            frozenset(name for kind, _, name in objects if kind in ("Node", "Watch")),
            frozenset((namespace, name) for kind, namespace, name in objects if kind in _OWNERS),
            frozenset(name for kind, _, name in objects if kind == "Namespace"),
        )

    def __bool__(self) -> bool:
        return bool(self.nodes or self.owners or self.namespaces)

    def includes(self, record: Record) -> bool:
        """Whether the record's holder may be gone by these changes."""
        namespace = record.pod.partition("/")[0]
        owner = record.ipam_claim or record.machine or owning_statefulset(record) or ""
        return record.node in self.nodes or namespace in self.namespaces or (namespace, owner) in self.owners


class GCActor(Actor):
    """One per cluster, named `gc/local` in the process that does this work."""

    def __init__(
        self,
        context: ActorContext,
        *,
        router: AllocatorRouter,
        store: Store,
        cluster_state: CachedClusterState,
        settings: Settings,
        observer: AllocationObserver,
        watches: NodeWatches | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(context)
        self._router = router
        self._store = store
        self._cluster_state = cluster_state
        self._settings = settings
        self._observer = observer
        self._watches = watches
        self._clock = clock
        self._state = GCState()

    def on_activate(self) -> None:
        self._begin()

    def on_passivate(self) -> bool:
        self._end()
        return True

    @message
    def start(self) -> None:
        """Scan everything now and at intervals, and act on what `changed` tells. Does nothing when it does so already."""
        self._begin()

    @message
    def stop(self) -> None:
        """Decide nothing any more until `start`; what is being released is."""
        self._end()

    @message
    def scan(self) -> None:
        """Look at everything that is recorded, and put the views right."""
        if self._state.running:
            self._look_at_all()

    @message
    def changed(self, objects: tuple[tuple[str, str, str], ...]) -> None:
        """These objects (kind, namespace, name) changed, or went; the kind `Watch` names a node whose agent cannot see its
        sandboxes."""
        if not self._state.running:
            return
        news = [named for named in objects if self._is_news(*named)]
        pods = {f"{namespace}/{name}" for kind, namespace, name in news if kind == "Pod"}
        concerned = Concerned.by(news)
        if concerned:
            pods |= {held.record.pod for held in self._everything() if concerned.includes(held.record)}
        self._look_at(sorted(pods))

    def _is_news(self, kind: str, namespace: str, name: str) -> bool:
        """Whether the change may let an address be taken back. Most changes of nodes and owners concern nobody here."""
        if kind == "Node":
            return self._node_is_news(name)
        if kind == "StatefulSet":
            return self._statefulset_is_news(namespace, name)
        if kind in (MACHINE, INSTANCE):
            return not self._cluster_state.machine_lives(namespace, name)
        if kind == ipam_claim.KIND:
            return not self._cluster_state.claim_lives(namespace, name)
        if kind == "Namespace":
            return not self._cluster_state.namespace(name)
        return kind in ("Pod", "Watch")

    # -- beginning and end ----------------------------------------------------------------------------------

    def _begin(self) -> None:
        state = self._state
        if state.running or not self._settings.gc.enabled:
            return
        state.running = True
        state.readers = ThreadPoolExecutor(READERS, thread_name_prefix="gc-reader")
        self.post(self._tick)

    def _end(self) -> None:
        state, self._state = self._state, GCState()
        for timer in (state.timer, state.tick):
            if timer is not None:
                timer.cancel()
        if state.readers is not None:
            state.readers.shutdown(wait=False, cancel_futures=True)

    def _tick(self) -> None:
        if not self._state.running:
            return
        interval = self._settings.gc.interval
        try:
            self._look_at_all()
        except OrbweaverError as error:
            interval = min(interval, RETRY)
            log.warning("everything recorded could not be looked at", extra={"error": str(error)})
        if self._state.tick is not None:
            self._state.tick.cancel()  # it was stopped and started again before the first tick
        self._state.tick = self.after(interval, self._tick)

    # -- where to look --------------------------------------------------------------------------------------

    def _look_at_all(self) -> None:
        of_pod: dict[str, list[Allocation]] = {}
        for held in self._everything():
            of_pod.setdefault(held.record.pod, []).append(held)
        state = self._state
        # What was given back by others meanwhile need not be remembered.
        state.noticed = {pod: seen for pod, seen in state.noticed.items() if pod in of_pod}
        state.due = {pod: at for pod, at in state.due.items() if pod in of_pod}
        suspicious = [
            pod
            for pod, held in of_pod.items()
            if self._of_one(pod, held, self._is_suspicious, otherwise=False)
        ]
        log.debug("scanned", extra={"pods": len(of_pod), "suspicious": len(suspicious)})
        self._look_at(suspicious)
        self.get_actor("views/local").repair.options(timeout=None).remote()

    def _look_at(self, pods: Iterable[str]) -> None:
        state = self._state
        state.todo.update(dict.fromkeys(pods))
        if state.todo and not state.posted:
            state.posted = True
            self.post(self._work)

    def _is_suspicious(self, pod: str, held: Sequence[Allocation]) -> bool:
        """Whether the caches let anything be done about a pod's records now; notes what is to be done later."""
        verdicts = [judged.verdict.action for judged in self._judge(pod, held, self._cluster_state)]
        return any(action not in (Action.KEEP, Action.WAIT) for action in verdicts) or _has_siblings(held)

    def _node_is_news(self, name: str) -> bool:
        now = self._cluster_state.node(name)
        before = self._state.nodes.get(name)
        self._state.nodes[name] = now
        if now is None:
            del self._state.nodes[name]
            return True
        # One that has become Ready stops what was waited for, and so needs no look.
        return not now.ready and (before is None or _health(before) != _health(now))

    def _statefulset_is_news(self, namespace: str, name: str) -> bool:
        now = self._cluster_state.statefulset(namespace, name)
        known = self._state.statefulsets
        before = known.get((namespace, name))
        known[namespace, name] = now
        if now is None:
            del known[namespace, name]
            return True
        return before is None or (before.replicas, before.start, before.terminating) != (
            now.replicas,
            now.start,
            now.terminating,
        )

    # -- judging --------------------------------------------------------------------------------------------

    def _work(self) -> None:
        """Judge a slice of what is to be looked at, first by the caches, then by the store."""
        state = self._state
        state.posted = False
        if not state.running or state.readers is None:
            return
        pods = list(state.todo)[:SLICE]
        for pod in pods:
            del state.todo[pod]
        try:
            suspicious = [
                (pod, held)
                for pod, held in self._held(pods)
                if self._of_one(pod, held, self._is_suspicious, otherwise=False)
            ]
            reading = LiveClusterState(self._store, self._cluster_state.statefulset)
            answers = state.readers.map(lambda case: self._read(case[0], case[1], reading), suspicious)
            reclaims: list[Reclaim] = []
            for (pod, held), witness in zip(suspicious, answers, strict=True):
                if witness is not None:
                    self._later(pod, witness.until)
                    continue
                reclaims += self._act(self._of_one(pod, held, self._judge, reading, otherwise=()))
            outcome = reclaim(self, self._router, reclaims, self._clock(), self._observer, events=True)
            for failed in outcome.failed:
                self._later(failed.held.record.pod, self._clock() + RETRY)
        except OrbweaverError as error:
            log.warning("pods could not be looked at", extra={"pods": len(pods), "error": str(error)})
            for pod in pods:
                self._later(pod, self._clock() + RETRY)
        self._look_at(())

    def _of_one(
        self,
        pod: str,
        held: Sequence[Allocation],
        work: Callable[..., T],
        *further: ClusterState,
        otherwise: T,
    ) -> T:
        """What `work` makes of one pod's records. Those that cannot be judged, for whatever reason, cost themselves: they
        are told and stay as they are, and the other pods are judged."""
        try:
            return work(pod, held, *further)
        except OrbweaverError as error:
            if error.retryable:
                raise
            log.error("a pod's records cannot be judged", extra={"pod": pod, "error": str(error)})
        except Exception:
            log.exception("a pod's records cannot be judged", extra={"pod": pod})
        self._observer.reclaim_failed()
        return otherwise

    def _read(self, pod: str, held: Sequence[Allocation], reading: LiveClusterState) -> Verdict | None:
        """Read what the pod's verdicts ask for, in one of the readers' threads; a verdict to wait when that fails."""
        try:
            current = reading.pod(pod)
            reading.namespace(pod.partition("/")[0])
            for allocation in held:
                reading.node(current.node if current is not None else allocation.record.node)
                wanted(allocation.record, reading, self._settings)
                reading.pool(allocation.record.pool)
        except Exception as error:
            log.warning("a pod's state could not be read", extra={"pod": pod, "error": str(error)})
            again = RETRY if isinstance(error, OrbweaverError) and error.retryable else UNREADABLE
            return Verdict(Action.WAIT, until=self._clock() + again)
        return None

    def _judge(self, pod: str, held: Sequence[Allocation], source: ClusterState) -> list[Judged]:
        now = self._clock()
        current = source.pod(pod)
        recorded = [
            RecordedAddress(format_address(allocation.family, allocation.value), allocation.record)
            for allocation in held
        ]
        before = self._state.noticed.pop(pod, {})
        noticed: dict[RecordKey, float] = {}
        judged = []
        for allocation, this in zip(held, recorded, strict=True):
            record = allocation.record
            sight = (allocation.family, allocation.value, Fence.of(record))
            first = min(before.get(sight, now), now)  # the clock may have been set back
            watch = NOBODY
            if self._watches is not None:
                watch = self._watches.watch(record.node, record.container, self._settings.gc.agent_away, now)
            facts = facts_of(record, recorded, source, self._settings, first, watch)
            verdict = judge(this, facts, now, self._settings.gc)
            if verdict.action is not Action.KEEP:
                noticed[sight] = facts.noticed
            if verdict.action is Action.WAIT:
                self._later(pod, verdict.until)
            judged.append(Judged(allocation, verdict, current.uid if current is not None else ""))
        if noticed:
            self._state.noticed[pod] = noticed
        return judged

    def _act(self, judged: Sequence[Judged]) -> list[Reclaim]:
        """What is to be taken back; what only is to be marked is marked."""
        reclaims: list[Reclaim] = []
        marked: list[Allocation] = []
        for judgement in judged:
            verdict, held = judgement.verdict, judgement.held
            if verdict.action is Action.MARK:
                marked.append(held)
            elif verdict.action in (Action.RELEASE, Action.KEEP_FOR_NEXT):
                keep = verdict.action is Action.KEEP_FOR_NEXT
                reclaims.append(
                    Reclaim(held, verdict.reason, verdict.text, keep, verdict.forced, judgement.uid)
                )
        if marked:
            self._router.work(lambda allocator: _doubt(allocator, marked))
        return reclaims

    # -- what is recorded, and when to look again -----------------------------------------------------------

    def _everything(self) -> tuple[Allocation, ...]:
        """Every sandbox's own view: of an address that two share, each is judged by itself."""

        def task(allocator: Allocator) -> tuple[Allocation, ...]:
            ledger = ledger_of(allocator).within(LEDGER_TIMEOUT)
            (allocations,) = ask(allocator, ledger.ask(LedgerActor.everything))
            return tuple(view for held in allocations for view in held.per_sandbox)

        return self._router.work(task)

    def _held(self, pods: Sequence[str]) -> list[tuple[str, tuple[Allocation, ...]]]:
        """What is recorded for each of them, without those that nothing is recorded for."""

        def task(allocator: Allocator) -> list[tuple[Allocation, ...]]:
            ledger = ledger_of(allocator).within(LEDGER_TIMEOUT)
            return ask(allocator, *[ledger.ask(LedgerActor.of_pod, pod) for pod in pods])

        answers = self._router.work(task)
        by_pod = []
        for pod, answer in zip(pods, answers, strict=True):
            held = tuple(
                view for allocation in answer for view in allocation.per_sandbox if view.record.pod == pod
            )
            if held:
                by_pod.append((pod, held))
            else:
                self._state.noticed.pop(pod, None)
        return by_pod

    def _later(self, pod: str, at: float) -> None:
        state = self._state
        state.due[pod] = min(at, state.due.get(pod, at))
        if at < state.timer_at:
            if state.timer is not None:
                state.timer.cancel()
            state.timer_at = at
            state.timer = self.after(max(0.0, at - self._clock()), self._ring)

    def _ring(self) -> None:
        state = self._state
        state.timer, state.timer_at = None, float("inf")
        now = self._clock()
        pods = [pod for pod, at in state.due.items() if at <= now]
        for pod in pods:
            del state.due[pod]
        self._look_at(pods)
        if state.due:
            soonest = min(state.due, key=lambda pod: state.due[pod])
            self._later(soonest, state.due[soonest])


def _has_siblings(held: Sequence[Allocation]) -> bool:
    """Whether two addresses of one family are recorded for one interface; what the pod tells of that is not cached."""
    places = [(allocation.record.interface, allocation.family) for allocation in held]
    return len(set(places)) < len(places)


def _health(node: Node) -> tuple[bool, float | None, bool]:
    return node.ready, node.not_ready_since, node.out_of_service


def _doubt(allocator: Allocator, held: Sequence[Allocation]) -> None:
    refs = []
    for allocation in held:
        block = block_of(allocator, allocation.address).within(RELEASE_TIMEOUT)
        refs.append(
            block.order(BlockActor.mark_suspect, MarkSuspect(allocation.value, Fence.of(allocation.record)))
        )
    ask(allocator, *refs)
