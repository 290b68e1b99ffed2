"""`orbweaver explain POD --routes`: what the coordinator makes for a pod, and what of it is not so.

What must always hold: it plans by the same function as an ADD and changes nothing. Where the pod's network namespace
can be looked into, on its node and as root, the plan is for what is there and the differences are told; elsewhere
the pod is imagined from its recorded addresses and its pools, one interface after the other.
"""

from __future__ import annotations

import argparse
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from actors.decisions.annotations import FIRST_INTERFACE, read_default_route_nic, read_networks
from actors.decisions.settings import Settings
from actors.errors import InvalidObject, InvalidRequest, NotFound
from actors.resources.addresses import format_address
from actors.resources.blocks.record import Record
from actors.resources.coordinator import KIND, NAME, SpiderCoordinator
from actors.resources.json_text import showable
from actors.resources.pod import Pod
from actors.store.caches.catalog import Catalog
from actors.store.contract import Store
from cni.command.block_inventory import BlockInventory
from cni.command.explain_networks import PodNetworks
from cni.command.get import print_value
from cni.command.manifest import read_mapping
from cni.command.settings_options import settings_on
from cni.command.store_choice import open_store
from cni.dataplane.coordinator.apply import Inspection, host_addresses, inspect
from cni.dataplane.coordinator.plan import make_plan
from cni.dataplane.coordinator.plugin import NAME as PLUGIN
from cni.dataplane.coordinator.settings import CoordinatorSettings, read_settings
from cni.dataplane.netlink.namespaces import inside
from cni.dataplane.netlink.rtnetlink import Netlink
from cni.dataplane.state import CoordinatorPlan, Desired, HostState, Nic, PodState, Route, applied
from cni.dataplane.workers.job import Job

NAMESPACES = Path("/run/netns")


@dataclass(frozen=True, slots=True)
class Interface:
    """One interface of the pod, as the pool's and the block's objects have it."""

    name: str
    """In the pod."""
    addresses: tuple[tuple[str, str | None], ...]
    """In CIDR form, each with the gateway or None."""
    routes: tuple[Route, ...]
    """Those of its pools."""
    settings: CoordinatorSettings | None
    """Of its network's coordinator; None for a network without one."""
    network: str = ""
    """`namespace/name`, empty for the node's own."""

    @property
    def title(self) -> str:
        """What it is called, with its network where that is known."""
        return f"{self.name} on {self.network}" if self.network else self.name


@dataclass(frozen=True, slots=True)
class Subject:
    """The pod and everything that its plan depends on."""

    pod: Pod
    """As the store has it."""
    record: Record
    """Of its first address: who it is recorded for, and where."""
    interfaces: tuple[Interface, ...]
    """In the order in which they are added."""
    expected: tuple[str, ...]
    """Names of all interfaces that the pod will have; empty where nothing tells."""
    node_addresses: tuple[str, ...]
    """The node's, in CIDR form."""

    def job(self, interface: Interface, settings: CoordinatorSettings, netns: str) -> Job:
        """The coordinator's CHECK for one interface."""
        ips = [
            {"address": address, **({"gateway": gateway} if gateway else {})}
            for address, gateway in interface.addresses
        ]
        place = (self.record.container, interface.name, netns, self.pod.key)
        return Job("CHECK", settings, *place, {"ips": ips}, self.expected)


def run(chosen: argparse.Namespace, namespace: str, name: str) -> int:
    """Print the plan; 1 when the pod differs from it."""
    with open_store(chosen) as store:
        subject = _read(store, namespace, name, chosen.conf, settings_on(store, chosen))
    netns = chosen.netns or _find_namespace(subject)
    if netns is not None:
        try:
            inspections = {
                interface.name: _inspect(
                    subject.job(interface, interface.settings, netns), interface.settings
                )
                for interface in subject.interfaces
                if interface.settings is not None
            }
        except OSError as error:
            raise InvalidRequest(
                f"the network namespace {netns} of pod {subject.pod.key} cannot be looked into: {error.strerror or error}; run "
                "it as root on the pod's node"
            ) from error
        where = f"in {netns}"
    else:
        inspections = {name: Inspection(plan) for name, plan in _imagine(subject).items()}
        where = (
            "from its recorded addresses; to compare it with the pod run this as root on node "
            f"{subject.record.node or 'of the pod'}, with --netns if its namespace is not in {NAMESPACES}"
        )
    if chosen.output:
        print_value(_as_object(subject, netns, inspections), chosen.output)
    else:
        print(f"pod {subject.pod.key}, planned {where}")
        for interface in subject.interfaces:
            print(
                "\n".join(
                    map(
                        showable,
                        _lines(interface, inspections.get(interface.name), compared=netns is not None),
                    )
                )
            )
    return 1 if any(inspection.missing or inspection.sysctls for inspection in inspections.values()) else 0


def _inspect(job: Job, settings: CoordinatorSettings) -> Inspection:
    return inspect(job, settings)


def _read(store: Store, namespace: str, name: str, conf_file: str | None, options: Settings) -> Subject:
    # Never started: an informer without a cache leaves every question to the store.
    catalog = Catalog(store, has_pods=False)
    pod = catalog.pod(namespace, name, "")
    held = [
        allocation for allocation in BlockInventory.read(store).of_pod(pod.key) if allocation.record.container
    ]
    if not held:
        raise NotFound(
            f"pod {pod.key} has no recorded address, so there is nothing to plan; `orbweaver explain {pod.key}` tells which "
            "one it would get"
        )
    networks = tuple(network.interface for network in read_networks(pod))
    default_nic = read_default_route_nic(pod) or ""
    settings = _settings_of(store, pod, conf_file, options, default_nic)
    interfaces: dict[str, Interface] = {}
    for allocation in sorted(
        held,
        key=lambda allocation: (
            allocation.record.interface != FIRST_INTERFACE,
            allocation.record.interface,
            allocation.family,
        ),
    ):
        pool = catalog.fresh_pool(allocation.record.pool)
        interface = allocation.record.interface
        before = interfaces.get(interface, Interface(interface, (), (), *settings(interface)))
        gateway = None if pool.gateway is None else format_address(allocation.family, pool.gateway)
        address = (f"{format_address(allocation.family, allocation.value)}/{pool.subnet.prefix}", gateway)
        routes = [
            Route(str(pool.subnet), interface, src=address[0].partition("/")[0] if allocation.family == 4 else "",
                  link=allocation.family == 4, proto=2)
        ]  # fmt: skip
        if gateway and default_nic in ("", interface):
            routes.append(Route("0.0.0.0/0" if allocation.family == 4 else "::/0", interface, gw=gateway))
        routes += [
            Route(str(route.destination), interface, gw=format_address(route.family, route.gateway))
            for route in pool.routes
        ]
        interfaces[interface] = replace(
            before, addresses=(*before.addresses, address), routes=(*before.routes, *routes)
        )
    record = held[0].record
    return Subject(
        pod,
        record,
        tuple(interfaces.values()),
        (FIRST_INTERFACE, *networks) if networks else (),
        _node_addresses(store, record.node),
    )


def _settings_of(
    store: Store, pod: Pod, conf_file: str | None, options: Settings, default_nic: str
) -> Callable[[str], tuple[CoordinatorSettings | None, str]]:
    """What an interface's coordinator is told, and the interface's network: of the file that was named, else of the
    network that the pod names, else of the SpiderCoordinator."""
    defaults = _defaults(store)
    networks = PodNetworks() if conf_file is not None else PodNetworks.of(store, pod, options)
    given = _configuration(conf_file)

    def of(interface: str) -> tuple[CoordinatorSettings | None, str]:
        network = networks.on(interface)
        conf: Mapping[str, Any] | None = given
        if network is not None and network.name and not network.why:
            conf = network.coordinator
        if conf is None:
            return None, network.name if network is not None else ""
        settings = read_settings(conf if defaults is None else defaults.under(conf))
        if default_nic:
            settings = replace(settings, default_nic=default_nic, pod_chose=True)
        return settings, network.name if network is not None else ""

    return of


def _defaults(store: Store) -> SpiderCoordinator | None:
    by_name = {obj["metadata"]["name"]: obj for obj in store.list(KIND).items}
    obj = by_name.get(NAME) or next((by_name[name] for name in sorted(by_name)), None)
    return None if obj is None else SpiderCoordinator.from_object(obj)


def _configuration(file: str | None) -> dict[str, Any]:
    """The coordinator's part of a network's list."""
    if file is None:
        return {"name": "explain"}
    source, conf = read_mapping(file, "the CNI configuration")
    plugins = conf.get("plugins", [conf])
    for plugin in plugins if isinstance(plugins, list) else ():
        if isinstance(plugin, dict) and plugin.get("type") == PLUGIN:
            return {**plugin, "name": str(conf.get("name", "explain"))}
    raise InvalidObject(
        f"{source}: none of its plugins is of type {PLUGIN}, so the pod gets no routes but those of the main plugin"
    )


def _node_addresses(store: Store, node: str) -> tuple[str, ...]:
    """The host's addresses: of this host when the pod runs here, else as the Node object has them."""
    if node in ("", socket.gethostname()):
        with Netlink() as host:
            return host_addresses(host)
    try:
        status = store.get("Node", node).get("status") or {}
    except NotFound:
        return ()
    addresses = [
        str(entry.get("address"))
        for entry in status.get("addresses") or ()
        if entry.get("type") in ("InternalIP", "ExternalIP")
    ]
    return tuple(f"{address}/{128 if ':' in address else 32}" for address in addresses)


def _find_namespace(subject: Subject) -> str | None:
    """The pod's namespace among the named ones: the one that has its addresses; None where one may not look."""
    wanted = {address for interface in subject.interfaces[:1] for address, _ in interface.addresses}
    if os.geteuid() != 0 or not NAMESPACES.is_dir():
        return None
    for path in sorted(NAMESPACES.iterdir()):
        try:
            with path.open("rb") as file, inside(file.fileno()), Netlink() as channel:
                if wanted <= {address for _, address in channel.addresses()}:
                    return str(path)
        except OSError:
            continue  # a file that is no namespace, or one that is going away
    return None


def _imagine(subject: Subject) -> dict[str, CoordinatorPlan]:
    """One ADD after the other on a model of the pod."""
    state = PodState(())
    plans: dict[str, CoordinatorPlan] = {}
    for number, interface in enumerate(subject.interfaces):
        if not subject.node_addresses:
            raise InvalidRequest(
                f"the addresses of node {subject.record.node} are not known here: there is no Node object that has them; run "
                "this on that node"
            )
        settings = interface.settings
        first = settings.first_nic if settings is not None else FIRST_INTERFACE
        if number == 0 and interface.name != first:
            raise InvalidRequest(
                f"{first} of pod {subject.pod.key} has no recorded address: another network plugin made it, so "
                "its routes can be told only on its node, as root"
            )
        nic = Nic(
            interface.name, len(state.nics) + 2, "", tuple(address for address, _ in interface.addresses)
        )
        there = {(route.dst, route.table) for route in state.routes}
        state = PodState(
            (*state.nics, nic),
            (*state.routes, *(route for route in interface.routes if (route.dst, route.table) not in there)),
            state.rules,
        )
        if settings is None:
            continue
        plan = make_plan(
            settings,
            state,
            HostState(subject.node_addresses),
            container=subject.record.container,
            interface=interface.name,
            recorded={address.partition("/")[0] for address, _ in interface.addresses},
            gateways=tuple(gateway for _, gateway in interface.addresses if gateway),
            expected=subject.expected,
        )
        plans[interface.name] = plan
        state = applied(state, plan)
    return plans


def _lines(interface: Interface, inspection: Inspection | None, *, compared: bool) -> Iterator[str]:
    if inspection is None:
        yield f"{interface.title}: no coordinator, so it has no routes but those of its other plugins"
        return
    plan = inspection.plan
    yield f"{interface.title}: mode {plan.mode}"
    if plan.mode == "disable":
        return
    yield "  in the pod"
    if plan.veth is not None:
        veth = plan.veth
        yield f"    link {veth.pod} mac {veth.pod_mac} mtu {veth.mtu}, a pair with {veth.host} on the node"
    if plan.mac:
        yield f"    link {interface.name} mac {plan.mac}"
    if plan.queue:
        yield f"    link {interface.name} txqueuelen {plan.queue}"
    if plan.marks:
        yield "    nftables table orbweaver, which marks replies"
    yield from (f"    {line}" for line in _desired(plan.pod))
    yield "  on the node"
    if plan.veth is not None:
        yield f"    link {plan.veth.host} mac {plan.veth.host_mac} mtu {plan.veth.mtu} alias {plan.veth.alias!r}"
    yield from (f"    {line}" for line in _desired(plan.host))
    if compared:
        differences = (*inspection.missing, *inspection.sysctls)
        yield f"  differs in {len(differences)}" if differences else "  and so it is"
        yield from (f"    {line}" for line in differences)


def _desired(desired: Desired) -> Iterator[str]:
    yield from (f"address {cidr} dev {dev}" for dev, cidr in desired.addresses)
    yield from (
        f"route {route}" for route in sorted(desired.routes, key=lambda route: (route.table, str(route)))
    )
    yield from (f"no route {route}" for route in desired.gone)
    yield from (f"rule {rule}" for rule in sorted(desired.rules, key=lambda rule: (rule.priority, str(rule))))
    yield from (f"neighbour {neighbour}" for neighbour in desired.neighbours)
    yield from (f"sysctl {path.replace('/', '.')} = {value}" for path, value in desired.sysctls)


def _as_object(subject: Subject, netns: str | None, inspections: Mapping[str, Inspection]) -> dict[str, Any]:
    return {
        "pod": subject.pod.key,
        "node": subject.record.node,
        "netns": netns,
        "interfaces": {
            name: {
                "mode": inspection.plan.mode,
                "pod": list(_desired(inspection.plan.pod)),
                "node": list(_desired(inspection.plan.host)),
                "differences": [*inspection.missing, *inspection.sysctls] if netns else None,
            }
            for name, inspection in inspections.items()
        },
    }
