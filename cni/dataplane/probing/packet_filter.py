"""A raw socket on one interface that hears what is said about one address, and about its gateway, and nothing else.

What must always hold: the kernel drops everything else, because two hundred pods that start at once hear each other's
probes; the interface's multicast filter lets through what answers and other hosts' probes come in by, although the
address is not configured yet.
"""

from __future__ import annotations

import ctypes
import socket
import struct

from cni.dataplane.probing import frames

_SO_ATTACH_FILTER = 26
_SOL_PACKET, _ADD_MEMBERSHIP, _MULTICAST = 263, 1, 0
_LOAD_WORD, _LOAD_HALF, _LOAD_BYTE, _JUMP_EQUAL, _RETURN = 0x20, 0x28, 0x30, 0x15, 0x06
_WHOLE = 0x40000
# Offsets in an Ethernet frame without VLAN tag, which the kernel takes out before filters run.
_ARP_SENDER, _ARP_TARGET = 28, 38
_NEXT_HEADER, _SOURCE_END, _ICMP_TYPE, _TARGET_END = 20, 34, 54, 74


def listen(interface: str, index: int, address: bytes, gateway: bytes | None) -> socket.socket:
    """In the namespace in which this thread is. Raises `OSError`."""
    protocol = frames.ARP if len(address) == 4 else frames.IPV6
    # Without a protocol it hears nothing yet: the filter is there before the first frame.
    channel = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, 0)
    try:
        _attach(
            channel, _arp_filter(address, gateway) if len(address) == 4 else _icmp6_filter(address, gateway)
        )
        for group in frames.groups(address):
            request = struct.pack("=IHH8s", index, _MULTICAST, 6, group)
            channel.setsockopt(_SOL_PACKET, _ADD_MEMBERSHIP, request)
        channel.bind((interface, protocol))
    except OSError:
        channel.close()
        raise
    return channel


def _attach(channel: socket.socket, program: list[tuple[int, int, int, int]]) -> None:
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in program))
    channel.setsockopt(
        socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", len(program), ctypes.addressof(code))
    )


def _any_of(tests: list[tuple[int, int, bytes]]) -> list[tuple[int, int, int, int]]:
    """Accept a frame in which one of (load, offset, bytes) holds."""
    steps: list[tuple[int, int, int, int]] = []
    for number, (load, offset, wanted) in enumerate(tests):
        left = len(tests) - number - 1
        # To the acceptance, over the other tests and the refusal.
        steps += [(load, 0, 0, offset), (_JUMP_EQUAL, 2 * left + 1, 0, int.from_bytes(wanted, "big"))]
    return [*steps, (_RETURN, 0, 0, 0), (_RETURN, 0, 0, _WHOLE)]


def _arp_filter(address: bytes, gateway: bytes | None) -> list[tuple[int, int, int, int]]:
    tests = [(_LOAD_WORD, _ARP_SENDER, address), (_LOAD_WORD, _ARP_TARGET, address)]
    return _any_of(tests + ([(_LOAD_WORD, _ARP_SENDER, gateway)] if gateway else []))


def _icmp6_filter(address: bytes, gateway: bytes | None) -> list[tuple[int, int, int, int]]:
    tests = [(_LOAD_WORD, place, address[12:]) for place in (_SOURCE_END, _TARGET_END)]
    tests += [(_LOAD_WORD, _TARGET_END, gateway[12:])] if gateway else []
    rest = _any_of(tests)
    refusal = len(rest) - 2
    return [
        (_LOAD_BYTE, 0, 0, _NEXT_HEADER),
        (_JUMP_EQUAL, 0, refusal + 3, 58),
        (_LOAD_BYTE, 0, 0, _ICMP_TYPE),
        (_JUMP_EQUAL, 1, 0, 135),
        (_JUMP_EQUAL, 0, refusal, 136),
        *rest,
    ]
