"""From `kubectl apply -k deploy/` to pods on two nodes that reach each other, and back to nothing."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.images import BUSYBOX

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(300)]

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
NAMESPACE = "orbweaver-system"
PROGRAM = (sys.executable, "-P", "-m", "cni.command.main")
FIRST, LAST = "10.99.100.10", "10.99.100.25"
POOL = {
    "apiVersion": "spiderpool.spidernet.io/v2beta1",
    "kind": "SpiderIPPool",
    "metadata": {"name": "underlay"},
    "spec": {"ipVersion": 4, "subnet": "10.99.0.0/16", "ips": [f"{FIRST}-{LAST}"], "default": True},
}
CONFLIST = {
    "cniVersion": "1.0.0",
    "name": "underlay",
    "plugins": [{"type": "macvlan", "master": "eth0", "mode": "bridge", "ipam": {"type": "spiderpool"}}],
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
    cluster.kubectl("apply", "--server-side", "-k", str(DEPLOY))
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
    cluster.wait("the nodes are Ready", cluster.nodes_ready)
    yield cluster
    for node in cluster.nodes.values():
        assert node.stop_agent() == 0, node.agent_log()


def pods(cluster: Cluster, name: str) -> dict[str, tuple[str, str, str]]:
    """Of the running pods of a workload that are there to stay: node, address and UID."""
    return {
        pod["metadata"]["name"]: (pod["spec"]["nodeName"], pod["status"]["podIP"], pod["metadata"]["uid"])
        for pod in cluster.items("pods", "-l", f"app={name}")
        if pod["status"]["phase"] == "Running" and "deletionTimestamp" not in pod["metadata"]
    }


def in_pool(address: str) -> bool:
    return ip_address(FIRST) <= ip_address(address) <= ip_address(LAST)


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
    for node in cluster.nodes.values():
        cluster.wait("no pod's network is left", lambda node=node: node.pod_namespaces() == [])
