"""What a network says to Whereabouts: which addresses it may give out, and in which objects it finds what it gave. Pure.

The rules are Whereabouts' own (its `pkg/config`, `pkg/iphelpers` and `pkg/storage/kubernetes`, version 0.9): `range` comes
before `ipRanges`; a range is a subnet, or `first-last/length`; its first and last address are never given out; a start or end
outside the rest is passed over; an IPPool is called by its range and the network's `network_name`, and with slices by the node
as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from actors.errors import InvalidObject
from actors.resources.addresses import Subnet, format_address, parse_address, parse_address_of, parse_cidr
from actors.resources.fields import Fields
from actors.resources.intervals import IntervalSet
from cni.takeover.networks import IpamSection, Network
from cni.takeover.windows import Window, routes_of

IPAM_TYPE = "whereabouts"

Slices = Mapping[str, tuple[tuple[str, str], ...]]
"""By NodeSlicePool, the node and the range of each slice that is a node's."""


@dataclass(frozen=True, slots=True)
class RangeUse:
    """One range of one network, of one node where it is cut into slices."""

    network: Network
    """Whose it is."""
    place: int
    """Of the section that says so."""
    network_name: str
    """What keeps it apart from the same range elsewhere; usually empty."""
    is_reserved: bool
    """Whether each address of it also gets a reservation of its own, because of ranges that overlap."""
    window: Window
    """What it may give out."""
    ip_pool: str
    """The name of the IPPool with what it gave."""
    ip_range: Subnet
    """The range of that IPPool."""


@dataclass(frozen=True, slots=True)
class RangesRead:
    """What a network says."""

    uses: tuple[RangeUse, ...] = ()
    differences: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


def ranges_of(network: Network, slices: Slices) -> RangesRead:
    """All ranges of a network; what is wrong with it is among the problems."""
    uses: list[RangeUse] = []
    differences: list[str] = []
    problems: list[str] = []
    for section in network.sections:
        try:
            problems += _unfit(network, section)
            for written in _written(section.ipam):
                uses += _uses(network, section, written, slices, differences)
        except InvalidObject as error:
            problems.append(f"{network.title}: {error.message}; correct it")
        if section.ipam.has("dns"):
            differences.append(
                f"{network.title}: the DNS servers of its ipam are not in results any more; pods have the cluster's"
            )
    return RangesRead(tuple(uses), tuple(differences), tuple(problems))


def _unfit(network: Network, section: IpamSection) -> list[str]:
    ipam = section.ipam
    families = [subnet.family for subnet, _ in map(_span, _written(ipam))]
    problems = []
    if ipam.has("addresses"):
        problems.append(
            f"{network.title}: its ipam gives the same addresses to every pod (addresses), which Orbweaver does not; take them "
            "out"
        )
    if any(families.count(family) > 1 for family in families):
        problems.append(
            f"{network.title}: its ipam gives each pod several addresses of one family, where Orbweaver gives one; leave one "
            "range of each family"
        )
    if not families:
        problems.append(
            f"{network.title}: its ipam names no range, which it may have from a file on the nodes; write the range into it"
        )
    return problems


def _written(ipam: Fields) -> tuple[Fields, ...]:
    return ((ipam,) if ipam.text("range") else ()) + ipam.items("ipRanges")


def _uses(
    network: Network, section: IpamSection, written: Fields, slices: Slices, differences: list[str]
) -> list[RangeUse]:
    ipam = section.ipam
    subnet, usable = _span(written)
    given = _gateway(ipam, subnet.family)
    routes = routes_of(ipam, subnet.family, given)
    differences += [
        f"{network.title}: pods do not get the route to {destination} any more, which had no gateway"
        for destination in routes.lost
    ]
    network_name = ipam.text("network_name")
    whole = usable.minus(_excluded(written, subnet.family))
    parts: list[tuple[tuple[str, ...], IntervalSet, Subnet]] = [((), whole, subnet)]
    if ipam.text("node_slice_size"):
        of = network_name or network.name
        parts = []
        for node, text in slices.get(of, ()):
            part = parse_cidr(text)
            parts.append(((node,), _inner(part), part))
        differences.append(
            f"{network.title}: nodes keep the slices that they have (NodeSlicePool {of}), as pools of one node each; a node "
            "that comes later needs a pool of its own"
        )
    routers = {router for router in (given, routes.gateway) if router is not None}
    kept = IntervalSet((router, router) for router in routers)  # Whereabouts would give them out
    return [
        RangeUse(
            network,
            section.place,
            network_name,
            ipam.flag("enable_overlapping_ranges", True),
            Window(network.title, subnet, addresses.minus(kept), routes.gateway, routes.others, nodes),
            ip_pool_name(part, network_name, *nodes),
            part,
        )
        for nodes, addresses, part in parts
    ]


def _span(written: Fields) -> tuple[Subnet, IntervalSet]:
    """The subnet of a range, and what of it may be given out but for what is excluded."""
    text = written.text("range")
    first, dash, rest = text.partition("-")
    low: int | None = None
    high: int | None = None
    if dash:
        subnet = parse_cidr(rest)
        low = parse_address_of(first, subnet.family)
        high = parse_address_of(rest.partition("/")[0], subnet.family)
    else:
        subnet = parse_cidr(text)
        low = _bound(written, "range_start", subnet)
        high = _bound(written, "range_end", subnet)
    inner = _inner(subnet)
    ends = inner.first, inner.last
    assert ends[0] is not None
    assert ends[1] is not None
    lowest = low if low is not None and low in inner else ends[0]
    highest = high if high is not None and high in inner and high >= lowest else ends[1]
    return subnet, IntervalSet([(lowest, highest)])


def _inner(subnet: Subnet) -> IntervalSet:
    if subnet.size < 4:
        raise InvalidObject(f"{subnet} has no address between its first and its last one")
    return IntervalSet([(subnet.first + 1, subnet.last - 1)])


def _bound(written: Fields, key: str, subnet: Subnet) -> int | None:
    """Whereabouts takes what is no address for nothing, and what is one of the other family for outside."""
    try:
        family, value = parse_address(written.text(key))
    except InvalidObject:
        return None
    return value if family == subnet.family else None


def _excluded(written: Fields, family: int) -> IntervalSet:
    spans = []
    for text in written.texts("exclude"):
        if "/" in text:
            subnet = parse_cidr(text)
            spans += [(subnet.first, subnet.last)] if subnet.family == family else []
        else:
            of, value = parse_address(text)
            spans += [(value, value)] if of == family else []
    return IntervalSet(spans)


def _gateway(ipam: Fields, family: int) -> int | None:
    text = ipam.text("gateway")
    if not text:
        return None
    of, value = parse_address(text)
    return value if of == family else None


def ip_pool_name(subnet: Subnet, network_name: str, node: str = "") -> str:
    """What Whereabouts calls the IPPool of a range."""
    word = str(subnet).replace(":", "-").replace("/", "-")
    return "-".join(part for part in (network_name, node, word) if part)


def reservation_name(family: int, value: int, network_name: str) -> str:
    """What Whereabouts calls the OverlappingRangeIPReservation of an address."""
    text = format_address(family, value)
    word = (f"{text}0" if text.endswith(":") else text).replace(":", "-")
    return f"{network_name}-{word}" if network_name else word
