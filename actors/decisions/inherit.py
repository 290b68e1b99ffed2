"""Which recorded address a new sandbox of a pod takes over instead of asking for another, and which are kept for one.

What must always hold: only the pod's own name inherits, or a pod of the same virtual machine, and only what its owner
or its UID entitles it to. An address belongs to the address space and not to a pool: whichever of the slot's pools has
it now may give it again. What another sandbox of a virtual machine uses is shared with it, never given back for it.
The Endpoint decides by this, and `explain` foretells by it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from actors.decisions.plan import Slot
from actors.decisions.settings import Settings
from actors.resources.blocks.record import CLAIM, Record
from actors.resources.ippool import IPPool
from actors.resources.pod import Pod
from actors.resources.statefulset import StatefulSet

_STATEFULSET = "StatefulSet"


@dataclass(frozen=True, slots=True)
class Inheritance:
    """What becomes of the addresses recorded for a slot's pod. `taken`: the one asked for first, from `pools` in this
    order; `confirms`: it is recorded for this very sandbox. `given_back`: the pod has no use for these any more."""

    taken: tuple[int, Record] | None = None
    confirms: bool = False
    pools: tuple[str, ...] = ()
    given_back: tuple[tuple[int, Record], ...] = ()


def inherit(
    slot: Slot,
    recorded: Iterable[tuple[int, Record]],
    pod: Pod,
    container: str,
    pools: Mapping[str, IPPool],
    settings: Settings,
) -> Inheritance:
    """Decide for one slot; `recorded` is what there is for its interface and family, under any of the pod's names."""
    # What a sandbox uses goes before what is merely kept: a machine has that address now.
    in_order = sorted(recorded, key=lambda entry: not entry[1].container)
    for value, record in in_order:
        if container in record.containers:
            return Inheritance((value, record.seen_by(container)), True, (record.pool,))
    taken: tuple[int, Record] | None = None
    names: tuple[str, ...] = ()
    back: list[tuple[int, Record]] = []
    for value, record in in_order:
        if not may_inherit(record, pod, settings, slot.claim):
            continue
        holding = _holding(slot, value, record, pools)
        if taken is None and holding:
            taken, names = (value, record), holding
        elif not in_use_elsewhere(record):
            back.append((value, record))
    return Inheritance(taken, False, names, tuple(back))


def _holding(slot: Slot, value: int, record: Record, pools: Mapping[str, IPPool]) -> tuple[str, ...]:
    """The slot's pools that have the address, the one that it was recorded under first. A disabled pool gives out
    nothing new, but leaves a pod what it has."""
    if slot.exact not in (None, value):
        return ()
    names: Sequence[str] = (*slot.candidates, *slot.disabled)
    return tuple(
        sorted(
            (name for name in names if name in pools and value in pools[name].available),
            key=lambda name: name != record.pool,
        )
    )


def may_inherit(record: Record, pod: Pod, settings: Settings, claim: str = "") -> bool:
    """A StatefulSet's pod inherits from its earlier incarnation, a virtual machine's from that machine's other pods,
    whoever refers to an IPAMClaim (`claim`) what belongs to that, and any pod from its own earlier sandbox."""
    if claim or record.ipam_claim:
        return record.ipam_claim == claim and record.holder == claim_of(pod, claim)
    if settings.enable_kubevirt and pod.machine is not None:
        return record.holder == machine_of(pod) and bool(record.machine)
    if record.pod != pod.key:
        return False
    if settings.enable_statefulset and pod.statefulset is not None and record.owner == pod.controller:
        return True
    return bool(pod.uid and record.uid == pod.uid)


def machine_of(pod: Pod) -> str:
    """`namespace/name` under which the addresses of the pod's virtual machine are recorded."""
    return f"{pod.namespace}/{pod.machine}"


def claim_of(pod: Pod, claim: str) -> str:
    """The name under which the addresses of an IPAMClaim of the pod's namespace are recorded."""
    return f"{pod.namespace}/{CLAIM}{claim}"


def claimed_by_other(record: Record, pod: Pod, container: str) -> bool:
    """Whether a claim's address is used by a sandbox that this pod cannot share it with: two pods of one virtual machine do,
    while that moves, and no others."""
    return (
        bool(record.ipam_claim)
        and bool(record.container)
        and container not in record.containers
        and record.pod != pod.key
        and (pod.machine is None or record.owner != pod.controller)
    )


def in_use_elsewhere(record: Record) -> bool:
    """Whether a sandbox of a virtual machine or claim uses the address: only its own DEL, or its end, gives it back."""
    return bool(record.machine and record.container)


def owning_statefulset(record: Record) -> str | None:
    """The name of the StatefulSet whose pod a record is for, None when it is for no such pod. (A kind with a slash, which
    earlier versions recorded as it was forged, is none.)"""
    kind, _, name = record.owner.partition("/")
    return name if kind == _STATEFULSET and name and "/" not in name else None


def is_fixed(record: Record) -> bool:
    """Whether somebody may come back for the address: a StatefulSet's pod, a virtual machine, or whoever has a claim."""
    return bool(record.machine) or owning_statefulset(record) is not None


def still_wanted(record: Record, statefulset: StatefulSet | None, settings: Settings) -> bool:
    """Whether the StatefulSet (None: it does not exist) will start a pod of the record's name again."""
    return (
        settings.enable_statefulset
        and statefulset is not None
        and not statefulset.terminating
        and statefulset.keeps(record.pod.partition("/")[2], scaled_down=settings.keep_scaled_down)
    )


class Owners(Protocol):
    """Who may start a pod again: a StatefulSet (None: there is none), or a virtual machine; or whose the address is, an
    IPAMClaim."""

    def statefulset(self, namespace: str, name: str) -> StatefulSet | None: ...

    def machine_lives(self, namespace: str, name: str) -> bool: ...

    def claim_lives(self, namespace: str, name: str) -> bool: ...


def wanted(record: Record, owners: Owners, settings: Settings) -> bool | None:
    """Whether the record's owner will start its pod again, so that the address stays with the pod's name or its machine;
    None when nobody keeps addresses for it. Raises what `owners` raises."""
    if not is_fixed(record):
        return None
    namespace = record.pod.partition("/")[0]
    if record.ipam_claim:
        return owners.claim_lives(namespace, record.ipam_claim)
    if record.machine:
        return settings.enable_kubevirt and owners.machine_lives(namespace, record.machine)
    name = owning_statefulset(record)
    return name is not None and still_wanted(record, owners.statefulset(namespace, name), settings)
