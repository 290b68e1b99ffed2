"""Addresses that no pod may have, whatever a pool lists.

What must always hold: they are taken out of every pool when it is read, however it was stored, so that nothing after
parsing asks again.

* Of an IPv4 subnet up to /30 the network's and the broadcast address: hosts and routers on the segment take what is sent to
  them for everybody's (RFC 1122 section 3.2.1.3). A /31 and a /32 are whole (RFC 3021).
* Of an IPv6 subnet up to /126 the first address, which is every router's of the subnet (Subnet-Router anycast, RFC 4291
  section 2.6.1): a Linux router answers for it. A /127 and a /128 are whole (RFC 6164). The anycast addresses at a
  subnet's end (RFC 2526) are for Mobile IPv6 alone and are not withheld.
* What is no host's anywhere: unspecified, loopback, multicast, link-local IPv6, IPv4-mapped IPv6, limited broadcast.
"""

from __future__ import annotations

from actors.resources.addresses import IPV4, WIDTH, Subnet, parse_cidr
from actors.resources.intervals import IntervalSet

SPECIAL: dict[int, tuple[Subnet, ...]] = {
    4: tuple(map(parse_cidr, ("0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/4", "255.255.255.255/32"))),
    6: (
        *map(parse_cidr, ("::/127", "fe80::/10", "ff00::/8")),
        Subnet(6, 0xFFFF << 32, 96),  # ::ffff:0:0/96, which is not written
    ),
}
"""Blocks in which no pool can lie. The policies in deploy/admission have the same."""


def of_subnet(subnet: Subnet) -> IntervalSet:
    """The network's and the broadcast address, or the routers' anycast address, of one subnet."""
    if WIDTH[subnet.family] - subnet.prefix < 2:
        return IntervalSet()
    ends = [(subnet.first, subnet.first)]
    if subnet.family == IPV4:
        ends.append((subnet.last, subnet.last))
    return IntervalSet(ends)


def withheld(subnet: Subnet) -> IntervalSet:
    """What no pool in this subnet gives out."""
    special = [
        (max(block.first, subnet.first), min(block.last, subnet.last))
        for block in SPECIAL[subnet.family]
        if block.first <= subnet.last and subnet.first <= block.last
    ]
    return IntervalSet(special).union(of_subnet(subnet))


def special_block(family: int, low: int, high: int) -> Subnet | None:
    """The block of `SPECIAL` in which both ends of a range lie; None for any other range."""
    return next((block for block in SPECIAL[family] if block.first <= low and high <= block.last), None)


def explained(subnet: Subnet, addresses: IntervalSet) -> str:
    """Why these addresses, which a pool of this subnet lists, are not given out; "" for none."""
    own, other = addresses.intersect(of_subnet(subnet)), addresses.minus(of_subnet(subnet))
    reasons = []
    if own:
        what = "network and broadcast address" if subnet.family == IPV4 else "routers' anycast address"
        reasons.append(f"{_listed(subnet.family, own)} ({what} of {subnet})")
    if other:
        reasons.append(f"{_listed(subnet.family, other)} (no host can have them)")
    return f"{' and '.join(reasons)} cannot be a pod's and are not given out" if reasons else ""


def _listed(family: int, addresses: IntervalSet) -> str:
    return ", ".join(addresses.ranges_text(family))
