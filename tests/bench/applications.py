"""`python -m tests.bench.applications`: applications with pools out of a subnet beside applications with pools made by hand.

Both in this one run, in turns: Deployments of ten pods are created at once, each with the ReplicaSet that its controller would
make and that its pods name, and each pod asks as soon as it exists, until all have their addresses; then the first pod of a new
application beside a pod of one that has its pool. What the API server was asked about pools, subnets and applications is
counted, without what the bench itself writes, and without lists and watches.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[2]))

from actors.cluster.leadership import Leadership
from actors.store.kinds import KINDS
from tests.bench.cluster_peers import LEASE, ClusterPeers, cluster_peers, node_name
from tests.bench.load import spread
from tests.bench.processes import cpu_seconds
from tests.support.agent_process import AgentProcess, logged, pool
from tests.support.application_churn import subnet
from tests.support.cni_client import NoAnswer, ask, encode
from tests.support.leaders import controllers, leader_of, wait_linked

NAMESPACE = "bench"
LOST = "the leader is lost, allocating in this process"
MANUAL, AUTOMATIC = "pools made by hand", "pools out of a subnet"
AGENTS, CLIENTS, PATIENCE = 4, 32, 120.0
_REQUEST = re.compile(r"^apiserver_request_total\{(?P<labels>[^}]*)\} (?P<count>\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')
_COUNTED = ("spiderippools", "spidersubnets", "deployments", "replicasets")


class Bench:
    """Agents and a controller on one API server."""

    def __init__(self, peers: ClusterPeers, agents: Sequence[AgentProcess], leader: int) -> None:
        """`leader`: its process."""
        self.peers, self.store, self.agents = peers, peers.store, agents
        self._pids = (leader, *(agent.pid for agent in agents))
        self._written: Counter[str] = Counter()
        self._lock = threading.Lock()

    def create(self, obj: dict[str, Any]) -> dict[str, Any]:
        """Create an object, which is not counted as the product's."""
        made = self.store.create(obj)
        with self._lock:
            self._written[f"POST {KINDS[obj['kind']].plural}"] += 1
        return made

    def delete(self, kind: str, name: str, namespace: str = "") -> None:
        self.store.delete(kind, name, namespace)
        with self._lock:
            self._written[f"DELETE {KINDS[kind].plural}"] += 1

    def requests(self) -> Counter[str]:
        """Those about pools, subnets and applications so far, by verb and resource."""
        metrics, _ = self.peers.server.metrics()
        found: Counter[str] = Counter()
        for one in _REQUEST.finditer(metrics):
            labels = dict(_LABEL.findall(one["labels"]))
            resource = "/".join(filter(None, (labels["resource"], labels["subresource"])))
            if labels["resource"] in _COUNTED and labels["verb"] not in ("LIST", "WATCH"):
                found[f"{labels['verb']} {resource}"] += int(float(one["count"]))
        return found - self._written

    def application(self, name: str, replicas: int, kind: str, number: int) -> str:
        """Create one with its ReplicaSet, and its pool if that is made by hand; returns the UID of the ReplicaSet."""
        annotations = {"ipam.spidernet.io/subnet": '{"ipv4":["floor"]}'} if kind == AUTOMATIC else {}
        if kind == MANUAL:
            first = (10 << 24) + (17 << 16) + number * 16
            made = pool(name, "10.17.0.0/16", f"{_text(first + 1)}-{_text(first + replicas + 1)}")
            self.create({**made, "spec": {**made["spec"], "default": False}})
        labels = {"app": name}
        template = {
            "metadata": {"labels": labels, "annotations": annotations},
            "spec": {"containers": [{"name": "c", "image": "i"}]},
        }
        spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
        metadata: dict[str, Any] = {"name": name, "namespace": NAMESPACE}
        made = self.create(
            {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec}
        )
        owner = _controller("Deployment", name, made["metadata"]["uid"])
        metadata = {**metadata, "ownerReferences": [owner]}
        made = self.create(
            {"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": metadata, "spec": spec}
        )
        return str(made["metadata"]["uid"])

    def start(self, name: str, application: str, uid: str, kind: str, agent: int) -> float:
        """Create a pod and let it ask until it has an address; seconds of that."""
        asks = (
            {"ipam.spidernet.io/subnet": '{"ipv4":["floor"]}'}
            if kind == AUTOMATIC
            else {"ipam.spidernet.io/ippool": f'{{"ipv4":["{application}"]}}'}
        )
        made = self.store.create(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    "name": name,
                    "namespace": NAMESPACE,
                    "annotations": asks,
                    "ownerReferences": [_controller("ReplicaSet", application, uid)],
                },
                "spec": {"nodeName": node_name(agent), "containers": [{"name": "c", "image": "i"}]},
            }
        )
        began = time.perf_counter()
        self.call("ADD", name, agent, str(made["metadata"]["uid"]))
        return time.perf_counter() - began

    def cpu(self) -> float:
        """Seconds of CPU that the leader and the agents have used."""
        return sum(map(cpu_seconds, self._pids))

    def leaders_left(self) -> int:
        """How often an agent took the leader for lost."""
        return sum(len(logged(agent.log, LOST)) for agent in self.agents)

    def call(self, command: str, pod: str, agent: int, uid: str = "") -> None:
        request = encode(command, f"c-{pod}", pod=pod, namespace=NAMESPACE, uid=uid)
        until = time.monotonic() + PATIENCE
        while True:
            try:
                answer = ask(self.agents[agent].socket, request)
                if answer.status == 0:
                    return
                said = answer.output.decode()
            except NoAnswer as error:
                said = str(error)
            if time.monotonic() > until:
                raise AssertionError(f"{command} of {pod}: {said}")
            time.sleep(0.1)

    def end(self, pods: Sequence[tuple[str, int]], applications: Sequence[str], kind: str) -> None:
        """Take everything away, and wait until the product has taken away its own."""
        at_once(lambda one: self.call("DEL", *one), pods)
        for name, _ in pods:
            self.peers.server.ask(
                "DELETE", f"/api/v1/namespaces/{NAMESPACE}/pods/{name}", {"gracePeriodSeconds": 0}
            )
        for name in applications:
            for owner in ("Deployment", "ReplicaSet"):
                self.delete(owner, name, NAMESPACE)
            if kind == MANUAL:
                self.delete("SpiderIPPool", name)
        until = time.monotonic() + PATIENCE
        while self.store.list("SpiderIPPool").items:
            assert time.monotonic() < until, "pools are left"
            time.sleep(0.2)


def at_once(work: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    with ThreadPoolExecutor(CLIENTS) as threads:
        return list(threads.map(work, items))


def burst(bench: Bench, kind: str, count: int, replicas: int, turn: int) -> dict[str, float]:
    """All applications at once; seconds until all pods have addresses, milliseconds of CPU of the leader and the agents until
    then, requests for each application."""
    names = [f"burst-{turn}-{number}" for number in range(count)]
    pods = [(f"{name}-{one}", number, name) for number, name in enumerate(names) for one in range(replicas)]
    before, cpu, left = bench.requests(), bench.cpu(), bench.leaders_left()
    began = time.perf_counter()
    uids: dict[str, str] = {}

    def live(number: int) -> list[float]:
        name = names[number]
        uids[name] = bench.application(name, replicas, kind, number)
        return [
            bench.start(f"{name}-{one}", name, uids[name], kind, (number + one) % AGENTS)
            for one in range(replicas)
        ]

    times = [seconds for found in at_once(live, range(count)) for seconds in found]
    took, cpu = time.perf_counter() - began, bench.cpu() - cpu
    time.sleep(3.0)  # the status of pools is written behind
    asked = bench.requests() - before
    print(kind, dict(asked), file=sys.stderr)
    bench.end(
        [(name, (number + int(name.rpartition("-")[2])) % AGENTS) for name, number, _ in pods], names, kind
    )
    return {
        "seconds": took,
        "leaders left": bench.leaders_left() - left,
        "CPU a pod": 1000 * cpu / len(pods),
        "requests": asked.total() / count,
        "with the end": (bench.requests() - before).total() / count,
        **spread(times),
    }


def first_pods(bench: Bench, kind: str, count: int, turn: int) -> dict[str, float]:
    """One pod after the other: the first one of a new application, or one of an application that has its pool."""
    times, pods, names = [], [], []
    uid, known = "", f"known-{turn}"
    if kind == MANUAL:
        uid = bench.application(known, count, kind, 0)
        names.append(known)
        time.sleep(1.0)
    for number in range(count):
        name = f"first-{turn}-{number}"
        if kind == AUTOMATIC:
            uid = bench.application(name, 1, kind, number)
            names.append(name)
        pods.append((f"{name}-0", number % AGENTS))
        times.append(
            bench.start(f"{name}-0", name if kind == AUTOMATIC else known, uid, kind, number % AGENTS)
        )
    bench.end(pods, names, kind)
    return spread(times)


def _controller(kind: str, name: str, uid: str) -> dict[str, Any]:
    """An owner reference."""
    return {"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": uid, "controller": True}


def _text(value: int) -> str:
    return ".".join(str(value >> shift & 255) for shift in (24, 16, 8, 0))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--applications", type=int, default=100)
    parser.add_argument("--replicas", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3, help="medians are reported (%(default)s)")
    parser.add_argument("--first", type=int, default=50, help="first pods in each round (%(default)s)")
    parser.add_argument(
        "--budget",
        type=float,
        default=Leadership().budget,
        help="the agents' --leader-budget; on a machine that does much else a leader may be slow and not lost (%(default)s)",
    )
    chosen = parser.parse_args()
    found: dict[str, dict[str, list[dict[str, float]]]] = {"burst": {}, "first": {}}
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        peers = stack.enter_context(cluster_peers())
        # The controller here is the administrator, whom the policy takes for a person that edits a pool.
        stack.enter_context(peers.server.without_policy("orbweaver-automatic-pools"))
        peers.store.create(subnet("floor", "10.16.0.0/16", "10.16.0.1-10.16.31.254"))
        others = stack.enter_context(controllers(directory, peers.server.kubeconfig, *LEASE, count=1))
        leader = leader_of(peers.store, others)
        patience = ("--leader-budget", str(chosen.budget))
        agents = [stack.enter_context(peers.agent(directory, number, *patience)) for number in range(AGENTS)]
        for agent in agents:
            wait_linked(agent, leader)
        bench = Bench(peers, agents, leader.pid)
        for turn in range(chosen.rounds * 2):
            kind = (MANUAL, AUTOMATIC)[turn % 2]
            found["first"].setdefault(kind, []).append(first_pods(bench, kind, chosen.first, turn))
            found["burst"].setdefault(kind, []).append(
                burst(bench, kind, chosen.applications, chosen.replicas, turn)
            )
            print(kind, found["first"][kind][-1], found["burst"][kind][-1], file=sys.stderr, flush=True)
    print(
        json.dumps(
            {
                what: {
                    kind: {key: round(statistics.median(one[key] for one in rounds), 3) for key in rounds[0]}
                    for kind, rounds in kinds.items()
                }
                for what, kinds in found.items()
            },
            indent=1,
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
