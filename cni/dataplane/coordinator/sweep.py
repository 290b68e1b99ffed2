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
from cni.dataplane.state import Nic


def collect(host: Netlink, settings: CoordinatorSettings, containers: Sequence[str]) -> int:
    """Remove what is stale; `containers`: those with a valid attachment to the settings' network. Returns how many
    things were removed. Raises `OSError`."""
    pairs = [nic for nic in host.nics() if nic.name.startswith(HOST_VETH) and nic.alias.startswith(ALIAS)]
    mine = [nic for nic in pairs if nic.alias == network_alias(settings.network)]
    dead = [
        nic for nic in mine if not any(one.startswith(nic.name.removeprefix(HOST_VETH)) for one in containers)
    ]
    done = host.send([delete_link(nic.name) for nic in dead])
    for nic in pairs:
        if nic not in dead:
            done += host.send(_abandoned(host, nic, settings.host_table))
    names = {nic.index: nic.name for nic in host.nics()}
    there = [
        ipaddress.ip_network(route.dst) for route in host.routes(names) if route.table == settings.host_table
    ]
    unused = [
        rule
        for rule in host.rules()
        if rule.table == settings.host_table
        and rule.dst.endswith("/128" if rule.family == 6 else "/32")
        and not any(ipaddress.ip_address(rule.dst.partition("/")[0]) in network for network in there)
    ]
    return done + host.send([delete_rule(rule) for rule in unused])


def _abandoned(host: Netlink, nic: Nic, table: int) -> list[Message]:
    """Routes and neighbours through a veth to addresses that its pod does not have."""
    alive = host.addresses_in(nic.namespace) if nic.namespace >= 0 else None
    if alive is None:
        return []
    bare = {address.partition("/")[0] for address in alive}
    names = {nic.index: nic.name}
    routes = [
        route
        for route in host.routes(names)
        if route.table == table and route.dst.partition("/")[0] not in bare
    ]
    neighbours = [one.address for one in host.neighbours(names) if one.address not in bare]
    return [
        *(delete_route(route, nic.index) for route in routes),
        *(delete_neighbour(address, nic.index) for address in neighbours),
    ]
