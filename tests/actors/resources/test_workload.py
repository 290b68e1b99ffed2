"""What Deployments, DaemonSets, Jobs and others' kinds say of their pods."""

from __future__ import annotations

from typing import Any

import pytest

from actors.errors import InvalidObject
from actors.resources.application import Application
from actors.resources.json_text import LONGEST
from actors.resources.metadata import Owner
from actors.resources.workload import IP_NUMBER, SUBNET, Workload, workload_excerpt

ASKS = {SUBNET: '{"ipv4":["floor"]}', IP_NUMBER: "+1"}
TEMPLATE = {
    "metadata": {"labels": {"app": "web"}, "annotations": {**ASKS, "other": "x" * 1000}},
    "spec": {"containers": []},
}


def workload(
    kind: str, spec: dict[str, Any], status: dict[str, Any] | None = None, **meta: Any
) -> dict[str, Any]:
    metadata = {"namespace": "shop", "name": "web", "uid": "u", **meta}
    return {"kind": kind, "metadata": metadata, "spec": spec, "status": status or {}}


@pytest.mark.parametrize(
    ("kind", "spec", "status", "replicas", "observed"),
    [
        ("Deployment", {"replicas": 3}, {"replicas": 2}, 3, 2),
        ("Deployment", {}, {}, 1, 0),
        ("ReplicaSet", {"replicas": 0}, {"replicas": 4}, 0, 4),
        ("StatefulSet", {"replicas": 5}, {"replicas": 5}, 5, 5),
        ("DaemonSet", {}, {"desiredNumberScheduled": 7}, 7, 7),
        ("Job", {"completions": 4, "parallelism": 2}, {"active": 2}, 4, 2),
        ("Job", {"completions": 0}, {}, 1, 0),
        ("Job", {"parallelism": 3}, {}, 3, 0),
        ("Job", {"parallelism": 0}, {}, 1, 0),
        ("Job", {}, {}, 1, 0),
    ],
)
def test_how_many_pods_each_kind_wants(
    kind: str, spec: dict[str, Any], status: dict[str, Any], replicas: int, observed: int
) -> None:
    obj = workload(kind, {**spec, "template": TEMPLATE}, status)
    found = Workload.from_object(obj)

    assert (found.replicas, found.observed) == (replicas, observed)
    group = "batch" if kind == "Job" else "apps"
    assert found.application == Application(group, "v1", kind, "shop", "web", "u")
    assert found.annotations == ASKS
    assert found.asks
    assert Workload.from_object(workload_excerpt(obj)) == found


def test_a_cronjob_s_template_is_its_jobs() -> None:
    obj = workload(
        "CronJob", {"jobTemplate": {"spec": {"completions": 6, "template": TEMPLATE}}}, {"active": [{}]}
    )

    found = Workload.from_object(obj)

    assert (found.replicas, found.annotations, found.application.group) == (6, ASKS, "batch")
    assert Workload.from_object(workload_excerpt(obj)) == found


def test_pods_with_the_node_s_addresses_need_none() -> None:
    template = {**TEMPLATE, "spec": {"hostNetwork": True}}

    assert not Workload.from_object(workload("DaemonSet", {"template": template})).asks


def test_another_kind_is_counted_by_its_scale() -> None:
    obj = workload("Rollout", {"replicas": "what it likes", "template": TEMPLATE}, uid="r")
    scale = {"spec": {"replicas": 4}, "status": {"replicas": 3}}

    found = Workload.of_another_kind(obj, "argoproj.io", "v1alpha1", "Rollout", scale)

    assert found.application == Application("argoproj.io", "v1alpha1", "Rollout", "shop", "web", "r")
    assert (found.replicas, found.observed, found.asks) == (4, 3, True)
    plain = Workload.of_another_kind(
        {**obj, "spec": {"template": 3}}, "argoproj.io", "v1alpha1", "Rollout", None
    )
    assert (plain.replicas, plain.asks) == (0, False)


def test_whose_it_is() -> None:
    reference = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": "d", "controller": True}
    obj = workload("ReplicaSet", {"replicas": 1}, ownerReferences=[reference])

    assert Workload.from_object(obj).owner == Owner("apps/v1", "Deployment", "web", "d")


@pytest.mark.parametrize("replicas", [-1, 1 << 31, "3", True, 2.5])
def test_a_number_that_is_none_is_refused(replicas: Any) -> None:
    with pytest.raises(InvalidObject, match=r"spec\.replicas"):
        Workload.from_object(workload("Deployment", {"replicas": replicas}))


def test_a_list_keeps_little_of_a_large_object_and_still_shows_that_an_annotation_is_too_long() -> None:
    annotations = {SUBNET: "x" * 1_000_000, "other": "y" * 1_000_000}
    obj = workload("Deployment", {"replicas": 1, "template": {"metadata": {"annotations": annotations}}})

    kept = workload_excerpt(obj)

    assert kept["spec"]["template"]["metadata"]["annotations"] == {SUBNET: "x" * (LONGEST + 1)}
