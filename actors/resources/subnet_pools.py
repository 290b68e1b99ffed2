"""Which subnet a pool lies in: the one of its CIDR that has its addresses.

What must always hold: a pool is in one subnet at most, and everybody who asks here gets the same answer; one whose CIDR no
subnet has is in none, and is let be. Nothing here knows who made the pool.
"""

from __future__ import annotations

from collections.abc import Iterable

from actors.resources.intervals import IntervalSet
from actors.resources.ippool import IPPool
from actors.resources.names import label_value
from actors.resources.space_rules import ranges_text
from actors.resources.subnet import OWNER_SUBNET, SpiderSubnet


def of_its_cidr(pool: IPPool, subnets: Iterable[SpiderSubnet]) -> tuple[SpiderSubnet, ...]:
    """The subnets that are written with the pool's CIDR, by name."""
    return tuple(
        sorted((subnet for subnet in subnets if subnet.subnet == pool.subnet), key=lambda subnet: subnet.name)
    )


def subnet_of(pool: IPPool, subnets: Iterable[SpiderSubnet]) -> SpiderSubnet | None:
    """The one that its label names, if it has the pool's CIDR; else the first that has all of its addresses, else the first
    that has some."""
    candidates = of_its_cidr(pool, subnets)
    named = pool.labels.get(OWNER_SUBNET)
    for subnet in candidates:
        if named == label_value(subnet.name):
            return subnet
    mine = pool.listed
    for subnet in candidates:
        if not mine.minus(subnet.listed):
            return subnet
    return next((subnet for subnet in candidates if mine.intersect(subnet.listed)), None)


def misplaced(pool: IPPool, subnets: Iterable[SpiderSubnet], before: IntervalSet | None = None) -> str:
    """Why a pool cannot be stored beside these subnets, "" for no reason. What it had `before` is not held against it."""
    candidates = of_its_cidr(pool, subnets)
    if not candidates:
        return ""
    added = pool.listed if before is None else pool.listed.minus(before)
    subnet = subnet_of(pool, candidates) or candidates[0]
    outside = added.minus(subnet.listed)
    if not outside:
        return ""
    return (
        f"SpiderIPPool {pool.name}: spec.ips has {ranges_text(outside, pool.family)}, which SpiderSubnet {subnet.name} of the"
        f" same CIDR {subnet.subnet} does not have; write addresses of the subnet"
        f" ({ranges_text(subnet.listed, pool.family) or 'it has none'}), or add these to the subnet first"
    )


def misfit(subnet: SpiderSubnet, pools: Iterable[IPPool], subnets: Iterable[SpiderSubnet] = ()) -> str:
    """Why a new subnet cannot be stored beside the pools that are there, "" for no reason: it would not have all addresses
    of a pool of its CIDR, or a pool of another CIDR has some of its addresses. `subnets`: the others."""
    others = [other for other in subnets if other.name != subnet.name]
    for pool in sorted(pools, key=lambda pool: pool.name):
        if pool.family != subnet.family:
            continue
        if pool.subnet == subnet.subnet:
            outside = pool.listed.minus(subnet.listed)
            if outside and subnet_of(pool, others) is None:
                return (
                    f"SpiderSubnet {subnet.name}: spec.ips lacks {ranges_text(outside, pool.family)}, which SpiderIPPool"
                    f" {pool.name} of the same CIDR {subnet.subnet} has; add them, or take them out of the pool first"
                )
        elif shared := pool.listed.intersect(subnet.listed):
            return (
                f"SpiderSubnet {subnet.name}: spec.ips has {ranges_text(shared, pool.family)}, which SpiderIPPool {pool.name}"
                f" has with another CIDR {pool.subnet}; take them out of one of them, or make the pool anew with"
                f" {subnet.subnet}"
            )
    return ""
