"""The Endpoint actor: one pod's addresses across all its interfaces. ADD, DEL and CHECK run here.

What must always hold:

* Two requests for one pod never race: this actor handles one at a time, and waits for the Pools below it.
* All addresses of a request are granted or none is: what was granted is released before the error is answered,
  also when the request's time ran out meanwhile. Undoing has its own time.
* A repeated ADD answers with what is recorded for (container, interface), after the Block has confirmed it.
* A DEL needs container id and interface alone, releases only what the fence admits, and succeeds when there is
  nothing. What was taken from its container by force before is suspect no longer. What a StatefulSet's pod leaves
  behind is kept for its next incarnation, and what a virtual machine's pod
  leaves for the machine, of which another pod may use it already.
* A request that the leader failed runs again in this process, from what is recorded by then. What the leader records
  later for it is in doubt: it is looked for, and released if it is not what was answered.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from actors.allocation.conflict_detection import ConflictDetection, Prober, in_order, needed
from actors.allocation.departures import Departures, NoDepartures
from actors.allocation.grant import Grant
from actors.allocation.messages import AddRequest, AddResult, Allocation, Assigned, RouteTo, Sandbox
from actors.allocation.observer import AllocationObserver
from actors.allocation.pod_warnings import PodWarnings
from actors.allocation.reservation import AddContext, AlreadyRecorded, Decision, Reservation, Where
from actors.allocation.router import Allocator, AllocatorRouter, ask
from actors.allocation.sandbox_evidence import NoEvidence, SandboxEvidence, SandboxState
from actors.decisions.inherit import (
    in_use_elsewhere,
    inherit,
    machine_of,
    owning_statefulset,
    still_wanted,
)
from actors.decisions.plan import Plan, Slot, plan
from actors.decisions.routes import Lease, route, unreached
from actors.decisions.settings import Settings
from actors.errors import (
    AddressesReturning,
    CheckFailed,
    DeadlineExceeded,
    NoAddress,
    OrbweaverError,
    PodRefused,
    StoreUnavailable,
    Withdrawn,
)
from actors.resources.addresses import format_address
from actors.resources.blocks.block import HolderEnded, Release, Released, block_name
from actors.resources.blocks.record import Fence, Record
from actors.resources.pod import Pod
from actors.runtime import Actor, ActorContext, Cancellable, ObjectRef, current_deadline, message
from actors.store.caches.catalog import Catalog, PoolTable

log = logging.getLogger("orbweaver.endpoint")

T = TypeVar("T")

WAITS_MOST = 10.0
"""Seconds for which an ADD without a deadline waits for addresses on their way back."""

UNDO_TIMEOUT = 20.0
"""Seconds that releasing a failed request's addresses may take; the request's own time may be over by then."""


DOUBTS = (8.0, 30.0, 90.0)
"""Seconds after which it is looked for what a lost leader may have recorded late. The first is longer than its messages
live, the second longer than its lease; who was paused longer leaves it to the GC, as the crash of this agent does."""


@dataclass(slots=True)
class LostRequest:
    """What was `answered` for a (container, interface) since its leader was lost, and when it is looked for what came
    late. While nobody knows what was answered before (None), only what has one of the `guessed` claims came late."""

    answered: frozenset[Where] | None = frozenset()
    guessed: frozenset[str] = frozenset()
    looks: list[Cancellable] = field(default_factory=list)

    def is_late(self, held: Allocation) -> bool:
        """Whether what is recorded for the container counts for nothing."""
        if self.answered is None:
            return held.record.claim in self.guessed
        return (held.family, held.value) not in self.answered


@dataclass(frozen=True, slots=True)
class Ended:
    """What became of what an ended sandbox held: each address that was released, with whether it is kept for the pod's next
    incarnation. `really` is false when an ADD told of the sandbox again meanwhile; then nothing was done."""

    really: bool
    done: tuple[tuple[Allocation, bool], ...] = ()


@dataclass(slots=True)
class State:
    """Nothing but doubts is kept between messages: what is recorded is the Ledger's to know and the Block's to judge."""

    doubts: dict[tuple[str, str], LostRequest] = field(default_factory=dict)


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
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(context)
        self._state = State()
        self._router = router
        self._catalog = catalog
        self._settings = settings
        self._node = node
        self._sandboxes = sandboxes or NoEvidence()
        self._observer = observer
        self._departures: Departures = departures or NoDepartures()
        self._clock = clock
        self._reserving = Reservation(node, settings, clock, self._give_back, self._undo)
        self._warnings = warnings or PodWarnings(tell)
        self._proving: ConflictDetection | None = None
        if prober is not None:
            self._proving = ConflictDetection(prober, tell, self._touch, router, catalog, observer, clock)

    @message
    def add(self, request: AddRequest, gone: ObjectRef[None] | None = None) -> AddResult:
        """CNI ADD. `gone` is completed when nobody wants its answer any more: it does not wait any longer then. Raises
        `PodRefused`, `NoAddress`, `AddressTaken`, or an error that a retry may cure."""
        self._sandboxes.began(request.sandbox)
        asked = AddContext(self._pod(request.sandbox), request, time.perf_counter(), gone=gone)
        place = (request.sandbox.container, request.sandbox.interface)
        made, grants = self._work(asked, lambda allocator: self._add(allocator, asked))
        try:
            notes = self._prove(asked, made, grants)
            result = self._result(asked, made.plan, in_order(grants, made.plan.slots), notes)
        except OrbweaverError as error:  # another host, or a pool was deleted or broken since the decision
            self._undo(grants, error)
            raise
        if place in self._state.doubts:
            answered = frozenset((grant.slot.family, grant.value) for grant in grants)
            self._state.doubts[place].answered = answered
        self._touch([grant.record for grant in grants])
        for line in result.reasons:
            log.debug("decision", extra={"reason": line})
        return result

    def _work(self, asked: AddContext, task: Callable[[Allocator], T]) -> T:
        """Run a part of an ADD; if there is no address, and some are on their way back, run it again and let it wait for
        them, for half of the time that is left. The other half is for the write, and for a leader that is lost."""

        def on_lost() -> None:
            self._doubt(asked)

        try:
            return self._router.work(task, on_lost)
        except AddressesReturning:
            deadline = current_deadline()
            waits = WAITS_MOST if deadline is None else (deadline - time.monotonic()) / 2
            if waits <= 0:
                raise
        began, outcome = time.monotonic(), "failed"
        asked.waits_until = began + waits
        log.info("waiting for an address on its way back", extra={"seconds": round(waits, 1)})
        try:
            result = self._router.work(task, on_lost, waits=waits)
            outcome = "granted"
        except Withdrawn:
            outcome = "withdrawn"
            raise
        except NoAddress:
            outcome = "refused"
            raise
        finally:
            asked.waits_until = None
            self._observer.waited(outcome, time.monotonic() - began)
        return result

    def _add(self, allocator: Allocator, asked: AddContext) -> tuple[Decision, list[Grant]]:
        asked.claim = "" if allocator.alone else secrets.token_hex(3)
        found: tuple[Allocation, ...] | None = None
        if self._seems_new(allocator, asked):
            try:
                return self._guess(allocator, asked)
            except AlreadyRecorded as known:
                found = known.held
            except OrbweaverError as error:
                if error.retryable or allocator.failed:
                    raise
                log.debug("could not serve it as a new pod", extra={"reason": str(error)})
            asked.claim = secrets.token_hex(3)  # what was claimed may be released late
        held = self._current(allocator, asked, found)
        asked.held = tuple(held)
        self._note_before(asked, held)
        made = self._decide(asked, held)
        self._observer.stage("allocation", "decided", time.perf_counter() - asked.started)
        try:
            grants = self._reserving.reserve(allocator, made, asked)
        except NoAddress:
            # All that the cache had is exhausted; somebody may have applied another pool a moment ago.
            held = self._current(allocator, asked)
            fresh = self._decide_with(self._catalog.fresh_pools(), asked, held)
            if fresh.plan.slots == made.plan.slots:
                raise
            made = fresh
            grants = self._reserving.reserve(allocator, made, asked)
        self._observer.stage("allocation", "committed", time.perf_counter() - asked.started)
        return made, grants

    def _seems_new(self, allocator: Allocator, asked: AddContext) -> bool:
        """Whether it is worth a guess that nothing is recorded for the pod: one question to the leader less."""
        sandbox, pod, settings = asked.request.sandbox, asked.pod, self._settings
        kept = (pod.statefulset is not None and settings.enable_statefulset) or pod.machine is not None
        doubted = (sandbox.container, sandbox.interface) in self._state.doubts
        return not (allocator.alone or kept or doubted or asked.guessed or asked.before is not None)

    def _guess(self, allocator: Allocator, asked: AddContext) -> tuple[Decision, list[Grant]]:
        """Ask for addresses as for a pod that has none; the Pools look whether that is so. Raises `AlreadyRecorded` if not."""
        made = self._decide_with(self._catalog.pools(), asked, ())
        self._observer.stage("allocation", "decided", time.perf_counter() - asked.started)
        asked.guessed = frozenset({asked.claim})
        sandbox = asked.request.sandbox
        grants = self._reserving.reserve(allocator, made, asked, unless=(sandbox.container, sandbox.key))
        self._observer.stage("allocation", "committed", time.perf_counter() - asked.started)
        return made, grants

    def _note_before(self, asked: AddContext, held: Sequence[Allocation]) -> None:
        """Note what the container held before this ADD, at the first look."""
        if asked.before is not None:
            return
        sandbox = asked.request.sandbox
        asked.before = frozenset(
            (one.family, one.value)
            for one in held
            if sandbox.container in one.record.containers and one.record.claim not in asked.guessed
        )
        doubt = self._state.doubts.get((sandbox.container, sandbox.interface))
        if doubt is not None and doubt.answered is None:
            doubt.answered = asked.before

    def _prove(self, asked: AddContext, made: Decision, grants: list[Grant]) -> tuple[str, ...]:
        """Probe what was granted, as far as that is wished; exchanges in `grants` what other hosts use."""
        detection = self._settings.detection.under(asked.request.asks.detection)
        if self._proving is None or not needed(detection, grants):
            return ()

        def others(slots: Sequence[Slot], used: frozenset[Where]) -> list[Grant]:
            only = replace(made, plan=replace(made.plan, slots=tuple(slots)))
            return self._work(asked, lambda allocator: self._others(allocator, only, asked, used))

        return self._proving.prove(asked.request, detection, grants, others)

    def _others(
        self, allocator: Allocator, made: Decision, asked: AddContext, used: frozenset[Where]
    ) -> list[Grant]:
        """Other addresses for the slots of a plan."""

        def held() -> list[Allocation]:
            found = self._current(allocator, asked)
            return [one for one in found if (one.family, one.value) not in used]

        try:
            now = self._decide_with(self._catalog.pools(), asked, held())
            return self._reserving.reserve(allocator, replace(now, plan=made.plan), asked)
        except NoAddress:
            fresh = self._decide_with(self._catalog.fresh_pools(), asked, held())
            wanted = {(slot.interface, slot.family) for slot in made.plan.slots}
            slots = tuple(slot for slot in fresh.plan.slots if (slot.interface, slot.family) in wanted)
            if slots == made.plan.slots:
                raise
            return self._reserving.reserve(
                allocator, replace(fresh, plan=replace(fresh.plan, slots=slots)), asked
            )

    @message
    def release(self, sandbox: Sandbox) -> int:
        """CNI DEL: how many addresses it released or keeps for the pod's next incarnation."""
        place = (sandbox.container, sandbox.interface)
        if place in self._state.doubts:
            self._state.doubts[place].answered = frozenset()
        touched: list[Record] = []

        def drop(allocator: Allocator) -> int:
            found = [
                replace(held, record=held.record.seen_by(sandbox.container))
                for held in self._held(allocator, sandbox)
                if _belongs(held.record, sandbox)
            ]
            touched.extend(held.record for held in found)
            if not found:
                self._end_suspicion(allocator, sandbox.container, sandbox.interface)
            return len(self._drop(allocator, found))

        try:
            with self._departures.stopping((sandbox.key,)):
                done = self._router.work(drop)
        finally:
            self._touch(touched)
        self._sandboxes.deleted(sandbox)
        return done

    @message
    def ended(self, container: str) -> Ended:
        """The node saw the end of a sandbox and no DEL came: release what it held, as the DEL would have. An ADD of this pod
        runs before or after it, so a container that was started again loses nothing."""
        if self._sandboxes.state(container) is not SandboxState.ENDED:
            return Ended(really=False)
        for (of, _), doubt in self._state.doubts.items():
            if of == container:
                doubt.answered = frozenset()
        touched: list[Record] = []

        def drop(allocator: Allocator) -> tuple[tuple[Allocation, bool], ...]:
            (recorded,) = ask(allocator, allocator.get_actor("ledger/local").of_container.remote(container))
            found = [replace(held, record=held.record.seen_by(container)) for held in recorded]
            touched.extend(held.record for held in found)
            self._end_suspicion(allocator, container)
            return tuple(self._drop(allocator, found))

        try:
            with self._departures.stopping((str(self.context.key),)):
                return Ended(really=True, done=self._router.work(drop))
        finally:
            self._touch(touched)

    def _drop(self, allocator: Allocator, found: Sequence[Allocation]) -> list[tuple[Allocation, bool]]:
        """Release what a sandbox held that is over; returns what was, each with whether it is kept."""
        wanted = [(held, self._keeps(held.record) and not _replaced(allocator, held)) for held in found]
        return self._release(allocator, wanted, whoever=True)

    def _end_suspicion(self, allocator: Allocator, container: str, interface: str = "") -> None:
        """A sandbox has ended, or one interface of it: what was taken from it by force is suspect no longer."""
        (suspects,) = ask(
            allocator, allocator.get_actor("ledger/local").suspects_of.remote(container, interface)
        )
        refs = []
        for family, value in suspects:
            block = allocator.get_actor("block/" + block_name(family, value))
            ended = HolderEnded(value, container, self._node)
            refs.append(block.holder_ended.options(timeout=UNDO_TIMEOUT).remote(ended))
        ask(allocator, *refs)

    @message
    def holder(self, container: str) -> str:
        """The pod for which a container is recorded, `namespace/name`, empty when nothing is."""
        found = self._router.work(
            lambda allocator: ask(
                allocator, allocator.get_actor("ledger/local").of_container.remote(container)
            )[0]
        )
        return str(found[0].record.seen_by(container).pod) if found else ""

    @message
    def check(self, sandbox: Sandbox, previous: tuple[str, ...]) -> None:
        """CNI CHECK: the addresses of the previous result are the ones recorded. Raises `CheckFailed`."""
        recorded = {
            format_address(held.family, held.value)
            for held in self._without_late(
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

    def _held(self, allocator: Allocator, sandbox: Sandbox, pod: Pod | None = None) -> tuple[Allocation, ...]:
        """Everything recorded under the container id, for the pod's name, or for the virtual machine in the pod."""
        machine = () if pod is None or pod.machine is None else (machine_of(pod),)
        ledger = allocator.get_actor("ledger/local")
        (held,) = ask(allocator, ledger.of_sandbox.remote(sandbox.container, sandbox.key, *machine))
        found: tuple[Allocation, ...] = held
        return found

    def _current(
        self, allocator: Allocator, asked: AddContext, found: tuple[Allocation, ...] | None = None
    ) -> list[Allocation]:
        """What is recorded for an ADD's sandbox, pod or machine, and counts; `found`: what is recorded, where that is
        known."""
        sandbox = asked.request.sandbox
        return self._without_late(
            self._held(allocator, sandbox, asked.pod) if found is None else found, sandbox
        )

    def _without_late(self, held: Sequence[Allocation], sandbox: Sandbox) -> list[Allocation]:
        """Leave out what a lost leader recorded late beside the address that was answered: a repeated ADD is answered
        the same, also before the other one is found and released."""
        answered: set[Where] = set()
        for (container, _), doubt in self._state.doubts.items():
            if container == sandbox.container:
                answered |= doubt.answered or frozenset()
        mine = [one for one in held if sandbox.container in one.record.containers]
        told = {_nic(one, sandbox) for one in mine if (one.family, one.value) in answered}
        late = [one for one in mine if (one.family, one.value) not in answered and _nic(one, sandbox) in told]
        return [one for one in held if one not in late]

    def _doubt(self, asked: AddContext) -> None:
        """The leader was lost while it served an ADD: what it records late is to be found. What the container held before
        was the answer to an earlier ADD, which counts whether or not this one succeeds."""
        if asked.before is None and not asked.guessed:
            return  # it had only been asked what is recorded
        place = (asked.request.sandbox.container, asked.request.sandbox.interface)
        doubt = self._state.doubts.setdefault(place, LostRequest())
        for look in doubt.looks:
            look.cancel()
        doubt.answered = asked.before
        doubt.guessed |= asked.guessed
        doubt.looks = [
            self.after(seconds, self._look_again, place, seconds == DOUBTS[-1]) for seconds in DOUBTS
        ]

    def _look_again(self, place: tuple[str, str], last: bool) -> None:
        doubt = self._state.doubts[place]
        container, interface = place

        def drop(allocator: Allocator) -> list[Allocation]:
            (held,) = ask(allocator, allocator.get_actor("ledger/local").of_container.remote(container))
            late = [
                replace(one, record=one.record.seen_by(container))
                for one in held
                if interface in (one.record.interface, one.record.request) and doubt.is_late(one)
            ]
            self._release(allocator, [(one, self._keeps(one.record)) for one in late])
            return late

        try:
            late = self._router.work(drop)
        except OrbweaverError as error:
            log.warning(
                "could not look for what a lost leader recorded, will try again", extra={"error": str(error)}
            )
            doubt.looks.append(self.after(DOUBTS[0], self._look_again, place, last))
            return
        log.log(
            logging.WARNING if late else logging.INFO,
            "looked for what a lost leader recorded",
            extra={"container": container, "released": len(late)},
        )
        if late:
            self._touch([one.record for one in late])
        if last:
            del self._state.doubts[place]

    def _decide(self, asked: AddContext, held: Sequence[Allocation]) -> Decision:
        """Decide on what the cache has; before the pod is refused or loses an address, on what the store has."""
        try:
            made = self._decide_with(self._catalog.pools(), asked, held)
            if not made.gives_back:
                return made
        except DeadlineExceeded:
            raise
        except OrbweaverError as error:
            log.debug("refused on the pools in the cache, reading them anew", extra={"reason": str(error)})
        return self._decide_with(self._catalog.fresh_pools(), asked, held)

    def _decide_with(self, table: PoolTable, asked: AddContext, held: Sequence[Allocation]) -> Decision:
        pod, request = asked.pod, asked.request
        namespace = self._catalog.namespace(pod.namespace)
        node = self._catalog.node(pod.node or self._node)
        if not pod.node:  # without Kubernetes nothing says it
            pod = replace(pod, node=self._node)
        made = plan(
            pod, namespace, node, table.pools, request.asks, self._settings, table.damaged, _while_in_time
        )
        container = request.sandbox.container
        inheritances = {
            slot.label: inherit(slot, _of_slot(slot, held), pod, container, table.pools, self._settings)
            for slot in made.slots
        }
        served = [label for label, one in inheritances.items() if one.taken is not None]
        return Decision(made.require(served), inheritances)

    def _give_back(self, allocator: Allocator, held: Allocation) -> None:
        if in_use_elsewhere(held.record):
            return
        try:
            self._release(allocator, [(held, False)])
        finally:
            self._touch([held.record])

    def _undo(self, grants: Sequence[Grant], because: OrbweaverError) -> None:
        fresh = [
            (
                Allocation(grant.slot.family, grant.value, grant.record),
                grant.inherited and self._keeps(grant.record),
            )
            for grant in grants
            if grant.fresh
        ]
        if fresh:
            log.info(
                "releasing what a failed request was granted",
                extra={"addresses": len(fresh), "because": str(because)},
            )
            try:
                self._router.work(lambda allocator: self._release(allocator, fresh))
            except OrbweaverError as error:
                # The runtime follows a failed ADD with DEL (CNI spec, "Lifecycle & Ordering"), which finds them.
                log.error("could not release them yet", exc_info=error)
            self._touch([held.record for held, _ in fresh])

    def _release(
        self, allocator: Allocator, wanted: Sequence[tuple[Allocation, bool]], *, whoever: bool = False
    ) -> list[tuple[Allocation, bool]]:
        """Returns those that were released, or kept where it was wanted so. `whoever`: also what was confirmed for the same
        sandbox under another claim since it was looked up."""
        now = self._clock()
        refs: list[ObjectRef[Released]] = []
        for held, keep in wanted:
            block = allocator.get_actor("block/" + block_name(held.family, held.value))
            # What another node's sandbox had, the leader takes back on the word of the pod that has a right to it.
            by = "" if held.record.node == self._node else self.context.key
            release = Release(held.value, Fence.of(held.record), now, keep, by=by)
            refs.append(block.release.options(timeout=UNDO_TIMEOUT).remote(release))
        done: list[tuple[Allocation, bool]] = []
        renamed: list[tuple[Allocation, bool]] = []
        for (held, keep), released in zip(wanted, ask(allocator, *refs), strict=True):
            if released.done:
                done.append((held, keep))
            found = released.found
            same = found is not None and Fence.of(held.record).whoever().admits(found)
            if whoever and not released.done and found is not None and same:
                renamed.append((replace(held, record=found), keep))
        return done + (self._release(allocator, renamed, whoever=True) if renamed else [])

    def _keeps(self, record: Record) -> bool:
        """Whether the address stays with the pod's name, or its machine, after this sandbox."""
        try:
            return is_kept(record, self._catalog, self._settings)
        except StoreUnavailable:
            return True  # what should not have been kept is reclaimed later; what was given away is lost

    def _result(
        self, asked: AddContext, made: Plan, grants: Sequence[Grant], notes: Sequence[str]
    ) -> AddResult:
        sandbox = asked.request.sandbox
        interface = sandbox.interface
        leases = []
        assigned = []
        for grant in grants:
            pool = self._catalog.pool(grant.record.pool)
            leases.append(Lease(grant.slot.interface, grant.value, pool, grant.slot.clean_gateway))
            if grant.slot.interface == interface:
                gateway = "" if pool.gateway is None else format_address(pool.family, pool.gateway)
                address = f"{format_address(pool.family, grant.value)}/{pool.subnet.prefix}"
                assigned.append(Assigned(interface, pool.family, address, gateway, pool.name, pool.vlan))
        routing = route(interface, leases, made)
        self._warnings.warn(sandbox, "AnnotationIgnored", made.warnings)
        if made.routes:
            every = [*self._other_leases(asked), *leases]
            self._warnings.warn(sandbox, "RouteUnreachable", unreached(made, interface, every))
        return AddResult(
            tuple(assigned),
            tuple(
                RouteTo(str(one.destination), format_address(one.family, one.gateway))
                for one in routing.routes
            ),
            (*made.reasons(), *notes, *routing.reasons),
            fresh=any(grant.fresh for grant in grants),
        )

    def _other_leases(self, asked: AddContext) -> Iterator[Lease]:
        """What the pod's other interfaces have from their own ADDs, as far as their pools are still there."""
        sandbox, pools = asked.request.sandbox, self._catalog.pools().pools
        for one in asked.held:
            record = one.record.seen_by(sandbox.container)
            other = sandbox.container in record.containers and record.interface != sandbox.interface
            if other and record.pool in pools:
                yield Lease(record.interface, one.value, pools[record.pool])

    def _touch(self, records: Sequence[Record]) -> None:
        if records:
            pods = {record.holder for record in records}
            pools = {record.pool for record in records}
            changed = self.get_actor("views/local").changed.options(
                timeout=None
            )  # also when the request's time is over
            changed.remote(tuple(sorted(pods)), tuple(sorted(pools)))


def _while_in_time() -> None:
    """Nobody waits for a decision after the request's time, and the processor is everybody's. Raises `DeadlineExceeded`."""
    deadline = current_deadline()
    if deadline is not None and time.monotonic() > deadline:
        raise DeadlineExceeded(
            "the pools of the pod were not decided on in its request's time; name fewer of them, or try again"
        )


def is_kept(record: Record, catalog: Catalog, settings: Settings) -> bool:
    """Whether an address stays with the name of a StatefulSet's pod, or with a virtual machine, when its sandbox is
    gone. Raises `StoreUnavailable`."""
    namespace = record.pod.partition("/")[0]
    if record.machine:
        return settings.enable_kubevirt and catalog.machine_lives(namespace, record.machine)
    name = owning_statefulset(record)
    if name is None:
        return False
    return still_wanted(record, catalog.statefulset(namespace, name), settings)


def _nic(held: Allocation, sandbox: Sandbox) -> tuple[str, int]:
    """Which interface of the sandbox an address is for, and its family."""
    return held.record.seen_by(sandbox.container).interface, held.family


def _of_slot(slot: Slot, held: Sequence[Allocation]) -> list[tuple[int, Record]]:
    return [
        (one.value, one.record)
        for one in held
        if (one.record.interface, one.family) == (slot.interface, slot.family)
    ]


def _replaced(allocator: Allocator, held: Allocation) -> bool:
    """Whether the pod's machine runs elsewhere by now, where it got another address for the interface."""
    if not held.record.machine:
        return False
    (others,) = ask(allocator, allocator.get_actor("ledger/local").of_pod.remote(held.record.holder))
    return any(
        other.value != held.value
        and (other.family, other.record.interface) == (held.family, held.record.interface)
        and bool(other.record.container)
        for other in others
    )


def _belongs(record: Record, sandbox: Sandbox) -> bool:
    """Whether a DEL for this sandbox's interface means this record.

    The interface whose ADD reserved the others takes them along. A record taken over from another IPAM has no
    container, and perhaps no interface; the pod's UID stands for it.
    """
    if record.container:
        named = sandbox.interface in (record.interface, record.request)
        return named and sandbox.container in record.containers
    return bool(record.uid) and record.uid == sandbox.uid and record.interface in ("", sandbox.interface)
