"""How a block's records and releases are written: the whole block is written with each change of it, so it is small.

`records`:  `#SHAPE,SHAPE,… OFFSET:INDEX:POD:UID:CONTAINER:SINCE:CLAIM …`, one entry for each address in use. A shape is
what many records of a block have in common: namespace, pool, interface, node and so on, joined by colons; INDEX says
which. Sharers follow the CLAIM, with the fields of `OtherSandbox` each, and the MAC follows them.
`released`: `#SECONDS OFFSET:MILLISECONDS …`, relative to SECONDS since the epoch. OFFSET is the address's distance from
the block's first. A UID, a container id of 64 hex digits, a moment and a MAC are packed into 22, 43, 8 and 12 characters
behind a tilde; other text is percent-encoded. There are no quotation marks, because each would be two bytes inside JSON.

What must always hold: what was written is read back as it was, whatever its fields hold; the JSON that earlier versions
wrote is read too; nothing that cannot be read is passed over. Fields that a newer version appends are ignored.
"""

from __future__ import annotations

import ipaddress
import json
import re
from binascii import a2b_base64, b2a_base64
from collections.abc import Mapping
from dataclasses import fields
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any
from urllib.parse import quote, unquote

from actors.errors import InvalidObject
from actors.resources.blocks.record import OtherSandbox, Record
from actors.resources.json_text import has_encoding, read_json

NOTHING = "{}"
MARK = "#"

_OWN = ("pod", "uid", "container", "since", "claim", "other_sandboxes", "mac")
_COMMON = tuple(field.name for field in fields(Record) if field.name not in _OWN)
_PLAIN = re.compile(r"[A-Za-z0-9._/-]*")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_CONTAINER = re.compile(r"[0-9a-f]{64}")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_MOMENT = re.compile(r"(19[7-9][0-9]|20[0-9]{2})-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-5][0-9]Z")

EncodedRecords = dict[int, tuple[Record, str]]
"""Records that were written before, with the text of what is their own, so that it is made once."""


def write_records(base: int, records: Mapping[int, Record], known: EncodedRecords) -> str:
    """The text of a block's records. `known` is looked up and added to."""
    if not records:
        return NOTHING
    shapes: dict[tuple[str, ...], int] = {}
    entries = []
    for value in sorted(records):
        record = records[value]
        at = record.pod.find("/") + 1
        shape = (record.pod[:at], *[getattr(record, name) for name in _COMMON])
        index = shapes.setdefault(shape, len(shapes))
        found = known.get(value)
        if found is None or found[0] is not record:
            found = known[value] = (record, _own_text(record, at))
        entries.append(f"{value - base}:{index}:{found[1]}")
    table = ",".join([":".join([_escape(part) for part in shape]) for shape in shapes])
    return f"{MARK}{table} {' '.join(entries)}"


def read_records(family: int, base: int, size: int, text: str) -> list[tuple[int, Record]]:
    """The records of a text, each with its address, as often as they stand there. Raises ValueError or `InvalidObject`."""
    if not has_encoding(text):
        raise ValueError("it holds half of a surrogate pair, which could not be written again")
    if not text.startswith(MARK):
        return [
            (inside(family, base, size, address), Record.from_json(data)) for address, data in _members(text)
        ]
    table, *entries = text[len(MARK) :].split(" ")
    if not entries:
        raise ValueError("there are no records behind what they have in common")
    found = []
    for entry in entries:
        offset, record = _read_entry(table, entry)
        found.append((base + _number(offset, size), record))
    return found


def _read_entry(table: str, entry: str) -> tuple[str, Record]:
    """The offset and the record of one entry. A block is read again with each change of it, and of its entries one or
    two are new then; but what is remembered is as large as what others wrote, so only short ones are."""
    read = _remembered_entry if len(table) + len(entry) <= _REMEMBERED else _parse_entry
    return read(table, entry)


def _parse_entry(table: str, entry: str) -> tuple[str, Record]:
    offset, index, pod, uid, container, since, claim, *more = (entry + ":").split(":")
    other_sandboxes, mac = _sharers(more)
    shapes = _shapes(table)
    prefix, common = shapes[_number(index, len(shapes))]
    record = Record(
        pod=prefix + _unescape(pod),
        uid=_unpack_uid(uid) if uid[:1] == "~" else _unescape(uid),
        container=_unpack(container, 32) if container[:1] == "~" else _unescape(container),
        since=_unpack_moment(since) if since[:1] == "~" else _unescape(since),
        claim=_unescape(claim),
        other_sandboxes=other_sandboxes,
        mac=mac,
        **common,
    )
    return offset, record


def _sharers(texts: list[str]) -> tuple[tuple[OtherSandbox, ...], str]:
    """The other_sandboxes, and the MAC behind them: what is left of whole ones, empty for none."""
    size = len(fields(OtherSandbox))
    whole = len(texts) // size * size
    other_sandboxes = [[_unescape(text) for text in texts[at : at + size]] for at in range(0, whole, size)]
    mac = "".join(texts[whole : whole + 1])
    if mac[:1] == "~":
        mac = ":".join(mac[at : at + 2] for at in range(1, 13, 2))
    return tuple(OtherSandbox(*one) for one in other_sandboxes), _unescape(mac)


_LONGEST_JSON = 2 << 20
_LAST_MOMENT = 1e11
"""Seconds since the epoch, in the year 5138."""
_REMEMBERED = 8192
"""Characters of what is remembered once it was read. With 64 ordinary records a table has some 200."""
_remembered_entry = lru_cache(2048)(_parse_entry)


def _shapes(table: str) -> list[tuple[str, dict[str, str]]]:
    return _remembered_shapes(table) if len(table) <= _REMEMBERED else _parse_shapes(table)


def _parse_shapes(table: str) -> list[tuple[str, dict[str, str]]]:
    return [_common_parts(shape) for shape in table.split(",")]


_remembered_shapes = lru_cache(64)(_parse_shapes)


def _common_parts(shape: str) -> tuple[str, dict[str, str]]:
    prefix, *common = [_unescape(part) for part in shape.split(":")]
    return prefix, dict(zip(_COMMON, common, strict=False))


def write_released(base: int, released: Mapping[int, float]) -> str:
    """The text of when a block's addresses were released, to the millisecond."""
    if not released:
        return NOTHING
    first = int(min(released.values()))
    entries = [f"{value - base}:{round((at - first) * 1000)}" for value, at in sorted(released.items())]
    return f"{MARK}{first} {' '.join(entries)}"


def read_released(family: int, base: int, size: int, text: str) -> list[tuple[int, float]]:
    """The releases of a text, in seconds since the epoch. Raises ValueError or `InvalidObject`."""
    if not text.startswith(MARK):
        return [(inside(family, base, size, address), _seconds(at)) for address, at in _members(text)]
    first, *entries = text[len(MARK) :].split(" ")
    found = []
    for entry in entries:
        offset, milliseconds, *_ = entry.split(":")
        found.append((base + _number(offset, size), _seconds((int(first) * 1000 + int(milliseconds)) / 1000)))
    return found


def single_entries(text: str) -> list[tuple[str, str]]:
    """The text cut into texts of one entry each, with what that calls its address: for who looks which one is bad.

    Raises ValueError or `InvalidObject`.
    """
    if not text.startswith(MARK):
        return [(address, json.dumps({address: data})) for address, data in _members(text)]
    head, *entries = text.split(" ")
    return [(entry.partition(":")[0], f"{head} {entry}") for entry in entries]


def inside(family: int, base: int, size: int, text: str) -> int:
    """The value of an address of the block. Raises ValueError."""
    address = ipaddress.ip_address(text)
    value = int(address)
    if address.version != family or not base <= value < base + size:
        raise ValueError(f"{text} is outside the block")
    return value


def _own_text(record: Record, at: int) -> str:
    uid, container, since = record.uid, record.container, record.since
    uid = _pack(uid.replace("-", "")) if _UUID.fullmatch(uid) else _escape(uid)
    container = _pack(container) if _CONTAINER.fullmatch(container) else _escape(container)
    own = f"{_escape(record.pod[at:])}:{uid}:{container}:{_pack_moment(since)}"
    if not (record.claim or record.other_sandboxes or record.mac):
        return own
    more = [
        _escape(getattr(one, field.name)) for one in record.other_sandboxes for field in fields(OtherSandbox)
    ]
    if record.mac:
        packed = "~" + record.mac.replace(":", "")
        more.append(packed if _MAC.fullmatch(record.mac) else _escape(record.mac))
    return ":".join([own, _escape(record.claim), *more])


def _pack(digits: str) -> str:
    return "~" + b2a_base64(bytes.fromhex(digits), newline=False).decode("ascii").rstrip("=")


def _unpack(text: str, size: int) -> str:
    octets = a2b_base64(text[1:] + "=" * (-(len(text) - 1) % 4), strict_mode=True)
    if len(octets) != size:
        raise ValueError(f"{text!r} has {len(octets)} bytes, not {size}")
    return octets.hex()


def _unpack_uid(text: str) -> str:
    digits = _unpack(text, 16)
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


@lru_cache(1024)
def _pack_moment(text: str) -> str:
    if _MOMENT.fullmatch(text):
        try:
            seconds = int(datetime.fromisoformat(text).timestamp())
        except ValueError:
            return _escape(text)  # 30 February: it is written as it stands
        if _moment(seconds) == text:
            return f"~{seconds:08x}"
    return _escape(text)


@lru_cache(1024)
def _unpack_moment(text: str) -> str:
    if len(text) != 9:
        raise ValueError(f"{text!r} is no moment")
    return _moment(int(text[1:], 16))


def _moment(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _escape(text: str) -> str:
    return text if _PLAIN.fullmatch(text) else quote(text, safe="/").replace("~", "%7E")


def _unescape(text: str) -> str:
    return unquote(text, errors="strict") if "%" in text else text


def _number(text: str, below: int) -> int:
    number = int(text) if text.isascii() and text.isdigit() else -1
    if not 0 <= number < below:
        raise ValueError(f"{text!r} is not a number below {below}")
    return number


def _members(text: str) -> list[tuple[str, Any]]:
    """A JSON object's members as they stand there, also when a name is there twice."""
    read_json(text, longest=_LONGEST_JSON, only_showable=False)  # for its bounds
    found = json.loads(text, object_pairs_hook=_Members)
    if not isinstance(found, _Members):
        raise InvalidObject("it is no JSON object")
    return [(name, dict(value) if isinstance(value, _Members) else value) for name, value in found]


def _seconds(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidObject(f"{value!r} is no moment")
    if abs(value) > _LAST_MOMENT:
        raise InvalidObject(f"{value:g} seconds since the epoch are no moment of ours")
    return float(value)


class _Members(list[tuple[str, Any]]):
    """Tells a JSON object from a JSON array."""
