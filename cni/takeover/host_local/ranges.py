"""What a network says to host-local: which addresses a node may give out. Pure.

The rules are host-local's own (its `backend/allocator`, version 1.9): a range of its own comes before `ranges`, of which each
set gives a pod one address; a range is its subnet without the first and, of IPv4, the last address, unless it says less; the
gateway, which is the first address unless it says otherwise, is never given out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from actors.errors import InvalidObject
from actors.resources.addresses import parse_address_of, parse_cidr
from actors.resources.fields import Fields
from actors.resources.intervals import IntervalSet
from cni.takeover.networks import Network
from cni.takeover.windows import Window, routes_of

IPAM_TYPE = "host-local"


@dataclass(frozen=True, slots=True)
class LocalRange:
    """One range of one network."""

    network: Network
    """Whose it is."""
    place: int
    """Of the section that says so."""
    window: Window
    """What each node may give out of it."""
    data_dir: str
    """Where each node has what it gave; empty for the standard place."""


def ranges_of(network: Network) -> tuple[tuple[LocalRange, ...], tuple[str, ...], tuple[str, ...]]:
    """All ranges of a network, a sentence for each thing that will differ, and one for each that is wrong."""
    ranges: list[LocalRange] = []
    differences: list[str] = []
    problems: list[str] = []
    for section in network.sections:
        ipam = section.ipam
        try:
            sets = _sets(ipam)
            families = []
            for written in sets:
                windows = [_window(network, ipam, part, differences) for part in written]
                families += [windows[0].subnet.family] if windows else []
                ranges += [
                    LocalRange(network, section.place, window, ipam.text("dataDir")) for window in windows
                ]
            if not sets:
                problems.append(f"{network.title}: its ipam names no range; write one into it")
            if any(families.count(family) > 1 for family in families):
                problems.append(
                    f"{network.title}: its ipam gives each pod several addresses of one family, where Orbweaver gives one; "
                    "leave one set of ranges of each family"
                )
        except InvalidObject as error:
            problems.append(f"{network.title}: {error.message}; correct it")
        if ipam.has("resolvConf"):
            differences.append(
                f"{network.title}: the DNS servers of {ipam.text('resolvConf')} are not in results any more; pods have the "
                "cluster's"
            )
    return tuple(ranges), tuple(dict.fromkeys(differences)), tuple(problems)


def of_node(local: LocalRange, node: str) -> LocalRange:
    """The range as one that this node has alone."""
    return replace(local, window=replace(local.window, nodes=(node,)))


def _sets(ipam: Fields) -> list[tuple[Fields, ...]]:
    written: list[tuple[Fields, ...]] = [(ipam,)] if ipam.text("subnet") else []
    listed = ipam.data.get("ranges") or []
    if not isinstance(listed, list):
        raise ipam.refuse("ranges", "which is no list of lists")
    for index, members in enumerate(listed):
        holder = Fields.of(ipam.subject, ipam.at(f"ranges[{index}]"), {"set": members})
        written.append(holder.items("set"))
    return written


def _window(network: Network, ipam: Fields, written: Fields, differences: list[str]) -> Window:
    subnet = written.read("subnet", parse_cidr)
    if subnet.size < 4:
        raise written.refuse("subnet", "which has no address that can be given out")
    family = subnet.family
    last = subnet.last - 1 if family == 4 else subnet.last
    low = (
        parse_address_of(written.text("rangeStart") or "", family)
        if written.text("rangeStart")
        else subnet.first + 1
    )
    high = parse_address_of(written.text("rangeEnd"), family) if written.text("rangeEnd") else last
    if not (subnet.contains(low) and subnet.contains(high) and low <= high):
        raise written.refuse("subnet", "which does not have all of its range from rangeStart to rangeEnd")
    given = written.text("gateway")
    gateway = parse_address_of(given, family) if given else subnet.first + 1
    routes = routes_of(ipam, family, gateway)
    if given and routes.gateway is None and gateway != subnet.first + 1:
        differences.append(
            f"{network.title}: results do not name gateway {given} any more, as no default route goes through it; a bridge "
            "that takes its own address from there needs it as the pool's gateway"
        )
    addresses = IntervalSet([(low, high)]).minus(IntervalSet([(gateway, gateway)]))
    return Window(network.title, subnet, addresses, routes.gateway, routes.others)
