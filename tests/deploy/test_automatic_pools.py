"""A real API server lets nobody but the controller edit the addresses of a pool that follows an application."""

from __future__ import annotations

from typing import Any

import pytest

from actors.errors import InvalidObject
from tests.support.cluster import ClusterStore
from tests.support.rig import pool
from tests.tools.apiserver import ApiServer

LABELS = {
    "ipam.spidernet.io/owner-application-name": "web",
    "ipam.spidernet.io/owner-application-kind": "Deployment",
    "ipam.spidernet.io/owner-spider-subnet": "rack",
}
AFFINITY = {"matchLabels": {"ipam.spidernet.io/app-name": "web"}}


def automatic(name: str) -> dict[str, Any]:
    made = pool(name, "10.6.0.0/16", "10.6.0.1-10.6.0.3", default=False, podAffinity=AFFINITY)
    made["metadata"]["labels"] = LABELS
    return made


def test_people_edit_the_rest_and_the_controller_edits_all(
    api_server: ApiServer, store: ClusterStore, tokens: dict[str, str]
) -> None:
    found = store.create(automatic("auto4-web-eth0-1a2b3"))
    spec, metadata = found["spec"], found["metadata"]
    for key, value in (
        ("ips", ["10.6.0.1-10.6.0.9"]),
        ("ips", None),
        ("excludeIPs", ["10.6.0.1"]),
        ("podAffinity", {"matchLabels": {"app": "mine"}}),
        ("podAffinity", None),
    ):
        with pytest.raises(
            InvalidObject, match=rf"spec\.{key} of a pool that follows application web cannot be edited"
        ):
            store.update({**found, "spec": {**spec, key: value}})
    for label in LABELS:
        labels = {key: value for key, value in LABELS.items() if key != label}
        with pytest.raises(InvalidObject, match=f"the label {label} says for which application"):
            store.update({**found, "metadata": {**metadata, "labels": labels}})
        with pytest.raises(InvalidObject, match=f"the label {label} says for which application"):
            store.update({**found, "metadata": {**metadata, "labels": {**LABELS, label: "other"}}})

    found = store.update({**found, "spec": {**spec, "gateway": "10.6.0.254", "disable": True}})
    as_controller = ClusterStore(api_server.access(tokens["controller"]))
    grown = as_controller.update({**found, "spec": {**found["spec"], "ips": ["10.6.0.1-10.6.0.9"]}})
    as_controller.close()

    assert grown["spec"]["ips"] == ["10.6.0.1-10.6.0.9"]


def test_other_pools_are_edited_as_before(store: ClusterStore) -> None:
    made = pool("by-hand", "10.6.1.0/24", "10.6.1.1")
    made["metadata"]["labels"] = {"ipam.spidernet.io/owner-spider-subnet": "rack"}
    found = store.create(made)

    assert store.update({**found, "spec": {**found["spec"], "ips": ["10.6.1.1-10.6.1.2"]}})
