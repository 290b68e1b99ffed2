"""Proving on the wire what an ADD was granted: what the Endpoint does between the blocks' word and its own answer.

What must always hold:

* No address leaves here that a probe found in use. One that another host has is set aside for a while, so that no other
  pod runs into it; one that its last holder still has, from whom it was taken by force, waits for that one's end, a few
  seconds each time. The request goes on with another address; a pod that is entitled to this very address keeps it and
  is told who uses it.
* Who asks on the wire is passed in. It answers in time, whatever the pod's namespace does.
* The request's own addresses are in `grants` at every moment, so that whoever catches an error can undo them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from actors.allocation.grant import Grant
from actors.allocation.messages import AddRequest, Sandbox
from actors.allocation.observer import AllocationObserver
from actors.allocation.router import Allocator, AllocatorRouter, ask
from actors.decisions.detection import (
    Detection,
    Finding,
    Inquiry,
    Probe,
    conflict,
    silence,
    still_used,
    unsound,
    why_quarantined,
)
from actors.decisions.plan import Slot
from actors.errors import AddressTaken, InvalidRequest, NetworkNotReady, OrbweaverError
from actors.resources.addresses import format_address
from actors.resources.blocks.block import ClearSuspect, Release, block_name
from actors.resources.blocks.quarantine import Quarantine
from actors.resources.blocks.record import Fence, Record
from actors.resources.blocks.suspect import Suspect
from actors.runtime import ObjectRef, current_deadline, settle
from actors.store.caches.catalog import Catalog

log = logging.getLogger("orbweaver.endpoint")

WHY = 300
"""Characters of the reason why an address is set aside; names of pods may fill it."""
TRIES = 16
"""How many times one request asks for other addresses because those that it got are in use."""

Findings = tuple[Finding, ...]


class Prober(Protocol):
    """Asks from inside network namespaces."""

    def probe(self, inquiry: Inquiry, within: float | None = None) -> ObjectRef[Findings]:
        """The findings, in the order of the probes, within so many seconds; or an error, in that time too."""
        ...


@dataclass(frozen=True, slots=True)
class ConflictDetection:
    """`tell`: makes known what a probe found, under a reason (`IPConflict`, `GatewayUnreachable`). `touch`: makes the
    views of these records be written anew."""

    prober: Prober
    tell: Callable[[Sandbox, str, str], object]
    touch: Callable[[Sequence[Record]], object]
    router: AllocatorRouter
    catalog: Catalog
    observer: AllocationObserver
    clock: Callable[[], float]

    def prove(
        self,
        request: AddRequest,
        detection: Detection,
        grants: list[Grant],
        others: Callable[[Sequence[Slot], frozenset[tuple[int, int]]], list[Grant]],
    ) -> tuple[str, ...]:
        """Returns what is worth a note. `others`: grants other addresses than these for the slots. Raises
        `AddressTaken`, `NetworkNotReady`, what `others` raises and what the prober does."""
        if unsound(detection):
            raise InvalidRequest(f'"detectOptions" of network {request.network}: {unsound(detection)}')
        started = time.perf_counter()
        pod = request.sandbox.key
        notes: list[str] = []
        used: set[tuple[int, int]] = set()
        interface = request.sandbox.interface
        doubted = [grant for grant in grants if grant.fresh or grant.slot.interface == interface]
        for _ in range(TRIES):
            asked = [
                (grant, probe) for grant in doubted if (probe := self._probe(grant, detection)) is not None
            ]
            found = self._ask(request, detection, [probe for _, probe in asked])
            taken: list[tuple[Grant, Probe, Finding]] = []
            for (grant, probe), finding in zip(asked, found, strict=True):
                if finding.holder:
                    taken.append((grant, probe, finding))
                elif finding.skipped:
                    notes.append(f"{probe.address} was not probed: {finding.skipped}")
                elif grant.suspect is not None:
                    self._vouch(grant, finding.mac)
            self._quarantine(request, detection, grants, taken)
            for (_, probe), finding in zip(asked, found, strict=True):
                if finding.silent:
                    self.tell(request.sandbox, "GatewayUnreachable", silence(pod, probe, detection))
                    raise NetworkNotReady(silence(pod, probe, detection))
            if not taken:
                self.observer.stage("allocation", "probed", time.perf_counter() - started)
                return tuple(notes)
            notes += [_in_use(pod, *one) for one in taken]
            used |= {(grant.slot.family, grant.value) for grant, _, _ in taken}
            doubted = others([grant.slot for grant, _, _ in taken], frozenset(used))
            grants.extend(doubted)
        what = (
            f"pod {pod}: {len(used)} addresses, one after the other, are in use by hosts that no pool has given them to, or "
            "by pods that they were taken from; exclude the ranges of such hosts from the pool (spec.excludeIPs) or reserve "
            "them (SpiderReservedIP); it will be tried again with others"
        )
        raise NetworkNotReady(what, details=tuple(notes), brief=what)

    def _probe(self, grant: Grant, detection: Detection) -> Probe | None:
        family = grant.slot.family
        pool = self.catalog.pool(grant.record.pool)
        gateway = ""
        if detection.gateways and pool.gateway is not None:
            gateway = format_address(family, pool.gateway)
        # A virtual machine that moves answers from where it comes from; only what was taken by force is probed then.
        wished = grant.suspect is not None or (detection.conflicts and not grant.record.other_sandboxes)
        if not wished and not gateway:
            return None
        address = format_address(family, grant.value)
        return Probe(grant.slot.interface, address, wished, gateway, pool.name, pool.vlan)

    def _ask(self, request: AddRequest, detection: Detection, probes: list[Probe]) -> Findings:
        if not probes:
            return ()
        deadline = current_deadline()
        within = None if deadline is None else max(0.0, deadline - time.monotonic())
        sandbox = request.sandbox
        ref = self.prober.probe(Inquiry(sandbox.key, sandbox.netns, tuple(probes), detection), within)
        settle([ref])
        return ref.result()

    def _quarantine(
        self,
        request: AddRequest,
        detection: Detection,
        grants: list[Grant],
        taken: Sequence[tuple[Grant, Probe, Finding]],
    ) -> None:
        """Give back what others use, but for what the pod is entitled to. Raises `AddressTaken` or `NetworkNotReady` for
        what cannot be another address."""
        refusal: AddressTaken | NetworkNotReady | None = None
        sandbox = request.sandbox
        for grant, probe, finding in taken:
            if _is_last_holder(grant, finding):
                refusal = self._pause(request, grants, grant, probe) or refusal
                continue
            what = conflict(sandbox.key, probe, finding)
            if grant.kept:
                what += (
                    f"; it stays kept for the pod as one of {grant.record.owner}, so take the address from that host, then "
                    "the pod will start"
                )
                refusal = AddressTaken(what)
            else:
                self._release(
                    grant,
                    Quarantine(
                        why_quarantined(finding, probe, sandbox.key)[:WHY],
                        self.clock() + detection.quarantine,
                    ),
                )
                grants.remove(grant)
                what += f"; it is set aside for {detection.quarantine:g} s"
                if grant.slot.exact is not None:
                    what += ", and the pod may have no other; ask for another address or take this one from that host"
                    refusal = AddressTaken(what)
            log.warning("another host uses an address", extra={"pod": sandbox.key, "conflict": what})
            self.tell(sandbox, "IPConflict", what)
        if refusal is not None:
            raise refusal

    def _pause(
        self, request: AddRequest, grants: list[Grant], grant: Grant, probe: Probe
    ) -> NetworkNotReady | None:
        """Leave a suspect address to its last holder for a moment; returns the refusal for a pod that may have no other. No
        Event: this ends by itself."""
        suspect = grant.suspect or Suspect()
        what = still_used(probe, suspect)
        log.info("a last holder still uses an address", extra={"pod": request.sandbox.key, "why": what})
        if not grant.kept:
            self._release(grant, Quarantine(what[:WHY], self.clock() + suspect.pause, pause=True))
            grants.remove(grant)
        if grant.kept or grant.slot.exact is not None:
            return NetworkNotReady(f"pod {request.sandbox.key} gets no other address than {what}; try again")
        return None

    def _release(self, grant: Grant, quarantine: Quarantine) -> None:
        def release(allocator: Allocator) -> None:
            block = allocator.get_actor("block/" + block_name(grant.slot.family, grant.value))
            ask(
                allocator,
                block.release.remote(Release(grant.value, fence, self.clock(), quarantine=quarantine)),
            )

        fence = Fence.of(grant.record)
        self.router.work(release)
        self.touch([grant.record])

    def _vouch(self, grant: Grant, mac: str) -> None:
        def vouch(allocator: Allocator) -> None:
            block = allocator.get_actor("block/" + block_name(grant.slot.family, grant.value))
            ask(allocator, block.vouch.remote(ClearSuspect(grant.value, Fence.of(grant.record), mac)))

        try:
            self.router.work(vouch)
        except OrbweaverError as error:  # it stays suspect: the next one to get it probes once more
            log.warning("an address that nobody else uses stays suspect", extra={"error": str(error)})


def _is_last_holder(grant: Grant, finding: Finding) -> bool:
    """Whether it is its last holder that has an address, who is no other host."""
    return grant.suspect is not None and grant.suspect.explains(finding.holder)


def _in_use(pod: str, grant: Grant, probe: Probe, finding: Finding) -> str:
    """Why another address was asked for, in words."""
    if grant.suspect is not None and _is_last_holder(grant, finding):
        return still_used(probe, grant.suspect)
    return conflict(pod, probe, finding)


def needed(detection: Detection, grants: Sequence[Grant]) -> bool:
    """Whether anything has to be probed."""
    return detection.conflicts or detection.gateways or any(grant.suspect is not None for grant in grants)


def in_order(grants: Sequence[Grant], slots: Sequence[Slot]) -> list[Grant]:
    """The grants in the order of their slots."""
    places = [(slot.interface, slot.family) for slot in slots]
    return sorted(grants, key=lambda grant: places.index((grant.slot.interface, grant.slot.family)))
