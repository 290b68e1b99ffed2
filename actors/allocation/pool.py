"""The Pool actor: decides which address of one SpiderIPPool a request gets.

What must always hold:

* An address that is *pending* is offered to nobody else until its Block has answered.
* What this actor believes to be free is only where it looks first; the Block judges. So a belief that is wrong
  costs a retry and never hands out an address twice.
* Nobody is refused while an address is free: before it refuses, it catches up with the Ledger and, where it may
  have grown, with the pool's own object.
* An address that is set aside is offered to nobody before its time, and a refusal names it.
* Which address comes next is the `FreeList`'s to say (`free_list.py`).
* It never is_retained for a Block: it decides, marks pending, sends, and takes the next message. (Only while it loads,
  before its first message, does it wait, for what it takes over from another IPAM.)
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

from actors.allocation.block import QUIET
from actors.allocation.free_list import Draw, FreeList
from actors.allocation.messages import Allocate, Allocation, Occupancy, Recorded
from actors.allocation.takeover import take_over
from actors.decisions.exhausted import exhausted
from actors.errors import AddressTaken, InvalidObject, NoAddress, NotFound, OrbweaverError, PoolUsedUp
from actors.resources.addresses import format_address
from actors.resources.blocks.block import (
    Claim,
    Granted,
    Quarantined,
    Taken,
    base_of,
    block_name,
    span_of,
)
from actors.resources.intervals import IntervalSet
from actors.resources.ippool import IPPool
from actors.runtime import Actor, ActorContext, ObjectRef, current_deadline, get, message
from actors.store.contract import Store

log = logging.getLogger("orbweaver.pool")

LEDGER_TIMEOUT = 10.0
LOOK_AGAIN = 5.0
"""Seconds after which a block that could not be used is tried again, before somebody is refused for it."""

_NAMED_IN_REFUSAL = 16
"""How many addresses that are set aside, and blocks that are left out, a refusal names."""


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
    """What the actor has between two messages."""

    pool: IPPool
    """As it was when the list was made."""
    reserved: IntervalSet
    """What SpiderReservedIPs take out of any pool of the family."""
    free: FreeList
    """Which of its addresses are believed to be free."""
    sequence: int = -1
    """How far the Ledger's changes are known."""
    left_out: dict[int, InvalidObject] = field(default_factory=dict)
    """Blocks that cannot be read or written, by their first address, and why."""
    look_again: float = 0.0
    """Monotonic seconds before which those are not tried again."""
    waiting: list[Job] = field(default_factory=list)
    """Requests for which nothing was found, until the Ledger has told what is new."""
    catching_up: bool = False
    """Whether it is being asked."""


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
        self._draw: Draw | None = None if chance is None else chance.randrange
        self._clock = clock

    def on_activate(self) -> None:
        pool = self._source.pool(self.context.key)
        pods = take_over(pool, self._store, self.get_actor, self._clock)
        if pods:
            self.get_actor("views/local").changed.remote(pods, (pool.name,))
        self._adopt(pool)

    def on_passivate(self) -> bool:
        return not self._state.free.pending and not self._state.waiting

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
        before: State | None = getattr(self, "_state", None)
        reserved = self._source.reserved(pool.family)
        usable = pool.available.minus(reserved)
        if before is None:
            self._state = State(pool, reserved, FreeList(usable, memory=QUIET))
        else:
            free = before.free.over(usable)
            self._state = State(pool, reserved, free, waiting=before.waiting, catching_up=before.catching_up)
        occupancy = self.get_actor("ledger/local").occupancy.options(timeout=LEDGER_TIMEOUT)
        self._learn(get(occupancy.remote(pool.family, tuple(usable), -1)))

    def _learn(self, occupancy: Occupancy) -> None:
        state = self._state
        state.free.learn(occupancy.changes, self._clock(), whole=occupancy.whole)
        state.sequence = occupancy.sequence

    def _advance(self, job: Job) -> None:
        value = self._state.free.choose(self._clock(), self._draw)
        if value is None:
            self._state.waiting.append(job)
            self._catch_up()
        else:
            self._claim(job, value)

    def _claim_exact(self, job: Job, value: int) -> None:
        state = self._state
        if state.free.take(value):
            self._claim(job, value)
        elif value in state.free.usable:
            self._refuse_exact(job, value, "it is being given to another pod at this moment")
        elif state.reserved.contains(value):
            self._refuse_exact(job, value, "it is reserved by a SpiderReservedIP")
        else:
            self._refuse_exact(job, value, "it is not one of its addresses")

    def _refuse_exact(self, job: Job, value: int, rule: str, refusal: type[NoAddress] = AddressTaken) -> None:
        text = format_address(self._state.pool.family, value)
        job.reply.fail(
            refusal(
                f"pool {self._state.pool.name} cannot give {text} to pod {job.request.record.pod}: {rule}; ask for "
                f"another address, or see `orbweaver ip show {text}`"
            )
        )

    def _claim(self, job: Job, value: int) -> None:
        """Ask the Block for an address that is pending."""
        state = self._state
        record = replace(job.request.record, pool=state.pool.name)
        block = self.get_actor("block/" + block_name(state.pool.family, value))
        timeout = None if job.deadline is None else job.deadline - time.monotonic()
        claim = Claim(value, record, job.request.instead_of, named=job.request.exact is not None)
        ref = block.claim.options(timeout=timeout).remote(claim)
        # A granted address is answered from the Block's thread: the pod need not wait until this one has its turn.
        ref.subscribe(lambda done: _pass_on(done, job))
        self.then(ref, self._claimed, job, value)

    def _claimed(self, ref: ObjectRef[Granted | Taken | Quarantined], job: Job, value: int) -> None:
        free = self._state.free
        released = free.answered(value)
        try:
            outcome = ref.result()
        except InvalidObject as error:
            self._leave_out(value, error)
            self._retry(job, value, str(error))
        except OrbweaverError as error:
            # Whether it was recorded is the Block's to find out: offering it again is safe, because the Block judges.
            free.cool(value, self._clock())
            job.reply.fail(error)
        else:
            if isinstance(outcome, Quarantined):
                free.quarantine(value, outcome.quarantine)
                self._advance(job)
            elif isinstance(outcome, Taken):
                if released is not None:
                    free.cool(value, released)
                self._beaten(job, value, outcome)

    def _beaten(self, job: Job, value: int, taken: Taken) -> None:
        if job.request.exact is not None:
            rule = f"it is recorded for pod {taken.record.pod} out of pool {taken.record.pool}"
            self._refuse_exact(job, value, rule)
        else:
            # The Block has read what else is taken, and the Ledger knows it by now.
            if self._draw is not None:
                self._state.free.look_elsewhere(self._draw)
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
        state.free.leave_out(base)

    def _catch_up(self) -> None:
        state = self._state
        if not state.catching_up and state.waiting:
            # Who comes later is_retained for the next answer: this one may not hold a release that they have seen.
            asked, state.waiting = state.waiting, []
            state.catching_up = True
            occupancy = self.get_actor("ledger/local").occupancy.options(timeout=LEDGER_TIMEOUT)
            ref = occupancy.remote(state.pool.family, tuple(state.free.usable), state.sequence)
            self.then(ref, self._caught_up, asked)

    def _caught_up(self, ref: ObjectRef[Occupancy], asked: list[Job]) -> None:
        self._state.catching_up = False
        try:
            self._learn(ref.result())
            if self._state.free.has_none(self._clock()):
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
            value = self._state.free.choose(self._clock(), self._draw)
            if value is None:
                self._refuse(job)
            else:
                self._claim(job, value)
        self._catch_up()

    def _refuse(self, job: Job) -> None:
        state, now = self._state, self._clock()
        pool, usable = state.pool, state.free.usable
        quarantined = state.free.quarantined(now)
        left_out = sorted(state.left_out)
        lost = span_of(left_out).intersect(usable)
        why = exhausted(
            usable.size,
            quarantine=len(quarantined),
            lost=lost.size,
            blocks=[block_name(pool.family, base) for base in left_out],
        )
        shown = [
            f"{format_address(pool.family, value)} is set aside for {quarantine.until - now:.0f} s: {quarantine.why}"
            for value, quarantine in quarantined[:_NAMED_IN_REFUSAL]
        ]
        shown += [str(state.left_out[base]) for base in left_out[:_NAMED_IN_REFUSAL]]
        refusal = PoolUsedUp(
            f"pool {pool.name} has no free address for pod {job.request.record.pod}: {why}",
            details=tuple(f"pool {pool.name}: {line}" for line in shown),
        )
        refusal.pool, refusal.quarantined, refusal.unusable = pool.name, len(quarantined), lost.size
        refusal.in_use = usable.size - len(quarantined) - lost.size
        refusal.reserved = pool.available.size - usable.size
        job.reply.fail(refusal)


def _pass_on(ref: ObjectRef[Granted | Taken | Quarantined], job: Job) -> None:
    if ref.error() is None and isinstance(granted := ref.result(), Granted):
        job.reply.complete(granted)
