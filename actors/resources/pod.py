"""Pod: what allocation and reclaim need to know of one.

What must always hold: `alive` is false as soon as nothing will run in the pod again, so that it gets no
address and its address may be taken back. On a host without Kubernetes there is no such object: `Pod.bare`
stands for what CNI_ARGS told, and it is alive.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from actors.resources.fields import Fields
from actors.resources.json_text import UnreadableText, read_json
from actors.resources.metadata import Metadata, Owner, open_object
from actors.resources.virtualmachine import GROUP, INSTANCE

KIND = "Pod"
_TEMPLATE_HASH = "pod-template-hash"
_NATIVE = frozenset({"", "apps", "batch"})
_STATEFULSET = "StatefulSet"

NETWORK_STATUS = "k8s.v1.cni.cncf.io/network-status"
"""Annotation in which Multus tells each interface's addresses (Network Plumbing Working Group's specification)."""

MIRROR = "kubernetes.io/config.mirror"
"""Annotation of a static pod's mirror in the API: the UID that its kubelet uses (k8s.io/kubernetes, pkg/kubelet/types)."""
_UID = re.compile(r"[0-9a-zA-Z][-0-9a-zA-Z]{0,63}")

_NODE_LOST = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")


@dataclass(frozen=True, slots=True)
class Pod:
    """As much of a Pod as anybody here asks."""

    namespace: str
    """Of the object."""
    name: str
    """Of the object."""
    uid: str = ""
    """As its runtime knows it, which for a static pod is not that of the object."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """For the pools' pod affinities."""
    annotations: Mapping[str, str] = field(default_factory=dict)
    """With what it asks of us, and Multus' word on its networks."""
    node: str = ""
    """Where it is to run; empty before it is scheduled."""
    phase: str = ""
    """Of its status (`Running`, `Succeeded`, ...)."""
    reason: str = ""
    """Of its status, such as `Evicted`."""
    restart_policy: str = "Always"
    """`Always`, `OnFailure` or `Never`."""
    deleted_at: float | None = None
    """When it should be gone, in seconds since the epoch, grace included; None if it is not being deleted."""
    owner: Owner | None = None
    """Its controller."""
    version: str = ""
    """The resourceVersion that was read."""
    addresses: tuple[str, ...] = ()
    """Those in its status (`podIPs`)."""
    stays_bound: bool = False
    """It tolerates the loss of its node for ever, so that nobody starts it elsewhere and it goes on where it is."""
    is_whole: bool = True
    """It has its labels and annotations; a cache leaves out those of a pod that is too large."""

    @classmethod
    def from_object(cls, obj: Mapping[str, Any]) -> Pod:
        """Parse the API object. Raises `InvalidObject`."""
        meta, top = open_object(obj, KIND)
        spec, status = top.inner("spec"), top.inner("status")
        return cls(
            namespace=meta.namespace or "default",
            name=meta.name,
            uid=_runtime_uid(meta),
            labels=meta.labels,
            annotations=meta.annotations,
            node=spec.text("nodeName"),
            phase=status.text("phase"),
            reason=status.text("reason"),
            restart_policy=spec.text("restartPolicy", "Always"),
            deleted_at=meta.deleted_at,
            owner=meta.owner,
            version=meta.version,
            addresses=tuple(address.text("ip") for address in status.items("podIPs")),
            stays_bound=any(_for_ever(toleration) for toleration in spec.items("tolerations")),
        )

    @classmethod
    def bare(cls, namespace: str, name: str, uid: str = "") -> Pod:
        """A pod known by name only."""
        return cls(namespace=namespace, name=name, uid=uid)

    @property
    def key(self) -> str:
        """`namespace/name`, as messages and records write it."""
        return f"{self.namespace}/{self.name}"

    @property
    def alive(self) -> bool:
        return self.ended is None

    @property
    def ended(self) -> str | None:
        """Why the pod is not alive, in words; None while it is. The cases are those that Spiderpool decides
        by."""
        if self.deleted_at is not None:
            return "it is being deleted"
        if self.phase == "Succeeded" and self.restart_policy != "Always":
            return f"it has succeeded and its restartPolicy is {self.restart_policy}"
        if self.phase == "Failed" and self.reason == "Evicted":
            return "it was evicted"
        if self.phase == "Failed" and self.restart_policy == "Never":
            return "it has failed and its restartPolicy is Never"
        return None

    @property
    def finished(self) -> bool:
        """Whether its containers have ended for good: both phases are terminal."""
        return self.phase in ("Succeeded", "Failed")

    @property
    def reported(self) -> frozenset[str]:
        """The addresses that it is seen to use: those of its status, and those that Multus tells."""
        return frozenset((*self.addresses, *_told(self.annotations.get(NETWORK_STATUS, ""))))

    @property
    def statefulset(self) -> str | None:
        """The name of the StatefulSet that owns the pod; None if none does."""
        owner = self.owner
        return owner.name if owner and owner.kind == _STATEFULSET and owner.api_version == "apps/v1" else None

    @property
    def machine(self) -> str | None:
        """The name of the KubeVirt virtual machine that runs in the pod; None if none does."""
        owner = self.owner
        return owner.name if owner and owner.kind == INSTANCE and owner.group == GROUP else None

    @property
    def controller(self) -> str:
        """`Kind/name` of what the pod was made for, `Kind.group/name` if that is not Kubernetes' own; empty for a pod
        that nobody controls. A Deployment's name is that of its ReplicaSet without the hash that the pod has as label."""
        owner = self.owner
        if owner is None:
            return ""
        ending = f"-{self.labels.get(_TEMPLATE_HASH, '')}"
        if (
            owner.kind == "ReplicaSet"
            and owner.group == "apps"
            and len(ending) > 1
            and owner.name.endswith(ending)
        ):
            return f"Deployment/{owner.name.removesuffix(ending)}"
        native = owner.group in _NATIVE and (owner.kind != _STATEFULSET or self.statefulset is not None)
        kind = owner.kind if native else f"{owner.kind}.{owner.group or 'core'}"
        return f"{kind}/{owner.name}"


def _runtime_uid(meta: Metadata) -> str:
    """The UID that the pod's kubelet and runtime know it by. A static pod has that of its manifest, and its mirror in the
    API another one of its own, which the kubelet makes anew when somebody deletes it."""
    of_manifest = meta.annotations.get(MIRROR, "")
    return of_manifest if _UID.fullmatch(of_manifest) else meta.uid


def _told(status: str) -> tuple[str, ...]:
    """The addresses in Multus' annotation. Whoever may edit the pod may write there what he likes, and it is only a
    further witness: what is not as Multus writes it says nothing."""
    try:
        networks = read_json(status or "[]", only_showable=False)
    except UnreadableText:
        return ()
    ips = [
        network.get("ips")
        for network in (networks if isinstance(networks, list) else ())
        if isinstance(network, dict)
    ]
    return tuple(ip for listed in ips if isinstance(listed, list) for ip in listed if isinstance(ip, str))


def _for_ever(toleration: Fields) -> bool:
    """Whether a toleration lets the pod stay on a node that is lost, without an end (k8s.io/api/core/v1, Toleration)."""
    if toleration.text("effect") not in ("", "NoExecute") or toleration.has("tolerationSeconds"):
        return False
    return toleration.text("key") in ("", *_NODE_LOST)
