"""Networks made from SpiderMultusConfigs by the controller, on a real API server, with its own rights."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from actors.errors import NoSuchResource
from actors.store.kubernetes.store import KubernetesStore
from tests.actors.resources.multus_cases import macvlan, multus_config
from tests.deploy.test_agent import controller
from tests.deploy.test_overlap_webhook import await_webhook, configured, controllers, created
from tests.support.checker import eventually
from tests.support.cluster import ClusterStore
from tests.tools.apiserver import ApiServer

NETWORK, CONFIG = "NetworkAttachmentDefinition", "SpiderMultusConfig"
DEFINITION = (
    Path(__file__).resolve().parents[2] / "deploy" / "networks" / "network-attachment-definitions.yaml"
)
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


@pytest.fixture
def without_networks(api_server: ApiServer, store: ClusterStore) -> Iterator[ClusterStore]:
    """A store of a cluster that has no networks, nor the kind of them."""
    _remove_kind(api_server, store)  # tests of other files need it, and leave it
    yield store
    for obj in store.list(CONFIG).items:
        store.delete(CONFIG, obj["metadata"]["name"], "default")
    _remove_kind(api_server, store)
    store.delete("SpiderCoordinator", "default")


def _remove_kind(api_server: ApiServer, store: ClusterStore) -> None:
    definition = yaml.safe_load(DEFINITION.read_text())
    api_server.ask("DELETE", f"{CRDS}/{definition['metadata']['name']}")
    eventually(lambda: _not_served(store))


def _not_served(store: ClusterStore) -> None:
    try:
        store.list(NETWORK)
    except NoSuchResource:
        return
    raise AssertionError("networks are served still")


def condition(store: KubernetesStore, name: str) -> tuple[str, str]:
    """Status and reason."""
    (found,) = (store.get(CONFIG, name, "default").get("status") or {})["conditions"]
    return found["status"], found["reason"]


def test_networks_follow_their_objects(api_server: ApiServer, without_networks: ClusterStore) -> None:
    """They are made as soon as the cluster has the kind, all at once; what is done to one by hand is undone; a second
    object of the same name waits for the first to go."""
    store = without_networks
    with controller(store):
        store.create(multus_config(macvlan(), "blue"))
        eventually(lambda: _is(condition(store, "blue"), ("False", "NoSuchKind")))

        api_server.apply(yaml.safe_load(DEFINITION.read_text()))
        eventually(lambda: _is(condition(store, "blue"), ("True", "Made")))
        made = store.get(NETWORK, "blue", "default")
        assert json.loads(made["spec"]["config"])["plugins"][0]["master"] == "eth0"

        store.delete(NETWORK, "blue", "default")
        eventually(lambda: _is(store.get(NETWORK, "blue", "default")["spec"], made["spec"]))
        there = store.get(NETWORK, "blue", "default")
        assert there["metadata"]["uid"] != made["metadata"]["uid"]
        store.update({**there, "spec": {"config": "{}"}})
        eventually(lambda: _is(store.get(NETWORK, "blue", "default")["spec"], made["spec"]))

        store.create(multus_config(macvlan(mtu=1400), "azure", {"multus.spidernet.io/cr-name": "blue"}))
        eventually(lambda: _is(condition(store, "azure"), ("False", "NameTaken")))
        store.delete(CONFIG, "blue", "default")
        eventually(lambda: _is(condition(store, "azure"), ("True", "Made")))
        (owner,) = store.get(NETWORK, "blue", "default")["metadata"]["ownerReferences"]
        assert owner["name"] == "azure"

        names = [f"many-{number}" for number in range(200)]
        for name in names:
            store.create(multus_config(macvlan(vlanID=int(name[5:]) + 1), name))
        eventually(lambda: _all_made(store, names))
        eventually(
            lambda: _told(store, "NetworkNoSuchKind", "NetworkMade", "NetworkRepaired", "NetworkNameTaken")
        )
    store.delete(NETWORK, names[0], "default")
    with controller(store):  # the next leader
        eventually(lambda: _all_made(store, names))


def _told(store: ClusterStore, *reasons: str) -> None:
    assert {*reasons} <= {one["reason"] for one in store.list("Event", "default").items}


def _is(found: Any, wanted: Any) -> None:
    assert found == wanted


def _all_made(store: KubernetesStore, names: list[str]) -> None:
    there = {obj["metadata"]["name"] for obj in store.list(NETWORK).items}
    statuses = {obj["metadata"]["name"]: obj.get("status") or {} for obj in store.list(CONFIG).items}
    assert {*names} <= there
    assert all(statuses[name].get("networkAttachmentDefinition") == name for name in names)


def test_the_name_of_another_s_network_is_refused_by_the_webhook(
    api_server: ApiServer, without_networks: ClusterStore
) -> None:
    """By the configuration of deploy/: of an object that is there, and of a network that somebody wrote by hand."""
    store = without_networks
    api_server.apply(yaml.safe_load(DEFINITION.read_text()))
    with (
        controllers(store, "127.0.0.1") as (port, (leader,)),
        configured(api_server, "127.0.0.1", port, leader),
    ):
        await_webhook(api_server, store)
        assert created(store, multus_config(macvlan(), "blue")) == ""
        eventually(lambda: _is(condition(store, "blue"), ("True", "Made")))
        numbers = itertools.count()

        def refused(network: str, why: str) -> None:
            name = f"azure-{next(numbers)}"
            wanted = multus_config(macvlan(mtu=1400), name, {"multus.spidernet.io/cr-name": network})
            said = created(store, wanted)
            if not said:  # the machine stood still: what is not judged in time is let in
                store.delete(CONFIG, name, "default")
            assert f"SpiderMultusConfig default/{name}: {why}" in said

        def refused_by_hand() -> None:
            for obj in store.list(NETWORK, "default").items:
                if obj["metadata"]["name"] == "green":
                    store.delete(NETWORK, "green", "default")
            store.create(
                {
                    "apiVersion": "k8s.cni.cncf.io/v1",
                    "kind": NETWORK,
                    "metadata": {"name": "green", "namespace": "default"},
                    "spec": {"config": "{}"},
                }
            )
            refused("green", f"{NETWORK} default/green was made by somebody else and says something else")

        theirs = f"{NETWORK} default/blue belongs to SpiderMultusConfig default/blue; one of them needs"
        eventually(lambda: refused("blue", theirs))
        eventually(refused_by_hand)
        # Its own object may be edited.
        blue = store.get(CONFIG, "blue", "default")
        store.update({**blue, "spec": macvlan(mtu=1300)})
