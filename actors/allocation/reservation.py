"""The search for the addresses of one ADD: every interface and family asks its pools, all at once, until all have one.

What must always hold: all addresses of a request are granted or none is; what the pod had before is asked for first,
and goes back when no pool gives it again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from actors.allocation.grant import Grant
from actors.allocation.messages import AddRequest, Allocate, Allocation, Recorded
from actors.allocation.router import Allocator
from actors.decisions.brief import Reason, brief
from actors.decisions.inherit import Inheritance
from actors.decisions.plan import Plan, Slot
from actors.decisions.settings import Settings
from actors.errors import (
    AddressesReturning,
    AddressTaken,
    Conflict,
    DeadlineExceeded,
    NoAddress,
    OrbweaverError,
    PodRefused,
    PoolsExhausted,
    PoolUsedUp,
    Withdrawn,
)
from actors.resources.addresses import format_address
from actors.resources.blocks.block import Claim, Granted, Quarantined, Taken, block_name
from actors.resources.blocks.record import Fence, Record
from actors.resources.pod import Pod
from actors.runtime import ObjectRef, current_deadline

Where = tuple[int, int]
"""Family and address."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The plan, and for each slot's label what becomes of the addresses that are recorded for the pod already."""

    plan: Plan
    inheritances: dict[str, Inheritance]

    @property
    def gives_back(self) -> bool:
        return any(one.given_back for one in self.inheritances.values())


@dataclass(slots=True)
class AddContext:
    """One ADD, which may run at two places. `before`: what its container held when it was first looked at, so that what
    a lost leader recorded is known as this request's own. `claim` names what it records. `guessed`: the claims that it made
    before anybody had looked. `held`: what was recorded for the pod at the last look. `waits_until`: until when (monotonic
    seconds) it waits for addresses on their way back; None while it does not. `gone` is done when nobody wants its answer
    any more."""

    pod: Pod
    request: AddRequest
    started: float
    before: frozenset[Where] | None = None
    claim: str = ""
    guessed: frozenset[str] = frozenset()
    held: tuple[Allocation, ...] = ()
    waits_until: float | None = None
    gone: ObjectRef[None] | None = None


class AlreadyRecorded(Exception):
    """Nothing was granted, because these are recorded for the pod already."""

    def __init__(self, held: tuple[Allocation, ...]) -> None:
        super().__init__()
        self.held = held


@dataclass(slots=True)
class Attempt:
    """The search of one slot: the pools still to be asked, and what those before said. `held`: the address to ask
    for first, `again`: the pools to ask for it; `confirming`: it is recorded for this very ADD; `inheriting`: it is
    the one asked for at this moment; `only_taken`: every pool that refused did so because of the one address that is
    asked for; `asking`: the pool that is asked at this moment; `returning`: the pools that have nothing now, and
    something on its way back; `refusals`: what each pool said last."""

    slot: Slot
    pools: list[str]
    held: Allocation | None = None
    again: list[str] = field(default_factory=list)
    confirming: bool = False
    inheriting: bool = False
    asking: str = ""
    returning: list[str] = field(default_factory=list)
    refusals: dict[str, str] = field(default_factory=dict)
    reasons: dict[str, Reason] = field(default_factory=dict)
    only_taken: bool = True
    grant: Grant | None = None

    def refuse(self, why: OrbweaverError | str) -> None:
        """Note that nothing came of a pool, or of the address that was recorded."""
        error = OrbweaverError(why) if isinstance(why, str) else why
        # What a pool says last counts: it may have been asked before, without waiting.
        self.refusals[self.asking] = f"{self.slot.label}: {error}"
        self.reasons[self.asking] = Reason.of_error(error)


@dataclass(frozen=True, slots=True)
class Reservation:
    """`give_back` releases what a pod had before, `undo` what a failed request was granted."""

    node: str
    settings: Settings
    clock: Callable[[], float]
    give_back: Callable[[Allocator, Allocation], None]
    undo: Callable[[Sequence[Grant], OrbweaverError], None]

    def reserve(
        self, allocator: Allocator, made: Decision, asked: AddContext, unless: tuple[str, ...] = ()
    ) -> list[Grant]:
        """An address for every slot of the plan. Raises `NoAddress`, an error that a retry may cure, or
        `AlreadyRecorded` (`unless`
        is that of `Allocate`)."""
        pod = asked.pod
        attempts = [
            self._attempt(allocator, slot, made.inheritances.get(slot.label, Inheritance()))
            for slot in made.plan.slots
        ]
        deadline = current_deadline()
        error, recorded = self._ask(allocator, attempts, asked, unless)
        while error is None and recorded is None and (short := _may_wait(attempts, asked)):
            error = self._wait(allocator, attempts, short, asked)
            if error is None:
                error, recorded = self._ask(allocator, attempts, asked, unless)
        if error is None and recorded is not None:
            granted = [attempt.grant for attempt in attempts if attempt.grant is not None]
            if granted:
                self.undo(granted, Conflict(f"something is recorded for pod {pod.key} already"))
            raise AlreadyRecorded(recorded.held)
        if error is None and deadline is not None and time.monotonic() > deadline:
            error = DeadlineExceeded(f"the addresses of pod {pod.key} were not recorded in time; try again")
        if error is None and any(attempt.grant is None for attempt in attempts):
            error = _refusal(made.plan, attempts, waited=asked.waits_until is not None)
        grants = [attempt.grant for attempt in attempts if attempt.grant is not None]
        if error is not None:
            if not allocator.failed:  # else the next run finds and takes what was granted
                self.undo(grants, error)
            raise error
        return grants

    def _ask(
        self, allocator: Allocator, attempts: Sequence[Attempt], asked: AddContext, unless: tuple[str, ...]
    ) -> tuple[OrbweaverError | None, Recorded | None]:
        """Ask the pools of every slot, one after the other, until each has an address or none left to ask; returns what
        ends the search."""
        error: OrbweaverError | None = None
        recorded: Recorded | None = None
        while error is None and recorded is None:
            going = [
                (attempt, ref)
                for attempt in attempts
                if attempt.grant is None
                and (ref := self._next(allocator, attempt, asked, unless)) is not None
            ]
            if not going:
                break
            allocator.settle([ref for _, ref in going])
            for attempt, ref in going:
                answer = _take(attempt, ref, asked)
                if isinstance(answer, Recorded):
                    recorded = answer
                else:
                    error = answer or error
            if error is None:
                error = self._give_up_refused(allocator, attempts)
        return error, recorded

    def _wait(
        self, allocator: Allocator, attempts: Sequence[Attempt], short: Sequence[Attempt], asked: AddContext
    ) -> OrbweaverError | None:
        """Wait for one of the slots that are short, and for others that are short of the same pools, until they have an
        address or are refused.

        Nobody holds an address of a pool while he waits for one of the same pool or of one before it by name: so two
        pods that each have what the other one needs cannot wait for each other.
        """
        pools = min((attempt.returning for attempt in short), key=min)
        group = [attempt for attempt in short if attempt.returning == pools]
        if len(group) > 1:
            pools = pools[:1]  # which grants all of them or none
        for attempt in group:
            attempt.returning = []
        left = (asked.waits_until or 0.0) - time.monotonic()
        if left <= 0:
            return None
        self._let_go(attempts, min(pools))
        going = [
            (attempt, pool, self._queue(allocator, pool, attempt, asked, left, len(group)))
            for pool in pools
            for attempt in group
        ]
        refs = [ref for *_, ref in going]
        gone = () if asked.gone is None else (asked.gone,)
        while not (asked.gone is not None and asked.gone.done()):
            done = [ref for ref in refs if ref.done()]
            if len(done) == len(refs) or any(ref.error() is None for ref in done):
                break
            allocator.settle((*refs, *gone), enough=len(done) + 1)
        left_behind = len(group) == 1 or not any(ref.done() and ref.error() is None for ref in refs)
        if left_behind:
            for pool in pools:
                allocator.get_actor("pool/" + pool).withdraw.remote(
                    self.node, asked.request.sandbox.container, asked.claim
                )
        allocator.settle(refs)
        extra: list[Grant] = []
        error: OrbweaverError | None = None
        for attempt, pool, ref in going:
            if isinstance(ref.error(), Withdrawn):
                continue
            faster, attempt.asking = attempt.grant, pool
            answer = _take(attempt, ref, asked)
            attempt.returning = []
            if isinstance(answer, OrbweaverError):
                error = error or answer
            if faster is not None and attempt.grant is not None and attempt.grant is not faster:
                extra.append(attempt.grant)
                attempt.grant = faster
        if extra:
            self.undo(extra, Conflict("another pool was faster"))
        if asked.gone is not None and asked.gone.done():
            return Withdrawn(
                f"the request of pod {asked.pod.key} was withdrawn while it waited for an address"
            )
        return error

    def _queue(
        self, allocator: Allocator, pool: str, attempt: Attempt, asked: AddContext, left: float, together: int
    ) -> ObjectRef[Any]:
        request = Allocate(self._record(attempt.slot, asked), wait=left, together=together)
        return allocator.get_actor("pool/" + pool).allocate.remote(request)

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
            self.undo(grants, Conflict("the pod waits for an address for another interface or family"))
        for attempt in held:
            attempt.grant, attempt.pools, attempt.returning = None, list(attempt.slot.candidates), []

    def _attempt(self, allocator: Allocator, slot: Slot, inheritance: Inheritance) -> Attempt:
        """What is recorded for this interface already goes first, then what is kept for the pod, then the pools."""
        for value, record in inheritance.given_back:
            # The pod now asks for other pools: what it had goes back.
            self.give_back(allocator, Allocation(slot.family, value, record))
        if inheritance.taken is None:
            return Attempt(slot, list(slot.candidates))
        value, record = inheritance.taken
        again = list(inheritance.pools)
        # For the one address that the pod asks for nobody is asked twice.
        pools = [pool for pool in slot.candidates if slot.exact is None or pool not in again]
        held = Allocation(slot.family, value, record)
        return Attempt(slot, pools, held, again, confirming=inheritance.confirms)

    def _give_up_refused(self, allocator: Allocator, attempts: Sequence[Attempt]) -> OrbweaverError | None:
        """Where no pool gives a pod its own address again (it is reserved now), it goes back."""
        for attempt in attempts:
            refused, attempt.inheriting = attempt.inheriting, False
            if not refused or attempt.grant is not None or attempt.again or attempt.held is None:
                continue
            held, attempt.held = attempt.held, None
            try:
                self.give_back(allocator, held)
            except OrbweaverError as error:
                return error
        return None

    def _next(
        self, allocator: Allocator, attempt: Attempt, asked: AddContext, unless: tuple[str, ...]
    ) -> ObjectRef[Any] | None:
        slot, held = attempt.slot, attempt.held
        if held is not None and attempt.confirming:
            block = allocator.get_actor("block/" + block_name(held.family, held.value))
            if allocator.alone:
                return block.claim.remote(Claim(held.value, held.record))
            # Another process may still undo the claim that stands there, not knowing that it counts.
            confirmed = replace(held.record, claim=asked.claim)
            return block.claim.remote(Claim(held.value, confirmed, Fence.of(held.record)))
        record = self._record(slot, asked)
        if held is not None and attempt.again:
            attempt.inheriting = True
            attempt.asking = attempt.again.pop(0)
            actor = allocator.get_actor("pool/" + attempt.asking)
            return actor.allocate.remote(Allocate(record, held.value, Fence.of(held.record)))
        if not attempt.pools:
            return None
        attempt.asking = attempt.pools.pop(0)
        pool = allocator.get_actor("pool/" + attempt.asking)
        return pool.allocate.remote(Allocate(record, slot.exact, unless=unless))

    def _record(self, slot: Slot, asked: AddContext) -> Record:
        pod, request = asked.pod, asked.request
        sandbox = request.sandbox
        record = Record(
            pool="",
            pod=pod.key,
            uid=pod.uid or sandbox.uid,
            container=sandbox.container,
            interface=slot.interface,
            node=self.node,
            owner=pod.controller,
            since=datetime.fromtimestamp(self.clock(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            network=request.network,
            request="" if slot.interface == sandbox.interface else sandbox.interface,
            claim=asked.claim,
            machine=(pod.machine or "") if self.settings.enable_kubevirt else "",
            mac=request.asks.mac if slot.interface == sandbox.interface else "",
        )
        misfit = record.misfit()
        if misfit is not None:  # before it is sent to anybody
            raise PodRefused(f"pod {pod.key} cannot be recorded: its {misfit}")
        return record


def _may_wait(attempts: Sequence[Attempt], asked: AddContext) -> list[Attempt]:
    """The slots that have no address yet, if the ADD waits and there is something on its way back for each."""
    short = [attempt for attempt in attempts if attempt.grant is None]
    return short if asked.waits_until is not None and all(attempt.returning for attempt in short) else []


def _refusal(made: Plan, attempts: Sequence[Attempt], *, waited: bool) -> NoAddress:
    """What the pod is told when the search found nothing for one slot or more."""
    details = (*made.reasons(), *(line for attempt in attempts for line in attempt.refusals.values()))
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
        message = f"no pool can give pod {made.pod} the address that it asks for, {' and '.join(wanted)}"
        return AddressTaken(message, details=details, brief=brief(message, reasons, ""))
    told = brief(
        f"no pool can give pod {made.pod} an address",
        reasons,
        "Add addresses to spec.ips of one of these pools, or name another pool.",
    )
    returning = not waited and all(attempt.returning for attempt in unserved)
    refusal = AddressesReturning if returning else PoolsExhausted
    return refusal(
        f"no pool can give pod {made.pod} an address for every interface it asks for",
        details=details,
        brief=told,
    )


def _take(attempt: Attempt, ref: ObjectRef[Any], asked: AddContext) -> OrbweaverError | Recorded | None:
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
    elif isinstance(outcome, Recorded):
        return outcome
    elif isinstance(outcome, Granted):
        inherited = attempt.inheriting
        # What a lost leader recorded for this request is no earlier request's.
        mine = outcome.fresh or (attempt.slot.family, outcome.value) not in (asked.before or ())
        attempt.grant = Grant(attempt.slot, outcome.value, outcome.record, mine, inherited, outcome.suspect)
    return None
