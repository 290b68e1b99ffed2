"""The frames by which hosts of one segment learn of each other's addresses: ARP, and neighbour discovery for IPv6.

What must always hold: nothing here raises on what comes from the network; a frame that is damaged, truncated or of
another kind is simply not about any address. Sources: RFC 826 and RFC 5227 (ARP, probes and announcements), RFC 4861
section 4.3 and 4.4 (solicitation and advertisement), RFC 4862 section 5.4 (duplicate address detection).
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

ARP, IPV6, VLAN = 0x0806, 0x86DD, 0x8100
"""EtherTypes."""
ALL_NODES = socket.inet_pton(socket.AF_INET6, "ff02::1")
_SOLICITED_NODE = socket.inet_pton(socket.AF_INET6, "ff02::1:ff00:0")[:13]
_BROADCAST = b"\xff" * 6
_UNSPECIFIED4, _UNSPECIFIED6 = bytes(4), bytes(16)
_REQUEST, _REPLY = 1, 2
_SOLICITATION, _ADVERTISEMENT = 135, 136
_SOURCE_LINK, _TARGET_LINK = 1, 2
_ICMPV6 = 58


@dataclass(frozen=True, slots=True)
class Claimed:
    """What one frame says: the host `mac` has `address`, or, if `probing`, is asking whether it may have it."""

    address: bytes
    mac: bytes
    probing: bool


def packed(address: str) -> bytes:
    """Four or sixteen bytes of an address."""
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


def groups(address: bytes) -> tuple[bytes, ...]:
    """The multicast MACs at which answers to a probe for an IPv6 address and probes of others arrive; none for IPv4,
    where all of it is broadcast."""
    if len(address) == 4:
        return ()
    return _multicast_mac(ALL_NODES), _multicast_mac(solicited_node(address))


def solicited_node(address: bytes) -> bytes:
    """The multicast address of an IPv6 address's solicitations (RFC 4291 section 2.7.1)."""
    return _SOLICITED_NODE + address[13:]


def probe(mac: bytes, address: bytes) -> bytes:
    """Ask whether anybody has `address`, without claiming it: the sender's address is all zero."""
    if len(address) == 4:
        return _arp(_REQUEST, mac, _UNSPECIFIED4, bytes(6), address)
    return _solicitation(mac, _UNSPECIFIED6, address)


def question(mac: bytes, own: bytes, target: bytes) -> bytes:
    """Ask for the MAC of `target` as the holder of `own`."""
    if len(target) == 4:
        return _arp(_REQUEST, mac, own, bytes(6), target)
    return _solicitation(mac, own, target)


def announcement(mac: bytes, address: bytes) -> bytes:
    """Tell everybody that `address` is here: an ARP announcement (RFC 5227 section 2.3), or an unsolicited
    advertisement with the override flag (RFC 4861 section 7.2.6)."""
    if len(address) == 4:
        return _arp(_REQUEST, mac, address, bytes(6), address)
    option = struct.pack(">BB", _TARGET_LINK, 1) + mac
    body = struct.pack(">I", 0x20000000) + address + option
    return _icmp6(mac, address, ALL_NODES, _ADVERTISEMENT, body)


def read(frame: bytes) -> Claimed | None:
    """What an Ethernet frame says about an address; None when it says nothing."""
    if len(frame) < 14:
        return None
    kind, start = int.from_bytes(frame[12:14], "big"), 14
    if kind == VLAN and len(frame) >= 18:
        kind, start = int.from_bytes(frame[16:18], "big"), 18
    body = frame[start:]
    if kind == ARP:
        return _read_arp(body)
    if kind == IPV6:
        return _read_icmp6(body, frame[6:12])
    return None


def _arp(operation: int, mac: bytes, own: bytes, target_mac: bytes, target: bytes) -> bytes:
    head = struct.pack(">HHHBBH", ARP, 1, 0x0800, 6, 4, operation)
    frame = _BROADCAST + mac + head + mac + own + target_mac + target
    return frame.ljust(60, b"\0")


def _solicitation(mac: bytes, own: bytes, target: bytes) -> bytes:
    body = bytes(4) + target
    if (
        own != _UNSPECIFIED6
    ):  # with the unspecified source the option must not be there (RFC 4861 section 4.3)
        body += struct.pack(">BB", _SOURCE_LINK, 1) + mac
    return _icmp6(mac, own, solicited_node(target), _SOLICITATION, body)


def _icmp6(mac: bytes, source: bytes, target: bytes, kind: int, body: bytes) -> bytes:
    length = 4 + len(body)
    pseudo = source + target + struct.pack(">I3xB", length, _ICMPV6)
    checksum = _checksum(pseudo + struct.pack(">BBH", kind, 0, 0) + body)
    header = struct.pack(">IHBB", 6 << 28, length, _ICMPV6, 255) + source + target
    ethernet = _multicast_mac(target) + mac + struct.pack(">H", IPV6)
    return ethernet + header + struct.pack(">BBH", kind, 0, checksum) + body


def _multicast_mac(address: bytes) -> bytes:
    return b"\x33\x33" + address[12:]


def _checksum(data: bytes) -> int:
    """RFC 1071."""
    data += bytes(len(data) % 2)
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def _read_arp(body: bytes) -> Claimed | None:
    if len(body) < 28:
        return None
    hardware, protocol, mac_length, length, operation = struct.unpack_from(">HHBBH", body)
    if (hardware, protocol, mac_length, length) != (1, 0x0800, 6, 4) or operation not in (_REQUEST, _REPLY):
        return None
    mac, sender, target = body[8:14], body[14:18], body[24:28]
    if sender != _UNSPECIFIED4:
        return Claimed(sender, mac, probing=False)
    # A probe of another host for the same address is a conflict too (RFC 5227 section 2.1.1).
    return Claimed(target, mac, probing=True) if operation == _REQUEST and target != _UNSPECIFIED4 else None


def _read_icmp6(body: bytes, ethernet_source: bytes) -> Claimed | None:
    # Hop limit 255 proves that no router forwarded it (RFC 4861 section 7.1).
    if len(body) < 64 or body[0] >> 4 != 6 or body[6] != _ICMPV6 or body[7] != 255:
        return None
    length = int.from_bytes(body[4:6], "big")
    icmp = body[40 : 40 + length]
    kind = body[40]
    if len(icmp) != length or length < 24 or kind not in (_SOLICITATION, _ADVERTISEMENT) or body[41] != 0:
        return None
    source, target = body[8:24], body[48:64]
    pseudo = body[8:40] + struct.pack(">I3xB", length, _ICMPV6)
    if target[0] == 0xFF or _checksum(pseudo + icmp) != 0:
        return None
    options = _link_options(icmp[24:])
    if options is None:
        return None
    if kind == _ADVERTISEMENT:
        return Claimed(target, options.get(_TARGET_LINK, ethernet_source), probing=False)
    if source == _UNSPECIFIED6:
        return Claimed(target, ethernet_source, probing=True)
    return Claimed(source, options.get(_SOURCE_LINK, ethernet_source), probing=False)


def _link_options(data: bytes) -> dict[int, bytes] | None:
    """The link-layer addresses among the options; None when the options are damaged."""
    options: dict[int, bytes] = {}
    while data:
        if len(data) < 2 or data[1] == 0 or len(data) < 8 * data[1]:
            return None
        if data[0] in (_SOURCE_LINK, _TARGET_LINK) and data[1] == 1:
            options[data[0]] = data[2:8]
        data = data[8 * data[1] :]
    return options
