"""From `kubectl apply -k deploy/` to pods on two nodes that reach each other, and back to nothing."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.images import BUSYBOX
from tests.cluster.node import Node
from tests.cluster.processes import ClusterFailed

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(300)]

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
NAMESPACE = "orbweaver-system"
PROGRAM = (sys.executable, "-P", "-m", "cni.command.main")
FIRST, LAST = "10.99.100.10", "10.99.100.25"
PATCHED = ("DaemonSet/", "Deployment/")
POOL: dict[str, Any] = {
    "apiVersion": "spiderpool.spidernet.io/v2beta1",
    "kind": "SpiderIPPool",
    "metadata": {"name": "underlay"},
    "spec": {"ipVersion": 4, "subnet": "10.99.0.0/16", "ips": [f"{FIRST}-{LAST}"], "default": True},
}
CONFLIST: dict[str, Any] = {
    "cniVersion": "1.0.0",
    "name": "underlay",
    "plugins": [{"type": "macvlan", "master": "eth0", "mode": "bridge", "ipam": {"type": "spiderpool"}}],
}


def refused_by(cluster: Cluster, *manifests: dict[str, Any]) -> str:
    """What `kubectl apply` says to objects that it must not take."""
    with pytest.raises(ClusterFailed) as caught:
        cluster.apply(*manifests)
    return str(caught.value)


def contents(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Each object of a List without its metadata, which grow with every write, and its status."""
    return {
        f"{one['kind']}/{one['metadata']['name']}": {
            key: value for key, value in one.items() if key not in {"metadata", "status"}
        }
        for one in found["items"]
    }


def workload(kind: str, name: str, replicas: int) -> dict[str, Any]:
    """A Deployment or StatefulSet whose pods spread over the nodes and end at once."""
    labels = {"app": name}
    container = {"name": "c", "image": BUSYBOX, "imagePullPolicy": "Never", "command": ["sleep", "100000"]}
    spread = {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": labels},
    }
    pod = {
        "terminationGracePeriodSeconds": 0,
        "topologySpreadConstraints": [spread],
        "containers": [container],
    }
    spec: dict[str, Any] = {
        "replicas": replicas,
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": pod},
    }
    if kind == "StatefulSet":
        spec |= {"serviceName": name, "podManagementPolicy": "Parallel"}
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}


@pytest.fixture(scope="module")
def deployed(cluster: Cluster) -> Iterator[Cluster]:
    """deploy/ as it is applied, a pool made with kubectl, and the DaemonSet's agent as a process on each node: there is
    no image yet, so its pods and the controller's are kept from nodes."""
    cluster.kubectl("apply", "-k", str(DEPLOY))
    nowhere = '{"spec":{"template":{"spec":{"nodeSelector":{"tests/no-image-yet":"true"}}}}}'
    cluster.kubectl("-n", NAMESPACE, "patch", "daemonset", "orbweaver-agent", "-p", nowhere)
    cluster.kubectl("-n", NAMESPACE, "scale", "deployment", "orbweaver-controller", "--replicas=0")
    cluster.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
    cluster.apply(POOL)

    container = cluster.get("daemonset", "orbweaver-agent", "-n", NAMESPACE)["spec"]["template"]["spec"][
        "containers"
    ][0]
    text = cluster.get("configmap", "orbweaver-conf", "-n", NAMESPACE)["data"]["conf.yml"]
    for node in cluster.nodes.values():
        config = node.directory / "conf"
        config.mkdir()
        (config / "conf.yml").write_text(text)
        paths = {
            "/etc/orbweaver": str(config),
            "/host/opt/cni/bin": str(node.plugins),
            "$(NODE_NAME)": node.name,
        }
        words = container["command"]
        for path, here in paths.items():
            words = [word.replace(path, here) for word in words]
        assert words[0] == "orbweaver"
        token = cluster.kubectl("-n", NAMESPACE, "create", "token", "orbweaver-agent").strip()
        node.start_agent([*PROGRAM, *words[1:]], token, NAMESPACE)
        node.configure(CONFLIST)
    words = cluster.get("deployment", "orbweaver-controller", "-n", NAMESPACE)["spec"]["template"]["spec"][
        "containers"
    ][0]["command"]
    words = [word.replace("/etc/orbweaver", str(config)) for word in words]
    token = cluster.kubectl("-n", NAMESPACE, "create", "token", "orbweaver-controller").strip()
    cluster.start_controller([*PROGRAM, *words[1:]], token)
    cluster.wait("the nodes are Ready", cluster.nodes_ready)
    yield cluster
    for node in cluster.nodes.values():
        log = node.agent_log()
        assert node.stop_agent() == 0, log


def pods(cluster: Cluster, name: str) -> dict[str, tuple[str, str, str]]:
    """Of the running pods of a workload that are there to stay: node, address and UID."""
    return {
        pod["metadata"]["name"]: (pod["spec"]["nodeName"], pod["status"]["podIP"], pod["metadata"]["uid"])
        for pod in cluster.items("pods", "-l", f"app={name}")
        if pod["status"]["phase"] == "Running" and "deletionTimestamp" not in pod["metadata"]
    }


def in_pool(address: str) -> bool:
    return IPv4Address(FIRST) <= IPv4Address(address) <= IPv4Address(LAST)


def endpoints(cluster: Cluster) -> dict[str, str]:
    """What `kubectl get se` shows: the address of each pod."""
    return {
        one["metadata"]["name"]: one["status"]["current"]["ips"][0]["ipv4"].partition("/")[0]
        for one in cluster.items("spiderendpoints")
    }


def records(cluster: Cluster) -> list[str]:
    return [
        f"{block['metadata']['name']}: {text}"
        for block in cluster.items("spideripblocks")
        if (text := block.get("spec", {}).get("records") or "{}") not in ("{}", "[]")
    ]


def test_a_second_apply_changes_nothing(deployed: Cluster) -> None:
    """What the test itself patched aside, the API server has every field as it stands in deploy/."""
    again = json.loads(deployed.kubectl("apply", "-k", str(DEPLOY), "--dry-run=server", "-o", "json"))
    there = json.loads(deployed.kubectl("get", "-k", str(DEPLOY), "-o", "json"))

    assert {name: obj for name, obj in contents(again).items() if not name.startswith(PATCHED)} == {
        name: obj for name, obj in contents(there).items() if not name.startswith(PATCHED)
    }


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
            cluster.kubectl("exec", first, "--", "ping", "-c", "1", "-W", "5", address)
    cluster.wait(
        "SpiderEndpoints show what the pods have",
        lambda: endpoints(cluster) == {name: address for name, (_, address, _) in everyone.items()},
    )

    cluster.kubectl("rollout", "restart", "deployment/web", "statefulset/db")
    cluster.kubectl("rollout", "status", "deployment/web", "--timeout=90s")
    cluster.kubectl("rollout", "status", "statefulset/db", "--timeout=90s")
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

    cluster.kubectl("delete", "deployment/web", "statefulset/db", "--timeout=60s")
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
