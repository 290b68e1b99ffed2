"""The veth pair between a pod and its host: its names, its MACs and the note on its host's end.

What must always hold: names and MACs are drawn from the container's id, so that a repeated ADD means the same pair and
nobody takes another's for it.
"""

from __future__ import annotations

import hashlib

from cni.dataplane.coordinator.settings import CoordinatorSettings
from cni.dataplane.state import Veth

VETH = "veth0"
POD_END, HOST_END = "pod", "host"
ALIAS = "orbweaver "
"""What the note on the host's end begins with, before the network's name."""
HOST_VETH = "veth"
"""What the name of the host's end begins with, before the beginning of the container's id."""


def veth_pair(settings: CoordinatorSettings, container: str) -> Veth:
    """The pair that an ADD in underlay mode makes."""
    return Veth(
        VETH,
        host_veth_name(container),
        veth_mac(container, POD_END),
        veth_mac(container, HOST_END),
        settings.veth_mtu,
        network_alias(settings.network),
    )


def host_veth_name(container: str) -> str:
    """The host's end of the pod's veth pair."""
    return f"{HOST_VETH}{container[:11]}"


def network_alias(network: str) -> str:
    """The note on the host's end of a veth pair: which network's ADD made it. The kernel takes 255 bytes, so a name that is
    longer is there by its digest."""
    whole = f"{ALIAS}{network}"
    return whole if len(whole.encode()) <= 255 else ALIAS + hashlib.sha256(network.encode()).hexdigest()


def veth_mac(container: str, end: str) -> str:
    """The MAC of one end of the container's veth pair, drawn from its id: it tells the pair from any other."""
    digest = hashlib.sha256(f"{container}/{end}".encode()).digest()
    # 0x02: locally administered, and not a group address (IEEE 802).
    return ":".join(f"{byte:02x}" for byte in (digest[0] & 0xFC | 0x02, *digest[1:6]))
