"""One pod on each node that does there what `orbweaver uninstall node` does, and what became of it.

What must always hold: a node that is not heard of holds up no other one, and is named; a pod needs nothing of the API
server. `patience` is for the next node to be done, however many there are.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from actors.errors import Conflict, NotFound
from actors.store.contract import Object, Store
from cni.uninstall.installed import COMPONENT, LABEL
from cni.uninstall.node import NodeDirectories

NAME = "orbweaver-uninstall"
LAST_WORDS = Path("/dev/termination-log")
"""What a container writes there is in its pod's state when it has ended."""
BY_HAND = "orbweaver uninstall node --yes"

_AT_ONCE = 100
_LOOK = 0.5
_ROOT = "/host"
_REASON_LONGEST = 600
_TELLABLE = 4096
"""Bytes that a kubelet reads of a container's last words."""


@dataclass(frozen=True, slots=True)
class NodeWork:
    """What the pods are made of, and what they are told."""

    namespace: str
    """Where they are made; that of the agents, whose pods may do as much."""
    image: str
    """With this program in it."""
    pull_policy: str = "IfNotPresent"
    """Kubernetes'."""
    pull_secrets: tuple[Mapping[str, Any], ...] = ()
    """References, as pods have them."""
    directories: NodeDirectories = field(default_factory=NodeDirectories)
    """As the agents had them."""
    tables: frozenset[int] = frozenset()
    """Of the host's routes to pods."""
    shared: bool = False
    """Whether Spiderpool goes on on these nodes."""

    def pod(self, node: str) -> Object:
        """The pod for one node."""
        container = {
            "name": "uninstall",
            "image": self.image,
            "imagePullPolicy": self.pull_policy,
            "command": self._command(),
            "terminationMessagePolicy": "FallbackToLogsOnError",
            "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}},
            "securityContext": {
                "runAsUser": 0,
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "seccompProfile": {"type": "RuntimeDefault"},
                "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN", "DAC_OVERRIDE"]},
            },
            # With the namespaces of pods that come and go meanwhile, which are mounted there.
            "volumeMounts": [{"name": "host", "mountPath": _ROOT, "mountPropagation": "HostToContainer"}],
        }
        spec = {
            "nodeName": node,
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "hostNetwork": True,
            "terminationGracePeriodSeconds": 5,
            "tolerations": [{"operator": "Exists"}],
            "imagePullSecrets": [dict(secret) for secret in self.pull_secrets],
            "containers": [container],
            # All of it: a directory that is not there would be made by being mounted.
            "volumes": [{"name": "host", "hostPath": {"path": "/", "type": "Directory"}}],
        }
        metadata = {
            "name": pod_name(node),
            "namespace": self.namespace,
            "labels": {LABEL: "orbweaver", COMPONENT: "uninstall"},
        }
        return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}

    def _command(self) -> list[str]:
        where = self.directories
        return [
            *("orbweaver", "uninstall", "node", "--yes", f"--root={_ROOT}"),
            f"--cni-bin-dir={where.plugins}",
            f"--cni-conf-dir={where.configurations}",
            f"--socket-dir={where.sockets}",
            *(f"--host-rule-table={table}" for table in sorted(self.tables)),
            *(["--spiderpool-stays"] if self.shared else []),
        ]


def pod_name(node: str) -> str:
    """Of the pod for a node; a node's own name may be too long for one."""
    return f"{NAME}-{hashlib.sha256(node.encode()).hexdigest()[:12]}"


def clean_nodes(
    store: Store, work: NodeWork, nodes: Collection[str], tell: Callable[[str], object], *, patience: float
) -> dict[str, str]:
    """Have each node cleaned; returns why it was not done, by node."""
    _end_old(store, work.namespace, patience)
    queue, running = sorted(nodes), set[str]()
    failed: dict[str, str] = {}
    until = time.monotonic() + patience
    while queue or running:
        while queue and len(running) < _AT_ONCE:
            node = queue.pop(0)
            store.create(work.pod(node))
            running.add(node)
        pods = {pod["metadata"]["name"]: pod for pod in _pods(store, work.namespace)}
        ended = {
            node: why
            for node in running
            if (why := _ended(pods.get(pod_name(node)), since=until)) is not None
        }
        for node, why in sorted(ended.items()):
            running.remove(node)
            until = time.monotonic() + patience
            _delete(store, pod_name(node), work.namespace)
            if why:
                failed[node] = why
            done = len(nodes) - len(queue) - len(running)
            tell(f"node {node}: {why or 'clean'} ({done} of {len(nodes)})")
            for line in () if why else _last_words(pods.get(pod_name(node)) or {}).splitlines():
                tell(f"left: node {node}: {line}")
        if not ended:
            time.sleep(_LOOK)
    return failed


def leave_word(lines: Sequence[str], path: Path = LAST_WORDS) -> None:
    """Tell whoever asks for the pod's state what stays on its node; where this is no pod, nothing."""
    if lines and path.is_file():
        with contextlib.suppress(OSError):
            path.write_bytes("\n".join(lines).encode()[:_TELLABLE])


def _last_words(pod: Object) -> str:
    return str((_state(pod).get("terminated") or {}).get("message") or "")


def _state(pod: Object) -> Object:
    statuses = (pod.get("status") or {}).get("containerStatuses") or ()
    return next((entry.get("state") or {} for entry in statuses), {})


def _ended(pod: Object | None, *, since: float) -> str | None:
    """Empty when the node is clean, else why it is not; None while that is open, which ends at `since`."""
    if pod is None:
        return "somebody deleted its pod"
    status = pod.get("status") or {}
    match status.get("phase"):
        case "Succeeded":
            return ""
        case "Failed":
            said = _last_words(pod) or status.get("message") or ""
            return f"failed: {_shortened(said) or status.get('reason') or 'its pod says nothing'}"
    if time.monotonic() < since:
        return None
    waiting = _state(pod).get("waiting") or {}
    why = ": ".join(part for part in (waiting.get("reason"), waiting.get("message")) if part)
    return (
        f"not done in time: {_shortened(why) or status.get('phase') or 'its kubelet says nothing of the pod'}"
    )


def _shortened(text: str) -> str:
    """The end of it, in one line."""
    return "; ".join(line.strip() for line in text.strip().splitlines())[-_REASON_LONGEST:]


def _pods(store: Store, namespace: str) -> list[Object]:
    pods = store.list("Pod", namespace).items
    return [pod for pod in pods if (pod["metadata"].get("labels") or {}).get(COMPONENT) == "uninstall"]


def _end_old(store: Store, namespace: str, patience: float) -> None:
    """Pods of a run that was interrupted: what they did may be undone by now."""
    until = time.monotonic() + patience
    while old := _pods(store, namespace):
        for pod in old:
            if not pod["metadata"].get("deletionTimestamp"):
                _delete(store, pod["metadata"]["name"], namespace)
        if time.monotonic() > until:
            names = ", ".join(pod["metadata"]["name"] for pod in old[:5])
            raise Conflict(
                f"pods of an earlier run do not go: {names}; delete them with --force and run this again"
            )
        time.sleep(_LOOK)


def _delete(store: Store, name: str, namespace: str) -> None:
    with contextlib.suppress(NotFound):
        store.delete("Pod", name, namespace)
