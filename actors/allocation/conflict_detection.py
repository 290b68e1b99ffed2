"""Proving on the wire what an ADD was granted: what the Endpoint does between the blocks' word and its own answer.

What must always hold:

* No address leaves here as proved that a probe found in use. What is to become of one that is in use is said here and
  done by the Endpoint: one that another host has is set aside for a while, so that no other pod runs into it; one that
  its last holder still has, from whom it was taken by force, waits for that one's end, a few seconds each time. A pod
  that is entitled to this very address keeps it and is told who uses it.
* Who asks on the wire is passed in. It answers in time, whatever the pod's namespace does.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from actors.allocation.block_writer import BlockActor, block_of
from actors.allocation.grant import Grant
from actors.allocation.messages import AddRequest, Sandbox
from actors.allocation.router import AllocatorRouter, ask
from actors.decisions.detection import (
    Detection,
    Inquiry,
    Probe,
    ProbeResult,
    ProbeResults,
    conflict,
    silence,
    still_used,
    unsound,
    why_quarantined,
)
from actors.errors import AddressTaken, InvalidRequest, NetworkNotReady, OrbweaverError
from actors.resources.addresses import format_address
from actors.resources.blocks.block import ClearSuspect
from actors.resources.blocks.quarantine import Quarantine
from actors.resources.blocks.record import Fence
from actors.resources.blocks.suspect import Suspect
from actors.runtime import ObjectRef, current_deadline, settle
from actors.store.caches.catalog import Catalog

log = logging.getLogger("orbweaver.endpoint")

WHY = 300
"""Characters of the reason why an address is set aside; names of pods may fill it."""
TRIES = 16
"""How many times one request asks for other addresses because those that it got are in use."""


class Prober(Protocol):
    """Asks from inside network namespaces."""

    def probe(self, inquiry: Inquiry, within: float | None = None) -> ObjectRef[ProbeResults]:
        """The findings, in the order of the probes, within so many seconds; or an error, in that time too."""
        ...


@dataclass(frozen=True, slots=True)
class Usage:
    """Somebody uses a granted address."""

    grant: Grant
    """What was granted, and probed."""
    quarantine: Quarantine | None
    """How it is to be given back; None where the pod keeps it."""
    reason: str
    """Why another one is asked for, in a sentence for notes and logs."""
    refusal: AddressTaken | NetworkNotReady | None = None
    """Why the pod gets no other one, where that would not help."""
    host: str = ""
    """What is said of the host, in an Event; empty where it is the address's own last holder."""


@dataclass(frozen=True, slots=True)
class Proved:
    """Nobody else answered. `notes`: what was not probed, and why."""

    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Conflicted:
    """Addresses are in use, or their gateway is silent. `refusal`: why other addresses would not help."""

    usages: tuple[Usage, ...]
    notes: tuple[str, ...]
    refusal: AddressTaken | NetworkNotReady | None


@dataclass(frozen=True, slots=True)
class ConflictDetection:
    """The proofs of one Endpoint."""

    prober: Prober
    """Asks on the wire, from inside the pod's network namespace."""
    tell: Callable[[Sandbox, str, str], object]
    """Makes known what a probe found about a sandbox, under a reason (`IPConflict`, `GatewayUnreachable`)."""
    router: AllocatorRouter
    """Where an address that proved to be free again loses its mark."""
    catalog: Catalog
    """Has the gateway and VLAN of an address's pool."""
    clock: Callable[[], float]
    """Seconds since the epoch, for how long an address stays set aside."""

    def probe_once(
        self, request: AddRequest, detection: Detection, grants: Sequence[Grant]
    ) -> Proved | Conflicted:
        """Probe addresses that were granted; clears the suspicion of those that nobody uses any more. Raises
        `InvalidRequest` for a wrong configuration, and what the prober raises."""
        if unsound(detection):
            raise InvalidRequest(f'"detectOptions" of network {request.network}: {unsound(detection)}')
        probed = [(grant, probe) for grant in grants if (probe := self._probe(grant, detection)) is not None]
        findings = self._ask(request, detection, [probe for _, probe in probed])
        usages: list[Usage] = []
        notes: list[str] = []
        silences: list[str] = []
        for (grant, probe), finding in zip(probed, findings, strict=True):
            if finding.holder:
                usages.append(self._usage(request.sandbox, detection, grant, probe, finding))
            elif finding.skipped:
                notes.append(f"{probe.address} was not probed: {finding.skipped}")
            elif grant.suspect is not None:
                self._clear_suspicion(grant, finding.mac)
            if finding.silent:
                silences.append(silence(request.sandbox.key, probe, detection))
        refusals = [usage.refusal for usage in usages if usage.refusal is not None]
        if not refusals and silences:
            self.tell(request.sandbox, "GatewayUnreachable", silences[0])
            refusals.append(NetworkNotReady(silences[0]))
        if not usages and not refusals:
            return Proved(tuple(notes))
        return Conflicted(tuple(usages), tuple(notes), refusals[-1] if refusals else None)

    def announce(self, sandbox: Sandbox, usage: Usage) -> None:
        """Make known who uses an address. No Event for a last holder: this ends by itself."""
        if usage.host:
            log.warning("another host uses an address", extra={"pod": sandbox.key, "conflict": usage.host})
            self.tell(sandbox, "IPConflict", usage.host)
        else:
            log.info("a last holder still uses an address", extra={"pod": sandbox.key, "why": usage.reason})

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

    def _ask(self, request: AddRequest, detection: Detection, probes: list[Probe]) -> ProbeResults:
        if not probes:
            return ()
        deadline = current_deadline()
        within = None if deadline is None else max(0.0, deadline - time.monotonic())
        sandbox = request.sandbox
        ref = self.prober.probe(Inquiry(sandbox.key, sandbox.netns, tuple(probes), detection), within)
        settle([ref])
        return ref.result()

    def _usage(
        self, sandbox: Sandbox, detection: Detection, grant: Grant, probe: Probe, finding: ProbeResult
    ) -> Usage:
        """What is to become of an address that is in use, and of the pod that it was granted to."""
        if grant.suspect is not None and grant.suspect.explains(finding.holder):
            return self._left_to_last_holder(sandbox, grant, probe, grant.suspect)
        reason = conflict(sandbox.key, probe, finding)
        if grant.kept:
            host = (
                f"{reason}; it stays kept for the pod as one of {grant.record.owner}, so take the address from that host, "
                "then the pod will start"
            )
            return Usage(grant, None, reason, AddressTaken(host), host)
        until = self.clock() + detection.quarantine
        quarantine = Quarantine(why_quarantined(finding, probe, sandbox.key)[:WHY], until)
        host = f"{reason}; it is set aside for {detection.quarantine:g} s"
        if grant.slot.exact is None:
            return Usage(grant, quarantine, reason, host=host)
        host += ", and the pod may have no other; ask for another address or take this one from that host"
        return Usage(grant, quarantine, reason, AddressTaken(host), host)

    def _left_to_last_holder(self, sandbox: Sandbox, grant: Grant, probe: Probe, suspect: Suspect) -> Usage:
        """A suspect address is its last holder's for a moment."""
        reason = still_used(probe, suspect)
        quarantine = None
        if not grant.kept:
            quarantine = Quarantine(reason[:WHY], self.clock() + suspect.pause, pause=True)
        refusal = None
        if grant.kept or grant.slot.exact is not None:
            refusal = NetworkNotReady(f"pod {sandbox.key} gets no other address than {reason}; try again")
        return Usage(grant, quarantine, reason, refusal)

    def _clear_suspicion(self, grant: Grant, mac: str) -> None:
        cleared = ClearSuspect(grant.value, Fence.of(grant.record), mac)
        try:
            self.router.work(
                lambda allocator: ask(
                    allocator,
                    block_of(allocator, grant.address).order(BlockActor.clear_suspect, cleared),
                )
            )
        except OrbweaverError as error:  # it stays suspect: the next one to get it probes once more
            log.warning("an address that nobody else uses stays suspect", extra={"error": str(error)})


def to_be_probed(grants: Sequence[Grant], interface: str) -> list[Grant]:
    """What this request recorded, or has on its own interface from an earlier one."""
    return [grant for grant in grants if grant.fresh or grant.slot.interface == interface]


def every_try_in_use(pod: str, count: int, notes: Sequence[str]) -> NetworkNotReady:
    """What a pod is told after `TRIES` tries."""
    text = (
        f"pod {pod}: {count} addresses, one after the other, are in use by hosts that no pool has given them to, or "
        "by pods that they were taken from; exclude the ranges of such hosts from the pool (spec.excludeIPs) or reserve "
        "them (SpiderReservedIP); it will be tried again with others"
    )
    return NetworkNotReady(text, details=tuple(notes), brief=text)
