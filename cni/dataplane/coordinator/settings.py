"""The network configuration of the chained plugin `coordinator`, read whole or refused.

What must always hold: field names, defaults and meanings are those of Spiderpool's coordinator (its documentation,
"CNI fields description"); a wrong value is an `InvalidRequest` that names the field and shows a right form.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from actors.decisions.detection import DetectionOverrides, read_wishes
from actors.errors import InvalidRequest

MODES = ("auto", "underlay", "overlay", "disable")
_MAC_PREFIX = re.compile(r"[0-9a-fA-F][02468aceACE][:-][0-9a-fA-F]{2}")


@dataclass(frozen=True, slots=True)
class CoordinatorSettings:
    """`hijack`: the overlay pod, service and hijack CIDRs, in this order. `rp_filter`: None leaves it alone.
    `default_nic`: empty for the first interface that has a default route. `pod_chose`: the pod's own annotation names
    it."""

    network: str = ""
    mode: str = "auto"
    first_nic: str = "eth0"
    default_nic: str = ""
    pod_chose: bool = False
    hijack: tuple[str, ...] = ()
    policy_routes: tuple[tuple[str, str], ...] = ()
    tune_routes: bool = True
    host_table: int = 500
    pod_rp_filter: int | None = 0
    host_rp_filter: int | None = None
    queue: int = 0
    mac_prefix: str = ""
    veth_address: str = ""
    veth_mtu: int = 1500
    detection: DetectionOverrides = field(default_factory=DetectionOverrides)


def read_settings(conf: Mapping[str, Any]) -> CoordinatorSettings:
    """Understand the plugin's configuration. Raises `InvalidRequest`."""
    network = str(conf.get("name", ""))
    hijack = [
        cidr
        for key in ("overlayPodCIDR", "serviceCIDR", "hijackCIDR")
        for cidr in _cidrs(conf.get(key), key, network)
    ]
    mode = conf.get("mode") or "auto"
    if mode not in MODES:
        raise _wrong("mode", network, mode, f"one of {', '.join(MODES)}")
    prefix = _text(conf, "podMACPrefix", network)
    if prefix and not _MAC_PREFIX.fullmatch(prefix):
        raise _wrong("podMACPrefix", network, prefix, "two bytes, the first one even, such as 0a:1b")
    return CoordinatorSettings(
        network=network,
        mode=mode,
        first_nic=_text(conf, "podDefaultCniNic", network) or "eth0",
        # The plugin's field ends in "Nic", the one of the SpiderCoordinator object in "NIC".
        default_nic=_text(conf, "podDefaultRouteNic", network) or _text(conf, "podDefaultRouteNIC", network),
        hijack=tuple(dict.fromkeys(hijack)),
        policy_routes=_policy_routes(conf.get("policyRoutes"), network),
        tune_routes=_flag(conf, "tunePodRoutes", network),
        host_table=_number(conf, "hostRuleTable", network, 500, 1, 2**32 - 1),
        pod_rp_filter=_rp_filter(conf, "podRPFilter", network, 0),
        host_rp_filter=_rp_filter(conf, "hostRPFilter", network, None),
        queue=_number(conf, "txQueueLen", network, 0, 0, 2**31 - 1),
        mac_prefix=prefix.lower().replace("-", ":"),
        veth_address=_link_local(_text(conf, "vethLinkAddress", network), network),
        veth_mtu=_number(conf, "vethMTU", network, 1500, 68, 65535),
        detection=_detection(conf, network),
    )


def _wrong(field: str, network: str, value: object, right: str) -> InvalidRequest:
    return InvalidRequest(f'"{field}" of network {network} (coordinator) is {value!r}; it must be {right}')


def _text(conf: Mapping[str, Any], field: str, network: str) -> str:
    value = conf.get(field)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise _wrong(field, network, value, "text")
    return value.strip()


def _flag(conf: Mapping[str, Any], field: str, network: str) -> bool:
    value = conf.get(field)
    if value is not None and not isinstance(value, bool):
        raise _wrong(field, network, value, "true or false")
    return True if value is None else value


def _number(conf: Mapping[str, Any], field: str, network: str, default: int, low: int, high: int) -> int:
    value = conf.get(field)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise _wrong(field, network, value, f"a whole number from {low} to {high}")
    return value


def _rp_filter(conf: Mapping[str, Any], field: str, network: str, default: int | None) -> int | None:
    value = conf.get(field)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or value > 2:
        raise _wrong(field, network, value, "0, 1 or 2, or -1 to leave it as it is")
    return value if value >= 0 else None


def _list(value: Any, field: str, network: str) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise _wrong(field, network, value, "a list")
    return value


def _cidrs(value: Any, field: str, network: str) -> tuple[str, ...]:
    found = []
    for text in _list(value, field, network):
        if not isinstance(text, str) or "/" not in text:
            raise _wrong(field, network, text, "subnets in CIDR form, such as 10.96.0.0/12")
        found.append(_cidr(text, field, network))
    return tuple(found)


def _cidr(text: str, field: str, network: str) -> str:
    try:
        return str(ipaddress.ip_network(text.strip(), strict=False))
    except ValueError as error:
        raise _wrong(
            field, network, text, f"a subnet in CIDR form, such as 10.96.0.0/12 ({error})"
        ) from error


def _policy_routes(value: Any, network: str) -> tuple[tuple[str, str], ...]:
    found = []
    for entry in _list(value, "policyRoutes", network):
        dst = entry.get("dst") if isinstance(entry, dict) else None
        gw = entry.get("gw") if isinstance(entry, dict) else None
        right = 'objects like {"dst": "10.10.0.0/16", "gw": "10.6.0.1"}, both of one address family'
        if not isinstance(dst, str) or not isinstance(gw, str):
            raise _wrong("policyRoutes", network, entry, right)
        try:
            target = ipaddress.ip_network(dst.strip(), strict=False)
            hop = ipaddress.ip_address(gw.strip())
        except ValueError as error:
            raise _wrong("policyRoutes", network, entry, right) from error
        if target.version != hop.version:
            raise _wrong("policyRoutes", network, entry, right)
        found.append((str(target), str(hop)))
    return tuple(found)


def _detection(conf: Mapping[str, Any], network: str) -> DetectionOverrides:
    try:
        return read_wishes(conf)
    except ValueError as error:
        raise InvalidRequest(f"network {network} (coordinator): {error}") from error


def _link_local(text: str, network: str) -> str:
    if not text:
        return ""
    try:
        address = ipaddress.ip_address(text)
    except ValueError as error:
        raise _wrong("vethLinkAddress", network, text, "an address such as 169.254.100.1") from error
    if address.version != 4 or not address.is_link_local:
        raise _wrong("vethLinkAddress", network, text, "in 169.254.0.0/16 (RFC 3927)")
    return str(address)
