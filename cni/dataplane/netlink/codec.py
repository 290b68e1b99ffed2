"""Netlink's frame: headers, attributes, acknowledgements; for rtnetlink and nfnetlink alike (linux/netlink.h).

What must always hold: these are functions of bytes; whoever has a socket sends and reads.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

# linux/netlink.h
REQUEST, ACK, DUMP, ROOT_REPLACE, EXCL, CREATE = 1, 4, 0x300, 0x100, 0x200, 0x400
ERROR, DONE = 2, 3
OPTIONS, CAP_ACK, EXT_ACK, STRICT = 270, 10, 11, 12  # SOL_NETLINK and its options
_CAPPED, _EXTENDED = 0x100, 0x200  # flags of an acknowledgement: without the request; with attributes
BUFFER = 1 << 18
GONE = (errno.ESRCH, errno.ENOENT, errno.ENODEV, errno.EADDRNOTAVAIL, errno.ENXIO)
"""What the kernel says when that which is to be removed is not there."""


@dataclass(frozen=True, slots=True)
class Message:
    """One request to the kernel."""

    kind: int
    """The message's type, such as RTM_NEWROUTE (linux/rtnetlink.h)."""
    flags: int
    """Beside those of every request (linux/netlink.h)."""
    body: Any
    """Encoded, or a message of pyroute2's."""
    gone_ok: bool = False
    """The removal of what is not there is no error."""
    there_ok: bool = False
    """Nor is the addition of what is."""
    text: str = ""
    """What it is about, where the body does not tell; for errors."""


def framed(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    """One request."""
    return struct.pack("=IHHII", 16 + len(body), kind, REQUEST | flags, sequence, 0) + body


def frames(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """The messages in what a socket gave: type, sequence number, and the whole message with its header."""
    offset = 0
    while offset < len(data):
        length, kind, _, sequence = struct.unpack_from("=IHHI", data, offset)
        yield kind, sequence, data[offset : offset + length]
        offset += (length + 3) & ~3


def reason(frame: bytes) -> str:
    """What the kernel says of a refusal beyond its number; often nothing."""
    flags = struct.unpack_from("=H", frame, 6)[0]
    if not flags & _EXTENDED:
        return ""
    request = 16 if flags & _CAPPED else struct.unpack_from("=I", frame, 20)[0]
    return attributes(frame, 20 + request).get(1, b"").rstrip(b"\0").decode(errors="replace")


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded to four bytes."""
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def attributes(frame: bytes, offset: int) -> dict[int, bytes]:
    """The attributes of a message from `offset` on, by type; without the flags of the type."""
    attrs: dict[int, bytes] = {}
    while offset + 4 <= len(frame):
        length, kind = struct.unpack_from("=HH", frame, offset)
        attrs[kind & 0x3FFF] = frame[offset + 4 : offset + length]
        offset += (max(length, 4) + 3) & ~3
    return attrs


def number(attrs: dict[int, bytes], kind: int) -> int:
    """An unsigned attribute of 32 bits, 0 where it is missing."""
    return int(struct.unpack("=I", attrs[kind])[0]) if kind in attrs else 0


def packed(address: str) -> tuple[int, bytes]:
    """The family (AF_INET or AF_INET6) and the bytes of an address. Raises `OSError` for what is none."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return family, socket.inet_pton(family, address)
