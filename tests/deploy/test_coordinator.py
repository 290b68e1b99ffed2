"""The SpiderCoordinator's status, kept by the controller on a real API server."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.actors.decisions.test_node_cni import FLANNEL, UNDERLAY
from tests.deploy.test_agent import controller
from tests.support.agent_process import AgentProcess
from tests.support.checker import eventually
from tests.support.cluster import ClusterStore
from tests.support.leaders import controllers, wait_linked
from tests.tools.apiserver import ApiServer

CALICO = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "ippools.crd.projectcalico.org"},
    "spec": {
        "group": "crd.projectcalico.org",
        "names": {"kind": "IPPool", "plural": "ippools", "singular": "ippool", "listKind": "IPPoolList"},
        "scope": "Cluster",
        "versions": [{
            "name": "v1", "served": True, "storage": True,
            "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
        }],
    },
}  # fmt: skip


def status(store: ClusterStore) -> dict[str, Any]:
    found: dict[str, Any] = store.get("SpiderCoordinator", "default").get("status") or {}
    return found


def test_the_controller_learns_the_clusters_cidrs(api_server: ApiServer, store: ClusterStore) -> None:
    """The object is made when there is none; its status follows the object's podCIDRType and what the cluster has."""
    services = [cidr for one in store.list("ServiceCIDR").items for cidr in one["spec"]["cidrs"]]
    assert services
    with controller(store):
        eventually(
            lambda: _is(
                status(store),
                {"phase": "Synced", "podCIDRType": "none", "overlayPodCIDR": [], "serviceCIDR": services},
            )
        )

        def follow_calico() -> None:
            obj = store.get("SpiderCoordinator", "default")
            store.update({**obj, "spec": {**obj["spec"], "podCIDRType": "calico"}})

        def look_again() -> None:
            obj = store.get("SpiderCoordinator", "default")
            store.update({**obj, "metadata": {**obj["metadata"], "labels": {"look": "again"}}})

        eventually(follow_calico)  # the controller writes its status meanwhile
        eventually(lambda: _says(status(store), "is Calico installed"))

        api_server.apply(CALICO)
        eventually(lambda: _made(store))
        eventually(look_again)
        eventually(
            lambda: _is(
                status(store),
                {
                    "phase": "Synced",
                    "podCIDRType": "calico",
                    "overlayPodCIDR": ["10.233.64.0/18"],
                    "serviceCIDR": services,
                },
            )
        )
        more = {"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": "more"}}
        store.create({**more, "spec": {"cidrs": ["10.111.0.0/16"]}})
        eventually(lambda: _is(status(store).get("serviceCIDR"), [*services, "10.111.0.0/16"]))
        eventually(lambda: _told(store, "ClusterNotReady", "PodCIDRTypeChanged"))
    metadata = store.get("ServiceCIDR", "more")["metadata"]
    store.delete("ServiceCIDR", "more")
    if metadata.get("finalizers"):  # nobody else is there to take them away
        there = store.get("ServiceCIDR", "more")
        store.update({**there, "metadata": {**there["metadata"], "finalizers": []}})
    store.delete("IPPool", "pods")
    store.delete("SpiderCoordinator", "default")


def test_the_nodes_agents_tell_which_network_they_have(
    api_server: ApiServer, store: ClusterStore, tmp_path: Path
) -> None:
    """The majority counts, and who differs is named; the directory of the controller's own node does not matter."""
    with ExitStack() as stack:
        (leader,) = stack.enter_context(controllers(tmp_path, api_server.kubeconfig, count=1))
        for number, file in enumerate((FLANNEL, FLANNEL, UNDERLAY)):
            directory = tmp_path / f"node{number}"
            directory.mkdir()
            (directory / file[0]).write_text(file[1])
            options = ("--cni-conf-dir", str(directory))
            made = AgentProcess(
                tmp_path / f"agent-{number}", *options, kubeconfig=api_server.kubeconfig, node=f"node{number}"
            )
            wait_linked(stack.enter_context(made), leader)
        eventually(lambda: _tells_the_nodes(status(store)))
        eventually(lambda: _told(store, "NodesDiffer"))
    store.delete("SpiderCoordinator", "default")


def _told(store: ClusterStore, *reasons: str) -> None:
    assert {*reasons} <= {one["reason"] for one in store.list("Event").items}


def _tells_the_nodes(found: dict[str, Any]) -> None:
    assert found["podCIDRType"] == "cluster"
    assert "podCIDRType auto, cluster by the nodes: neither the ConfigMap" in found["reason"]
    assert found["note"] == "the nodes' CNI directories differ: cluster on 2 nodes, none on node2"


def _is(found: Any, wanted: Any) -> None:
    assert found == wanted


def _says(found: dict[str, Any], words: str) -> None:
    assert found.get("phase") == "NotReady"
    assert words in found["reason"]


def _made(store: ClusterStore) -> None:
    if not [one for one in store.list("IPPool").items if one["metadata"]["name"] == "pods"]:
        pool = {"apiVersion": "crd.projectcalico.org/v1", "kind": "IPPool", "metadata": {"name": "pods"}}
        store.create({**pool, "spec": {"cidr": "10.233.64.0/18"}})
