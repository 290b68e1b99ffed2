"""The SpiderCoordinator's status, kept by the controller on a real API server."""

from __future__ import annotations

from typing import Any

from tests.deploy.test_agent import controller
from tests.support.checker import eventually
from tests.support.cluster import ClusterStore
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
            lambda: _is(status(store), {"phase": "Synced", "overlayPodCIDR": [], "serviceCIDR": services})
        )

        obj = store.get("SpiderCoordinator", "default")
        store.update({**obj, "spec": {**obj["spec"], "podCIDRType": "calico"}})
        eventually(lambda: _says(status(store), "is Calico installed"))

        api_server.apply(CALICO)
        eventually(lambda: _made(store))
        obj = store.get("SpiderCoordinator", "default")
        store.update({**obj, "metadata": {**obj["metadata"], "labels": {"look": "again"}}})
        eventually(
            lambda: _is(
                status(store),
                {"phase": "Synced", "overlayPodCIDR": ["10.233.64.0/18"], "serviceCIDR": services},
            )
        )
    store.delete("IPPool", "pods")
    store.delete("SpiderCoordinator", "default")


def _is(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert found == wanted


def _says(found: dict[str, Any], words: str) -> None:
    assert found.get("phase") == "NotReady"
    assert words in found["reason"]


def _made(store: ClusterStore) -> None:
    if not [one for one in store.list("IPPool").items if one["metadata"]["name"] == "pods"]:
        pool = {"apiVersion": "crd.projectcalico.org/v1", "kind": "IPPool", "metadata": {"name": "pods"}}
        store.create({**pool, "spec": {"cidr": "10.233.64.0/18"}})
