"""What a plan is made for: one ADD of one interface, and what follows from the pod, its host and the settings then.

What must always hold: a situation that cannot be served is refused here, before anything is planned, with the setting
or annotation that would have to change.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass

from actors.errors import InvalidRequest
from cni.dataplane.coordinator.policy_tables import policy_tables
from cni.dataplane.coordinator.settings import CoordinatorSettings
from cni.dataplane.coordinator.veth import VETH, veth_pair
from cni.dataplane.state import MAIN, HostState, Nic, PodState, Veth, bare, family_of


@dataclass(frozen=True, slots=True)
class HostPath:
    """The way between pod and host. `dev`: the pod's interface that leads to the host; `host_dev`: the other end."""

    dev: str
    mac: str
    host_dev: str
    host_mac: str


@dataclass(frozen=True, slots=True)
class Situation:
    """One ADD of one interface, and what follows for its plan."""

    settings: CoordinatorSettings
    """Of this network."""
    pod: PodState
    """What there is in the pod's namespace."""
    host: HostState
    """What a plan needs to know of the host."""
    mode: str
    """What `auto` came to, or what was asked for."""
    added: Nic
    """The interface of this ADD."""
    gateways: tuple[str, ...]
    """Those that IPAM named for it."""
    veth: Veth | None
    """The pair that leads to the host, in underlay mode."""
    path: HostPath
    """By which the pod reaches its host."""
    nics: tuple[Nic, ...]
    """The pod's interfaces, without the veth."""
    tables: Mapping[str, int]
    """The policy table of every interface that does not hold the default route."""
    families: tuple[int, ...]
    """Those in which the pod has addresses."""
    hosts: tuple[str, ...]
    """The host's addresses in them, without length."""
    nearest: Mapping[int, str]
    """By family, the host's address that is the pod's gateway to it, or empty."""
    sources: Mapping[int, str]
    """By family, the address from which the pod speaks to its host, or empty."""

    @property
    def first(self) -> Nic | None:
        """The pod's first interface."""
        return self.pod.nic(self.settings.first_nic)

    @property
    def adds_first(self) -> bool:
        """Whether this ADD is of the pod's first interface."""
        return self.added.name == self.settings.first_nic

    @property
    def addresses(self) -> tuple[str, ...]:
        """All of the pod's addresses, in CIDR form, without the veth's."""
        return tuple(address for nic in self.nics for address in nic.addresses)

    @property
    def added_families(self) -> frozenset[int]:
        """The families in which the added interface has addresses."""
        return frozenset(family_of(address) for address in self.added.addresses)

    @property
    def added_table(self) -> int:
        """The table in which the added interface's routes are."""
        return self.tables.get(self.added.name, MAIN)


def read_situation(
    settings: CoordinatorSettings,
    pod: PodState,
    host: HostState,
    *,
    mode: str,
    added: Nic,
    container: str,
    gateways: tuple[str, ...],
    expected: tuple[str, ...],
) -> Situation:
    """The situation of one ADD in overlay or underlay mode. Raises `InvalidRequest` where no plan can serve it."""
    veth = veth_pair(settings, container) if mode == "underlay" else None
    path = _host_path(settings, pod, host, veth)
    nics = tuple(nic for nic in pod.nics if nic.name != VETH)
    addresses = [address for nic in nics for address in nic.addresses]
    families = tuple(sorted({family_of(address) for address in addresses}))
    host_addresses = [address for address in host.addresses if family_of(address) in families]
    return Situation(
        settings=settings,
        pod=pod,
        host=host,
        mode=mode,
        added=added,
        gateways=gateways,
        veth=veth,
        path=path,
        nics=nics,
        tables=policy_tables(settings, pod, nics, added.name, expected) if settings.tune_routes else {},
        families=families,
        hosts=tuple(dict.fromkeys(bare(address) for address in host_addresses)),
        nearest={family: _nearest(family, host_addresses, addresses) for family in families},
        sources={4: first_of(4, pod.nic(settings.first_nic) or added), 6: ""},
    )


def first_of(family: int, nic: Nic) -> str:
    """The interface's first address of the family, without length, or empty."""
    return next((bare(address) for address in nic.addresses if family_of(address) == family), "")


def _host_path(settings: CoordinatorSettings, pod: PodState, host: HostState, veth: Veth | None) -> HostPath:
    """By the veth pair, or in overlay mode by the pod's first interface, which another plugin made."""
    if veth is not None:
        return HostPath(veth.pod, veth.pod_mac, veth.host, veth.host_mac)
    first = pod.nic(settings.first_nic)
    if first is None or host.peer is None:
        raise InvalidRequest(
            f"coordinator mode overlay needs the pod's first interface {settings.first_nic} to be one end of a veth pair "
            "whose other end is on the host, as Calico and Cilium make it; name another one in podDefaultCniNic"
        )
    return HostPath(first.name, first.mac, host.peer.name, host.peer.mac)


def _nearest(family: int, host_addresses: list[str], pod_addresses: list[str]) -> str:
    """The host's address that the pod uses as its gateway: one in a subnet of the pod's if there is one."""
    candidates = [bare(address) for address in host_addresses if family_of(address) == family]
    for address in pod_addresses:
        if family_of(address) == family:
            subnet = ipaddress.ip_interface(address).network
            for candidate in candidates:
                if ipaddress.ip_address(candidate) in subnet:
                    return candidate
    return candidates[0] if candidates else ""
