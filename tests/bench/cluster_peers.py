"""Orbweaver on the Kubernetes store: a real etcd and kube-apiserver, an agent process, and a pod object for each ADD.

What the agent writes behind an answer, the SpiderEndpoints, is waited for and counted. No controller runs, and etcd
does not wait for the disk, as host-local does not either.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import yaml

from actors.errors import NotFound
from actors.store.kubernetes import KubernetesStore
from tests.agent_process import AgentProcess, pool
from tests.bench.load import cpu_seconds, pod_name
from tests.blocks import recorded
from tests.tools import kubernetes
from tests.tools.apiserver import ApiServer

_FIRST = IPv4Address("10.16.1.0")
_DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
_NODE = "bench-node"
_SETTLE = 30.0
_REQUEST = re.compile(r"^apiserver_request_total\{(?P<labels>[^}]*)\} (?P<count>\S+)$", re.MULTILINE)
_ETCD_BYTES = re.compile(r"^etcd_debugging_mvcc_total_put_size_in_bytes (\S+)$", re.MULTILINE)
_BASE = {"cniVersion": "0.3.1", "name": "bench", "type": "macvlan", "master": "eth0", "mode": "bridge"}


class ClusterPeers:
    """One API server for all rounds."""

    def __init__(self, server: ApiServer) -> None:
        self.server = server
        self.store = KubernetesStore(server.access())

    @contextmanager
    def agent(self, directory: Path, size: int) -> Iterator[OnKubernetes]:
        """An agent with a new pool of `size` addresses; both are gone at the end."""
        shutil.rmtree(directory, ignore_errors=True)
        made = self.store.create(pool("bench", "10.16.0.0/16", f"{_FIRST}-{_FIRST + size - 1}", "10.16.0.1"))
        with AgentProcess(directory, kubeconfig=self.server.kubeconfig, node=_NODE) as agent:
            peer = OnKubernetes(self, agent)
            yield peer
            peer.remove_pods()
        self.store.delete("SpiderIPPool", made["metadata"]["name"])
        for block in self.store.list("SpiderIPBlock").items:
            self.store.delete("SpiderIPBlock", block["metadata"]["name"])


class OnKubernetes:
    """One agent on the API server."""

    name = "orbweaver on Kubernetes"

    def __init__(self, peers: ClusterPeers, agent: AgentProcess) -> None:
        self.program = agent.plugins / "spiderpool"
        self.conf = {**_BASE, "ipam": agent.ipam}
        self._peers = peers
        self._agent = agent
        self._pods: list[str] = []
        self._expected = 0

    def make_pods(self, containers: Sequence[str]) -> dict[str, str]:
        """A pod on the node for each container."""

        def make(container: str) -> str:
            made = self._peers.store.create(
                {
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "metadata": {"name": pod_name(container), "namespace": "bench"},
                    "spec": {"nodeName": _NODE, "containers": [{"name": "c", "image": "i"}]},
                }
            )
            self._pods.append(pod_name(container))
            return str(made["metadata"]["uid"])

        with ThreadPoolExecutor(8) as workers:
            return dict(zip(containers, workers.map(make, containers), strict=True))

    def remove_pods(self) -> None:
        """Delete the pods at once."""

        def remove(name: str) -> None:
            path = f"/api/v1/namespaces/bench/pods/{name}"
            self._peers.server.call("DELETE", path, {"gracePeriodSeconds": 0})

        with ThreadPoolExecutor(8) as workers:
            list(workers.map(remove, self._pods))

    def count(self) -> int:
        return len(recorded(self._peers.store.list("SpiderIPBlock").items))

    def settle(self) -> None:
        """Wait until the SpiderEndpoints say what the blocks say."""
        deadline = time.monotonic() + _SETTLE
        while len(self._peers.store.list("SpiderEndpoint").items) != self.count():
            assert time.monotonic() < deadline, "the SpiderEndpoints do not follow the blocks"
            time.sleep(0.1)

    def server_cpu(self) -> float:
        return cpu_seconds(self._agent.pid) + cpu_seconds(self._peers.server.pid)

    def counters(self) -> dict[str, float]:
        """Requests of ours that the API server answered, and bytes put into etcd."""
        metrics, etcd = self._peers.server.metrics()
        requests = 0.0
        for found in _REQUEST.finditer(metrics):
            labels = found["labels"]
            ours = 'resource="spider' in labels or 'resource="pods"' in labels
            if ours and not re.search(r'verb="(LIST|WATCH)"', labels):
                requests += float(found["count"])
        put = _ETCD_BYTES.search(etcd)
        assert put is not None, "etcd does not tell how much was put into it"
        return {"api_requests": requests, "etcd_bytes": float(put[1])}


@contextmanager
def cluster_peers() -> Iterator[ClusterPeers]:
    """Start etcd and kube-apiserver with our CRDs. Raises `ProgramMissing` where there are none."""
    server = ApiServer(kubernetes.assets())
    try:
        server.start()
        for folder in ("crds", "admission"):
            for path in sorted((_DEPLOY / folder).glob("*.yaml")):
                if path.name != "kustomization.yaml":
                    server.apply(*yaml.safe_load_all(path.read_text()))
        peers = ClusterPeers(server)
        try:
            peers.store.get("Namespace", "bench")
        except NotFound:
            peers.store.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "bench"}})
        node: dict[str, Any] = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": _NODE}}
        peers.store.create(node)
        yield peers
        peers.store.close()
    finally:
        server.stop()
