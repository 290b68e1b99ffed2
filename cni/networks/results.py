"""Results of attachments: read from a plugin, told in another CNI version, and as the pod's annotation of status.

What must always hold: what a plugin prints is bounded and of the types below before anything is done with it; the status
tells what is inside the pod, of the first interface that a result says is there. It is pure.
Source: CNI specification 1.1.0, section 5; "Kubernetes Network Custom Resource Definition De-facto Standard", version 1.3,
section 5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from actors.errors import OrbweaverError
from actors.resources.json_text import UnreadableText, read_json

LONGEST_RESULT, DEEPEST_RESULT = 1 << 18, 16
"""Bytes of a result, and values inside values."""
_LISTS = ("interfaces", "ips", "routes")


def read_result(output: bytes, plugin: str) -> dict[str, Any]:
    """What a plugin answered to ADD. Raises `OrbweaverError` where that is no result."""
    try:
        value = read_json(
            output.decode(), longest=LONGEST_RESULT, deepest=DEEPEST_RESULT, only_showable=False
        )
    except (UnicodeDecodeError, UnreadableText) as error:
        raise OrbweaverError(f"plugin {plugin} answered ADD with what is no CNI result: {error}") from error
    if not isinstance(value, dict):
        raise OrbweaverError(f"plugin {plugin} answered ADD with what is no CNI result: it is no JSON object")
    for key in _LISTS:
        entries = value.get(key)
        if entries is not None and not (
            isinstance(entries, list) and all(isinstance(entry, dict) for entry in entries)
        ):
            raise OrbweaverError(
                f'plugin {plugin} answered ADD with what is no CNI result: "{key}" must be a list of objects'
            )
    return value


def in_version(result: Mapping[str, Any], version: str) -> dict[str, Any]:
    """The result in another CNI version from 0.3.0 on: up to 0.4.0 each address says its family."""
    old = version.startswith("0.")
    ips = []
    for ip in result.get("ips") or ():
        entry = {key: value for key, value in ip.items() if key != "version"}
        if old:
            entry["version"] = "6" if ":" in str(ip.get("address", "")) else "4"
        ips.append(entry)
    return {**result, "cniVersion": version, **({"ips": ips} if "ips" in result else {})}


def sandbox_interface(result: Mapping[str, Any]) -> tuple[int, Mapping[str, Any]] | None:
    """The first interface inside the pod, with its index; None where the result tells of none."""
    for index, interface in enumerate(result.get("interfaces") or ()):
        if interface.get("sandbox"):
            return index, interface
    return None


def addresses(result: Mapping[str, Any]) -> tuple[str, ...]:
    """The addresses of the first interface inside the pod, in CIDR form; where the result tells of no interface, those
    that it says are of none."""
    inside_pod = sandbox_interface(result)
    wanted: Sequence[Any] = (None, -1) if inside_pod is None else (inside_pod[0],)
    return tuple(
        text
        for ip in result.get("ips") or ()
        if ip.get("interface") in wanted and isinstance(text := ip.get("address"), str)
    )


def status(result: Mapping[str, Any], name: str, interface: str, *, default: bool) -> dict[str, Any]:
    """The network's entry in `k8s.v1.cni.cncf.io/network-status`. `interface`: the one that was asked for."""
    entry: dict[str, Any] = {"name": name}
    inside_pod = sandbox_interface(result)
    inside: Mapping[str, Any] = inside_pod[1] if inside_pod is not None else {}
    entry["interface"] = inside.get("name") or interface
    ips = [address.partition("/")[0] for address in addresses(result)]
    if ips:
        entry["ips"] = ips
    if inside.get("mac"):
        entry["mac"] = inside["mac"]
    if inside.get("mtu"):
        entry["mtu"] = inside["mtu"]
    if default:
        entry["default"] = True
    dns = result.get("dns")
    entry["dns"] = dns if isinstance(dns, dict) else {}
    gateways = [route["gw"] for route in _default_routes(result) if isinstance(route.get("gw"), str)]
    if gateways:
        entry["gateway"] = gateways
    return entry


def with_default_routes(
    result: Mapping[str, Any], removed: Sequence[int], gateways: Sequence[str]
) -> dict[str, Any]:
    """The result after the default routes of the families `removed` were taken away, and those through `gateways` were
    made: what CHECK and DEL are told."""
    gone = [route for route in _default_routes(result) if _family(str(route["dst"])) in removed]
    routes = [route for route in result.get("routes") or () if route not in gone]
    routes += [
        {"dst": "::/0" if _family(gateway) == 6 else "0.0.0.0/0", "gw": gateway} for gateway in gateways
    ]
    return {**result, "routes": routes}


def _default_routes(result: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [
        route for route in result.get("routes") or () if str(route.get("dst", "")) in ("0.0.0.0/0", "::/0")
    ]


def _family(text: str) -> int:
    return 6 if ":" in text else 4
