"""The search for the addresses of one ADD: every interface and family asks its pools, all at once, until all have one.

What must always hold: all addresses of a request are granted or none is; what the pod had before is asked for first,
and goes back when no pool gives it again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, TypeAlias

from actors.allocation.block_writer import BlockActor, block_of
from actors.allocation.deallocation import Deallocation
from actors.allocation.grant import Grant
from actors.allocation.messages import AddRequest, Allocate, RecordedElsewhere
from actors.allocation.pool import PoolActor, pool_of
from actors.allocation.router import Allocator
from actors.decisions.auto_pool import ApplicationPools
from actors.decisions.brief import Reason, brief, more_addresses
from actors.decisions.inherit import Inheritance
from actors.decisions.plan import Plan, Slot
from actors.decisions.settings import Settings
from actors.errors import (
    AddressesReturning,
    AddressTaken,
    DeadlineExceeded,
    NoAddress,
    OrbweaverError,
    PodRefused,
    PoolsExhausted,
    PoolUsedUp,
    Withdrawn,
)
from actors.resources.addresses import Address, format_address
from actors.resources.blocks.allocation import Allocation
from actors.resources.blocks.block import Claim, Granted, HolderUnknown, Quarantined, Taken
from actors.resources.blocks.record import CLAIM, Fence, Record
from actors.resources.ipam_claim import IPAMClaim
from actors.resources.pod import Pod
from actors.runtime import ObjectRef, current_deadline


@dataclass(frozen=True, slots=True)
class Decision:
    """The plan, and for each slot's label what becomes of the addresses that are recorded for the pod already."""

    plan: Plan
    inheritances: dict[str, Inheritance]

    @property
    def gives_back(self) -> bool:
        return any(inheritance.given_back for inheritance in self.inheritances.values())


@dataclass(slots=True)
class AddContext:
    """One ADD, which may run at two places."""

    pod: Pod
    """As the catalog knows it."""
    request: AddRequest
    """Of the interface whose ADD it is."""
    started: float
    """When it began, by `time.perf_counter()`, for the metric of its stages."""
    others: tuple[AddRequest, ...] = ()
    """The same sandbox's further interfaces, whose addresses are asked for together with its own."""
    claims: Mapping[str, IPAMClaim] = field(default_factory=dict)
    """By interface, the IPAMClaims that the pod's networks refer to."""
    before: frozenset[Address] | None = None
    """What its container held when it was first looked at, so that what a lost leader recorded is known as this request's
    own; None until then."""
    claim: str = ""
    """The name of what it records, so that no other attempt's undoing means it; empty where this process alone writes."""
    guessed: frozenset[str] = frozenset()
    """The claims that it made before anybody had looked what is recorded."""
    held: tuple[Allocation, ...] = ()
    """What was recorded for the pod at the last look."""
    waits_until: float | None = None
    """Until when (monotonic seconds) it waits for addresses on their way back; None while it does not."""
    gone: ObjectRef[None] | None = None
    """Done when nobody wants its answer any more."""
    application: ApplicationPools | None = None
    """The pools of the pod's application, where it asks for addresses of SpiderSubnets."""
    asked_again: bool = False
    """Whether those were asked for anew, because the ones that were told first had none."""

    @property
    def may_ask_again(self) -> bool:
        """Whether its application may have more addresses by now than it was told of."""
        return self.application is not None and not self.asked_again

    def ask_again(self) -> None:
        """Those that were told have no address: they are not known any more."""
        self.application, self.asked_again = None, True

    @property
    def requests(self) -> tuple[AddRequest, ...]:
        """What is asked for, an interface each."""
        return (self.request, *self.others)

    def of(self, interface: str) -> AddRequest:
        """The request for an interface; for one that nobody asks for yet, the first."""
        asking = (request for request in self.others if request.sandbox.interface == interface)
        return next(asking, self.request)


@dataclass(frozen=True, slots=True)
class EarlyAnswer:
    """What a pool said about one slot before anybody had decided which pools may serve the pod."""

    interface: str
    """Of the pod."""
    family: int
    """4 or 6."""
    pool: str
    """Which one was asked."""
    ref: ObjectRef[Granted | RecordedElsewhere]
    """Done."""

    @property
    def allocation(self) -> Allocation | None:
        """The address that it granted."""
        outcome = self.ref.result() if self.ref.error() is None else None
        if not isinstance(outcome, Granted):
            return None
        return Allocation(self.family, outcome.value, outcome.record)

    def fits(self, attempt: Attempt) -> bool:
        """Whether this pool is to be asked for the slot as it was."""
        slot = attempt.slot
        same = (slot.interface, slot.family) == (self.interface, self.family)
        return same and self.pool in attempt.pools and slot.exact is None and attempt.held is None


@dataclass(frozen=True, slots=True)
class Reserved:
    """Every slot of the plan has an address."""

    grants: tuple[Grant, ...]


@dataclass(frozen=True, slots=True)
class Refused:
    """There is no address for one slot or more, or it is not known. `granted`: what the others had got by then, which is
    to be undone."""

    error: OrbweaverError
    granted: tuple[Grant, ...] = ()


@dataclass(frozen=True, slots=True)
class AlreadyRecorded:
    """It was asked for as for a pod that has nothing, and these are recorded for it. `granted`: is to be undone."""

    allocations: tuple[Allocation, ...]
    granted: tuple[Grant, ...] = ()


@dataclass(slots=True)
class Attempt:
    """The search of one slot."""

    slot: Slot
    """What an address is looked for."""
    pools: list[str]
    """Those that are still to be asked, in order."""
    held: Allocation | None = None
    """The address to ask for first, as it is recorded."""
    again: list[str] = field(default_factory=list)
    """The pools to ask for that one, in order."""
    confirming: bool = False
    """It is recorded for this very ADD, so its block is asked."""
    inheriting: bool = False
    """It is the one that is asked for at this moment."""
    asking: str = ""
    """The pool that is asked at this moment."""
    returning: list[str] = field(default_factory=list)
    """The pools that have nothing now, and something on its way back."""
    refusals: dict[str, str] = field(default_factory=dict)
    """What each pool said last, as a line of details."""
    reasons: dict[str, Reason] = field(default_factory=dict)
    """The same in the form that fits into an Event."""
    only_taken: bool = True
    """Every pool that refused did so because of the one address that is asked for."""
    grant: Grant | None = None
    """What it found."""

    def refuse(self, why: OrbweaverError | str) -> None:
        """Note that nothing came of a pool, or of the address that was recorded."""
        error = OrbweaverError(why) if isinstance(why, str) else why
        # What a pool says last counts: it may have been asked before, without waiting.
        self.refusals[self.asking] = f"{self.slot.label}: {error}"
        self.reasons[self.asking] = Reason.of_error(error)


QueuedQuestion: TypeAlias = "tuple[Attempt, str, ObjectRef[Granted | RecordedElsewhere]]"
"""For whom which pool is waited for, and its answer."""


@dataclass(frozen=True, slots=True)
class Reservation:
    """Searches for one Endpoint."""

    node: str
    settings: Settings
    clock: Callable[[], float]
    deallocation: Deallocation

    def early_questions(
        self, slots: Sequence[tuple[str, int]], context: AddContext, unless: tuple[str, ...]
    ) -> tuple[tuple[int, Allocate], ...]:
        """What some pool is to be asked for each of these interfaces and families, with the family, before it is known which
        pools there are. Raises `PodRefused`."""
        return tuple(
            (family, Allocate(self._record(Slot(interface, family, "", ()), context, ""), unless=unless))
            for interface, family in slots
        )

    def give_back(self, allocator: Allocator, early: Sequence[EarlyAnswer]) -> None:
        """Release what was granted and nobody wants."""
        for held in filter(None, (answer.allocation for answer in early)):
            self.deallocation.give_back(allocator, held)

    def reserve(
        self,
        allocator: Allocator,
        decision: Decision,
        context: AddContext,
        unless: tuple[str, ...] = (),
        early: Sequence[EarlyAnswer] = (),
    ) -> Reserved | Refused | AlreadyRecorded:
        """Look for an address for every slot of the plan. `unless` is that of `Allocate`; without it nothing is
        `AlreadyRecorded`. `early`: what some pools have said already. Raises what says that the allocator itself has failed."""
        attempts = [
            self._attempt(allocator, slot, decision.inheritances.get(slot.label, Inheritance()))
            for slot in decision.plan.slots
        ]
        deadline = current_deadline()
        ending = self._take_early(allocator, attempts, early, context) if early else None
        ending = ending or self._search(allocator, attempts, context, unless)
        while ending is None and (short := _may_wait(attempts, context)):
            ending = self._wait(allocator, attempts, short, context)
            ending = ending or self._search(allocator, attempts, context, unless)
        granted = tuple(attempt.grant for attempt in attempts if attempt.grant is not None)
        if isinstance(ending, RecordedElsewhere):
            return AlreadyRecorded(ending.held, granted)
        if ending is None and deadline is not None and time.monotonic() > deadline:
            ending = DeadlineExceeded(
                f"the addresses of pod {context.pod.key} were not recorded in time; try again"
            )
        if ending is None and len(granted) < len(attempts):
            waited, automatic = context.waits_until is not None, context.application is not None
            ending = _refusal(decision.plan, attempts, waited=waited, automatic=automatic)
        return Reserved(granted) if ending is None else Refused(ending, granted)

    def _take_early(
        self,
        allocator: Allocator,
        attempts: Sequence[Attempt],
        early: Sequence[EarlyAnswer],
        context: AddContext,
    ) -> OrbweaverError | RecordedElsewhere | None:
        """Note what pools have said already; what they granted and the plan does not want goes back."""
        allocator.settle([answer.ref for answer in early])
        error: OrbweaverError | None = None
        recorded: RecordedElsewhere | None = None
        for answer in early:
            attempt = next(filter(answer.fits, attempts), None)
            if attempt is None:
                self.give_back(allocator, (answer,))
                continue
            attempt.asking = answer.pool
            attempt.pools.remove(answer.pool)
            ending = _take(attempt, answer.ref, context)
            if isinstance(ending, RecordedElsewhere):
                recorded = ending
            else:
                error = ending or error
        return error or recorded

    def _search(
        self, allocator: Allocator, attempts: Sequence[Attempt], context: AddContext, unless: tuple[str, ...]
    ) -> OrbweaverError | RecordedElsewhere | None:
        """Ask the pools of every slot, one after the other, until each has an address or none left to ask; returns what
        ends the search before."""
        error: OrbweaverError | None = None
        recorded: RecordedElsewhere | None = None
        while error is None and recorded is None:
            questions = [
                (attempt, ref)
                for attempt in attempts
                if attempt.grant is None
                and (ref := self._next(allocator, attempt, context, unless)) is not None
            ]
            if not questions:
                break
            allocator.settle([ref for _, ref in questions])
            for attempt, ref in questions:
                answer = _take(attempt, ref, context)
                if isinstance(answer, RecordedElsewhere):
                    recorded = answer
                else:
                    error = answer or error
            if error is None:
                error = self._give_up_refused(allocator, attempts)
        return error or recorded

    def _wait(
        self, allocator: Allocator, attempts: Sequence[Attempt], short: Sequence[Attempt], context: AddContext
    ) -> OrbweaverError | None:
        """Wait for one of the slots that are short, and for others that are short of the same pools, until they have an
        address or are refused.

        Nobody holds an address of a pool while he waits for one of the same pool or of one before it by name: so two
        pods that each have what the other one needs cannot wait for each other.
        """
        names = min((attempt.returning for attempt in short), key=min)
        group = [attempt for attempt in short if attempt.returning == names]
        if len(group) > 1:
            names = names[:1]  # a pool grants all of them or none
        for attempt in group:
            attempt.returning = []
        left = (context.waits_until or 0.0) - time.monotonic()
        if left <= 0:
            return None
        self._let_go(attempts, min(names))
        questions = [
            (attempt, name, self._queue(allocator, name, attempt, context, left, len(group)))
            for name in names
            for attempt in group
        ]
        self._await_one(allocator, questions, len(group), context)
        error = self._take_all(questions, context)
        if context.gone is not None and context.gone.done():
            return Withdrawn(
                f"the request of pod {context.pod.key} was withdrawn while it waited for an address"
            )
        return error

    def _await_one(
        self, allocator: Allocator, questions: Sequence[QueuedQuestion], slots: int, context: AddContext
    ) -> None:
        """Until a pool grants, all have answered, or nobody wants it any more; then leave the lines of the others. What they
        were asked for is settled too: an answer may have been on its way. `slots`: how many the questions are for."""
        refs = [ref for *_, ref in questions]
        gone = () if context.gone is None else (context.gone,)
        while not (context.gone is not None and context.gone.done()):
            done = [ref for ref in refs if ref.done()]
            if len(done) == len(refs) or any(ref.error() is None for ref in done):
                break
            allocator.settle((*refs, *gone), enough=len(done) + 1)
        if slots == 1 or not any(ref.done() and ref.error() is None for ref in refs):
            for name in dict.fromkeys(name for _, name, _ in questions):
                pool_of(allocator, name).ask(
                    PoolActor.withdraw, self.node, context.request.sandbox.container, context.claim
                )
        allocator.settle(refs)

    def _take_all(self, questions: Sequence[QueuedQuestion], context: AddContext) -> OrbweaverError | None:
        """Take what the pools answered, the first grant for each slot, and give back what came beside it; the first error."""
        extra: list[Grant] = []
        error: OrbweaverError | None = None
        for attempt, name, ref in questions:
            if isinstance(ref.error(), Withdrawn):
                continue
            faster, attempt.asking = attempt.grant, name
            answer = _take(attempt, ref, context)
            attempt.returning = []
            if isinstance(answer, OrbweaverError):
                error = error or answer
            if faster is not None and attempt.grant is not None and attempt.grant is not faster:
                extra.append(attempt.grant)
                attempt.grant = faster
        if extra:
            self.deallocation.undo(extra, "another pool was faster")
        return error

    def _queue(
        self,
        allocator: Allocator,
        name: str,
        attempt: Attempt,
        context: AddContext,
        left: float,
        together: int,
    ) -> ObjectRef[Granted | RecordedElsewhere]:
        request = Allocate(self._record(attempt.slot, context, name), wait=left, together=together)
        return pool_of(allocator, name).order(PoolActor.allocate, request)

    def _let_go(self, attempts: Sequence[Attempt], first: str) -> None:
        """Give back what was granted out of pools from `first` on, by name; it is asked for again later. What is the
        pod's own nobody else waits for."""
        held = [
            attempt
            for attempt in attempts
            if (grant := attempt.grant) is not None
            and grant.fresh
            and not grant.inherited
            and grant.record.pool >= first
        ]
        if held:
            grants = [attempt.grant for attempt in held if attempt.grant is not None]
            self.deallocation.undo(grants, "the pod waits for an address for another interface or family")
        for attempt in held:
            attempt.grant, attempt.pools, attempt.returning = None, list(attempt.slot.candidates), []

    def _attempt(self, allocator: Allocator, slot: Slot, inheritance: Inheritance) -> Attempt:
        """What is recorded for this interface already goes first, then what is kept for the pod, then the pools."""
        for value, record in inheritance.given_back:
            # The pod now asks for other pools: what it had goes back.
            self.deallocation.give_back(allocator, Allocation(slot.family, value, record))
        if inheritance.taken is None:
            return Attempt(slot, list(slot.candidates))
        value, record = inheritance.taken
        again = list(inheritance.pools)
        # For the one address that the pod asks for nobody is asked twice.
        names = [name for name in slot.candidates if slot.exact is None or name not in again]
        held = Allocation(slot.family, value, record)
        return Attempt(slot, names, held, again, confirming=inheritance.confirms)

    def _give_up_refused(self, allocator: Allocator, attempts: Sequence[Attempt]) -> OrbweaverError | None:
        """Where no pool gives a pod its own address again (it is reserved now), it goes back."""
        for attempt in attempts:
            refused, attempt.inheriting = attempt.inheriting, False
            if not refused or attempt.grant is not None or attempt.again or attempt.held is None:
                continue
            held, attempt.held = attempt.held, None
            try:
                self.deallocation.give_back(allocator, held)
            except OrbweaverError as error:
                return error
        return None

    def _next(
        self, allocator: Allocator, attempt: Attempt, context: AddContext, unless: tuple[str, ...]
    ) -> ObjectRef[Any] | None:
        """Put the next question of a slot to a pool, or to the block where its address is recorded; None if there is none
        left."""
        slot, held = attempt.slot, attempt.held
        if held is not None and attempt.confirming:
            claim = Claim(held.value, held.record)
            if not allocator.alone:
                # Another process may still undo the claim that stands there, not knowing that it counts.
                confirmed = replace(held.record, claim=context.claim)
                claim = Claim(held.value, confirmed, Fence.of(held.record))
            return block_of(allocator, held.address).order(BlockActor.claim, claim)
        if held is not None and attempt.again:
            attempt.inheriting = True
            attempt.asking = attempt.again.pop(0)
            record = self._record(slot, context, attempt.asking)
            request = Allocate(record, held.value, Fence.of(held.record))
            return pool_of(allocator, attempt.asking).order(PoolActor.allocate, request)
        if not attempt.pools:
            return None
        attempt.asking = attempt.pools.pop(0)
        record = self._record(slot, context, attempt.asking)
        request = Allocate(record, slot.exact, unless=unless)
        return pool_of(allocator, attempt.asking).order(PoolActor.allocate, request)

    def _record(self, slot: Slot, context: AddContext, pool: str) -> Record:
        pod, request = context.pod, context.of(slot.interface)
        sandbox = request.sandbox
        record = Record(
            pool=pool,
            pod=pod.key,
            uid=pod.uid or sandbox.uid,
            container=sandbox.container,
            interface=slot.interface,
            node=self.node,
            owner=pod.controller,
            since=datetime.fromtimestamp(self.clock(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            network=request.network,
            request="" if slot.interface == sandbox.interface else sandbox.interface,
            claim=context.claim,
            machine=self._owner(pod, slot),
            mac=request.asks.mac if slot.interface == sandbox.interface else "",
        )
        misfit = record.misfit()
        if misfit is not None:  # before it is sent to anybody
            raise PodRefused(f"pod {pod.key} cannot be recorded: its {misfit}")
        return record

    def _owner(self, pod: Pod, slot: Slot) -> str:
        """Whose the address is beyond the pod: the claim's that its network refers to, else its virtual machine's."""
        if slot.claim:
            return CLAIM + slot.claim
        return (pod.machine or "") if self.settings.enable_kubevirt else ""


def _may_wait(attempts: Sequence[Attempt], context: AddContext) -> list[Attempt]:
    """The slots that have no address yet, if the ADD waits and there is something on its way back for each."""
    short = [attempt for attempt in attempts if attempt.grant is None]
    return short if context.waits_until is not None and all(attempt.returning for attempt in short) else []


def _refusal(plan: Plan, attempts: Sequence[Attempt], *, waited: bool, automatic: bool) -> NoAddress:
    """What the pod is told when the search found nothing for one slot or more. `automatic`: the pools follow its
    application."""
    details = (*plan.reasons(), *(line for attempt in attempts for line in attempt.refusals.values()))
    unserved = [attempt for attempt in attempts if attempt.grant is None]
    wanted = [
        format_address(attempt.slot.family, attempt.slot.exact)
        for attempt in unserved
        if attempt.slot.exact is not None and attempt.only_taken
    ]
    reasons = [
        (attempt.slot.label, (*attempt.reasons.values(), *map(Reason.of_refusal, attempt.slot.refusals)))
        for attempt in unserved
    ]
    if len(wanted) == len(unserved):
        message = f"no pool can give pod {plan.pod} the address that it asks for, {' and '.join(wanted)}"
        return AddressTaken(message, details=details, brief=brief(message, reasons, ""))
    short_form = brief(
        f"no pool can give pod {plan.pod} an address",
        reasons,
        f"In this application's pool all is taken: {more_addresses(automatic=True)}."
        if automatic
        else "Add addresses to spec.ips of one of these pools, or name another pool.",
    )
    returning = not waited and all(attempt.returning for attempt in unserved)
    refusal = AddressesReturning if returning else PoolsExhausted
    return refusal(
        f"no pool can give pod {plan.pod} an address for every interface it asks for",
        details=details,
        brief=short_form,
    )


def _take(
    attempt: Attempt, ref: ObjectRef[Any], context: AddContext
) -> OrbweaverError | RecordedElsewhere | None:
    """Note the answer of one pool; returns what ends the whole search."""
    try:
        outcome = ref.result()
    except OrbweaverError as error:
        if error.retryable:
            return error
        attempt.only_taken &= isinstance(error, AddressTaken)
        attempt.refuse(error)
        if isinstance(error, PoolUsedUp) and error.worth_waiting:
            attempt.returning.append(attempt.asking)
        if attempt.confirming:
            attempt.pools, attempt.held, attempt.confirming = list(attempt.slot.candidates), None, False
        return None
    if isinstance(outcome, Quarantined):  # what was to be confirmed is not recorded any more
        attempt.refuse(f"the address recorded for it is set aside: {outcome.quarantine.why}")
        attempt.pools, attempt.held, attempt.confirming = list(attempt.slot.candidates), None, False
    elif isinstance(outcome, Taken):
        attempt.refuse(f"the address recorded for it went to pod {outcome.record.pod}")
        attempt.pools, attempt.held, attempt.confirming = list(attempt.slot.candidates), None, False
    elif isinstance(outcome, HolderUnknown):
        attempt.refuse(
            f"the address recorded for it has a record that cannot be judged by now: {outcome.why}"
        )
        attempt.pools, attempt.held, attempt.confirming = list(attempt.slot.candidates), None, False
    elif isinstance(outcome, RecordedElsewhere):
        return outcome
    elif isinstance(outcome, Granted):
        inherited = attempt.inheriting
        # What a lost leader recorded for this request is no earlier request's.
        mine = outcome.fresh or Address(attempt.slot.family, outcome.value) not in (context.before or ())
        attempt.grant = Grant(attempt.slot, outcome.value, outcome.record, mine, inherited, outcome.suspect)
    return None


def in_order(grants: Sequence[Grant], slots: Sequence[Slot]) -> list[Grant]:
    """The grants in the order of their slots."""
    order = [(slot.interface, slot.family) for slot in slots]
    return sorted(grants, key=lambda grant: order.index((grant.slot.interface, grant.slot.family)))
