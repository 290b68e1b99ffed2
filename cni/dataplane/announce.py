"""Tell the network segment that an address has a new MAC: gratuitous ARP and unsolicited neighbour advertisement.

What must always hold: one frame for each address, sent from the interface itself; nothing is awaited. RFC 5227 section
2.3 (ARP announcement) and RFC 4861 section 7.2.6 (unsolicited neighbour advertisement, override flag set).
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable

_ARP, _IPV6 = 0x0806, 0x86DD
_ALL_NODES = socket.inet_pton(socket.AF_INET6, "ff02::1")


def announce(interface: str, mac: str, addresses: Iterable[str]) -> None:
    """Announce the addresses (CIDR form), in the namespace in which this thread is. Raises `OSError`."""
    hardware = bytes.fromhex(mac.replace(":", ""))
    kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
    with socket.socket(socket.AF_PACKET, kind, 0) as channel:
        channel.bind((interface, 0))
        for cidr in addresses:
            address = cidr.partition("/")[0]
            channel.send(
                advertisement(hardware, address) if ":" in address else gratuitous_arp(hardware, address)
            )


def gratuitous_arp(mac: bytes, address: str) -> bytes:
    """An ARP request for one's own address, to everybody."""
    own = socket.inet_aton(address)
    return b"\xff" * 6 + mac + struct.pack(">HHHBBH", _ARP, 1, 0x0800, 6, 4, 1) + mac + own + bytes(6) + own


def advertisement(mac: bytes, address: str) -> bytes:
    """A neighbour advertisement with the override flag and the target's link-layer address, to all nodes."""
    own = socket.inet_pton(socket.AF_INET6, address)
    body = struct.pack(">I", 0x20000000) + own + b"\x02\x01" + mac
    pseudo = own + _ALL_NODES + struct.pack(">I3xB", 4 + len(body), 58)
    checksum = _checksum(pseudo + struct.pack(">BBH", 136, 0, 0) + body)
    icmp = struct.pack(">BBH", 136, 0, checksum) + body
    header = struct.pack(">IHBB", 6 << 28, len(icmp), 58, 255) + own + _ALL_NODES
    return b"\x33\x33\x00\x00\x00\x01" + mac + struct.pack(">H", _IPV6) + header + icmp


def _checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF
