"""What a running Whereabouts holds, read from its objects and from the networks that name it; nothing is written.

What must always hold: everything that Whereabouts gave to somebody is among the allocations, or a sentence says what could
not be read.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from actors.errors import InvalidObject, NoSuchResource
from actors.resources.addresses import parse_address
from actors.store.contract import Object, Store
from cni.takeover.holders import Holders
from cni.takeover.networks import Network, attached_networks, ours
from cni.takeover.reading import ForeignAllocation
from cni.takeover.whereabouts import objects
from cni.takeover.whereabouts.objects import IP_POOL, RESERVATION, SLICE_POOL, ForeignPool, GivenAddress
from cni.takeover.whereabouts.ranges import IPAM_TYPE, RangeUse, ranges_of, reservation_name
from cni.takeover.windows import Pools, pools_of

NAMESPACE = "kube-system"
"""Where Whereabouts keeps its objects unless its kubeconfig says otherwise."""
_NAMED = 5
"""Of many alike, so many are named."""


@dataclass(frozen=True, slots=True)
class Holding:
    """Everything that was read, in Whereabouts' own terms."""

    uses: tuple[RangeUse, ...]
    """The ranges of all networks."""
    pools: Pools
    """What stands for them here; its windows are in the order of `uses`."""
    ip_pools: tuple[ForeignPool, ...]
    """Those that a network names."""
    reservations: tuple[Object, ...]
    """All of them."""
    namespace: str = NAMESPACE
    """Where Whereabouts keeps its objects."""
    networks: tuple[Network, ...] = ()
    """Those that name Whereabouts, and those that did."""
    differences: tuple[str, ...] = ()
    """As `Reading` has them."""
    problems: tuple[str, ...] = ()
    """Likewise."""

    def uses_of(self, pool: ForeignPool) -> tuple[RangeUse, ...]:
        """Who gives out of an IPPool."""
        return tuple(use for use in self.uses if use.ip_pool == pool.name)

    @property
    def network_names(self) -> dict[str, str]:
        """By pool, what CNI calls the network whose it is. One that several share is left out: under the wrong network's name a
        record would be taken back by a GC of that network."""
        names: dict[str, set[str]] = {}
        for use, pools in zip(self.uses, self.pools.of_window, strict=True):
            for pool in pools:
                names.setdefault(pool, set()).add(use.network.name)
        return {pool: networks.pop() for pool, networks in names.items() if len(networks) == 1}

    def pool_for(self, pool: ForeignPool, value: int) -> str:
        """The pool here for an address of an IPPool; one that no network gives out any more goes to the first of its range."""
        name = self.pools.holding(pool.subnet.family, value)
        if name:
            return name
        own = (
            names[0]
            for use, names in zip(self.uses, self.pools.of_window, strict=True)
            if use.ip_pool == pool.name and names
        )
        return next(own, "")


def read_holding(store: Store) -> Holding:
    """Everything. Raises `NoSuchResource` where Whereabouts is not installed."""
    problems: list[str] = []
    ip_pools: list[ForeignPool] = []
    for obj in store.list(IP_POOL).items:
        try:
            ip_pools.append(objects.ip_pool_of(obj))
        except InvalidObject as error:
            metadata = obj["metadata"]
            problems.append(
                objects.unreadable(f"IPPool {metadata.get('namespace')}/{metadata['name']}", error)
            )
    slices: dict[str, tuple[tuple[str, str], ...]] = {}
    slice_pools = _listed(store, SLICE_POOL)
    reservations = tuple(_listed(store, RESERVATION))
    for obj in slice_pools:
        try:
            slices[obj["metadata"]["name"]] = objects.slices_of(obj)
        except InvalidObject as error:
            problems.append(objects.unreadable(f"NodeSlicePool {obj['metadata']['name']}", error))
    networks, unread = attached_networks(store, IPAM_TYPE)
    read = [ranges_of(network, slices) for network in networks]
    uses = tuple(use for of in read for use in of.uses)
    places: dict[str, int] = {}
    for place, use in enumerate(uses):
        places.setdefault(use.ip_pool, place)
    used = [
        (places[pool.name], entry.value) for pool in ip_pools if pool.name in places for entry in pool.entries
    ]
    pools = pools_of(IPAM_TYPE, [use.window for use in uses], used)
    named = {use.ip_pool for use in uses}
    return Holding(
        uses,
        pools,
        tuple(pool for pool in ip_pools if pool.name in named),
        reservations,
        _namespace((*(pool.obj for pool in ip_pools), *slice_pools, *reservations)),
        networks,
        (*(sentence for of in read for sentence in of.differences), *pools.differences),
        (
            *problems,
            *unread,
            *(sentence for of in read for sentence in of.problems),
            *pools.problems,
            *_apart(uses),
            *(_stray(pool) for pool in ip_pools if pool.name not in named and pool.entries),
        ),
    )


def _namespace(own: Sequence[Object]) -> str:
    """Where most of Whereabouts' objects are."""
    namespaces = Counter(obj["metadata"]["namespace"] for obj in own)
    return namespaces.most_common(1)[0][0] if namespaces else NAMESPACE


def _listed(store: Store, kind: str) -> Sequence[Object]:
    """Objects of a kind that earlier versions of Whereabouts did not have."""
    try:
        return store.list(kind).items
    except NoSuchResource:
        return ()


def allocations_of(
    holding: Holding, holders: Holders
) -> tuple[tuple[ForeignAllocation, ...], tuple[str, ...], tuple[str, ...]]:
    """Who has what, what will differ of it, and what is wrong."""
    networks = holding.network_names
    allocations = [
        holders.completed(
            ForeignAllocation(
                pool.subnet.family,
                entry.value,
                home := holding.pool_for(pool, entry.value),
                pool.title,
                entry.pod,
                "",
                entry.container,
                entry.interface,
                network=networks.get(home, ""),
            )
        )
        for pool in holding.ip_pools
        for entry in pool.entries
    ]
    problems = [
        f"{allocation.text} in {allocation.where} is given to {allocation.pod or 'nobody'!r}, which names no pod; take the "
        "entry out"
        for allocation in allocations
        if "/" not in allocation.pod.strip("/")
    ]
    reserved, left_out = _reserved_alone(holding, holders)
    gone = [allocation for allocation in allocations if allocation.pod not in holders.pods]
    return (
        tuple(allocation for allocation in (*allocations, *reserved) if "/" in allocation.pod.strip("/")),
        (*left_out, *_gone(gone)),
        (*problems, *_reserved_for_others(holding)),
    )


def sections_of(network: Network, holding: Holding) -> dict[int, Any]:
    """Our `ipam` for each of a network's."""
    pools: dict[int, dict[int, list[str]]] = {section.place: {} for section in network.sections}
    for use, names in zip(holding.uses, holding.pools.of_window, strict=True):
        if use.network is network:
            pools[use.place].setdefault(use.window.subnet.family, []).extend(names)
    return {place: ours(families) for place, families in pools.items()}


def change_of(network: Network, holding: Holding) -> str:
    """What becomes of a network's configuration, in a sentence for people."""
    sections = sections_of(network, holding)
    texts = [
        f"{json.dumps(dict(section.ipam.data))} becomes {json.dumps(sections[section.place])}"
        for section in network.sections
    ]
    return f"{network.title}: ipam {'; '.join(texts)}"


def _apart(uses: Sequence[RangeUse]) -> tuple[str, ...]:
    """A sentence for two networks that use the same addresses side by side, which no pools can."""
    problems = []
    for index, use in enumerate(uses):
        for other in uses[:index]:
            same_family = use.window.subnet.family == other.window.subnet.family
            if (
                same_family
                and use.network_name != other.network_name
                and use.window.addresses.intersect(other.window.addresses)
            ):
                problems.append(
                    f"{other.network.title} and {use.network.title} use the same addresses beside each other (network_name "
                    f"{other.network_name!r} and {use.network_name!r}); Orbweaver gives each address once, so give one of them "
                    "another range"
                )
    return tuple(dict.fromkeys(problems))


def _stray(pool: ForeignPool) -> str:
    return (
        f"{pool.title} has {len(pool.entries)} addresses in use, and no NetworkAttachmentDefinition names its range "
        f"{pool.subnet}: write the one that does into the cluster, or delete the IPPool if nothing uses it"
    )


def _gone(allocations: Sequence[ForeignAllocation]) -> tuple[str, ...]:
    if not allocations:
        return ()
    texts = ", ".join(f"{allocation.text} of {allocation.pod}" for allocation in allocations[:_NAMED])
    more = f" and {len(allocations) - _NAMED} more" if len(allocations) > _NAMED else ""
    return (
        f"addresses of pods that are gone are recorded like the others, and freed by garbage collection: {texts}{more}",
    )


def _entries(holding: Holding) -> dict[str, GivenAddress]:
    """By the name of its reservation, each entry."""
    return {
        reservation_name(pool.subnet.family, entry.value, use.network_name): entry
        for pool in holding.ip_pools
        for use in holding.uses_of(pool)
        for entry in pool.entries
    }


def _reserved_for_others(holding: Holding) -> tuple[str, ...]:
    entries = _entries(holding)
    problems = []
    for obj in holding.reservations:
        entry = entries.get(obj["metadata"]["name"])
        pod = str(obj["spec"].get("podref", ""))
        if entry is not None and pod != entry.pod:
            problems.append(
                f"reservation {obj['metadata']['name']} is of pod {pod}, and the IPPool gives that address to pod {entry.pod}: "
                "find out who uses it, and take the other one out"
            )
    return tuple(problems)


def reservations_of(holding: Holding) -> list[tuple[Object, int, int]]:
    """The reservations of addresses that networks give out which come over, each with the address."""
    names = {use.network_name for use in holding.uses}
    prefixes = sorted((f"{name}-" for name in names if name), key=len, reverse=True)
    own = []
    for obj in holding.reservations:
        name = obj["metadata"]["name"]
        word = next((name.removeprefix(prefix) for prefix in prefixes if name.startswith(prefix)), name)
        try:
            family, value = parse_address(word.replace("-", ":"))
        except InvalidObject:
            continue  # of a network that stays
        if holding.pools.holding(family, value):
            own.append((obj, family, value))
    return own


def _reserved_alone(holding: Holding, holders: Holders) -> tuple[list[ForeignAllocation], tuple[str, ...]]:
    """Addresses that only a reservation tells of: a process ended between the two writes. Those that a pod reports to have
    are in use."""
    entries = _entries(holding)
    reserved: list[ForeignAllocation] = []
    left_out: list[str] = []
    for obj, family, value in reservations_of(holding):
        name, pod = obj["metadata"]["name"], str(obj["spec"].get("podref", ""))
        if name in entries:
            continue
        home = holding.pools.holding(family, value)
        if any(holder.key == pod for holder in holders.by_address.get((family, value), ())):
            where = f"reservation {name}"
            interface = str(obj["spec"].get("ifname", ""))
            plain = ForeignAllocation(family, value, home, where, pod, interface=interface)
            reserved.append(holders.completed(plain))
        else:
            left_out.append(
                f"reservation {name} of pod {pod} is left out: no IPPool has it, and no pod reports the address"
            )
    return reserved, tuple(left_out)
