"""Taking an installation off a cluster: controllers, agents, nodes, addresses, and at last rights and settings.

How it works. First goes what would put back or judge what goes later; agents are sent away from all nodes by a selector that
no node matches, so that the DaemonSet still says which directories they had. Then each node is cleaned by a pod. Then
finalizers are taken off, which nobody else does any more, and the definitions of our kinds go with all their objects.
What must always hold: no step needs a controller of ours; each looks at what there is, so that a run that was interrupted
is finished by the next one; nothing is waited for beyond `patience` without progress.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from actors.decisions.chained_conf import NAME as CONF_NAME
from actors.errors import Conflict, InvalidRequest, NoSuchResource, NotFound, StoreUnavailable
from actors.resources.coordinator_rules import KERNEL_TABLES
from actors.resources.multus_config import KIND as MULTUS_CONFIG
from actors.store.contract import Object, Store
from actors.store.lifecycle import kind_named
from cni.dataplane.coordinator.settings import HOST_TABLE
from cni.process.node_taint import TAINT
from cni.takeover.spiderpool.installation import runs_program
from cni.uninstall import installed
from cni.uninstall.installed import AGENT, COMPONENT, LABEL, NETWORKS_DEFINITION
from cni.uninstall.node import PLUGINS, NodeDirectories
from cni.uninstall.node_pods import BY_HAND, NodeWork, clean_nodes

NETWORK = "NetworkAttachmentDefinition"
NODE_PREFIX = "orbweaver.io/"
"""Of labels and annotations of nodes."""
NOWHERE = {"orbweaver.io/uninstalled": "true"}
"""The selector that sends agents away."""
SPIDERPOOL_AGENT = "spiderpool-agent"
BLOCK = "SpiderIPBlock"
PART_OF = "app.kubernetes.io/part-of"

_ATTEMPTS = 20
_LOOK = 0.5
_MANY = 1000


@dataclass(frozen=True, slots=True)
class UninstallOptions:
    """What a person may say about it."""

    namespace: str
    """Of the installation."""
    image: str
    """For the pods that clean nodes, where no DaemonSet names one."""
    directories: NodeDirectories
    """Of nodes, where no DaemonSet says them."""
    patience: float = 120.0
    """Seconds for the next sign of progress."""
    shared: bool = False
    """Whether Spiderpool takes over: then the objects that both know stay."""
    skipped: frozenset[str] = frozenset()
    """Nodes that are not to be cleaned."""
    keep_namespace: bool = False
    """Whether the namespace stays also where `deploy/` made it."""


@dataclass(frozen=True, slots=True)
class _Nodes:
    reachable: tuple[str, ...]
    lost: tuple[str, ...]
    """Their kubelets are silent."""


class ClusterUninstall:
    """One run. `tell` gets a line for each thing that is done."""

    def __init__(self, store: Store, options: UninstallOptions, tell: Callable[[str], object]) -> None:
        self._store = store
        self._options = options
        self._tell = tell

    def refuse_beside_spiderpool(self) -> None:
        """Raise `InvalidRequest` where Spiderpool runs: pools and plugins have the same names there."""
        if self._options.shared:
            return
        for daemon_set in self._items("DaemonSet"):
            metadata = daemon_set["metadata"]
            # Its chart lets the name be chosen.
            if metadata["name"] == SPIDERPOOL_AGENT or runs_program(daemon_set, SPIDERPOOL_AGENT):
                raise InvalidRequest(
                    f"Spiderpool runs in namespace {metadata['namespace']} and would lose its pools, which are the same"
                    " objects: with --spiderpool-stays they are kept, and only what is Orbweaver's alone goes"
                )

    def plan(self) -> Iterator[str]:
        """What would go, a line each; nothing is changed."""
        namespace = self._options.namespace
        for kind, name in installed.FIRST:
            yield from self._listed(kind, name)
        nodes, work = self._nodes(), self._work()
        where = work.directories
        tables = ", ".join(map(str, sorted(work.tables)))
        yield (
            f"on each of {len(nodes.reachable)} nodes: {CONF_NAME} in {where.configurations}; {', '.join(PLUGINS)} in"
            f" {where.plugins}, where they are Orbweaver's; {where.state}"
            + ("" if work.shared else f"; the sockets in {where.sockets}; rules and routes of table {tables}")
        )
        for name in nodes.lost:
            yield f"not reachable: node {name}, which has to be cleaned by hand"
        for node in self._items("Node"):
            if _without_ours(node) != node:
                yield f"taint, labels and annotations {NODE_PREFIX}… of node {node['metadata']['name']}"
        for kind, definition in self._definitions().items():
            if self._get("CustomResourceDefinition", definition) is not None:
                yield f"{definition} with {len(self._items(kind))} objects"
        for network in self._networks():
            yield f"{NETWORK} {network['metadata']['namespace']}/{network['metadata']['name']}"
        if self._brought_networks() and len(self._networks()) == len(self._items(NETWORK)):
            yield f"CustomResourceDefinition {NETWORKS_DEFINITION}"
        for kind, name in installed.last():
            yield from self._listed(kind, name)
        if self._owns_namespace():
            yield f"namespace {namespace}"

    def run(self) -> dict[str, str]:
        """Do it; returns the nodes that could not be reached, with the reason. Raises `StoreUnavailable` when a node that
        can be reached is not cleaned, and before anything is lost that a next run needs."""
        work, nodes = self._work(), self._nodes()
        if not work.image and self._are_nodes_done():
            nodes = _Nodes((), ())
        elif nodes.reachable and not work.image:
            raise InvalidRequest(
                f"there is no DaemonSet {self._options.namespace}/{AGENT} any more that would say with which image nodes are"
                f" cleaned: name one with --image, or another --namespace, or run `{BY_HAND}` on each node and add"
                " --skip-node for it"
            )
        for kind, name in installed.FIRST:
            self._delete(kind, name)
        self._send_agents_away()
        self._wait_for_pods(nodes)
        failed = clean_nodes(self._store, work, nodes.reachable, self._tell, patience=self._options.patience)
        if failed:
            raise StoreUnavailable(
                f"{len(failed)} nodes are not clean, so that the rest is still there; put right what is said of them and run"
                " this again, or leave them out with --skip-node",
                details=tuple(f"node {name}: {why}" for name, why in sorted(failed.items())),
                maybe_written=False,
            )
        self._clean_node_objects()
        self._remove_objects()
        for kind, name in installed.last():
            self._delete(kind, name)
        if self._owns_namespace():
            self._delete("Namespace", self._options.namespace)
        by_hand = f"run `{BY_HAND}` there"
        return dict.fromkeys(nodes.lost, f"not reachable; {by_hand}") | dict.fromkeys(
            self._options.skipped, f"left out; {by_hand}"
        )

    # ---- nodes --------------------------------------------------------------------------------------------

    def _work(self) -> NodeWork:
        """As the DaemonSet says, else as a person does; a person's image comes first, because that of 0.1.0 cannot do it."""
        options = self._options
        work = NodeWork(
            namespace=options.namespace,
            image=options.image,
            directories=options.directories,
            tables=self._tables(),
            shared=options.shared,
        )
        daemon_set = self._get("DaemonSet", AGENT)
        if daemon_set is None:
            return work
        spec = daemon_set["spec"]["template"]["spec"]
        paths = {
            volume["name"]: Path(volume["hostPath"]["path"])
            for volume in spec.get("volumes") or ()
            if "hostPath" in volume
        }
        where = options.directories
        (container, *_) = spec["containers"]
        return replace(
            work,
            image=options.image or container["image"],
            pull_policy=container.get("imagePullPolicy") or work.pull_policy,
            pull_secrets=tuple(spec.get("imagePullSecrets") or ()),
            directories=replace(
                where,
                plugins=paths.get("cni-bin", where.plugins),
                configurations=paths.get("cni-conf", where.configurations),
                sockets=paths.get("socket", where.sockets),
            ),
        )

    def _tables(self) -> frozenset[int]:
        """The numbers that coordinators give the host's tables."""
        tables = {HOST_TABLE}
        for kind, path in (("SpiderCoordinator", ()), (MULTUS_CONFIG, ("coordinator",))):
            for obj in self._items(kind):
                spec = obj.get("spec") or {}
                for key in path:
                    spec = spec.get(key) or {}
                number = spec.get("hostRuleTable")
                if isinstance(number, int) and number not in (0, *KERNEL_TABLES):
                    tables.add(number)
        return frozenset(tables)

    def _nodes(self) -> _Nodes:
        reachable: list[str] = []
        lost: list[str] = []
        for node in self._items("Node"):
            name = node["metadata"]["name"]
            system = (node["metadata"].get("labels") or {}).get("kubernetes.io/os", "linux")
            if system != "linux" or name in self._options.skipped:
                continue
            (lost if _is_silent(node) else reachable).append(name)
        return _Nodes(tuple(reachable), tuple(lost))

    def _are_nodes_done(self) -> bool:
        """Whether an earlier run came to its end: the DaemonSet goes after the definitions, and those after the nodes."""
        return not any(
            self._get("CustomResourceDefinition", definition) for definition in self._definitions().values()
        )

    def _send_agents_away(self) -> None:
        def away(daemon_set: Object) -> Object:
            template = daemon_set["spec"]["template"]
            template = {**template, "spec": {**template["spec"], "nodeSelector": NOWHERE}}
            return {**daemon_set, "spec": {**daemon_set["spec"], "template": template}}

        if self._changed("DaemonSet", AGENT, self._options.namespace, away):
            self._tell("agents are sent away from all nodes")

    def _wait_for_pods(self, nodes: _Nodes) -> None:
        """Until agents and controllers have ended, where somebody can say so."""

        def there() -> list[str]:
            return sorted(
                pod["metadata"]["name"]
                for pod in self._items("Pod", self._options.namespace)
                if _component(pod) in ("agent", "controller")
                and (pod.get("spec") or {}).get("nodeName", "") in nodes.reachable
            )

        self._wait("these pods do not end", there)

    def _clean_node_objects(self) -> None:
        for node in self._items("Node"):
            name = node["metadata"]["name"]
            if _without_ours(node) != node and self._changed("Node", name, "", _without_ours):
                self._tell(f"node {name}: taint, labels and annotations of ours are off")

    # ---- objects ------------------------------------------------------------------------------------------

    def _definitions(self) -> dict[str, str]:
        all_of_them = installed.definitions()
        return {BLOCK: all_of_them[BLOCK]} if self._options.shared else all_of_them

    def _remove_objects(self) -> None:
        for network in self._networks():
            metadata = network["metadata"]
            self._delete(NETWORK, metadata["name"], metadata["namespace"])
        definitions = self._definitions()
        for kind in definitions:
            self._free(kind)
        for kind, definition in definitions.items():
            count = len(self._items(kind))
            if self._delete("CustomResourceDefinition", definition, tells=False):
                self._tell(f"{definition} goes, and {count} objects with it")

        def left() -> list[str]:
            names = []
            for kind, definition in definitions.items():
                if self._get("CustomResourceDefinition", definition) is not None:
                    names.append(f"{definition} with {self._free(kind)} objects")
            return names

        self._wait("these definitions do not go", left)
        self._remove_networks_definition()

    def _free(self, kind: str) -> int:
        """Take finalizers off all objects of a kind: who would has gone. Returns how many objects there are."""
        objects = self._items(kind)
        held = [obj for obj in objects if obj["metadata"].get("finalizers")]
        for number, obj in enumerate(held, 1):
            metadata = obj["metadata"]
            self._changed(kind, metadata["name"], metadata.get("namespace", ""), _without_finalizers)
            if number % _MANY == 0:
                self._tell(f"{number} of {len(held)} {kind} are free of finalizers")
        return len(objects)

    def _networks(self) -> list[Object]:
        """Those that were made from a SpiderMultusConfig."""
        if self._options.shared:
            return []
        return [
            network
            for network in self._items(NETWORK)
            if any(
                owner.get("kind") == MULTUS_CONFIG
                for owner in network["metadata"].get("ownerReferences") or ()
            )
        ]

    def _brought_networks(self) -> bool:
        """Whether the definition of networks, which is others' as well, is there because the chart brought it."""
        if self._options.shared:
            return False
        definition = self._get("CustomResourceDefinition", NETWORKS_DEFINITION)
        labels = {} if definition is None else definition["metadata"].get("labels") or {}
        return str(labels.get("helm.sh/chart", "")).startswith("orbweaver-")

    def _remove_networks_definition(self) -> None:
        """It goes if nobody has a network of his own."""
        if not self._brought_networks():
            return
        if networks := self._items(NETWORK):
            self._tell(f"left: {NETWORKS_DEFINITION}, because there are {len(networks)} networks of others")
        else:
            self._delete("CustomResourceDefinition", NETWORKS_DEFINITION)

    def _owns_namespace(self) -> bool:
        """Whether it is the one that `kubectl apply -k deploy/` makes, and has no pods but ours."""
        if self._options.keep_namespace:
            return False
        namespace = self._get("Namespace", self._options.namespace)
        labels = {} if namespace is None else namespace["metadata"].get("labels") or {}
        if labels.get(PART_OF) != "orbweaver":
            return False
        pods = self._items("Pod", self._options.namespace)
        return all((pod["metadata"].get("labels") or {}).get(LABEL) == "orbweaver" for pod in pods)

    # ---- the store ----------------------------------------------------------------------------------------

    def _items(self, kind: str, namespace: str | None = None) -> tuple[Object, ...]:
        """All of a kind; none where there is no such kind any more."""
        try:
            return self._store.list(kind, namespace).items
        except NoSuchResource:
            return ()

    def _get(self, kind: str, name: str) -> Object | None:
        try:
            return self._store.get(kind, name, self._in(kind))
        except (NotFound, NoSuchResource):
            return None

    def _in(self, kind: str) -> str:
        return self._options.namespace if kind_named(kind).namespaced else ""

    def _listed(self, kind: str, name: str) -> Iterator[str]:
        if self._get(kind, name) is not None:
            yield f"{kind} {'/'.join(part for part in (self._in(kind), name) if part)}"

    def _delete(self, kind: str, name: str, namespace: str | None = None, *, tells: bool = True) -> bool:
        where = self._in(kind) if namespace is None else namespace
        try:
            self._store.delete(kind, name, where)
        except (NotFound, NoSuchResource):
            return False
        if tells:
            self._tell(f"deleted {kind} {'/'.join(part for part in (where, name) if part)}")
        return True

    def _changed(self, kind: str, name: str, namespace: str, change: Callable[[Object], Object]) -> bool:
        """Write an object as `change` makes it; whether it was there and another one before."""
        for _ in range(_ATTEMPTS):
            try:
                before = self._store.get(kind, name, namespace)
                after = change(before)
                if after == before:
                    return False
                self._store.update(after)
            except Conflict:
                continue
            except (NotFound, NoSuchResource):
                return False
            return True
        raise Conflict(f"{kind} {name} was changed by others {_ATTEMPTS} times in a row; run this again")

    def _wait(self, what: str, left: Callable[[], list[str]]) -> None:
        """Until nothing is left. Raises `StoreUnavailable` when that does not get less for a while."""
        before: list[str] | None = None
        until = 0.0
        while now := left():
            if now != before:
                before, until = now, time.monotonic() + self._options.patience
            if time.monotonic() > until:
                raise StoreUnavailable(
                    f"{what} within {self._options.patience:g} s: {', '.join(now[:5])}; run this again when they do",
                    maybe_written=False,
                )
            time.sleep(_LOOK)


def _component(pod: Object) -> str:
    labels = pod["metadata"].get("labels") or {}
    return str(labels.get(COMPONENT, "")) if labels.get(LABEL) == "orbweaver" else ""


def _is_silent(node: Object) -> bool:
    conditions = (node.get("status") or {}).get("conditions") or ()
    return any(entry.get("type") == "Ready" and entry.get("status") == "Unknown" for entry in conditions)


def _without_finalizers(obj: Object) -> Object:
    metadata = {key: value for key, value in obj["metadata"].items() if key != "finalizers"}
    return {**obj, "metadata": metadata}


def _without_ours(node: Object) -> Object:
    """A Node without our taint, labels and annotations."""
    metadata, spec = dict(node["metadata"]), dict(node.get("spec") or {})
    for field in ("labels", "annotations"):
        if field in metadata:
            metadata[field] = {
                key: value for key, value in metadata[field].items() if not key.startswith(NODE_PREFIX)
            }
    if "taints" in spec:
        spec["taints"] = [taint for taint in spec["taints"] if taint.get("key") != TAINT]
    return {**node, "metadata": metadata, "spec": spec}
