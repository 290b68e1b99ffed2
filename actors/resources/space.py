"""What a SpiderIPPool and a SpiderSubnet have in common: addresses of one family in one CIDR, a gateway and routes.

What must always hold: a `Space` is consistent, whoever wrote the object. Its addresses are of its family and inside its
subnet, so nothing after parsing checks that again. `available` is `ips` minus `excludeIPs` and minus what no pod may have
(`withheld`), as intervals; reserved addresses (SpiderReservedIP) and used ones are not known here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Self

from actors.resources.addresses import (
    IPV6,
    Subnet,
    format_range,
    is_link_local,
    parse_address_of,
    parse_cidr,
    parse_range,
)
from actors.resources.fields import Fields
from actors.resources.intervals import IntervalSet
from actors.resources.metadata import Metadata
from actors.resources.withheld import explained, withheld


@dataclass(frozen=True, slots=True)
class PoolRoute:
    """A route through a gateway; both of one family."""

    destination: Subnet
    gateway: int

    @property
    def family(self) -> int:
        return self.destination.family


@dataclass(frozen=True, slots=True)
class Space:
    """A pool or a subnet, as far as they are alike."""

    name: str
    """Of the object."""
    subnet: Subnet
    """`spec.subnet`, whose length its addresses have."""
    ips: IntervalSet = field(default_factory=IntervalSet)
    """`spec.ips`."""
    exclude_ips: IntervalSet = field(default_factory=IntervalSet)
    """`spec.excludeIPs`."""
    listed: IntervalSet = field(default_factory=IntervalSet)
    """`ips` without `exclude_ips`."""
    available: IntervalSet = field(default_factory=IntervalSet)
    """What it may give out: what is listed without the withheld ones, and without a subnet's gateway."""
    withheld: IntervalSet = field(default_factory=IntervalSet)
    """What it lists and nobody may have (`withheld.py`)."""
    gateway: int | None = None
    """`spec.gateway` as a number."""
    routes: tuple[PoolRoute, ...] = ()
    """`spec.routes`, beside the default route by the gateway."""
    terminating: bool = False
    """Whether it is being deleted, which keeps it until its last address or pool is back."""
    uid: str = ""
    """Of the object."""
    version: str = ""
    """Of the object, as it was read."""

    @property
    def family(self) -> int:
        return self.subnet.family

    @property
    def withheld_reason(self) -> str:
        """Which of the addresses that it lists nobody gets, and why; "" where there is none."""
        return explained(self.subnet, self.withheld)

    @classmethod
    def parse(cls, meta: Metadata, spec: Fields, *, gateway_is_free: bool = True, **others: Any) -> Self:
        """Parse the common fields; `others` are those of the kind alone. `gateway_is_free`: an address of the list that is the
        gateway as well counts as available. Raises `InvalidObject` that names object, field, value and rule."""
        subnet = parse_subnet(spec)
        ips = parse_ranges(spec, "ips", subnet)
        exclude_ips = parse_ranges(spec, "excludeIPs", subnet)
        listed = ips.minus(exclude_ips)
        never = listed.intersect(withheld(subnet))
        available = listed.minus(never) if never else listed
        gateway = parse_gateway(spec, subnet)
        if gateway is not None and not gateway_is_free:
            available = available.minus(IntervalSet([(gateway, gateway)]))
        return cls(
            name=meta.name,
            subnet=subnet,
            ips=ips,
            exclude_ips=exclude_ips,
            listed=listed,
            available=available,
            withheld=never,
            gateway=gateway,
            routes=parse_routes(spec, subnet.family),
            terminating=meta.deleted_at is not None,
            uid=meta.uid,
            version=meta.version,
            **others,
        )


def parse_subnet(spec: Fields) -> Subnet:
    """`spec.subnet`, which `spec.ipVersion` must agree with where it is given."""
    if not spec.has("subnet"):
        raise spec.refuse("subnet", "but every pool needs one", "add it in CIDR form, such as 10.6.0.0/16")
    subnet = spec.read("subnet", parse_cidr)
    family = spec.number("ipVersion", subnet.family)
    if family not in (4, 6):
        raise spec.refuse("ipVersion", "but must be 4 or 6", "remove it to take the subnet's")
    if family != subnet.family:
        raise spec.refuse(
            "ipVersion",
            f"but {spec.at('subnet')} {subnet} is IPv{subnet.family}",
            "remove it to take the subnet's",
        )
    return subnet


def parse_ranges(spec: Fields, key: str, subnet: Subnet) -> IntervalSet:
    """The addresses and ranges in the list under `key`, each inside the subnet."""
    ranges = []
    for index, text in enumerate(spec.texts(key)):
        low, high = spec.read(key, lambda text: parse_range(text, subnet.family), text, index=index)
        if low < subnet.first or high > subnet.last:
            raise spec.error(
                f"{spec.subject}: {spec.at(key)}[{index}] is {text!r}, which is not inside"
                f" {spec.at('subnet')} {subnet}; write addresses of"
                f" {format_range(subnet.family, subnet.first, subnet.last)}"
            )
        ranges.append((low, high))
    return IntervalSet(ranges)


def parse_gateway(spec: Fields, subnet: Subnet) -> int | None:
    """`spec.gateway`, inside the subnet, or link-local: the usual one of IPv6 (RFC 4861). None when absent."""
    if not spec.text("gateway"):
        return None
    gateway = spec.read("gateway", lambda text: parse_address_of(text, subnet.family))
    if not is_router_of(subnet, gateway):
        raise spec.refuse(
            "gateway",
            f"which is not inside {spec.at('subnet')} {subnet}",
            "write the router's address in that subnet, or remove it for pods without a default route",
        )
    return gateway


def is_router_of(subnet: Subnet, address: int) -> bool:
    """Whether a pod in the subnet reaches a router at this address of the same family without another router."""
    return subnet.contains(address) or (subnet.family == IPV6 and is_link_local(IPV6, address))


def parse_routes(spec: Fields, family: int) -> tuple[PoolRoute, ...]:
    """`spec.routes`, all of this family."""
    routes = []
    for item in spec.items("routes"):
        item.only("dst", "gw")
        for key in ("dst", "gw"):
            if not item.text(key):
                raise item.refuse(key, "but every route needs dst and gw")
        destination = item.read("dst", parse_cidr)
        if destination.family != family:
            raise item.refuse(
                "dst",
                f"which is IPv{destination.family} in an IPv{family} pool",
                "move it to a pool of its family",
            )
        routes.append(PoolRoute(destination, item.read("gw", lambda text: parse_address_of(text, family))))
    return tuple(routes)
