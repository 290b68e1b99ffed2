"""What host-local holds on the nodes at hand, read from its directories and the networks that name it; nothing is written.

What must always hold: every address file in a network's directory is among the allocations, or a sentence says why it is left
out or what could not be read. host-local knows containers alone; whose a container is, the pods of the node say that report
the address, else the runtime's notes on this node.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actors.errors import InvalidObject, NotFound
from actors.resources.addresses import Subnet, parse_cidr
from actors.resources.node import KIND as NODE
from actors.store.contract import Store
from cni.server.libcni_cache import BadNote, Namespaces, Note, read_notes
from cni.takeover.holders import Holders
from cni.takeover.host_local import directories
from cni.takeover.host_local.directories import AddressFile
from cni.takeover.host_local.node_files import NodeConfs
from cni.takeover.host_local.ranges import IPAM_TYPE, LocalRange, of_node, ranges_of
from cni.takeover.networks import Network, attached_networks, ours
from cni.takeover.reading import ForeignAllocation
from cni.takeover.windows import Pools, pools_of

_NAMED = 5
"""Of many alike, so many are named."""


@dataclass(frozen=True, slots=True)
class NodeDirectory:
    """Where a node has what host-local gave out there."""

    node: str
    path: Path | None
    """None for where its networks say."""

    def of(self, local: LocalRange) -> Path:
        """The directory of one network."""
        base = self.path or (Path(local.data_dir) if local.data_dir else directories.STANDARD)
        return base / local.network.name


@dataclass(frozen=True, slots=True)
class HostLocalHolding:
    """Everything that was read."""

    networks: tuple[Network, ...]
    """Those that name host-local, and those that did."""
    ranges: tuple[LocalRange, ...]
    """Of all networks."""
    pools: Pools
    """What stands for them here; its windows are in the order of `ranges`."""
    allocations: tuple[ForeignAllocation, ...] = ()
    """Who has which address."""
    differences: tuple[str, ...] = ()
    """As `Reading` has them."""
    problems: tuple[str, ...] = ()
    """Likewise."""

    @property
    def shared(self) -> frozenset[str]:
        """The pools that several nodes give out of."""
        return frozenset(
            name
            for local, names in zip(self.ranges, self.pools.of_window, strict=True)
            if not local.window.nodes
            for name in names
        )

    def pools_of(self, network: Network) -> tuple[str, ...]:
        """The pools of a network."""
        return tuple(
            dict.fromkeys(
                name
                for local, names in zip(self.ranges, self.pools.of_window, strict=True)
                if local.network is network
                for name in names
            )
        )

    def pools_named(self, network_name: str) -> frozenset[str]:
        """The pools of the networks that CNI calls by this name."""
        networks = [network for network in self.networks if network.name == network_name]
        return frozenset(name for network in networks for name in self.pools_of(network))

    def sections_of(self, network: Network) -> dict[int, Any]:
        """Our `ipam` for each of a network's."""
        pools: dict[int, dict[int, list[str]]] = {section.place: {} for section in network.sections}
        for local, names in zip(self.ranges, self.pools.of_window, strict=True):
            if local.network is network:
                pools[local.place].setdefault(local.window.subnet.family, []).extend(names)
        return {place: ours(families) for place, families in pools.items()}

    def changes(self) -> tuple[str, ...]:
        """A sentence for each network that will name Orbweaver."""
        return tuple(
            f"{network.title}: ipam {json.dumps(dict(section.ipam.data))} becomes "
            f"{json.dumps(self.sections_of(network)[section.place])}"
            for network in self.networks
            if not network.is_ours
            for section in network.sections
        )

    def pool_for(self, local: LocalRange, file: AddressFile) -> str:
        """The pool for an address; one that no range has any more goes to the first of its subnet."""
        name = self.pools.holding(*file.address)
        if name:
            return name
        own = (
            names[0]
            for other, names in zip(self.ranges, self.pools.of_window, strict=True)
            if other.network is local.network and names and _has(other.window.subnet, file)
        )
        return next(own, "")


def read_holding(
    store: Store,
    node: str,
    places: Sequence[NodeDirectory],
    confs: NodeConfs,
    results: Path,
    noted: Callable[[str], frozenset[str]],
) -> HostLocalHolding:
    """Everything at hand. `noted`: the nodes that are recorded in a pool already, whose files are of the past. Raises
    `InvalidRequest` where a directory cannot be read."""
    problems: list[str] = []
    differences: list[str] = []
    attached, unread = attached_networks(store, IPAM_TYPE)
    of_files, unread_files = confs.networks()
    own = _node_subnets(store, node, problems)
    ranges: list[LocalRange] = []
    for network in (*attached, *of_files):
        read, different, wrong = ranges_of(network)
        differences += different
        problems += wrong
        for local in read:
            private = not network.key and any(_inside(local.window.subnet, subnet) for subnet in own)
            ranges.append(of_node(local, node) if private else local)
    used = _used(ranges, places)
    pools = pools_of(IPAM_TYPE, [local.window for local in ranges], used)
    bare = HostLocalHolding((*attached, *of_files), tuple(ranges), pools)
    holders = Holders.read(store)
    notes = _notes(results)
    recorded = {name: noted(name) for name in pools.spans}
    allocations: list[ForeignAllocation] = []
    for place in places:
        here = place.node == node
        reader = _NodeReader(bare, place, here, holders, notes if here else None, recorded)
        allocations += reader.allocations(differences, problems)
    return HostLocalHolding(
        bare.networks,
        bare.ranges,
        pools,
        tuple(allocations),
        (*differences, *pools.differences),
        (*problems, *unread, *unread_files, *pools.problems, *_elsewhere(allocations, holders)),
    )


def _used(ranges: Sequence[LocalRange], places: Sequence[NodeDirectory]) -> list[tuple[int, int]]:
    """By place of its range, each address that has a file."""
    used = []
    for place in places:
        files = {path: directories.read(path)[0] for path in {place.of(local) for local in ranges}}
        for index, local in enumerate(ranges):
            used += [
                (index, file.address.value)
                for file in files[place.of(local)]
                if _has(local.window.subnet, file)
            ]
    return used


@dataclass(frozen=True, slots=True)
class _NodeReader:
    """Reads the directories of one node."""

    holding: HostLocalHolding
    """The ranges that its files are of."""
    place: NodeDirectory
    """Whose directories, and where they are."""
    here: bool
    """Whether that node's own files of networks are among what was read."""
    holders: Holders
    """What pods say of their addresses."""
    notes: Mapping[str, Note] | None
    """By container, the runtime's notes; None where they cannot be seen from here."""
    noted: Mapping[str, frozenset[str]]
    """By pool, the nodes that are recorded already: what their files say is of the past."""

    def allocations(self, differences: list[str], problems: list[str]) -> list[ForeignAllocation]:
        """What is given out on the node."""
        known: dict[Path, LocalRange] = {}
        for local in self.holding.ranges:
            known.setdefault(self.place.of(local), local)
        allocations = []
        unused = []
        unknown: list[AddressFile] = []
        for directory, local in known.items():
            files, unread = directories.read(directory)
            problems += unread
            for file in files:
                pool = self.holding.pool_for(local, file)
                if not pool and not self.here:
                    unknown.append(file)
                    continue
                if self.place.node in self.noted.get(pool, frozenset()):
                    continue
                pod = self._pod(file, problems)
                if pod is None:
                    unused.append(f"{file.address.text} of container {file.container[:12]} ({file.path})")
                elif pod:
                    allocations.append(self._allocation(local, file, pool, pod))
        if unused:
            more = f" and {len(unused) - _NAMED} more" if len(unused) > _NAMED else ""
            differences.append(
                "addresses that no pod reports, and whose sandbox is not there, are left out: "
                f"{', '.join(unused[:_NAMED])}{more}"
            )
        if unknown:
            differences.append(
                f"{len(unknown)} addresses of node {self.place.node}, such as {unknown[0].address.text} ({unknown[0].path}), "
                "are in no range that is known here, perhaps of a network in a file of that node: repeat this on that node"
            )
        (problems if self.here else differences).extend(self._strays(known))
        return allocations

    def _allocation(self, local: LocalRange, file: AddressFile, pool: str, pod: str) -> ForeignAllocation:
        return self.holders.completed(
            ForeignAllocation(
                *file.address,
                pool,
                f"node {self.place.node}, {file.path}",
                pod,
                "",
                file.container,
                file.interface,
                self.place.node,
                local.network.name,
            )
        )

    def _pod(self, file: AddressFile, problems: list[str]) -> str | None:
        """Whose it is; None where its sandbox is gone, "" behind a problem."""
        reporting = [
            pod.key for pod in self.holders.by_address.get(file.address, ()) if pod.node == self.place.node
        ]
        if reporting:
            return reporting[0]
        if self.notes is None:
            problems.append(
                f"{file.address.text} ({file.path}) is given to container {file.container[:12]}, which no pod of node "
                f"{self.place.node} reports; look at it on that node"
            )
            return ""
        note = self.notes.get(file.container)
        if note is None or note.is_there(Namespaces()) is False:
            return None
        if not note.pod:
            problems.append(
                f"{file.address.text} ({file.path}) is given to container {file.container[:12]}, which is no pod's; end that "
                "container, or give it another network"
            )
        return note.pod

    def _strays(self, known: Mapping[Path, LocalRange]) -> list[str]:
        """A sentence for each directory of no network here that has addresses of one."""
        problems = []
        for base in sorted({path.parent for path in known}):
            for name in directories.networks_in(base):
                if base / name in known:
                    continue
                files, _ = directories.read(base / name)
                inside = [file for file in files if self.holding.pools.holding(*file.address)]
                if inside:
                    remedy = (
                        "delete the directory if nothing uses it"
                        if self.here
                        else f"a file of node {self.place.node} may have it, so repeat this on that node"
                    )
                    problems.append(
                        f"{base / name} has {len(inside)} addresses of a range that comes over, such as "
                        f"{inside[0].address.text}, and no configuration is called {name}: {remedy}"
                    )
        return problems


def _notes(results: Path) -> Mapping[str, Note] | None:
    try:
        notes: dict[str, Note] = {}
        for note in read_notes(results):
            if not isinstance(note, BadNote) and (note.pod or note.container not in notes):
                notes[note.container] = note
    except OSError:
        return None
    return notes


def _node_subnets(store: Store, node: str, problems: list[str]) -> tuple[Subnet, ...]:
    """The subnets of pods that the cluster gave to a node for it alone."""
    try:
        spec = store.get(NODE, node).get("spec") or {}
        return tuple(parse_cidr(str(text)) for text in spec.get("podCIDRs") or ())
    except NotFound:
        problems.append(
            f"there is no Node {node}: say with --node what the cluster calls the one that this runs on"
        )
    except InvalidObject as error:
        problems.append(f"Node {node} cannot be read: {error}")
    return ()


def _elsewhere(allocations: Sequence[ForeignAllocation], holders: Holders) -> list[str]:
    """A sentence for each address that a pod on another node reports as well: each node's host-local knows its own alone."""
    return [
        f"{allocation.text} is used on two nodes, by pod {allocation.pod} on {allocation.node} and by pod {pod.key} on "
        f"{pod.node}: delete one of them, so that it comes back with another address"
        for allocation in allocations
        for pod in holders.by_address.get((allocation.family, allocation.value), ())
        if pod.key != allocation.pod and pod.node != allocation.node
    ]


def _inside(part: Subnet, whole: Subnet) -> bool:
    return part.family == whole.family and whole.contains(part.first) and whole.contains(part.last)


def _has(subnet: Subnet, file: AddressFile) -> bool:
    return subnet.family == file.address.family and subnet.contains(file.address.value)
