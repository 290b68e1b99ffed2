"""Whose pods these are, on a real API server: owners' chains, kinds of others, and rights that are missing."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from actors.errors import NoSuchResource
from actors.resources.application import Application
from actors.resources.metadata import Owner
from actors.resources.workload import SUBNET, Workload
from actors.store.sqlite.store import SQLiteStore
from actors.subnets.applications import Applications, Identity
from tests.support.checker import eventually
from tests.support.cluster import ClusterStore
from tests.support.other_kinds import API_VERSION, FLEET, GROUP, HARBOUR
from tests.tools.apiserver import ApiServer

TEMPLATE = {
    "metadata": {"labels": {"app": "x"}, "annotations": {SUBNET: '{"ipv4":["floor"]}'}},
    "spec": {"restartPolicy": "Always", "containers": [{"name": "c", "image": "none"}]},
}
ONCE = {**TEMPLATE, "spec": {**TEMPLATE["spec"], "restartPolicy": "Never"}}  # type: ignore[dict-item]
SELECTOR = {"matchLabels": {"app": "x"}}


class Shop:
    """A namespace of its own, in which objects are made as the controllers of Kubernetes would."""

    def __init__(self, server: ApiServer) -> None:
        self.server = server
        self.namespace = f"shop-{uuid.uuid4().hex[:8]}"
        server.call("POST", "/api/v1/namespaces", {"metadata": {"name": self.namespace}})

    def make(
        self, path: str, kind: str, name: str, spec: dict[str, Any], owner: Owner | None = None
    ) -> Owner:
        metadata: dict[str, Any] = {"name": name}
        if owner is not None:
            metadata["ownerReferences"] = [
                {
                    "apiVersion": owner.api_version,
                    "kind": owner.kind,
                    "name": owner.name,
                    "uid": owner.uid,
                    "controller": True,
                }
            ]
        api_version, _, plural = path.rpartition("/")
        body = {"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": spec}
        made = self.server.call("POST", f"/apis/{api_version}/namespaces/{self.namespace}/{plural}", body)
        return Owner(api_version, kind, name, made["metadata"]["uid"])

    def deployment(self, name: str, replicas: int = 2) -> Owner:
        spec = {"replicas": replicas, "selector": SELECTOR, "template": TEMPLATE}
        return self.make("apps/v1/deployments", "Deployment", name, spec)

    def replicaset(self, name: str, owner: Owner | None = None) -> Owner:
        spec = {"replicas": 3, "selector": SELECTOR, "template": TEMPLATE}
        return self.make("apps/v1/replicasets", "ReplicaSet", name, spec, owner)

    def job(self, name: str, owner: Owner | None = None) -> Owner:
        return self.make("batch/v1/jobs", "Job", name, {"completions": 4, "template": ONCE}, owner)

    def cronjob(self, name: str) -> Owner:
        spec = {"schedule": "0 0 1 1 *", "jobTemplate": {"spec": {"parallelism": 5, "template": ONCE}}}
        return self.make("batch/v1/cronjobs", "CronJob", name, spec)

    def fleet(self, name: str, ships: int, owner: Owner | None = None, **spec: Any) -> Owner:
        return self.make(
            f"{API_VERSION}/fleets", "Fleet", name, {"ships": ships, "template": TEMPLATE, **spec}, owner
        )

    def harbour(self, name: str, owner: Owner | None = None) -> Owner:
        return self.make(f"{API_VERSION}/harbours", "Harbour", name, {}, owner)

    def patch(self, path: str, body: dict[str, Any]) -> None:
        api_version, plural, name = path.rsplit("/", 2)
        self.server.call("PATCH", f"/apis/{api_version}/namespaces/{self.namespace}/{plural}/{name}", body)


@pytest.fixture(scope="module")
def shop(api_server: ApiServer) -> Iterator[Shop]:
    api_server.apply(FLEET, HARBOUR)
    yield Shop(api_server)
    for definition in (FLEET, HARBOUR):
        path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
        assert api_server.ask("DELETE", f"{path}/{definition['metadata']['name']}")[0] == 200


@pytest.fixture(scope="module")
def told() -> list[Identity]:
    return []


@pytest.fixture(scope="module")
def applications(api_server: ApiServer, told: list[Identity]) -> Iterator[Applications]:
    store = ClusterStore(api_server.access())
    found = Applications(store, told.append, proven=True)
    found.start()
    assert found.wait_listed(60)
    yield found
    found.stop()
    store.close()


def tops(applications: Applications, shop: Shop, owner: Owner) -> Workload:
    """The top controller as it is read, which is also the one of the cache as soon as that has heard of it."""
    read = applications.read_top(shop.namespace, owner)
    assert read is not None

    def cached() -> None:
        found = applications.cached_top(shop.namespace, owner)
        assert found is not None
        assert found.application == read.application

    eventually(cached)
    return read


def test_the_top_controller_of_each_chain_is_the_one_whose_number_somebody_sets(
    applications: Applications, shop: Shop
) -> None:
    deployment, cronjob, fleet, harbour = (
        shop.deployment("web"),
        shop.cronjob("nightly"),
        shop.fleet("armada", 6),
        shop.harbour("bay"),
    )
    chains = {
        "Deployment": (shop.replicaset("web-1", deployment), deployment, 2),
        "ReplicaSet alone": (alone := shop.replicaset("alone"), alone, 3),
        "CronJob": (shop.job("nightly-1", cronjob), cronjob, 5),
        "Job alone": (once := shop.job("once"), once, 4),
        "another kind's ReplicaSet": (shop.replicaset("armada-1", fleet), fleet, 6),
        "another kind itself": (fleet, fleet, 6),
        "a kind without scale above a ReplicaSet": (left := shop.replicaset("bay-1", harbour), left, 3),
        "a kind without scale below one that has it": (shop.harbour("cove", fleet), fleet, 6),
    }

    found = {name: tops(applications, shop, owner) for name, (owner, _, _) in chains.items()}

    assert {
        name: (one.application.kind, one.application.name, one.replicas) for name, one in found.items()
    } == {name: (top.kind, top.name, replicas) for name, (_, top, replicas) in chains.items()}
    assert all(one.asks and one.counted for one in found.values())
    gathered = {one[3] for one in applications.asking() if one[2] == shop.namespace}
    assert {"web", "alone", "nightly", "once", "armada"} <= gathered
    assert not {"web-1", "nightly-1", "armada-1"} & gathered


def test_a_kind_without_a_scale_is_not_counted(applications: Applications, shop: Shop) -> None:
    found = applications.read_top(shop.namespace, shop.harbour("lonely"))

    assert found is not None
    assert not found.counted


def test_a_scale_without_a_number_counts_nothing_until_it_has_one(
    applications: Applications, shop: Shop
) -> None:
    """Argo Rollouts, for one, may leave their replicas out; for the API server that is an error."""
    spec = {"template": TEMPLATE}
    owner = shop.make(f"{API_VERSION}/fleets", "Fleet", "unnumbered", spec)
    found = tops(applications, shop, owner)
    assert not found.counted
    assert found.asks

    shop.patch(f"{API_VERSION}/fleets/unnumbered", {"spec": {"ships": 3}})

    counted = applications.read_top(shop.namespace, owner)
    assert counted is not None
    assert (counted.counted, counted.replicas) == (True, 3)


@pytest.mark.parametrize(
    ("api_version", "kind"), [("v1", "ConfigMap"), ("v1", "Pod"), (API_VERSION, "Harbour")]
)
def test_a_pod_has_no_kind_watched_that_has_no_number_of_pods(
    applications: Applications, shop: Shop, api_version: str, kind: str
) -> None:
    """Whoever makes a pod names its owner as he likes: the leader would keep all of the cluster's Pods, for ever."""
    applications.read_top(shop.namespace, Owner(api_version, kind, "none", "u"))

    group = api_version.rpartition("/")[0]
    assert not applications.is_watched((group, kind, shop.namespace, "none"))


def test_an_owner_that_is_not_there_or_is_another_is_none(applications: Applications, shop: Shop) -> None:
    owner = shop.deployment("real")
    eventually(lambda: _is(applications.cached_top(shop.namespace, owner) is not None))

    for forged in (
        Owner("apps/v1", "Deployment", "real", "another-uid"),
        Owner("apps/v1", "Deployment", "unreal", owner.uid),
        Owner("nobody.example/v1", "Thing", "real", owner.uid),
        Owner(API_VERSION, "Deployment", "real", owner.uid),
        Owner("apps/v1", "StatefulSet", "NOT A NAME", owner.uid),
    ):
        assert applications.cached_top(shop.namespace, forged) is None
        assert applications.read_top(shop.namespace, forged) is None
    assert applications.read_top("kube-system", owner) is None


def test_what_changes_is_told(applications: Applications, shop: Shop, told: list[Identity]) -> None:
    identities = [("apps", "Deployment", shop.namespace, "grows"), (GROUP, "Fleet", shop.namespace, "sails")]
    for owner in (shop.deployment("grows", 1), shop.fleet("sails", 1)):
        tops(applications, shop, owner)
    eventually(lambda: _is(set(identities) <= set(told)))
    told.clear()

    shop.patch("apps/v1/deployments/grows", {"spec": {"replicas": 9}})
    shop.patch(f"{API_VERSION}/fleets/sails", {"spec": {"ships": 7}})

    eventually(lambda: _is(set(identities) <= set(told)))
    # What was told may have been of an earlier moment.
    eventually(lambda: _is((now := applications.cached(identities[0])) is not None and now.replicas == 9))
    eventually(lambda: _is(applications.cached(identities[1]) is None))  # how many it wants has to be read
    grown = applications.cached(identities[0])
    assert grown is not None
    read = applications.read(Application(GROUP, "v1", "Fleet", shop.namespace, "sails"))
    assert read is not None
    assert read.replicas == 7
    eventually(lambda: _is((again := applications.cached(identities[1])) is not None and again.replicas == 7))

    told.clear()
    shop.server.call("DELETE", f"/apis/apps/v1/namespaces/{shop.namespace}/deployments/grows")
    shop.server.call("DELETE", f"/apis/{API_VERSION}/namespaces/{shop.namespace}/fleets/sails")
    eventually(lambda: _is(set(identities) <= set(told)))
    for identity, gone in zip(identities, (grown, read), strict=True):
        eventually(lambda identity=identity: _is(applications.cached(identity) is None))  # type: ignore[misc]
        assert applications.read(gone.application) is None


def test_what_cannot_be_known_is_not_gone(applications: Applications, shop: Shop) -> None:
    with pytest.raises(NoSuchResource):
        applications.read(Application("nobody.example", "v1", "Thing", shop.namespace, "x"))


def test_the_right_to_read_scales_alone_is_enough_to_count(shop: Shop) -> None:
    owner = shop.fleet("foreign", 8)
    token = shop.server.service_account(
        f"scales-{shop.namespace}", {"apiGroups": ["*"], "resources": ["*/scale"], "verbs": ["get"]}
    )
    store = ClusterStore(shop.server.access(token))
    try:
        found = Applications(store, lambda _: None, proven=True).read_top(shop.namespace, owner)
    finally:
        store.close()

    assert found is not None
    assert (found.application.uid, found.replicas, found.asks) == (owner.uid, 8, False)


def test_without_kubernetes_names_are_believed(tmp_path: Any) -> None:
    store = SQLiteStore(tmp_path / "orbweaver.db")
    told: list[Identity] = []
    applications = Applications(store, told.append, proven=False)
    try:
        applications.start()
        assert applications.wait_listed(60)
        store.create(
            {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {"name": "web", "namespace": "default"},
                "spec": {"replicas": 3, "template": TEMPLATE},
            }
        )
        owner = Owner("apps/v1", "Deployment", "web", "whatever")
        eventually(lambda: _is(applications.cached_top("default", owner) is not None))
        found = applications.read_top("default", owner)
        assert found is not None
        assert found.replicas == 3
    finally:
        applications.stop()
        store.close()


def _is(so: bool) -> None:
    assert so
