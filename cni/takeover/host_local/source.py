"""`--from host-local`: what host-local holds in the directories of this node, and the swap with it.

What must always hold: a pool that several nodes give out of is enabled when the directories of all of them are recorded, and
on the way back the networks of such a pool are changed when all of them have their files again: until then it gives out
nothing.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from actors.errors import InvalidRequest, TakeoverUnfinished
from actors.resources.blocks.allocation import Allocation
from actors.resources.node import KIND as NODE
from actors.store.contract import Store
from cni.server.libcni_cache import CACHE
from cni.takeover.holders import Holders
from cni.takeover.host_local import directories
from cni.takeover.host_local.holding import HostLocalHolding, NodeDirectory, read_holding
from cni.takeover.host_local.node_files import COPIED, NodeConfs
from cni.takeover.host_local.ranges import IPAM_TYPE
from cni.takeover.networks import Network, change_attachment, former_sections, given_back, taken_over
from cni.takeover.pools import (
    disable,
    enable,
    make,
    marked,
    note_nodes,
    noted_nodes,
    overlap_problems,
    remove,
)
from cni.takeover.reading import Reading, Tell
from cni.takeover.recording import (
    conflicts,
    everything_recorded,
    kept_text,
    must_be_judged,
    recorded_in,
    recorder,
)
from cni.takeover.waiting import wait_until

TITLE = "host-local"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that it alone has."""
    group = parser.add_argument_group("from host-local", "run it on each node, as root")
    group.add_argument(
        "--node", default=os.uname().nodename, metavar="NAME", help="the node that this runs on (%(default)s)"
    )
    group.add_argument(
        "--directory",
        action="append",
        default=[],
        metavar="[NODE=]DIR",
        help=f"where a node has what it gave out (this node's {directories.STANDARD}); repeat it, with copies, to look at "
        "several nodes in one dry run",
    )
    group.add_argument(
        "--conf-dir",
        type=Path,
        default=Path("/etc/cni/net.d"),
        metavar="DIR",
        help="the node's own CNI configurations (%(default)s)",
    )
    group.add_argument(
        "--write-conf", action="store_true", help="change those that name host-local; else it only says how"
    )
    group.add_argument(
        "--results", type=Path, default=CACHE, metavar="DIR", help="the runtime's notes (%(default)s)"
    )
    group.add_argument(
        "--without",
        action="append",
        default=[],
        metavar="NODE",
        help="a node that has no pods in these networks, and need not be waited for; may be repeated",
    )


def open_source(chosen: argparse.Namespace, store: Store) -> HostLocalSource:
    """host-local of the nodes that the options name. Raises `InvalidRequest`."""
    places = [_place(text, chosen.node) for text in chosen.directory]
    named = [place.node for place in places]
    if len(set(named)) < len(named):
        raise InvalidRequest("--directory names a node twice; name each node once, as NODE=DIR")
    return HostLocalSource(
        store,
        chosen.node,
        tuple(places) or (NodeDirectory(chosen.node, None),),
        NodeConfs(chosen.conf_dir),
        chosen.results,
        chosen.settle,
        frozenset(chosen.without),
        write_conf=chosen.write_conf,
    )


def _place(text: str, node: str) -> NodeDirectory:
    name, given, path = text.partition("=")
    return NodeDirectory(name, Path(path)) if given else NodeDirectory(node, Path(text))


@dataclass(frozen=True, slots=True)
class HostLocalSource:
    """host-local on some nodes."""

    store: Store
    node: str
    """The one that this runs on."""
    places: tuple[NodeDirectory, ...]
    """The nodes whose directories are there, usually this one alone."""
    confs: NodeConfs
    """This node's own CNI configurations."""
    results: Path
    """This node's runtime's notes."""
    settle: float
    """Seconds that an ADD may take."""
    without: frozenset[str] = field(default=frozenset())
    """Nodes that are not waited for."""
    write_conf: bool = False
    """Whether files of the node may be changed."""

    def read(self) -> Reading:
        """The ranges of its networks as pools, and who has which address on the nodes at hand."""
        holding = self._holding()
        waiting = self._waiting(holding.shared, {place.node for place in self.places})
        later = (
            (
                "pools that several nodes share give nothing out until this has been done on every node; still to come: "
                + ", ".join(sorted(waiting)),
            )
            if holding.shared and waiting
            else ()
        )
        return Reading(
            TITLE,
            holding.pools.objects,
            holding.allocations,
            (*holding.changes(), *later, *holding.differences),
            (
                *holding.problems,
                *self._unwritable(holding),
                *overlap_problems(self.store, holding.pools.objects, IPAM_TYPE),
                *conflicts(holding.allocations, everything_recorded(self.store)),
            ),
        )

    def read_back(self) -> Reading:
        """What is recorded for this node in the pools that stand for its ranges."""
        names = self._pool_names()
        reading = recorded_in(self.store, names, TITLE)
        allocations = tuple(each for each in reading.allocations if each.node == self.node)
        if names:
            return replace(reading, allocations=allocations)
        kept = sum(len(files) for files in self._unused().values())
        tidied = (
            f"everything is back on {self.node}; {kept} files that the way back made for pods of other nodes are of nobody any"
            " more, and are deleted"
        )
        return replace(reading, differences=(tidied,))

    def take(self, reading: Reading, tell: Tell) -> None:
        """Record what this node has, and put Orbweaver in host-local's place where all nodes that share a pool have done so."""
        elsewhere = [place.node for place in self.places if place.node != self.node]
        if elsewhere:
            raise InvalidRequest(
                f"the directories of {', '.join(elsewhere)} are copies: look at them with a dry run, and do it on each "
                "node itself"
            )
        noted = {pool["metadata"]["name"]: self._noted(pool["metadata"]["name"]) for pool in reading.pools}
        for pool in reading.pools:
            make(self.store, pool, IPAM_TYPE)
        tell(f"{len(reading.pools)} pools are there; those that are new give nothing out yet")
        holding = self._holding()
        for network in holding.networks:
            if network.is_ours:
                continue
            self._switch(network, holding.sections_of(network))
            tell(f"{network.title} names Orbweaver's pools")
        wait_until(
            self.confs.lagging,
            COPIED,
            "see that the agent of this node serves, and what its --cni-conf names; where no agent writes the file any more,"
            " delete it. Then repeat the command",
            tell,
        )
        tell(f"waiting {self.settle:g} s for pods that host-local is giving addresses to")
        time.sleep(self.settle)
        recorded = self._record(noted, tell, is_first=True)
        for pool in marked(self.store, IPAM_TYPE):
            name, nodes = pool["metadata"]["name"], pool["spec"].get("nodeName")
            if nodes and self.node not in nodes:
                continue
            note_nodes(self.store, name, lambda nodes: nodes | {self.node})
            waiting = frozenset[str]() if nodes else self._waiting((name,), {self.node})
            if waiting:
                tell(
                    f"pool {name} gives nothing out until this is done on {', '.join(sorted(waiting))} as well"
                )
            else:
                enable(self.store, name)
        again = self._record(noted, tell, is_first=False)
        tell(f"done on {self.node}; {recorded + again} addresses are recorded that were not")

    def give_back(self, tell: Tell) -> None:
        """Write what is recorded for this node into its directories; the networks follow when the last node has done so."""
        holding = self._holding()
        names = self._pool_names()
        if not names:
            self._tidy(tell)
            return
        for name in names:
            disable(self.store, name)
        tell(
            f"{len(names)} pools give nothing out any more; waiting {self.settle:g} s for pods that are being started"
        )
        time.sleep(self.settle)
        must_be_judged(
            self.store, (pool for pool in marked(self.store, IPAM_TYPE) if pool["metadata"]["name"] in names)
        )
        held = [each for each in everything_recorded(self.store) if each.record.pool in names]
        # Where this node is not noted any more, an earlier run has written its files, and host-local may have changed them.
        noted = frozenset(name for name in names if self.node in self._noted(name))
        running = [each for each in held if each.record.pool in noted and not each.record.is_retained]
        self._write_files(holding, noted, running, tell)
        left = {
            name: note_nodes(self.store, name, lambda nodes: nodes - {self.node}) & self._nodes()
            for name in names
        }
        last = [each for each in held if not left[each.record.pool]]
        for allocation in last:
            if allocation.record.is_retained:
                tell(kept_text(allocation, TITLE))
        with recorder(self.store) as at_work:
            at_work.release(last)
        self._give_networks_back(holding, left, tell)
        for name, nodes in left.items():
            if not nodes:
                remove(self.store, name)
        tell(f"done on {self.node}")

    # -- private --------------------------------------------------------------------------------------------

    def _write_files(
        self, holding: HostLocalHolding, noted: frozenset[str], running: Sequence[Allocation], tell: Tell
    ) -> None:
        """Write what pods have out of the pools `noted` into this node's directories: its own pods', and the others' as kept
        for them."""
        for network_name, directory in self._directories(holding).items():
            pools = holding.pools_named(network_name)
            own = [
                each
                for each in running
                if each.record.node == self.node and _network_of(each, holding) == network_name
            ]
            elsewhere = [each for each in running if each.record.pool in pools and each not in own]
            with directories.locked(directory):
                files, _ = directories.read(directory)
                former = [file for file in files if holding.pools.holding(*file.address) in noted]
                directories.write(directory, own, elsewhere, former)
            tell(f"{len(own)} addresses of network {network_name} are host-local's again on {self.node}")

    def _give_networks_back(
        self, holding: HostLocalHolding, left: Mapping[str, frozenset[str]], tell: Tell
    ) -> None:
        """Have this node's files name host-local, and the cluster's objects once no node is `left` for their pools."""
        for network in holding.networks:
            if network.is_ours and not network.key:
                self.confs.give_back(network)
                tell(f"{network.title} names host-local again")
        for network in holding.networks:
            waiting = frozenset[str]().union(
                *(left.get(name, frozenset()) for name in holding.pools_of(network))
            )
            if not (network.is_ours and network.key):
                continue
            if waiting:
                tell(f"{network.title} follows when this is done on {', '.join(sorted(waiting))} as well")
            else:
                change_attachment(
                    self.store, network, lambda obj: given_back(obj, former_sections(obj, IPAM_TYPE))
                )
                tell(f"{network.title} names host-local again")

    def _unused(self) -> dict[Path, tuple[directories.AddressFile, ...]]:
        """By directory, the files for what pods of other nodes had, and no pod reports any more. What is younger is left: its
        pod may have started a moment ago, and not have reported anything."""
        old = {
            directory: directories.kept_for_others(directory, seconds=directories.UNREPORTED)
            for directory in self._directories(self._holding()).values()
        }
        reported = Holders.read(self.store).by_address
        return {
            directory: tuple(file for file in files if file.address not in reported)
            for directory, files in old.items()
        }

    def _tidy(self, tell: Tell) -> None:
        """Delete them, as everything is back."""
        with ExitStack() as stack:
            for directory in self._directories(self._holding()).values():
                stack.enter_context(directories.locked(directory))
            for directory, files in self._unused().items():
                for file in files:
                    file.path.unlink(missing_ok=True)
                tell(f"{directory}: {len(files)} files for pods of other nodes that are gone are deleted")
        tell(f"done on {self.node}")

    def _noted(self, name: str) -> frozenset[str]:
        return noted_nodes(self.store, name)

    def _holding(self, noted: Callable[[str], frozenset[str]] | None = None) -> HostLocalHolding:
        return read_holding(
            self.store, self.node, self.places, self.confs, self.results, noted or self._noted
        )

    def _switch(self, network: Network, sections: Mapping[int, Any]) -> None:
        if network.key:
            change_attachment(self.store, network, lambda obj: taken_over(obj, network, sections))
        else:
            self.confs.take(network, sections)

    def _nodes(self) -> frozenset[str]:
        """The cluster's nodes that are waited for."""
        return frozenset(obj["metadata"]["name"] for obj in self.store.list(NODE).items) - self.without

    def _waiting(self, pools: Iterable[str], done: set[str]) -> frozenset[str]:
        """The nodes that have still to be recorded in one of these pools, beside those that are `done` now."""
        nodes = self._nodes()
        return frozenset(node for name in pools for node in nodes - noted_nodes(self.store, name) - done)

    def _pool_names(self) -> tuple[str, ...]:
        """The pools that were made for this node's ranges, or for ranges that it shares."""
        return tuple(
            pool["metadata"]["name"]
            for pool in marked(self.store, IPAM_TYPE)
            if self.node in (pool["spec"].get("nodeName") or [self.node])
        )

    def _unwritable(self, holding: HostLocalHolding) -> tuple[str, ...]:
        files = [network.title for network in holding.networks if not (network.key or network.is_ours)]
        if not files or self.write_conf:
            return ()
        files_text = ", ".join(files)
        return (
            f"{files_text} has to be changed, which is done with --write-conf alone; what it said is kept beside it",
        )

    def _record(self, noted: Mapping[str, frozenset[str]], tell: Tell, *, is_first: bool) -> int:
        """Record what this node has in the pools where it was not `noted`; returns how many addresses are new. What forbids it
        forbids that the pools are enabled: raises `TakeoverUnfinished` then, the first time."""
        with ExitStack() as stack:
            for directory in self._directories(self._holding()).values():
                stack.enter_context(directories.locked(directory))
            holding = self._holding(lambda name: noted.get(name, frozenset()))
            if holding.problems and is_first:
                raise TakeoverUnfinished(
                    f"what host-local gave out on {self.node} meanwhile cannot all be taken over, and nothing was recorded."
                    " Mend it, and repeat the command",
                    details=holding.problems,
                )
            with recorder(self.store) as at_work:
                recorded = at_work.record(holding.allocations, Holders.read(self.store).pods)
        for sentence in (*holding.problems, *recorded.refused):
            tell(f"warning: {sentence}")
        return recorded.new

    def _directories(self, holding: HostLocalHolding) -> dict[str, Path]:
        """By network, this node's directory."""
        place = next(place for place in self.places if place.node == self.node)
        return {local.network.name: place.of(local) for local in holding.ranges}


def _network_of(allocation: Allocation, holding: HostLocalHolding) -> str:
    """The network in whose directory an address belongs: the one that it was given for, else the first that may give it out."""
    names = [
        network.name for network in holding.networks if allocation.record.pool in holding.pools_of(network)
    ]
    own = allocation.record.network
    return own if own in names else next(iter(names), "")
