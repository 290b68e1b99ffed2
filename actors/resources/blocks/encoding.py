"""How a block's records and releases are written: the whole block is written with each change of it, so it is small.

`records`:  `#SHAPE,SHAPE,… OFFSET:INDEX:POD:UID:CONTAINER:SINCE:CLAIM …`, one entry for each address in use. A shape is
what many records of a block have in common: namespace, pool, interface, node and so on, joined by colons; INDEX says
which. Other sandboxes follow the CLAIM, with the fields of `OtherSandbox` each, and the MAC follows them.
`released`: `#SECONDS OFFSET:MILLISECONDS …`, relative to SECONDS since the epoch. OFFSET is the address's distance from
the block's first. A UID, a container id of 64 hex digits, a moment and a MAC are packed into 22, 43, 8 and 12 characters
behind a tilde; other text is percent-encoded. There are no quotation marks, because each would be two bytes inside JSON.
An entry that cannot be judged is written as `OFFSET:!TEXT!`, behind the others.

What must always hold: what was written is read back as it was, whatever its fields hold; the JSON that earlier versions
wrote is read too; nothing that cannot be read is passed over. One entry that cannot be judged costs its own address: only
where it cannot be told which addresses have one (the end is missing, an offset is none) the text is refused as a whole.
Fields that a newer version appends are ignored.
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
from operator import attrgetter
from typing import Any
from urllib.parse import quote, unquote

from actors.errors import InvalidObject
from actors.resources.blocks.record import OtherSandbox, Record
from actors.resources.blocks.unjudged import (
    LONGEST_KEPT,
    Unjudged,
    is_complete,
    is_shortened,
    is_unjudged,
    text_of,
)
from actors.resources.json_text import read_json, showable, without_depths

NOTHING = "{}"
MARK = "#"

_OWN = ("pod", "uid", "container", "since", "claim", "other_sandboxes", "mac")
_COMMON = tuple(field.name for field in fields(Record) if field.name not in _OWN)
_common_of = attrgetter(*_COMMON)
_PLAIN = re.compile(r"[A-Za-z0-9._/-]*")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_CONTAINER = re.compile(r"[0-9a-f]{64}")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_MILLISECONDS = re.compile(r"-?[0-9]{1,15}")
_MOMENT = re.compile(r"(19[7-9][0-9]|20[0-9]{2})-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-5][0-9]Z")

EncodedRecords = dict[int, tuple[Record, tuple[str, ...], str]]
"""Records that were written before, with their shape and the text of what is their own, so that both are made once."""


def write_records(
    base: int,
    records: Mapping[int, Record],
    known: EncodedRecords,
    unjudged: Mapping[int, Unjudged] | None = None,
) -> str:
    """The text of a block's records. `known` is looked up and added to."""
    if not records and not unjudged:
        return NOTHING
    shapes: dict[tuple[str, ...], int] = {}
    entries = []
    for value in sorted(records):
        record = records[value]
        encoded = known.get(value)
        if encoded is None or encoded[0] is not record:
            encoded = known[value] = _encode(record)
        _, shape, own = encoded
        entries.append(f"{value - base}:{shapes.setdefault(shape, len(shapes))}:{own}")
    if unjudged:
        entries += [f"{value - base}:{unjudged[value].entry}" for value in sorted(unjudged)]
    table = ",".join([":".join([_escape(part) for part in shape]) for shape in shapes])
    return f"{MARK}{table} {' '.join(entries)}"


def _encode(record: Record) -> tuple[Record, tuple[str, ...], str]:
    at = record.pod.find("/") + 1
    return record, (record.pod[:at], *_common_of(record)), _own_text(record, at)


def read_records(family: int, base: int, size: int, text: str) -> list[tuple[int, Record | Unjudged]]:
    """The records of a text, each with its address, as often as they stand there. Raises ValueError or `InvalidObject`."""
    if not text.startswith(MARK):
        return [
            (inside(family, base, size, address), _read_member(address, data))
            for address, data in _members(text)
        ]
    table, *entries = text[len(MARK) :].split(" ")
    if not entries:
        raise ValueError("there are no records behind what they have in common")
    if table.count(",") >= size:
        raise ValueError(f"its records have more than {size} forms")
    records = []
    for entry in entries:
        # A block is read again with each change of it, and of its entries one or two are new then; but what is remembered is
        # as large as what others wrote, so only short ones are.
        read = _remembered_entry if len(table) + len(entry) <= _REMEMBERED else _parse_entry
        offset, content = read(table, entry)
        records.append((base + _number(offset, size), content))
    if records[-1][1].__class__ is Unjudged and _is_cut_off(entries[-1]):
        raise ValueError("its end is missing")  # and with it perhaps other records
    return records


def _parse_entry(table: str, entry: str) -> tuple[str, Record | Unjudged]:
    """The offset and the content of one entry."""
    offset, _, content = entry.partition(":")
    if is_unjudged(content) and is_complete(content):
        return offset, _read_again(offset, content)
    index, _, own = content.partition(":")
    shapes = table.split(",")
    try:
        shape = shapes[_number(index, len(shapes))]
    except ValueError as error:
        return offset, Unjudged.of(f"{MARK} {entry}", _why(error))
    try:
        return offset, _record(shape, own)
    except Exception as error:  # whatever it is that its texts make fail
        return offset, Unjudged.of(f"{MARK}{shape} {offset}:0:{own}", _why(error))


def _record(shape: str, own: str) -> Record:
    if len(own) > _LONGEST_OWN:
        raise ValueError(f"it has {len(own)} characters, but may have {_LONGEST_OWN}")
    pod, uid, container, since, claim, *more = (own + ":").split(":")
    other_sandboxes, mac = _sharers(more)
    prefix, common, fits = _remembered_parts(shape) if len(shape) <= _REMEMBERED else _common_parts(shape)
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
    if (
        fits
        and pod[:1] not in ("", "/")
        and not other_sandboxes
        and len(own) < _ORDINARY
        and len(since) + len(claim) + len(mac) < _ORDINARY_TEXT
        and own.isascii()
        and own.isprintable()
        and "%" not in own
    ):  # an ordinary one, which is within its bounds as a whole
        return record
    return _judged(record)


def _judged(record: Record) -> Record:
    why = record.unjudgeable()
    if why is not None:
        raise InvalidObject(f"its {why}")
    return record


def _read_member(address: str, data: Any) -> Record | Unjudged:
    """A record of the JSON that earlier versions wrote."""
    try:
        return _judged(Record.from_json(data))
    except Exception as error:  # as above
        return Unjudged.of(json.dumps({address: data}), _why(error))


def _read_again(offset: str, content: str) -> Record | Unjudged:
    """What was not judged before: by another version, perhaps, which wrote it in this form."""
    if is_shortened(content) or len(content) > LONGEST_KEPT + 2:
        return Unjudged.shortened(
            content, f"it has more than {LONGEST_KEPT} characters, and the end is not kept"
        )
    text = text_of(content)
    try:
        if not text.startswith(MARK):
            [(_, data)] = _members(text)
            return _judged(Record.from_json(data))
        shape, _, entry = text[len(MARK) :].partition(" ")
        inner, index, own = entry.split(":", 2)
        if (inner, index) != (offset, "0"):
            raise ValueError(f"{index[:20]!r} is not the number of a form of this block")
        return _record(shape, own)
    except Exception as error:  # as above
        return Unjudged(content, _why(error)) if content.isascii() else Unjudged.of(text, _why(error))


def _is_cut_off(entry: str) -> bool:
    """Whether an entry that cannot be judged may be so because its end is missing."""
    _, _, content = entry.partition(":")
    if is_unjudged(content):
        return not is_complete(content)
    parts = entry.split(":")
    last = parts[-1]
    if len(parts) < _FEWEST or (
        last[:1] == "~" and len(last) < (_MOMENT_SIZE if len(parts) == _FEWEST else _MAC_SIZE)
    ):
        return True
    try:
        _unescape(last)
    except ValueError:
        return True
    return False


def _why(error: Exception) -> str:
    return showable(str(error)[:_LONGEST_WHY])


def _sharers(texts: list[str]) -> tuple[tuple[OtherSandbox, ...], str]:
    """The other sandboxes, and the MAC behind them: what is left of whole ones, empty for none."""
    size = len(fields(OtherSandbox))
    whole = len(texts) // size * size
    other_sandboxes = [[_unescape(text) for text in texts[at : at + size]] for at in range(0, whole, size)]
    mac = "".join(texts[whole : whole + 1])
    if mac[:1] == "~":
        if len(mac) != _MAC_SIZE:
            raise ValueError(f"{mac[:20]!r} is no MAC")
        mac = ":".join(mac[at : at + 2] for at in range(1, 13, 2))
    return tuple(OtherSandbox(*sandbox) for sandbox in other_sandboxes), _unescape(mac)


_LONGEST_JSON = 2 << 20
_LAST_MOMENT = 1e11
"""Seconds since the epoch, in the year 5138."""
LONG_AGO = 0.0
"""When an address was released whose time cannot be read."""
_REMEMBERED = 8192
"""Characters of what is remembered once it was read, and of what several records have in common. With 64 ordinary records
a table has some 200."""
_LONGEST_OWN = 32_768
"""Characters of what is a record's own, which its bounds let be less."""
_LONGEST_WHY = 300
_ORDINARY, _ORDINARY_TEXT = 253, 64
"""Characters of what is a record's own, and of its shorter texts, that are within all bounds."""
_FEWEST, _MOMENT_SIZE, _MAC_SIZE = 6, 9, 13
"""Parts of the shortest entry; characters of a moment and of a MAC that are packed."""
_remembered_entry = lru_cache(2048)(_parse_entry)


def _common_parts(shape: str) -> tuple[str, dict[str, str], bool]:
    """What the pods' names begin with, the other texts, and whether all of them are within their bounds."""
    if len(shape) > _REMEMBERED:
        raise ValueError(
            f"what it has in common with others has {len(shape)} characters, but may have {_REMEMBERED}"
        )
    prefix, *parts = [_unescape(part) for part in shape.split(":")]
    common = dict(zip(_COMMON, parts, strict=False))
    alone = Record(
        pod=f"{prefix}x", uid="", container="", since="", claim="", other_sandboxes=(), mac="", **common
    )
    return prefix, common, len(prefix) <= _ORDINARY_TEXT and alone.unjudgeable() is None


_remembered_parts = lru_cache(256)(_common_parts)


def write_released(base: int, released: Mapping[int, float]) -> str:
    """The text of when a block's addresses were released, to the millisecond."""
    if not released:
        return NOTHING
    first = int(min(released.values()))
    entries = [f"{value - base}:{round((at - first) * 1000)}" for value, at in sorted(released.items())]
    return f"{MARK}{first} {' '.join(entries)}"


def read_released(family: int, base: int, size: int, text: str) -> list[tuple[int, float]]:
    """The releases of a text, in seconds since the epoch; `LONG_AGO` where that cannot be read. Raises ValueError or
    `InvalidObject`."""
    if not text.startswith(MARK):
        return [
            (inside(family, base, size, address), _moment_or_long_ago(at)) for address, at in _members(text)
        ]
    first, *entries = text[len(MARK) :].split(" ")
    start = int(_seconds(int(first))) * 1000
    moments = []
    for entry in entries:
        offset, _, milliseconds = entry.partition(":")
        moments.append((base + _number(offset, size), _released_at(start, milliseconds)))
    return moments


def _released_at(start: int, text: str) -> float:
    milliseconds, *_ = text.split(":")
    return (
        _moment_or_long_ago((start + int(milliseconds)) / 1000)
        if _MILLISECONDS.fullmatch(milliseconds)
        else LONG_AGO
    )


def _moment_or_long_ago(value: Any) -> float:
    try:
        return _seconds(value)
    except InvalidObject:
        return LONG_AGO


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
        _escape(getattr(sandbox, field.name))
        for sandbox in record.other_sandboxes
        for field in fields(OtherSandbox)
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
    text = without_depths(text)
    read_json(text, longest=_LONGEST_JSON, texts_as_they_are=True)  # for its bounds
    members = json.loads(text, object_pairs_hook=_Members)
    if not isinstance(members, _Members):
        raise InvalidObject("it is no JSON object")
    return [(name, dict(value) if isinstance(value, _Members) else value) for name, value in members]


def _seconds(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidObject(f"{value!r} is no moment")
    if abs(value) > _LAST_MOMENT:
        raise InvalidObject(f"{value:g} seconds since the epoch are no moment of ours")
    return float(value)


class _Members(list[tuple[str, Any]]):
    """Tells a JSON object from a JSON array."""
