"""A real API server refuses what it should by the CRDs and policies of `deploy/` alone, with no server of ours."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.errors import InvalidObject
from actors.resources.admission import SPIDERPOOL
from actors.store.kinds import KINDS
from tests.actors.resources.admission_cases import CASES, SPECS, Case, manifest, refusal, titles
from tests.actors.resources.coordinator_cases import COORDINATORS, FieldCase, label
from tests.support.cluster import ClusterStore
from tests.tools.apiserver import ApiServer

_serial = itertools.count()


def fresh(word: str) -> str:
    return f"{word}-{os.getpid()}-{next(_serial)}"


@pytest.fixture(scope="module")
def store(api_server: ApiServer):
    opened = ClusterStore(api_server.access())
    yield opened
    opened.close()


def tried(api_server: ApiServer, obj: dict[str, Any]) -> str:
    """What the API server says to a new object, which it does not keep: "" or the refusal."""
    where = f"namespaces/{space}/" if (space := obj["metadata"].get("namespace")) else ""
    path = f"/apis/{SPIDERPOOL}/{where}{KINDS[obj['kind']].plural}?dryRun=All&fieldValidation=Strict"
    code, body = api_server.ask("POST", path, obj)
    return "" if code == 201 else f"{code} {body['message']}"


@pytest.mark.parametrize("case", CASES, ids=titles(CASES))
def test_a_case_is_decided_as_the_table_says(store: ClusterStore, case: Case) -> None:
    obj = case.obj(fresh("case"))
    if case.old is not None:
        made = store.create(manifest(case.kind, obj["metadata"]["name"], case.old))
        if case.status:
            made = store.update_status({**made, "status": case.status})
        obj["metadata"] = made["metadata"]
    try:
        store.update(obj) if case.old is not None else store.create(obj)
        said = ""
    except InvalidObject as error:
        said = error.message

    assert bool(said) == bool(case.names), said
    assert case.names in said


@settings(max_examples=300, deadline=None)
@given(spec=SPECS)
def test_the_api_server_and_the_command_line_agree_on_any_pool(
    api_server: ApiServer, spec: dict[str, Any]
) -> None:
    obj = manifest("SpiderIPPool", "any", spec)

    assert bool(tried(api_server, obj)) == bool(refusal(obj)), (tried(api_server, obj), refusal(obj))


@settings(max_examples=100, deadline=None)
@given(low=st.ip_addresses(v=6), high=st.ip_addresses(v=6))
def test_any_ipv6_range_is_ordered_as_numbers_are(api_server: ApiServer, low: Any, high: Any) -> None:
    obj = manifest("SpiderReservedIP", "any", {"ips": [f"{low}-{high}"]})

    assert bool(tried(api_server, obj)) == bool(refusal(obj)), (tried(api_server, obj), refusal(obj))


def test_a_pool_stored_before_the_policy_can_still_lose_its_finalizer(api_server: ApiServer) -> None:
    """Else an invalid pool, taken over from another IPAM, could never be deleted."""
    store = ClusterStore(api_server.access())
    name = fresh("old")
    bad = manifest("SpiderIPPool", name, {"subnet": "10.6.0.0/16", "ips": ["10.7.0.1"]})
    bad["metadata"]["finalizers"] = ["spiderpool.spidernet.io"]
    with api_server.without_policy("orbweaver-pools"):
        made = store.create(bad)
    with pytest.raises(InvalidObject, match="not inside"):
        store.update({**made, "spec": {**made["spec"], "ips": ["10.7.0.1", "10.7.0.2"]}})

    store.delete("SpiderIPPool", name)
    marked = store.get("SpiderIPPool", name)
    store.update({**marked, "metadata": {**marked["metadata"], "finalizers": []}})

    assert name not in [one["metadata"]["name"] for one in store.list("SpiderIPPool").items]
    store.close()


def test_thousands_of_ranges_are_let_in(store: ClusterStore) -> None:
    ranges = [
        f"10.{number >> 8}.{number & 255}.1-10.{number >> 8}.{number & 255}.9" for number in range(2000)
    ]
    made = store.create(manifest("SpiderIPPool", fresh("many"), {"subnet": "10.0.0.0/8", "ips": ranges}))

    with pytest.raises(InvalidObject, match=r"11\.0\.0\.1"):
        store.update({**made, "spec": {**made["spec"], "ips": [*ranges, "11.0.0.1"]}})


def test_a_large_status_does_not_keep_a_pool_from_being_grown(store: ClusterStore) -> None:
    """What is in use is read out of the status by a rule whose cost grows with it."""
    used = {
        f"10.6.{number >> 8}.{number & 255}": {"pod": "shop/web-0", "podUid": "u" * 36}
        for number in range(5000)
    }
    made = store.create(
        manifest("SpiderIPPool", fresh("full"), {"subnet": "10.6.0.0/16", "ips": ["10.6.0.0-10.6.64.0"]})
    )
    made = store.update_status({**made, "status": {"allocatedIPs": json.dumps(used)}})

    grown = store.update({**made, "spec": {**made["spec"], "ips": ["10.6.0.0-10.6.65.0"]}})

    assert grown["metadata"]["generation"] == 2


@pytest.mark.parametrize("case", COORDINATORS, ids=label)
def test_a_coordinator_is_let_in_if_its_reader_takes_it(api_server: ApiServer, case: FieldCase) -> None:
    said = tried(api_server, case.obj("any"))

    assert bool(said) != case.right, said
    assert case.right or f"spec.{case.field}" in said


@pytest.mark.parametrize("case", COORDINATORS, ids=label)
def test_a_networks_own_coordinator_fields_are_judged_alike(api_server: ApiServer, case: FieldCase) -> None:
    spec = {"cniType": "macvlan", "macvlan": {"master": ["eth0"]}, "coordinator": {case.field: case.value}}
    path = f"/apis/{SPIDERPOOL}/namespaces/default/spidermultusconfigs?dryRun=All&fieldValidation=Strict"
    code, body = api_server.ask("POST", path, manifest("SpiderMultusConfig", "any", spec))

    assert (code == 201) == case.right, body
    assert case.right or f"spec.coordinator.{case.field}" in str(body["message"])


EXAMPLES = sorted((Path(__file__).parents[2] / "deploy" / "examples").glob("*.yaml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_the_examples_are_let_in(api_server: ApiServer, path: Path) -> None:
    ours = [obj for obj in yaml.safe_load_all(path.read_text()) if obj and obj["apiVersion"] == SPIDERPOOL]

    assert [tried(api_server, obj) for obj in ours] == [""] * len(ours)
