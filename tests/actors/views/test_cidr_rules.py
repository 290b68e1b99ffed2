"""Which CIDRs a cluster has, out of objects as clusters have them."""

from __future__ import annotations

from typing import Any

import pytest

from actors.decisions.node_cni import NodeCniTypes
from actors.reclaim.evidence import trimmed_pod
from actors.views.cidr_rules import CidrSources, find_cidrs


def named(name: str, spec: dict[str, Any], made: str = "2026-01-01T00:00:00Z") -> dict[str, Any]:
    return {"metadata": {"name": name, "creationTimestamp": made}, "spec": spec}


def config(**data: str) -> dict[str, Any]:
    return {"metadata": {"name": "config"}, "data": data}


KUBEADM = config(
    ClusterConfiguration="networking:\n  dnsDomain: cluster.local\n  podSubnet: 10.244.0.0/16,fd00:244::/56\n"
    "  serviceSubnet: 10.96.0.0/12\n"
)
MANAGER = named(
    "kube-controller-manager-n1",
    {
        "containers": [
            {
                "command": ["kube-controller-manager", "--cluster-cidr=10.245.0.0/16"],
                "args": ["--service-cluster-ip-range=10.97.0.0/16,fd00:97::/112"],
            }
        ]
    },
)
SERVICES = (
    named("late", {"cidrs": ["10.100.0.0/16"]}, "2026-02-01T00:00:00Z"),
    named("kubernetes", {"cidrs": ["10.96.0.0/16"]}),
)
CALICO = (
    named("v6", {"cidr": "fd00:64::/64"}, "2026-01-02T00:00:00Z"),
    named("v4", {"cidr": "10.233.64.0/18"}),
    named("off", {"cidr": "10.1.0.0/16", "disabled": True}),
)


def told(**kinds: int) -> NodeCniTypes:
    return NodeCniTypes(
        {kind: [f"{kind}-{number}" for number in range(count)] for kind, count in kinds.items()}
    )


@pytest.mark.parametrize(
    "seen, services",
    [
        (CidrSources(service_cidrs=SERVICES, kubeadm=KUBEADM), ("10.96.0.0/16", "10.100.0.0/16")),
        (CidrSources(service_cidrs=(), kubeadm=KUBEADM, managers=[MANAGER]), ("10.96.0.0/12",)),
        (CidrSources(managers=[MANAGER]), ("10.97.0.0/16", "fd00:97::/112")),
    ],
)
def test_services_are_learnt_from_the_first_that_tells(seen: CidrSources, services: tuple[str, ...]) -> None:
    assert find_cidrs("none", seen).services == services


@pytest.mark.parametrize(
    "kind, seen, pods",
    [
        ("none", CidrSources(kubeadm=KUBEADM), ()),
        ("cluster", CidrSources(kubeadm=KUBEADM), ("10.244.0.0/16", "fd00:244::/56")),
        ("cluster", CidrSources(managers=[MANAGER]), ("10.245.0.0/16",)),
        ("calico", CidrSources(kubeadm=KUBEADM, calico=CALICO), ("10.233.64.0/18", "fd00:64::/64")),
        ("cilium", CidrSources(kubeadm=KUBEADM, cilium=config(**{
            "ipam": "cluster-pool", "cluster-pool-ipv4-cidr": "10.0.0.0/8", "cluster-pool-ipv6-cidr": "fd00::/104",
        })), ("10.0.0.0/8", "fd00::/104")),
        ("cilium", CidrSources(kubeadm=KUBEADM, cilium=config(ipam="kubernetes")), ("10.244.0.0/16", "fd00:244::/56")),
        ("cilium", CidrSources(kubeadm=KUBEADM, cilium=config(ipam="multi-pool"), cilium_pools=[
            named("default", {"ipv4": {"cidrs": ["10.10.0.0/16"]}, "ipv6": {"cidrs": ["fd00:10::/104"]}}),
        ]), ("10.10.0.0/16", "fd00:10::/104")),
        ("auto", CidrSources(kubeadm=KUBEADM, calico=CALICO), ("10.233.64.0/18", "fd00:64::/64")),
        ("auto", CidrSources(kubeadm=KUBEADM, calico=CALICO[2:]), ()),
        ("auto", CidrSources(kubeadm=KUBEADM, flannel=True), ("10.244.0.0/16", "fd00:244::/56")),
        ("auto", CidrSources(kubeadm=KUBEADM), ()),
        ("auto", CidrSources(kubeadm=KUBEADM, calico=CALICO, nodes=told(none=3)), ()),
        ("auto", CidrSources(kubeadm=KUBEADM, calico=CALICO, nodes=told(calico=2, none=1)),
         ("10.233.64.0/18", "fd00:64::/64")),
        ("auto", CidrSources(kubeadm=KUBEADM, calico=CALICO, nodes=told(cluster=2)), ("10.244.0.0/16", "fd00:244::/56")),
    ],
)  # fmt: skip
def test_pods_are_learnt_as_the_type_says(kind: str, seen: CidrSources, pods: tuple[str, ...]) -> None:
    found = find_cidrs(kind, seen)

    assert (found.pods, found.reason) == (pods, "")
    assert found.status()["phase"] == "Synced"


@pytest.mark.parametrize(
    "kind, seen, words",
    [
        ("auto", CidrSources(), "serviceSubnet"),
        ("auto", CidrSources(kubeadm=config(ClusterConfiguration="networking: nonsense")), "serviceSubnet"),
        ("calico", CidrSources(kubeadm=KUBEADM), "is Calico installed"),
        ("cilium", CidrSources(kubeadm=KUBEADM), "is Cilium installed"),
        ("cilium", CidrSources(kubeadm=KUBEADM, cilium=config(ipam="eni")), "'eni'"),
        ("cluster", CidrSources(service_cidrs=SERVICES), "podSubnet"),
        ("cilium", CidrSources(service_cidrs=SERVICES, cilium=config(ipam="kubernetes")), "podSubnet"),
        (
            "cilium",
            CidrSources(service_cidrs=SERVICES, cilium=config(ipam="cluster-pool")),
            "cluster-pool-ipv4-cidr",
        ),
        (
            "auto",
            CidrSources(kubeadm=KUBEADM, nodes=told(calico=1)),
            "auto, calico by the nodes: the cluster has no IPPools",
        ),
    ],
)
def test_what_is_missing_is_said(kind: str, seen: CidrSources, words: str) -> None:
    found = find_cidrs(kind, seen)

    assert words in found.reason
    status = found.status()
    assert status.pop("podCIDRType", "") == found.kind
    assert status == {
        "phase": "NotReady", "reason": found.reason, "overlayPodCIDR": [], "serviceCIDR": []
    }  # fmt: skip


def test_nodes_that_differ_are_told_and_the_majority_counts() -> None:
    seen = CidrSources(kubeadm=KUBEADM, calico=CALICO, nodes=told(calico=2, cilium=1))

    assert find_cidrs("auto", seen).status() == {
        "phase": "Synced", "podCIDRType": "calico", "serviceCIDR": ["10.96.0.0/12"],
        "overlayPodCIDR": ["10.233.64.0/18", "fd00:64::/64"],
        "note": "the nodes' CNI directories differ: calico on 2 nodes, cilium on cilium-0",
    }  # fmt: skip
    assert "note" not in find_cidrs("none", seen).status(), "then nobody asks the nodes"


@pytest.mark.parametrize("spec", [None, {}, {"cidrs": [7]}, {"cidr": 7}, []])
def test_an_object_that_says_nothing_is_passed_over(spec: Any) -> None:
    odd = {"metadata": {"name": "odd"}, "spec": spec}
    seen = CidrSources(kubeadm=KUBEADM, service_cidrs=[odd], calico=[odd, *CALICO])

    assert find_cidrs("calico", seen).pods == ("10.233.64.0/18", "fd00:64::/64")
    assert find_cidrs("calico", seen).services == ("10.96.0.0/12",)


def test_a_list_that_is_cut_down_to_what_verdicts_need_still_tells_the_cidrs() -> None:
    """As the controller lists pods; that of somebody else's pod stays as small as it was."""
    metadata = {
        **MANAGER["metadata"],
        "namespace": "kube-system",
        "labels": {"component": "kube-controller-manager"},
    }
    kept = trimmed_pod({**MANAGER, "metadata": metadata})
    assert kept["metadata"]["labels"]["component"] == "kube-controller-manager"
    assert find_cidrs("cluster", CidrSources(managers=[kept])).pods == ("10.245.0.0/16",)

    elsewhere = trimmed_pod({**MANAGER, "metadata": {**metadata, "namespace": "shop"}})
    assert "labels" not in elsewhere["metadata"]
    assert "containers" not in elsewhere["spec"]
