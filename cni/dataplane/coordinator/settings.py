"""The network configuration of the chained plugin `coordinator`, read whole or refused.

What must always hold: field names, defaults and meanings are those of Spiderpool's coordinator (its documentation,
"CNI fields description"), and the rules are those that a SpiderCoordinator is admitted by (`coordinator_rules`); a wrong
value is an `InvalidRequest` that names the field and shows a right form. What Spiderpool takes and this plugin cannot do
never stops a pod: it is left out, with a warning. DEL and GC stop at nothing: for them every wrong field is left out and
told (`without_wrong_fields`).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from actors.decisions.detection import DetectionOverrides, read_overrides
from actors.errors import InvalidRequest
from actors.resources.coordinator_rules import KERNEL_TABLES, read_field
from actors.resources.fields import Fields, shown

HOST_TABLE = 500
"""The node's routing table for routes to pods, and the pod's for marked replies, unless `hostRuleTable` says another."""

_DETECTION = ("detectIPConflict", "detectGateway", "detectOptions")


class WrongField(InvalidRequest):
    """`fields`: those of which one is wrong."""

    def __init__(self, message: str, fields: tuple[str, ...]) -> None:
        super().__init__(message)
        self.fields = fields


@dataclass(frozen=True, slots=True)
class CoordinatorSettings:
    """The coordinator's configuration, in order, with the SpiderCoordinator's defaults filled in."""

    network: str = ""
    """The CNI network's name."""
    mode: str = "auto"
    """`auto`, `underlay`, `overlay` or `disable`."""
    first_nic: str = "eth0"
    """The name of the pod's first interface (`podDefaultCniNic`)."""
    default_nic: str = ""
    """The interface that keeps the default route; empty for the first one that has it."""
    pod_chose: bool = False
    """The pod's own annotation names that one."""
    hijack: tuple[str, ...] = ()
    """The overlay pod, service and hijack CIDRs, in this order: what leads to them goes by way of the host."""
    policy_routes: tuple[tuple[str, str], ...] = ()
    """Further destinations with their gateways, for the table of this interface."""
    tune_routes: bool = True
    """Whether routes are moved into tables at all (`tunePodRoutes`)."""
    host_table: int = HOST_TABLE
    """The number of the host's routing table for pods (`hostRuleTable`)."""
    pod_rp_filter: int | None = 0
    """The pod's rp_filter (0, 1, 2); None leaves it alone."""
    host_rp_filter: int | None = None
    """The host's, likewise."""
    queue: int = 0
    """The transmit queue's length; 0 leaves it alone."""
    mac_prefix: str = ""
    """Two octets that MACs of pods begin with (`podMACPrefix`); empty for the kernel's own."""
    veth_address: str = ""
    """The link-local address of the pod's end of the veth pair; empty for none."""
    veth_mtu: int = 1500
    """Of that pair."""
    detection: DetectionOverrides = field(default_factory=DetectionOverrides)
    """What this network wishes otherwise than the agent's settings."""
    warnings: tuple[str, ...] = ()
    """What was asked for and left out."""


def read_settings(conf: Mapping[str, Any]) -> CoordinatorSettings:
    """Understand the plugin's configuration. Raises `InvalidRequest`."""
    given = _GivenSettings(conf)
    hijack = [cidr for key in ("overlayPodCIDR", "serviceCIDR", "hijackCIDR") for cidr in given.read(key, ())]
    warnings: list[str] = []
    return CoordinatorSettings(
        network=given.network,
        mode=given.read("mode", "") or "auto",
        first_nic=given.read("podDefaultCniNic", "") or "eth0",
        # The plugin's field ends in "Nic", the one of the SpiderCoordinator object in "NIC".
        default_nic=given.read("podDefaultRouteNic", "") or given.read("podDefaultRouteNIC", ""),
        hijack=tuple(dict.fromkeys(hijack)),
        policy_routes=given.read("policyRoutes", ()),
        tune_routes=given.read("tunePodRoutes", True),
        host_table=_host_table(given, warnings),
        pod_rp_filter=given.read("podRPFilter", 0),
        host_rp_filter=given.read("hostRPFilter", None),
        queue=given.read("txQueueLen", 0),
        mac_prefix=given.read("podMACPrefix", ""),
        veth_address=_veth_address(given, warnings),
        veth_mtu=given.read("vethMTU", 1500),
        detection=_detection(conf, given.network),
        warnings=tuple(warnings),
    )


def without_wrong_fields(conf: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The configuration without the fields that `read_settings` refuses, so that their defaults hold, and why each was left
    out."""
    left, reasons = dict(conf), []
    while True:
        try:
            read_settings(left)
        except WrongField as error:
            wrong = [field for field in error.fields if field in left]
            if not wrong:
                raise
            reasons.append(error.message)
            for field in wrong:
                del left[field]
        else:
            return left, tuple(reasons)


def usable_veth_address(address: str, pod: Iterable[str], host: Iterable[str] = ()) -> bool:
    """Whether the pod's end of the veth pair can have it beside these addresses (CIDR form): one that is in a subnet of the
    pod would take a neighbour's, or the gateway's, place in the pod."""
    wanted = ipaddress.ip_address(address)
    subnets = [ipaddress.ip_interface(cidr).network for cidr in pod]
    return all(wanted not in subnet for subnet in subnets) and all(
        wanted != ipaddress.ip_interface(cidr).ip for cidr in host
    )


class _GivenSettings:
    """The fields of one configuration, each read by its rule; blanks around a text are nothing."""

    def __init__(self, conf: Mapping[str, Any]) -> None:
        self._conf = conf
        self.network = str(conf.get("name", ""))

    def get(self, key: str) -> Any:
        return _stripped(self._conf.get(key))

    def read(self, key: str, default: Any) -> Any:
        value = self.get(key)
        if value is None:
            return default
        try:
            return read_field(key, value)
        except ValueError as error:
            raise self.wrong(key, f"it must be {error}") from error

    def wrong(self, key: str, right: str) -> WrongField:
        text = f'"{key}" of network {self.network} (coordinator) is {shown(self._conf.get(key))}; {right}'
        return WrongField(text, (key,))


def _stripped(value: Any) -> Any:
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, list):
        return [_stripped(entry) for entry in value]
    if isinstance(value, Mapping):
        return {key: _stripped(inner) for key, inner in value.items()}
    return value


def _host_table(given: _GivenSettings, warnings: list[str]) -> int:
    value = given.get("hostRuleTable")
    if isinstance(value, int) and not isinstance(value, bool) and value in (0, *KERNEL_TABLES):
        warnings.append(f"hostRuleTable {value} is not a table of its own; {HOST_TABLE} is used instead")
        return HOST_TABLE
    table: int = given.read("hostRuleTable", HOST_TABLE)
    return table


def _veth_address(given: _GivenSettings, warnings: list[str]) -> str:
    try:
        address: str = given.read("vethLinkAddress", "")
    except InvalidRequest as error:
        warnings.append(f"{error.message}; the pods' veth gets none")
        return ""
    return address


def _detection(conf: Mapping[str, Any], network: str) -> DetectionOverrides:
    try:
        return read_overrides(Fields.of(f"network {network} (coordinator)", "", conf, InvalidRequest))
    except InvalidRequest as error:
        raise WrongField(error.message, _DETECTION) from error
