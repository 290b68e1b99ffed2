"""CNI GC of the coordinator: what is left on the host of attachments that the runtime does not have any more.

How it works. A veth's alias names the network whose ADD made it, and its name begins its container's id; when no valid
attachment of that network has such a container, the pair goes, and with it every route and neighbour on it. Of the
pairs that stay the kernel tells which addresses the pod has at their other end: a host route or neighbour to another
one was a further interface's that is gone. Rules to one address go when the table has no route to it.
What must always hold: what another network's attachment, or another program, made and still uses stays.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from cni.dataplane.coordinator.settings import CoordinatorSettings
from cni.dataplane.coordinator.veth import ALIAS, HOST_VETH, network_alias
from cni.dataplane.netlink.codec import Message
from cni.dataplane.netlink.links import delete_link
from cni.dataplane.netlink.routes import delete_neighbour, delete_route, delete_rule
from cni.dataplane.netlink.rtnetlink import Netlink
from cni.dataplane.state import Nic, PolicyRule, bare, host_cidr


def collect(host: Netlink, settings: CoordinatorSettings, containers: Sequence[str]) -> int:
    """Remove what is stale; `containers`: those with a valid attachment to the settings' network. Returns how many
    things were removed. Raises `OSError`."""
    table = settings.host_table
    pairs = [nic for nic in host.nics() if nic.name.startswith(HOST_VETH) and nic.alias.startswith(ALIAS)]
    dead = [nic for nic in pairs if _is_dead(nic, settings.network, containers)]
    removed = host.send([delete_link(nic.name) for nic in dead])
    for nic in pairs:
        if nic not in dead:
            removed += host.send(_abandoned(host, nic, table))
    return removed + host.send([delete_rule(rule) for rule in _unused_rules(host, table)])


def _is_dead(nic: Nic, network: str, containers: Sequence[str]) -> bool:
    """Whether the veth is one of the network's, and the runtime has no container for it."""
    begins = nic.name.removeprefix(HOST_VETH)
    return nic.alias == network_alias(network) and not any(
        container.startswith(begins) for container in containers
    )


def _unused_rules(host: Netlink, table: int) -> list[PolicyRule]:
    """Rules to one address to which the table has no route."""
    names = {nic.index: nic.name for nic in host.nics()}
    reached = [ipaddress.ip_network(route.dst) for route in host.routes(names) if route.table == table]
    return [
        rule
        for rule in host.rules()
        if rule.table == table
        and rule.dst == host_cidr(rule.dst)
        and not any(ipaddress.ip_address(bare(rule.dst)) in network for network in reached)
    ]


def _abandoned(host: Netlink, nic: Nic, table: int) -> list[Message]:
    """Routes and neighbours through a veth to addresses that its pod does not have."""
    alive = host.addresses_in(nic.namespace) if nic.namespace >= 0 else None
    if alive is None:
        return []
    addresses = {bare(address) for address in alive}
    names = {nic.index: nic.name}
    routes = [
        route for route in host.routes(names) if route.table == table and bare(route.dst) not in addresses
    ]
    neighbours = [
        neighbour.address for neighbour in host.neighbours(names) if neighbour.address not in addresses
    ]
    return [
        *(delete_route(route, nic.index) for route in routes),
        *(delete_neighbour(address, nic.index) for address in neighbours),
    ]
