"""Which CIDRs a cluster's pods and Services have, from what its parts say of themselves.

Services: the ServiceCIDR objects (Kubernetes 1.33 and later), else kubeadm's ConfigMap, else the flags of the
kube-controller-manager's pod. Pods, as `podCIDRType` says: `cluster` from kubeadm or those flags, `calico` from its
pools that are not disabled, `cilium` from its ConfigMap or its pools, `none` not at all; `auto` is what is found to run
there: Calico, Cilium, flannel (then `cluster`), else `none`, since pods then are on the underlay.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from actors.errors import InvalidObject
from actors.resources.addresses import parse_cidr
from actors.resources.coordinator import NOT_READY, SYNCED

_SUBNETS = {"pods": r"podSubnet:\s*(\S+)", "services": r"serviceSubnet:\s*(\S+)"}
_FLAGS = {"pods": "--cluster-cidr", "services": "--service-cluster-ip-range"}


@dataclass(frozen=True, slots=True)
class ClusterCidrs:
    """What the cluster has, as objects; None for a ConfigMap or a kind of object that is not there."""

    service_cidrs: Sequence[Mapping[str, Any]] | None = None
    kubeadm: Mapping[str, Any] | None = None
    managers: Sequence[Mapping[str, Any]] = ()
    calico: Sequence[Mapping[str, Any]] | None = None
    cilium: Mapping[str, Any] | None = None
    cilium_pools: Sequence[Mapping[str, Any]] | None = None
    flannel: bool = False


@dataclass(frozen=True, slots=True)
class ClusterCIDRs:
    """`reason`: why they are not all known; then pods of the coordinator have to wait."""

    pods: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    reason: str = ""

    def status(self) -> dict[str, Any]:
        """The status of a SpiderCoordinator."""
        if self.reason:
            return {"phase": NOT_READY, "reason": self.reason, "overlayPodCIDR": [], "serviceCIDR": []}
        return {"phase": SYNCED, "overlayPodCIDR": list(self.pods), "serviceCIDR": list(self.services)}


def find_cidrs(pod_cidr_type: str, seen: ClusterCidrs) -> ClusterCIDRs:
    """The cluster's CIDRs, in a stable order."""
    services = _services(seen)
    if not services:
        return ClusterCIDRs(
            reason="the Services' CIDRs are unknown: there is no ServiceCIDR object, no serviceSubnet in the ConfigMap "
            "kube-system/kubeadm-config, and no pod labelled component=kube-controller-manager with the flag "
            "--service-cluster-ip-range; create that ConfigMap with networking.serviceSubnet"
        )
    kind = pod_cidr_type if pod_cidr_type != "auto" else _running(seen)
    pods, why = _pods(kind, seen)
    if pods is None:
        return ClusterCIDRs(reason=f"podCIDRType {pod_cidr_type}: {why}")
    return ClusterCIDRs(pods, services)


def _services(seen: ClusterCidrs) -> tuple[str, ...]:
    cidrs = _distinct(
        cidr
        for obj in _oldest_first(seen.service_cidrs or ())
        for cidr in obj.get("spec", {}).get("cidrs") or ()
    )
    return cidrs or _of_kubernetes("services", seen)


def _running(seen: ClusterCidrs) -> str:
    if any(not obj.get("spec", {}).get("disabled") for obj in seen.calico or ()):
        return "calico"
    if seen.cilium is not None:
        return "cilium"
    return "cluster" if seen.flannel else "none"


def _pods(kind: str, seen: ClusterCidrs) -> tuple[tuple[str, ...] | None, str]:
    """None with the reason when they should be known and are not."""
    if kind == "none":
        return (), ""
    if kind == "calico":
        if seen.calico is None:
            return None, "the cluster has no IPPools of crd.projectcalico.org; is Calico installed?"
        on = [obj for obj in _oldest_first(seen.calico) if not obj.get("spec", {}).get("disabled")]
        return _distinct(obj["spec"].get("cidr", "") for obj in on), ""
    if kind == "cilium":
        return _of_cilium(seen)
    cidrs = _of_kubernetes("pods", seen)
    why = (
        "neither the ConfigMap kube-system/kubeadm-config (networking.podSubnet) nor a pod labelled "
        "component=kube-controller-manager (--cluster-cidr) tells the pods' CIDRs"
    )
    return (cidrs, "") if cidrs else (None, why)


def _of_cilium(seen: ClusterCidrs) -> tuple[tuple[str, ...] | None, str]:
    if seen.cilium is None:
        return None, "there is no ConfigMap kube-system/cilium-config; is Cilium installed?"
    data = seen.cilium.get("data") or {}
    ipam = data.get("ipam", "cluster-pool")
    if ipam in ("cluster-pool", "cluster-pool-v2beta"):
        return _distinct(
            cidr for family in (4, 6) for cidr in re.split(r"[,\s]+", data.get(f"cluster-pool-ipv{family}-cidr") or "")
        ), ""  # fmt: skip
    if ipam == "multi-pool":
        return _distinct(
            cidr
            for obj in _oldest_first(seen.cilium_pools or ())
            for family in ("ipv4", "ipv6")
            for cidr in (obj.get("spec", {}).get(family) or {}).get("cidrs") or ()
        ), ""
    if ipam == "kubernetes":
        return _of_kubernetes("pods", seen), ""
    return None, f"Cilium's IPAM mode {ipam!r} is none of cluster-pool, multi-pool and kubernetes"


def _of_kubernetes(which: str, seen: ClusterCidrs) -> tuple[str, ...]:
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


def _oldest_first(objects: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    alive = [obj for obj in objects if not obj["metadata"].get("deletionTimestamp")]
    return sorted(
        alive, key=lambda obj: (obj["metadata"].get("creationTimestamp") or "", obj["metadata"]["name"])
    )


def _distinct(texts: Iterable[str]) -> tuple[str, ...]:
    """What of it are CIDRs, each once: a value that is none says nothing."""
    distinct: dict[str, None] = {}
    for text in texts:
        try:
            distinct[str(parse_cidr(text.strip()))] = None
        except InvalidObject:
            continue
    return tuple(distinct)
