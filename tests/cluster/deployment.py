"""Orbweaver on the cluster as its users get it: the chart installed by Helm, agents and controllers as pods of its image."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.cluster.cluster import Cluster
from tests.cluster.images import BUSYBOX
from tests.cluster.node import AWAY
from tests.cluster.pod_logs import NAMESPACE
from tests.cluster.processes import ClusterFailed
from tests.support.helm import CHART, Helm, Refused
from tests.tools.image import NAME as IMAGE

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
PROGRAM = (sys.executable, "-P", "-m", "cni.command.main")
FIRST, LAST = "10.99.100.10", "10.99.100.25"
POOL: dict[str, Any] = {
    "apiVersion": "spiderpool.spidernet.io/v2beta1",
    "kind": "SpiderIPPool",
    "metadata": {"name": "underlay"},
    "spec": {"ipVersion": 4, "subnet": "10.99.0.0/16", "ips": [f"{FIRST}-{LAST}"], "default": True},
}
_ELSEWHERE = {"matchExpressions": [{"key": AWAY, "operator": "DoesNotExist"}]}
VALUES: dict[str, Any] = {
    "image": {"repository": IMAGE.partition(":")[0], "pullPolicy": "Never"},
    # So that a test can take one node's agent away.
    "agent": {
        "affinity": {
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [_ELSEWHERE]}
            }
        }
    },
    "crds": {"networkAttachmentDefinitions": True},
    "clusterDefaultPool": {
        "installIPv4IPPool": True,
        "ipv4IPPoolName": POOL["metadata"]["name"],
        "ipv4Subnet": POOL["spec"]["subnet"],
        "ipv4IPRanges": POOL["spec"]["ips"],
    },
}
CONFLIST: dict[str, Any] = {
    "cniVersion": "1.0.0",
    "name": "underlay",
    "plugins": [{"type": "macvlan", "master": "eth0", "mode": "bridge", "ipam": {"type": "spiderpool"}}],
}


def deploy(cluster: Cluster, archive: Path) -> None:
    """Install the chart with the image on both nodes; its Job makes the pool. The pods and the nodes are Ready then."""
    with ThreadPoolExecutor() as threads:
        for done in [threads.submit(node.import_image, archive) for node in cluster.nodes.values()]:
            done.result()
    install(cluster)


def install(cluster: Cluster, **values: Any) -> None:
    """Install the chart where the nodes have the image; `values` beside or over those of all tests."""
    with helm(cluster) as asked:
        try:
            asked.ask(
                "install",
                chart=str(CHART),
                values={**VALUES, **values},
                create_namespace=True,
                timeout=600,
                wait="watcher",
                **release(cluster),
            )
        except Refused as refused:
            raise ClusterFailed(f"{refused}\n{cluster.state()}") from refused
    for node in cluster.nodes.values():
        node.wait_for_agent()
        node.configure(CONFLIST)
    cluster.wait("the nodes are Ready", cluster.nodes_ready)


def helm(cluster: Cluster) -> Helm:
    """Helm, where it reaches the API server."""
    return Helm(("nsenter", f"--net=/run/netns/{cluster.netns}"), cluster.directory / "helm.log")


def release(cluster: Cluster) -> dict[str, Any]:
    """What each operation on the release needs."""
    return {"name": "orbweaver", "namespace": NAMESPACE, "kubeconfig": str(cluster.kubeconfig("admin"))}


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
        if pod["status"]["phase"] == "Running"
        and pod["status"].get("podIP")
        and "deletionTimestamp" not in pod["metadata"]
    }


def records(cluster: Cluster) -> list[str]:
    return [
        f"{block['metadata']['name']}: {text}"
        for block in cluster.items("spideripblocks")
        if (text := block.get("spec", {}).get("records") or "{}") not in ("{}", "[]")
    ]
