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

import ipaddress
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace

from actors.errors import InvalidRequest, PodRefused
from cni.dataplane.coordinator.advertised import reachable
from cni.dataplane.coordinator.policy_tables import FIRST_TABLE
from cni.dataplane.coordinator.settings import CoordinatorSettings, usable_veth_address
from cni.dataplane.coordinator.situation import Situation, first_of, read_situation
from cni.dataplane.coordinator.veth import VETH
from cni.dataplane.state import (
    MAIN,
    CoordinatorPlan,
    Desired,
    HostState,
    Neighbour,
    Nic,
    PodState,
    PolicyRule,
    Route,
    bare,
    family_of,
    host_cidr,
)

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
) -> CoordinatorPlan:
    """The plan for ADD of `interface`; `recorded`: the addresses, without length, that IPAM gave it; `gateways`: those that
    IPAM named for it; `expected`: all interfaces that the pod will have, empty where nothing tells.

    Raises `InvalidRequest` or `PodRefused` when it cannot be."""
    added = pod.nic(interface)
    if added is None:
        raise PodRefused(
            f"interface {interface} is not in the pod's network namespace; the coordinator must stand after the plugin "
            f"that makes it in the plugin list of network {settings.network}"
        )
    mode = effective_mode(settings, pod, interface)
    if mode == "disable":
        return CoordinatorPlan(mode, None, Desired(), Desired())
    situation = read_situation(
        settings,
        pod,
        host,
        mode=mode,
        added=added,
        container=container,
        gateways=gateways,
        expected=expected,
    )
    return CoordinatorPlan(
        mode,
        situation.veth,
        _in_pod(situation),
        _on_host(situation, recorded),
        marks=situation.veth is not None,
        mac=_mac(settings, added),
        queue=settings.queue,
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


def _in_pod(situation: Situation) -> Desired:
    moved = _moved_routes(situation)
    defaults = _missing_defaults(situation)
    kept = _kept_routes(situation, moved, defaults)
    routes = (
        *_copied_routes(situation, moved),
        *_routes_to_host(situation),
        *_policy_routes(situation),
        *defaults,
        *_routes_of_marked_replies(situation),
    )
    rules = (*_interface_rules(situation), *_mark_rules(situation), *_first_interface_rules(situation))
    return Desired(
        addresses=_veth_address(situation),
        routes=tuple(dict.fromkeys(routes)),
        rules=tuple(dict.fromkeys(rules)),
        neighbours=tuple(
            Neighbour(host, situation.path.dev, situation.path.host_mac) for host in situation.hosts
        ),
        sysctls=(*_pod_sysctls(situation), *_router_sysctls(situation, kept)),
        gone=tuple(route for route in moved if route not in kept),
    )


def _on_host(situation: Situation, recorded: Collection[str]) -> Desired:
    """`10.7.168.173 dev vethc0ffee scope link table 500`: the way to each address of the added interface."""
    settings, host, path = situation.settings, situation.host, situation.path
    taken = (*(bare(address) for address in host.addresses), *settings.hijack, *host.taken)
    reached = reachable(situation.added, recorded, host.advertised, taken)
    rp_filter = settings.host_rp_filter
    return Desired(
        routes=tuple(_on_link(address, path.host_dev, settings.host_table) for address in reached),
        rules=tuple(
            PolicyRule(family, HOST_RULE_PRIORITY, settings.host_table)
            for family in sorted(situation.added_families)
        ),
        neighbours=tuple(Neighbour(bare(address), path.host_dev, path.mac) for address in reached),
        sysctls=() if rp_filter is None else ((f"net/ipv4/conf/{path.host_dev}/rp_filter", str(rp_filter)),),
    )


def _moved_routes(situation: Situation) -> tuple[Route, ...]:
    """`10.7.0.0/16 dev net1 scope link`: what the main table has for an interface that has a policy table."""
    return tuple(
        route
        for route in situation.pod.routes
        if route.table == MAIN and route.dev in situation.tables and not _link_local(route.dst)
    )


def _copied_routes(situation: Situation, moved: Iterable[Route]) -> Iterator[Route]:
    """`10.7.0.0/16 dev net1 scope link table 100`: the same, where it moves to; what a gateway needs comes first."""
    for route in sorted(moved, key=lambda route: bool(route.gw)):
        yield replace(route, table=situation.tables[route.dev])


def _routes_to_host(situation: Situation) -> Iterator[Route]:
    """`10.6.168.123 dev veth0 scope link` and `10.96.0.0/12 via 10.6.168.123 dev veth0`: the way to the host, and through
    it to services, in every table in which the pod may look for it."""
    dev, nearest = situation.path.dev, situation.nearest
    for table in sorted(_tables_to_host(situation), reverse=True):
        sources = situation.sources if table == MAIN else {}
        for host in situation.hosts:
            yield _on_link(host, dev, table, sources.get(family_of(host), ""))
        for cidr in situation.settings.hijack:
            family = family_of(cidr)
            if nearest.get(family):
                yield Route(cidr, dev, gw=nearest[family], src=sources.get(family, ""), table=table)


def _tables_to_host(situation: Situation) -> set[int]:
    tables = {situation.added_table}
    if situation.adds_first or situation.mode == "overlay":
        tables.add(MAIN)
    first = situation.settings.first_nic
    if first in situation.tables:
        # It lost its place in the main table: another one holds the default route.
        tables |= {MAIN, situation.tables[first]}
    return tables


def _policy_routes(situation: Situation) -> Iterator[Route]:
    """`172.20.0.0/16 via 10.7.0.9 dev net1 table 100`: those of the configuration, for the added interface."""
    for dst, gw in situation.settings.policy_routes:
        if family_of(dst) in situation.added_families:
            yield Route(dst, situation.added.name, gw=gw, table=situation.added_table)


def _missing_defaults(situation: Situation) -> tuple[Route, ...]:
    """`default via 10.7.0.1 dev net1 table 100` where there is none: in the interface's policy table when IPAM gave none, as
    it does when the pod's default route is to be on another interface, so that what was asked through this one is
    answered through it; in the main table for the chosen one, because a main plugin adds none beside that of the first
    interface."""
    table, gateways = _table_of_defaults(situation), situation.gateways
    if table is None:
        return ()
    covered = {
        route.family
        for route in situation.pod.routes
        if route.default
        and route.dev == situation.added.name
        and route.table in (MAIN, table)
        and route.gw not in gateways
    }
    return tuple(
        Route(_everywhere(family_of(gateway)), situation.added.name, gw=gateway, table=table)
        for gateway in gateways
        if family_of(gateway) not in covered
    )


def _table_of_defaults(situation: Situation) -> int | None:
    """The table in which the added interface must have default routes, or None when others see to that."""
    settings = situation.settings
    chosen_is_coming = bool(settings.default_nic) and situation.pod.nic(settings.default_nic) is None
    if settings.tune_routes and situation.adds_first and chosen_is_coming:
        return FIRST_TABLE
    table = situation.added_table
    if table == MAIN and (settings.default_nic != situation.added.name or not situation.tables):
        return None
    return table


def _kept_routes(
    situation: Situation, moved: tuple[Route, ...], defaults: tuple[Route, ...]
) -> frozenset[Route]:
    """`default via fd00:6::1 dev net1`: what stays in the main table beside its copy: a default route of each family that
    the holder has none of, or the pod could begin no connection in it, and those that the kernel would bring back."""
    covered = {route.family for route in defaults if route.table == MAIN} | {
        route.family
        for route in situation.pod.routes
        if route.default and route.table == MAIN and route.dev not in situation.tables
    }
    only_defaults: dict[int, Route] = {}
    for route in moved:
        if route.default and route.family not in covered:
            only_defaults.setdefault(route.family, route)
    # The kernel makes it anew with each advertisement; the rule to the same subnet stands before the main table.
    renewed = {
        (nic.name, str(ipaddress.ip_interface(address).network))
        for nic in situation.pod.nics
        for address in nic.dynamic
    }
    return frozenset(
        (*only_defaults.values(), *(route for route in moved if (route.dev, route.dst) in renewed))
    )


def _routes_of_marked_replies(situation: Situation) -> Iterator[Route]:
    """`10.6.168.123 dev veth0 scope link table 500` and `default via 10.6.168.123 dev veth0 table 500`."""
    if situation.veth is None:
        return
    table, dev = situation.settings.host_table, situation.path.dev
    for family in situation.families:
        if via := situation.nearest[family]:
            src = situation.sources[family]
            yield _on_link(via, dev, table, src)
            yield Route(_everywhere(family), dev, gw=via, src=src, table=table)


def _interface_rules(situation: Situation) -> Iterator[PolicyRule]:
    """`32764: from 10.7.168.173 lookup 100` and `32765: from all to 10.7.168.173/16 lookup 100`."""
    for name, table in situation.tables.items():
        nic = situation.pod.nic(name)
        priority = TO_PRIORITY - 2 * (table - FIRST_TABLE)
        for address in nic.addresses if nic else ():
            family = family_of(address)
            yield PolicyRule(family, priority - 1, table, src=host_cidr(address))
            yield PolicyRule(family, priority, table, dst=address)


def _mark_rules(situation: Situation) -> Iterator[PolicyRule]:
    """`1000: from all fwmark 0x1 lookup 500`: the replies of what came in through the veth; with several interfaces also
    `1000: from all fwmark 0x2 lookup main`: of what came in through the first one."""
    if situation.veth is None:
        return
    for family in situation.families:
        if situation.nearest[family]:
            yield PolicyRule(family, MARK_PRIORITY, situation.settings.host_table, mark=MARK)
    if situation.tables and situation.first is not None:
        table = situation.tables.get(situation.settings.first_nic, MAIN)
        for family in sorted({family_of(address) for address in situation.first.addresses}):
            yield PolicyRule(family, MARK_PRIORITY, table, mark=FIRST_MARK)


def _first_interface_rules(situation: Situation) -> Iterator[PolicyRule]:
    """`32763: from 10.6.168.172 lookup main`, in overlay mode: a client in the subnet of another interface that called the
    first one is answered by the first one."""
    first, tables = situation.first, situation.tables
    if situation.mode == "overlay" and tables and first is not None and first.name not in tables:
        for address in first.addresses:
            yield PolicyRule(family_of(address), TO_PRIORITY - 2 * len(tables), MAIN, src=host_cidr(address))


def _veth_address(situation: Situation) -> tuple[tuple[str, str], ...]:
    """`169.254.100.1/32 dev veth0`, where the configuration wants it and nobody else has it."""
    wanted = situation.settings.veth_address
    if not (situation.veth and wanted and 4 in situation.families):
        return ()
    if not usable_veth_address(wanted, situation.addresses, situation.host.addresses):
        return ()
    return ((VETH, f"{wanted}/32"),)


def _pod_sysctls(situation: Situation) -> Iterator[tuple[str, str]]:
    """`net/ipv4/conf/all/rp_filter = 0` and `net/ipv6/conf/all/disable_ipv6 = 0`."""
    names = (*(nic.name for nic in situation.nics), situation.path.dev)
    rp_filter = situation.settings.pod_rp_filter
    if rp_filter is not None:
        for name in dict.fromkeys(("all", "default", *names)):
            yield f"net/ipv4/conf/{name}/rp_filter", str(rp_filter)
    if 6 in situation.families:
        for name in dict.fromkeys(("all", *names)):
            yield f"net/ipv6/conf/{name}/disable_ipv6", "0"


def _router_sysctls(situation: Situation, kept: Iterable[Route]) -> Iterator[tuple[str, str]]:
    """`net/ipv6/conf/net1/accept_ra_defrtr = 0`: no more default routes from router advertisements into the main table,
    where they would compete with those of the interface that holds them; what was learnt is in the policy table."""
    keeping = {route.dev for route in kept if route.default and route.family == 6}
    for nic in situation.nics:
        if nic.dynamic and nic.name in situation.tables and nic.name not in keeping:
            yield f"net/ipv6/conf/{nic.name}/accept_ra_defrtr", "0"


def _on_link(address: str, dev: str, table: int, src: str = "") -> Route:
    """The route to one neighbour. IPv6 routes have no scope."""
    return Route(host_cidr(address), dev, src=src, table=table, link=family_of(address) == 4)


def _mac(settings: CoordinatorSettings, nic: Nic) -> str:
    """The prefix and the four bytes of the address; of an IPv6 one, the last four."""
    if not settings.mac_prefix or not nic.addresses:
        return ""
    address = first_of(4, nic) or bare(nic.addresses[0])
    last = ipaddress.ip_address(address).packed[-4:]
    return ":".join((settings.mac_prefix, *(f"{byte:02x}" for byte in last)))


def _everywhere(family: int) -> str:
    return "::/0" if family == 6 else "0.0.0.0/0"


def _link_local(dst: str) -> bool:
    return dst.startswith(("fe80:", "ff00:"))
