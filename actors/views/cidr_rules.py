"""Which CIDRs a cluster's pods and Services have, from what its parts say of themselves.

Services: the ServiceCIDR objects (Kubernetes 1.33 and later), else kubeadm's ConfigMap, else the flags of the
kube-controller-manager's pod. Pods, as `podCIDRType` says: `cluster` from kubeadm or those flags, `calico` from its
pools that are not disabled, `cilium` from its ConfigMap or its pools, `none` not at all; `auto` is what is found to run
there, `none` if that is none of these, since pods then are on the underlay: what most nodes' CNI directories show, as their
agents tell; where no agent tells, Calico, Cilium or flannel (then `cluster`) if the cluster has its objects.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from actors.decisions.node_cni import NodeCniTypes
from actors.errors import InvalidObject
from actors.resources.addresses import parse_cidr
from actors.resources.coordinator import NOT_READY, SYNCED

_SUBNETS = {"pods": r"podSubnet:\s*(\S+)", "services": r"serviceSubnet:\s*(\S+)"}
_FLAGS = {"pods": "--cluster-cidr", "services": "--service-cluster-ip-range"}


@dataclass(frozen=True, slots=True)
class CidrSources:
    """What the cluster has, as objects; None for a ConfigMap or a kind of object that is not there."""

    service_cidrs: Sequence[Mapping[str, Any]] | None = None
    """ServiceCIDRs, of Kubernetes from 1.33 on."""
    kubeadm: Mapping[str, Any] | None = None
    """The ConfigMap in which kubeadm keeps what it was told."""
    managers: Sequence[Mapping[str, Any]] = ()
    """The pods of kube-controller-manager, whose flags tell."""
    calico: Sequence[Mapping[str, Any]] | None = None
    """Calico's IPPools."""
    cilium: Mapping[str, Any] | None = None
    """Cilium's ConfigMap."""
    cilium_pools: Sequence[Mapping[str, Any]] | None = None
    """CiliumPodIPPools."""
    flannel: bool = False
    """Whether Flannel runs here, which uses what Kubernetes has."""
    nodes: NodeCniTypes = field(default_factory=lambda: NodeCniTypes({}))
    """Which CNI each node says that it has."""


@dataclass(frozen=True, slots=True)
class ClusterCIDRs:
    """What the pods and services of the cluster have."""

    pods: tuple[str, ...] = ()
    """Their CIDRs."""
    services: tuple[str, ...] = ()
    """Likewise."""
    reason: str = ""
    """Why they are not all known; then pods of the coordinator have to wait."""
    kind: str = ""
    """Where the pods' CIDRs are from, where it was found out."""
    note: str = ""
    """What a person should look at all the same."""

    def status(self) -> dict[str, Any]:
        """The status of a SpiderCoordinator."""
        kind = {"podCIDRType": self.kind} if self.kind else {}
        note = {"note": self.note} if self.note else {}
        if self.reason:
            status = {"phase": NOT_READY, "reason": self.reason, "overlayPodCIDR": [], "serviceCIDR": []}
        else:
            status = {"phase": SYNCED, "overlayPodCIDR": list(self.pods), "serviceCIDR": list(self.services)}
        return status | kind | note


def find_cidrs(pod_cidr_type: str, seen: CidrSources) -> ClusterCIDRs:
    """The cluster's CIDRs, in a stable order."""
    services = _services(seen)
    if not services:
        return ClusterCIDRs(
            reason="the Services' CIDRs are unknown: there is no ServiceCIDR object, no serviceSubnet in the ConfigMap "
            "kube-system/kubeadm-config, and no pod labelled component=kube-controller-manager with the flag "
            "--service-cluster-ip-range; create that ConfigMap with networking.serviceSubnet"
        )
    auto = pod_cidr_type == "auto"
    kind = _running(seen) if auto else pod_cidr_type
    note = seen.nodes.difference if auto else ""
    pods, why = _pods(kind, seen)
    if pods is None:
        where = f"podCIDRType auto, {kind} by the nodes" if auto else f"podCIDRType {kind}"
        return ClusterCIDRs(reason=f"{where}: {why}", kind=kind, note=note)
    return ClusterCIDRs(pods, services, kind=kind, note=note)


def _services(seen: CidrSources) -> tuple[str, ...]:
    cidrs = _distinct(
        cidr for obj in _oldest_first(seen.service_cidrs or ()) for cidr in _spec(obj).get("cidrs") or ()
    )
    return cidrs or _of_kubernetes("services", seen)


def _running(seen: CidrSources) -> str:
    if seen.nodes.majority:
        return seen.nodes.majority
    if any(not _spec(obj).get("disabled") for obj in seen.calico or ()):
        return "calico"
    if seen.cilium is not None:
        return "cilium"
    return "cluster" if seen.flannel else "none"


def _pods(kind: str, seen: CidrSources) -> tuple[tuple[str, ...] | None, str]:
    """None with the reason when they should be known and are not."""
    if kind == "none":
        return (), ""
    if kind == "calico":
        if seen.calico is None:
            return None, "the cluster has no IPPools of crd.projectcalico.org; is Calico installed?"
        on = [obj for obj in _oldest_first(seen.calico) if not _spec(obj).get("disabled")]
        return _distinct(_spec(obj).get("cidr") for obj in on), ""
    if kind == "cilium":
        return _of_cilium(seen)
    return _of_cluster(seen)


def _of_cluster(seen: CidrSources) -> tuple[tuple[str, ...] | None, str]:
    cidrs = _of_kubernetes("pods", seen)
    why = (
        "neither the ConfigMap kube-system/kubeadm-config (networking.podSubnet) nor a pod labelled "
        "component=kube-controller-manager (--cluster-cidr) tells the pods' CIDRs"
    )
    return (cidrs, "") if cidrs else (None, why)


def _of_cilium(seen: CidrSources) -> tuple[tuple[str, ...] | None, str]:
    if seen.cilium is None:
        return None, "there is no ConfigMap kube-system/cilium-config; is Cilium installed?"
    data = seen.cilium.get("data") or {}
    ipam = data.get("ipam", "cluster-pool")
    if ipam in ("cluster-pool", "cluster-pool-v2beta"):
        cidrs = _distinct(
            cidr for family in (4, 6) for cidr in re.split(r"[,\s]+", data.get(f"cluster-pool-ipv{family}-cidr") or "")
        )  # fmt: skip
        return (
            (cidrs, "")
            if cidrs
            else (None, "the ConfigMap kube-system/cilium-config names no cluster-pool-ipv4-cidr")
        )
    if ipam == "multi-pool":
        return _distinct(
            cidr
            for obj in _oldest_first(seen.cilium_pools or ())
            for family in ("ipv4", "ipv6")
            for cidr in (_spec(obj).get(family) or {}).get("cidrs") or ()
        ), ""
    if ipam == "kubernetes":
        return _of_cluster(seen)
    return None, f"Cilium's IPAM mode {ipam!r} is none of cluster-pool, multi-pool and kubernetes"


def _of_kubernetes(which: str, seen: CidrSources) -> tuple[str, ...]:
    text = str(((seen.kubeadm or {}).get("data") or {}).get("ClusterConfiguration", ""))
    match = re.search(_SUBNETS[which], text)
    cidrs = _distinct(match[1].strip("\"'").split(",")) if match else ()
    if cidrs:
        return cidrs
    for pod in seen.managers:
        for container in pod.get("spec", {}).get("containers") or ():
            for word in (*(container.get("command") or ()), *(container.get("args") or ())):
                flag, _, value = str(word).partition("=")
                if flag == _FLAGS[which] and (cidrs := _distinct(value.split(","))):
                    return cidrs
    return ()


def _spec(obj: Mapping[str, Any]) -> Mapping[str, Any]:
    spec = obj.get("spec")
    return spec if isinstance(spec, Mapping) else {}


def _oldest_first(objects: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    alive = [obj for obj in objects if not obj["metadata"].get("deletionTimestamp")]
    return sorted(
        alive, key=lambda obj: (obj["metadata"].get("creationTimestamp") or "", obj["metadata"]["name"])
    )


def _distinct(texts: Iterable[Any]) -> tuple[str, ...]:
    """What of it are CIDRs, each once: a value that is none says nothing."""
    distinct: dict[str, None] = {}
    for text in texts:
        try:
            distinct[str(parse_cidr(str(text).strip()))] = None
        except InvalidObject:
            continue
    return tuple(distinct)
