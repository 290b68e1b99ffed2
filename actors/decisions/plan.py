"""The plan of an ADD: which pools to try for which interface and family, and why not the others.

Which pools are considered, `candidates.py` says; which of them may serve the pod, `filters.py`.

What must always hold:

* A plan is a pure function of the pod, its namespace and node, the pools, the request and the settings:
  `explain` shows what an ADD at the same moment would do.
* One slot is one address. All slots of a plan are reserved together or not at all. With several entries in
  `ipam.spidernet.io/ippools` the first ADD plans the slots of all interfaces.
* Nothing is dropped silently: every pool that was named is a candidate of its slot or in its refusals.
* An address that was asked for is in exactly one slot, or the pod is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, replace

from actors.decisions import filters
from actors.decisions.annotations import (
    DEFAULT_NETWORK,
    FIRST_INTERFACE,
    NETWORKS,
    POD_DEFAULT_ROUTE_NIC,
    NetworkSelection,
    ignored_keys,
    read_default_network,
    read_default_route_nic,
    read_networks,
    read_routes,
)
from actors.decisions.auto_pool import ApplicationPools
from actors.decisions.brief import Reason, brief
from actors.decisions.candidates import FROM_PODS_POOL, AddressRequest, Candidates, choose
from actors.decisions.filters import ADDRESS, Applicant, Refusal, by_affinity
from actors.decisions.settings import Settings
from actors.errors import AddressTaken, NoAddress, PodRefused
from actors.resources.addresses import format_address
from actors.resources.ipam_claim import IPAMClaim
from actors.resources.ippool import IPPool
from actors.resources.namespace import Namespace
from actors.resources.node import Node
from actors.resources.pod import Pod
from actors.resources.space import PoolRoute

_NONE_NAMED = Reason("no pool is named", "no pool is named")


@dataclass(frozen=True, slots=True)
class Slot:
    """One address to reserve: from the first of the candidates that has one."""

    interface: str
    """Of the pod."""
    family: int
    """4 or 6."""
    source: str
    """Which rule named the pools, in words."""
    candidates: tuple[str, ...]
    """Names of pools that may serve, in the order in which they are asked."""
    refusals: tuple[Refusal, ...] = ()
    """Pools that may not, each with the filter that says so."""
    exact: int | None = None
    """Only this address will do, as a number."""
    clean_gateway: bool = False
    """No default route by way of this interface."""
    disabled: tuple[str, ...] = ()
    """Pools that would be candidates if they were not disabled."""
    claim: str = ""
    """The IPAMClaim that the address is for, empty for none."""

    @property
    def label(self) -> str:
        return f"{self.interface} IPv{self.family}"

    def reasons(self) -> tuple[str, ...]:
        tried = ", ".join(self.candidates) or "none is left"
        wanted = f", for address {format_address(self.family, self.exact)}" if self.exact is not None else ""
        return (
            f"{self.label}: pools to try{wanted}: {tried} (from {self.source})",
            *(f"{self.label}: {refusal}" for refusal in self.refusals),
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """What a pod needs, before anybody is asked for it."""

    pod: str
    """`namespace/name`."""
    slots: tuple[Slot, ...]
    """The addresses, in the order of its interfaces."""
    notes: tuple[str, ...] = ()
    """Rules that did not apply, and why."""
    routes: tuple[PoolRoute, ...] = ()
    """The pod's own routes, read from its annotation."""
    default_route_nic: str | None = None
    """The interface that is to have the default route, by annotation; None where the pod does not say."""
    warnings: tuple[str, ...] = ()
    """What the pod asks for and does not get."""
    networks: tuple[str, ...] = ()
    """The interfaces that the pod's networks name."""

    @property
    def interfaces(self) -> tuple[str, ...]:
        """In the order of their slots."""
        return tuple(dict.fromkeys(slot.interface for slot in self.slots))

    def of(self, interface: str) -> tuple[Slot, ...]:
        return tuple(slot for slot in self.slots if slot.interface == interface)

    def joined(self, interface: str, others: Mapping[str, Plan]) -> Plan:
        """The plan of an ADD for several interfaces: this one, made for `interface`, with what was planned for each of the
        `others` on its own request in the place of what this one has for it."""
        mine = tuple(
            slot for slot in self.slots if slot.interface == interface or slot.interface not in others
        )
        theirs = tuple(slot for name, planned in others.items() for slot in planned.of(name))
        every = (self, *others.values())
        return replace(
            self,
            slots=(*mine, *theirs),
            notes=tuple(dict.fromkeys(note for planned in every for note in planned.notes)),
            warnings=tuple(dict.fromkeys(text for planned in every for text in planned.warnings)),
        )

    def reasons(self) -> tuple[str, ...]:
        """Every decision in words: for `explain`, the details of a CNI error and the debug log."""
        warned = (f"warning: {text}" for text in self.warnings)
        return (*self.notes, *warned, *(line for slot in self.slots for line in slot.reasons()))

    def require(self, served: Container[str] = ()) -> Plan:
        """The plan itself, if each of its slots has a candidate. Raises `NoAddress` with all reasons,
        `AddressTaken` where it is for the one address that the pod asks for. `served`: labels
        of slots that need none, because their address is recorded."""
        if not self.slots:
            raise NoAddress(
                f"pod {self.pod}: no rule names a pool for it; annotate the pod or its namespace, set pools"
                " in the CNI configuration, or set spec.default: true on a pool",
                details=self.reasons(),
            )
        unserved = [slot for slot in self.slots if not slot.candidates and slot.label not in served]
        if unserved:
            hopeless = [slot.label for slot in unserved]
            # Where pools would serve the pod, but for the one address that it asks for, that is the answer (code 102).
            named = all(any(refusal.rule == ADDRESS for refusal in slot.refusals) for slot in unserved)
            raise (AddressTaken if named else NoAddress)(
                f"pod {self.pod}: no pool may give it an address for {', '.join(hopeless)}; the details say"
                " for each pool which rule refused it and what would change that",
                details=self.reasons(),
                brief=brief(
                    f"no pool may give pod {self.pod} an address",
                    [
                        (slot.label, tuple(map(Reason.of_refusal, slot.refusals)) or (_NONE_NAMED,))
                        for slot in unserved
                    ],
                    "Change what the rule names, or name another pool.",
                ),
            )
        return self


def plan(
    pod: Pod,
    namespace: Namespace | None,
    node: Node | None,
    pools: Mapping[str, IPPool],
    request: AddressRequest,
    settings: Settings,
    damaged: Mapping[str, str] | None = None,
    go_on: Callable[[], None] = lambda: None,
    auto: ApplicationPools | None = None,
    claims: Mapping[str, IPAMClaim] | None = None,
) -> Plan:
    """Decide. `namespace` and `node` are None where there is no such object; `damaged` names the pools whose
    object cannot be read, and why; `go_on` is called between two pools, and raises when the request's time is over.
    `auto`: the pools of the pod's application, where it asks for addresses of a subnet. `claims`: by interface, the
    IPAMClaims that its networks refer to, whose addresses it asks for.
    Raises `PodRefused` when the pod itself is the reason (it has ended, its annotations are broken, it asks for what
    cannot be); a slot that no pool may serve is not an error here, but in `Plan.require`."""
    if pod.ended is not None:
        raise PodRefused(
            f"pod {pod.key} gets no address, because {pod.ended}; a new pod in its place will get one"
        )
    choice = choose(pod, namespace, pools, request, settings, damaged, go_on, auto)
    interfaces = tuple(
        dict.fromkeys((*(candidates.interface for candidates in choice.candidates), request.interface))
    )
    networks, claims = _networks(pod, settings), claims or {}
    exact = {
        (interface, family): value
        for interface in interfaces
        for family, value in _exact(
            pod, interface, networks.get(interface), request, claims.get(interface)
        ).items()
    }
    slots = []
    for candidates in choice.candidates:
        applicant = Applicant(
            pod=pod,
            namespace=namespace,
            node=node,
            interface=candidates.interface,
            family=candidates.family,
            network=networks[candidates.interface].key if candidates.interface in networks else None,
            agent_namespace=settings.agent_namespace,
            exact=exact.get((candidates.interface, candidates.family)),
            application=auto.application if auto is not None else None,
        )
        slot = _slot(choice.source, candidates, pools, applicant, go_on)
        claim = claims.get(candidates.interface)
        slots.append(slot if claim is None else replace(slot, claim=claim.name))
    planned = Plan(
        pod=pod.key,
        slots=tuple(slots),
        notes=choice.notes,
        routes=read_routes(pod),
        default_route_nic=_default_route_nic(pod, (*interfaces, FIRST_INTERFACE, *networks)),
        warnings=ignored_keys(pod, subnets=settings.enable_subnets),
        networks=tuple(networks),
    )
    _refuse_unserved(planned, exact)
    return planned


def _slot(
    source: str,
    candidates: Candidates,
    pools: Mapping[str, IPPool],
    applicant: Applicant,
    go_on: Callable[[], None],
) -> Slot:
    fitting: list[IPPool] = []
    disabled: list[IPPool] = []
    refused = list(candidates.refusals)
    for name in candidates.pools:
        go_on()
        refused_by = filters.refusals(pools[name], applicant)
        refused.extend(refused_by)
        if not refused_by:
            fitting.append(pools[name])
        elif [refusal.rule for refusal in refused_by] == [filters.DISABLED]:
            disabled.append(pools[name])
    return Slot(
        interface=candidates.interface,
        family=candidates.family,
        source=source,
        candidates=tuple(pool.name for pool in by_affinity(fitting)),
        refusals=tuple(refused),
        exact=applicant.exact,
        clean_gateway=candidates.clean_gateway,
        disabled=tuple(pool.name for pool in by_affinity(disabled)),
    )


def _networks(pod: Pod, settings: Settings) -> dict[str, NetworkSelection]:
    """The network attachment of each interface. Multus gives eth0 the default network, and net1, net2, … or
    the names they ask for to the others."""
    by_interface = {network.interface: network for network in read_networks(pod)}
    default = read_default_network(pod, settings.agent_namespace, settings.multus_cluster_network)
    if default is not None:
        by_interface[FIRST_INTERFACE] = replace(default, interface=FIRST_INTERFACE)
    return by_interface


def names_addresses(pod: Pod, request: AddressRequest, settings: Settings) -> bool:
    """Whether the pod asks for certain addresses, as far as it says so itself. Raises `PodRefused`."""
    return bool(request.exact) or any(network.ips for network in _networks(pod, settings).values())


def _exact(
    pod: Pod,
    interface: str,
    network: NetworkSelection | None,
    request: AddressRequest,
    claim: IPAMClaim | None,
) -> dict[int, int]:
    """The address that is wanted in each family."""
    sources: list[tuple[str, Iterable[tuple[int, int]]]] = []
    if interface == request.interface:
        sources.append(("the CNI request", request.exact))
    if network is not None:
        key = DEFAULT_NETWORK if interface == FIRST_INTERFACE else NETWORKS
        sources.append((f"ips of {network.key} in annotation {key}", network.ips))
    if claim is not None:
        sources.append((f"status of IPAMClaim {claim.key}", claim.ips))
    by_family: dict[int, tuple[int, str]] = {}
    for source, addresses in sources:
        for family, value in addresses:
            known, known_source = by_family.setdefault(family, (value, source))
            if known != value:
                raise PodRefused(
                    f"pod {pod.key}: interface {interface} asks for two IPv{family} addresses,"
                    f" {format_address(family, known)} ({known_source}) and {format_address(family, value)}"
                    f" ({source}), but can have one of each family; keep one of them"
                )
    return {family: value for family, (value, _) in by_family.items()}


def _default_route_nic(pod: Pod, interfaces: Iterable[str]) -> str | None:
    chosen = read_default_route_nic(pod)
    known = tuple(dict.fromkeys(interfaces))
    if chosen is not None and chosen not in known:
        raise PodRefused(
            f"pod {pod.key}: annotation {POD_DEFAULT_ROUTE_NIC} is {chosen}, but the pod's interfaces are "
            f"{', '.join(known)}; write one of these"
        )
    return chosen


def _refuse_unserved(planned: Plan, exact: Mapping[tuple[str, int], int]) -> None:
    served = {(slot.interface, slot.family) for slot in planned.slots}
    for (interface, family), value in exact.items():
        if served and (interface, family) not in served:
            raise PodRefused(
                f"pod {planned.pod}: interface {interface} asks for {format_address(family, value)}, but no "
                f"IPv{family} pool is considered for it; name the pool of that address in {FROM_PODS_POOL}",
                details=planned.reasons(),
            )
