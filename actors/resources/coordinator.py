"""SpiderCoordinator: what every pod's coordinator does unless its network says otherwise, and the cluster's CIDRs.

What must always hold: field names and meanings are Spiderpool's; `conf` has the fields as a plugin's own configuration
would have them, so that one reader understands both; a field that is empty is left out; an object that is read here is one
that the plugin can use, because the rules are the same (`coordinator_rules`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from actors.errors import InvalidObject
from actors.resources.coordinator_rules import MOST, OBJECT_MODES, FieldRule, read_field, word
from actors.resources.fields import Fields, Refusals
from actors.resources.metadata import open_object

KIND = "SpiderCoordinator"
NAME = "default"
SYNCED, NOT_READY = "Synced", "NotReady"
_PLAIN = (
    *("podDefaultRouteNIC", "podMACPrefix", "vethLinkAddress"),
    *("tunePodRoutes", "detectIPConflict", "detectGateway"),
    *("podRPFilter", "hostRPFilter", "hostRuleTable", "txQueueLen", "vethMTU"),
)
"""Fields that a plugin's configuration has under the same name and with the same values."""
SPEC_FIELDS = ("mode", *_PLAIN, "podCIDRType", "hijackCIDR", "policyRoutes")
_MODE: FieldRule = word(*OBJECT_MODES)


@dataclass(frozen=True, slots=True)
class SpiderCoordinator:
    """The cluster's defaults for the coordinator plugin."""

    name: str
    """Of the object; the one called `default` counts."""
    pod_cidr_type: str
    """Where the pods' CIDRs are looked for (`auto`, `cluster`, `calico`, `cilium`, `none`)."""
    conf: Mapping[str, Any]
    """The object's fields as a plugin's configuration says them."""
    phase: str = ""
    """Of its status: `Synced` or `NotReady`, "" before anybody looked for the cluster's CIDRs."""
    reason: str = ""
    """Of its status: why they are not known."""

    @classmethod
    def from_object(cls, obj: Mapping[str, Any]) -> SpiderCoordinator:
        """Parse the API object. Raises `InvalidObject`."""
        meta, top = open_object(obj, KIND)
        spec, status = top.inner("spec"), top.inner("status")
        conf = read_coordinator_fields(spec)
        for key in ("overlayPodCIDR", "serviceCIDR"):
            if cidrs := _cidrs(status, key):
                conf[key] = cidrs
        kind = spec.text("podCIDRType") or "auto"
        return cls(meta.name, kind, conf, status.text("phase"), status.text("reason"))

    def under(self, conf: Mapping[str, Any]) -> dict[str, Any]:
        """A plugin's configuration on top of the object: what it leaves out or empty is the object's."""
        return {**self.conf, **{key: value for key, value in conf.items() if value not in ("", [], None)}}


def read_coordinator_fields(spec: Fields) -> dict[str, Any]:
    """What the fields of an object say, as a plugin's configuration says it; those that are empty are left out. Raises
    `InvalidObject` with all that is wrong."""
    refusals = Refusals(spec.subject)
    conf: dict[str, Any] = {}
    with refusals:
        if spec.has("mode"):
            mode = _read(spec, "mode", _MODE)
            conf["mode"] = "disable" if mode == "disabled" else mode
    for key in _PLAIN:
        with refusals:
            if spec.has(key):
                _read(spec, key)
                conf[key] = spec.data[key]
    with refusals:
        if spec.has("podCIDRType"):
            _read(spec, "podCIDRType")
    with refusals:
        routes = _read(spec, "policyRoutes") if spec.has("policyRoutes") else ()
        conf["policyRoutes"] = [{"dst": dst, "gw": gw} for dst, gw in routes]
    with refusals:
        conf["hijackCIDR"] = _cidrs(spec, "hijackCIDR")
        if len(conf["hijackCIDR"]) > MOST:
            raise spec.refuse("hijackCIDR", f"but may have {MOST} entries at most", "join some of them")
    refusals.require_none()
    return {key: value for key, value in conf.items() if value not in ("", [])}


def _read(fields: Fields, key: str, rule: FieldRule | None = None) -> Any:
    try:
        return rule.read(fields.data[key]) if rule is not None else read_field(key, fields.data[key])
    except ValueError as error:
        right = rule.right if rule is not None else str(error)
        raise fields.refuse(key, f"but it must be {right}") from error


def _cidrs(fields: Fields, key: str) -> list[str]:
    """Subnets; each refusal names its entry."""
    cidrs: list[str] = []
    for index, text in enumerate(fields.texts(key)):
        cidrs += fields.read(key, lambda text: _cidr(key, text), text, index=index)
    return cidrs


def _cidr(key: str, text: str) -> tuple[str, ...]:
    try:
        subnets: tuple[str, ...] = read_field(key, [text])
    except ValueError as error:
        raise InvalidObject(f"{text!r} is not a subnet in CIDR form; it must be {error}") from error
    return subnets
