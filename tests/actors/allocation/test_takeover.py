"""Switching from another IPAM: what it recorded in a pool's status stays given, and later releases stay released."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from actors.errors import NoAddress
from actors.resources.ippool import IPPool
from actors.resources.pool_status import DIGEST, digest_of, foreign_allocations
from actors.store.contract import Store
from actors.store.sqlite.store import SQLiteStore
from tests.support.blocks import recorded
from tests.support.checker import eventually
from tests.support.rig import pod, rig, sandbox

POOL = {
    "apiVersion": "spiderpool.spidernet.io/v2beta1",
    "kind": "SpiderIPPool",
    "metadata": {"name": "blue", "finalizers": ["spiderpool.spidernet.io"]},
    "spec": {"subnet": "10.6.0.0/16", "ips": ["10.6.1.10-10.6.1.13"], "gateway": "10.6.0.1", "default": True},
}
GIVEN = {
    "10.6.1.10": {"pod": "shop/web-5d", "podUid": "u-web"},
    "10.6.1.11": {"pod": "shop/db-0", "podUid": "u-db"},
}
ENDPOINT: dict[str, Any] = {
    "apiVersion": "spiderpool.spidernet.io/v2beta1",
    "kind": "SpiderEndpoint",
    "metadata": {"name": "db-0", "namespace": "shop", "finalizers": ["spiderpool.spidernet.io"]},
    "status": {
        "current": {
            "uid": "u-db",
            "node": "n7",
            "ips": [{"interface": "eth0", "ipv4": "10.6.1.11/16", "ipv4Pool": "blue"}],
        },
        "ownerControllerType": "StatefulSet",
        "ownerControllerName": "db",
    },
}


def left_behind(directory: Path, allocated: str, endpoint: dict[str, Any] = ENDPOINT) -> None:
    """A store as another IPAM leaves it."""
    store = SQLiteStore(directory / "orbweaver.db")
    made = store.create(POOL)
    store.update_status(
        {**made, "status": {"allocatedIPs": allocated, "allocatedIPCount": 2, "totalIPCount": 4}}
    )
    store.create(endpoint)
    store.close()


def records(store: Store) -> dict[str, dict[str, Any]]:
    return recorded(store.list("SpiderIPBlock").items)


def test_what_was_given_stays_given(tmp_path: Path):
    """New pods get the other addresses, from the first start on, whether or not a pod has asked before."""
    left_behind(tmp_path, json.dumps(GIVEN))
    with rig(tmp_path) as one:
        assert one.add(sandbox("c1")) == ["10.6.1.12"]
        assert one.add(sandbox("c2")) == ["10.6.1.13"]

        found = records(one.inner)
        assert found["10.6.1.10"] == {
            "pool": "blue",
            "pod": "shop/web-5d",
            "uid": "u-web",
            "since": found["10.6.1.10"]["since"],
        }
        assert {key: found["10.6.1.11"][key] for key in ("interface", "node", "owner")} == {
            "interface": "eth0",
            "node": "n7",
            "owner": "StatefulSet/db",
        }


def test_the_views_of_a_start_do_not_take_its_place(tmp_path: Path):
    """Nobody asks for an address; the status is rewritten nevertheless, with everything in it."""
    left_behind(tmp_path, json.dumps(GIVEN))
    with rig(tmp_path) as one:

        def rewritten() -> None:
            status = one.inner.get("SpiderIPPool", "blue")["status"]
            assert set(json.loads(status["allocatedIPs"])) == set(GIVEN)
            assert status.get(DIGEST) == digest_of(status["allocatedIPs"])

        eventually(rewritten)
        assert set(records(one.inner)) == set(GIVEN)


def test_a_pod_taken_over_is_released_by_its_uid(tmp_path: Path):
    """Its DEL names a container that no record knows; the UID stands for it."""
    left_behind(tmp_path, json.dumps(GIVEN))
    with rig(tmp_path) as one:
        one.add(sandbox("c1"))
        other = sandbox("c9", pod="web-5d", uid="u-other", namespace="shop")
        assert one.delete(other) == 0
        assert one.delete(sandbox("c9", pod="web-5d", uid="u-web", namespace="shop")) == 1
        assert "10.6.1.10" not in records(one.inner)


def test_the_end_of_a_start_that_failed_leaves_a_pod_that_runs_what_it_has(tmp_path: Path):
    """A kubelet clears sandboxes away long after a later one of the same pod has come, which the record taken over is of."""
    store = SQLiteStore(tmp_path / "orbweaver.db")
    uid = store.create(pod("db-0", namespace="shop"))["metadata"]["uid"]
    store.create(pod("c1"))
    store.close()
    current = {**ENDPOINT["status"]["current"], "uid": uid}
    endpoint = {**ENDPOINT, "status": {"current": current}}
    left_behind(tmp_path, json.dumps({"10.6.1.11": {"pod": "shop/db-0", "podUid": uid}}), endpoint)
    with rig(tmp_path, has_pods=True) as one:

        def ends(container: str) -> int:
            return one.delete(sandbox(container, pod="db-0", uid=uid, namespace="shop"))

        one.add(sandbox("c1"))  # the pool is taken over with it
        assert ends("c0") == 0
        assert records(one.inner)["10.6.1.11"]["uid"] == uid

        assert one.add(sandbox("c2", pod="db-0", uid=uid, namespace="shop")) == ["10.6.1.11"]
        assert ends("c0") == 0
        assert ends("c2") == 1


def test_a_pod_that_is_over_is_released_by_its_uid(tmp_path: Path):
    left_behind(tmp_path, json.dumps(GIVEN))
    with rig(tmp_path, pod("c1"), has_pods=True) as one:
        one.add(sandbox("c1"))
        assert one.delete(sandbox("c9", pod="web-5d", uid="u-web", namespace="shop")) == 1
        assert "10.6.1.10" not in records(one.inner)


def test_a_release_is_not_undone_by_the_old_status(tmp_path: Path):
    """The process dies before the view is written anew; the next one does not bring the address back."""
    left_behind(tmp_path, json.dumps(GIVEN))
    with rig(tmp_path) as one:
        one.add(sandbox("c1"))
        one.delete(sandbox("c9", pod="web-5d", uid="u-web", namespace="shop"))
    # As if no view had been written since the takeover; nobody else writes while the agent is away.
    store = SQLiteStore(tmp_path / "orbweaver.db")
    pool = store.get("SpiderIPPool", "blue")
    stale = json.dumps(GIVEN)
    store.update_status({**pool, "status": {"allocatedIPs": stale, DIGEST: digest_of(stale)}})
    store.close()
    with rig(tmp_path) as again:
        again.add(sandbox("c2"))
        assert "10.6.1.10" not in {
            ip for ip, record in records(again.inner).items() if record["pod"] == "shop/web-5d"
        }


def test_a_status_that_cannot_be_read_stops_the_pool(tmp_path: Path):
    """Giving out addresses then could give one twice; the error says what to do."""
    left_behind(tmp_path, "{broken")
    with rig(tmp_path) as one, pytest.raises(NoAddress) as refused:
        one.add(sandbox("c1"))
    assert "was written by another IPAM and cannot be read" in str(refused.value)
    assert "repair the field" in str(refused.value)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({}, {}),
        ({"allocatedIPs": ""}, {}),
        ({"allocatedIPs": "{}", DIGEST: digest_of("{}")}, {}),
        ({"allocatedIPs": '{"10.6.1.10":{"pod":"a/b"}}'}, {0x0A06010A: ("a/b", "")}),
        ({"allocatedIPs": '{"10.6.1.10":{"pod":"a/b"}}', DIGEST: "another"}, {0x0A06010A: ("a/b", "")}),
    ],
)
def test_which_status_counts(status: dict[str, Any], expected: dict[int, tuple[str, str]]):
    """Only one that was not written here."""
    assert foreign_allocations(IPPool.from_object(POOL), status) == expected
