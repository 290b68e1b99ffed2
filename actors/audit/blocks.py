"""The block log by itself: every block is where its name says, every record can be read, no address is there twice.

It reads what `Block.from_object` refuses as a whole entry by entry, so that one bad record does not hide the others.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from actors.allocation.messages import Allocation
from actors.audit.finding import Finding, Rule
from actors.errors import InvalidObject
from actors.resources.addresses import format_address, parse_address
from actors.resources.blocks.block import BLOCK_SIZE, Block, base_of, parse_block_name, read_suspects
from actors.resources.blocks.encoding import NOTHING, read_records, read_released, single_entries
from actors.resources.blocks.record import Record
from actors.store.contract import Object

T = TypeVar("T")


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
    found: dict[tuple[str, str, int], list[Allocation]] = defaultdict(list)
    for one in held:
        if one.record.container:
            found[one.record.container, one.record.interface, one.family].append(one)
    for (container, interface, family), several in found.items():
        if len(several) > 1:
            texts = ", ".join(format_address(one.family, one.value) for one in several)
            yield Finding(
                Rule.ATTACHMENT,
                several[0].record.pod,
                f"interface {interface} of container {container} is recorded with {len(several)} IPv{family} addresses:"
                f" {texts}",
                texts,
            )


def _read_block(obj: Object, held: list[Allocation], findings: list[Finding]) -> None:
    name, spec = obj["metadata"]["name"], obj.get("spec") or {}

    def bad(what: str) -> None:
        findings.append(Finding(Rule.BLOCK, name, what, what))

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
        suspect = read_suspects(spec.get("suspect"))
    except Exception as error:
        bad(f"its content cannot be read: {error}")
        return
    taken: set[int] = set()
    free: set[int] = set()
    for text, entry in records:
        try:
            value, record = _only(read_records(family, base, BLOCK_SIZE, entry), family, text)
        except Exception as error:  # one record that cannot be read does not hide the others
            bad(f"the record of {text} cannot be read: {error}")
            continue
        if not record.pool or "/" not in record.pod:
            bad(f"the record of {text} names pool {record.pool!r} and pod {record.pod!r}")
        taken.add(value)
        held.append(Allocation(family, value, record))
    for text, entry in released:
        try:
            value, _ = _only(read_released(family, base, BLOCK_SIZE, entry), family, text)
        except Exception as error:  # one record that cannot be read does not hide the others
            bad(f"the release of {text} cannot be read: {error}")
            continue
        free.add(value)
        if value in taken:
            bad(f"{text} is recorded, and remembered as released")
    for text in suspect:
        try:
            known = _value(family, base, text) in taken | free
        except InvalidObject as error:
            bad(f"{text}, which is suspect, cannot be read: {error}")
            continue
        if not known:
            bad(f"{text} is suspect, but neither recorded nor remembered as released")


def _twice(held: Iterable[Allocation]) -> Iterator[Finding]:
    found: dict[tuple[int, int], list[Record]] = defaultdict(list)
    for one in held:
        found[one.family, one.value].append(one.record)
    for (family, value), records in found.items():
        if len(records) > 1:
            holders = " and ".join(f"pod {record.pod} (container {record.container})" for record in records)
            yield Finding(
                Rule.TWICE, format_address(family, value), f"recorded {len(records)} times: {holders}"
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
