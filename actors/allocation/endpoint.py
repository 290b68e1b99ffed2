"""The Endpoint actor: one pod's addresses across all its interfaces. ADD, DEL and CHECK run here.

What must always hold:

* Two requests for one pod never race: this actor handles one at a time, and waits for the Pools below it.
* All addresses of a request are granted or none is: what was granted is released before the error is answered,
  also when the request's time ran out meanwhile. Undoing has its own time.
* A repeated ADD answers with what is recorded for (container, interface), after the Block has confirmed it.
* A DEL needs container id and interface alone, releases only what the fence admits (`Block.release` in
  `actors/resources/blocks/block.py` compares it), and succeeds when there is nothing. What was taken from its container
  by force before is suspect no longer. What a StatefulSet's pod leaves behind is kept for its next incarnation, and
  what a virtual machine's pod leaves for the machine, of which another pod may use it already.
* A request that the leader failed runs again in this process, from what is recorded by then. What the leader records
  later for it is looked for, and released if it is not what was answered (`lost_requests.py`). Nothing else is kept
  between messages: what is recorded is the Ledger's to know and the Block's to judge.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from actors.allocation.application_pools import AT_ONCE, ask_for_both, ask_for_pools, with_shortage
from actors.allocation.block_writer import BlockActor, block_of
from actors.allocation.conflict_detection import (
    TRIES,
    ConflictDetection,
    Prober,
    Proved,
    Usage,
    every_try_in_use,
    to_be_probed,
)
from actors.allocation.deallocation import UNDO_TIMEOUT, Deallocation, of_container
from actors.allocation.departures import Departures, NoDepartures
from actors.allocation.grant import Grant
from actors.allocation.ledger import LedgerActor, ledger_of
from actors.allocation.lost_requests import LostRequests
from actors.allocation.messages import AddRequest, AddResult, Assigned, RouteTo, Sandbox
from actors.allocation.observer import AllocationObserver, tell_views
from actors.allocation.persistent_claims import PersistentClaims
from actors.allocation.pod_warnings import PodWarnings
from actors.allocation.reservation import (
    AddContext,
    AlreadyRecorded,
    Decision,
    EarlyAnswer,
    Refused,
    Reservation,
    Reserved,
    in_order,
)
from actors.allocation.router import Allocator, AllocatorRouter, ask
from actors.allocation.sandbox_evidence import NoEvidence, SandboxEvidence, SandboxState
from actors.decisions.candidates import wish_of, wished_slots
from actors.decisions.detection import Detection
from actors.decisions.inherit import claim_of, claimed_by_other, inherit, machine_of
from actors.decisions.plan import Plan, Slot, names_addresses, plan
from actors.decisions.routes import InterfaceAddress, route, unreached
from actors.decisions.settings import Settings
from actors.errors import (
    AddressesReturning,
    AddressTaken,
    CheckFailed,
    DeadlineExceeded,
    NoAddress,
    OrbweaverError,
    PodRefused,
    StoreUnavailable,
    Withdrawn,
)
from actors.resources.addresses import Address, format_address
from actors.resources.blocks.allocation import Allocation
from actors.resources.blocks.block import HolderEnded
from actors.resources.blocks.record import Record
from actors.resources.ipam_claim import IPAMClaim
from actors.resources.pod import Pod
from actors.runtime import Actor, ActorContext, ObjectRef, current_deadline, message
from actors.store.caches.catalog import Catalog, PoolTable

log = logging.getLogger("orbweaver.endpoint")

_CHANCE = random.Random()
"""Names claims, which are no secret: a question to the system would let another thread have the interpreter."""

WAITS_MOST = 10.0
"""Seconds for which an ADD without a deadline waits for addresses on their way back."""


@dataclass(frozen=True, slots=True)
class Ended:
    """What became of what an ended sandbox held: each address that was released, with whether it is kept for the pod's next
    incarnation. `really` is false when an ADD told of the sandbox again meanwhile; then nothing was done."""

    really: bool
    done: tuple[tuple[Allocation, bool], ...] = ()


@dataclass(frozen=True, slots=True)
class Allocated:
    """What an attempt reserved, and the decision that it follows."""

    decision: Decision
    grants: tuple[Grant, ...]


class EndpointActor(Actor):
    """One per pod on its node, named `endpoint/<namespace>/<pod>`."""

    def __init__(
        self,
        context: ActorContext,
        *,
        router: AllocatorRouter,
        catalog: Catalog,
        settings: Settings,
        node: str,
        observer: AllocationObserver,
        prober: Prober | None = None,
        sandboxes: SandboxEvidence | None = None,
        tell: Callable[[Sandbox, str, str], object] = lambda sandbox, reason, text: None,
        warnings: PodWarnings | None = None,
        departures: Departures | None = None,
        claims: PersistentClaims | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(context)
        self._router = router
        self._catalog = catalog
        self._settings = settings
        self._node = node
        self._sandboxes = sandboxes or NoEvidence()
        self._observer = observer
        self._departures: Departures = departures or NoDepartures()
        self._clock = clock
        self._claims = claims
        self._deallocation = Deallocation(
            str(context.key), node, router, catalog, settings, clock, context.system
        )
        self._lost = LostRequests(self.after, self._deallocation)
        self._reservation = Reservation(node, settings, clock, self._deallocation)
        self._warnings = warnings or PodWarnings(tell)
        self._detection: ConflictDetection | None = None
        if prober is not None:
            self._detection = ConflictDetection(prober, tell, router, catalog, clock)

    @message
    def add(self, request: AddRequest, gone: ObjectRef[None] | None = None) -> AddResult:
        """CNI ADD. `gone` is completed when nobody wants its answer any more: it does not wait any longer then. Raises
        `PodRefused`, `NoAddress`, `AddressTaken`, or an error that a retry may cure."""
        self._sandboxes.began(request.sandbox)
        pod = self._pod(request.sandbox)
        context = AddContext(pod, request, time.perf_counter(), claims=self._claims_of(pod), gone=gone)
        allocated = self._allocate(context, lambda allocator: self._attempt(allocator, context))
        plan, grants = allocated.decision.plan, list(allocated.grants)
        try:
            notes = self._prove(context, allocated.decision, grants)
            result = self._result(context, plan, in_order(grants, plan.slots), notes)
            self._write_claims(context, grants)
        except OrbweaverError as error:  # another host, or a pool was deleted or broken since the decision
            self._deallocation.undo(grants, str(error))
            raise
        if self._lost.by_attachment:
            self._lost.answered(context, grants)
        tell_views(self, [grant.record for grant in grants])
        for reason in result.reasons:
            log.debug("decision", extra={"reason": reason})
        return result

    @message
    def reserve(
        self, requests: tuple[AddRequest, ...], gone: ObjectRef[None] | None = None
    ) -> tuple[AddResult | None, ...]:
        """Record the addresses of several interfaces of one sandbox, all or none, before any of them exists; for each its
        result, or None where its own ADD has to prove the address on the wire first. Raises as `add`."""
        for request in requests:
            self._sandboxes.began(request.sandbox)
        first, *others = requests
        pod = self._pod(first.sandbox)
        context = AddContext(
            pod, first, time.perf_counter(), tuple(others), claims=self._claims_of(pod), gone=gone
        )
        allocated = self._allocate(context, lambda allocator: self._attempt(allocator, context))
        plan, grants = allocated.decision.plan, list(allocated.grants)
        results: list[AddResult | None] = []
        try:
            for request in requests:
                wishes = self._settings.detection.under(request.asks.detection)
                own = [grant for grant in grants if grant.slot.interface == request.sandbox.interface]
                if self._detection is not None and _is_to_be_proved(wishes, own):
                    results.append(None)
                    continue
                asking = replace(context, request=request)
                results.append(self._result(asking, plan, in_order(grants, plan.slots), ()))
            self._write_claims(context, grants)
        except OrbweaverError as error:
            self._deallocation.undo(grants, str(error))
            raise
        if self._lost.by_attachment:
            self._lost.answered(context, grants)
        tell_views(self, [grant.record for grant in grants])
        return tuple(results)

    def _claims_of(self, pod: Pod) -> Mapping[str, IPAMClaim]:
        """By interface, the IPAMClaims that the pod's networks refer to."""
        return self._claims.of_pod(pod) if self._claims is not None else {}

    def _write_claims(self, context: AddContext, grants: Sequence[Grant]) -> None:
        """Have each claim's status name the addresses that are recorded for it by now."""
        for interface, claim in context.claims.items():
            mine = [grant for grant in grants if grant.slot.interface == interface and grant.slot.claim]
            if mine and self._claims is not None:
                self._claims.write(claim, [self._in_cidr_form(grant) for grant in mine], context.pod.name)

    def _in_cidr_form(self, grant: Grant) -> str:
        pool = self._catalog.pool(grant.record.pool)
        return f"{format_address(pool.family, grant.value)}/{pool.subnet.prefix}"

    def _allocate(
        self, context: AddContext, attempt: Callable[[Allocator], Allocated | Refused]
    ) -> Allocated:
        """Run an attempt; if there is no address, and some are on their way back, run it again and let it wait for them,
        for half of the time that is left. The other half is for the write, and for a leader that is lost."""
        waits = self._waits_for_pools(context)
        outcome: Allocated | Refused
        try:
            outcome = self._router.work(attempt, lambda: self._lost.add(context), waits=waits)
        except NoAddress as error:
            if context.application is None:
                raise
            # Its pools may be gone by now, and it may have others, or what is left of a subnet.
            outcome = Refused(error)
        if isinstance(outcome, Refused) and isinstance(outcome.error, NoAddress) and context.may_ask_again:
            context.ask_again()  # it may want more pods than anybody had heard of
            waits = self._waits_for_pools(context)
            self._router.work(lambda allocator: self._learn_pools(allocator, context), waits=waits)
            outcome = self._router.work(attempt, lambda: self._lost.add(context))
        if isinstance(outcome, Refused) and isinstance(outcome.error, AddressesReturning):
            deadline = current_deadline()
            waits = WAITS_MOST if deadline is None else (deadline - time.monotonic()) / 2
            if waits > 0:
                outcome = self._allocate_waiting(context, attempt, waits)
        if isinstance(outcome, Refused):
            raise with_shortage(outcome.error, context.application)
        return outcome

    def _waits_for_pools(self, context: AddContext) -> float:
        """Seconds for which an ADD waits until the pools of its application are there, where they are to be asked for: half of
        the time that is left at most."""
        if context.application is not None or wish_of(context.pod, self._settings) is None:
            return 0.0
        deadline = current_deadline()
        return WAITS_MOST if deadline is None else max(0.0, (deadline - time.monotonic()) / 2)

    def _learn_pools(self, allocator: Allocator, context: AddContext) -> None:
        """Ask for the pools of the pod's application, where it asks for addresses of SpiderSubnets and they are not known: the
        answer comes when they are there."""
        if context.application is None and wish_of(context.pod, self._settings) is not None:
            waits = self._waits_for_pools(context)
            context.application = ask_for_pools(allocator, context.pod, waits, again=context.asked_again)

    def _learn_both(self, allocator: Allocator, context: AddContext) -> tuple[EarlyAnswer, ...]:
        """The same for a pod that seems new, with what the first of these pools have for it."""
        pod = context.pod
        slots = tuple(
            dict.fromkeys(
                slot
                for asking in context.requests
                for slot in wished_slots(pod, asking.sandbox.interface, self._settings)
            )
        )
        named = any(names_addresses(pod, asking.asks, self._settings) for asking in context.requests)
        if context.application is not None or not slots or named or allocator.speaks < AT_ONCE:
            self._learn_pools(allocator, context)
            return ()
        context.guessed = frozenset({context.claim})
        questions = self._reservation.early_questions(slots, context, _unless(context))
        both = ask_for_both(allocator, pod, self._waits_for_pools(context), questions)
        context.application = both.pools
        for obj in both.objects:
            self._catalog.hear_of(obj)
        return tuple(
            EarlyAnswer(interface, family, both.pools.names(interface, family)[0], ref)
            for (interface, family), ref in zip(slots, both.said(), strict=True)
            if ref is not None
        )

    def _allocate_waiting(
        self, context: AddContext, attempt: Callable[[Allocator], Allocated | Refused], waits: float
    ) -> Allocated | Refused:
        log.info("waiting for an address on its way back", extra={"seconds": round(waits, 1)})
        began, ended = time.monotonic(), "failed"
        context.waits_until = began + waits
        try:
            outcome = self._router.work(attempt, lambda: self._lost.add(context), waits=waits)
            ended = _how_waiting_ended(outcome)
        except NoAddress:
            ended = "refused"
            raise
        finally:
            context.waits_until = None
            self._observer.waited(ended, time.monotonic() - began)
        return outcome

    def _attempt(self, allocator: Allocator, context: AddContext) -> Allocated | Refused:
        """One attempt at one place: as for a pod that has nothing, where that is likely, then from what is recorded."""
        context.claim = "" if allocator.alone else _new_claim()
        recorded: tuple[Allocation, ...] | None = None
        if not self._seems_new(allocator, context):
            self._learn_pools(allocator, context)
        else:
            outcome = self._attempt_as_new(allocator, context)
            if isinstance(outcome, Allocated):
                return outcome
            if isinstance(outcome, AlreadyRecorded):
                recorded = outcome.allocations
            elif outcome.error.retryable:
                return outcome
            else:
                log.debug("could not serve it as a new pod", extra={"reason": str(outcome.error)})
            context.claim = _new_claim()  # what was claimed may be released late
        return self._attempt_from_records(allocator, context, recorded)

    def _seems_new(self, allocator: Allocator, context: AddContext) -> bool:
        """Whether it is worth a guess that nothing is recorded for the pod: one question to the leader less."""
        pod, settings = context.pod, self._settings
        kept = (pod.statefulset is not None and settings.enable_statefulset) or pod.machine is not None
        kept = kept or bool(context.claims)
        lost = bool(self._lost.by_attachment) and self._lost.includes(context)
        return not (allocator.alone or kept or lost or context.guessed or context.before is not None)

    def _attempt_as_new(
        self, allocator: Allocator, context: AddContext
    ) -> Allocated | Refused | AlreadyRecorded:
        """Ask for addresses as for a pod that has none; the Pools look whether that is so."""
        early = self._learn_both(allocator, context)
        try:
            decision = self._decide_with(self._catalog.pools(), context, ())
        except OrbweaverError as error:
            self._reservation.give_back(allocator, early)
            return Refused(error)
        self._observer.stage("allocation", "decided", time.perf_counter() - context.started)
        context.guessed = frozenset({context.claim})
        return self._reserve(allocator, decision, context, _unless(context), early)

    def _attempt_from_records(
        self, allocator: Allocator, context: AddContext, recorded: tuple[Allocation, ...] | None
    ) -> Allocated | Refused:
        """Look what the pod has, unless that is known, and ask for what it lacks."""
        held = self._current(allocator, context, recorded)
        context.held = tuple(held)
        self._note_before(context, held)
        decision = self._decide(context, held)
        self._observer.stage("allocation", "decided", time.perf_counter() - context.started)
        outcome = self._reserve(allocator, decision, context)
        if isinstance(outcome, Refused) and isinstance(outcome.error, NoAddress):
            # All that the cache had is exhausted; somebody may have applied another pool a moment ago.
            held = self._current(allocator, context)
            fresh = self._decide_with(self._catalog.fresh_pools(), context, held)
            if fresh.plan.slots != decision.plan.slots:
                outcome = self._reserve(allocator, fresh, context)
        if isinstance(outcome, AlreadyRecorded):
            return self._attempt_from_records(allocator, context, outcome.allocations)
        return outcome

    def _attempt_others(
        self, allocator: Allocator, wanted: Decision, context: AddContext, used: frozenset[Address]
    ) -> Allocated | Refused:
        """Ask for other addresses than those in use for the slots of a plan."""
        outcome: Allocated | Refused | AlreadyRecorded
        try:
            decision = self._decide_with(
                self._catalog.pools(), context, self._current(allocator, context, used=used)
            )
            outcome = self._reserve(allocator, replace(decision, plan=wanted.plan), context)
        except NoAddress as error:
            outcome = Refused(error)
        if isinstance(outcome, Refused) and isinstance(outcome.error, NoAddress):
            held = self._current(allocator, context, used=used)
            fresh = self._decide_with(self._catalog.fresh_pools(), context, held)
            labels = {slot.label for slot in wanted.plan.slots}
            slots = tuple(slot for slot in fresh.plan.slots if slot.label in labels)
            if slots != wanted.plan.slots:
                fresh = replace(fresh, plan=replace(fresh.plan, slots=slots))
                outcome = self._reserve(allocator, fresh, context)
        if isinstance(outcome, AlreadyRecorded):
            return self._attempt_others(allocator, wanted, context, used)
        return outcome

    def _reserve(
        self,
        allocator: Allocator,
        decision: Decision,
        context: AddContext,
        unless: tuple[str, ...] = (),
        early: tuple[EarlyAnswer, ...] = (),
    ) -> Allocated | Refused | AlreadyRecorded:
        """Reserve what was decided on. Here what was granted in vain goes back; only if the allocator itself has failed it
        stays, because the next run finds and takes it: that error is raised."""
        outcome = self._reservation.reserve(allocator, decision, context, unless, early)
        if isinstance(outcome, Reserved):
            self._observer.stage("allocation", "committed", time.perf_counter() - context.started)
            return Allocated(decision, outcome.grants)
        if isinstance(outcome, AlreadyRecorded):
            self._deallocation.undo(
                outcome.granted, f"something is recorded for pod {context.pod.key} already"
            )
            return outcome
        if allocator.failed:
            raise outcome.error
        self._deallocation.undo(outcome.granted, str(outcome.error))
        return outcome

    def _note_before(self, context: AddContext, held: Sequence[Allocation]) -> None:
        """Note what the container held before this ADD, at the first look."""
        if context.before is not None:
            return
        sandbox = context.request.sandbox
        context.before = frozenset(
            allocation.address
            for allocation in held
            if sandbox.container in allocation.record.containers
            and allocation.record.claim not in context.guessed
        )
        if self._lost.by_attachment:
            self._lost.looked(context)

    def _prove(self, context: AddContext, decision: Decision, grants: list[Grant]) -> tuple[str, ...]:
        """Probe what was granted, as far as that is wished, and exchange what others use. What the request holds is in
        `grants` at every moment, so that it can be undone. Returns what is worth a note."""
        wishes = self._settings.detection.under(context.request.asks.detection)
        if self._detection is None or not _is_to_be_proved(wishes, grants):
            return ()
        started = time.perf_counter()
        sandbox = context.request.sandbox
        notes: list[str] = []
        used: set[Address] = set()
        unproved = to_be_probed(grants, sandbox.interface)
        for _ in range(TRIES):
            outcome = self._detection.probe_once(context.request, wishes, unproved)
            notes += outcome.notes
            if isinstance(outcome, Proved):
                self._observer.stage("allocation", "probed", time.perf_counter() - started)
                return tuple(notes)
            for usage in outcome.usages:
                if usage.quarantine is not None:
                    self._deallocation.quarantine(usage.grant, usage.quarantine)
                    grants.remove(usage.grant)
                self._detection.announce(sandbox, usage)
            if outcome.refusal is not None:
                raise outcome.refusal
            notes += [usage.reason for usage in outcome.usages]
            used |= {usage.grant.address for usage in outcome.usages}
            unproved = self._exchange(context, decision, outcome.usages, frozenset(used))
            grants += unproved
        raise every_try_in_use(sandbox.key, len(used), notes)

    def _exchange(
        self, context: AddContext, decision: Decision, usages: Sequence[Usage], used: frozenset[Address]
    ) -> list[Grant]:
        """Other addresses than those in use."""
        slots = tuple(usage.grant.slot for usage in usages)
        wanted = replace(decision, plan=replace(decision.plan, slots=slots))
        exchanged = self._allocate(
            context, lambda allocator: self._attempt_others(allocator, wanted, context, used)
        )
        return list(exchanged.grants)

    @message
    def release(self, sandbox: Sandbox) -> int:
        """CNI DEL: how many addresses it released or keeps for the pod's next incarnation."""
        self._lost.ended(sandbox.container, sandbox.interface)
        touched: list[Record] = []

        def drop(allocator: Allocator) -> int:
            held_by_it = [
                replace(held, record=held.record.seen_by(sandbox.container))
                for held in self._held(allocator, sandbox)
                if _belongs(held.record, sandbox)
            ]
            if any(not held.record.container for held in held_by_it) and self._goes_on(sandbox):
                held_by_it = [held for held in held_by_it if held.record.container]
            touched.extend(held.record for held in held_by_it)
            if not held_by_it:
                self._end_suspicion(allocator, sandbox.container, sandbox.interface)
            return len(self._drop(allocator, held_by_it))

        try:
            with self._departures.stopping((sandbox.key,)):
                released = self._router.work(drop)
        finally:
            tell_views(self, touched)
        self._sandboxes.deleted(sandbox)
        return released

    @message
    def ended(self, container: str) -> Ended:
        """The node saw the end of a sandbox and no DEL came: release what it held, as the DEL would have. An ADD of this pod
        runs before or after it, so a container that was started again loses nothing."""
        if self._sandboxes.state(container) is not SandboxState.ENDED:
            return Ended(really=False)
        self._lost.ended(container)
        touched: list[Record] = []

        def drop(allocator: Allocator) -> tuple[tuple[Allocation, bool], ...]:
            held_by_it = [
                replace(held, record=held.record.seen_by(container))
                for held in of_container(allocator, container)
            ]
            touched.extend(held.record for held in held_by_it)
            self._end_suspicion(allocator, container)
            return tuple(self._drop(allocator, held_by_it))

        try:
            with self._departures.stopping((str(self.context.key),)):
                return Ended(really=True, done=self._router.work(drop))
        finally:
            tell_views(self, touched)

    def _drop(self, allocator: Allocator, allocations: Sequence[Allocation]) -> list[tuple[Allocation, bool]]:
        """Release what a sandbox held that is over; returns what was, each with whether it is kept."""
        wanted = [
            (held, self._deallocation.keeps(held.record) and not _replaced(allocator, held))
            for held in allocations
        ]
        done = self._deallocation.release(allocator, wanted, whoever=True)
        return self._deallocation.without_vain(allocator, done)

    def _end_suspicion(self, allocator: Allocator, container: str, interface: str = "") -> None:
        """A sandbox has ended, or one interface of it: what was taken from it by force is suspect no longer."""
        (suspects,) = ask(allocator, ledger_of(allocator).ask(LedgerActor.suspects_of, container, interface))
        refs = []
        for family, value in suspects:
            recording = block_of(allocator, Address(family, value)).within(UNDO_TIMEOUT)
            refs.append(recording.order(BlockActor.holder_ended, HolderEnded(value, container, self._node)))
        ask(allocator, *refs)

    @message
    def holder(self, container: str) -> str:
        """The pod for which a container is recorded, `namespace/name`, empty when nothing is."""
        allocations = self._router.work(lambda allocator: of_container(allocator, container))
        return allocations[0].record.seen_by(container).pod if allocations else ""

    @message
    def check(self, sandbox: Sandbox, previous: tuple[str, ...]) -> None:
        """CNI CHECK: the addresses of the previous result are the ones recorded. Raises `CheckFailed`."""
        recorded = {
            held.address.text
            for held in self._lost.without_late(
                self._router.work(lambda allocator: self._held(allocator, sandbox)), sandbox
            )
            if sandbox.container in held.record.containers and held.record.interface == sandbox.interface
        }
        expected = {text.partition("/")[0] for text in previous}
        if not recorded:
            raise CheckFailed(
                f"no address is recorded for interface {sandbox.interface} of pod {sandbox.key} (container "
                f"{sandbox.container}); delete the pod so that it gets a new one"
            )
        if not recorded <= expected:
            raise CheckFailed(
                f"interface {sandbox.interface} of pod {sandbox.key} has {', '.join(sorted(expected)) or 'no address'}, "
                f"but recorded for it is {', '.join(sorted(recorded))}; delete the pod so that both agree again"
            )

    def _pod(self, sandbox: Sandbox) -> Pod:
        pod = self._catalog.pod(sandbox.namespace, sandbox.pod, sandbox.uid)
        if pod.uid and sandbox.uid and pod.uid != sandbox.uid:
            raise PodRefused(
                f"pod {sandbox.key} with UID {sandbox.uid} does not exist any more; the pod of that name now has UID "
                f"{pod.uid}"
            )
        if pod.ended is not None:
            raise PodRefused(f"pod {sandbox.key} gets no address: {pod.ended}")
        return self._catalog.proven(pod)

    def _goes_on(self, sandbox: Sandbox) -> bool:
        """Whether the pod lives on behind this DEL. Then that may mean an earlier sandbox, of a start that failed, which a
        kubelet clears away a minute later, and a record that names no sandbox may be of the one that runs. It stays for
        the pod's next ADD; when the pod is gone, the leader reclaims it. Where nobody can say it, the pod goes on."""
        try:
            return self._catalog.goes_on(sandbox.namespace, sandbox.pod, sandbox.uid)
        except StoreUnavailable:
            return True

    def _held(
        self, allocator: Allocator, sandbox: Sandbox, context: AddContext | None = None
    ) -> tuple[Allocation, ...]:
        """Everything recorded under the container id, for the pod's name, or for whom the context knows: the virtual machine
        in the pod, and the claims of its networks."""
        owners: list[str] = []
        if context is not None:
            pod = context.pod
            owners += () if pod.machine is None else (machine_of(pod),)
            owners += (claim_of(pod, claim.name) for claim in context.claims.values())
        of_sandbox = ledger_of(allocator).ask(LedgerActor.of_sandbox, sandbox.container, sandbox.key, *owners)
        (allocations,) = ask(allocator, of_sandbox)
        return allocations

    def _current(
        self,
        allocator: Allocator,
        context: AddContext,
        recorded: tuple[Allocation, ...] | None = None,
        used: frozenset[Address] = frozenset(),
    ) -> list[Allocation]:
        """What is recorded for an ADD's sandbox, pod or machine, and counts; `recorded`: what is, where that is known;
        `used`: addresses that others use, which count for nothing."""
        sandbox = context.request.sandbox
        if recorded is None:
            recorded = self._held(allocator, sandbox, context)
        if self._lost.by_attachment:
            recorded = tuple(self._lost.without_late(recorded, sandbox))
        return [held for held in recorded if held.address not in used]

    def _decide(self, context: AddContext, held: Sequence[Allocation]) -> Decision:
        """Decide on what the cache has; before the pod is refused or loses an address, on what the store has."""
        try:
            decision = self._decide_with(self._catalog.pools(), context, held)
            if not decision.gives_back:
                return decision
        except DeadlineExceeded:
            raise
        except OrbweaverError as error:
            log.debug("refused on the pools in the cache, reading them anew", extra={"reason": str(error)})
        return self._decide_with(self._catalog.fresh_pools(), context, held)

    def _decide_with(self, table: PoolTable, context: AddContext, held: Sequence[Allocation]) -> Decision:
        pod, request = context.pod, context.request
        if context.application is not None:
            table = self._catalog.with_pools(table, context.application.pools)
        namespace = self._catalog.namespace(pod.namespace)
        node = self._catalog.node(pod.node or self._node)
        if not pod.node:  # without Kubernetes nothing says it
            pod = replace(pod, node=self._node)

        def planned(request: AddRequest) -> Plan:
            return plan(
                pod,
                namespace,
                node,
                table.pools,
                request.asks,
                self._settings,
                table.damaged,
                go_on=_while_in_time,
                auto=context.application,
                claims=context.claims,
            )

        wanted = planned(request)
        if context.others:
            others = {other.sandbox.interface: planned(other) for other in context.others}
            wanted = wanted.joined(request.sandbox.interface, others)
        container = request.sandbox.container
        for slot in wanted.slots:
            _refuse_claimed(slot, _of_slot(slot, held), pod, container)
        inheritances = {
            slot.label: inherit(slot, recorded, pod, container, table.pools, self._settings)
            for slot in wanted.slots
            if (recorded := _of_slot(slot, held))
        }
        served = [label for label, inheritance in inheritances.items() if inheritance.taken is not None]
        return Decision(wanted.require(served), inheritances)

    def _result(
        self, context: AddContext, plan: Plan, grants: Sequence[Grant], notes: Sequence[str]
    ) -> AddResult:
        sandbox = context.request.sandbox
        interface = sandbox.interface
        leases = []
        assigned = []
        for grant in grants:
            pool = self._catalog.pool(grant.record.pool)
            leases.append(InterfaceAddress(grant.slot.interface, grant.value, pool, grant.slot.clean_gateway))
            if grant.slot.interface == interface:
                gateway = "" if pool.gateway is None else format_address(pool.family, pool.gateway)
                address = f"{format_address(pool.family, grant.value)}/{pool.subnet.prefix}"
                assigned.append(Assigned(interface, pool.family, address, gateway, pool.name, pool.vlan))
        routing = route(interface, leases, plan)
        if plan.warnings:
            self._warnings.warn(sandbox, "AnnotationIgnored", plan.warnings)
        if plan.routes:
            every = [*self._other_leases(context), *leases]
            self._warnings.warn(sandbox, "RouteUnreachable", unreached(plan, interface, every))
        return AddResult(
            tuple(assigned),
            tuple(
                RouteTo(str(hop.destination), format_address(hop.family, hop.gateway))
                for hop in routing.routes
            ),
            (*plan.reasons(), *notes, *routing.reasons),
            fresh=any(grant.fresh for grant in grants),
        )

    def _other_leases(self, context: AddContext) -> Iterator[InterfaceAddress]:
        """What the pod's other interfaces have from their own ADDs, as far as their pools are still there."""
        sandbox, pools = context.request.sandbox, self._catalog.pools().pools
        for held in context.held:
            record = held.record.seen_by(sandbox.container)
            other = sandbox.container in record.containers and record.interface != sandbox.interface
            if other and record.pool in pools:
                yield InterfaceAddress(record.interface, held.value, pools[record.pool])


def _unless(context: AddContext) -> tuple[str, ...]:
    """`Allocate.unless` for a pod that seems new."""
    sandbox = context.request.sandbox
    return sandbox.container, sandbox.key


def _while_in_time() -> None:
    """Nobody waits for a decision after the request's time, and the processor is everybody's. Raises `DeadlineExceeded`."""
    deadline = current_deadline()
    if deadline is not None and time.monotonic() > deadline:
        raise DeadlineExceeded(
            "the pools of the pod were not decided on in its request's time; name fewer of them, or try again"
        )


def _how_waiting_ended(outcome: Allocated | Refused) -> str:
    """In one word, for a metric."""
    if isinstance(outcome, Allocated):
        return "granted"
    if isinstance(outcome.error, Withdrawn):
        return "withdrawn"
    return "refused" if isinstance(outcome.error, NoAddress) else "failed"


def _of_slot(slot: Slot, held: Sequence[Allocation]) -> list[tuple[int, Record]]:
    return [
        (allocation.value, allocation.record)
        for allocation in held
        if allocation.family == slot.family and _is_for(allocation.record, slot)
    ]


def _is_for(record: Record, slot: Slot) -> bool:
    """Whether a record is for the slot's interface; what is a claim's is for whichever interface has the claim."""
    if slot.claim and record.ipam_claim:
        return record.ipam_claim == slot.claim
    return record.interface == slot.interface


def _refuse_claimed(slot: Slot, recorded: Sequence[tuple[int, Record]], pod: Pod, container: str) -> None:
    """Raise `AddressTaken` where another pod has the claim's address: two pods with one address help nobody."""
    for value, record in recorded if slot.claim else ():
        if claimed_by_other(record, pod, container):
            raise AddressTaken(
                f"pod {pod.key}: {format_address(slot.family, value)} of IPAMClaim {pod.namespace}/{slot.claim} is used by pod "
                f"{record.pod}; it goes to another pod when that one has ended"
            )


def _replaced(allocator: Allocator, held: Allocation) -> bool:
    """Whether the pod's machine runs elsewhere by now, where it got another address for the interface."""
    if not held.record.machine:
        return False
    (others,) = ask(allocator, ledger_of(allocator).ask(LedgerActor.of_pod, held.record.holder))
    return any(
        other.value != held.value
        and (other.family, other.record.interface) == (held.family, held.record.interface)
        and bool(other.record.container)
        for other in others
    )


def _belongs(record: Record, sandbox: Sandbox) -> bool:
    """Whether a DEL for this sandbox's interface means this record.

    The interface whose ADD reserved the others takes them along. A record taken over from another IPAM has no
    container, and perhaps no interface; the pod's UID stands for it, when the pod is over.
    """
    if record.container:
        named = sandbox.interface in (record.interface, record.request)
        return named and sandbox.container in record.containers
    return bool(record.uid) and record.uid == sandbox.uid and record.interface in ("", sandbox.interface)


def _new_claim() -> str:
    return f"{_CHANCE.getrandbits(24):06x}"


def _is_to_be_proved(wishes: Detection, grants: Sequence[Grant]) -> bool:
    """Whether anything of what was granted has to be probed."""
    return wishes.conflicts or wishes.gateways or any(grant.suspect is not None for grant in grants)
