"""Router advertisements as the host hears them, and the question for one (RFC 4861)."""

from __future__ import annotations

import socket
import struct


class RouterAdvertisements:
    """Router advertisements that come in on this namespace's interfaces. Raises `OSError`."""

    def __init__(self) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_INET6, kind, socket.IPPROTO_ICMPV6)
        blocked = bytearray(b"\xff" * 32)
        blocked[134 // 8] &= ~(1 << 134 % 8)
        self._socket.setsockopt(socket.IPPROTO_ICMPV6, 1, bytes(blocked))  # ICMP6_FILTER, linux/icmpv6.h
        self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def read(self) -> tuple[int, bytes] | None:
        """(index of the interface, message) of the next one; None when there is none now, or it was no neighbour's (RFC
        4861 section 6.1.2)."""
        try:
            message, ancillary, _, source = self._socket.recvmsg(1 << 16, 128)
        except BlockingIOError:
            return None
        ancillary_of = {kind: value for level, kind, value in ancillary if level == socket.IPPROTO_IPV6}
        index: int = struct.unpack_from("=i", ancillary_of[socket.IPV6_PKTINFO], 16)[0]
        (hops,) = struct.unpack("=i", ancillary_of[socket.IPV6_HOPLIMIT])
        return (index, message) if hops == 255 and source[0].startswith("fe80:") else None


def solicit_routers(index: int) -> None:
    """Ask the routers on an interface of this namespace to advertise now (RFC 4861 section 4.1). Raises `OSError`."""
    with socket.socket(
        socket.AF_INET6, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_ICMPV6
    ) as channel:
        channel.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        channel.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
        channel.sendto(struct.pack(">BBHI", 133, 0, 0, 0), ("ff02::2", 0, 0, index))
