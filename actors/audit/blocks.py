"""The block log by itself: every block is where its name says, every record can be read, no address is there twice.

It reads what `Block.from_object` refuses as a whole entry by entry, so that one bad record does not hide the others.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

from actors.audit.finding import Finding, Rule
from actors.errors import InvalidObject
from actors.messages import Held
from actors.resources.addresses import format_address, parse_address
from actors.resources.block import BLOCK_SIZE, Block, base_of, parse_block_name
from actors.resources.record import Record
from actors.store.contract import Object

Pairs = list[tuple[str, Any]]


def recorded(blocks: Iterable[Object]) -> tuple[tuple[Held, ...], tuple[Finding, ...]]:
    """Every record that can be read, and what is wrong with the others."""
    held: list[Held] = []
    findings: list[Finding] = []
    for obj in blocks:
        _read_block(obj, held, findings)
    findings += _twice(held)
    return tuple(held), tuple(findings)


def attachments(held: Iterable[Held]) -> Iterator[Finding]:
    """A container's interface has one address of a family."""
    found: dict[tuple[str, str, int], list[Held]] = defaultdict(list)
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


def _read_block(obj: Object, held: list[Held], findings: list[Finding]) -> None:
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
    entries: dict[str, Pairs] = {}
    for key, read in (("records", _pairs), ("released", _pairs), ("suspect", _texts)):
        try:
            entries[key] = read(spec.get(key))
        except ValueError as error:
            bad(f"spec.{key} cannot be read: {error}")
            return
    taken: set[int] = set()
    free: set[int] = set()
    for text, data in entries["records"]:
        try:
            value = _value(family, base, text)
            record = Record.from_json(data)
        except InvalidObject as error:
            bad(f"the record of {text} cannot be read: {error}")
            continue
        if not record.pool or "/" not in record.pod:
            bad(f"the record of {text} names pool {record.pool!r} and pod {record.pod!r}")
        taken.add(value)
        held.append(Held(family, value, record))
    for text, at in entries["released"]:
        try:
            value = _value(family, base, text)
        except InvalidObject as error:
            bad(f"the release of {text} cannot be read: {error}")
            continue
        free.add(value)
        if not isinstance(at, int | float):
            bad(f"the release of {text} has no time but {at!r}")
        if value in taken:
            bad(f"{text} is recorded, and remembered as released")
    for text, _ in entries["suspect"]:
        try:
            known = _value(family, base, text) in taken | free
        except InvalidObject as error:
            bad(f"{text}, which is suspect, cannot be read: {error}")
            continue
        if not known:
            bad(f"{text} is suspect, but neither recorded nor remembered as released")


def _twice(held: Iterable[Held]) -> Iterator[Finding]:
    found: dict[tuple[int, int], list[Record]] = defaultdict(list)
    for one in held:
        found[one.family, one.value].append(one.record)
    for (family, value), records in found.items():
        if len(records) > 1:
            holders = " and ".join(f"pod {record.pod} (container {record.container})" for record in records)
            yield Finding(
                Rule.TWICE, format_address(family, value), f"recorded {len(records)} times: {holders}"
            )


def _pairs(text: Any) -> Pairs:
    """A JSON object's members as they stand there: a mapping would hide a name that is there twice."""
    if text is None:
        return []
    if not isinstance(text, str):
        raise ValueError(f"it is {type(text).__name__}, not a string")  # noqa: TRY004 - what a file holds is a value
    outermost = json.loads(text, object_pairs_hook=_Members)
    if not isinstance(outermost, _Members):
        raise ValueError("it is no JSON object")  # noqa: TRY004
    return [(name, dict(value) if isinstance(value, _Members) else value) for name, value in outermost]


def _texts(text: Any) -> Pairs:
    """A JSON list of addresses."""
    found = json.loads(text or "[]")
    if not isinstance(found, list) or not all(isinstance(entry, str) for entry in found):
        raise ValueError("it is no list of addresses")
    return [(entry, None) for entry in found]


class _Members(list[tuple[str, Any]]):
    """A JSON object, apart from a JSON array."""


def _value(family: int, base: int, text: str) -> int:
    of_family, value = parse_address(text)
    if of_family != family or base_of(value) != base:
        block = f"{format_address(family, base)}-{format_address(family, base + BLOCK_SIZE - 1)}"
        raise InvalidObject(f"it is outside the block, {block}")
    if format_address(family, value) != text:
        raise InvalidObject(f"it is written otherwise than {format_address(family, value)}")
    return value
