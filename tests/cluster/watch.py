"""Who watches pods while something is swapped under them: their network is there all along, and no address is with two.

What must always hold: what is asked is the pods themselves, in their network namespaces, and the API server; nothing of the
IPAMs that are swapped.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import threading
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from actors.resources.pod import NETWORK_STATUS
from tests.cluster.cluster import Cluster
from tests.cluster.node import Node
from tests.cluster.processes import ClusterFailed

_COUNTS = re.compile(r"(\d+) packets transmitted, (\d+) packets received")
_EVERY = 1.0


@dataclass(frozen=True)
class Inside:
    """A pod, by what leads into it."""

    name: str
    node: Node
    netns: str

    def state(self) -> frozenset[str]:
        """Its addresses, routes and rules, each as a line of `ip`."""
        script = "ip -o addr show; ip route show table all; ip rule; ip link show"
        said = self.node.call("nsenter", f"--net={self.netns}", "sh", "-c", script)
        # IPv6 addresses become usable, and neighbours' routes come and go, by themselves.
        return frozenset(line for line in said.splitlines() if "inet6" not in line and "fe80" not in line)

    def ping(self, address: str) -> subprocess.Popen[str]:
        """Ask an address each second, for as long as the caller wants."""
        words = ("busybox", "ping", "-i", "1", "-W", "60", address)
        return self.node.start_command("nsenter", f"--net={self.netns}", *words)


class Watch:
    """Watches, until it is left, pods of a workload that are there to stay, and the addresses of all pods. `peers`: by
    interface, who has to answer them."""

    def __init__(self, cluster: Cluster, name: str, peers: Mapping[str, str]) -> None:
        self.rounds = 0
        self._cluster, self._name, self._peers = cluster, name, peers
        self._inside = [self._lead(pod) for pod in cluster.items("pods", "-l", f"app={name}")]
        self._states = [pod.state() for pod in self._inside]
        self._addresses = self._staying()
        self._errors: list[BaseException] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._guarded, name="watch", daemon=True)
        self._pings: list[tuple[str, subprocess.Popen[str]]] = []

    def __enter__(self) -> Self:
        for pod in self._inside:
            for interface, address in self._peers.items():
                self._pings.append((f"{pod.name} {interface}", pod.ping(address)))
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._over.set()
        self._thread.join()
        lost = [text for name, ping in self._pings if (text := _end(name, ping))]
        if kind is None:
            assert self._errors == []
            assert lost == []
            assert self.rounds

    def _lead(self, pod: Mapping[str, Any]) -> Inside:
        node = self._cluster.nodes[pod["spec"]["nodeName"]]
        _, netns = node.sandbox(pod["metadata"]["uid"])
        return Inside(pod["metadata"]["name"], node, netns)

    def _guarded(self) -> None:
        try:
            while not self._over.wait(_EVERY):
                self._look()
        except BaseException as error:
            self._errors.append(error)

    def _look(self) -> None:
        try:
            pods = self._cluster.items("pods", "-A")
            staying = self._staying()
        except ClusterFailed:  # the API server, for a moment
            return
        holders: dict[str, set[str]] = defaultdict(set)
        for pod in pods:
            if pod["status"].get("phase") == "Running" and "deletionTimestamp" not in pod["metadata"]:
                for address in addresses_of(pod).values():
                    holders[address].add(f"{pod['metadata']['namespace']}/{pod['metadata']['name']}")
        twice = {address: names for address, names in holders.items() if len(names) > 1}
        assert twice == {}, "one address, two pods"
        assert staying == self._addresses
        for inside, before in zip(self._inside, self._states, strict=True):
            assert before <= inside.state(), f"{inside.name} lost some of its network"
        self.rounds += 1

    def _staying(self) -> dict[str, dict[str, str]]:
        """By pod, what it has on each interface."""
        return {
            pod["metadata"]["name"]: addresses_of(pod)
            for pod in self._cluster.items("pods", "-l", f"app={self._name}")
        }


def addresses_of(pod: Mapping[str, Any]) -> dict[str, str]:
    """Interface to address, as its status and Multus' note say; empty for a pod of the node's own network."""
    if pod["spec"].get("hostNetwork"):
        return {}
    status = json.loads((pod["metadata"].get("annotations") or {}).get(NETWORK_STATUS, "[]"))
    noted = {entry["interface"]: ip for entry in status for ip in entry.get("ips", ())}
    own = pod["status"].get("podIP")
    return {**({"eth0": own} if own else {}), **noted}


def running(cluster: Cluster) -> dict[str, str]:
    """Address to UID, of all pods that have some of a pool."""
    return {
        address: pod["metadata"]["uid"]
        for pod in cluster.items("pods")
        if pod["status"].get("phase") == "Running" and "deletionTimestamp" not in pod["metadata"]
        for address in addresses_of(pod).values()
    }


def wait_running(cluster: Cluster) -> None:
    """Until all workloads have all their pods, and nothing else is left."""
    for kind in ("deployment", "statefulset"):
        for obj in cluster.items(kind):
            name = obj["metadata"]["name"]
            cluster.kubectl("rollout", "status", f"{kind}/{name}", "--timeout=300s")
    cluster.wait(
        "pods that ended are gone",
        lambda: all("deletionTimestamp" not in pod["metadata"] for pod in cluster.items("pods")),
    )


def _end(name: str, ping: subprocess.Popen[str]) -> str:
    """What was lost, in words; the last question may be on its way."""
    ping.send_signal(signal.SIGINT)
    said, _ = ping.communicate(timeout=120)
    counts = _COUNTS.search(said)
    if counts is None:
        return f"{name}: ping said {said[-300:]!r}"
    asked, answered = int(counts[1]), int(counts[2])
    return f"{name}: {answered} of {asked} answers" if asked - answered > 1 or not answered else ""
