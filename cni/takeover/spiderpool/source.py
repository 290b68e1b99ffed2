"""`--from spiderpool`: a running Spiderpool, whose objects are ours as well, so that only who writes them has to change.

What must always hold: reading changes nothing; what forbids the swap is said before it, and judged again in it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace

from actors.errors import InvalidObject
from actors.resources.ippool import IPPool
from actors.resources.pod import Pod
from actors.resources.pool_status import allocations_in
from actors.resources.spider_endpoint import interface_of, node_of, pod_of
from actors.store.contract import Object, Store
from cni.takeover.reading import ForeignAllocation, Reading, Tell
from cni.takeover.spiderpool.differences import ReadText, compare
from cni.takeover.spiderpool.giving_back import Holdings
from cni.takeover.spiderpool.image import bring_image
from cni.takeover.spiderpool.installation import (
    Installation,
    Side,
    find_orbweaver,
    find_spiderpool,
    is_parked,
    is_ready,
)
from cni.takeover.spiderpool.swap import Phase, Swap, phase_of


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that it alone has."""
    group = parser.add_argument_group("spiderpool")
    group.add_argument(
        "--spiderpool-namespace",
        metavar="NAMESPACE",
        help="where it runs (the one where its DaemonSet is found)",
    )
    group.add_argument(
        "--first-node",
        metavar="NODE",
        help="where an agent is tried before all others (the first by name that is Ready and that agents may run on)",
    )


def open_source(chosen: argparse.Namespace, store: Store) -> Spiderpool:
    """The Spiderpool of the cluster."""
    return Spiderpool(store, chosen.read_text, chosen.spiderpool_namespace, chosen.first_node)


@dataclass(frozen=True, slots=True)
class Spiderpool:
    """The Spiderpool of one cluster."""

    store: Store
    """The cluster's objects."""
    read_text: ReadText
    """For its ConfigMap."""
    namespace: str | None = None
    """Where it runs; None where it is to be looked for."""
    first: str | None = None
    """The node that our agents are tried on."""

    def read(self) -> Reading:
        """Its pools, who has which address, and what becomes of its settings and networks."""
        spiderpool = find_spiderpool(self.store, self.namespace)
        pools = self.store.list("SpiderIPPool").items
        endpoints = {pod_of(endpoint): endpoint for endpoint in self.store.list("SpiderEndpoint").items}
        allocations: list[ForeignAllocation] = []
        problems: list[str] = []
        for pool in pools:
            try:
                allocations += _allocations(pool, endpoints)
            except InvalidObject as error:
                problems.append(str(error))
        ours: Installation | None = None
        try:
            ours = find_orbweaver(self.store)
        except InvalidObject as error:
            problems.append(str(error))
        noticed = compare(self.store, spiderpool, ours, self.read_text)
        problems += [*noticed.problems, *self._in_the_way(spiderpool, ours)]
        differences = (
            *noticed.differences,
            *_of_nobody(self.store, allocations),
            *self._started_again(spiderpool, ours),
        )
        return Reading(self._title(spiderpool), pools, tuple(allocations), differences, tuple(problems))

    def take(self, _reading: Reading, tell: Tell) -> None:
        """Put Orbweaver in its place."""
        swap = self._swap(tell)
        if swap.phase is Phase.NONE:
            bring_image(swap.ours)
        swap.there(self.first or self._first_ready(swap.ours))

    def give_back(self, tell: Tell) -> None:
        """Put it back."""
        self._swap(tell).back()

    def read_back(self) -> Reading:
        """What would be given back, and what forbids it."""
        spiderpool = find_spiderpool(self.store, self.namespace)
        find_orbweaver(self.store)
        holdings = Holdings.read(self.store)
        agents = self.store.get("DaemonSet", spiderpool.agents, spiderpool.namespace)
        problems = list(holdings.problems)
        if phase_of(agents) is Phase.NONE:
            problems.append("Spiderpool was not taken over from, or has everything back already")
        allocations = tuple(
            ForeignAllocation(
                allocation.family,
                allocation.value,
                allocation.record.pool,
                "SpiderIPBlocks",
                allocation.record.holder,
                allocation.record.uid,
                allocation.record.container,
                allocation.record.interface,
                allocation.record.node,
            )
            for allocation in holdings.allocations
        )
        pools = self.store.list("SpiderIPPool").items
        return Reading(f"Back to {self._title(spiderpool)}", pools, allocations, _LOST, tuple(problems))

    def _swap(self, tell: Tell) -> Swap:
        spiderpool = find_spiderpool(self.store, self.namespace)
        return Swap.between(self.store, spiderpool, find_orbweaver(self.store), tell)

    def _first_ready(self, ours: Side) -> str | None:
        for obj in sorted(self.store.list("Node").items, key=lambda node: str(node["metadata"]["name"])):
            if is_ready(obj) and ours.takes(obj):
                return str(obj["metadata"]["name"])
        return None

    def _title(self, spiderpool: Installation) -> str:
        agents = self.store.get("DaemonSet", spiderpool.agents, spiderpool.namespace)
        version = (agents["metadata"].get("labels") or {}).get("app.kubernetes.io/version", "")
        nodes = (agents.get("status") or {}).get("desiredNumberScheduled", 0)
        controllers = ", ".join(spiderpool.controllers) or "none"
        return (
            f"Spiderpool{' ' + version if version else ''} in namespace {spiderpool.namespace}: DaemonSet {spiderpool.agents}"
            f" on {nodes} nodes, controllers {controllers}"
        )

    def _started_again(self, spiderpool: Installation, ours: Installation | None) -> Iterator[str]:
        agents = Side(self.store, spiderpool, lambda _line: None).agents()
        if (
            ours is not None
            and phase_of(agents) is Phase.TAKEN
            and is_parked(Side(self.store, ours, lambda _line: None).agents())
        ):
            yield (
                f"Orbweaver in namespace {ours.namespace} had taken over and is parked, so that nothing serves: it is started"
                " again"
            )

    def _in_the_way(self, spiderpool: Installation, ours: Installation | None) -> Iterator[str]:
        """What forbids the swap in how both run now."""
        side = Side(self.store, spiderpool, lambda _line: None)
        agents = side.agents()
        phase = phase_of(agents)
        if phase in (Phase.RETURNING, Phase.RETURNED):
            yield "a way back to Spiderpool is not finished; finish it with --back --yes first"
        if phase in (Phase.STARTING, Phase.TAKEN) and not side.is_stopped():
            yield (
                "Spiderpool was stopped by a takeover and runs again, started by somebody else (Helm, an operator, GitOps): two"
                " that give out addresses give one twice. Stop it: scale its Deployment to 0 and add the node selector"
                " orbweaver.io/parked=true to its DaemonSet; then see with `orbweaver check` what came of it"
            )
        if not spiderpool.controllers:
            yield (
                f"namespace {spiderpool.namespace} has DaemonSet {spiderpool.agents} and no Deployment of controllers, so that"
                " what frees addresses could not be stopped: name the namespace that has both with --spiderpool-namespace"
            )
        if (
            ours is not None
            and phase is Phase.NONE
            and not Side(self.store, ours, lambda _line: None).is_stopped()
        ):
            yield (
                f"Orbweaver runs already in namespace {ours.namespace}, beside Spiderpool: two that give out addresses give one"
                " twice. Stop it: scale its Deployment to 0 and add the node selector orbweaver.io/parked=true to its DaemonSet"
            )
        if is_parked(agents):
            return
        unready = {obj["metadata"]["name"] for obj in self.store.list("Node").items if not is_ready(obj)}
        for pod in side.pods():
            node = (pod.get("spec") or {}).get("nodeName", "")
            if node in unready:
                yield (
                    f"node {node} does not answer and has pod {pod['metadata']['name']} of Spiderpool, whose end nobody could"
                    " see: bring the node back, or delete its Node once the machine is off"
                )


_LOST = (
    "it is forgotten which addresses are suspect or in quarantine, and which IPAMClaims keep addresses that no pod uses",
    "DELs that wait on the nodes are not repeated; Spiderpool's garbage collection gives those addresses back",
)


def _of_nobody(store: Store, allocations: list[ForeignAllocation]) -> Iterator[str]:
    """How many addresses are recorded for pods that are gone."""
    pods = {(pod.key, pod.uid) for pod in map(Pod.from_object, store.list("Pod").items)}
    stale = [entry for entry in allocations if (entry.pod, entry.uid) not in pods]
    if stale:
        named = ", ".join(f"{entry.text} of {entry.pod}" for entry in stale[:3])
        yield (
            f"{len(stale)} addresses are recorded for pods that are not there ({named}{', …' if len(stale) > 3 else ''}): those"
            " that no StatefulSet and no virtual machine keeps are given back"
        )


def _allocations(obj: Object, endpoints: dict[str, Object]) -> list[ForeignAllocation]:
    """What one pool's status says, and the SpiderEndpoints of the pods that it names."""
    pool = IPPool.from_object(obj)
    allocations = []
    for value, (pod, uid) in sorted(allocations_in(pool, obj.get("status") or {}).items()):
        plain = ForeignAllocation(
            pool.family, value, pool.name, f"SpiderIPPool {pool.name}, status.allocatedIPs", pod, uid
        )
        allocations.append(_detailed(plain, endpoints.get(pod, {})))
    return allocations


def _detailed(plain: ForeignAllocation, endpoint: Object) -> ForeignAllocation:
    """With what the pod's SpiderEndpoint says beside; one that is not as it should be says nothing."""
    try:
        return replace(
            plain, interface=interface_of(endpoint, plain.family, plain.text), node=node_of(endpoint)
        )
    except (AttributeError, TypeError):
        return plain
