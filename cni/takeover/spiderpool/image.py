"""Bringing our image to every node before anything is stopped, so that no pod waits for it to be pulled.

What must always hold: the pods that it comes with do nothing, need no address, and are gone when this is left.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from actors.errors import Conflict, NotFound
from actors.store.contract import Object
from cni.takeover.spiderpool.installation import LIMIT, Side, is_observed, matches
from cni.takeover.waiting import wait_until

_KEPT = ("imagePullSecrets", "tolerations", "affinity", "priorityClassName")
"""What decides where agents run, and whether their image can be pulled."""


def bring_image(ours: Side) -> None:
    """Have each node that agents may run on pull the images of agents and controllers. Raises `TakeoverUnfinished`."""
    wanted = _daemonset(ours)
    metadata = wanted["metadata"]
    with suppress(Conflict):  # an earlier run was ended
        ours.store.create(wanted)
    try:
        wait_until(
            lambda: _missing(ours, metadata["name"]),
            LIMIT,
            f"look at the pods (kubectl -n {metadata['namespace']} describe pods -l {_label(metadata['name'])}). Nothing has"
            " been stopped or changed",
            ours.tell,
        )
    finally:
        with suppress(NotFound):
            ours.store.delete("DaemonSet", metadata["name"], metadata["namespace"])
    ours.tell("Orbweaver: its image is on every node")


def _daemonset(ours: Side) -> Object:
    agents = ours.agents()
    name = f"{agents['metadata']['name']}-image"
    spec = agents["spec"]["template"]["spec"]
    containers = [
        container
        for workload in (agents, *ours.controllers())
        for container in workload["spec"]["template"]["spec"]["containers"]
    ]
    images = {container["image"]: container.get("imagePullPolicy") for container in containers}
    labels = {"app.kubernetes.io/name": name}
    pod: dict[str, Any] = {key: spec[key] for key in _KEPT if key in spec} | {
        "nodeSelector": ours.selector(),
        "hostNetwork": True,
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 1,
        "containers": [
            _container(f"image-{number}", image, policy)
            for number, (image, policy) in enumerate(sorted(images.items()))
        ],
    }
    owner = {key: agents[key] for key in ("apiVersion", "kind")} | {
        key: agents["metadata"][key] for key in ("name", "uid")
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {
            "name": name,
            "namespace": agents["metadata"]["namespace"],
            "labels": labels,
            "ownerReferences": [owner],
        },
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


def _container(name: str, image: str, policy: str | None) -> dict[str, Any]:
    """One that ends at once, as often as it is started: what counts is that it could be."""
    return {
        "name": name,
        "image": image,
        "command": ["orbweaver", "--version"],
        **({"imagePullPolicy": policy} if policy else {}),
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "seccompProfile": {"type": "RuntimeDefault"},
            "capabilities": {"drop": ["ALL"]},
        },
    }


def _missing(ours: Side, name: str) -> str:
    where = ours.installation.namespace
    obj = ours.store.get("DaemonSet", name, where)
    if not is_observed(obj):
        return "the pods that bring Orbweaver's image are not begun"
    wanted = (obj.get("status") or {}).get("desiredNumberScheduled", 0)
    there = sum(_has_images(pod) for pod in ours.store.list("Pod", where).items if matches(pod, obj))
    return "" if there >= wanted else f"Orbweaver's image is on {there} of {wanted} nodes"


def _has_images(pod: Object) -> bool:
    statuses = (pod.get("status") or {}).get("containerStatuses") or ()
    return bool(statuses) and all(status.get("imageID") for status in statuses)


def _label(name: str) -> str:
    return f"app.kubernetes.io/name={name}"
