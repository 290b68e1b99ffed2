"""The values that actors send each other, apart from those of the block log.

What must always hold: every value here is frozen, so that a sender cannot change what a receiver holds, and
is registered with the wire, so that it means the same in another process.
"""

from __future__ import annotations

from dataclasses import dataclass

from actors.decisions.candidates import AddressRequest
from actors.decisions.detection import DetectionOverrides
from actors.resources.addresses import Address
from actors.resources.blocks.allocation import Allocation
from actors.resources.blocks.block import (
    Block,
    Claim,
    ClearSuspect,
    Discard,
    Granted,
    HolderEnded,
    HolderUnknown,
    MarkSuspect,
    Quarantined,
    Release,
    Released,
    SuspicionChanged,
    Taken,
)
from actors.resources.blocks.quarantine import Quarantine
from actors.resources.blocks.record import Fence, OtherSandbox, Record
from actors.resources.blocks.suspect import Suspect
from actors.resources.blocks.unjudged import Unjudged
from actors.runtime import wire_value


@dataclass(frozen=True, slots=True)
class AddressChange:
    """What became of one address: recorded, free since a moment, or never seen to be used."""

    value: int
    """The address as a number; its family is that of the message."""
    record: Record | None
    """Who holds it now, None for nobody."""
    released: float | None = None
    """Since when it is free, in seconds since the epoch; None where nobody held it before."""
    quarantine: Quarantine | None = None
    """Why it is not given out although it is free."""
    suspect: Suspect | None = None
    """From whom it was taken by force."""
    unjudged: str = ""
    """Why its record cannot be judged, so that nobody knows who has it; empty where that is not so."""

    @property
    def is_free(self) -> bool:
        """Whether nobody has it, as far as anybody can tell."""
        return self.record is None and not self.unjudged


@dataclass(frozen=True, slots=True)
class NodeSandbox:
    """A sandbox of a node that uses an address, or used one that was taken from it by force. `interface`: the one whose
    DEL is to come for it, empty for any."""

    container: str
    pod: str
    uid: str = ""
    interface: str = ""


@dataclass(frozen=True, slots=True)
class SuspectAddress:
    """One address, and from whom it was taken by force."""

    family: int
    value: int
    suspect: Suspect

    @property
    def address(self) -> Address:
        return Address(self.family, self.value)


@dataclass(frozen=True, slots=True)
class Occupancy:
    """Answer to "what changed in these ranges since `sequence`". `whole`: `changes` is everything that is known
    there, not a difference."""

    sequence: int
    whole: bool
    changes: tuple[AddressChange, ...]


@dataclass(frozen=True, slots=True)
class Allocate:
    """Ask a pool for one address."""

    record: Record
    """Whom it is for; the pool is filled in by who grants it."""
    exact: int | None = None
    """The only address that will do, as a number; None for any."""
    instead_of: Fence | None = None
    """The record that it may replace."""
    unless: tuple[str, ...] = ()
    """A container id, then pods or virtual machines `namespace/name`: nothing is done if something is recorded for one of
    them under another claim."""
    wait: float = 0.0
    """Seconds for which it may wait for an address that is on its way back."""
    together: int = 1
    """How many such requests the ADD makes of this pool at once, of which all are granted or none."""


@dataclass(frozen=True, slots=True)
class RecordedElsewhere:
    """Nothing was done, because of this: it is recorded for one of those that `Allocate.unless` names."""

    held: tuple[Allocation, ...]


@dataclass(frozen=True, slots=True)
class Sandbox:
    """Which pod sandbox a CNI request is about. Container and interface are the key of the attachment."""

    container: str
    """The runtime's id of the sandbox (CNI_CONTAINERID)."""
    interface: str
    """The name of the interface in the pod (CNI_IFNAME)."""
    namespace: str
    """Of the pod; empty without Kubernetes."""
    pod: str
    """The pod's name; empty without Kubernetes."""
    uid: str
    """The pod's, as the runtime knows it; empty where it does not say so."""
    netns: str
    """The path of its network namespace (CNI_NETNS); empty where the request names none."""

    @property
    def key(self) -> str:
        """`namespace/name`, the key of the pod's Endpoint actor."""
        return f"{self.namespace}/{self.pod}"


@dataclass(frozen=True, slots=True)
class AddRequest:
    """CNI ADD, understood: for which sandbox, in which CNI network, and what that asks for."""

    sandbox: Sandbox
    network: str
    asks: AddressRequest


@dataclass(frozen=True, slots=True)
class Assigned:
    """One address of the interface, as the CNI result says it."""

    interface: str
    """The name in the pod."""
    family: int
    """4 or 6."""
    address: str
    """In CIDR form (`10.6.0.7/16`), with the length of the pool's subnet."""
    gateway: str
    """The pool's, empty for none."""
    pool: str
    """Which one it is from."""
    vlan: int
    """The pool's, 0 for none."""


@dataclass(frozen=True, slots=True)
class RouteTo:
    """One route of the interface: destination CIDR and next hop."""

    dst: str
    gw: str


@dataclass(frozen=True, slots=True)
class AddResult:
    """What the pod's interface gets, and, for the log, why. `fresh`: this request recorded it, no earlier one."""

    addresses: tuple[Assigned, ...]
    routes: tuple[RouteTo, ...]
    reasons: tuple[str, ...] = ()
    fresh: bool = True


def content_of(block: Block) -> tuple[AddressChange, ...]:
    """All that a block says."""
    records = tuple(
        AddressChange(value, record, suspect=block.suspect.get(value))
        for value, record in block.records.items()
    )
    # What is set aside is among these: a block keeps the time of a release for as long as the address is suspect.
    released = tuple(
        AddressChange(value, None, at, block.quarantines.get(value), block.suspect.get(value))
        for value, at in block.released.items()
        if value not in block.records and value not in block.unjudged
    )
    return (*records, *released, *(change_of(block, value) for value in block.unjudged))


def change_of(block: Block, value: int) -> AddressChange:
    """What a block says of one address."""
    unjudged = block.unjudged.get(value)
    if unjudged is not None:
        return AddressChange(
            value, None, suspect=block.suspect.get(value), unjudged=unjudged.why or "unknown"
        )
    return AddressChange(
        value,
        block.records.get(value),
        block.released.get(value),
        block.quarantines.get(value),
        block.suspect.get(value),
    )


for _value in (
    Record, OtherSandbox, Fence, Quarantine, Suspect, Claim, Release, MarkSuspect, ClearSuspect, HolderEnded,
    Discard, Unjudged, HolderUnknown,
    Granted, Taken, Quarantined, Released, SuspicionChanged, Allocation, NodeSandbox, SuspectAddress,
    AddressChange, Occupancy, Allocate, RecordedElsewhere, Sandbox, DetectionOverrides, AddressRequest, AddRequest, Assigned,
    RouteTo, AddResult,
):  # fmt: skip
    wire_value(_value)
