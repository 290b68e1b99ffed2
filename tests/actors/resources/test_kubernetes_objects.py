"""Pod, Namespace, Node, StatefulSet and label selectors."""

from __future__ import annotations

import json
from typing import Any

import pytest

from actors.errors import InvalidObject
from actors.reclaim.evidence import trimmed_pod
from actors.resources.fields import Fields
from actors.resources.metadata import Owner
from actors.resources.namespace import Namespace
from actors.resources.node import Node
from actors.resources.pod import Pod
from actors.resources.selectors import LabelSelector
from actors.resources.statefulset import StatefulSet


def pod(spec: dict[str, Any] | None = None, status: dict[str, Any] | None = None, **meta: Any) -> Pod:
    return Pod.from_object(
        {
            "kind": "Pod",
            "metadata": {"namespace": "shop", "name": "web-0", **meta},
            "spec": spec or {},
            "status": status or {},
        }
    )


def test_a_pod_with_its_controller() -> None:
    owners = [
        {"apiVersion": "v1", "kind": "Thing", "name": "other", "uid": "1"},
        {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "uid": "2", "controller": True},
    ]
    found = pod({"nodeName": "n1"}, {"phase": "Running"}, uid="u", labels={"a": "b"}, ownerReferences=owners)

    assert (found.key, found.uid, found.node, found.phase, found.labels) == (
        "shop/web-0",
        "u",
        "n1",
        "Running",
        {"a": "b"},
    )
    assert found.owner == Owner("apps/v1", "StatefulSet", "web", "2")
    assert found.statefulset == "web"
    assert found.alive


@pytest.mark.parametrize(
    "owner",
    [
        {"name": " " * 600_000},
        {"name": "x" * 254},
        {"name": "a/b"},
        {"name": "\x1b[2J"},
        {"name": "\ud800"},
        {"name": ""},
        {"kind": "StatefulSet/x"},
        {"kind": "K" * 64},
        {"apiVersion": "a" * 400},
        {"apiVersion": "apps/v1/x"},
        {"uid": "u" * 129},
        {"uid": ""},
    ],
    ids=str,
)
def test_an_owner_that_no_object_can_be_is_none(owner: dict[str, str]) -> None:
    """The API server takes ownerReferences of a megabyte, and 64 records of them must fit into one block."""
    right = {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "uid": "2", "controller": True}

    assert pod(ownerReferences=[right | owner]).owner is None


@pytest.mark.parametrize("version", ["v1", "batch/v1", "apps/v1beta1", "example.com/v1"])
def test_a_statefulset_of_another_group_is_not_taken_for_kubernetes_own(version: str) -> None:
    owner = {"apiVersion": version, "kind": "StatefulSet", "name": "web", "uid": "2", "controller": True}
    found = pod(ownerReferences=[owner])

    assert found.statefulset is None
    assert not found.controller.startswith("StatefulSet/")


@pytest.mark.parametrize(
    ("status", "told"),
    [
        ('[{"ips":["10.0.0.1","fd00::1"]},{"ips":["10.0.0.2"]}]', {"10.0.0.1", "fd00::1", "10.0.0.2"}),
        ('[{"ips":[{}]}]', set()),
        ('[{"ips":[["10.0.0.1"]]}]', set()),
        ('[{"ips":[{"a":1},"10.0.0.1"]}]', {"10.0.0.1"}),
        ('[{"ips":"10.0.0.1"}]', set()),
        ('[{"ips":{"10.0.0.1":1}}]', set()),
        ('{"ips":["10.0.0.1"]}', set()),
        ("[3, null]", set()),
        ('[{"ips":["\\ud800"]}]', set()),
        ("[" * 973 + "]" * 973, set()),
        ("[" * 60000, set()),
        ("1" * 5000, set()),
        ('[{"ips":["10.0.0.1"]}]' + " " * 70000, set()),
        ("nothing", set()),
        ("", set()),
    ],
)
def test_what_multus_tells_is_a_witness_and_no_more(status: str, told: set[str]) -> None:
    found = pod(annotations={"k8s.v1.cni.cncf.io/network-status": status})

    assert found.reported == told


def test_a_bare_pod_is_alive_and_has_nothing() -> None:
    found = Pod.bare("default", "c1")

    assert (found.key, found.uid, found.alive, dict(found.annotations), found.owner) == (
        "default/c1",
        "",
        True,
        {},
        None,
    )


@pytest.mark.parametrize(
    ("phase", "reason", "policy", "alive"),
    [
        ("Running", "", "Never", True),
        ("Pending", "", "Always", True),
        ("Succeeded", "", "Always", True),
        ("Succeeded", "", "OnFailure", False),
        ("Succeeded", "", "Never", False),
        ("Failed", "", "Always", True),
        ("Failed", "", "OnFailure", True),
        ("Failed", "", "Never", False),
        ("Failed", "Evicted", "Always", False),
    ],
)
def test_alive_as_spiderpool_decides_it(phase: str, reason: str, policy: str, alive: bool) -> None:
    found = pod({"restartPolicy": policy}, {"phase": phase, "reason": reason})

    assert found.alive == alive
    assert (found.ended is None) == alive


@pytest.mark.parametrize("moment", ["2025-01-31T12:00:00Z", "2025-01-31T12:00:00+00:00"])
def test_a_pod_being_deleted_is_not_alive(moment: str) -> None:
    found = pod(deletionTimestamp=moment, deletionGracePeriodSeconds=30)

    assert (found.alive, found.deleted_at) == (False, 1738324800.0)


def test_a_broken_moment_is_refused() -> None:
    with pytest.raises(InvalidObject, match=r"Pod shop/web-0: metadata\.deletionTimestamp .*RFC 3339"):
        pod(deletionTimestamp="yesterday")


def test_labels_must_be_texts() -> None:
    with pytest.raises(InvalidObject, match=r"metadata\.labels\.a is 1, but must be a text"):
        pod(labels={"a": 1})


def test_namespace_and_node() -> None:
    meta = {"metadata": {"name": "x", "labels": {"a": "b"}, "annotations": {"c": "d"}}}

    assert Namespace.from_object(meta) == Namespace("x", {"a": "b"}, {"c": "d"})
    assert Node.from_object(meta) == Node("x", {"a": "b"}, {"c": "d"})


def statefulset(spec: dict[str, Any]) -> StatefulSet:
    return StatefulSet.from_object({"metadata": {"namespace": "shop", "name": "web"}, "spec": spec})


@pytest.mark.parametrize(
    ("spec", "kept"),
    [
        ({}, ["web-0"]),
        ({"replicas": 0}, []),
        ({"replicas": 2}, ["web-0", "web-1"]),
        ({"replicas": 2, "ordinals": {"start": 1}}, ["web-1", "web-2"]),
    ],
)
def test_a_statefulset_keeps_its_ordinals(spec: dict[str, Any], kept: list[str]) -> None:
    names = [
        "web-0",
        "web-1",
        "web-2",
        "web-00",
        "web-01",
        "web",
        "web-",
        "web-x",
        "web-1-0",
        "api-0",
        "web--1",
        "web-\u0661",
    ]

    assert [name for name in names if statefulset(spec).keeps(name)] == kept


def test_a_statefulset_with_impossible_numbers_is_refused() -> None:
    with pytest.raises(InvalidObject, match=r"spec\.replicas is -1"):
        statefulset({"replicas": -1})
    with pytest.raises(InvalidObject, match=r"spec\.ordinals\.start is -1"):
        statefulset({"ordinals": {"start": -1}})
    with pytest.raises(InvalidObject, match=r"spec\.replicas is true"):
        statefulset({"replicas": True})


def selector(data: dict[str, Any]) -> LabelSelector:
    return LabelSelector.from_fields(Fields.of("SpiderIPPool blue", "spec.podAffinity", data))


def expression(operator: str, *values: str) -> LabelSelector:
    return selector({"matchExpressions": [{"key": "env", "operator": operator, "values": list(values)}]})


@pytest.mark.parametrize(
    ("chosen", "prod", "test", "absent"),
    [
        (selector({}), True, True, True),
        (selector({"matchLabels": {"env": "prod"}}), True, False, False),
        (expression("In", "prod", "stage"), True, False, False),
        (expression("NotIn", "prod"), False, True, True),
        (expression("Exists"), True, True, False),
        (expression("DoesNotExist"), False, False, True),
        (
            selector(
                {
                    "matchLabels": {"env": "prod"},
                    "matchExpressions": [{"key": "env", "operator": "DoesNotExist"}],
                }
            ),
        )
        + (False,) * 3,
    ],
)
def test_selectors_match_as_kubernetes_does(
    chosen: LabelSelector, prod: bool, test: bool, absent: bool
) -> None:
    assert (chosen.matches({"env": "prod"}), chosen.matches({"env": "test"}), chosen.matches({})) == (
        prod,
        test,
        absent,
    )


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({"matchLabel": {}}, "spec.podAffinity.matchLabel is not a known field; did you mean matchLabels?"),
        ({"matchLabels": {"a": 1}}, "matchLabels.a is 1, but must be a text"),
        ({"matchExpressions": [{"key": "", "operator": "Exists"}]}, "needs the name of a label"),
        (
            {"matchExpressions": [{"key": "a", "operator": "Is"}]},
            'operator is "Is", which is not an operator',
        ),
        ({"matchExpressions": [{"key": "a", "operator": "In"}]}, "operator In needs at least one value"),
        ({"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["x"]}]}, "takes no values"),
    ],
)
def test_a_selector_that_cannot_be_evaluated_is_refused(data: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidObject) as refusal:
        selector(data)

    assert says in refusal.value.message


def test_selectors_print_as_kubectl_takes_them() -> None:
    chosen = selector(
        {
            "matchLabels": {"b": "2", "a": "1"},
            "matchExpressions": [
                {"key": "c", "operator": "NotIn", "values": ["x", "y"]},
                {"key": "d", "operator": "DoesNotExist"},
            ],
        }
    )

    assert str(chosen) == "a=1, b=2, c not in (x, y), !d"


@pytest.mark.parametrize(
    "toleration, bound",
    [
        ({"operator": "Exists"}, True),
        ({"operator": "Exists", "effect": "NoExecute"}, True),
        ({"operator": "Exists", "effect": "NoSchedule"}, False),
        ({"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute"}, True),
        ({"key": "node.kubernetes.io/not-ready", "operator": "Exists"}, True),
        ({"key": "node.kubernetes.io/unreachable", "operator": "Exists", "tolerationSeconds": 300}, False),
        ({"key": "node.kubernetes.io/disk-pressure", "operator": "Exists"}, False),
    ],
)
def test_a_pod_that_tolerates_the_loss_of_its_node_stays_bound_to_it(
    toleration: dict[str, Any], bound: bool
) -> None:
    assert pod({"tolerations": [toleration]}).stays_bound is bound
    assert (
        Pod.from_object(
            trimmed_pod({"metadata": {"name": "p"}, "spec": {"tolerations": [toleration]}})
        ).stays_bound
        is bound
    )


def test_a_pod_reports_what_its_status_and_multus_tell() -> None:
    told = json.dumps(
        [{"name": "cbr0", "ips": ["10.6.0.1"]}, {"name": "x", "interface": "net1", "ips": ["10.7.0.1"]}, {}]
    )
    annotations = {"k8s.v1.cni.cncf.io/network-status": told}
    status = {"podIPs": [{"ip": "10.6.0.1"}, {"ip": "fd00::1"}]}

    assert pod(status=status, annotations=annotations).reported == {"10.6.0.1", "fd00::1", "10.7.0.1"}
    for broken in ("{", "7", "[7]", '[{"ips": 7}]', ""):
        found = pod(status=status, annotations={"k8s.v1.cni.cncf.io/network-status": broken})
        assert found.reported == {"10.6.0.1", "fd00::1"}


@pytest.mark.parametrize(
    "conditions, ready, since",
    [
        ([{"type": "Ready", "status": "True", "lastTransitionTime": "2025-01-31T12:00:00Z"}], True, None),
        ([{"type": "Ready", "status": "False", "lastTransitionTime": "1970-01-01T00:01:00Z"}], False, 60.0),
        ([{"type": "Ready", "status": "Unknown", "lastTransitionTime": "1970-01-01T00:01:00Z"}], False, 60.0),
        ([{"type": "Ready", "status": "Unknown"}], False, None),
        ([{"type": "DiskPressure", "status": "True"}], False, None),
        ([], False, None),
    ],
)
def test_a_node_is_ready_when_the_cluster_says_so(
    conditions: list[dict[str, Any]], ready: bool, since: float | None
) -> None:
    body = {"kind": "Node", "metadata": {"name": "n1"}, "status": {"conditions": conditions}}
    found = Node.from_object(body)

    assert (found.ready, found.not_ready_since, found.out_of_service) == (ready, since, False)
    taint = {"key": "node.kubernetes.io/out-of-service", "effect": "NoExecute"}
    assert Node.from_object({**body, "spec": {"taints": [taint]}}).out_of_service


MIRRORED = "5f2a9d1c0b6e4d7f8a3b2c1d0e9f8a7b"


@pytest.mark.parametrize(
    "annotation, uid", [(MIRRORED, MIRRORED), ("", "u"), ("x" * 65, "u"), ("a b", "u"), ("\ud800", "u")]
)
def test_a_static_pods_uid_is_the_one_that_its_kubelet_uses(annotation: str, uid: str) -> None:
    obj = {
        "metadata": {"name": "proxy", "uid": "u", "annotations": {"kubernetes.io/config.mirror": annotation}}
    }

    assert Pod.from_object(obj).uid == uid
    assert Pod.from_object(trimmed_pod({**obj, "kind": "Pod"})).uid == uid


def seen(obj: dict[str, Any], before: StatefulSet | None = None) -> StatefulSet:
    meta = {"namespace": "shop", "name": "web", "uid": "u"}
    return StatefulSet.watched({"metadata": meta | obj.pop("metadata", {}), **obj}, before)


def test_what_a_statefulset_had_is_remembered_for_its_uid() -> None:
    first = seen({"spec": {"replicas": 90}, "status": {"replicas": 40}})
    dip = seen({"spec": {"replicas": 90}, "status": {"replicas": 2}}, first)
    anew = seen({"metadata": {"uid": "v"}, "spec": {"replicas": 90}, "status": {"replicas": 2}}, dip)
    unwatched = seen({"spec": {"replicas": 90}})

    assert (first.seen, dip.seen, anew.seen, unwatched.seen) == (40, 40, 2, None)
    kept = [sum(one.keeps(f"web-{number}") for number in range(100)) for one in (first, dip, anew, unwatched)]
    assert kept == [40, 40, 16, 90]
    assert not dip.keeps("web-40", scaled_down=True)
    assert seen({"spec": {"replicas": 2}, "status": {"replicas": 5}}).keeps("web-4", scaled_down=True)
