"""What the agent asks of a worker process.

It imports nothing of what workers do, so that the agent need not load it: netlink alone is a third of the time that an
agent takes to start.
"""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from actors.errors import InvalidRequest
from actors.resources.fields import shown
from cni.dataplane.coordinator.settings import CoordinatorSettings, read_settings

MOST_ADDRESSES = 256
"""Of one interface, in a result. A network's author may write a result into its configuration."""


@dataclass(frozen=True, slots=True)
class Job:
    """One CNI request for `plugin`, as it crosses to a worker. `default_nic`: from the pod's annotation.
    `interfaces`: all that the pod will have, empty where nothing tells. `valid`: of GC, the (container, interface) pairs
    that are alive. `again`: ADD of an interface that was added before; what it finds must be this container's.
    `advertised`: what routers advertise, by the index of the host's interface."""

    command: str
    conf: Mapping[str, Any]
    container: str
    interface: str
    netns: str
    pod: str
    default_nic: str = ""
    interfaces: tuple[str, ...] = ()
    valid: tuple[tuple[str, str], ...] = ()
    plugin: str = "coordinator"
    again: bool = False
    advertised: tuple[tuple[int, str], ...] = ()

    def settings(self) -> CoordinatorSettings:
        settings = read_settings(self.conf)
        if self.default_nic:
            settings = replace(settings, default_nic=self.default_nic, pod_chose=True)
        return settings


def require_few(previous: Mapping[str, Any]) -> None:
    """Raise `InvalidRequest` for a result with more addresses than an interface has."""
    ips = previous.get("ips")
    if isinstance(ips, list) and len(ips) > MOST_ADDRESSES:
        raise InvalidRequest(
            f'"prevResult.ips" has {len(ips)} addresses; an interface has at most {MOST_ADDRESSES}'
        )


def addresses_of(previous: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The addresses of a result and their gateways, empty for none. Raises `InvalidRequest`."""
    ips = previous.get("ips", ())
    found = []
    require_few(previous)
    for ip in ips if isinstance(ips, list) else ():
        text, gateway = (ip.get("address"), ip.get("gateway")) if isinstance(ip, Mapping) else (None, None)
        try:
            address = str(ipaddress.ip_interface(str(text)).ip)
            found.append((address, str(ipaddress.ip_address(str(gateway))) if gateway else ""))
        except ValueError as error:
            raise InvalidRequest(f'"prevResult.ips" has {shown(ip)}, which is not an address') from error
    return found


def readable_addresses(previous: Mapping[str, Any]) -> set[str]:
    """The addresses of a result, as far as they are any: a DEL is not refused for one that is none."""
    ips = previous.get("ips")
    found: set[str] = set()
    for ip in ips[:MOST_ADDRESSES] if isinstance(ips, list) else ():
        with contextlib.suppress(InvalidRequest):
            found |= {address for address, _ in addresses_of({"ips": [ip]})}
    return found
