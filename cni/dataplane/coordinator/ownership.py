"""Whose a namespace, or an interface of the host, is: the evidence without which nothing is touched.

How it works. The path in CNI_NETNS proves nothing: after a reboot, or from a script, `/proc/PID/ns/net` is the host's or
another pod's. What proves is what an ADD left behind: the veth pair, whose name and MACs are made of the container's id
and whose ends the kernel joins; where there is none (mode overlay), the interface that the main plugin answered, by its
MAC and its address.
What must always hold: without proof the answer is no. What is left in a namespace because of that goes with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cni.dataplane.coordinator.veth import ALIAS, HOST_END, VETH, host_veth_name, veth_mac
from cni.dataplane.state import Nic, PodState
from cni.dataplane.workers.job import readable_addresses


def is_host_end(nic: Nic | None, container: str) -> bool:
    """Whether it is the host's end of the veth pair that an ADD made for this container."""
    return (
        nic is not None and nic.name == host_veth_name(container) and nic.mac == veth_mac(container, HOST_END)
    )


def are_joined(host_end: Nic | None, pod_end: Nic | None, namespace: int) -> bool:
    """Whether they are the two ends of one pair. `namespace`: the host's number for that of the pod's end, -1 for none."""
    if host_end is None or pod_end is None or namespace < 0:
        return False
    ends = (host_end.peer, host_end.namespace, pod_end.peer)
    return ends == (pod_end.index, namespace, host_end.index)


def is_containers(
    state: PodState,
    container: str,
    interface: str,
    *,
    host_end: Nic | None,
    namespace: int,
    previous: Mapping[str, Any],
    mac_prefix: str = "",
) -> bool:
    """Whether a namespace is this container's. `host_end`: the host's interface that is named for it, if any;
    `namespace`: the host's number for the namespace; `previous`: the result that the main plugin gave."""
    if state.nic(VETH) is None:
        return _is_answered(state.nic(interface), previous, mac_prefix)
    # Spiderpool's pairs have the same names; their MACs are left to chance, so the kernel's word alone counts.
    named = host_end is not None and not host_end.alias.startswith(ALIAS)
    return are_joined(host_end, state.nic(VETH), namespace) and (named or is_host_end(host_end, container))


def is_anothers(state: PodState, container: str, *, peer: Nic | None, namespace: int) -> bool:
    """Whether a namespace is provably another container's. `peer`: the host's interface with the index of the other end
    of the pod's veth."""
    if peer is None or not are_joined(peer, state.nic(VETH), namespace):
        return False
    return peer.alias.startswith(ALIAS) and not is_host_end(peer, container)


def has_an_address(nic: Nic | None, previous: Mapping[str, Any]) -> bool:
    """Whether the interface has one of the addresses that the main plugin answered, or it answered none."""
    wanted = readable_addresses(previous)
    return not wanted or (nic is not None and bool(wanted & _bare(nic)))


def _is_answered(nic: Nic | None, previous: Mapping[str, Any], mac_prefix: str) -> bool:
    if nic is None or not readable_addresses(previous) & _bare(nic):
        return False
    listed = previous.get("interfaces")
    macs = {
        str(entry.get("mac", "")).lower()
        for entry in (listed if isinstance(listed, list) else ())
        if isinstance(entry, Mapping) and entry.get("name") == nic.name and entry.get("sandbox")
    }
    return nic.mac in macs or (bool(mac_prefix) and nic.mac.startswith(f"{mac_prefix}:"))


def _bare(nic: Nic) -> set[str]:
    return {address.partition("/")[0] for address in nic.addresses}
