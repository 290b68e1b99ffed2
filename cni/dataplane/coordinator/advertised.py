"""Which prefixes routers advertise on the host's interfaces, and which addresses of a pod the host may therefore reach.

How it works. A router advertisement (RFC 4861) goes to all nodes of a segment, so the host hears on the parent of a pod's
interface what the pod hears. What a pod sends itself leaves by the parent and does not come in there.
What must always hold: an address gets a host route only if the runtime was told it by IPAM, or if it is one that lasts
for a lifetime in a prefix that was advertised on the parent; a pod, which may give itself any address, cannot make the
host send anything else to it. Everything is bounded: interfaces, prefixes and addresses.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Collection, Iterable, Iterator

from cni.dataplane.state import Nic

ADVERTISEMENT = 134
_PREFIX, _AUTONOMOUS = 3, 0x40
_SLAAC_LENGTH = 64
"""RFC 4862 with the interface identifiers of Ethernet (RFC 2464): nothing else makes addresses."""
PREFIXES = 16
"""Of one interface."""
INTERFACES = 256
ADDRESSES = 16
"""That one interface of a pod may have beside its recorded ones, with a way from the host."""
_HEAD = 16


def read_advertisement(message: bytes) -> Iterator[tuple[str, int]]:
    """(prefix, seconds for which it is valid) of each prefix from which addresses are made. A damaged message says what
    stands before the damage."""
    if len(message) < _HEAD or message[0] != ADVERTISEMENT or message[1] != 0:
        return
    rest = message[_HEAD:]
    while len(rest) >= 8 and rest[1] and len(rest) >= 8 * rest[1]:
        option, rest = rest[: 8 * rest[1]], rest[8 * rest[1] :]
        if option[0] != _PREFIX or len(option) != 32:
            continue
        length, flags, valid = struct.unpack_from(">BBI", option, 2)
        prefix = ipaddress.IPv6Network((option[16:], length), strict=False) if length <= 128 else None
        if prefix is None or length != _SLAAC_LENGTH or not flags & _AUTONOMOUS:
            continue
        if not (prefix.is_link_local or prefix.is_multicast or prefix.is_loopback or prefix.is_unspecified):
            yield str(prefix), valid


class AdvertisedPrefixes:
    """What was advertised, by the index of the host's interface, until it is not valid any more."""

    def __init__(self) -> None:
        self._until: dict[int, dict[str, float]] = {}

    def heard(self, index: int, message: bytes, now: float) -> tuple[str, ...]:
        """Take in one advertisement; returns the prefixes that are new on this interface."""
        known = self._until.pop(index, {})
        self._until[index] = known  # the interface that was heard of longest ago is forgotten first
        if len(self._until) > INTERFACES:
            del self._until[next(iter(self._until))]
        new = []
        for prefix, valid in read_advertisement(message):
            if known.get(prefix, 0.0) <= now < now + valid:
                new.append(prefix)
            known.pop(prefix, None)
            if valid:
                known[prefix] = now + valid
            if len(known) > PREFIXES:
                del known[next(iter(known))]
        return tuple(new)

    def valid(self, now: float) -> tuple[tuple[int, str], ...]:
        """(index, prefix) of all that is valid."""
        return tuple(
            (index, prefix)
            for index, known in self._until.items()
            for prefix, until in known.items()
            if until > now
        )


def reachable(
    nic: Nic, recorded: Collection[str], advertised: Iterable[str], taken: Collection[str]
) -> tuple[str, ...]:
    """Those of the interface's addresses, in CIDR form, to which the host gets a way. `recorded`: what IPAM answered,
    without length; `advertised`: on the interface's parent; `taken`: what is the host's, a service's or another pod's, as
    addresses or prefixes."""
    prefixes = [ipaddress.IPv6Network(cidr) for cidr in advertised]
    others = [ipaddress.ip_network(cidr, strict=False) for cidr in taken]
    by_record = tuple(cidr for cidr in nic.addresses if cidr.partition("/")[0] in recorded)
    by_router: list[str] = []
    for cidr in nic.dynamic:
        address = ipaddress.ip_address(cidr.partition("/")[0])
        if (
            cidr not in by_record
            and any(address in prefix for prefix in prefixes)
            and not any(address in other for other in others)
        ):
            by_router.append(cidr)
        if len(by_router) == ADDRESSES:
            break
    chosen = {*by_record, *by_router}
    return tuple(cidr for cidr in nic.addresses if cidr in chosen)
