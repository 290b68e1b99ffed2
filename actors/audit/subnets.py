"""Subnets: their status says which pools have which of their addresses, no address is with two, and a pool has no others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from actors.audit.finding import AuditRule, Finding, WriteSubnet
from actors.resources.intervals import IntervalSet
from actors.resources.ippool import IPPool
from actors.resources.space_rules import ranges_text
from actors.resources.subnet import CONTROLLED, SpiderSubnet
from actors.resources.subnet_pools import subnet_of


def shares(
    subnets: Mapping[str, SpiderSubnet], pools: Mapping[str, IPPool], damaged: Iterable[str]
) -> Iterator[Finding]:
    """Of each subnet and the pools that lie in it. Of a pool that cannot be read nothing is said."""
    unknown = set(damaged)
    mine: dict[str, list[IPPool]] = {name: [] for name in subnets}
    for pool in pools.values():
        subnet = subnet_of(pool, subnets.values())
        if subnet is not None:
            mine[subnet.name].append(pool)
            yield from _beyond(pool, subnet)
    for name, subnet in subnets.items():
        for key, why in _status(subnet, mine[name], unknown):
            yield Finding(AuditRule.SHARES, name, why, f"{key} {subnet.version}", WriteSubnet(name))


def _beyond(pool: IPPool, subnet: SpiderSubnet) -> Iterator[Finding]:
    outside = pool.listed.minus(subnet.listed)
    if outside:
        yield Finding(
            AuditRule.BEYOND,
            pool.name,
            f"subnet {subnet.name}, which it lies in, does not have {ranges_text(outside, pool.family)}",
            subnet.name,
        )


def _status(subnet: SpiderSubnet, pools: list[IPPool], unknown: set[str]) -> Iterator[tuple[str, str]]:
    """Field and what is wrong."""
    family = subnet.family
    expected = {pool.name: pool.listed.intersect(subnet.available) for pool in pools}
    controlled = {name: entry.ips for name, entry in subnet.controlled.items()}
    taken: dict[str, IntervalSet] = {}
    for name, ips in sorted(controlled.items()):
        for other, theirs in taken.items():
            if both := ips.intersect(theirs):
                yield (
                    f"{CONTROLLED} {name} {other}",
                    f"status.{CONTROLLED} has {ranges_text(both, family)} for pool {other} and for pool {name}",
                )
        taken[name] = ips
    for name in sorted(expected.keys() | controlled.keys()):
        if name in unknown:
            continue
        if name not in expected:
            yield (
                f"{CONTROLLED} {name}",
                f"status.{CONTROLLED} names pool {name}, which is not in this subnet",
            )
        elif name not in controlled:
            yield f"{CONTROLLED} {name}", f"status.{CONTROLLED} does not name pool {name}"
        elif controlled[name].intersect(subnet.available) != expected[name]:
            has, lists = (ranges_text(ips, family) or "nothing" for ips in (controlled[name], expected[name]))
            yield (
                f"{CONTROLLED} {name}",
                f"status.{CONTROLLED} has {has} for pool {name}, which lists {lists}",
            )
    number = sum(ips.size for ips in controlled.values())
    if subnet.allocated != number and (controlled or subnet.allocated):
        yield "allocatedIPCount", f"status.allocatedIPCount is {subnet.allocated}, but pools have {number}"
