"""What each field of a coordinator may be: one rule for the SpiderCoordinator object and for a plugin's configuration.

What must always hold: whatever reads such a field applies its rule here, and the CRDs of SpiderCoordinator and
SpiderMultusConfig say the same to the API server, so that no object can be stored that keeps pods from starting. Field
names and meanings are Spiderpool's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from actors.errors import InvalidObject
from actors.resources.addresses import (
    IPV4,
    WIDTH,
    Subnet,
    format_address,
    is_unicast,
    parse_address,
    parse_cidr,
)
from actors.resources.interface_name import RULE as INTERFACE_RULE
from actors.resources.interface_name import is_interface_name

POD_CIDR_TYPES = ("auto", "cluster", "calico", "cilium", "none")
MODES = ("auto", "underlay", "overlay", "disable")
"""As a plugin's configuration names them; the object says `disabled`."""
OBJECT_MODES = ("auto", "underlay", "overlay", "disabled")
KERNEL_TABLES = (253, 254, 255)
"""Routing tables that belong to the whole node: default, main and local (linux/rtnetlink.h)."""
MOST = 256
"""Entries of a list that a person writes."""
MOST_CIDRS = 1024
"""Of a cluster's own lists."""

_MAC_PREFIX = re.compile(r"[0-9a-fA-F][02468aceACE][:-][0-9a-fA-F]{2}")


@dataclass(frozen=True, slots=True)
class FieldRule:
    """`read` gives what a value means and raises `ValueError` or `InvalidObject` if it is wrong; `right` says what would be
    right, to follow "it must be". `edges`: values on both sides of where it changes, for tests."""

    right: str
    read: Callable[[Any], Any]
    edges: tuple[Any, ...] = ()


def number(low: int, high: int, but: tuple[int, ...] = (), why: str = "") -> FieldRule:
    """A whole number within these bounds, none of those in `but`."""

    def read(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high or value in but:
            raise ValueError(value)
        return value

    edges = (low - 1, low, low + 1, high - 1, high, high + 1, *but)
    return FieldRule(f"a whole number from {low} to {high}{why}", read, edges)


def word(*words: str, empty: bool = False) -> FieldRule:
    """One of these words; `empty`: or none."""
    edges = ("", *words, words[0].upper(), f"{words[0]} ")
    return FieldRule(
        f"one of {', '.join(words)}", _reader(lambda text: text in words or (empty and text == "")), edges
    )


def _reader(accepts: Callable[[str], bool]) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if not isinstance(value, str) or not accepts(value):
            raise ValueError(value)
        return value

    return read


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(value)
    return value


def _rp_filter(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int) or value > 2:
        raise ValueError(value)
    return value if value >= 0 else None


def _mac_prefix(value: Any) -> str:
    if not isinstance(value, str) or (value and not _MAC_PREFIX.fullmatch(value)):
        raise ValueError(value)
    return value.lower().replace("-", ":")


def _veth_address(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    if not value:
        return ""
    family, address = parse_address(value)
    if family != IPV4 or not is_unicast(family, address):
        raise ValueError(value)
    return format_address(family, address)


def read_cidr(value: Any) -> Subnet:
    """A subnet; an address alone means itself. Raises `ValueError` or `InvalidObject`."""
    if not isinstance(value, str):
        raise TypeError(value)
    if "/" in value:
        return parse_cidr(value)
    family, address = parse_address(value)
    return Subnet(family, address, WIDTH[family])


def _cidrs(value: Any, most: int = MOST_CIDRS) -> tuple[str, ...]:
    if len(_list(value)) > most:
        raise ValueError(len(value))
    return tuple(str(read_cidr(text)) for text in value)


def _policy_routes(value: Any) -> tuple[tuple[str, str], ...]:
    routes = []
    if len(_list(value)) > MOST:
        raise ValueError(len(value))
    for entry in value:
        if not isinstance(entry, Mapping) or not {*entry} <= {"dst", "gw"}:
            raise ValueError(entry)
        target, text = parse_cidr(_text(entry.get("dst"))), _text(entry.get("gw"))
        family, hop = parse_address(text)
        if family != target.family or not is_unicast(family, hop):
            raise ValueError(entry)
        routes.append((str(target), format_address(family, hop)))
    return tuple(routes)


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(value)
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value


_CIDRS = FieldRule(
    f"a list of at most {MOST_CIDRS} subnets in CIDR form, such as [10.96.0.0/12], or of addresses", _cidrs
)
_OWN_CIDRS = FieldRule(
    f"a list of at most {MOST} subnets in CIDR form, such as [10.96.0.0/12], or of addresses",
    lambda value: _cidrs(value, MOST),
)
_INTERFACE = FieldRule(
    f"empty or an interface's name; {INTERFACE_RULE}",
    _reader(lambda text: text == "" or is_interface_name(text)),
)
_RP_FILTER = FieldRule("0, 1 or 2, or -1 to leave it as it is", _rp_filter)
_FLAG = FieldRule("true or false, without quotes", _flag)

RULES: Mapping[str, FieldRule] = {
    "mode": word(*MODES, empty=True),
    "podCIDRType": word(*POD_CIDR_TYPES),
    "podDefaultRouteNIC": _INTERFACE,
    "podDefaultRouteNic": _INTERFACE,
    "podDefaultCniNic": _INTERFACE,
    "podMACPrefix": FieldRule("two bytes, the first one even, such as 0a:1b", _mac_prefix),
    "vethLinkAddress": FieldRule(
        "an IPv4 address that an interface can have, such as 169.254.100.1", _veth_address
    ),
    "tunePodRoutes": _FLAG,
    "detectIPConflict": _FLAG,
    "detectGateway": _FLAG,
    "podRPFilter": _RP_FILTER,
    "hostRPFilter": _RP_FILTER,
    "hostRuleTable": number(
        1,
        2**32 - 1,
        KERNEL_TABLES,
        f", but not {', '.join(map(str, KERNEL_TABLES))}, the node's own tables",
    ),
    "txQueueLen": number(0, 2**31 - 1),
    "vethMTU": number(68, 65535),
    "hijackCIDR": _OWN_CIDRS,
    "overlayPodCIDR": _CIDRS,
    "serviceCIDR": _CIDRS,
    "policyRoutes": FieldRule(
        f'a list of at most {MOST} objects like {{"dst": "10.10.0.0/16", "gw": "10.6.0.1"}}, both of one address family',
        _policy_routes,
    ),
}


def read_field(name: str, value: Any) -> Any:
    """What the value of a field means. Raises `ValueError`, whose text says what it must be."""
    rule = RULES[name]
    try:
        return rule.read(value)
    except (ValueError, TypeError) as error:
        raise ValueError(rule.right) from error
    except InvalidObject as error:
        raise ValueError(f"{rule.right} ({error.message:.300})") from error
