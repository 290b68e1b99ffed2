"""Orbweaver on the Kubernetes store: a real etcd and kube-apiserver, agent processes, and a pod object for each ADD.

What is written behind an answer, the SpiderEndpoints, is waited for and counted. etcd does not wait for the disk, as
host-local does not either. With `controller`, a controller process runs beside the agents.
"""

from __future__ import annotations

import re
import shutil
import time
import urllib.error
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import yaml

from actors.cluster.leadership import NAMESPACE
from actors.errors import NotFound
from actors.resources.blocks.block import Block, base_of
from actors.resources.blocks.record import Record
from actors.store.kubernetes.store import KubernetesStore
from tests.bench.load import Pod
from tests.bench.peers import BASE, FIRST
from tests.support.agent_process import AgentProcess, pool
from tests.support.blocks import recorded
from tests.support.leaders import ControllerProcess, controllers, leader_of, wait_linked
from tests.tools import kubernetes
from tests.tools.apiserver import ApiServer

_DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
_SETTLE = 60.0
_WORKERS = 8
LEASE = ("--lease-duration", "15", "--renew-deadline", "10", "--retry-period", "2")
_REQUEST = re.compile(r"^apiserver_request_total\{(?P<labels>[^}]*)\} (?P<count>\S+)$", re.MULTILINE)
_ETCD_BYTES = re.compile(r"^etcd_debugging_mvcc_total_put_size_in_bytes (\S+)$", re.MULTILINE)


def node_name(agent: int) -> str:
    """The node of an agent."""
    return f"bench-node-{agent}"


class ClusterPeers:
    """One API server for all rounds."""

    def __init__(self, server: ApiServer) -> None:
        self.server = server
        self.store = KubernetesStore(server.access())

    def agent(self, directory: Path, number: int, *options: str) -> AgentProcess:
        """An agent of its own node, not started. `options`: of its command."""
        place = directory / node_name(number)
        return AgentProcess(place, *options, kubeconfig=self.server.kubeconfig, node=node_name(number))

    @contextmanager
    def agents(
        self, directory: Path, count: int, size: int, *, used: int = 0, controller: bool = False
    ) -> Iterator[OnKubernetes]:
        """`count` agents with a new pool of `size` addresses, `used` of them in use; all is gone at the end."""
        shutil.rmtree(directory, ignore_errors=True)
        made = self.store.create(pool("bench", "10.16.0.0/16", f"{FIRST}-{FIRST + size - 1}", "10.16.0.1"))
        before = [Pod(f"before-{number}", -1) for number in range(-(-used // 40))]
        self.make_pods(before, "bench-before")
        self._fill(before, used)
        with ExitStack() as stack:
            others: list[ControllerProcess] = []
            if controller:
                others = stack.enter_context(controllers(directory, self.server.kubeconfig, *LEASE, count=1))
                leader = leader_of(self.store, others)
            agents = [stack.enter_context(self.agent(directory, number)) for number in range(count)]
            for agent in agents if controller else ():
                wait_linked(agent, leader)
            peer = OnKubernetes(self, agents, others)
            yield peer
            peer.settle()
            self.remove_pods([*peer.pods, *before])
        self.remove("SpiderIPPool", [made["metadata"]["name"]])
        self.remove(
            "SpiderIPBlock", [obj["metadata"]["name"] for obj in self.store.list("SpiderIPBlock").items]
        )
        for obj in self.store.list("SpiderEndpoint").items:
            self.store.delete("SpiderEndpoint", obj["metadata"]["name"], "bench")

    def make_pods(self, pods: Sequence[Pod], node: str | None = None) -> None:
        """A pod object for each, on its agent's node or on `node`."""

        def make(pod: Pod) -> None:
            made = self.store.create(
                {
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "metadata": {"name": pod.name, "namespace": "bench"},
                    "spec": {
                        "nodeName": node or node_name(pod.agent),
                        "containers": [{"name": "c", "image": "i"}],
                    },
                }
            )
            pod.uid = str(made["metadata"]["uid"])

        _at_once(make, pods)

    def end_pod(self, pod: Pod, seconds: int) -> None:
        """Delete it with a grace period; 0 takes it away at once. One that is gone is no error."""
        try:
            path = f"/api/v1/namespaces/bench/pods/{pod.name}"
            self.server.call("DELETE", path, {"gracePeriodSeconds": seconds})
        except urllib.error.HTTPError as error:
            if error.code != 404:
                raise

    def remove_pods(self, pods: Sequence[Pod]) -> None:
        """Take the objects away at once."""
        _at_once(lambda pod: self.end_pod(pod, 0), pods)

    def remove(self, kind: str, names: Sequence[str]) -> None:
        """Delete objects of cluster scope, their finalizers first; those that a controller took away are no error."""

        def take(name: str) -> None:
            try:
                obj = self.store.get(kind, name)
                if obj["metadata"].get("finalizers"):
                    self.store.update({**obj, "metadata": {**obj["metadata"], "finalizers": []}})
                self.store.delete(kind, name)
            except NotFound:
                return

        _at_once(take, names)

    def _fill(self, pods: Sequence[Pod], used: int) -> None:
        """Record the pool's first `used` addresses for pods on another node, 40 interfaces each."""
        first, blocks = int(FIRST), dict[int, Block]()
        for number in range(used):
            pod, value = pods[number // 40], first + number
            block = blocks.setdefault(base_of(value), Block(4, base_of(value)))
            block.records[value] = Record(
                "bench", f"bench/{pod.name}", pod.uid, pod.container, f"net{number % 40}", "bench-before", "",
                "2026-01-01T00:00:00Z", "bench",
            )  # fmt: skip
        _at_once(lambda block: self.store.create(block.to_object()), list(blocks.values()))


class OnKubernetes:
    """Some agents on the API server."""

    def __init__(
        self,
        peers: ClusterPeers,
        agents: Sequence[AgentProcess],
        controllers: Sequence[ControllerProcess],
    ) -> None:
        self.program = agents[0].plugins / "spiderpool"
        self.confs: Sequence[dict[str, Any]] = [{**BASE, "ipam": agent.ipam} for agent in agents]
        self.pods: list[Pod] = []
        self.agents = agents
        self._controllers = controllers
        self._peers = peers

    def processes(self) -> Mapping[str, list[int]]:
        server = self._peers.server
        return {
            "agents": [agent.pid for agent in self.agents],
            "controller": [process.pid for process in self._controllers],
            "apiserver": [server.pid],
            "etcd": [server.etcd_pid],
        }

    def make_pods(self, pods: Sequence[Pod]) -> None:
        self._peers.make_pods(pods)
        self.pods += pods

    def end_pod(self, pod: Pod) -> None:
        self._peers.end_pod(pod, 30)

    def count(self) -> int:
        return len(recorded(self._peers.store.list("SpiderIPBlock").items))

    def settle(self) -> None:
        """Wait until the SpiderEndpoints of the agents' pods say what the blocks say."""
        deadline = time.monotonic() + _SETTLE
        while True:
            shown = sum(
                len(obj["status"]["current"]["ips"]) for obj in self._peers.store.list("SpiderEndpoint").items
                if obj["status"]["current"]["node"] != "bench-before"
            )  # fmt: skip
            held = [
                one
                for one in recorded(self._peers.store.list("SpiderIPBlock").items).values()
                if one["node"] != "bench-before"
            ]
            if shown == len(held):
                return
            assert time.monotonic() < deadline, "the SpiderEndpoints do not follow the blocks"
            time.sleep(0.2)

    def counters(self) -> dict[str, float]:
        """Requests of ours that the API server answered, and bytes put into etcd. What the bench itself does to pods,
        and elections, are left out; so are lists and watches, which no ADD waits for."""
        metrics, etcd = self._peers.server.metrics()
        requests = 0.0
        for found in _REQUEST.finditer(metrics):
            labels = found["labels"]
            ours = 'resource="spider' in labels or ('resource="pods"' in labels and 'verb="GET"' in labels)
            if ours and not re.search(r'verb="(LIST|WATCH)"', labels):
                requests += float(found["count"])
        put = _ETCD_BYTES.search(etcd)
        assert put is not None, "etcd does not tell how much was put into it"
        return {"api_requests": requests, "etcd_bytes": float(put[1])}


def _at_once(work: Callable[[Any], object], items: Sequence[Any]) -> None:
    with ThreadPoolExecutor(_WORKERS) as workers:
        list(workers.map(work, items))


@contextmanager
def cluster_peers() -> Iterator[ClusterPeers]:
    """Start etcd and kube-apiserver with our CRDs. Raises `ProgramMissing` where there are none."""
    server = ApiServer(kubernetes.assets())
    try:
        server.start()
        for namespace in ("bench", NAMESPACE):  # before the rights that are in one
            server.call("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
        for folder in ("crds", "rbac", "admission"):
            for path in sorted((_DEPLOY / folder).glob("*.yaml")):
                if path.name != "kustomization.yaml":
                    server.apply(*yaml.safe_load_all(path.read_text()))
        peers = ClusterPeers(server)
        for node in ("bench-before", *(node_name(number) for number in range(8))):
            peers.store.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}})
        yield peers
        peers.store.close()
    finally:
        server.stop()
