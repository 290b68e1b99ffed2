"""The Pool actor: decides which address of one SpiderIPPool a request gets.

What must always hold:

* An address that is *pending* is offered to nobody else until its Block has answered.
* What this actor believes to be free is only where it looks first; the Block judges. So a belief that is wrong
  costs a retry and never hands out an address twice.
* Nobody is refused while an address is free: before it refuses, it catches up with the Ledger and, where it may
  have grown, with the pool's own object.
* Whoever may wait for an address on its way back stands in a line (`waiting_line.py`): first come, first served, newcomers
  behind it, no more of them than such addresses, nobody while an address is free. It is served in the moment in which
  the Ledger hears of a release. Requests for one address by name pass the line.
* An address that is set aside is offered to nobody before its time, and a refusal names it.
* Which address comes next is the `FreeList`'s to say (`free_list.py`), and what a refusal says the `PoolShortage`'s
  (`decisions/pool_shortage.py`).
* It never waits for a Block: it decides, marks pending, sends, and takes the next message. (Only while it loads,
  before its first message, does it wait, for what it takes over from another IPAM.)
"""

from __future__ import annotations

import itertools
import logging
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from actors.allocation.block_writer import QUIET, BlockActor, block_of
from actors.allocation.departures import Departures, NoDepartures
from actors.allocation.free_list import Draw, FreeList
from actors.allocation.ledger import LedgerActor, ledger_of
from actors.allocation.messages import Allocate, Occupancy, RecordedElsewhere
from actors.allocation.takeover import take_over
from actors.allocation.waiting_line import Waiter, WaitingLine
from actors.decisions.pool_shortage import PoolShortage, unjudged_rule
from actors.errors import (
    AddressTaken,
    InvalidObject,
    NoAddress,
    NotFound,
    OrbweaverError,
    PeerLost,
    Withdrawn,
)
from actors.resources.addresses import Address, format_address
from actors.resources.blocks.allocation import Allocation
from actors.resources.blocks.block import (
    Claim,
    Granted,
    HolderUnknown,
    Quarantined,
    Taken,
    base_of,
    block_name,
)
from actors.resources.intervals import IntervalSet
from actors.resources.ippool import IPPool
from actors.runtime import (
    Actor,
    ActorContext,
    ActorSource,
    ObjectRef,
    TypedHandle,
    current_deadline,
    get,
    message,
)
from actors.runtime.actor import Cancellable
from actors.store.contract import Store

log = logging.getLogger("orbweaver.pool")

LEDGER_TIMEOUT = 10.0
LOOK_AGAIN = 5.0
"""Seconds after which a block that could not be used is tried again, before somebody is refused for it."""

LEDGER_RETRY = 0.5
"""Seconds after which the Ledger is asked again, where it could not be, for those who wait."""


class PoolSource(Protocol):
    """Where a Pool actor reads its own object and what is reserved."""

    def pool(self, name: str) -> IPPool: ...

    def fresh_pool(self, name: str) -> IPPool: ...

    def reserved(self, family: int) -> IntervalSet: ...

    def is_own(self, name: str) -> bool:
        """Whether this process made the pool a moment ago, so that no other IPAM can have used it."""

    def follow_pool(self, name: str, changed: Callable[[], object]) -> Callable[[], object]:
        """Call `changed` whenever the pool or what is reserved may have changed, until what this returns is called."""


@dataclass(slots=True)
class PendingRequest:
    """One request on its way. Times are monotonic seconds."""

    request: Allocate
    """What is asked for."""
    reply: ObjectRef[Granted | RecordedElsewhere]
    """Where its answer goes."""
    deadline: float | None
    """When the whole request is over; None for no limit."""
    number: int
    """In which order requests came."""
    came: float
    """When it came here."""
    together: int
    """How many requests of its ADD are granted here together; 1 once that has begun."""

    @property
    def until(self) -> float:
        """Until when it may wait."""
        return self.came + self.request.wait

    @property
    def add(self) -> str:
        """Which ADD it belongs to."""
        record = self.request.record
        return _add_of(record.node, record.container, record.claim)


@dataclass(slots=True)
class PoolState:
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
    unjudged: dict[int, str] = field(default_factory=dict)
    """Addresses whose record cannot be judged, and why."""
    look_again: float = 0.0
    """Monotonic seconds before which those are not tried again."""
    unsure: list[PendingRequest] = field(default_factory=list)
    """Requests for which nothing was found, until the Ledger has told what is new."""
    catching_up: bool = False
    """Whether it is being asked."""
    line: WaitingLine[PendingRequest] = field(default_factory=WaitingLine)
    """Requests that wait for addresses on their way back."""
    returning: dict[int, str] = field(default_factory=dict)
    """Those addresses, and why they are, as of the last look."""
    watching: bool = False
    """Whether the Ledger is to tell of the next release."""
    alarm: Cancellable | None = None
    """When it is to be looked at the line again, if nothing else happens."""
    unfollow: Callable[[], object] | None = None
    """Ends following the pool's object, which is done while somebody waits."""


class PoolActor(Actor):
    """One per SpiderIPPool in use, named `pool/<name>`."""

    _state: PoolState

    def __init__(
        self,
        context: ActorContext,
        *,
        source: PoolSource,
        store: Store,
        departures: Departures | None = None,
        chance: random.Random | None = None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`chance`: where to look when others are faster; None where nobody else allocates."""
        super().__init__(context)
        self._source = source
        self._store = store
        self._departures: Departures = departures or NoDepartures()
        self._numbers = itertools.count()
        self._draw: Draw | None = None if chance is None else chance.randrange
        self._clock = clock
        self._monotonic = monotonic
        self._ledger = ledger_of(self).within(LEDGER_TIMEOUT)

    def on_activate(self) -> None:
        pool = self._source.pool(self.context.key)
        pods = (
            ()
            if self._source.is_own(pool.name)
            else take_over(pool, self._store, self.context.system, self._clock)
        )
        if pods:
            self.get_actor("views/local").changed.remote(pods, (pool.name,))
        self._adopt(pool)

    def on_passivate(self) -> bool:
        return not (self._state.free.pending or self._state.unsure or self._state.line)

    @message
    def allocate(self, request: Allocate) -> ObjectRef[Granted | RecordedElsewhere]:
        """Reserve one address. Completes with `Granted`, with `RecordedElsewhere` where `request.unless` says so, or fails with
        `NoAddress` when every address is in use and with `AddressTaken` when the one that was asked for is."""
        job = PendingRequest(
            request, ObjectRef(), current_deadline(), next(self._numbers), self._monotonic(), request.together
        )
        if request.unless:
            ref = self._ledger.ask(LedgerActor.of_sandbox, *request.unless)
            if ref.done():
                self._looked(ref, job)
            else:
                self.then(ref, self._looked, job)
        else:
            self._begin(job)
        return job.reply

    @message
    def withdraw(self, node: str, container: str, claim: str) -> None:
        """Nobody wants what an ADD waits for any more: it is answered, and gets nothing that is not being written."""
        add = _add_of(node, container, claim)
        mine = [waiter.job for waiter in self._state.line.withdraw(add)]
        mine += [job for job in self._state.unsure if job.add == add]
        for job in mine:
            job.reply.fail(Withdrawn(f"the request of pod {job.request.record.pod} was withdrawn"))
        self._state.unsure = [job for job in self._state.unsure if job.add != add]
        self._settle_line()

    @message
    def waiting(self) -> int:
        """How many requests wait."""
        return len(self._state.line)

    @message
    def end_waiting(self) -> None:
        """The process ends, or leads no more: who waits is to wait elsewhere."""
        for waiter in self._state.line.cut(0):
            waiter.job.reply.fail(PeerLost("the process in which the request waited ends; nothing was done"))
        self._watch()

    def _looked(self, ref: ObjectRef[tuple[Allocation, ...]], job: PendingRequest) -> None:
        try:
            held = ref.result()
        except OrbweaverError as error:
            job.reply.fail(error)
            return
        # What has this request's claim is for another of its interfaces, or its other family.
        others = tuple(
            allocation for allocation in held if allocation.record.claim != job.request.record.claim
        )
        if others:
            job.reply.complete(RecordedElsewhere(others))
        else:
            self._begin(job)

    def _begin(self, job: PendingRequest) -> None:
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
        reserved = self._source.reserved(pool.family)
        usable = pool.available.minus(reserved)
        if not hasattr(self, "_state"):
            self._state = PoolState(pool, reserved, FreeList(usable, memory=QUIET))
        state = self._state
        state.pool, state.reserved, state.free = pool, reserved, state.free.over(usable)
        state.left_out, state.look_again = {}, 0.0
        if state.watching:  # for other ranges now
            self._ledger.within(None).ask(LedgerActor.unwatch_releases, self.context.key)
        self._learn(get(self._ledger.ask(LedgerActor.occupancy, pool.family, tuple(usable), -1)))

    def _learn(self, occupancy: Occupancy) -> None:
        state = self._state
        if occupancy.sequence < state.sequence and not occupancy.whole:
            return  # an answer that was on its way while all was read anew
        state.free.learn(occupancy.changes, self._clock(), whole=occupancy.whole)
        state.sequence = occupancy.sequence
        if occupancy.whole:
            state.returning.clear()
            state.unjudged.clear()
        for change in occupancy.changes:
            state.returning.pop(change.value, None)
            if change.unjudged:
                state.unjudged[change.value] = change.unjudged
            else:
                state.unjudged.pop(change.value, None)

    def _advance(self, job: PendingRequest) -> None:
        state = self._state
        alone = not state.line and job.together == 1
        value = state.free.choose(self._clock(), self._draw) if alone else None
        if value is None:
            state.unsure.append(job)
            self._catch_up()
        else:
            self._claim(job, value)

    def _claim_exact(self, job: PendingRequest, value: int) -> None:
        state = self._state
        if state.free.take(value):
            self._claim(job, value)
        elif value in state.free.usable:
            self._refuse_exact(job, value, "it is being given to another pod at this moment")
        elif state.reserved.contains(value):
            self._refuse_exact(job, value, "it is reserved by a SpiderReservedIP")
        else:
            self._refuse_exact(job, value, "it is not one of its addresses")

    def _refuse_exact(
        self, job: PendingRequest, value: int, rule: str, refusal: type[NoAddress] = AddressTaken
    ) -> None:
        text = format_address(self._state.pool.family, value)
        job.reply.fail(
            refusal(
                f"pool {self._state.pool.name} cannot give {text} to pod {job.request.record.pod}: {rule}; ask for "
                f"another address, or see `orbweaver ip show {text}`"
            )
        )

    def _claim(self, job: PendingRequest, value: int) -> None:
        """Ask the Block for an address that is pending."""
        state = self._state
        record = job.request.record
        if record.pool != state.pool.name:
            record = replace(record, pool=state.pool.name)
        timeout = None if job.deadline is None else job.deadline - self._monotonic()
        claim = Claim(value, record, job.request.instead_of, named=job.request.exact is not None)
        ref = block_of(self, Address(state.pool.family, value)).within(timeout).order(BlockActor.claim, claim)
        # A granted address is answered from the Block's thread: the pod need not wait until this one has its turn.
        ref.subscribe(lambda done: _pass_on(done, job))
        self.then(ref, self._claimed, job, value)

    def _claimed(
        self, ref: ObjectRef[Granted | Taken | HolderUnknown | Quarantined], job: PendingRequest, value: int
    ) -> None:
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
            if isinstance(outcome, Granted):
                return
            if isinstance(outcome, Quarantined):
                free.quarantine(value, outcome.quarantine)
                self._advance(job)
            elif isinstance(outcome, HolderUnknown):
                self._state.unjudged[value] = outcome.why
                if job.request.exact is not None:
                    rule = unjudged_rule(self._state.pool.family, value, outcome.why)
                    self._refuse_exact(job, value, rule, NoAddress)
                else:
                    self._look_anew(job)
            else:
                if released is not None:
                    free.cool(value, released)
                self._beaten(job, value, outcome)
        if self._state.line:
            self._serve()
            self._settle_line()

    def _beaten(self, job: PendingRequest, value: int, taken: Taken) -> None:
        if job.request.exact is not None:
            rule = f"it is recorded for pod {taken.record.pod} out of pool {taken.record.pool}"
            self._refuse_exact(job, value, rule)
        else:
            self._look_anew(job)

    def _look_anew(self, job: PendingRequest) -> None:
        """The Block has read what else is taken, and the Ledger knows it by now."""
        if self._draw is not None:
            self._state.free.look_elsewhere(self._draw)
        self._state.unsure.append(job)
        self._catch_up()

    def _retry(self, job: PendingRequest, value: int, rule: str) -> None:
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
        state.look_again = self._monotonic() + LOOK_AGAIN
        state.free.leave_out(base)

    def _catch_up(self) -> None:
        state = self._state
        if not state.catching_up and state.unsure:
            # Who comes later waits for the next answer: this one may not hold a release that they have seen.
            unsure, state.unsure = state.unsure, []
            state.catching_up = True
            usable = tuple(state.free.usable)
            ref = self._ledger.ask(LedgerActor.occupancy, state.pool.family, usable, state.sequence)
            self.then(ref, self._caught_up, unsure)

    def _caught_up(self, ref: ObjectRef[Occupancy], unsure: list[PendingRequest]) -> None:
        self._state.catching_up = False
        try:
            self._learn(ref.result())
            if self._state.free.has_none(self._clock()):
                fresh = self._source.fresh_pool(self.context.key)
                state = self._state
                mended = state.left_out and self._monotonic() >= state.look_again  # perhaps
                if mended or fresh.available != state.pool.available:
                    self._adopt(fresh)
        except OrbweaverError as error:
            for job in unsure:
                job.reply.fail(error)
            self._catch_up()
            return
        line = self._state.line
        for job in unsure:
            if job.request.wait > 0:
                line.join(Waiter(job.number, job.add, job.together, job.until, job))
        self._serve()
        refused: list[PendingRequest] = []
        for job in unsure:
            if job.request.wait > 0:
                continue
            value = None if line else self._state.free.choose(self._clock(), self._draw)
            if value is None:
                refused.append(job)
            else:
                self._claim(job, value)
        self._settle_line(refused)
        self._catch_up()

    # -- who waits ------------------------------------------------------------------------------------------

    def _serve(self) -> None:
        """Give what is free to those who wait, in their order."""
        line, free = self._state.line, self._state.free
        self._leave_abandoned()
        while group := line.head():
            now = self._clock()
            if free.ready(len(group), now) < len(group):
                return
            line.go()
            for waiter in group:
                value = free.choose(now, self._draw)
                assert value is not None  # it has so many
                waiter.job.together = 1
                self._claim(waiter.job, value)

    def _settle_line(self, refused: Sequence[PendingRequest] = ()) -> None:
        """Let only as many wait as addresses are on their way back. `refused`: who does not wait, and is told whether it
        might."""
        state = self._state
        self._leave_abandoned()
        if not (state.line or refused or state.watching):
            return
        if len(state.line) + bool(refused) > self._on_their_way(refused):
            pods = self._departures.pods()
            if pods:
                held = self._ledger.ask(LedgerActor.of_pods, pods)
                self.then(held, self._looked_for_returning, refused)
                self._watch()
                return
        self._turn_away(refused)

    def _leave_abandoned(self) -> None:
        """Whose agent was killed or cut off while he waited asks again elsewhere: nobody hears what is granted here."""
        for waiter in self._state.line.leave(lambda job: job.reply.abandoned):
            waiter.job.reply.fail(
                Withdrawn(
                    f"the agent of pod {waiter.job.request.record.pod} is gone while the request waited"
                )
            )

    def _looked_for_returning(
        self, ref: ObjectRef[tuple[Allocation, ...]], refused: Sequence[PendingRequest]
    ) -> None:
        state = self._state
        family, usable = state.pool.family, state.free.usable
        try:
            state.returning = {
                held.value: why
                for held in ref.result()
                if held.family == family
                and held.value in usable
                and (why := self._departures.why(held.record))
            }
        except OrbweaverError as error:
            log.warning("cannot see what is on its way back", extra={"error": str(error)})
        self._turn_away(refused)

    def _on_their_way(self, refused: Sequence[PendingRequest] = ()) -> int:
        """How many addresses somebody who waits may still get."""
        state, now, wall = self._state, self._monotonic(), self._clock()
        ends = [state.line.last_end or now, *(job.deadline or now for job in refused)]
        soon = wall + max(ends) - now
        paused = sum(quarantine.until <= soon for _, quarantine in state.free.quarantined(wall))
        # What is free, and yet waited beside, is for a request that waits until there is more than one.
        return len(state.returning) + paused + state.free.ready(len(state.line), wall)

    def _turn_away(self, refused: Sequence[PendingRequest]) -> None:
        line, most = self._state.line, self._on_their_way(refused)
        for waiter in line.cut(most):
            self._refuse(waiter.job)
        for job in refused:
            self._refuse(job, worth_waiting=len(line) < most)
        self._watch()

    def _watch(self) -> None:
        """Hear of the next release, of an edit of the pool, and of the time, as long as somebody waits."""
        state, key = self._state, self.context.key
        ledger = self._ledger.within(None)
        if state.line and not state.watching:
            state.watching = True
            ranges = tuple(state.free.usable)
            releases = ledger.order(
                LedgerActor.watch_releases, key, state.pool.family, ranges, state.sequence
            )
            self.then(releases, self._released)
        elif not state.line and state.watching:
            ledger.ask(LedgerActor.unwatch_releases, key)
        if state.line and state.unfollow is None:
            state.unfollow = self._source.follow_pool(key, lambda: self.post(self._edited))
        elif not state.line and state.unfollow is not None:
            state.unfollow()
            state.unfollow = None
        if state.alarm is not None:
            state.alarm.cancel()
        state.alarm = None
        first_end = state.line.first_end
        if first_end is not None:
            now = self._clock()
            pauses = [quarantine.until - now for _, quarantine in state.free.quarantined(now)]
            state.alarm = self.after(max(0.0, min(first_end - self._monotonic(), *pauses, 60.0)), self._look)

    def _released(self, ref: ObjectRef[Occupancy]) -> None:
        self._state.watching = False
        try:
            self._learn(ref.result())
        except OrbweaverError as error:
            log.warning("cannot see what is released", extra={"error": str(error)})
            self.after(LEDGER_RETRY, self._settle_line)
            return
        self._serve()
        self._settle_line()

    def _edited(self) -> None:
        if self._state.line:
            self._follow_edits()
            self._serve()
            self._settle_line()

    def _look(self) -> None:
        """Somebody's time is over, or an address may be given again."""
        self._state.alarm = None
        self._serve()
        for waiter in self._state.line.expire(self._monotonic()):
            self._refuse(waiter.job)
        self._settle_line()

    def _refuse(self, job: PendingRequest, *, worth_waiting: bool = False) -> None:
        state, now = self._state, self._clock()
        shortage = PoolShortage(
            state.pool,
            state.free.usable,
            state.free.quarantined(now),
            state.left_out,
            state.unjudged,
            state.returning,
            now,
        )
        waited = self._monotonic() - job.came if job.request.wait > 0 else None
        job.reply.fail(shortage.refusal(job.request.record.pod, waited=waited, worth_waiting=worth_waiting))


def pool_of(actors: ActorSource, name: str) -> TypedHandle[PoolActor]:
    """The pool of a name there."""
    return TypedHandle(actors.get_actor("pool/" + name))


def _add_of(node: str, container: str, claim: str) -> str:
    """Names one ADD among all that wait."""
    return f"{node}/{container}/{claim}"


def _pass_on(ref: ObjectRef[Granted | Taken | HolderUnknown | Quarantined], job: PendingRequest) -> None:
    if ref.error() is None and isinstance(granted := ref.result(), Granted):
        job.reply.complete(granted)
