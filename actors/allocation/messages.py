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
    """What became of one address: `record` says who holds it now; without one, `released` says since when it is
    free (seconds since the epoch), and without either it was never seen to be used. `quarantine`: why it is not given
    out although it is free. `suspect`: from whom it was taken by force. `unjudged`: why its record cannot be judged, so that
    nobody knows who has it; empty where that is not so."""

    value: int
    record: Record | None
    released: float | None = None
    quarantine: Quarantine | None = None
    suspect: Suspect | None = None
    unjudged: str = ""

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
    """Ask a pool for one address. `exact` asks for that one; `instead_of` names the record it may replace. `unless`: a
    container id, then pods or virtual machines `namespace/name`; nothing is done if something is recorded for one of them
    under another claim. `wait`: seconds for which it may wait for an address that is on its way back; `together`: how many
    such requests the ADD makes of this pool at once, of which all are granted or none."""

    record: Record
    exact: int | None = None
    instead_of: Fence | None = None
    unless: tuple[str, ...] = ()
    wait: float = 0.0
    together: int = 1


@dataclass(frozen=True, slots=True)
class RecordedElsewhere:
    """Nothing was done, because of this: it is recorded for one of those that `Allocate.unless` names."""

    held: tuple[Allocation, ...]


@dataclass(frozen=True, slots=True)
class Sandbox:
    """Which pod sandbox a CNI request is about. `container` and `interface` are the key of the attachment; the
    names are empty without Kubernetes, and `uid` where the runtime does not tell it."""

    container: str
    interface: str
    namespace: str
    pod: str
    uid: str
    netns: str

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
    """One address of the interface: CIDR form (`10.6.0.7/16`), gateway (empty for none), pool and VLAN."""

    interface: str
    family: int
    address: str
    gateway: str
    pool: str
    vlan: int


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
