"""What the agent asks of a worker process.

It imports nothing of what workers do, so that the agent need not load it: netlink alone is a third of the time that an
agent takes to start.
"""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from actors.decisions.detection import DetectionOverrides
from actors.errors import InvalidRequest
from actors.resources.fields import shown
from cni.dataplane.coordinator.settings import CoordinatorSettings
from cni.dataplane.ifacer.settings import BondSettings, IfacerSettings

MOST_ADDRESSES = 256
"""Of one interface, in a result. A network's author may write a result into its configuration."""


@dataclass(frozen=True, slots=True)
class Job:
    """One CNI request for a plugin of ours, as it crosses to a worker: with the configuration as the agent understood it,
    which nobody reads again."""

    command: str
    """`ADD`, `DEL`, `CHECK` or `GC`."""
    settings: CoordinatorSettings | IfacerSettings
    """Of the plugin."""
    container: str
    """CNI_CONTAINERID."""
    interface: str
    """CNI_IFNAME."""
    netns: str
    """CNI_NETNS."""
    pod: str
    """`namespace/name`, for messages."""
    previous: Mapping[str, Any] = field(default_factory=dict)
    """The result of the plugin before."""
    interfaces: tuple[str, ...] = ()
    """All that the pod will have, empty where nothing tells."""
    valid: tuple[tuple[str, str], ...] = ()
    """Of GC, the (container, interface) pairs that are alive."""
    plugin: str = "coordinator"
    """`coordinator` or `ifacer`."""
    again: bool = False
    """ADD of an interface that was added before; what it finds must be this container's."""
    advertised: tuple[tuple[int, str], ...] = ()
    """What routers advertise, by the index of the host's interface."""

    def to_json(self) -> dict[str, Any]:
        """As it crosses to a worker."""
        return {**asdict(self), "kind": type(self.settings).__name__}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Job:
        """As it arrives there."""
        values = {name: _frozen(value) for name, value in data.items()}
        settings = values.pop("settings")
        values["previous"] = data["previous"]
        if values.pop("kind") == CoordinatorSettings.__name__:
            settings["detection"] = DetectionOverrides(**settings["detection"])
            return cls(settings=CoordinatorSettings(**settings), **values)
        if settings["bond"] is not None:
            settings["bond"] = BondSettings(**settings["bond"])
        return cls(settings=IfacerSettings(**settings), **values)


def _frozen(value: Any) -> Any:
    """A value of a dataclass as it was before it was JSON, which knows no tuples."""
    if isinstance(value, list):
        return tuple(map(_frozen, value))
    if isinstance(value, dict):
        return {name: _frozen(inner) for name, inner in value.items()}
    return value


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
    addresses = []
    require_few(previous)
    for ip in ips if isinstance(ips, list) else ():
        text, gateway = (ip.get("address"), ip.get("gateway")) if isinstance(ip, Mapping) else (None, None)
        try:
            address = str(ipaddress.ip_interface(str(text)).ip)
            addresses.append((address, str(ipaddress.ip_address(str(gateway))) if gateway else ""))
        except ValueError as error:
            raise InvalidRequest(f'"prevResult.ips" has {shown(ip)}, which is not an address') from error
    return addresses


def readable_addresses(previous: Mapping[str, Any]) -> set[str]:
    """The addresses of a result, as far as they are any: a DEL is not refused for one that is none."""
    ips = previous.get("ips")
    addresses: set[str] = set()
    for ip in ips[:MOST_ADDRESSES] if isinstance(ips, list) else ():
        with contextlib.suppress(InvalidRequest):
            addresses |= {address for address, _ in addresses_of({"ips": [ip]})}
    return addresses
