"""Make a pod's and its host's network as a plan says, check it, and take it back: the work of one CNI request.

What must always hold: what is there already is not touched, so a second ADD changes nothing; what replaces something is
added before the other is removed; DEL removes what it finds and is content with half of it, or nothing. All of it
runs in a worker process, so that a namespace that hangs takes nobody else with it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actors.errors import (
    CNI_INVALID_ENVIRONMENT,
    CNI_IO_FAILURE,
    CNI_UNKNOWN_CONTAINER,
    CheckFailed,
    InvalidRequest,
    OrbweaverError,
)
from cni.dataplane.coordinator import announce, ownership, reply_marks, sweep
from cni.dataplane.coordinator.advertised import reachable
from cni.dataplane.coordinator.difference import Found, difference, told
from cni.dataplane.coordinator.plan import FIRST_MARK, MARK, make_plan
from cni.dataplane.coordinator.policy_tables import possible_tables
from cni.dataplane.coordinator.settings import CoordinatorSettings
from cni.dataplane.coordinator.veth import VETH, host_veth_name
from cni.dataplane.netlink.codec import Message
from cni.dataplane.netlink.links import add_veth, delete_link, set_link
from cni.dataplane.netlink.namespaces import inside, pod_namespace
from cni.dataplane.netlink.router_advertisements import solicit_routers
from cni.dataplane.netlink.routes import (
    add_address,
    add_neighbour,
    add_route,
    add_rule,
    delete_neighbour,
    delete_route,
    delete_rule,
)
from cni.dataplane.netlink.rtnetlink import Netlink
from cni.dataplane.netlink.sysctls import differing_sysctls, write_sysctls
from cni.dataplane.state import CoordinatorPlan, Desired, HostState, Nic, PodState, bare
from cni.dataplane.workers.job import Job, readable_addresses

_NOT_THE_HOSTS = re.compile(
    r"docker|cbr|dummy|virbr|lxcbr|veth|lo$|cali|flannel|kube-ipvs|cni|vx-submariner|cilium|nodelocaldns"
)
"""Interfaces whose addresses are not the host's own: bridges and stubs of other network plugins."""


def perform(job: Job, notes: list[str]) -> int:
    """Do it; returns how many things changed. `notes` gets what the log should tell of it. Raises `OrbweaverError`."""
    settings = job.settings
    assert isinstance(settings, CoordinatorSettings)
    if settings.mode == "disable" or (job.command in ("ADD", "CHECK") and not job.netns):
        return 0
    try:
        if job.command == "GC":
            with Netlink() as host:
                return sweep.collect(host, settings, [container for container, _ in job.valid])
        if job.command == "ADD":
            return _add(job, settings)
        if job.command == "CHECK":
            return _check(job, settings)
        return _delete(job, settings, notes)
    except OSError as error:
        raise OrbweaverError(
            f"coordinator {job.command} of {job.interface} for pod {job.pod}: the kernel refused: {error.strerror or error}",
            cni_code=CNI_IO_FAILURE,
        ) from error


def _plan(
    job: Job, settings: CoordinatorSettings, state: PodState, host: Netlink, pod: Netlink, namespace: int
) -> CoordinatorPlan:
    """What ADD makes and CHECK looks for. `namespace`: the host's number for the pod's."""
    return make_plan(
        settings,
        state,
        _host_state(job, host, pod, state, settings, namespace),
        container=job.container,
        interface=job.interface,
        recorded=readable_addresses(job.previous),
        gateways=_gateways(job.previous),
        expected=tuple(job.interfaces),
    )


def _add(job: Job, settings: CoordinatorSettings) -> int:
    with pod_namespace(job.netns, job.pod) as (descriptor, pod), Netlink() as host:
        state = observe(pod)
        namespace = host.namespace_number(descriptor)
        _require_own(job, state, host, namespace)
        plan = _plan(job, settings, state, host, pod, namespace)
        if plan.mode == "disable":
            return 0
        changed = _make_veth(plan, state, host, pod, descriptor, job.container)
        with inside(descriptor):
            changed += write_sysctls(plan.pod.sysctls)
            if plan.marks:
                changed += reply_marks.mark_replies({VETH: MARK, settings.first_nic: FIRST_MARK})
        current = state.nic(job.interface)
        assert current is not None
        changed += pod.send(_link_changes(plan, current))
        if plan.mac and plan.mac != current.mac:
            with inside(descriptor):
                announce.announce(job.interface, plan.mac, current.addresses)
        changed += pod.send(_pod_changes(plan.pod, pod, state))
        changed += _apply_to_host(plan, host, settings)
        return changed


def _require_own(job: Job, state: PodState, host: Netlink, namespace: int) -> None:
    """Refuse a namespace that another pod's ADD made its own, or that is not the one in which the main plugin just was.
    Raises `InvalidRequest`."""
    veth = state.nic(VETH)
    if veth is not None:
        peer = host.nic(index=veth.peer) if veth.peer else None
        if not ownership.is_anothers(state, job.container, peer=peer, namespace=namespace):
            return
        why = f"its {VETH} was made for another container"
    elif job.again:
        why = f"it has no {VETH} any more"
    elif ownership.has_an_address(state.nic(job.interface), job.previous):
        return
    else:
        why = f'its {job.interface} has none of the addresses in "prevResult"'
    raise InvalidRequest(
        f"CNI_NETNS {job.netns} of pod {job.pod} is not the network namespace of container {job.container}: {why}; nothing "
        "in it was touched",
        cni_code=CNI_INVALID_ENVIRONMENT,
    )


def _check(job: Job, settings: CoordinatorSettings) -> int:
    inspection = inspect(job, settings)
    if inspection.missing:
        raise CheckFailed(
            f"CHECK of {job.interface} for pod {job.pod}: {len(inspection.missing)} of its routes and rules are not as the "
            "coordinator made them; delete the pod so that it is made anew, or see `orbweaver explain --routes`",
            details=inspection.missing,
        )
    return 0


@dataclass(frozen=True, slots=True)
class Inspection:
    """A pod's plan and what of it is not so. `sysctls`: apart, because a pod may have changed them on purpose."""

    plan: CoordinatorPlan
    missing: tuple[str, ...] = ()
    sysctls: tuple[str, ...] = ()


def inspect(job: Job, settings: CoordinatorSettings) -> Inspection:
    """Compare a pod with its plan; changes nothing. Raises `OrbweaverError` or `OSError`."""
    with pod_namespace(job.netns, job.pod) as (descriptor, pod), Netlink() as host:
        state = observe(pod)
        plan = _plan(job, settings, state, host, pod, host.namespace_number(descriptor))
        if plan.mode == "disable":
            return Inspection(plan)
        missing = _missing(plan, state, pod, host, settings)
        with inside(descriptor):
            if plan.marks and not reply_marks.marks_replies():
                missing.append("the pod has no nftables table orbweaver, which marks replies")
            sysctls = differing_sysctls(plan.pod.sysctls)
        return Inspection(plan, tuple(missing), tuple(sysctls))


def _missing(
    plan: CoordinatorPlan, state: PodState, pod: Netlink, host: Netlink, settings: CoordinatorSettings
) -> list[str]:
    lines = [f"pod: link {plan.veth.pod}"] if plan.veth and state.nic(plan.veth.pod) is None else []
    if settings.default_nic and len(state.nics) > 2 and state.nic(settings.default_nic) is None:
        lines.append(f"pod: link {settings.default_nic}, which is to have the default route")
    names = {nic.index: nic.name for nic in state.nics}
    present = Found(state.routes, state.rules, set(pod.neighbours(names)))
    lines += told("pod", difference(plan.pod, present))
    device = plan.host.neighbours[0].dev if plan.host.neighbours else ""
    link = host.nic(name=device) if device else None
    if link is None:
        lines += [f"host: link {device}"] if device else []
        only_rules = Desired(rules=plan.host.rules)
        return [*lines, *told("host", difference(only_rules, Found(rules=set(host.rules()))))]
    found_on_host = _found_on_host(plan.host, host, link, settings.host_table)
    return [*lines, *told("host", difference(plan.host, found_on_host))]


def _found_on_host(desired: Desired, host: Netlink, link: Nic, table: int) -> Found:
    """What the host has of what is desired: each route and neighbour is asked for, because a node has those of all pods."""
    names = {link.index: link.name}
    routes = (host.route_to(bare(route.dst), names, table) for route in desired.routes)
    neighbours = (
        host.neighbour(neighbour.address, neighbour.dev, link.index) for neighbour in desired.neighbours
    )
    return Found(
        [route for route in routes if route is not None],
        set(host.rules()),
        [neighbour for neighbour in neighbours if neighbour is not None],
    )


def _delete(job: Job, settings: CoordinatorSettings, notes: list[str]) -> int:
    """Remove what is provably this container's. The path of its namespace may be stale, and its addresses another's."""
    with Netlink() as host:
        changed = 0
        addresses = readable_addresses(job.previous)
        named = host.nic(name=host_veth_name(job.container))
        ends = [named] if named is not None and ownership.is_host_end(named, job.container) else []
        if job.netns and os.path.lexists(job.netns):
            try:
                with pod_namespace(job.netns, job.pod) as (descriptor, pod):
                    state = observe(pod)
                    namespace = host.namespace_number(descriptor)
                    if _is_containers(job, settings, state, named, namespace):
                        nic = state.nic(job.interface)
                        addresses |= {cidr.partition("/")[0] for cidr in (nic.addresses if nic else ())}
                        other = named if state.nic(VETH) else _host_end(host, state, settings, namespace)
                        ends += [other] if other is not None else []
                        changed += _clean_pod(job, settings, descriptor, pod, state)
                    else:
                        notes.append(
                            f"{job.netns} is not provably this container's, nothing in it was touched"
                        )
            except OSError as error:
                # The pod may have done with it what it likes; what is left there goes with it.
                notes.append(f"not everything in {job.netns} was removed: {error.strerror or error}")
            except OrbweaverError as error:
                if error.cni_code not in (CNI_UNKNOWN_CONTAINER, CNI_INVALID_ENVIRONMENT):
                    raise
                notes.append(error.message)
        indexes = {end.index for end in ends}
        changed += _clean_host(host, addresses, settings, lambda index: index in indexes)
        if job.interface == settings.first_nic and named in ends:
            changed += host.send([delete_link(host_veth_name(job.container))])
        return changed


def _is_containers(
    job: Job, settings: CoordinatorSettings, state: PodState, named: Nic | None, namespace: int
) -> bool:
    return ownership.is_containers(
        state,
        job.container,
        job.interface,
        host_end=named,
        namespace=namespace,
        previous=job.previous,
        mac_prefix=settings.mac_prefix,
    )


def _clean_pod(
    job: Job, settings: CoordinatorSettings, descriptor: int, pod: Netlink, state: PodState
) -> int:
    """Remove the interface's rules and tables; with the first interface, everything that was made."""
    tables = possible_tables(state, settings.host_table)
    nic = state.nic(job.interface)
    mine = set(nic.addresses) if nic else set()
    addresses = {bare(address) for address in mine}
    first = job.interface == settings.first_nic
    rules = [
        rule
        for rule in state.rules
        if (bare(rule.src) in addresses or rule.dst in mine)
        or (first and (rule.table in tables or rule.mark == FIRST_MARK))
    ]
    own = {rule.table for rule in rules if rule.table in tables}
    indexes = {nic.name: nic.index for nic in state.nics}
    routes = [route for route in state.routes if route.table in own]
    changed = pod.send(
        [delete_rule(rule) for rule in rules] + [delete_route(route, indexes[route.dev]) for route in routes]
    )
    if first:
        with inside(descriptor):
            reply_marks.delete_marks()
    return changed


def observe(pod: Netlink) -> PodState:
    """What there is in the socket's namespace."""
    nics = tuple(pod.nics())
    names = {nic.index: nic.name for nic in nics}
    return PodState(nics, tuple(pod.routes(names)), tuple(pod.rules()))


def host_addresses(host: Netlink) -> tuple[str, ...]:
    """The host's own addresses in CIDR form, in the order of its interfaces."""
    names: dict[int, bool] = {}
    by_index = []
    for index, address in host.addresses():
        if index not in names:
            nic = host.nic(index=index)
            names[index] = nic is not None and not _NOT_THE_HOSTS.match(nic.name)
        if names[index]:
            by_index.append((index, address))
    return tuple(address for _, address in sorted(by_index, key=lambda entry: entry[0]))


def _host_end(host: Netlink, pod: PodState, settings: CoordinatorSettings, namespace: int) -> Nic | None:
    """The host's end of the pod's first interface, where another plugin made that a veth pair."""
    first = pod.nic(settings.first_nic)
    if first is None or not first.peer or pod.nic(VETH) is not None:
        return None
    peer = host.nic(index=first.peer)
    # What is not its other end is its parent, as of macvlan, or an interface of a third namespace.
    return peer if ownership.are_joined(peer, first, namespace) else None


def _host_state(
    job: Job, host: Netlink, pod: Netlink, state: PodState, settings: CoordinatorSettings, namespace: int
) -> HostState:
    peer = _host_end(host, state, settings, namespace)
    current = state.nic(job.interface)
    advertised = _advertised_to(current, job, pod) if current is not None else ()
    taken: list[str] = []
    if current is not None and advertised:
        own = peer.name if peer is not None else host_veth_name(job.container)
        candidates = reachable(current, (), advertised, ())
        ways = {
            address: host.route_to(address, {}, settings.host_table)
            for address in (bare(cidr) for cidr in candidates)
        }
        taken = [address for address, way in ways.items() if way is not None and way.dev != own]
    return HostState(host_addresses(host), peer, advertised, tuple(taken))


def _advertised_to(current: Nic, job: Job, pod: Netlink) -> tuple[str, ...]:
    """The prefixes that are advertised on the interface's parent. An interface has an index for its parent in a namespace
    of which the pod knows a number; a pod may make namespaces of its own, with interfaces of any index, so it has to be
    the host's number."""
    if not current.dynamic or not current.peer or current.namespace < 0:
        return ()
    with Path("/proc/self/ns/net").open("rb") as ours:
        if pod.namespace_number(ours.fileno()) != current.namespace:
            return ()
    prefixes = tuple(prefix for index, prefix in job.advertised if index == current.peer)
    if job.command == "ADD" and len(reachable(current, (), prefixes, ())) < len(current.dynamic):
        with contextlib.suppress(OSError):  # a router that answered the pod alone was not heard here
            solicit_routers(current.peer)
    return prefixes


def _make_veth(
    plan: CoordinatorPlan, state: PodState, host: Netlink, pod: Netlink, descriptor: int, container: str
) -> int:
    veth = plan.veth
    if veth is None or state.nic(veth.pod) is not None:
        return 0
    pair = add_veth(
        veth.host, veth.host_mac, veth.mtu, peer=veth.pod, peer_mac=veth.pod_mac, peer_namespace=descriptor
    )
    create = [pair, set_link(name=veth.host, alias=veth.alias)]
    try:
        changed = host.send(create)
    except OSError as error:
        if error.errno != errno.EEXIST:
            raise
        if not ownership.is_host_end(host.nic(name=veth.host), container):
            raise OrbweaverError(
                f"the host's interface {veth.host}, which is to lead to container {container}, exists already and was made "
                "for something else, perhaps a container whose id begins alike; remove it, or delete the pod so that its "
                "container gets another id",
                cni_code=CNI_IO_FAILURE,
            ) from error
        # Half of an earlier attempt.
        changed = host.send([delete_link(veth.host)]) + host.send(create)
    return changed + pod.send([set_link(name=veth.pod, up=True)])


def _link_changes(plan: CoordinatorPlan, current: Nic) -> list[Message]:
    mac = plan.mac if plan.mac != current.mac else ""
    queue = plan.queue if plan.queue != current.queue else 0
    if current.up and not mac and not queue:
        return []
    return [set_link(current.index, up=not current.up, mac=mac, queue=queue)]


def _pod_changes(desired: Desired, pod: Netlink, state: PodState) -> list[Message]:
    """What is missing first, then what is in its way."""
    nics = {nic.name: nic for nic in state.nics}
    if any(
        dev not in nics
        for dev in (*(entry.dev for entry in desired.routes), *(entry.dev for entry in desired.neighbours))
    ):
        nics = {nic.name: nic for nic in pod.nics()}
    names = {nic.index: nic.name for nic in nics.values()}
    present = Found(
        state.routes,
        state.rules,
        set(pod.neighbours(names)) if state.nic(VETH) is not None else (),
        {(nic.name, address) for nic in nics.values() for address in nic.addresses},
    )
    missing = difference(desired, present)
    # The kernel takes no second IPv4 route to one destination in one table.
    occupied = {(route.dst, route.table) for route in missing.gone}
    behind = [route for route in missing.routes if (route.dst, route.table) in occupied]
    first = [route for route in missing.routes if route not in behind]
    return [
        *(add_address(cidr, nics[dev].index) for dev, cidr in missing.addresses),
        *(add_neighbour(neighbour, nics[neighbour.dev].index) for neighbour in missing.neighbours),
        *(add_route(route, nics[route.dev].index) for route in first),
        *(add_rule(rule) for rule in missing.rules),
        *(delete_route(route, nics[route.dev].index) for route in missing.gone),
        *(add_route(route, nics[route.dev].index) for route in behind),
    ]


def _apply_to_host(plan: CoordinatorPlan, host: Netlink, settings: CoordinatorSettings) -> int:
    if not plan.host.routes:
        return 0
    device = plan.host.routes[0].dev
    link = host.nic(name=device)
    if link is None:
        raise OSError(errno.ENODEV, f"{os.strerror(errno.ENODEV)}: {device} vanished")
    changed = write_sysctls(plan.host.sysctls)
    addresses = {neighbour.address for neighbour in plan.host.neighbours}
    changed += _clean_host(host, addresses, settings, lambda index: index != link.index)
    missing = difference(plan.host, _found_on_host(plan.host, host, link, settings.host_table))
    changes = [
        *(add_rule(rule) for rule in missing.rules),
        *(add_route(route, link.index, replace=True) for route in missing.routes),
        *(add_neighbour(neighbour, link.index) for neighbour in missing.neighbours),
    ]
    return changed + host.send(changes)


def _clean_host(
    host: Netlink, addresses: set[str], settings: CoordinatorSettings, stale: Callable[[int], bool]
) -> int:
    """Remove the routes to these addresses in the host's table, and their neighbours, on interfaces whose index is
    `stale`; and rules to them alone that the table has no route for by then."""
    changes: list[Message] = []
    left = set()
    for address in addresses:
        names: dict[int, str] = {}
        route = host.route_to(address, names, settings.host_table)
        index = next((index for index, name in names.items() if route is not None and name == route.dev), 0)
        if route is not None and stale(index):
            changes += [delete_route(route, index), delete_neighbour(address, index)]
        elif route is not None:
            left.add(address)
    for rule in host.rules() if addresses else ():
        target, _, length = rule.dst.partition("/")
        if target in addresses - left and length in ("32", "128") and rule.table == settings.host_table:
            changes.append(delete_rule(rule))
    return host.send(changes)


def _gateways(previous: Mapping[str, Any]) -> tuple[str, ...]:
    ips = previous.get("ips", ())
    named = [ip.get("gateway") for ip in (ips if isinstance(ips, list) else ()) if isinstance(ip, Mapping)]
    return tuple(dict.fromkeys(gateway for gateway in named if isinstance(gateway, str) and gateway))
