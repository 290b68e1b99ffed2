"""For `orbweaver explain`: which network each interface of a pod is on, and what its configuration says.

What must always hold: a network that is missing or cannot be read is told, and the other interfaces are explained all the
same; of the first interface nothing is known where the node's own file configures it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from actors.decisions.annotations import FIRST_INTERFACE, read_default_network, read_networks
from actors.decisions.settings import Settings
from actors.errors import InvalidObject, NoSuchResource, NotAllowed, NotFound
from actors.resources.fields import Fields
from actors.resources.json_text import showable
from actors.resources.network_attachment import KIND, NetworkAttachment
from actors.resources.pod import Pod
from actors.store.contract import Store

PLUGIN = "spiderpool"
COORDINATOR = "coordinator"


@dataclass(frozen=True, slots=True)
class PodNetwork:
    """One network of the pod, as far as the store tells."""

    interface: str
    """Of the pod."""
    name: str = ""
    """`namespace/name`, empty for the node's own."""
    plugins: tuple[str, ...] = ()
    """Their types, in order."""
    asking: Mapping[str, Any] | None = None
    """The configuration of the one that asks us for an address; None where none does."""
    ipam: str = ""
    """Who else does it, by type."""
    coordinator: Mapping[str, Any] | None = None
    """The configuration of that plugin; None for a network without one."""
    why: str = ""
    """Why nothing of this is known."""

    def line(self) -> str:
        """For people."""
        if not self.name:
            return f"{self.interface}: the node's own network"
        if self.why:
            return f"{self.interface}: {self.name}, {self.why}"
        other = f", addresses from {self.ipam}" if self.ipam else ""
        none = "" if self.asking is not None or self.ipam else ", no addresses"
        return showable(
            f"{self.interface}: {self.name} ({', '.join(self.plugins) or 'a file of the node'}){other}{none}"
        )

    def as_object(self) -> dict[str, Any]:
        """For programs."""
        return {
            "interface": self.interface,
            "network": self.name or None,
            "plugins": list(self.plugins),
            "ipam": PLUGIN if self.asking is not None else self.ipam or None,
            "error": self.why or None,
        }


@dataclass(frozen=True, slots=True)
class PodNetworks:
    """All interfaces of a pod, the first one first; empty for a pod that names no networks."""

    networks: tuple[PodNetwork, ...] = field(default=())

    @classmethod
    def of(cls, store: Store, pod: Pod, settings: Settings) -> PodNetworks:
        """As its annotations name them. Raises `PodRefused` for annotations that cannot be read."""
        first = read_default_network(pod, settings.agent_namespace, settings.multus_cluster_network)
        others = read_networks(pod)
        if first is None and not others:
            return cls()
        own = (
            PodNetwork(FIRST_INTERFACE)
            if first is None
            else _look(store, first.namespace, first.name, FIRST_INTERFACE)
        )
        return cls(
            (own, *(_look(store, network.namespace, network.name, network.interface) for network in others))
        )

    def __iter__(self) -> Iterator[PodNetwork]:
        return iter(self.networks)

    def on(self, interface: str) -> PodNetwork | None:
        """The network of one interface."""
        return next((network for network in self.networks if network.interface == interface), None)


def _look(store: Store, namespace: str, name: str, interface: str) -> PodNetwork:
    key = f"{namespace}/{name}"
    try:
        attachment = NetworkAttachment.from_object(store.get(KIND, name, namespace))
        plugins = attachment.plugins()
        conf = attachment.configuration()
        common = {"cniVersion": conf.text("cniVersion"), "name": conf.text("name") or name}
        return _read(
            PodNetwork(interface, key, tuple(plugin.text("type") for plugin in plugins)), plugins, common
        )
    except NotFound:
        return PodNetwork(interface, key, why=f"but there is no such {KIND}")
    except NotAllowed as error:
        return PodNetwork(interface, key, why=f"which is not explained: {error}")
    except NoSuchResource:
        return PodNetwork(interface, key, why=f"but the cluster has no {KIND}s")
    except InvalidObject as error:
        return PodNetwork(interface, key, why=f"which cannot be read: {error}")


def _read(network: PodNetwork, plugins: tuple[Fields, ...], common: Mapping[str, Any]) -> PodNetwork:
    asking: Mapping[str, Any] | None = None
    coordinator: Mapping[str, Any] | None = None
    ipam = ""
    for plugin in plugins:
        conf = {**plugin.data, **{key: value for key, value in common.items() if value}}
        kind = plugin.inner("ipam").text("type")
        if kind == PLUGIN and asking is None:
            asking = conf
        elif kind and not ipam:
            ipam = kind
        if plugin.text("type") == COORDINATOR:
            coordinator = conf
    return PodNetwork(
        network.interface,
        network.name,
        network.plugins,
        asking,
        "" if asking is not None else ipam,
        coordinator,
    )
