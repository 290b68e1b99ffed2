"""The Endpoint actor: one pod's addresses across all its interfaces. ADD, DEL and CHECK run here.

What must always hold:

* Two requests for one pod never race: this actor handles one at a time, and waits for the Pools below it.
* All addresses of a request are granted or none is: what was granted is released before the error is answered,
  also when the request's time ran out meanwhile. Undoing has its own time.
* A repeated ADD answers with what is recorded for (container, interface), after the Block has confirmed it.
* A DEL needs container id and interface alone, releases only what the fence admits, and succeeds when there is
  nothing. What a StatefulSet's pod leaves behind is kept for its next incarnation.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from actors.decisions.inherit import (
    Inheritance,
    in_use_elsewhere,
    inherit,
    machine_of,
    owning_statefulset,
    still_wanted,
)
from actors.decisions.plan import Plan, Slot, plan
from actors.decisions.routes import Lease, route
from actors.decisions.settings import Settings
from actors.errors import (
    CheckFailed,
    DeadlineExceeded,
    NoAddress,
    OrbweaverError,
    PodRefused,
    StoreUnavailable,
)
from actors.messages import AddRequest, AddResult, Allocate, Assigned, Held, RouteTo, Sandbox
from actors.observer import AllocationObserver
from actors.resources.addresses import format_address
from actors.resources.block import Claim, Granted, Release, Released, Taken, block_name
from actors.resources.pod import Pod
from actors.resources.record import Fence, Record
from actors.runtime import Actor, ActorContext, ObjectRef, current_deadline, get, message
from actors.store.catalog import Catalog, PoolTable

log = logging.getLogger("orbweaver.endpoint")

UNDO_TIMEOUT = 20.0
"""Seconds that releasing a failed request's addresses may take; the request's own time may be over by then."""


@dataclass(slots=True)
class Grant:
    """One address that the request now holds. `fresh`: this request recorded it, no earlier one; `inherited`: it was
    the pod's before."""

    slot: Slot
    value: int
    record: Record
    fresh: bool
    inherited: bool


@dataclass(frozen=True, slots=True)
class Decision:
    """The plan, and for each slot's label what becomes of the addresses that are recorded for the pod already."""

    plan: Plan
    inheritances: dict[str, Inheritance]

    @property
    def gives_back(self) -> bool:
        return any(one.given_back for one in self.inheritances.values())


@dataclass(slots=True)
class Attempt:
    """The search of one slot: the pools still to be asked, and what those before said. `held`: the address to ask
    for first, `again`: the pools to ask for it; `confirming`: it is recorded for this very ADD; `inheriting`: it is
    the one asked for at this moment."""

    slot: Slot
    pools: list[str]
    held: Held | None = None
    again: list[str] = field(default_factory=list)
    confirming: bool = False
    inheriting: bool = False
    refusals: list[str] = field(default_factory=list)
    grant: Grant | None = None


class EndpointActor(Actor):
    """One per pod on its node, named `endpoint/<namespace>/<pod>`. It keeps no state between messages: what is
    recorded is the Ledger's to know and the Block's to judge."""

    def __init__(
        self,
        context: ActorContext,
        *,
        catalog: Catalog,
        settings: Settings,
        node: str,
        observer: AllocationObserver,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(context)
        self._catalog = catalog
        self._settings = settings
        self._node = node
        self._observer = observer
        self._clock = clock

    @message
    def add(self, request: AddRequest) -> AddResult:
        """CNI ADD. Raises `PodRefused`, `NoAddress`, `AddressTaken`, or an error that a retry may cure."""
        started = time.perf_counter()
        sandbox = request.sandbox
        pod = self._pod(sandbox)
        made = self._decide(pod, request)
        self._observer.stage("allocation", "decided", time.perf_counter() - started)
        try:
            grants = self._reserve(made, pod, request)
        except NoAddress:
            # All that the cache had is exhausted; somebody may have applied another pool a moment ago.
            fresh = self._decide_with(self._catalog.fresh_pools(), pod, request)
            if fresh.plan.slots == made.plan.slots:
                raise
            made = fresh
            grants = self._reserve(made, pod, request)
        self._observer.stage("allocation", "committed", time.perf_counter() - started)
        try:
            result = self._result(request, made.plan, grants)
        except OrbweaverError as error:  # a pool was deleted or broken since the decision
            self._undo(grants, error)
            raise
        self._touch([grant.record for grant in grants])
        for line in result.reasons:
            log.debug("decision", extra={"reason": line})
        return result

    @message
    def release(self, sandbox: Sandbox) -> int:
        """CNI DEL: how many addresses it released or keeps for the pod's next incarnation."""
        found = [
            replace(held, record=held.record.seen_by(sandbox.container))
            for held in self._held(sandbox)
            if _belongs(held.record, sandbox)
        ]
        try:
            return self._release([(held, self._keeps(held) and not self._replaced(held)) for held in found])
        finally:
            self._touch([held.record for held in found])

    @message
    def check(self, sandbox: Sandbox, previous: tuple[str, ...]) -> None:
        """CNI CHECK: the addresses of the previous result are the ones recorded. Raises `CheckFailed`."""
        recorded = {
            format_address(held.family, held.value)
            for held in self._held(sandbox)
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
        return pod

    def _held(self, sandbox: Sandbox, holder: str = "") -> tuple[Held, ...]:
        """Everything recorded under the container id, for the pod's name, or for `holder`."""
        ledger = self.get_actor("ledger/local")
        names = {sandbox.key, holder or sandbox.key}
        found = get(
            [
                *(ledger.of_pod.remote(name) for name in sorted(names)),
                ledger.of_container.remote(sandbox.container),
            ]
        )
        return tuple({(held.family, held.value): held for some in found for held in some}.values())

    def _decide(self, pod: Pod, request: AddRequest) -> Decision:
        """Decide on what the cache has; before the pod is refused or loses an address, on what the store has."""
        try:
            made = self._decide_with(self._catalog.pools(), pod, request)
            if not made.gives_back:
                return made
        except OrbweaverError as error:
            log.debug("refused on the pools in the cache, reading them anew", extra={"reason": str(error)})
        return self._decide_with(self._catalog.fresh_pools(), pod, request)

    def _decide_with(self, table: PoolTable, pod: Pod, request: AddRequest) -> Decision:
        namespace = self._catalog.namespace(pod.namespace)
        node = self._catalog.node(pod.node or self._node)
        made = plan(pod, namespace, node, table.pools, request.asks, self._settings, table.damaged)
        held = self._held(request.sandbox, machine_of(pod) if pod.machine is not None else "")
        inheritances = {
            slot.label: inherit(
                slot,
                (
                    (one.value, one.record)
                    for one in held
                    if (one.record.interface, one.family) == (slot.interface, slot.family)
                ),
                pod,
                request.sandbox.container,
                table.pools,
                self._settings,
            )
            for slot in made.slots
        }
        served = [label for label, one in inheritances.items() if one.taken is not None]
        return Decision(made.require(served), inheritances)

    def _reserve(self, made: Decision, pod: Pod, request: AddRequest) -> list[Grant]:
        attempts = [self._attempt(slot, made.inheritances[slot.label]) for slot in made.plan.slots]
        deadline = current_deadline()
        error: OrbweaverError | None = None
        while error is None:
            going = [
                (attempt, ref)
                for attempt in attempts
                if attempt.grant is None and (ref := self._next(attempt, pod, request)) is not None
            ]
            if not going:
                break
            _settle([ref for _, ref in going])
            for attempt, ref in going:
                error = _take(attempt, ref) or error
            if error is None:
                error = self._give_up_refused(attempts)
        if error is None and deadline is not None and time.monotonic() > deadline:
            error = DeadlineExceeded(f"the addresses of pod {pod.key} were not recorded in time; try again")
        if error is None and any(attempt.grant is None for attempt in attempts):
            lines = [*made.plan.reasons(), *(line for attempt in attempts for line in attempt.refusals)]
            error = NoAddress(
                f"no pool can give pod {pod.key} an address for every interface it asks for",
                details=tuple(lines),
            )
        grants = [attempt.grant for attempt in attempts if attempt.grant is not None]
        if error is not None:
            self._undo(grants, error)
            raise error
        return grants

    def _attempt(self, slot: Slot, inheritance: Inheritance) -> Attempt:
        """What is recorded for this interface already goes first, then what is kept for the pod, then the pools."""
        for value, record in inheritance.given_back:
            # The pod now asks for other pools: what it had goes back.
            self._give_back(Held(slot.family, value, record))
        if inheritance.taken is None:
            return Attempt(slot, list(slot.candidates))
        value, record = inheritance.taken
        again = list(inheritance.pools)
        # For the one address that the pod asks for nobody is asked twice.
        pools = [pool for pool in slot.candidates if slot.exact is None or pool not in again]
        held = Held(slot.family, value, record)
        return Attempt(slot, pools, held, again, confirming=inheritance.confirms)

    def _give_up_refused(self, attempts: Sequence[Attempt]) -> OrbweaverError | None:
        """Where no pool gives a pod its own address again (it is reserved now), it goes back."""
        for attempt in attempts:
            refused, attempt.inheriting = attempt.inheriting, False
            if not refused or attempt.grant is not None or attempt.again or attempt.held is None:
                continue
            held, attempt.held = attempt.held, None
            try:
                self._give_back(held)
            except OrbweaverError as error:
                return error
        return None

    def _give_back(self, held: Held) -> None:
        if in_use_elsewhere(held.record):
            return
        try:
            self._release([(held, False)])
        finally:
            self._touch([held.record])

    def _next(self, attempt: Attempt, pod: Pod, request: AddRequest) -> ObjectRef[Any] | None:
        slot, held = attempt.slot, attempt.held
        if held is not None and attempt.confirming:
            block = self.get_actor("block/" + block_name(held.family, held.value))
            return block.claim.remote(Claim(held.value, held.record))
        record = self._record(slot, pod, request)
        if held is not None and attempt.again:
            attempt.inheriting = True
            actor = self.get_actor("pool/" + attempt.again.pop(0))
            return actor.allocate.remote(Allocate(record, held.value, Fence.of(held.record)))
        if not attempt.pools:
            return None
        return self.get_actor("pool/" + attempt.pools.pop(0)).allocate.remote(Allocate(record, slot.exact))

    def _record(self, slot: Slot, pod: Pod, request: AddRequest) -> Record:
        sandbox = request.sandbox
        return Record(
            pool="",
            pod=pod.key,
            uid=pod.uid or sandbox.uid,
            container=sandbox.container,
            interface=slot.interface,
            node=self._node,
            owner=pod.controller,
            since=datetime.fromtimestamp(self._clock(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            network=request.network,
            request="" if slot.interface == sandbox.interface else sandbox.interface,
            machine=(pod.machine or "") if self._settings.enable_kubevirt else "",
        )

    def _undo(self, grants: Sequence[Grant], because: OrbweaverError) -> None:
        fresh = [
            (
                Held(grant.slot.family, grant.value, grant.record),
                grant.inherited and self._keeps(Held(grant.slot.family, grant.value, grant.record)),
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
                self._release(fresh)
            except OrbweaverError as error:
                # The runtime follows a failed ADD with DEL (CNI spec, "Lifecycle & Ordering"), which finds them.
                log.error("could not release them yet", exc_info=error)
            self._touch([held.record for held, _ in fresh])

    def _release(self, wanted: Sequence[tuple[Held, bool]]) -> int:
        now = self._clock()
        refs: list[ObjectRef[Released]] = []
        for held, keep in wanted:
            block = self.get_actor("block/" + block_name(held.family, held.value))
            release = Release(held.value, Fence.of(held.record), now, keep)
            refs.append(block.release.options(timeout=UNDO_TIMEOUT).remote(release))
        return sum(1 for released in get(refs) if released.done)

    def _keeps(self, held: Held) -> bool:
        """Whether the address stays with the pod's name, or its machine, after this sandbox."""
        try:
            return is_kept(held.record, self._catalog, self._settings)
        except StoreUnavailable:
            return True  # what should not have been kept is reclaimed later; what was given away is lost

    def _replaced(self, held: Held) -> bool:
        """Whether the pod's machine runs elsewhere by now, where it got another address for the interface."""
        if not held.record.machine:
            return False
        ledger = self.get_actor("ledger/local")
        others: tuple[Held, ...] = get(ledger.of_pod.remote(held.record.holder))
        return any(
            other.value != held.value
            and (other.family, other.record.interface) == (held.family, held.record.interface)
            and bool(other.record.container)
            for other in others
        )

    def _result(self, request: AddRequest, made: Plan, grants: Sequence[Grant]) -> AddResult:
        interface = request.sandbox.interface
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
        return AddResult(
            tuple(assigned),
            tuple(
                RouteTo(str(one.destination), format_address(one.family, one.gateway))
                for one in routing.routes
            ),
            (*made.reasons(), *routing.reasons),
            fresh=any(grant.fresh for grant in grants),
        )

    def _touch(self, records: Sequence[Record]) -> None:
        if records:
            pods = {record.holder for record in records}
            pools = {record.pool for record in records}
            changed = self.get_actor("views/local").changed.options(
                timeout=None
            )  # also when the request's time is over
            changed.remote(tuple(sorted(pods)), tuple(sorted(pools)))


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


def _belongs(record: Record, sandbox: Sandbox) -> bool:
    """Whether a DEL for this sandbox's interface means this record.

    The interface whose ADD reserved the others takes them along. A record taken over from another IPAM has no
    container, and perhaps no interface; the pod's UID stands for it.
    """
    if record.container:
        named = sandbox.interface in (record.interface, record.request)
        return named and sandbox.container in record.containers
    return bool(record.uid) and record.uid == sandbox.uid and record.interface in ("", sandbox.interface)


def _take(attempt: Attempt, ref: ObjectRef[Any]) -> OrbweaverError | None:
    """Note the answer of one pool; returns the error that ends the whole request."""
    where = f"{attempt.slot.interface} IPv{attempt.slot.family}"
    try:
        outcome = ref.result()
    except OrbweaverError as error:
        if error.retryable:
            return error
        attempt.refusals.append(f"{where}: {error}")
        if attempt.confirming:
            attempt.pools, attempt.held, attempt.confirming = list(attempt.slot.candidates), None, False
        return None
    if isinstance(outcome, Taken):
        attempt.refusals.append(f"{where}: the address recorded for it went to pod {outcome.record.pod}")
        attempt.pools, attempt.held, attempt.confirming = list(attempt.slot.candidates), None, False
    elif isinstance(outcome, Granted):
        attempt.grant = Grant(
            attempt.slot, outcome.value, outcome.record, outcome.fresh, inherited=attempt.inheriting
        )
    return None


def _settle(refs: Sequence[ObjectRef[Any]]) -> None:
    """Wait for what really became of each: an address may be granted after the deadline, and must then be undone.

    Every answer comes: a Pool and a Block answer at the latest when a store call times out.
    """
    gate = threading.Semaphore(0)
    for ref in refs:
        ref.subscribe(lambda _: gate.release())
    for _ in refs:
        gate.acquire()
