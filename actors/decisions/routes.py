"""The routes that a CNI result carries for one interface.

What must always hold:

* Each address brings its pool's routes and, unless the gateway is to be kept out (`cleangateway`), a default
  route through its pool's gateway. `ipam.spidernet.io/default-route-nic` keeps default routes of pools to
  that interface.
* A route of the pod's annotation goes to the interface that can reach its gateway: the first, in the order of
  the plan, whose subnet has it; a link-local one is on every link, and so of the chosen one,
  else of the first that has an address of IPv6. One that no interface can reach is left out with a reason, not refused,
  because the interface that can may be added by a later CNI call.
* One destination has one route on an interface: the annotation outranks the pool's gateway, which outranks
  the pool's routes, and IPv4 comes before IPv6.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from actors.decisions.annotations import FIRST_INTERFACE, POD_ROUTES
from actors.decisions.plan import Plan
from actors.resources.addresses import IPV4, IPV6, Subnet, format_address, is_link_local
from actors.resources.ippool import IPPool
from actors.resources.space import PoolRoute, is_router_of

_WARNED = 8
"""Routes of one pod that are judged for warnings; it may have hundreds."""

DEFAULT = {IPV4: Subnet(IPV4, 0, 0), IPV6: Subnet(IPV6, 0, 0)}


@dataclass(frozen=True, slots=True)
class InterfaceAddress:
    """An address that an interface has, and the pool it is from."""

    interface: str
    value: int
    pool: IPPool
    clean_gateway: bool = False

    @property
    def family(self) -> int:
        return self.pool.family


@dataclass(frozen=True, slots=True)
class Routing:
    """The routes of one interface, and the reasons for what was left out."""

    routes: tuple[PoolRoute, ...]
    reasons: tuple[str, ...]


def route(interface: str, leases: Sequence[InterfaceAddress], plan: Plan) -> Routing:
    """The routes of `interface`; `leases` are those of all interfaces that are known, in the order of the
    plan."""
    reasons: list[str] = []
    by_destination: dict[Subnet, PoolRoute] = {}
    mine = sorted((lease for lease in leases if lease.interface == interface), key=lambda lease: lease.family)
    for custom in plan.routes:
        owner = _reaching(custom, leases, plan.default_route_nic)
        if owner is None:
            reasons.append(
                f"route to {custom.destination} left out: no interface has a subnet with its gateway "
                f"{format_address(custom.family, custom.gateway)}"
            )
        elif owner == interface:
            by_destination.setdefault(custom.destination, custom)
    for lease in mine:
        if lease.pool.gateway is None:
            reasons.append(
                f"{interface} IPv{lease.family}: no default route, pool {lease.pool.name} has no gateway"
            )
        elif lease.clean_gateway:
            reasons.append(f"{interface} IPv{lease.family}: no default route, because of cleangateway")
        elif plan.default_route_nic not in (None, interface):
            reasons.append(
                f"{interface} IPv{lease.family}: no default route, it goes to {plan.default_route_nic}"
            )
        else:
            default = DEFAULT[lease.family]
            by_destination.setdefault(default, PoolRoute(default, lease.pool.gateway))
    for lease in mine:
        for given in lease.pool.routes:
            by_destination.setdefault(given.destination, given)
    # Stable: by family, default routes first, then as they were found.
    ordered = sorted(by_destination.values(), key=lambda route: (route.family, route.destination.prefix != 0))
    return Routing(tuple(ordered), tuple(reasons))


def unreached(plan: Plan, asking: str, leases: Sequence[InterfaceAddress]) -> tuple[str, ...]:
    """A warning for each route of the pod's annotation whose gateway no interface of the pod reaches. `leases`: those of
    all its interfaces so far, that of `asking` the last; as long as another one is to come, nothing is said."""
    have = {lease.interface for lease in leases}
    order = list(dict.fromkeys((FIRST_INTERFACE, *plan.networks)))
    if asking in order and any(later not in have for later in order[order.index(asking) + 1 :]):
        return ()
    return tuple(
        f"annotation {POD_ROUTES}: the route to {custom.destination} is left out, because no interface has a subnet with its "
        f"gateway {format_address(custom.family, custom.gateway)} ({_subnets(leases)})"
        for custom in plan.routes[:_WARNED]
        if _reaching(custom, leases, plan.default_route_nic) is None
    )


def _subnets(leases: Sequence[InterfaceAddress]) -> str:
    subnets = dict.fromkeys(f"{lease.interface}: {lease.pool.subnet}" for lease in leases)
    return ", ".join(subnets) or "none has an address of a pool"


def _reaching(custom: PoolRoute, leases: Sequence[InterfaceAddress], default_nic: str | None) -> str | None:
    """The first interface that can; a link-local gateway is looked for on the pod's chosen interface first."""
    for lease in sorted(leases, key=lambda lease: _is_everywhere(custom) and lease.interface != default_nic):
        if lease.family == custom.family and is_router_of(lease.pool.subnet, custom.gateway):
            return lease.interface
    return None


def _is_everywhere(custom: PoolRoute) -> bool:
    return is_link_local(custom.family, custom.gateway)
