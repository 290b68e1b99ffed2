"""SpiderSubnet: addresses of one family out of which pools are made, and what its status says of who has them.

What must always hold: a `SpiderSubnet` is consistent, as every `Space` is, and its gateway is not available. The status is
read with patience, because whatever stands there is put right from the pools: an entry that cannot be read is nobody's, and
costs no other entry. What is written is Spiderpool's own form: `controlledIPPools` is a JSON text, by pool.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from actors.errors import InvalidObject
from actors.resources.addresses import Subnet, parse_range
from actors.resources.intervals import IntervalSet
from actors.resources.json_text import UnreadableText, read_json
from actors.resources.metadata import open_object
from actors.resources.space import Space, parse_subnet

KIND = "SpiderSubnet"
SPEC_FIELDS = ("ipVersion", "subnet", "ips", "excludeIPs", "gateway", "routes")
SUBNET_CIDR_LABEL = "ipam.spidernet.io/subnet-cidr"
"""Spiderpool finds the subnet of a pool by this label."""
OWNER_SUBNET = "ipam.spidernet.io/owner-spider-subnet"
"""The label of a pool that says out of which subnet it is, by `label_value` of its name."""
IP_VERSION, IPPOOL_CIDR = "ipam.spidernet.io/ip-version", "ipam.spidernet.io/ippool-cidr"
"""Labels of a pool that say its family (`IPv4`) and its CIDR."""

CONTROLLED, FORMER = "controlledIPPools", "formerIPPools"
_LONGEST_STATUS = 1_572_864
"""Bytes of a text in the status: more than the API server takes."""


def cidr_label(subnet: Subnet) -> str:
    """`10-6-0-0-16`, as labels of pools and subnets write a CIDR."""
    return re.sub(r"[.:/]", "-", str(subnet))


@dataclass(frozen=True, slots=True)
class Controlled:
    """What one pool has of the subnet. `application`: for whom it was made, as the status names it; empty for a pool that
    somebody made by hand."""

    ips: IntervalSet
    application: str = ""


@dataclass(frozen=True, slots=True)
class SpiderSubnet(Space):
    """One subnet, parsed. Its gateway and routes are those of the pools that are made of it."""

    controlled: Mapping[str, Controlled] = field(default_factory=dict)
    """By pool, the addresses that it has of the subnet."""
    former: Mapping[str, IntervalSet] = field(default_factory=dict)
    """By pool that is gone or smaller, what it gave back and would like to have again."""
    exhausted: bool = False
    """By its condition."""
    total: int = 0
    """As its status counts: addresses that pools can be made of, and those that pools have."""
    allocated: int = 0
    """Addresses that pools have."""

    @classmethod
    def from_object(cls, obj: Mapping[str, Any]) -> SpiderSubnet:
        """Parse the API object. Raises `InvalidObject` that names subnet, field, value and rule."""
        meta, top = open_object(obj, KIND)
        status = obj.get("status")
        status = status if isinstance(status, Mapping) else {}
        spec = top.inner("spec")
        family = parse_subnet(spec).family
        return cls.parse(
            meta,
            spec,
            gateway_is_free=False,
            controlled=read_controlled(status.get(CONTROLLED), family),
            former=read_former(status.get(FORMER), family),
            **_counted(status),
        )

    def divided(
        self,
        stored: Mapping[str, Any],
        controlled: Mapping[str, Controlled],
        former: Mapping[str, IntervalSet],
    ) -> SpiderSubnet:
        """What the object says after its status alone was written; `controlled`, `former`: what that has of pools, which need
        not be parsed again."""
        status = stored["status"]
        return replace(
            self,
            version=stored["metadata"]["resourceVersion"],
            controlled=dict(controlled),
            former={pool: ips for pool, ips in former.items() if ips},
            **_counted(status),
        )


def _counted(status: Mapping[str, Any]) -> dict[str, Any]:
    """What a status says beside which pool has what."""
    return {
        "exhausted": _is_exhausted(status.get("conditions")),
        "total": _count(status.get("totalIPCount")),
        "allocated": _count(status.get("allocatedIPCount")),
    }


def read_controlled(text: object, family: int) -> dict[str, Controlled]:
    """The pools of `status.controlledIPPools`; what cannot be read is left out."""
    controlled: dict[str, Controlled] = {}
    for pool, entry in _mapping(text).items():
        if isinstance(entry, Mapping):
            ips = _ranges(entry.get("ips"), family)
            application = entry.get("application")
            if ips is not None and isinstance(application, str | None):
                controlled[pool] = Controlled(ips, application or "")
    return controlled


def read_former(text: object, family: int) -> dict[str, IntervalSet]:
    """The pools of `status.formerIPPools`; what cannot be read is left out."""
    read = ((pool, _ranges(entry, family)) for pool, entry in _mapping(text).items())
    return {pool: ips for pool, ips in read if ips}


def write_controlled(controlled: Mapping[str, Controlled], family: int) -> str | None:
    """The text for `status.controlledIPPools`; None for no pool, as Spiderpool has it."""
    content: dict[str, dict[str, Any]] = {}
    for pool in sorted(controlled):
        entry = controlled[pool]
        content[pool] = {"ips": list(entry.ips.ranges_text(family))}
        if entry.application:
            content[pool]["application"] = entry.application
    return _text(content)


def write_former(former: Mapping[str, IntervalSet], family: int) -> str | None:
    """The text for `status.formerIPPools`; None for no pool."""
    return _text({pool: list(former[pool].ranges_text(family)) for pool in sorted(former)})


def _text(content: Mapping[str, Any]) -> str | None:
    return json.dumps(content, separators=(",", ":")) if content else None


def _mapping(text: object) -> Mapping[str, Any]:
    if not isinstance(text, str) or not text:
        return {}
    try:
        mapping = read_json(text, longest=_LONGEST_STATUS)
    except UnreadableText:
        return {}
    return mapping if isinstance(mapping, Mapping) else {}


def _ranges(value: object, family: int) -> IntervalSet | None:
    """The addresses of a list of ranges; None for what is none."""
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        return None
    try:
        return IntervalSet(parse_range(entry, family) for entry in value)
    except InvalidObject:
        return None


def _count(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0


def _is_exhausted(conditions: object) -> bool:
    return isinstance(conditions, list) and any(
        isinstance(condition, Mapping)
        and condition.get("type") == "Exhausted"
        and condition.get("status") == "True"
        for condition in conditions
    )
