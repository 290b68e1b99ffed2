"""Orbweaver on the cluster as its users get it: deploy/ applied, agents and controller with their service accounts."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from tests.cluster.cluster import Cluster
from tests.cluster.images import BUSYBOX

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
NAMESPACE = "orbweaver-system"
PROGRAM = (sys.executable, "-P", "-m", "cni.command.main")
FIRST, LAST = "10.99.100.10", "10.99.100.25"
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


def deploy(cluster: Cluster) -> None:
    """Apply deploy/ and a pool, and start the DaemonSet's agent as a process on each node: there is no image yet, so its
    pods and the controller's are kept from nodes."""
    cluster.kubectl("apply", "-k", str(DEPLOY))
    nowhere = '{"spec":{"template":{"spec":{"nodeSelector":{"tests/no-image-yet":"true"}}}}}'
    cluster.kubectl("-n", NAMESPACE, "patch", "daemonset", "orbweaver-agent", "-p", nowhere)
    cluster.kubectl("-n", NAMESPACE, "scale", "deployment", "orbweaver-controller", "--replicas=0")
    cluster.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
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
            "/host/etc/cni/net.d": str(node.directory / "cni.d"),
            "$(NODE_NAME)": node.name,
        }
        words = container["command"]
        for path, here in paths.items():
            words = [word.replace(path, here) for word in words]
        assert words[0] == "orbweaver"
        bound = ("--bound-object-kind", "Node", "--bound-object-name", node.name)
        token = cluster.kubectl("-n", NAMESPACE, "create", "token", "orbweaver-agent", *bound).strip()
        node.start_agent([*PROGRAM, *words[1:]], token, shown_token(cluster, node.name), NAMESPACE)
        node.configure(CONFLIST)
    words = cluster.get("deployment", "orbweaver-controller", "-n", NAMESPACE)["spec"]["template"]["spec"][
        "containers"
    ][0]["command"]
    words = [word.replace("/etc/orbweaver", str(config)) for word in words]
    token = cluster.kubectl("-n", NAMESPACE, "create", "token", "orbweaver-controller").strip()
    cluster.start_controller([*PROGRAM, *words[1:]], token)
    cluster.wait("the nodes are Ready", cluster.nodes_ready)


def shown_token(cluster: Cluster, node: str) -> str:
    """What the kubelet would project for the DaemonSet's pod of a node. There is none here, so it is bound to the node."""
    spec = cluster.get("daemonset", "orbweaver-agent", "-n", NAMESPACE)["spec"]["template"]["spec"]
    (volume,) = [one for one in spec["volumes"] if one["name"] == "leader-token"]
    (source,) = volume["projected"]["sources"]
    projected = source["serviceAccountToken"]
    bound = ("--bound-object-kind", "Node", "--bound-object-name", node)
    wanted = ("--audience", projected["audience"], "--duration", f"{projected['expirationSeconds']}s")
    return cluster.kubectl(
        "-n", NAMESPACE, "create", "token", spec["serviceAccountName"], *wanted, *bound
    ).strip()


def workload(kind: str, name: str, replicas: int, **container: Any) -> dict[str, Any]:
    """A Deployment or StatefulSet whose pods spread over the nodes and end at once. `container`: fields of its own."""
    labels = {"app": name}
    container = {
        "name": "c",
        "image": BUSYBOX,
        "imagePullPolicy": "Never",
        "command": ["sleep", "100000"],
        **container,
    }
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


def pods(cluster: Cluster, name: str) -> dict[str, tuple[str, str, str]]:
    """Of the running pods of a workload that are there to stay: node, address and UID."""
    return {
        pod["metadata"]["name"]: (pod["spec"]["nodeName"], pod["status"]["podIP"], pod["metadata"]["uid"])
        for pod in cluster.items("pods", "-l", f"app={name}")
        if pod["status"]["phase"] == "Running" and "deletionTimestamp" not in pod["metadata"]
    }


def records(cluster: Cluster) -> list[str]:
    return [
        f"{block['metadata']['name']}: {text}"
        for block in cluster.items("spideripblocks")
        if (text := block.get("spec", {}).get("records") or "{}") not in ("{}", "[]")
    ]
