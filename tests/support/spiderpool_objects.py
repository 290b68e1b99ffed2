"""Spiderpool's and our own workloads in a store, under names of somebody's own, as a takeover finds them."""

from __future__ import annotations

from typing import Any

from actors.store.contract import Object, Store

SPIDER, OURS = "kube-system", "orbweaver-system"


def workload(kind: str, namespace: str, name: str, *containers: dict[str, Any], **spec: Any) -> Object:
    template = {
        "containers": list(containers),
        "volumes": [{"name": "conf", "configMap": {"name": "spiderpool-conf"}}],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": template},
            **spec,
        },
    }


AGENT = {"name": "agent-of-mine", "image": "theirs", "command": ["/usr/bin/spiderpool-agent", "daemon"]}
MULTUS = {"name": "multus-cni", "image": "theirs", "command": ["/home/entrypoint.sh"]}


def install(store: Store, *containers: dict[str, Any]) -> None:
    """Both, under names of somebody's own."""
    ours = ["orbweaver", "agent", "--node=x"]
    controller = {"name": "c", "image": "theirs", "command": ["/usr/bin/spiderpool-controller"]}
    store.create(workload("DaemonSet", SPIDER, "my-agent", *(containers or (AGENT,))))
    store.create(workload("Deployment", SPIDER, "my-controller", controller, replicas=3))
    store.create(
        workload("DaemonSet", OURS, "orbweaver-agent", {"name": "agent", "image": "ours", "command": ours})
    )
    command = ["orbweaver", "controller"]
    store.create(
        workload(
            "Deployment",
            OURS,
            "orbweaver-controller",
            {"name": "c", "image": "ours", "command": command},
            replicas=0,
        )
    )
