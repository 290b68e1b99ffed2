"""Caches of a real API server's objects: what expires is listed anew, what they do not have yet is read, and of what they
hold nothing is kept that nobody reads."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from actors.errors import PodRefused
from actors.reclaim.evidence import CachedClusterState, trimmed_pod
from actors.resources.pod import Pod
from actors.store.caches.catalog import Catalog
from actors.store.caches.informer import Informer
from actors.store.contract import Object
from actors.store.kubernetes.http import ApiConnection
from actors.store.kubernetes.store import KubernetesStore
from actors.store.kubernetes.watch import KubernetesWatch
from tests.actors.store.contract_suite import fresh, pool
from tests.support.checker import equal, eventually
from tests.support.proxy import Fault, FaultProxy, How
from tests.tools.apiserver import ApiServer

LARGE = "x" * 100_000


def pod(name: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": "default",
            "labels": {"app": "web"},
            "annotations": {"large": LARGE},
        },
        "spec": {
            "nodeName": "worker-1",
            "containers": [{"name": "c", "image": "none", "env": [{"name": "A", "value": LARGE}]}],
            "tolerations": [
                {"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}
            ],
        },
    }


class Behind(KubernetesStore):
    """Its first watch begins at the cluster's first version, which the API server has forgotten. Before that one object is
    made and one deleted, of which no later watch tells."""

    def __init__(self, server: ApiServer, made: str, deleted: str) -> None:
        super().__init__(server.access())
        self.made, self.deleted = made, deleted
        self.since: list[str] = []

    def watch(self, kind: str, since: str) -> KubernetesWatch:
        self.since.append(since)
        if len(self.since) > 1:
            return super().watch(kind, since)
        self.create(pool(self.made))
        self.delete(kind, self.deleted)
        return super().watch(kind, "1")


def test_a_version_that_the_api_server_has_forgotten_leads_to_a_list(
    api_server: ApiServer, caplog: pytest.LogCaptureFixture
) -> None:
    """By the API server's own 410."""
    made, deleted = fresh("made"), fresh("deleted")
    store = Behind(api_server, made, deleted)
    store.create(pool(deleted))
    informer = Informer(store, "SpiderIPPool", transform=lambda obj: obj["metadata"]["name"])
    told: list[str] = []
    informer.subscribe(lambda key: told.append(key.name))
    informer.start()
    try:
        eventually(lambda: equal((made in informer.items(), deleted in informer.items()), (True, False)))
        assert {made, deleted} <= set(told)
        assert "too old resource version" in caplog.text
        store.delete("SpiderIPPool", made)  # and it goes on by watching
        eventually(lambda: equal(made in informer.items(), False))
        assert len(store.since) >= 2
    finally:
        informer.stop()
        store.close()


@pytest.fixture
def proxy(api_server: ApiServer) -> Iterator[FaultProxy]:
    opened = FaultProxy(api_server)
    yield opened
    opened.close()


def test_a_pod_that_no_watch_has_told_of_is_read(proxy: FaultProxy) -> None:
    proxy.plan = lambda request: Fault(How.HANG) if request.is_watch and "/pods?" in request.path else None
    store = KubernetesStore(proxy.access())
    catalog = Catalog(store, has_pods=True)
    catalog.start()
    try:
        assert catalog.wait_synced(60)
        name = fresh("web")
        uid = store.create(pod(name))["metadata"]["uid"]

        found = catalog.pod("default", name, uid)

        assert (found.uid, found.node, found.labels) == (uid, "worker-1", {"app": "web"})
        assert catalog.informer("Pod").get(name, "default") is None
        with pytest.raises(PodRefused, match="does not exist"):
            catalog.pod("default", fresh("nobody"), "u")
    finally:
        proxy.cut_idle()
        catalog.stop()
        store.close()


def test_of_a_clusters_pods_only_what_a_verdict_needs_is_held(api_server: ApiServer) -> None:
    """Of those that were listed, and of those that came later."""
    store = KubernetesStore(api_server.access(), trim={"Pod": trimmed_pod})
    listed, watched = fresh("listed"), fresh("watched")
    store.create(pod(listed))
    (item,) = [one for one in store.list("Pod").items if one["metadata"]["name"] == listed]
    assert item["metadata"].keys() <= {"name", "namespace", "uid", "resourceVersion", "deletionTimestamp"}
    assert item["spec"] == {"nodeName": "worker-1"}
    assert item["status"].keys() <= {"phase", "reason", "podIPs"}

    cluster_state = CachedClusterState(store, Catalog(store, has_pods=False))
    cluster_state.start(lambda _: None)
    try:
        assert cluster_state.wait_synced(60)
        store.create(pod(watched))
        for name in (listed, watched):
            eventually(lambda name=name: _holds_little(cluster_state, name))  # type: ignore[misc]
    finally:
        cluster_state.stop()
        store.close()


def _holds_little(cluster_state: CachedClusterState, name: str) -> None:
    found = cluster_state.pod(f"default/{name}")
    assert isinstance(found, Pod)
    assert found.node == "worker-1"
    assert (dict(found.labels), dict(found.annotations)) == ({}, {})
    assert len(repr(found)) < 1000


def test_a_connection_does_not_gather_what_it_sends(api_server: ApiServer) -> None:
    connection = ApiConnection(api_server.access(), time.monotonic() + 60)
    try:
        found = connection._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    finally:
        connection.close()

    assert found == 1
