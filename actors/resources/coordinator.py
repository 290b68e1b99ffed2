"""SpiderCoordinator: what every pod's coordinator does unless its network says otherwise, and the cluster's CIDRs.

What must always hold: field names and meanings are Spiderpool's; `conf` has the fields as a plugin's own configuration
would have them, so that one reader understands both; a field that is empty is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from actors.errors import InvalidObject
from actors.resources.addresses import WIDTH, Subnet, parse_address, parse_cidr
from actors.resources.fields import Fields
from actors.resources.metadata import open_object

KIND = "SpiderCoordinator"
NAME = "default"
SYNCED, NOT_READY = "Synced", "NotReady"
POD_CIDR_TYPES = ("auto", "cluster", "calico", "cilium", "none")
MODES = ("auto", "underlay", "overlay", "disabled")
_FLAGS = ("tunePodRoutes", "detectIPConflict", "detectGateway")
_NUMBERS = ("podRPFilter", "hostRPFilter", "hostRuleTable", "txQueueLen", "vethMTU")
_TEXTS = ("mode", "podDefaultRouteNIC", "podMACPrefix", "vethLinkAddress")
SPEC_FIELDS = (*_TEXTS, *_FLAGS, *_NUMBERS, "podCIDRType", "hijackCIDR", "policyRoutes")


@dataclass(frozen=True, slots=True)
class SpiderCoordinator:
    """`conf`: the object's fields as a plugin's configuration says them. `phase` is "" before anybody looked for the
    cluster's CIDRs, `reason` says why they are not known."""

    name: str
    pod_cidr_type: str
    conf: Mapping[str, Any]
    phase: str = ""
    reason: str = ""

    @classmethod
    def from_object(cls, obj: Mapping[str, Any]) -> SpiderCoordinator:
        """Parse the API object. Raises `InvalidObject`."""
        meta, top = open_object(obj, KIND)
        spec, status = top.inner("spec"), top.inner("status")
        kind = spec.text("podCIDRType") or "auto"
        if kind not in POD_CIDR_TYPES:
            raise spec.refuse("podCIDRType", f"but must be one of {', '.join(POD_CIDR_TYPES)}")
        if spec.text("mode") and spec.text("mode") not in MODES:
            raise spec.refuse("mode", f"but must be one of {', '.join(MODES)}")
        conf: dict[str, Any] = {key: spec.text(key) for key in _TEXTS}
        conf["mode"] = "disable" if conf["mode"] == "disabled" else conf["mode"]
        conf |= {key: spec.flag(key) for key in _FLAGS if spec.has(key)}
        conf |= {key: spec.number(key, 0) for key in _NUMBERS if spec.has(key)}
        conf["hijackCIDR"] = _cidrs(spec, "hijackCIDR")
        conf["policyRoutes"] = [
            {"dst": route.text("dst"), "gw": route.text("gw")} for route in spec.items("policyRoutes")
        ]
        for key in ("overlayPodCIDR", "serviceCIDR"):
            conf[key] = _cidrs(status, key)
        given = {key: value for key, value in conf.items() if value not in ("", [])}
        return cls(meta.name, kind, given, status.text("phase"), status.text("reason"))

    def under(self, conf: Mapping[str, Any]) -> dict[str, Any]:
        """A plugin's configuration on top of the object: what it leaves out or empty is the object's."""
        return {**self.conf, **{key: value for key, value in conf.items() if value not in ("", [], None)}}


def _cidrs(fields: Fields, key: str) -> list[str]:
    """Subnets; an address alone means itself."""
    return [str(fields.read(key, _cidr, text, index=index)) for index, text in enumerate(fields.texts(key))]


def _cidr(text: str) -> Subnet:
    if "/" in text:
        return parse_cidr(text)
    try:
        family, value = parse_address(text)
    except InvalidObject:
        return parse_cidr(text)  # which says how a subnet is written
    return Subnet(family, value, WIDTH[family])
