"""nftables in the pod: connections that come in through the veth, or the first interface, are marked, and so are their
replies.

A reply carries no trace of the interface by which its connection came; the connection tracker does. The table is made in
one transaction by nfnetlink itself (linux/netfilter/nf_tables.h), because starting `nft` takes longer than all the rest
of an ADD. What must always hold: the table exists whole or not at all; it is made only where it does not exist.
In nft's own words:

    table inet orbweaver {
        chain prerouting { type filter hook prerouting priority mangle;
            iifname "veth0" ct state new ct mark set 0x1
            iifname "eth0" ct state new ct mark set 0x2 }
        chain output { type route hook output priority mangle;
            ct direction reply ct mark 0x1 meta mark set 0x1
            ct direction reply ct mark 0x2 meta mark set 0x2 }
    }
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Mapping

from cni.dataplane.netlink.codec import ACK, CAP_ACK, CREATE, ERROR, EXCL, OPTIONS, attribute, framed, frames

_TABLE = b"orbweaver\0"
_INET = 1
_NEWTABLE, _GETTABLE, _DELTABLE, _NEWCHAIN, _NEWRULE = 0, 1, 2, 3, 6
_SUBSYSTEM = 10 << 8
_BEGIN, _END = 0x10, 0x11
_APPEND = 0x800
_NOTHING = ((_NEWTABLE, CREATE), (_DELTABLE, 0))
"""A transaction that leaves nothing."""
_UNSUPPORTED = (errno.EOPNOTSUPP, errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT)
_NESTED = 0x8000
_MANGLE = -150
_REGISTER = 8
_CT_STATE, _CT_DIRECTION, _CT_MARK = 0, 1, 3
_META_MARK, _META_IIFNAME = 3, 6
_NEW = 1 << 3  # NF_CT_STATE_BIT(IP_CT_NEW)
_IFNAMSIZ = 16


def supported() -> bool:
    """Whether this kernel has nftables for IP; each distribution's has, some small ones do not."""
    try:
        _transaction([(kind, flags, attribute(1, b"orbweaver-probe\0")) for kind, flags in _NOTHING])
    except OSError as error:
        return error.errno not in _UNSUPPORTED
    return True


def mark_replies(marks: Mapping[str, int]) -> bool:
    """Make the table, in the namespace in which this thread is; False when it was there. `marks`: of what comes in
    through each interface. On a kernel without nftables nothing is made, and replies leave by the routing tables. Raises
    `OSError`."""
    steps = [
        (_NEWTABLE, CREATE | EXCL, attribute(1, _TABLE)),
        (_NEWCHAIN, CREATE, _chain(b"prerouting\0", b"filter\0", 0)),
        (_NEWCHAIN, CREATE, _chain(b"output\0", b"route\0", 3)),
    ]
    for interface, mark in marks.items():
        incoming = _rule(
            b"prerouting\0",
            _load(b"meta\0", _META_IIFNAME),
            _compare(interface.encode().ljust(_IFNAMSIZ, b"\0")),
            _load(b"ct\0", _CT_STATE),
            _masked(_NEW),
            _compare(struct.pack("=I", 0), equal=False),
            _immediate(mark),
            _store(b"ct\0", _CT_MARK, 4),
        )
        reply = _rule(
            b"output\0",
            _load(b"ct\0", _CT_DIRECTION),
            _compare(b"\x01"),
            _load(b"ct\0", _CT_MARK),
            _compare(struct.pack("=I", mark)),
            _immediate(mark),
            _store(b"meta\0", _META_MARK, 3),
        )
        steps += [(_NEWRULE, CREATE | _APPEND, incoming), (_NEWRULE, CREATE | _APPEND, reply)]
    try:
        _transaction(steps)
    except OSError as error:
        if error.errno == errno.EEXIST or error.errno in _UNSUPPORTED:
            return False
        raise
    return True


def marks_replies() -> bool:
    """Whether the table exists, or could not. Raises `OSError`."""
    with _channel() as channel:
        body = struct.pack(">BBH", _INET, 0, 0) + attribute(1, _TABLE)
        channel.send(framed(_SUBSYSTEM | _GETTABLE, ACK, 1, body))
        answer = channel.recv(1 << 16)
    if struct.unpack_from("=H", answer, 4)[0] != ERROR:
        return True
    number = -int(struct.unpack_from("=i", answer, 16)[0])
    if number in (0, errno.ENOENT, *_UNSUPPORTED):
        return number == 0 or not supported()
    raise OSError(number, f"nftables: {os.strerror(number)}")


def delete_marks() -> None:
    """Remove the table if it is there."""
    try:
        _transaction([(_DELTABLE, 0, attribute(1, _TABLE))])
    except OSError as error:
        if error.errno != errno.ENOENT and error.errno not in _UNSUPPORTED:
            raise


def _transaction(steps: list[tuple[int, int, bytes]]) -> None:
    """All or nothing. Raises the first error of a step."""
    batch = framed(_BEGIN, 0, 0, struct.pack(">BBH", 0, 0, 10))
    for number, (kind, flags, body) in enumerate(steps, 1):
        batch += framed(_SUBSYSTEM | kind, flags | ACK, number, struct.pack(">BBH", _INET, 0, 0) + body)
    batch += framed(_END, 0, 0, struct.pack(">BBH", 0, 0, 10))
    with _channel() as channel:
        channel.send(batch)
        outstanding = set(range(1, len(steps) + 1))
        failed = 0
        while outstanding and not failed:
            for _, sequence, frame in frames(channel.recv(1 << 16)):
                failed = failed or -struct.unpack_from("=i", frame, 16)[0]
                outstanding.discard(sequence)
    if failed:
        raise OSError(failed, f"nftables: {os.strerror(failed)}")


def _channel() -> socket.socket:
    channel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 12)
    channel.bind((0, 0))
    channel.setsockopt(OPTIONS, CAP_ACK, 1)  # an acknowledgement without the request
    return channel


def _nest(kind: int, *parts: bytes) -> bytes:
    return attribute(kind | _NESTED, b"".join(parts))


def _number(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack(">i", value))


def _chain(name: bytes, kind: bytes, hook: int) -> bytes:
    return (
        attribute(1, _TABLE)
        + attribute(3, name)
        + _nest(4, _number(1, hook), _number(2, _MANGLE))
        + attribute(7, kind)
    )


def _rule(chain: bytes, *expressions: bytes) -> bytes:
    return attribute(1, _TABLE) + attribute(2, chain) + _nest(4, *expressions)


def _expression(name: bytes, *parts: bytes) -> bytes:
    return _nest(1, attribute(1, name), _nest(2, *parts))


def _load(name: bytes, key: int) -> bytes:
    return _expression(name, _number(1, _REGISTER), _number(2, key))


def _store(name: bytes, key: int, source: int) -> bytes:
    return _expression(name, _number(2, key), _number(source, _REGISTER))


def _compare(value: bytes, *, equal: bool = True) -> bytes:
    return _expression(
        b"cmp\0", _number(1, _REGISTER), _number(2, 0 if equal else 1), _nest(3, attribute(1, value))
    )


def _masked(mask: int) -> bytes:
    return _expression(
        b"bitwise\0",
        _number(1, _REGISTER),
        _number(2, _REGISTER),
        _number(3, 4),
        _nest(4, attribute(1, struct.pack("=I", mask))),
        _nest(5, attribute(1, struct.pack("=I", 0))),
    )


def _immediate(value: int) -> bytes:
    return _expression(
        b"immediate\0", _number(1, _REGISTER), _nest(2, attribute(1, struct.pack("=I", value)))
    )
