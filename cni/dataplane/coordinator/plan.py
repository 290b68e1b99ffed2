"""What should exist after a coordinator's ADD: values in, a plan out, no I/O.

How it works. The pod reaches its host, and through it services and other clusters' pods, through one interface: in
underlay mode `veth0`, which the plan asks for; in overlay mode the pod's first interface, which another plugin made.
One interface keeps its routes in the main table, the one that holds the default route. Every other one gets a policy
table, from 100 on in the order of the interfaces, with two rules: what comes from its address and what goes to its
subnet is looked up there. Connections that came in through the veth are marked, and marked replies are looked up in
a table (`hostRuleTable`'s number, in the pod) whose default route leads to the host. Connections that came in through
the first interface are marked too once there are several, or a client in another interface's subnet would be answered
by that one.

What must always hold: a plan for a pod that is as planned asks for nothing that is not there, so that applying it
again changes nothing; a route or rule is never removed before what replaces it exists (`apply` adds first).
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Collection, Iterable
from dataclasses import replace

from actors.errors import InvalidRequest, PodRefused
from cni.dataplane.coordinator.advertised import reachable
from cni.dataplane.coordinator.settings import CoordinatorSettings, usable_veth_address
from cni.dataplane.state import (
    MAIN,
    Desired,
    HostState,
    Neighbour,
    Nic,
    Plan,
    PodState,
    Route,
    Rule,
    Veth,
)

VETH = "veth0"
POD_END, HOST_END = "pod", "host"
ALIAS = "orbweaver "
"""What the note on the host's end begins with, before the network's name."""
HOST_VETH = "veth"
"""What the name of the host's end begins with, before the beginning of the container's id."""
FIRST_TABLE = 100
HOST_RULE_PRIORITY = MARK_PRIORITY = 1000
TO_PRIORITY = 32765
"""The kernel's own main rule is 32766; rules for a further interface stand before those of the ones before it."""
MARK, FIRST_MARK = 1, 2
"""Connections that came in through the veth, and through the first interface."""


def make_plan(
    settings: CoordinatorSettings,
    pod: PodState,
    host: HostState,
    *,
    container: str,
    interface: str,
    recorded: Collection[str],
    gateways: tuple[str, ...] = (),
    expected: tuple[str, ...] = (),
) -> Plan:
    """The plan for ADD of `interface`; `recorded`: the addresses, without length, that IPAM gave it; `gateways`: those that
    IPAM named for it; `expected`: all interfaces that the pod will have, empty where nothing tells.

    Raises `InvalidRequest` or `PodRefused` when it cannot be."""
    current = pod.nic(interface)
    if current is None:
        raise PodRefused(
            f"interface {interface} is not in the pod's network namespace; the coordinator must stand after the plugin "
            f"that makes it in the plugin list of network {settings.network}"
        )
    mode = effective_mode(settings, pod, interface)
    if mode == "disable":
        return Plan(mode, None, Desired(), Desired())
    first = interface == settings.first_nic
    veth = _veth(settings, container, pod) if mode == "underlay" else None
    through, pod_mac, host_dev, host_mac = _through(settings, pod, host, veth)
    nics = [nic for nic in pod.nics if nic.name != VETH]
    addresses = [address for nic in nics for address in nic.addresses]
    families = {_family(address) for address in addresses}
    hosts = tuple(dict.fromkeys(_bare(one) for one in host.addresses if _family(one) in families))
    nearest = {family: _nearest(family, host.addresses, addresses) for family in families}
    sources = {4: _first_of(4, pod.nic(settings.first_nic) or current), 6: ""}
    tables = _tables(settings, pod, nics, interface, expected) if settings.tune_routes else {}

    moved = tuple(
        route
        for route in pod.routes
        if route.table == MAIN and route.dev in tables and not _link_local(route.dst)
    )
    routes = [
        replace(route, table=tables[route.dev]) for route in sorted(moved, key=lambda one: bool(one.gw))
    ]
    here = tables.get(interface, MAIN)
    wanted = {here} | ({MAIN} if first or mode == "overlay" else set())
    if (
        settings.first_nic in tables
    ):  # it lost its place in the main table, another one holds the default route
        wanted |= {MAIN, tables[settings.first_nic]}
    for table in sorted(wanted, reverse=True):
        src = sources if table == MAIN else {}
        routes += [_on_link(one, through, table, src.get(_family(one), "")) for one in hosts]
        routes += [
            Route(cidr, through, gw=nearest[_family(cidr)], src=src.get(_family(cidr), ""), table=table)
            for cidr in settings.hijack
            if nearest.get(_family(cidr))
        ]
    mine = {_family(address) for address in current.addresses}
    routes += [
        Route(dst, interface, gw=gw, table=here) for dst, gw in settings.policy_routes if _family(dst) in mine
    ]
    defaults = _missing_defaults(settings, pod, tables, interface, gateways)
    routes += defaults
    kept = _kept_routes(pod, moved, {one.family for one in defaults if one.table == MAIN}, tables)
    rules = [rule for name, table in tables.items() for rule in _rules_of(pod.nic(name), table)]
    if veth is not None:
        for family in sorted(family for family in families if nearest[family]):
            rules.append(Rule(family, MARK_PRIORITY, settings.host_table, mark=MARK))
            via = nearest[family]
            src4 = sources.get(family, "")
            routes.append(_on_link(via, through, settings.host_table, src4))
            routes.append(
                Route(
                    "::/0" if family == 6 else "0.0.0.0/0",
                    through,
                    gw=via,
                    src=src4,
                    table=settings.host_table,
                )
            )
        if tables:
            first_nic = pod.nic(settings.first_nic)
            back = tables.get(settings.first_nic, MAIN)
            rules += [
                Rule(family, MARK_PRIORITY, back, mark=FIRST_MARK)
                for family in sorted({_family(one) for one in (first_nic.addresses if first_nic else ())})
            ]
    if mode == "overlay" and tables:
        # A client in the subnet of another interface that called the first one is answered by the first one.
        rules += [
            Rule(_family(address), TO_PRIORITY - 2 * len(tables), MAIN, src=_host_cidr(address))
            for nic in nics
            if nic.name == settings.first_nic and nic.name not in tables
            for address in nic.addresses
        ]
    in_pod = Desired(
        addresses=((VETH, f"{settings.veth_address}/32"),)
        if veth
        and settings.veth_address
        and 4 in families
        and usable_veth_address(settings.veth_address, addresses, host.addresses)
        else (),
        routes=tuple(dict.fromkeys(routes)),
        rules=tuple(dict.fromkeys(rules)),
        neighbours=tuple(Neighbour(one, through, host_mac) for one in hosts),
        sysctls=(
            *_pod_sysctls(settings, families, (*(nic.name for nic in nics), through)),
            *_router_sysctls(
                nics, tables, {route.dev for route in kept if route.default and route.family == 6}
            ),
        ),
        gone=tuple(route for route in moved if route not in kept),
    )
    taken = (*(_bare(one) for one in host.addresses), *settings.hijack, *host.taken)
    reached = reachable(current, recorded, host.advertised, taken)
    on_host = Desired(
        routes=tuple(_on_link(address, host_dev, settings.host_table) for address in reached),
        rules=tuple(Rule(family, HOST_RULE_PRIORITY, settings.host_table) for family in sorted(mine)),
        neighbours=tuple(Neighbour(_bare(address), host_dev, pod_mac) for address in reached),
        sysctls=()
        if settings.host_rp_filter is None
        else ((f"net/ipv4/conf/{host_dev}/rp_filter", str(settings.host_rp_filter)),),
    )
    return Plan(
        mode, veth, in_pod, on_host, marks=veth is not None, mac=_mac(settings, current), queue=settings.queue
    )


def effective_mode(settings: CoordinatorSettings, pod: PodState, interface: str) -> str:
    """The mode, decided when it is "auto". Raises `InvalidRequest` when the mode cannot work for this interface."""
    first, has_veth = interface == settings.first_nic, pod.nic(VETH) is not None
    mode = settings.mode
    if mode == "auto":
        mode = "underlay" if first or has_veth else "overlay"
    if mode == "underlay" and not first and not has_veth:
        raise InvalidRequest(
            f"network {settings.network} has coordinator mode underlay for {interface}, but the pod has no {VETH}: add the "
            f"coordinator to the network of the pod's first interface {settings.first_nic} too"
        )
    if mode == "overlay" and first:
        raise InvalidRequest(
            f"network {settings.network} has coordinator mode overlay for {interface}, the pod's first interface, which an "
            "overlay plugin must make; use mode auto or underlay"
        )
    if mode == "overlay" and has_veth:
        raise InvalidRequest(
            f"network {settings.network} has coordinator mode overlay for {interface}, but the pod has {VETH}, so its first "
            "interface is in underlay mode; use one mode for all interfaces, or auto"
        )
    return mode


def host_veth_name(container: str) -> str:
    """The host's end of the pod's veth pair."""
    return f"{HOST_VETH}{container[:11]}"


def network_alias(network: str) -> str:
    """The note on the host's end of a veth pair: which network's ADD made it. The kernel takes 255 bytes, so a name that is
    longer is there by its digest."""
    whole = f"{ALIAS}{network}"
    return whole if len(whole.encode()) <= 255 else ALIAS + hashlib.sha256(network.encode()).hexdigest()


def policy_tables(pod: PodState, limit: int) -> frozenset[int]:
    """The policy tables that a pod with these interfaces may have, and `limit`, the one for marked replies."""
    return frozenset({*range(FIRST_TABLE, FIRST_TABLE + max(len(pod.nics), 1)), limit})


def _veth(settings: CoordinatorSettings, container: str, pod: PodState) -> Veth:
    # From the container's id, so that a repeated ADD means the same pair.
    return Veth(
        VETH,
        host_veth_name(container),
        veth_mac(container, POD_END),
        veth_mac(container, HOST_END),
        settings.veth_mtu,
        network_alias(settings.network),
    )


def veth_mac(container: str, end: str) -> str:
    """The MAC of one end of the container's veth pair, drawn from its id: it tells the pair from any other."""
    digest = hashlib.sha256(f"{container}/{end}".encode()).digest()
    # 0x02: locally administered, and not a group address (IEEE 802).
    return ":".join(f"{byte:02x}" for byte in (digest[0] & 0xFC | 0x02, *digest[1:6]))


def _through(
    settings: CoordinatorSettings, pod: PodState, host: HostState, veth: Veth | None
) -> tuple[str, str, str, str]:
    """The interface that leads to the host and its MAC, the host's end of it and its MAC."""
    if veth is not None:
        return veth.pod, veth.pod_mac, veth.host, veth.host_mac
    first = pod.nic(settings.first_nic)
    if first is None or host.peer is None:
        raise InvalidRequest(
            f"coordinator mode overlay needs the pod's first interface {settings.first_nic} to be one end of a veth pair "
            "whose other end is on the host, as Calico and Cilium make it; name another one in podDefaultCniNic"
        )
    return first.name, first.mac, host.peer.name, host.peer.mac


def _tables(
    settings: CoordinatorSettings, pod: PodState, nics: list[Nic], interface: str, expected: tuple[str, ...]
) -> dict[str, int]:
    """The policy table of every interface that is not the one with the default route. While the chosen one is still to
    come, every interface gets the table that it will have afterwards; the first alone waits."""
    names = [nic.name for nic in nics]
    holder = settings.default_nic
    if holder and holder not in names:
        _require_coming(settings, names, interface, expected)
        if interface == settings.first_nic and len(names) == 1:
            holder = ""
    if not holder:
        with_default = {route.dev for route in pod.routes if route.default and route.table == MAIN}
        holder = next((name for name in names if name in with_default), names[0])
    others = [name for name in names if name != holder]
    return {name: FIRST_TABLE + place for place, name in enumerate(others)}


def _require_coming(
    settings: CoordinatorSettings, names: list[str], interface: str, expected: tuple[str, ...]
) -> None:
    """Raise unless the chosen interface may still come. What a configuration chose is for pods with several interfaces;
    what a pod chose for itself must be."""
    if settings.default_nic in expected:
        return
    alone = interface == settings.first_nic and len(names) == 1
    if alone and (not expected or (len(expected) == 1 and not settings.pod_chose)):
        return
    found = ", ".join(dict.fromkeys((*names, *expected)))
    raise InvalidRequest(
        f"the default route is to be on {settings.default_nic} (podDefaultRouteNIC or the annotation "
        f"ipam.spidernet.io/default-route-nic), but the pod has only {found}; choose one of these, or, if it is still to "
        "come, list its network in the pod's annotation k8s.v1.cni.cncf.io/networks"
    )


def _missing_defaults(
    settings: CoordinatorSettings,
    pod: PodState,
    tables: dict[str, int],
    interface: str,
    gateways: tuple[str, ...],
) -> list[Route]:
    """Default routes where there is none: in the interface's policy table when IPAM gave none, as it does when the pod's
    default route is to be on another interface, so that what was asked through this one is answered through it; in the
    main table for the chosen one, because a main plugin adds none beside that of the first interface."""
    names = [nic.name for nic in pod.nics]
    waiting = (
        settings.tune_routes and interface == settings.first_nic and settings.default_nic not in ("", *names)
    )
    table = FIRST_TABLE if waiting else tables.get(interface, MAIN)
    if table == MAIN and (settings.default_nic != interface or not tables):
        return []
    others = {
        route.family
        for route in pod.routes
        if route.default
        and route.dev == interface
        and route.table in (MAIN, table)
        and route.gw not in gateways
    }
    return [
        Route("::/0" if ":" in gateway else "0.0.0.0/0", interface, gw=gateway, table=table)
        for gateway in gateways
        if _family(gateway) not in others
    ]


def _kept_routes(
    pod: PodState, moved: tuple[Route, ...], coming: set[int], tables: dict[str, int]
) -> set[Route]:
    """Routes that stay in the main table beside their copy: a default route of each family that the holder has none of,
    or the pod could begin no connection in it, and those that the kernel would bring back."""
    covered = coming | {
        route.family
        for route in pod.routes
        if route.default and route.table == MAIN and route.dev not in tables
    }
    kept: dict[int, Route] = {}
    for route in moved:
        if route.default and route.family not in covered:
            kept.setdefault(route.family, route)
    # The kernel makes it anew with each advertisement; the rule to the same subnet stands before the main table.
    renewed = {
        (nic.name, str(ipaddress.ip_interface(one).network)) for nic in pod.nics for one in nic.dynamic
    }
    return {*kept.values(), *(route for route in moved if (route.dev, route.dst) in renewed)}


def _rules_of(nic: Nic | None, table: int) -> Iterable[Rule]:
    first = TO_PRIORITY - 2 * (table - FIRST_TABLE)
    for address in nic.addresses if nic else ():
        family = _family(address)
        yield Rule(family, first - 1, table, src=_host_cidr(address))
        yield Rule(family, first, table, dst=address)


def _pod_sysctls(
    settings: CoordinatorSettings, families: set[int], names: tuple[str, ...]
) -> tuple[tuple[str, str], ...]:
    found: list[tuple[str, str]] = []
    if settings.pod_rp_filter is not None:
        value = str(settings.pod_rp_filter)
        found += [
            (f"net/ipv4/conf/{name}/rp_filter", value) for name in dict.fromkeys(("all", "default", *names))
        ]
    if 6 in families:
        found += [(f"net/ipv6/conf/{name}/disable_ipv6", "0") for name in dict.fromkeys(("all", *names))]
    return tuple(found)


def _router_sysctls(
    nics: list[Nic], tables: dict[str, int], keeping: set[str]
) -> tuple[tuple[str, str], ...]:
    """No more default routes from router advertisements into the main table, where they would compete with those of the
    interface that holds them; what was learnt is in the policy table."""
    return tuple(
        (f"net/ipv6/conf/{nic.name}/accept_ra_defrtr", "0")
        for nic in nics
        if nic.dynamic and nic.name in tables and nic.name not in keeping
    )


def _on_link(address: str, dev: str, table: int, src: str = "") -> Route:
    """The route to one neighbour. IPv6 routes have no scope."""
    return Route(_host_cidr(address), dev, src=src, table=table, link=_family(address) == 4)


def _mac(settings: CoordinatorSettings, nic: Nic) -> str:
    """The prefix and the four bytes of the address; of an IPv6 one, the last four."""
    if not settings.mac_prefix or not nic.addresses:
        return ""
    address = _first_of(4, nic) or _bare(nic.addresses[0])
    last = ipaddress.ip_address(address).packed[-4:]
    return ":".join((settings.mac_prefix, *(f"{byte:02x}" for byte in last)))


def _nearest(family: int, hosts: tuple[str, ...], pods: list[str]) -> str:
    """The host's address that the pod uses as its gateway: one in a subnet of the pod's if there is one."""
    mine = [one for one in hosts if _family(one) == family]
    subnets = [ipaddress.ip_interface(one).network for one in pods if _family(one) == family]
    for subnet in subnets:
        for one in mine:
            if ipaddress.ip_address(_bare(one)) in subnet:
                return _bare(one)
    return _bare(mine[0]) if mine else ""


def _first_of(family: int, nic: Nic) -> str:
    return next((_bare(one) for one in nic.addresses if _family(one) == family), "")


def _family(text: str) -> int:
    return 6 if ":" in text else 4


def _bare(cidr: str) -> str:
    return cidr.partition("/")[0]


def _host_cidr(text: str) -> str:
    bare = _bare(text)
    return f"{bare}/{128 if ':' in bare else 32}"


def _link_local(dst: str) -> bool:
    return dst.startswith(("fe80:", "ff00:"))
