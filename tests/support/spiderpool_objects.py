"""Spiderpool's and our own workloads in a store, under names of somebody's own, as a takeover finds them."""

from __future__ import annotations

from typing import Any

from actors.store.contract import Object, Store

SPIDER, OURS = "kube-system", "orbweaver-system"


def workload(kind: str, namespace: str, name: str, *containers: dict[str, Any], **spec: Any) -> Object:
    template = {"containers": list(containers), "volumes": [{"configMap": {"name": "spiderpool-conf"}}]}
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


AGENT = {"name": "agent-of-mine", "command": ["/usr/bin/spiderpool-agent", "daemon"]}
MULTUS = {"name": "multus-cni", "command": ["/home/entrypoint.sh"]}


def install(store: Store, *containers: dict[str, Any]) -> None:
    """Both, under names of somebody's own."""
    ours = ["orbweaver", "agent", "--node=x"]
    controller = {"name": "c", "command": ["/usr/bin/spiderpool-controller"]}
    store.create(workload("DaemonSet", SPIDER, "my-agent", *(containers or (AGENT,))))
    store.create(workload("Deployment", SPIDER, "my-controller", controller, replicas=3))
    store.create(workload("DaemonSet", OURS, "orbweaver-agent", {"name": "agent", "command": ours}))
    command = ["orbweaver", "controller"]
    store.create(
        workload("Deployment", OURS, "orbweaver-controller", {"name": "c", "command": command}, replicas=0)
    )
