"""The Pool actor: decides which address of one SpiderIPPool a request gets.

What must always hold:

* An address that is *pending* is offered to nobody else until its Block has answered.
* What this actor believes to be free is only where it looks first; the Block judges. So a belief that is wrong
  costs a retry and never hands out an address twice.
* Nobody is refused while an address is free: before it refuses, it catches up with the Ledger and, where it may
  have grown, with the pool's own object.
* An address that is set aside is offered to nobody before its time, and a refusal names it.
* An address that was never released goes first, lowest first; then the one that was released longest ago. A release
  is forgotten after `QUIET`, as the Block forgets it: else a large pool would spread over ever more blocks.
* Where other processes allocate from the same pool too, and were faster, it looks elsewhere in the pool: all of them
  going lowest first would ask for the same address each time.
* It never waits for a Block: it decides, marks pending, sends, and takes the next message. (Only while it loads,
  before its first message, does it wait, for what it takes over from another IPAM.)
"""

from __future__ import annotations

import heapq
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

from actors.allocation.block import QUIET
from actors.allocation.messages import Allocate, Allocation, Occupancy, Recorded
from actors.allocation.takeover import take_over
from actors.decisions.exhausted import exhausted
from actors.errors import AddressTaken, InvalidObject, NoAddress, NotFound, OrbweaverError
from actors.resources.addresses import format_address
from actors.resources.blocks.block import (
    BLOCK_SIZE,
    Claim,
    Granted,
    Quarantined,
    Taken,
    base_of,
    block_name,
    span_of,
)
from actors.resources.blocks.quarantine import Quarantine
from actors.resources.intervals import FreeSet, IntervalSet
from actors.resources.ippool import IPPool
from actors.runtime import Actor, ActorContext, ObjectRef, current_deadline, get, message
from actors.store.contract import Store

log = logging.getLogger("orbweaver.pool")

LEDGER_TIMEOUT = 10.0
LOOK_AGAIN = 5.0
"""Seconds after which a block that could not be used is tried again, before somebody is refused for it."""

_NAMED_IN_REFUSAL = 16
"""How many addresses that are set aside, and blocks that are left out, a refusal names."""
_CHOICE_WINDOW = 8
"""Where others allocate too: how many of those released longest ago one is chosen from."""


class PoolSource(Protocol):
    """Where a Pool actor reads its own object and what is reserved."""

    def pool(self, name: str) -> IPPool: ...

    def fresh_pool(self, name: str) -> IPPool: ...

    def reserved(self, family: int) -> IntervalSet: ...


@dataclass(slots=True)
class Job:
    """One request on its way. `deadline` is monotonic seconds."""

    request: Allocate
    reply: ObjectRef[Granted | Recorded]
    deadline: float | None


@dataclass(slots=True)
class State:
    """`free`: never seen in use. `cooling`: a heap of (released, address); an entry counts only while
    `released_at` says the same. `quarantine`: why some of those are set aside; they cool until that is over. `pending`: with
    each address, when somebody else released it meanwhile, if the Ledger said so. `sequence`: how far the Ledger's
    changes are known. `left_out`: blocks that cannot be read or written, by their first address, and why;
    `look_again`: monotonic seconds before which they are not tried again."""

    pool: IPPool
    reserved: IntervalSet
    usable: IntervalSet
    free: FreeSet
    cooling: list[tuple[float, int]] = field(default_factory=list)
    released_at: dict[int, float] = field(default_factory=dict)
    quarantine: dict[int, Quarantine] = field(default_factory=dict)
    pending: dict[int, float | None] = field(default_factory=dict)
    sequence: int = -1
    left_out: dict[int, InvalidObject] = field(default_factory=dict)
    look_again: float = 0.0
    waiting: list[Job] = field(default_factory=list)
    catching_up: bool = False


class PoolActor(Actor):
    """One per SpiderIPPool in use, named `pool/<name>`."""

    _state: State

    def __init__(
        self,
        context: ActorContext,
        *,
        source: PoolSource,
        store: Store,
        chance: random.Random | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`chance`: where to look when others are faster; None where nobody else allocates."""
        super().__init__(context)
        self._source = source
        self._store = store
        self._chance = chance
        self._start: int | None = None
        self._clock = clock

    def on_activate(self) -> None:
        pool = self._source.pool(self.context.key)
        pods = take_over(pool, self._store, self.get_actor, self._clock)
        if pods:
            self.get_actor("views/local").changed.remote(pods, (pool.name,))
        self._adopt(pool)

    def on_passivate(self) -> bool:
        return not self._state.pending and not self._state.waiting

    @message
    def allocate(self, request: Allocate) -> ObjectRef[Granted | Recorded]:
        """Reserve one address. Completes with `Granted`, with `Recorded` where `request.unless` says so, or fails with
        `NoAddress` when every address is in use and with `AddressTaken` when the one that was asked for is."""
        job = Job(request, ObjectRef(), current_deadline())
        if request.unless:
            recorded = self.get_actor("ledger/local").of_sandbox.options(timeout=LEDGER_TIMEOUT)
            ref = recorded.remote(*request.unless)
            if ref.done():
                self._looked(ref, job)
            else:
                self.then(ref, self._looked, job)
        else:
            self._begin(job)
        return job.reply

    def _looked(self, ref: ObjectRef[tuple[Allocation, ...]], job: Job) -> None:
        try:
            held = ref.result()
        except OrbweaverError as error:
            job.reply.fail(error)
            return
        # What has this request's claim is for another of its interfaces, or its other family.
        others = tuple(one for one in held if one.record.claim != job.request.record.claim)
        if others:
            job.reply.complete(Recorded(others))
        else:
            self._begin(job)

    def _begin(self, job: Job) -> None:
        self._follow_edits()
        if job.request.exact is not None:
            self._claim_exact(job, job.request.exact)
        else:
            self._advance(job)

    def _follow_edits(self) -> None:
        """Take over an edit of the pool or of the reserved addresses, if the cache has one."""
        state = self._state
        try:
            pool = self._source.pool(self.context.key)
        except (NotFound, InvalidObject):
            return  # it is being deleted or broken just now; the next decision for a pod leaves it out
        reserved = self._source.reserved(pool.family)
        if pool.available is not state.pool.available or reserved is not state.reserved:
            if pool.available != state.pool.available or reserved != state.reserved:
                self._adopt(pool)
            else:
                state.pool, state.reserved = pool, reserved

    def _adopt(self, pool: IPPool) -> None:
        """Start from the pool's object and all that the Ledger knows of its ranges."""
        before = getattr(self, "_state", None)
        reserved = self._source.reserved(pool.family)
        usable = pool.available.minus(reserved)
        state = State(pool, reserved, usable, FreeSet(usable))
        if before is not None:
            state.pending, state.waiting, state.catching_up = (
                before.pending,
                before.waiting,
                before.catching_up,
            )
            for value in state.pending:
                state.free.discard(value)
        self._state = state
        occupancy = self.get_actor("ledger/local").occupancy.options(timeout=LEDGER_TIMEOUT)
        self._learn(get(occupancy.remote(pool.family, tuple(usable), -1)))

    def _learn(self, occupancy: Occupancy) -> None:
        state = self._state
        if occupancy.whole:
            # What it does not tell of is free, whatever was believed before.
            state.free, state.cooling, state.released_at, state.quarantine = FreeSet(state.usable), [], {}, {}
            for value in state.pending:
                state.free.discard(value)
        for change in occupancy.changes:
            value = change.value
            if value in state.quarantine and change.quarantine is None:
                del state.quarantine[value]
            if change.record is not None:
                state.free.discard(value)
                state.released_at.pop(value, None)
            elif not state.usable.contains(value):
                continue
            elif value in state.pending:
                state.pending[value] = change.released
            elif change.quarantine is not None and change.quarantine.holds(self._clock()):
                self._quarantine(value, change.quarantine)
            elif change.released is not None:
                self._cool(value, change.released)
            elif value not in state.released_at:
                state.free.add(value)
        state.sequence = occupancy.sequence

    def _cool(self, value: int, at: float) -> None:
        state = self._state
        state.free.discard(value)
        if state.released_at.get(value) != at:
            state.released_at[value] = at
            heapq.heappush(state.cooling, (at, value))

    def _quarantine(self, value: int, quarantine: Quarantine) -> None:
        self._state.quarantine[value] = quarantine
        self._cool(value, quarantine.until)

    def _is_quarantined(self, value: int, now: float) -> bool:
        quarantine = self._state.quarantine.get(value)
        return quarantine is not None and quarantine.holds(now)

    def _choose(self) -> int | None:
        state = self._state
        now = self._clock()
        forgotten = now - QUIET
        while state.cooling and state.cooling[0][0] <= forgotten:
            at, candidate = heapq.heappop(state.cooling)
            if state.released_at.get(candidate) == at:
                del state.released_at[candidate]
                state.quarantine.pop(candidate, None)
                state.free.add(candidate)
        value = self._take_free()
        passed_over: list[tuple[float, int]] = []
        spare: list[tuple[float, int]] = []
        wanted = 1
        if value is None and self._start is not None and self._chance is not None:
            wanted = self._chance.randint(1, _CHOICE_WINDOW)
        while value is None and state.cooling and len(spare) < wanted:
            at, candidate = heapq.heappop(state.cooling)
            if state.released_at.get(candidate) == at:
                (passed_over if self._is_quarantined(candidate, now) else spare).append((at, candidate))
        if spare:
            _, value = spare.pop()
            del state.released_at[value]
            state.quarantine.pop(value, None)
        for entry in (*passed_over, *spare):
            heapq.heappush(state.cooling, entry)
        return value

    def _take_free(self) -> int | None:
        free = self._state.free
        value = None if self._start is None else free.lowest_from(self._start)
        if value is None:
            return free.take_lowest()
        free.discard(value)
        return value

    def _look_elsewhere(self) -> None:
        """Somebody else was faster: begin at a block with a free address, chosen by chance."""
        if self._chance is None:
            return
        free = self._state.free
        self._start = 0
        number = self._chance.randrange(free.size or 1)
        for low, high in free:
            if number <= high - low:
                self._start = base_of(low + number)
                return
            number -= high - low + 1

    def _advance(self, job: Job) -> None:
        value = self._choose()
        if value is None:
            self._state.waiting.append(job)
            self._catch_up()
        else:
            self._claim(job, value)

    def _claim_exact(self, job: Job, value: int) -> None:
        state = self._state
        if not state.usable.contains(value):
            rule = (
                "it is reserved by a SpiderReservedIP"
                if state.reserved.contains(value)
                else "it is not one of its addresses"
            )
            self._refuse_exact(job, value, rule)
        elif value in state.pending:
            self._refuse_exact(job, value, "it is being given to another pod at this moment")
        else:
            state.free.discard(value)
            state.released_at.pop(value, None)
            state.quarantine.pop(value, None)
            self._claim(job, value)

    def _refuse_exact(self, job: Job, value: int, rule: str, refusal: type[NoAddress] = AddressTaken) -> None:
        text = format_address(self._state.pool.family, value)
        job.reply.fail(
            refusal(
                f"pool {self._state.pool.name} cannot give {text} to pod {job.request.record.pod}: {rule}; ask for "
                f"another address, or see `orbweaver ip show {text}`"
            )
        )

    def _claim(self, job: Job, value: int) -> None:
        state = self._state
        state.pending[value] = None
        record = replace(job.request.record, pool=state.pool.name)
        block = self.get_actor("block/" + block_name(state.pool.family, value))
        timeout = None if job.deadline is None else job.deadline - time.monotonic()
        claim = Claim(value, record, job.request.instead_of, named=job.request.exact is not None)
        ref = block.claim.options(timeout=timeout).remote(claim)
        # A granted address is answered from the Block's thread: the pod need not wait until this one has its turn.
        ref.subscribe(lambda done: _pass_on(done, job))
        self.then(ref, self._claimed, job, value)

    def _claimed(self, ref: ObjectRef[Granted | Taken | Quarantined], job: Job, value: int) -> None:
        state = self._state
        released = state.pending.pop(value, None)
        try:
            outcome = ref.result()
        except InvalidObject as error:
            self._leave_out(value, error)
            self._retry(job, value, str(error))
        except OrbweaverError as error:
            # Whether it was recorded is the Block's to find out: offering it again is safe, because the Block judges.
            if state.usable.contains(value):
                self._cool(value, self._clock())
            job.reply.fail(error)
        else:
            if isinstance(outcome, Quarantined):
                self._quarantine(value, outcome.quarantine)
                self._advance(job)
            elif isinstance(outcome, Taken):
                if released is not None:
                    self._cool(value, released)
                self._beaten(job, value, outcome)

    def _beaten(self, job: Job, value: int, taken: Taken) -> None:
        if job.request.exact is not None:
            rule = f"it is recorded for pod {taken.record.pod} out of pool {taken.record.pool}"
            self._refuse_exact(job, value, rule)
        else:
            # The Block has read what else is taken, and the Ledger knows it by now.
            self._look_elsewhere()
            self._state.waiting.append(job)
            self._catch_up()

    def _retry(self, job: Job, value: int, rule: str) -> None:
        if job.request.exact is not None:
            self._refuse_exact(job, value, rule, NoAddress)
        else:
            self._advance(job)

    def _leave_out(self, value: int, error: InvalidObject) -> None:
        """Leave the addresses of a block alone that is damaged, or that the store does not let grow, until the pool is
        loaded anew: at the latest when nothing else is left."""
        state = self._state
        base = base_of(value)
        log.error(
            "the addresses of a block that cannot be used are left out",
            extra={
                "pool": state.pool.name,
                "block": block_name(state.pool.family, base),
                "error": str(error),
            },
        )
        state.left_out[base] = error
        state.look_again = time.monotonic() + LOOK_AGAIN
        state.free.discard_range(base, base + BLOCK_SIZE - 1)
        for other in range(base, base + BLOCK_SIZE):
            state.released_at.pop(other, None)

    def _catch_up(self) -> None:
        state = self._state
        if not state.catching_up and state.waiting:
            # Who comes later waits for the next answer: this one may not hold a release that they have seen.
            asked, state.waiting = state.waiting, []
            state.catching_up = True
            occupancy = self.get_actor("ledger/local").occupancy.options(timeout=LEDGER_TIMEOUT)
            ref = occupancy.remote(state.pool.family, tuple(state.usable), state.sequence)
            self.then(ref, self._caught_up, asked)

    def _caught_up(self, ref: ObjectRef[Occupancy], asked: list[Job]) -> None:
        self._state.catching_up = False
        try:
            self._learn(ref.result())
            if self._nothing_left():
                fresh = self._source.fresh_pool(self.context.key)
                state = self._state
                mended = state.left_out and time.monotonic() >= state.look_again  # perhaps
                if mended or fresh.available != state.pool.available:
                    self._adopt(fresh)
        except OrbweaverError as error:
            for job in asked:
                job.reply.fail(error)
            self._catch_up()
            return
        for job in asked:
            value = self._choose()
            if value is None:
                self._refuse(job)
            else:
                self._claim(job, value)
        self._catch_up()

    def _nothing_left(self) -> bool:
        state, now = self._state, self._clock()
        return not state.free and all(self._is_quarantined(value, now) for value in state.released_at)

    def _refuse(self, job: Job) -> None:
        state, now = self._state, self._clock()
        pool, total = state.pool, state.usable.size
        quarantine = sorted(value for value in state.released_at if self._is_quarantined(value, now))
        left_out = sorted(state.left_out)
        lost = span_of(left_out).intersect(state.usable)
        why = exhausted(
            total,
            quarantine=len(quarantine),
            lost=lost.size,
            blocks=[block_name(pool.family, base) for base in left_out],
        )
        shown = [
            f"{format_address(pool.family, value)} is set aside for {state.quarantine[value].until - now:.0f} s: "
            f"{state.quarantine[value].why}"
            for value in quarantine[:_NAMED_IN_REFUSAL]
        ]
        shown += [str(state.left_out[base]) for base in left_out[:_NAMED_IN_REFUSAL]]
        job.reply.fail(
            NoAddress(
                f"pool {pool.name} has no free address for pod {job.request.record.pod}: {why}",
                details=tuple(f"pool {pool.name}: {line}" for line in shown),
            )
        )


def _pass_on(ref: ObjectRef[Granted | Taken | Quarantined], job: Job) -> None:
    if ref.error() is None and isinstance(granted := ref.result(), Granted):
        job.reply.complete(granted)
