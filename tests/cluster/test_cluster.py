"""From `helm install` to pods on two nodes that reach each other, and back to nothing."""

from __future__ import annotations

import json
from ipaddress import IPv4Address
from typing import Any

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.deployment import DEPLOY, FIRST, LAST, POOL, VALUES, helm, pods, records, release, workload
from tests.cluster.node import Node
from tests.cluster.pod_logs import NAMESPACE
from tests.cluster.processes import ClusterFailed
from tests.cluster.test_webhook import trusted
from tests.support.helm import CHART

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(1800)]


def refused_by(cluster: Cluster, *manifests: dict[str, Any]) -> str:
    """What `kubectl apply` says to objects that it must not take."""
    with pytest.raises(ClusterFailed) as caught:
        cluster.apply(*manifests)
    return str(caught.value)


def in_pool(address: str) -> bool:
    return IPv4Address(FIRST) <= IPv4Address(address) <= IPv4Address(LAST)


def endpoints(cluster: Cluster) -> dict[str, str]:
    """What `kubectl get se` shows: the address of each pod."""
    return {
        one["metadata"]["name"]: one["status"]["current"]["ips"][0]["ipv4"].partition("/")[0]
        for one in cluster.items("spiderendpoints")
    }


def generations(cluster: Cluster) -> dict[str, int | None]:
    """How often each object of deploy/ was changed by somebody."""
    there = json.loads(cluster.kubectl("get", "-k", str(DEPLOY), "-o", "json"))["items"]
    return {f"{one['kind']}/{one['metadata']['name']}": one["metadata"].get("generation") for one in there}


def ours(cluster: Cluster) -> dict[str, str]:
    """The pods of agents and controllers."""
    found = cluster.items("pods", "-n", NAMESPACE, "-l", "app.kubernetes.io/component in (agent, controller)")
    return {one["metadata"]["name"]: one["metadata"]["uid"] for one in found}


def test_an_upgrade_to_the_same_changes_nothing(deployed: Cluster) -> None:
    deployed.wait("API servers are told whom to trust", lambda: trusted(deployed))  # which is a change, too
    before, running = generations(deployed), ours(deployed)
    with helm(deployed) as asked:
        asked.ask(
            "upgrade", chart=str(CHART), values=VALUES, timeout=600, wait="watcher", **release(deployed)
        )

    assert generations(deployed) == before
    assert ours(deployed) == running
    assert len(running) == 4


def test_the_api_server_takes_what_kubectl_applies(deployed: Cluster) -> None:
    said = deployed.kubectl("apply", "-k", str(DEPLOY), "--dry-run=server")

    assert all(line.endswith(" (server dry run)") for line in said.splitlines())


def test_a_bad_pool_is_refused_by_the_api_server_alone(deployed: Cluster) -> None:
    bad = {**POOL, "metadata": {"name": "bad"}, "spec": {**POOL["spec"], "ips": ["10.98.0.1"]}}

    assert "10.98.0.1" in refused_by(deployed, bad)


@pytest.mark.parametrize(
    "account, verb, resource",
    [
        ("agent", "update", "pods"),
        ("agent", "update", "nodes"),
        ("agent", "get", "secrets"),
        ("agent", "update", "spiderippools.spiderpool.spidernet.io"),
        ("agent", "get", "leases.coordination.k8s.io"),
        ("controller", "get", "secrets"),
        ("controller", "delete", "pods"),
    ],
)
def test_a_service_account_has_no_right_too_many(
    deployed: Cluster, account: str, verb: str, resource: str
) -> None:
    who = f"--as=system:serviceaccount:{NAMESPACE}:orbweaver-{account}"

    assert deployed.kubectl("auth", "can-i", verb, resource, who, check=False).strip() == "no"
    assert deployed.kubectl("auth", "can-i", "list", "pods", who, check=False).strip() == "yes"


def test_pods_of_two_nodes_get_addresses_keep_them_and_leave_nothing(deployed: Cluster) -> None:
    cluster = deployed
    cluster.apply(workload("Deployment", "web", 4), workload("StatefulSet", "db", 2))
    cluster.wait("all pods run", lambda: len(pods(cluster, "web")) == 4 and len(pods(cluster, "db")) == 2)

    web, db = pods(cluster, "web"), pods(cluster, "db")
    everyone = {**web, **db}
    addresses = [address for _, address, _ in everyone.values()]
    assert all(in_pool(address) for address in addresses), addresses
    assert len(set(addresses)) == 6
    assert {node for node, _, _ in web.values()} == set(cluster.nodes)

    first, (here, _, _) = next(iter(web.items()))
    for node, address, _ in everyone.values():
        if node != here:
            cluster.kubectl("exec", first, "--", "ping", "-c", "1", "-W", "60", address)
    cluster.wait(
        "SpiderEndpoints show what the pods have",
        lambda: endpoints(cluster) == {name: address for name, (_, address, _) in everyone.items()},
    )

    cluster.kubectl("rollout", "restart", "deployment/web", "statefulset/db")
    cluster.kubectl("rollout", "status", "deployment/web", "--timeout=180s")
    cluster.kubectl("rollout", "status", "statefulset/db", "--timeout=180s")
    cluster.wait(
        "the old pods are gone", lambda: len(pods(cluster, "web")) == 4 and len(pods(cluster, "db")) == 2
    )
    again, kept = pods(cluster, "web"), pods(cluster, "db")
    assert not set(again) & set(web)
    assert all(in_pool(address) for _, address, _ in again.values()), again
    assert {name: address for name, (_, address, _) in kept.items()} == {
        name: address for name, (_, address, _) in db.items()
    }
    assert all(kept[name][2] != db[name][2] for name in db)

    cluster.kubectl("delete", "deployment/web", "statefulset/db", "--timeout=180s")
    cluster.wait("no pod is left", lambda: cluster.items("pods") == [])
    cluster.wait("no SpiderEndpoint is left", lambda: cluster.items("spiderendpoints") == [])
    cluster.wait("nothing is recorded any more", lambda: records(cluster) == [])
    logs = [cluster.controller_log(), *(one.agent_log() for one in cluster.nodes.values())]
    for log in logs:
        refused = [line for line in log.splitlines() if "forbidden" in line]
        assert refused == [], "a service account may not do what its process does"
    cluster.wait(
        "no pod's network is left", lambda: not any(map(Node.pod_namespaces, cluster.nodes.values()))
    )
