"""The pod's default route moved to the network that the pod chose for it (`default-route` of a network's selection).

What must always hold: only default routes of the main table are touched, and only on the interface that is named.
Source: "Kubernetes Network Custom Resource Definition De-facto Standard", version 1.3, section 4.1.2.1.9.
"""

from __future__ import annotations

from collections.abc import Sequence

from actors.errors import OrbweaverError
from cni.dataplane.netlink.namespaces import pod_namespace
from cni.dataplane.netlink.routes import add_route, delete_route
from cni.dataplane.state import MAIN, Route, family_of


def move_default_route(
    netns: str, pod: str, interface: str, *, removed: Sequence[int], gateways: Sequence[str]
) -> None:
    """Take the default routes of the families `removed` from an interface, and make new ones through `gateways`. Raises
    `OrbweaverError`."""
    with pod_namespace(netns, pod) as (_, channel):
        nic = channel.nic(name=interface)
        if nic is None:
            raise OrbweaverError(
                f"interface {interface} of pod {pod} is not there, so it has no default route to move"
            )
        gone = [
            route
            for route in channel.routes({nic.index: nic.name})
            if route.default and route.table == MAIN and route.dev == interface and route.family in removed
        ]
        routes = [
            Route("::/0" if family_of(gateway) == 6 else "0.0.0.0/0", interface, gw=gateway)
            for gateway in gateways
        ]
        messages = [delete_route(route, nic.index) for route in gone]
        messages += [add_route(route, nic.index, replace=True) for route in routes]
        try:
            channel.send(messages)
        except OSError as error:
            raise OrbweaverError(
                f"the default route of pod {pod} cannot be moved on {interface}: {error.strerror or error}; a gateway must be "
                "reached through the interface"
            ) from error
