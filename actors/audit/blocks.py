"""The block log by itself: every block is where its name says, every entry can be judged, no address is there twice.

It reads what `Block.from_object` refuses as a whole entry by entry, so that one bad record does not hide the others. What
costs only its own address there is a finding of that address here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from actors.audit.finding import AuditRule, Finding
from actors.errors import InvalidObject
from actors.resources.addresses import format_address, parse_address
from actors.resources.blocks.allocation import Allocation
from actors.resources.blocks.block import (
    BLOCK_SIZE,
    Block,
    base_of,
    parse_block_name,
    quarantine_entries,
    suspect_entries,
)
from actors.resources.blocks.encoding import LONG_AGO, NOTHING, read_records, read_released, single_entries
from actors.resources.blocks.quarantine import Quarantine
from actors.resources.blocks.record import Record
from actors.resources.blocks.suspect import Suspect
from actors.resources.blocks.unjudged import Unjudged
from actors.resources.json_text import showable
from actors.store.contract import Object

T = TypeVar("T")

_LONGEST_WHY = 500
_LONGEST_TEXT = 200
"""Characters of an entry that a finding shows."""


def recorded(blocks: Iterable[Object]) -> tuple[tuple[Allocation, ...], tuple[Finding, ...]]:
    """Every record that can be read, and what is wrong with the others."""
    held: list[Allocation] = []
    findings: list[Finding] = []
    for obj in blocks:
        _read_block(obj, held, findings)
    findings += _twice(held)
    return tuple(held), tuple(findings)


def attachments(held: Iterable[Allocation]) -> Iterator[Finding]:
    """A container's interface has one address of a family."""
    by_interface: dict[tuple[str, str, int], list[Allocation]] = defaultdict(list)
    for allocation in held:
        if allocation.record.container:
            by_interface[allocation.record.container, allocation.record.interface, allocation.family].append(
                allocation
            )
    for (container, interface, family), several in by_interface.items():
        if len(several) > 1:
            texts = ", ".join(format_address(allocation.family, allocation.value) for allocation in several)
            yield Finding(
                AuditRule.ATTACHMENT,
                several[0].record.pod,
                f"interface {interface} of container {container} is recorded with {len(several)} IPv{family} addresses:"
                f" {texts}",
                texts,
            )


def _read_block(obj: Object, held: list[Allocation], findings: list[Finding]) -> None:
    name, spec = obj["metadata"]["name"], obj.get("spec") or {}

    def bad(what: str) -> None:
        findings.append(Finding(AuditRule.BLOCK, name, what, what))

    try:
        family, base = parse_block_name(name)
    except InvalidObject as error:
        bad(str(error))
        return
    proper = Block(family, base).to_object()["spec"]
    for key in ("cidr", "ipVersion"):
        if spec.get(key) != proper[key]:
            bad(f"spec.{key} is {spec.get(key)!r}, but a block of this name has {proper[key]!r}")
    try:
        records, released = (single_entries(_text(spec.get(key))) for key in ("records", "released"))
        suspect = suspect_entries(spec.get("suspect"))
        quarantines = quarantine_entries(spec.get("quarantine"))
    except Exception as error:
        bad(f"its content cannot be read: {showable(str(error)[:_LONGEST_WHY])}")
        return
    entries = _Entries(name, family, base, held, findings)
    for text, entry in records:
        entries.record(text, entry)
    for text, entry in released:
        entries.release(text, entry)
    for text, data in suspect.items():
        entries.suspect(text, data)
    for text, data in quarantines.items():
        entries.quarantine(text, data)
    try:
        Block.from_object(obj)
    except InvalidObject as error:
        is_named = any(finding.rule is AuditRule.BLOCK and finding.subject == name for finding in findings)
        if not is_named and not entries.doubled:
            bad(error.message)  # what no entry shows by itself


@dataclass(slots=True)
class _Entries:
    """What the entries of one block say, each by itself."""

    block: str
    """The object's name, for findings."""
    family: int
    """Of its addresses, 4 or 6."""
    base: int
    """Its first address, as a number."""
    held: list[Allocation]
    """Where each record goes that can be read."""
    findings: list[Finding]
    """Where each entry goes that cannot."""
    taken: set[int] = field(default_factory=set)
    """Addresses that have a record, whether or not it can be judged."""
    free: set[int] = field(default_factory=set)
    """Addresses that are said to be released."""
    readable: set[int] = field(default_factory=set)
    """Those whose record can be judged."""
    doubled: bool = False
    """Whether one of those has two records."""

    def _bad(self, what: str) -> None:
        self.findings.append(Finding(AuditRule.BLOCK, self.block, what, what))

    def _unjudged(self, value: int, what: str) -> None:
        text = format_address(self.family, value)
        self.findings.append(Finding(AuditRule.ENTRY, text, f"block {self.block}: {what}", what))

    def record(self, text: str, entry: str) -> None:
        try:
            value, content = _only(read_records(self.family, self.base, BLOCK_SIZE, entry), self.family, text)
        except Exception as error:  # one record that cannot be read does not hide the others
            self._bad(f"the record of {text} cannot be read: {error}")
            return
        self.taken.add(value)
        if isinstance(content, Unjudged):
            what = (
                f"its record cannot be judged: {content.why}; it is {showable(content.text[:_LONGEST_TEXT])}"
            )
            self._unjudged(value, what)
        else:
            self.doubled |= value in self.readable
            self.readable.add(value)
            self.held.append(Allocation(self.family, value, content))

    def release(self, text: str, entry: str) -> None:
        try:
            value, at = _only(read_released(self.family, self.base, BLOCK_SIZE, entry), self.family, text)
        except Exception as error:  # as above
            self._bad(f"the release of {text} cannot be read: {error}")
            return
        self.free.add(value)
        if at == LONG_AGO:
            self._unjudged(value, "when it was released cannot be read: that counts as long ago")
        if value in self.taken:
            self._bad(f"{text} is recorded, and remembered as released")

    def suspect(self, text: str, data: Any) -> None:
        try:
            value = _value(self.family, self.base, text)
        except InvalidObject as error:
            self._bad(f"{text}, which is suspect, cannot be read: {error}")
            return
        try:
            Suspect.from_json(data)
        except InvalidObject as error:
            self._unjudged(
                value, f"from whom it was taken cannot be read, it is probed all the same: {error}"
            )
        if value not in self.taken | self.free:
            self._bad(f"{text} is suspect, but neither recorded nor remembered as released")

    def quarantine(self, text: str, data: Any) -> None:
        try:
            value = _value(self.family, self.base, text)
        except InvalidObject as error:
            self._bad(f"{text}, which is set aside, cannot be read: {error}")
            return
        try:
            Quarantine.from_json(data)
        except InvalidObject as error:
            self._unjudged(value, f"why it is set aside cannot be read: {error}")


def _twice(held: Iterable[Allocation]) -> Iterator[Finding]:
    by_address: dict[tuple[int, int], list[Record]] = defaultdict(list)
    for allocation in held:
        by_address[allocation.family, allocation.value].append(allocation.record)
    for (family, value), records in by_address.items():
        if len(records) > 1:
            holders = " and ".join(f"pod {record.pod} (container {record.container})" for record in records)
            yield Finding(
                AuditRule.TWICE, format_address(family, value), f"recorded {len(records)} times: {holders}"
            )


def _text(text: Any) -> str:
    if text is not None and not isinstance(text, str):
        raise ValueError(f"it is {type(text).__name__}, not a string")
    return text or NOTHING


def _only(entries: list[tuple[int, T]], family: int, text: str) -> tuple[int, T]:
    """The one entry, whose address, where it is written out, is written as it should be."""
    [(value, content)] = entries
    if not text.isdigit() and format_address(family, value) != text:
        raise InvalidObject(f"it is written otherwise than {format_address(family, value)}")
    return value, content


def _value(family: int, base: int, text: str) -> int:
    of_family, value = parse_address(text)
    if of_family != family or base_of(value) != base:
        block = f"{format_address(family, base)}-{format_address(family, base + BLOCK_SIZE - 1)}"
        raise InvalidObject(f"it is outside the block, {block}")
    if format_address(family, value) != text:
        raise InvalidObject(f"it is written otherwise than {format_address(family, value)}")
    return value
