"""Storms: many pods of one workload end and begin at once, on as many addresses as there are pods.

A storm runs on the cluster with one IPAM at a time: Orbweaver with an exact pool, or host-local with a range that never
runs short, which is what the same pods cost without limits of addresses. It is over when all pods run that shall.
What must always hold: a storm leaves the cluster as it found it, whatever happens; `Sandboxes` looks at the nodes'
own network namespaces and notes of attachments, and asks neither Orbweaver nor Kubernetes.
"""

from __future__ import annotations

import contextlib
import json
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from tests.cluster.cluster import Cluster
from tests.cluster.deployment import POOL, workload

APP = "storm"
FIRST = 10
"""The first address of a pool is 10.99.110.10."""


@dataclass(frozen=True, slots=True)
class Size:
    """How many pods each storm has. `pause`: seconds for which a kubelet stands still."""

    replaced: int
    rolled: int
    stateful: int
    drained: int
    pause: float


FULL = Size(replaced=40, rolled=10, stateful=20, drained=20, pause=30.0)
EVERYDAY = Size(replaced=10, rolled=4, stateful=6, drained=6, pause=10.0)


@dataclass(frozen=True, slots=True)
class Pod:
    """One that is not being deleted."""

    name: str
    uid: str
    node: str
    address: str
    runs: bool


Act: TypeAlias = "Callable[[Storms, list[Pod]], set[str]]"


@dataclass(frozen=True, slots=True)
class Storm:
    """`act` begins it and returns the UIDs of the pods that must go. `keeps`: each pod comes back with its address."""

    name: str
    pods: int
    addresses: int
    act: Act
    kind: str = "Deployment"
    strategy: Mapping[str, Any] = field(default_factory=dict)
    keeps: bool = False
    calm: bool = True
    """The same storm happens with every IPAM; without it, with ours alone."""

    @property
    def pool(self) -> dict[str, Any]:
        """Exactly as many addresses as the storm says."""
        ips = [f"10.99.110.{FIRST}-10.99.110.{FIRST + self.addresses - 1}"]
        return {
            **POOL,
            "metadata": {"name": f"storm-{self.name}"},
            "spec": {**POOL["spec"], "ips": ips, "default": False},
        }

    @property
    def workload(self) -> dict[str, Any]:
        # It ends when it is told to, as programs do; one that does not is killed by the kubelet after two seconds.
        ends = ["sh", "-c", "trap 'exit 0' TERM; sleep 100000 & wait"]
        made = workload(self.kind, APP, self.pods, command=ends)
        if self.strategy:
            made["spec"]["strategy"] = {"type": "RollingUpdate", "rollingUpdate": dict(self.strategy)}
        # Where a node is drained the others take its pods.
        for spread in made["spec"]["template"]["spec"]["topologySpreadConstraints"]:
            spread["whenUnsatisfiable"] = "ScheduleAnyway"
        return made


def storms(size: Size) -> dict[str, Storm]:
    """All of them, by name."""
    surge, none = {"maxSurge": 1, "maxUnavailable": 0}, {"maxSurge": 0, "maxUnavailable": 1}
    made = (
        Storm("replaced", size.replaced, size.replaced, replace_all),
        Storm("rolled-with-one-spare", size.rolled, size.rolled + 1, roll, strategy=surge),
        Storm("rolled-with-none", size.rolled, size.rolled, roll, strategy=none),
        Storm("statefulset", size.stateful, size.stateful, replace_all, kind="StatefulSet", keeps=True),
        Storm("drained", size.drained, size.drained, drain),
        Storm("kubelet-paused", size.drained, size.drained, replace_all_with_a_kubelet_paused(size.pause)),
        Storm("agent-killed", size.drained, size.drained, replace_all_with_an_agent_killed, calm=False),
    )
    return {one.name: one for one in made}


class Sandboxes(threading.Thread):
    """Looks ten times a second which sandboxes' network namespaces are there. `last_alive`: container to the moment when
    it was there last, on the clock of the logs."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(daemon=True)
        self.last_alive: dict[str, float] = {}
        self._roots = [node.root for node in cluster.nodes.values()]
        self._namespace: dict[str, str] = {}
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.wait(0.1):
            for root in self._roots:
                now = time.time()
                self._read_notes(root / "var/lib/cni/results")
                there = {path.name for path in (root / "run/netns").iterdir()}
                for container, namespace in list(self._namespace.items()):
                    if namespace in there:
                        self.last_alive[container] = now

    def stop(self) -> None:
        self._over.set()
        self.join()

    def _read_notes(self, directory: Any) -> None:
        with contextlib.suppress(FileNotFoundError):
            for file in directory.iterdir():
                if file.name in self._namespace:
                    continue
                with contextlib.suppress(OSError, ValueError):  # it has gone, or is being written
                    note = json.loads(file.read_text())
                    self._namespace[file.name] = ""
                    for path in _namespaces(note):
                        self._namespace[note["containerId"]] = path.rpartition("/")[2]


def _namespaces(note: dict[str, Any]) -> list[str]:
    """The paths that libcni's note of an attachment names: since its version 1.2 in a field, before in the result."""
    interfaces = note.get("result", {}).get("interfaces", ())
    return [path for path in (note.get("netns"), *(one.get("sandbox") for one in interfaces)) if path]


class Storms:
    """The cluster while one storm runs."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._background: list[threading.Thread] = []

    @contextlib.contextmanager
    def calm(self, storm: Storm, network: Callable[[str], dict[str, Any]]) -> Iterator[list[Pod]]:
        """The workload runs, each pod with its address; at the end it is gone."""
        cluster = self.cluster
        for node in cluster.nodes.values():
            node.configure(network(node.name))
        cluster.apply(storm.workload)
        try:
            cluster.wait("the workload runs", lambda: self.running(storm.pods), 300)
            yield self.pods()
        finally:
            for thread in self._background:
                thread.join()
            for name in cluster.nodes:
                cluster.kubectl("uncordon", name, check=False)
            cluster.kubectl("delete", storm.kind.lower(), APP, "--timeout=180s", "--ignore-not-found")
            cluster.wait("no pod is left", lambda: not cluster.items("pods", "-l", f"app={APP}"), 180)

    def rage(self, storm: Storm, before: list[Pod], patience: float) -> float:
        """Begin it and wait until it is over; seconds that it took. Raises ClusterFailed."""
        began = time.monotonic()
        gone = storm.act(self, before)

        def over() -> bool:
            return self.running(storm.pods, gone)

        self.cluster.wait(f"the storm {storm.name} is over", over, patience)
        return time.monotonic() - began

    def pods(self) -> list[Pod]:
        columns = (
            ".metadata.name",
            ".metadata.uid",
            ".spec.nodeName",
            ".status.podIP",
            ".status.phase",
            ".metadata.deletionTimestamp",
        )
        line = r"{'\t'}".join(f"{{{one}}}" for one in columns)
        text = self.cluster.kubectl(
            "get", "pods", "-l", f"app={APP}", "-o", f"jsonpath={{range .items[*]}}{line}{{'\\n'}}{{end}}"
        )
        found = []
        for row in text.splitlines():
            name, uid, node, address, phase, deleted = row.split("\t")
            if not deleted:
                found.append(Pod(name, uid, node, address, phase == "Running" and bool(address)))
        return found

    def running(self, count: int, gone: set[str] = frozenset()) -> bool:  # type: ignore[assignment]
        """Whether so many pods run, all that there are, and none of those that must go."""
        found = self.pods()
        return len(found) == count and all(one.runs and one.uid not in gone for one in found)

    def later(self, work: Callable[[], None]) -> None:
        """Do something beside the storm."""
        self._background.append(threading.Thread(target=work, daemon=True))
        self._background[-1].start()


# -- what happens -------------------------------------------------------------------------------------------


def replace_all(storms: Storms, pods: list[Pod]) -> set[str]:
    """The objects go at once; the kubelets stop the containers in their own time."""
    storms.cluster.kubectl(
        "delete", "pods", "-l", f"app={APP}", "--force", "--grace-period=0", "--wait=false"
    )
    return {one.uid for one in pods}


def roll(storms: Storms, pods: list[Pod]) -> set[str]:
    storms.cluster.kubectl("rollout", "restart", f"deployment/{APP}")
    return {one.uid for one in pods}


def drain(storms: Storms, pods: list[Pod]) -> set[str]:
    node = pods[0].node
    storms.cluster.kubectl("drain", node, "--ignore-daemonsets", "--force", "--delete-emptydir-data")
    return {one.uid for one in pods if one.node == node}


def replace_all_with_a_kubelet_paused(seconds: float) -> Act:
    def act(storms: Storms, pods: list[Pod]) -> set[str]:
        node = storms.cluster.nodes[pods[0].node]
        gone = replace_all(storms, pods)
        node.stand_still("kubelet")

        def wake() -> None:
            time.sleep(seconds)
            node.signal("kubelet", signal.SIGCONT)

        storms.later(wake)
        return gone

    return act


def replace_all_with_an_agent_killed(storms: Storms, pods: list[Pod]) -> set[str]:
    """The kubelet starts it again."""
    node = storms.cluster.nodes[pods[0].node]
    gone = replace_all(storms, pods)
    time.sleep(1)
    node.kill_agent()
    return gone


# -- networks -----------------------------------------------------------------------------------------------


def network(name: str, ipam: dict[str, Any]) -> dict[str, Any]:
    macvlan = {"type": "macvlan", "master": "eth0", "mode": "bridge", "ipam": ipam}
    return {"cniVersion": "1.0.0", "name": name, "plugins": [macvlan]}


def orbweaver(storm: Storm) -> dict[str, Any]:
    """Our IPAM on the storm's pool."""
    pool = storm.pool["metadata"]["name"]
    return network("storm-orbweaver", {"type": "spiderpool", "default_ipv4_ippool": [pool]})


def host_local(node: str) -> dict[str, Any]:
    """host-local with 250 addresses for this node alone."""
    low = f"10.99.{200 + int(node[1:])}"
    whole = {"subnet": "10.99.0.0/16", "rangeStart": f"{low}.1", "rangeEnd": f"{low}.250"}
    return network("storm-host-local", {"type": "host-local", "ranges": [[whole]]})
