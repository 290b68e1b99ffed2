"""The block log: 64 aligned addresses of the address space, who holds them, and when each was last released.

What must always hold: an address is recorded in exactly one place, the block that arithmetic names for it; a claim
succeeds only on an address without a record, or on one whose record the claimant names; a release takes away only the
record that its fence admits and, for an agent, that is its node's own. An address that was taken back by force is suspect
until somebody vouches for it or its last holder ends, and every claim of it says so, whoever had it meanwhile. One that is
set aside goes to nobody before its time who did not ask for it by name. An address whose record cannot be judged goes to
nobody and stays as it is, whatever becomes of the other 63, until somebody discards that record. These are pure functions
on a `Block`; the Block actor persists.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from actors.errors import DamagedObject, InvalidObject
from actors.resources.addresses import format_address
from actors.resources.blocks.encoding import (
    LONG_AGO,
    NOTHING,
    EncodedRecords,
    inside,
    read_records,
    read_released,
    write_records,
    write_released,
)
from actors.resources.blocks.quarantine import Quarantine
from actors.resources.blocks.record import Fence, Record
from actors.resources.blocks.suspect import Suspect
from actors.resources.blocks.unjudged import Unjudged
from actors.resources.intervals import IntervalSet
from actors.resources.json_text import read_json, showable, without_depths

BLOCK_SIZE = 64
_API_VERSION = "spiderpool.spidernet.io/v2beta1"
_BITS = {4: 32, 6: 128}
_LONGEST_TEXT = 262_144
"""Bytes of all suspicions of a block, or quarantines: 64 with every text as long as it may be."""


def span_of(bases: Iterable[int]) -> IntervalSet:
    """All addresses of blocks, each given by its first one."""
    return IntervalSet((base, base + BLOCK_SIZE - 1) for base in bases)


def base_of(value: int) -> int:
    """The first address of the block that holds `value`."""
    return value & ~(BLOCK_SIZE - 1)


def block_name(family: int, value: int) -> str:
    """The object name of the block that holds an address: `v4-0a06a840` is 10.6.168.64/26."""
    return f"v{family}-{base_of(value):0{_BITS[family] // 4}x}"


def parse_block_name(name: str) -> tuple[int, int]:
    """`(family, base)` of a block's name. Raises `InvalidObject` when no block can have that name."""
    head, _, digits = name.partition("-")
    family = {"v4": 4, "v6": 6}.get(head)
    try:
        base = int(digits, 16) if family else -1
    except ValueError:
        base = -1
    if family is None or base < 0 or block_name(family, base) != name:
        raise InvalidObject(
            f"SpiderIPBlock {name!r} is not the name of a block; expected one like v4-0a06a840"
        )
    return family, base


@dataclass(frozen=True, slots=True)
class Claim:
    """Record `record` at address `value`; where a record stands, only if `instead_of` admits it. `named`: this very
    address was asked for, so that it is granted although it is set aside.

    One with `instead_of` for the same container and interface confirms what stands there under its own `claim`, so that
    no other process can undo it any more.
    """

    value: int
    record: Record
    instead_of: Fence | None = None
    named: bool = False


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks from another process, as the leader knows it: what sandboxes of `node` have is its own, and so is what is
    recorded for `pod`, which runs there, or for the virtual machine in it."""

    node: str
    pod: str = ""
    machine: str = ""

    def owns(self, record: Record, fence: Fence) -> bool:
        """Whether the sandbox that the fence names is its own."""
        if any(
            sandbox.node == self.node and fence.admits(sandbox)
            for sandbox in (record.sandbox, *record.other_sandboxes)
        ):
            return True
        if record.machine:
            namespace = self.pod.partition("/")[0]
            return bool(self.machine) and record.holder == f"{namespace}/{self.machine}"
        return bool(self.pod) and record.pod == self.pod


@dataclass(frozen=True, slots=True)
class Release:
    """Take away the record of an address if the fence admits it."""

    value: int
    """The address as a number."""
    fence: Fence
    """Whose record is meant; another one stays."""
    at: float
    """The moment of the release, in seconds since the epoch."""
    keep: bool = False
    """Leave it for the pod's next incarnation."""
    forced: bool = False
    """The holder may still run somewhere; so may one of another node, whose end nobody has seen there."""
    quarantine: Quarantine | None = None
    """Somebody uses it, so that for a while nobody shall get it: another host, or (a pause) the last holder of a suspect
    address."""
    by: str = ""
    """The pod for which an agent gives back what another node's sandbox had; empty where it gives back its own."""
    asker: Asker | None = None
    """Whose records alone it may take away, as the leader knows its peer; None: the leader's own actors, or those of a
    process that works by itself."""

    def is_on_behalf(self, record: Record) -> bool:
        """Whether a pod gives back what a sandbox on another node had."""
        if self.asker is None:
            return bool(self.by)
        node = self.asker.node
        return all(sandbox.node != node for sandbox in record.per_sandbox if self.fence.admits(sandbox))


@dataclass(frozen=True, slots=True)
class MarkSuspect:
    """The holder that `fence` admits may still run when somebody else claims its address: that makes it suspect."""

    value: int
    fence: Fence


@dataclass(frozen=True, slots=True)
class ClearSuspect:
    """The address of the record that `fence` admits was probed and nobody else answers: it is no longer suspect. `mac`:
    that of the interface that has it now. `asker` as in `Release`."""

    value: int
    fence: Fence
    mac: str = ""
    asker: Asker | None = None


@dataclass(frozen=True, slots=True)
class HolderEnded:
    """The sandbox `container` of `node` has ended: an address that is suspect because of it no longer is."""

    value: int
    container: str
    node: str


@dataclass(frozen=True, slots=True)
class Discard:
    """Take away a record that cannot be judged, if it is still this one, at a moment (seconds since the epoch). Whoever
    has the address may use it on, so that it is suspect then."""

    value: int
    unjudged: Unjudged
    at: float


@dataclass(frozen=True, slots=True)
class Granted:
    """The claim stands. `record` is what is recorded, which for a repeated claim is the first one's; `fresh`: it is
    this claim that recorded it; `suspect`: it was taken from its last holder by force, who may still use it, and
    nobody has vouched for it since; None where that is not so."""

    value: int
    record: Record
    fresh: bool = True
    suspect: Suspect | None = None


@dataclass(frozen=True, slots=True)
class Taken:
    """Somebody else's record stands there."""

    value: int
    record: Record


@dataclass(frozen=True, slots=True)
class HolderUnknown:
    """A record stands there that cannot be judged, for the reason `why`."""

    value: int
    why: str


@dataclass(frozen=True, slots=True)
class Quarantined:
    """Nobody's record stands there, but it is not given out yet."""

    value: int
    quarantine: Quarantine


@dataclass(frozen=True, slots=True)
class Released:
    """`done` is false when there was nothing, or another's record, to release; then nothing changed."""

    value: int
    done: bool
    recorded: Record | None
    """What stood there, of whomever; None for nothing, and where who asks has no right to know."""


@dataclass(frozen=True, slots=True)
class SuspicionChanged:
    """Answer to a mark, its taking away or a holder's end: `done` is false when the address is another's by now, or not suspect
    because of that holder; then nothing changed."""

    value: int
    done: bool


@dataclass(slots=True)
class Block:
    """The content of one block."""

    family: int
    """Of its addresses, 4 or 6."""
    base: int
    """Its first address, as a number."""
    records: dict[int, Record] = field(default_factory=dict)
    """By address, who holds it."""
    released: dict[int, float] = field(default_factory=dict)
    """By address, when it was given back last, in seconds since the epoch."""
    suspect: dict[int, Suspect] = field(default_factory=dict)
    """By address, from whom it was taken by force; it may be recorded for somebody else by now."""
    quarantines: dict[int, Quarantine] = field(default_factory=dict)
    """By address, why and until when it is given to nobody."""
    version: str = ""
    """The store's, empty while the object does not exist."""
    uid: str = ""
    """The object's, likewise."""
    unjudged: dict[int, Unjudged] = field(default_factory=dict)
    """By address, the records that cannot be judged; no such address has another record."""
    known: EncodedRecords = field(default_factory=dict, compare=False, repr=False)
    """Texts of records that were written before. Copies share it; it only saves work."""

    @property
    def name(self) -> str:
        return block_name(self.family, self.base)

    def copy(self) -> Block:
        """A copy whose change leaves this one alone."""
        return replace(
            self,
            records=dict(self.records),
            released=dict(self.released),
            suspect=dict(self.suspect),
            quarantines=dict(self.quarantines),
            unjudged=dict(self.unjudged),
        )

    def claim(self, claim: Claim, now: float = 0.0) -> Granted | Taken | HolderUnknown | Quarantined:
        """Apply a claim at a moment (seconds since the epoch); a repeated one is granted as it stands."""
        unjudged = self.unjudged.get(claim.value)
        if unjudged is not None:
            return HolderUnknown(claim.value, unjudged.why)
        current = self.records.get(claim.value)
        suspect = self.suspect.get(claim.value)
        if current is not None and current.same_claim(claim.record):
            if claim.instead_of is not None:
                current = self.records[claim.value] = current.confirmed(claim.record)
            return Granted(claim.value, current, fresh=False, suspect=suspect)
        record = claim.record
        if current is not None:
            if claim.instead_of is None or not _replaceable(current, record, claim.instead_of):
                return Taken(claim.value, current)
            record = record.instead_of(current)
        quarantine = self.quarantines.get(claim.value)
        if (
            current is None
            and quarantine is not None
            and quarantine.holds(now)
            and not claim.named
            and claim.instead_of is None
        ):
            return Quarantined(claim.value, quarantine)
        self.records[claim.value] = record
        self.quarantines.pop(claim.value, None)
        self.released.pop(claim.value, None)
        return Granted(claim.value, record, suspect=suspect)

    def release(self, release: Release) -> Released:
        """Apply a release; one that its fence does not admit (`Fence.admits` in `record.py`) changes nothing. An address that
        others share stays."""
        current = self.records.get(release.value)
        if current is None or not current.meant_by(release.fence):
            return Released(release.value, False, current)
        if release.asker is not None and not release.asker.owns(current, release.fence):
            return Released(release.value, False, None)  # nothing of its own
        left = current.without(release.fence)
        if left is not None:
            self.records[release.value] = left
        elif release.keep:
            self.records[release.value] = current.retained()
        else:
            del self.records[release.value]
            self.released[release.value] = release.at
            self._quarantine(release.value, release.quarantine)
        if release.forced or (current.container and release.is_on_behalf(current)):
            self.suspect[release.value] = Suspect.of(current, release.fence)
        return Released(release.value, True, current)

    def discard(self, discard: Discard) -> Released:
        """Apply a discard; one that means another record changes nothing."""
        current = self.unjudged.get(discard.value)
        if current is None or current.entry != discard.unjudged.entry:
            return Released(discard.value, False, None)
        del self.unjudged[discard.value]
        self.released[discard.value] = discard.at
        self.suspect.setdefault(discard.value, Suspect())
        return Released(discard.value, True, None)

    def _quarantine(self, value: int, quarantine: Quarantine | None) -> None:
        suspect = self.suspect.get(value)
        if quarantine is None or (quarantine.pause and suspect is None):
            return  # its last holder has ended since it answered
        self.quarantines[value] = quarantine
        self.suspect[value] = suspect.heard() if quarantine.pause and suspect is not None else Suspect()

    def mark_suspect(self, mark: MarkSuspect) -> SuspicionChanged:
        """Apply a mark; one that its fence does not admit changes nothing."""
        current = self.records.get(mark.value)
        if current is None or not mark.fence.admits(current):
            return SuspicionChanged(mark.value, False)
        self.suspect[mark.value] = Suspect.of(current, mark.fence)
        return SuspicionChanged(mark.value, True)

    def clear_suspect(self, clear: ClearSuspect) -> SuspicionChanged:
        """Take a mark away; one that its fence does not admit changes nothing."""
        current = self.records.get(clear.value)
        if current is None or not current.meant_by(clear.fence):
            return SuspicionChanged(clear.value, False)
        if clear.asker is not None and not clear.asker.owns(current, clear.fence):
            return SuspicionChanged(clear.value, False)
        if self.suspect.pop(clear.value, None) is not None and clear.mac and clear.fence.admits(current):
            self.records[clear.value] = replace(current, mac=clear.mac)
        return SuspicionChanged(clear.value, True)

    def holder_ended(self, ended: HolderEnded) -> SuspicionChanged:
        """Apply a last holder's end; that of somebody else changes nothing."""
        suspect = self.suspect.get(ended.value)
        if suspect is None or (suspect.container, suspect.node) != (ended.container, ended.node):
            return SuspicionChanged(ended.value, False)
        del self.suspect[ended.value]
        quarantine = self.quarantines.get(ended.value)
        if quarantine is not None and quarantine.pause:
            del self.quarantines[ended.value]
        return SuspicionChanged(ended.value, True)

    def is_forgettable(self, horizon: float) -> bool:
        """Whether nothing is lost with it: nobody has an address of it, as far as can be told, none is suspect, and none was
        released after the moment `horizon`."""
        if self.records or self.unjudged or self.suspect:
            return False
        return all(at <= horizon for at in self.released.values())

    def to_object(self) -> dict[str, Any]:
        """The SpiderIPBlock. Records are one string: the API server tracks ownership of every leaf of a map."""
        family = self.family
        prefix = _BITS[family] - BLOCK_SIZE.bit_length() + 1
        metadata: dict[str, Any] = {"name": self.name}
        if self.version:
            metadata["resourceVersion"] = self.version
        if self.uid:
            metadata["uid"] = self.uid
        spec = {
            "cidr": f"{format_address(family, self.base)}/{prefix}",
            "ipVersion": family,
            "records": write_records(self.base, self.records, self.known, self.unjudged),
            "released": write_released(self.base, self.released),
        }
        if self.suspect:
            suspect = {
                format_address(family, value): suspect.to_json()
                for value, suspect in sorted(self.suspect.items())
            }
            spec["suspect"] = json.dumps(suspect, separators=(",", ":"))
        if self.quarantines:
            quarantines = {
                format_address(family, value): quarantine.to_json()
                for value, quarantine in sorted(self.quarantines.items())
            }
            spec["quarantine"] = json.dumps(quarantines, separators=(",", ":"))
        return {"apiVersion": _API_VERSION, "kind": "SpiderIPBlock", "metadata": metadata, "spec": spec}

    @classmethod
    def from_object(cls, obj: dict[str, Any]) -> Block:
        """Inverse of `to_object`. Raises `DamagedObject` naming what is wrong, and `InvalidObject` where no block has such
        a name; nothing is guessed. An entry that cannot be judged costs itself: of a record see `unjudged`; an unreadable
        release was long ago, an unreadable suspicion is one of nobody, an unreadable quarantine lasts for the default."""
        metadata = obj.get("metadata") or {}
        name = str(metadata.get("name", ""))
        family, base = parse_block_name(name)
        spec = obj.get("spec") or {}
        try:
            entries = read_records(family, base, BLOCK_SIZE, spec.get("records") or NOTHING)
            contents = dict(entries)
            if len(contents) < len(entries):
                raise ValueError("an address is recorded twice")
            released = dict(read_released(family, base, BLOCK_SIZE, spec.get("released") or NOTHING))
            suspect = {
                inside(family, base, BLOCK_SIZE, text): _suspect(data)
                for text, data in suspect_entries(spec.get("suspect")).items()
            }
            quarantines: dict[int, Quarantine] = {}
            for text, data in quarantine_entries(spec.get("quarantine")).items():
                value = inside(family, base, BLOCK_SIZE, text)
                quarantines[value], readable = _quarantine(data, released.get(value, LONG_AGO))
                if not readable and value in released:
                    suspect.setdefault(value, Suspect())
        except Exception as error:  # whatever it is that its texts make fail, they are damaged
            raise DamagedObject(
                f"SpiderIPBlock {name} is damaged: {showable(str(error)[:500])}; restore it from a backup, or correct it: "
                "`orbweaver check` names each bad entry, `orbweaver ip show ADDRESS` the pods that SpiderEndpoints show with "
                "an address of it"
            ) from error
        unjudged = {value: content for value, content in entries if isinstance(content, Unjudged)}
        records = {value: content for value, content in entries if isinstance(content, Record)}
        return cls(
            family,
            base,
            records,
            released,
            suspect,
            quarantines,
            str(metadata.get("resourceVersion", "")),
            str(metadata.get("uid", "")),
            unjudged,
        )


def suspect_entries(text: Any) -> dict[str, Any]:
    """What is told of each suspect address of a block; earlier versions wrote a list, without last holders. Raises
    ValueError."""
    entries = _members(text)
    if isinstance(entries, list) and all(isinstance(address, str) for address in entries):
        return {address: {} for address in entries}
    if not isinstance(entries, dict):
        raise ValueError("what is suspect is no JSON object of addresses")  # noqa: TRY004 - a value of the block
    return entries


def quarantine_entries(text: Any) -> dict[str, Any]:
    """What is told of each address of a block that is set aside. Raises ValueError."""
    entries = _members(text)
    if not isinstance(entries, dict):
        raise ValueError("what is set aside is no JSON object of addresses")  # noqa: TRY004 - a value of the block
    return entries


def _members(text: Any) -> Any:
    return read_json(without_depths(text or "{}"), longest=_LONGEST_TEXT, texts_as_they_are=True)


def _suspect(data: Any) -> Suspect:
    try:
        return Suspect.from_json(data)
    except InvalidObject:
        return Suspect()


def _quarantine(data: Any, released: float) -> tuple[Quarantine, bool]:
    """Why an address is set aside, and whether that could be read."""
    try:
        quarantine = Quarantine.from_json(data)
    except InvalidObject:
        return Quarantine.unreadable(released), False
    if quarantine.lasts_too_long(released):
        return Quarantine.unreadable(released), False
    return quarantine, True


def _replaceable(current: Record, by: Record, instead_of: Fence) -> bool:
    """Whether a pod may put its record in the place of the `current` one: it is the one that it means, or that is kept for the
    pod's next incarnation by now."""
    if current.holder != by.holder:
        return False
    kept = current.is_retained and (bool(current.machine) or instead_of.pod == current.pod)
    return current.meant_by(instead_of) or kept
