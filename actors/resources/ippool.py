"""SpiderIPPool: a set of addresses of one family in one subnet, and which pods may have them.

What must always hold: an `IPPool` is consistent, as every `Space` is. A pool without `ips` has no address: the subnet alone
gives none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from actors.resources.fields import Fields
from actors.resources.metadata import open_object
from actors.resources.selectors import LabelSelector
from actors.resources.space import Space

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
class IPPool(Space):
    """One pool, parsed. None for an affinity means that it does not matter."""

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
    labels: Mapping[str, str] = field(default_factory=dict)
    """Of the object; those of an application's pool say whose it is."""

    @property
    def auto_created(self) -> bool:
        """Made for one application from a SpiderSubnet."""
        return OWNER_APPLICATION in self.labels

    @classmethod
    def from_object(cls, obj: Mapping[str, Any]) -> IPPool:
        """Parse the API object. Raises `InvalidObject` that names pool, field, value and rule."""
        meta, top = open_object(obj, KIND)
        spec = top.inner("spec")
        return cls.parse(
            meta,
            spec,
            vlan=parse_vlan(spec),
            pod_affinity=_affinity(spec, "podAffinity"),
            namespace_affinity=_affinity(spec, "namespaceAffinity"),
            namespace_names=spec.texts("namespaceName"),
            node_affinity=_affinity(spec, "nodeAffinity"),
            node_names=spec.texts("nodeName"),
            multus_names=spec.texts("multusName"),
            default=spec.flag("default"),
            disabled=spec.flag("disable"),
            labels=meta.labels,
        )


def parse_vlan(spec: Fields) -> int:
    """`spec.vlan`, an IEEE 802.1Q VLAN id; 0 for none. Spiderpool had the field up to its version 0.9."""
    vlan = spec.number("vlan", 0)
    if not 0 <= vlan <= 4094:
        raise spec.refuse("vlan", "but a VLAN id is 1 to 4094, and 0 means none")
    return vlan


def _affinity(spec: Fields, key: str) -> LabelSelector | None:
    return LabelSelector.from_fields(spec.inner(key)) if spec.has(key) else None
