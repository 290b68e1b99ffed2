"""Requests, releases, withdrawals and time in any order, on simulated time: the line at a pool is fair and never idle."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from actors.allocation.block_writer import BlockActor
from actors.allocation.ledger import LedgerActor
from actors.allocation.messages import Allocate
from actors.allocation.observer import Silent
from actors.allocation.pool import PoolActor
from actors.errors import NoAddress, Withdrawn
from actors.reclaim.leaving_pods import LeavingPods
from actors.resources.blocks.block import Granted, Release, block_name
from actors.resources.blocks.quarantine import Quarantine
from actors.resources.blocks.record import Fence, Record
from actors.resources.intervals import IntervalSet
from actors.resources.ippool import IPPool
from actors.resources.pod import Pod
from actors.runtime import Actor, ActorContext, ObjectRef
from actors.store.caches.informer import ObjectKey
from tests.simulation.kernel import Kernel, Process, Servers
from tests.simulation.power_failure import Costs, SimulatedStore

SIZE = 3
WAIT = 10.0
EPOCH = 1000.0
PAUSE = 3.1357
"""Of a length that ends in the middle of nothing."""


def record(name: str) -> Record:
    return Record("", f"default/{name}", "", name, "eth0", "node1", "", "")


class Asked:
    """One request: when it came, and what became of it. `withdrawn`: while nothing was on its way."""

    def __init__(self, name: str, number: int, came: float, wait: float, ref: ObjectRef[Any]) -> None:
        self.name, self.number, self.came, self.wait, self.ref = name, number, came, wait, ref
        self.answered: float | None = None
        self.withdrawn = False

    @property
    def granted(self) -> Granted | None:
        return self.ref.result() if self.ref.done() and self.ref.error() is None else None


class Waiting(RuleBasedStateMachine):
    """A Pool, its Block and the Ledger, with a store that takes its time; pods that come, leave and hang up."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = Kernel()
        self.store: Any = SimulatedStore(self.kernel, Servers(self.kernel, 1), Costs())
        spec = {"subnet": "10.6.0.0/16", "ipVersion": 4, "ips": [f"10.6.0.1-10.6.0.{SIZE}"]}
        self.pool = IPPool.from_object({"metadata": {"name": "blue"}, "spec": spec})
        self.pods: dict[str, Pod] = {}
        cache: Any = SimpleNamespace(pod=self.pods.get, node=lambda name: None)
        self.leaving = LeavingPods(
            cache, stays=lambda record: False, complete=lambda record: True, clock=lambda: self.kernel.now
        )
        self.process = Process(
            self.kernel, self._make, cost=0.0001, bound=1000, at_once=frozenset({"ledger"})
        )
        self.asked: list[Asked] = []
        self.holding: dict[str, Granted] = {}
        self.grants: list[Asked] = []
        for _ in range(SIZE):
            self.a_pod_asks(0.0, settles=True)
        self.a_pod_is_told_to_end_next()

    def _make(self, context: ActorContext) -> Actor:
        def clock() -> float:
            return EPOCH + self.kernel.now

        if context.kind == "pool":
            source: Any = SimpleNamespace(
                pool=lambda _: self.pool,
                fresh_pool=lambda _: self.pool,
                is_own=lambda _: False,
                reserved=lambda _: IntervalSet(),
                follow_pool=lambda name, changed: lambda: None,
            )
            return PoolActor(
                context,
                source=source,
                store=self.store,
                departures=self.leaving,
                clock=clock,
                monotonic=lambda: self.kernel.now,
            )
        if context.kind == "block":
            return BlockActor(context, store=self.store, observer=Silent(), clock=clock)
        return LedgerActor(context, store=self.store)

    def _call(self, name: str, method: str, *args: object) -> ObjectRef[Any]:
        return self.process.call(name, method, args, None)

    def _settle(self) -> None:
        """Let all be done that takes no longer than the store's writes."""
        self._until(self.kernel.now + 0.5)

    def _until(self, moment: float) -> None:
        self.kernel.run(moment)
        self.kernel.now = self.kernel.effects = moment  # also when nothing happened

    def _line(self) -> int:
        cell = self.process.cells.get("pool/blue")
        return 0 if cell is None else int(cell.actor.waiting())

    @rule(wait=st.sampled_from([0.0, WAIT, WAIT]), settles=st.booleans())
    def a_pod_asks(self, wait: float, *, settles: bool) -> None:
        name = f"web-{len(self.asked)}"
        self.pods[f"default/{name}"] = Pod.bare("default", name)
        ref = self._call("pool/blue", "allocate", Allocate(record(name), wait=wait))
        asked = Asked(name, len(self.asked), self.kernel.now, wait, ref)
        self.asked.append(asked)
        ref.subscribe(lambda _: self._answered(asked))
        if settles:
            self._settle()

    def _answered(self, asked: Asked) -> None:
        asked.answered = self.kernel.now
        granted = asked.granted
        if granted is not None:
            assert granted.value not in {held.value for held in self.holding.values()}
            self.holding[asked.name] = granted
            self.grants.append(asked)

    @precondition(lambda self: self.holding)
    @rule()
    def a_pod_is_told_to_end_next(self) -> None:
        staying = [name for name in self.holding if self.leaving.why(record(name)) is None]
        if staying:
            self._end(staying[0])

    def _end(self, name: str) -> None:
        self.pods[f"default/{name}"] = Pod("default", name, deleted_at=EPOCH)
        self.leaving.changed(ObjectKey("Pod", "default", name))

    @precondition(lambda self: self.holding)
    @rule(data=st.data(), settles=st.booleans(), pause=st.sampled_from([0.0, PAUSE, 600.0]))
    def a_pod_is_deleted(self, data: st.DataObject, settles: bool, pause: float) -> None:
        name = data.draw(st.sampled_from(sorted(self.holding)))
        self._delete(name, pause)
        if settles:
            self._settle()

    def _delete(self, name: str, pause: float = 0.0) -> None:
        granted = self.holding.pop(name)
        now = EPOCH + self.kernel.now
        quarantine = Quarantine("its last holder answers", now + pause) if pause else None
        release = Release(granted.value, Fence.of(granted.record), now, quarantine=quarantine)
        self._call("block/" + block_name(4, granted.value), "release", release)
        self.pods.pop(f"default/{name}", None)
        self.leaving.changed(ObjectKey("Pod", "default", name))

    @precondition(lambda self: any(asked.answered is None for asked in self.asked))
    @rule(data=st.data(), settles=st.booleans())
    def a_client_hangs_up(self, data: st.DataObject, settles: bool) -> None:
        if settles:
            self._settle()
        open_ones = [asked for asked in self.asked if asked.answered is None]
        if not open_ones:
            return
        asked = data.draw(st.sampled_from(open_ones))
        asked.withdrawn = settles
        self._call("pool/blue", "withdraw", "node1", asked.name, "")

    @rule(seconds=st.sampled_from([0.001, 0.01, 1.0, 4.0]))
    def time_passes(self, seconds: float) -> None:
        self._until(self.kernel.now + seconds)

    @rule()
    def it_is_quiet(self) -> None:
        """Nobody waits while an address is free, and no more wait than addresses are on their way back."""
        self._settle()
        recorded = {held.value for held in self._call("ledger/local", "everything").result()}
        quarantined = self._quarantined()
        free = SIZE - len(recorded) - len(quarantined)
        line = self._line()
        assert not (line and free), f"{line} wait while {free} are free"
        ending = sum(self.leaving.why(record(name)) is not None for name in self.holding)
        soon = sum(until <= EPOCH + self.kernel.now + WAIT for until in quarantined.values())
        assert line <= ending + soon

    def _quarantined(self) -> dict[int, float]:
        occupancy = self._call("ledger/local", "occupancy", 4, ((0, 2**32 - 1),), -1).result()
        now = EPOCH + self.kernel.now
        return {
            change.value: change.quarantine.until
            for change in occupancy.changes
            if change.record is None and change.quarantine is not None and change.quarantine.holds(now)
        }

    @invariant()
    def it_is_fair(self) -> None:
        """Whoever waits is served before who came later, and no address is given for a request that was withdrawn."""
        patient = [asked.number for asked in self.grants if asked.wait]
        waited = [asked for asked in self.grants if asked.wait and asked.answered != asked.came]
        assert patient == sorted(patient), [asked.name for asked in waited]
        for asked in self.asked:
            if asked.withdrawn and asked.answered is not None:
                assert isinstance(asked.ref.error(), Withdrawn), asked.ref
            elif asked.ref.error() is not None:
                assert isinstance(asked.ref.error(), NoAddress | Withdrawn), asked.ref
            if asked.wait:
                assert not getattr(asked.ref.error(), "worth_waiting", False)

    @invariant()
    def nobody_waits_longer_than_he_said(self) -> None:
        for asked in self.asked:
            ends = self.kernel.now if asked.answered is None else asked.answered
            assert ends - asked.came <= asked.wait + 1.0, asked.ref

    def teardown(self) -> None:
        """All who hold something go, one after the other: everybody who still waits gets his turn."""
        self._settle()
        while self.holding:
            self._end(min(self.holding))
            self._delete(min(self.holding))
            self._settle()
        self.it_is_fair()
        assert all(asked.answered is not None or self._quarantined() for asked in self.asked)


TestWaiting = Waiting.TestCase
TestWaiting.settings = settings(max_examples=150, stateful_step_count=40)
