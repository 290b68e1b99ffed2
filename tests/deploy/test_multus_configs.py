"""A real API server refuses wrong SpiderMultusConfigs by the CRD and the policy of `deploy/`, with no server of ours."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from actors.resources.admission import SPIDERPOOL
from tests.actors.resources.multus_cases import CASES, MultusCase, titles
from tests.tools.apiserver import ApiServer

PATH = f"/apis/{SPIDERPOOL}/namespaces/default/spidermultusconfigs"
_serial = itertools.count()


@pytest.mark.parametrize("case", CASES, ids=titles(CASES))
def test_a_case_is_decided_as_the_table_says(api_server: ApiServer, case: MultusCase) -> None:
    """What `orbweaver apply` refuses, but for what CEL cannot read."""
    name = f"case-{next(_serial)}"
    new = case.obj(name)
    if case.old is None:
        code, answer = api_server.ask("POST", f"{PATH}?dryRun=All&fieldValidation=Strict", new)
    else:
        made = api_server.call("POST", PATH, case.obj(name, case.old))
        new["metadata"]["resourceVersion"] = made["metadata"]["resourceVersion"]
        code, answer = api_server.ask("PUT", f"{PATH}/{name}?dryRun=All&fieldValidation=Strict", new)
        api_server.call("DELETE", f"{PATH}/{name}")
    said = "" if code in (200, 201) else str(answer["message"])

    assert bool(said) == (bool(case.names) and not case.by_us), said
    assert not [one for one in case.names if not case.by_us and one not in said], said


def test_an_object_from_before_the_policy_can_still_be_labelled_and_lose_its_finalizer(
    api_server: ApiServer,
) -> None:
    """Else one that was taken over could never be deleted."""
    bad: dict[str, Any] = {
        "apiVersion": SPIDERPOOL, "kind": "SpiderMultusConfig",
        "metadata": {"name": "old", "annotations": {"multus.spidernet.io/cni-version": "9"}, "finalizers": ["a.b/c"]},
        "spec": {"cniType": "macvlan", "macvlan": {"master": ["eth0"]}},
    }  # fmt: skip
    with api_server.without_policy("orbweaver-multus-configs"):
        api_server.call("POST", PATH, bad)
    assert api_server.ask("PATCH", f"{PATH}/old", {"spec": {"macvlan": {"mtu": 9}}})[0] == 422

    api_server.call("PATCH", f"{PATH}/old", {"metadata": {"labels": {"look": "again"}}})
    api_server.call("DELETE", f"{PATH}/old")
    api_server.call("PATCH", f"{PATH}/old", {"metadata": {"finalizers": None}})

    assert api_server.ask("GET", f"{PATH}/old")[0] == 404
