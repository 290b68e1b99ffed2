"""The values of the data plane: interfaces, addresses, routes, rules and neighbours, as they are or as they should be.

What must always hold: all are frozen and compare by meaning, so that "what is missing" is a difference of sets.
An interface is meant by its name, never by its index: a plan is made before the interface exists.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

MAIN = 254
"""The routing table that `ip route` shows (linux/rtnetlink.h)."""


@dataclass(frozen=True, slots=True)
class Route:
    """One route of one namespace."""

    dst: str
    """In CIDR form, of length 0 for a default route."""
    dev: str
    """The interface's name."""
    gw: str = ""
    """The next hop, empty for none."""
    src: str = ""
    """The address that packets leave with, empty for the kernel's choice."""
    table: int = MAIN
    """The number of its routing table."""
    link: bool = False
    """Whether its scope is the link, as for a subnet's own route."""
    onlink: bool = False
    """Whether the gateway counts as reachable although no route says so."""
    proto: int = field(default=3, compare=False)
    """Who made it (3 boot, 2 kernel, linux/rtnetlink.h)."""
    metric: int = field(default=0, compare=False)
    """The lowest one is preferred; 0 leaves the choice to the kernel."""

    @property
    def family(self) -> int:
        return family_of(self.dst)

    @property
    def default(self) -> bool:
        return self.dst.endswith("/0")

    def __str__(self) -> str:
        """As `ip route` prints it, with the table where it is not the main one."""
        words = ["default" if self.default else _without_host_length(self.dst)]
        words += [f"via {self.gw}"] if self.gw else []
        words.append(f"dev {self.dev}")
        words += ["proto kernel"] if self.proto == 2 else []
        words += ["scope link"] if self.link and self.family == 4 else []
        words += [f"src {self.src}"] if self.src else []
        words += [f"table {self.table}"] if self.table != MAIN else []
        return " ".join(words)


@dataclass(frozen=True, slots=True)
class PolicyRule:
    """One policy rule: which packets look into which table."""

    family: int
    """4 or 6."""
    priority: int
    """Rules are tried from the lowest on."""
    table: int
    """The number of the routing table."""
    src: str = ""
    """CIDR form or empty for all, host bits kept as the kernel keeps them."""
    dst: str = ""
    """Likewise."""
    mark: int = 0
    """Of packets (fwmark), 0 for any."""

    def __str__(self) -> str:
        """As `ip rule` prints it."""
        words = [f"{self.priority}:", f"from {_without_host_length(self.src) if self.src else 'all'}"]
        words += [f"to {_without_host_length(self.dst)}"] if self.dst else []
        words += [f"fwmark {self.mark:#x}"] if self.mark else []
        table = "main" if self.table == MAIN else str(self.table)
        return " ".join([*words, f"lookup {table}"])


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A permanent entry: the link-layer address of `address` on `dev`."""

    address: str
    dev: str
    mac: str

    def __str__(self) -> str:
        return f"{self.address} dev {self.dev} lladdr {self.mac} PERMANENT"


@dataclass(frozen=True, slots=True)
class Nic:
    """An interface that exists."""

    name: str
    """In its namespace."""
    index: int
    """The kernel's number for it there."""
    mac: str
    """With colons, empty for one without."""
    addresses: tuple[str, ...] = ()
    """CIDR form, without link-local IPv6 ones."""
    up: bool = True
    """Whether it is switched on."""
    peer: int = 0
    """The index of the other end of a veth pair, or of the parent; 0 for none."""
    mtu: int = 1500
    """In bytes."""
    queue: int = 1000
    """The transmit queue's length, in packets."""
    namespace: int = -1
    """The kernel's number for the namespace in which the peer is, -1 for this one."""
    alias: str = ""
    """A note that the kernel keeps (`ip link set alias`)."""
    dynamic: tuple[str, ...] = ()
    """Those of the addresses that router advertisements gave (RFC 4862), which the kernel renews with their subnet's route."""


@dataclass(frozen=True, slots=True)
class Link:
    """An interface of the host, and how it stands to others."""

    name: str
    """On the host."""
    index: int
    """The kernel's number for it."""
    kind: str = ""
    """As `ip -d link` shows it ("bond", "vlan"), empty for a card."""
    up: bool = True
    """Whether it is switched on."""
    mtu: int = 1500
    """In bytes."""
    master: int = 0
    """The index of the bond or bridge that it belongs to; 0 for none."""
    parent: int = 0
    """Of the interface that it stands on, in the same namespace; 0 for none."""
    alias: str = ""
    """A note that the kernel keeps (`ip link set alias`)."""
    group: int = 0
    """A number by which interfaces are put together (`ip link set group`)."""
    info: Mapping[str, Any] = field(default_factory=dict)
    """What a bond or a VLAN says of itself, by the kernel's attribute names."""


@dataclass(frozen=True, slots=True)
class PodState:
    """What there is in the pod's namespace. `nics`: without `lo`, by index."""

    nics: tuple[Nic, ...]
    routes: tuple[Route, ...] = ()
    rules: tuple[PolicyRule, ...] = ()
    neighbours: tuple[Neighbour, ...] = ()

    def nic(self, name: str) -> Nic | None:
        return next((nic for nic in self.nics if nic.name == name), None)


@dataclass(frozen=True, slots=True)
class HostState:
    """What a plan needs to know of the host. `addresses`: CIDR form, in the order in which they are preferred.
    `peer`: the host's end of the pod's first interface, where that is one end of a veth pair. `advertised`: the prefixes
    that routers advertise on the parent of the interface that is planned. `taken`: addresses of the pod to which the host
    has a way already that is not this pod's."""

    addresses: tuple[str, ...]
    peer: Nic | None = None
    advertised: tuple[str, ...] = ()
    taken: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Veth:
    """A veth pair between pod and host. MACs are given, not left to chance: a manager of the host (systemd's
    MACAddressPolicy) may change a MAC that the kernel drew, and the static neighbours would be wrong."""

    pod: str
    """The name of the pod's end."""
    host: str
    """The name of the host's end."""
    pod_mac: str
    """With colons."""
    host_mac: str
    """With colons."""
    mtu: int
    """Of both ends, in bytes."""
    alias: str = ""
    """The host's note of the network that made it."""


@dataclass(frozen=True, slots=True)
class Desired:
    """What should exist in one namespace."""

    addresses: tuple[tuple[str, str], ...] = ()
    """Interface and CIDR."""
    routes: tuple[Route, ...] = ()
    """Those that should be there."""
    rules: tuple[PolicyRule, ...] = ()
    """Likewise."""
    neighbours: tuple[Neighbour, ...] = ()
    """Likewise."""
    sysctls: tuple[tuple[str, str], ...] = ()
    """Paths below /proc/sys, and their values."""
    gone: tuple[Route, ...] = ()
    """Routes that should not be there."""


@dataclass(frozen=True, slots=True)
class CoordinatorPlan:
    """Everything that should be after ADD."""

    mode: str
    """`underlay`, `overlay` or `disable`."""
    veth: Veth | None
    """The pair to make; None where the pod has a way to its host."""
    pod: Desired
    """What should be in the pod's namespace."""
    host: Desired
    """What should be in the host's."""
    marks: bool = False
    """Whether connections that come in through the veth are marked, so that their replies leave through it."""
    mac: str = ""
    """The interface's new MAC, empty to keep it."""
    queue: int = 0
    """Its transmit queue's length, 0 to keep it."""


def applied(pod: PodState, plan: CoordinatorPlan) -> PodState:
    """What the kernel has in the pod after the plan."""
    nics = pod.nics
    if plan.veth and pod.nic(plan.veth.pod) is None:
        last = max((nic.index for nic in nics), default=0)
        nics = (*nics, Nic(plan.veth.pod, last + 1, plan.veth.pod_mac))
    routes = [*pod.routes, *(route for route in plan.pod.routes if route not in pod.routes)]
    kept = tuple(route for route in routes if route not in plan.pod.gone)
    rules = (*pod.rules, *(rule for rule in plan.pod.rules if rule not in pod.rules))
    return PodState(nics, kept, rules)


def _without_host_length(cidr: str) -> str:
    address, _, length = cidr.partition("/")
    return address if length == ("128" if ":" in address else "32") else cidr


def family_of(text: str) -> int:
    """4 or 6, for an address or prefix that is known to be one."""
    return 6 if ":" in text else 4


def bare(cidr: str) -> str:
    """The address without its length."""
    return cidr.partition("/")[0]


def host_cidr(cidr: str) -> str:
    """The prefix that is this address alone."""
    address = bare(cidr)
    return f"{address}/{128 if family_of(address) == 6 else 32}"
