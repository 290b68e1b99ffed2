"""SpiderIPPool: a set of addresses of one family in one subnet, and which pods may have them.

What must always hold: an `IPPool` is consistent, whoever wrote the object. Its addresses are of its family
and inside its subnet, so nothing after parsing checks that again. `available` is `ips` minus `excludeIPs` and minus
what no pod may have (`withheld`), as intervals; reserved addresses (SpiderReservedIP) and used ones are not
known here. A pool without `ips` has no address: the subnet alone gives none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

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
from actors.resources.metadata import open_object
from actors.resources.selectors import LabelSelector
from actors.resources.withheld import explained, withheld

KIND = "SpiderIPPool"
SPEC_FIELDS = (
    "ipVersion",
    "subnet",
    "ips",
    "excludeIPs",
    "gateway",
    "routes",
    "vlan",
    "podAffinity",
    "namespaceAffinity",
    "namespaceName",
    "nodeAffinity",
    "nodeName",
    "multusName",
    "default",
    "disable",
)
OWNER_APPLICATION = "ipam.spidernet.io/owner-application-name"
"""The label that marks a pool created for one application from a SpiderSubnet."""


@dataclass(frozen=True, slots=True)
class PoolRoute:
    """A route through a gateway; both of one family."""

    destination: Subnet
    gateway: int

    @property
    def family(self) -> int:
        return self.destination.family


@dataclass(frozen=True, slots=True)
class IPPool:
    """One pool, parsed. None for an affinity means that it does not matter."""

    name: str
    """Of the object."""
    subnet: Subnet
    """`spec.subnet`, whose length its addresses have."""
    ips: IntervalSet = field(default_factory=IntervalSet)
    """`spec.ips`."""
    exclude_ips: IntervalSet = field(default_factory=IntervalSet)
    """`spec.excludeIPs`."""
    available: IntervalSet = field(default_factory=IntervalSet)
    """What it may give out: `ips` without the excluded and the withheld ones."""
    withheld: IntervalSet = field(default_factory=IntervalSet)
    """What it lists and no pod may have (`withheld.py`)."""
    gateway: int | None = None
    """`spec.gateway` as a number."""
    routes: tuple[PoolRoute, ...] = ()
    """`spec.routes`, beside the default route by the gateway."""
    vlan: int = 0
    """`spec.vlan`; 0 means none."""
    pod_affinity: LabelSelector | None = None
    """Labels that a pod must have."""
    namespace_affinity: LabelSelector | None = None
    """Labels that its namespace must have."""
    namespace_names: tuple[str, ...] = ()
    """Or the namespaces that may use it; empty for all."""
    node_affinity: LabelSelector | None = None
    """Labels that its node must have."""
    node_names: tuple[str, ...] = ()
    """Or the nodes that may use it; empty for all."""
    multus_names: tuple[str, ...] = ()
    """Network attachments, `namespace/name` or `name`, whose interfaces may use it; empty for all."""
    default: bool = False
    """Whether pods that name no pool get this one."""
    disabled: bool = False
    """Whether it gives out no more."""
    terminating: bool = False
    """Whether it is being deleted, which keeps it until its last address is back."""
    uid: str = ""
    """Of the object."""
    version: str = ""
    """Of the object, as it was read."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Of the object; those of an application's pool say whose it is."""

    @property
    def family(self) -> int:
        return self.subnet.family

    @property
    def auto_created(self) -> bool:
        """Made for one application from a SpiderSubnet."""
        return OWNER_APPLICATION in self.labels

    @property
    def withheld_reason(self) -> str:
        """Which of the addresses that it lists are not given out, and why; "" where there is none."""
        return explained(self.subnet, self.withheld)

    @classmethod
    def from_object(cls, obj: Mapping[str, Any]) -> IPPool:
        """Parse the API object. Raises `InvalidObject` that names pool, field, value and rule."""
        meta, top = open_object(obj, KIND)
        spec = top.inner("spec")
        subnet = parse_subnet(spec)
        ips = parse_ranges(spec, "ips", subnet)
        exclude_ips = parse_ranges(spec, "excludeIPs", subnet)
        listed = ips.minus(exclude_ips)
        never = listed.intersect(withheld(subnet))
        return cls(
            name=meta.name,
            subnet=subnet,
            ips=ips,
            exclude_ips=exclude_ips,
            available=listed.minus(never) if never else listed,
            withheld=never,
            gateway=parse_gateway(spec, subnet),
            routes=parse_routes(spec, subnet.family),
            vlan=parse_vlan(spec),
            pod_affinity=_affinity(spec, "podAffinity"),
            namespace_affinity=_affinity(spec, "namespaceAffinity"),
            namespace_names=spec.texts("namespaceName"),
            node_affinity=_affinity(spec, "nodeAffinity"),
            node_names=spec.texts("nodeName"),
            multus_names=spec.texts("multusName"),
            default=spec.flag("default"),
            disabled=spec.flag("disable"),
            terminating=meta.deleted_at is not None,
            uid=meta.uid,
            version=meta.version,
            labels=meta.labels,
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


def parse_vlan(spec: Fields) -> int:
    """`spec.vlan`, an IEEE 802.1Q VLAN id; 0 for none. Spiderpool had the field up to its version 0.9."""
    vlan = spec.number("vlan", 0)
    if not 0 <= vlan <= 4094:
        raise spec.refuse("vlan", "but a VLAN id is 1 to 4094, and 0 means none")
    return vlan


def _affinity(spec: Fields, key: str) -> LabelSelector | None:
    return LabelSelector.from_fields(spec.inner(key)) if spec.has(key) else None
