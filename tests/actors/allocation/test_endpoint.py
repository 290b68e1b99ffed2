"""The Endpoint actor: ADD, DEL and CHECK of one pod, all its interfaces and both families, or nothing."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from actors.audit import ReleaseRecord, Snapshot, audit
from actors.errors import CheckFailed, NoAddress, NotFound, OrbweaverError, PodRefused
from actors.resources.ippool import IPPool
from actors.runtime import get
from tests.support.checker import eventually, prove_records, records
from tests.support.rig import Rig, add_request, pod, pool, rig, sandbox, statefulset

V4 = pool("v4", "10.6.0.0/16", "10.6.0.1-10.6.0.9")
V6 = pool("v6", "fd00::/64", "fd00::1-fd00::9")


@pytest.fixture
def one(tmp_path: Path) -> Iterator[Rig]:
    with rig(tmp_path, V4, V6) as made:
        yield made
        made.prove()


def check(one: Rig, container: str, *previous: str) -> None:
    box = sandbox(container)
    get(one.system.get_actor("endpoint/" + box.key).check.remote(box, previous))


def test_a_repeated_add_gets_the_same(one: Rig):
    first = one.add(sandbox("c1"))

    assert [one.add(sandbox("c1")) for _ in range(3)] == [first] * 3
    assert first == ["10.6.0.1", "fd00::1"]


def test_adds_of_one_sandbox_at_the_same_time_agree(one: Rig):
    with ThreadPoolExecutor(8) as executor:
        found = list(executor.map(one.add, [sandbox("c1")] * 8))

    assert found == [found[0]] * 8


def test_a_del_of_something_unknown_succeeds(one: Rig):
    assert one.delete(sandbox("never-seen")) == 0
    one.add(sandbox("c1"))
    assert one.delete(sandbox("c1")) == 2
    assert one.delete(sandbox("c1")) == 0


def test_a_del_of_another_container_or_interface_frees_nothing(one: Rig):
    one.add(sandbox("c1", pod="web"))

    assert one.delete(sandbox("c2", pod="web")) == 0
    assert one.delete(sandbox("c1", "net1", pod="web")) == 0


def test_a_late_del_cannot_free_an_address_that_has_a_new_owner(tmp_path: Path):
    with rig(tmp_path, pool("v4", "10.6.0.0/16", "10.6.0.1")) as one:
        old, new = sandbox("old", pod="web-1"), sandbox("new", pod="web-2")
        one.add(old)
        one.delete(old)
        one.add(new)

        assert one.delete(old) == 0
        one.prove()


def test_the_sandbox_of_the_same_pod_that_came_later_keeps_its_address(one: Rig):
    """A pod whose sandbox is made anew: the DEL of the old one comes after the ADD of the new one."""
    old, new = sandbox("old", pod="web", uid="u1"), sandbox("new", pod="web", uid="u1")
    first = one.add(old)
    one.journal.releasing(("old", "eth0"))  # the runtime has given it up; the pod's address moves on

    assert one.add(new) == first
    assert one.delete(old) == 0


def test_another_incarnation_does_not_inherit(one: Rig):
    first = one.add(sandbox("old", pod="web", uid="u1"))

    assert one.add(sandbox("new", pod="web", uid="u2")) != first


@pytest.mark.parametrize("short", ["v4", "v6"])
def test_both_families_or_none(tmp_path: Path, short: str):
    objects = [pool("v4", "10.6.0.0/16", "10.6.0.1-10.6.0.9"), pool("v6", "fd00::/64", "fd00::1-fd00::9")]
    for obj in objects:
        if obj["metadata"]["name"] == short:
            obj["spec"]["ips"] = obj["spec"]["ips"][0].split("-")[:1]
    with rig(tmp_path, *objects) as one:
        one.add(sandbox("c1"))
        for number in range(3):
            with pytest.raises(NoAddress, match=f"pool {short} has no free address"):
                one.add(sandbox(f"late{number}"))
            one.journal.doubtful.discard((f"late{number}", "eth0"))  # no DEL: the refusal must leave nothing
        one.prove()


def ippools(*entries: dict) -> str:
    return json.dumps(list(entries))


def test_all_interfaces_or_none(tmp_path: Path):
    wanted = ippools({"interface": "eth0", "ipv4": ["v4"]}, {"interface": "net1", "ipv4": ["small"]})
    small = pool("small", "10.7.0.0/16", "10.7.0.1", default=False)
    with rig(tmp_path, V4, small, pod("a", ippools=wanted), pod("b", ippools=wanted)) as one:
        assert one.add(sandbox("c1", pod="a")) == ["10.6.0.1"]
        assert one.add(sandbox("c1", "net1", pod="a")) == ["10.7.0.1"]

        with pytest.raises(NoAddress, match="pool small has no free address"):
            one.add(sandbox("c2", pod="b"))
        one.journal.doubtful.clear()

        one.prove()
        assert one.delete(sandbox("c1", pod="a")) == 2, (
            "the interface whose ADD reserved the others takes them along"
        )
        one.delete(sandbox("c1", "net1", pod="a"))
        one.prove()


def test_two_interfaces_out_of_one_pool_get_two_addresses(tmp_path: Path):
    wanted = ippools({"interface": "eth0", "ipv4": ["v4"]}, {"interface": "net1", "ipv4": ["v4"]})
    with rig(tmp_path, V4, pod("a", ippools=wanted)) as one:
        both = one.add(sandbox("c1", pod="a")) + one.add(sandbox("c1", "net1", pod="a"))

        assert len(set(both)) == 2
        one.prove()


def test_a_statefulset_pod_gets_its_own_address_back(tmp_path: Path):
    objects = [V4, V6, statefulset("db", 2), pod("db-0", statefulset="db"), pod("db-1", statefulset="db")]
    with rig(tmp_path, *objects) as one:
        first = one.add(sandbox("c1", pod="db-0"))
        one.add(sandbox("x", pod="db-1"))
        for number in range(2, 5):
            one.delete(sandbox(f"c{number - 1}", pod="db-0"))
            one.journal.kept = dict.fromkeys(first, "default/db-0")
            one.prove()
            one.add(sandbox(f"other{number}"))

            assert one.add(sandbox(f"c{number}", pod="db-0")) == first
            one.journal.kept = {}
            assert one.delete(sandbox(f"c{number - 1}", pod="db-0")) == 0, "a late DEL of the sandbox before"
        one.prove()


def test_a_statefulset_pod_that_is_refused_leaves_nothing(tmp_path: Path):
    objects = [V4, pool("v6", "fd00::/64", "fd00::1"), statefulset("db", 2), pod("db-0", statefulset="db")]
    with rig(tmp_path, *objects) as one:
        one.add(sandbox("other"))

        with pytest.raises(NoAddress):
            one.add(sandbox("c1", pod="db-0"))
        one.journal.doubtful.clear()

        one.prove()


def test_a_statefulset_pod_keeps_what_it_had_when_it_is_refused(tmp_path: Path):
    """It had IPv4 alone; now the pool of IPv6 that it asks for too is exhausted."""
    objects = [V4, statefulset("db", 1), pod("db-0", statefulset="db")]
    with rig(tmp_path, *objects) as one:
        (first,) = one.add(sandbox("c1", pod="db-0"))
        one.delete(sandbox("c1", pod="db-0"))
        one.apply(pool("v6", "fd00::/64", "fd00::1"))
        eventually(lambda: _has(one, "v6"))
        one.add(sandbox("other"))

        with pytest.raises(NoAddress):
            one.add(sandbox("c2", pod="db-0"))
        one.journal.doubtful.clear()

        one.journal.kept = {first: "default/db-0"}
        one.prove()


def test_what_a_statefulset_does_not_want_any_more_is_not_kept(tmp_path: Path):
    objects = [V4, statefulset("db", 2), pod("db-1", statefulset="db")]
    with rig(tmp_path, *objects) as one:
        one.add(sandbox("c1", pod="db-1"))
        found = one.inner.get("StatefulSet", "db", "default")
        one.inner.update({**found, "spec": {"replicas": 1}})
        eventually(lambda: _replicas(one, 1))

        one.delete(sandbox("c1", pod="db-1"))

        one.prove()


def test_a_kept_address_that_its_pool_excludes_now_is_replaced(tmp_path: Path):
    objects = [V4, statefulset("db", 1), pod("db-0", statefulset="db")]
    with rig(tmp_path, *objects) as one:
        one.add(sandbox("c1", pod="db-0"))
        one.delete(sandbox("c1", pod="db-0"))
        one.edit_pool("v4", ips=["10.6.0.5-10.6.0.9"])
        eventually(lambda: _first(one, "v4", "10.6.0.5"))

        assert one.add(sandbox("c2", pod="db-0")) == ["10.6.0.5"]
        one.prove()


def test_a_pod_that_asks_for_another_pool_now_gives_back_what_it_had(tmp_path: Path):
    blue = pool("blue", "10.7.0.0/16", "10.7.0.1", default=False)
    objects = [V4, blue, statefulset("db", 1), pod("db-0", statefulset="db")]
    with rig(tmp_path, *objects) as one:
        one.add(sandbox("c1", pod="db-0"))
        one.delete(sandbox("c1", pod="db-0"))

        assert one.add(sandbox("c2", pod="db-0"), v4=["blue"]) == ["10.7.0.1"]
        one.prove()


@pytest.mark.parametrize(
    "annotations, named",
    [
        ({"ippool": "{"}, "ipam.spidernet.io/ippool"),
        ({"ippools": "[{]"}, "ipam.spidernet.io/ippools"),
        ({"ippool": '{"ipv4": "v4"}'}, "ipam.spidernet.io/ippool"),
        ({"routes": '[{"dst": "x"}]'}, "ipam.spidernet.io/routes"),
    ],
)
def test_broken_annotations_refuse_the_pod_and_are_named(
    tmp_path: Path, annotations: dict[str, str], named: str
):
    with rig(tmp_path, V4, pod("a", **annotations)) as one:
        with pytest.raises(PodRefused, match=named) as refused:
            one.add(sandbox("c1", pod="a"))
        one.journal.doubtful.clear()

        assert refused.value.cni_code == 100
        assert "default/a" in str(refused.value)
        one.prove()


def test_a_pool_that_does_not_exist_is_named(one: Rig):
    with pytest.raises(NoAddress, match="no-such-pool"):
        one.add(sandbox("c1"), v4=["no-such-pool"])
    one.journal.doubtful.clear()


@pytest.mark.parametrize(
    "change, said",
    [
        ({"metadata": {"deletionTimestamp": "2025-01-31T12:00:00Z"}}, "being deleted"),
        ({"status": {"phase": "Failed", "reason": "Evicted"}}, "evicted"),
        ({"spec": {"restartPolicy": "Never"}, "status": {"phase": "Failed"}}, "failed"),
    ],
)
def test_a_pod_that_has_ended_gets_nothing(tmp_path: Path, change: dict, said: str):
    with rig(tmp_path, V4) as one:
        obj = pod("a")
        if "metadata" in change:
            obj["metadata"]["finalizers"] = ["test/hold"]
        obj["spec"] = change.get("spec", {})
        stored = one.apply(obj)
        if "status" in change:
            one.inner.update_status({**stored, "status": change["status"]})
        if "metadata" in change:
            one.inner.delete("Pod", "a", "default")

        with pytest.raises(PodRefused, match=said):
            one.add(sandbox("c1", pod="a"))
        one.journal.doubtful.clear()
        one.prove()


def test_with_kubernetes_a_pod_without_an_object_is_refused(tmp_path: Path):
    with rig(tmp_path, V4, pod("there"), has_pods=True) as one:
        one.add(sandbox("c1", pod="there"))

        with pytest.raises(PodRefused, match="default/gone does not exist"):
            one.add(sandbox("c2", pod="gone"))
        one.journal.doubtful.clear()
        one.prove(views=False)  # in a cluster the controller writes those of pools


def test_a_pod_of_the_same_name_and_another_uid_is_refused(tmp_path: Path):
    with rig(tmp_path, V4, has_pods=True) as one:
        uid = one.apply(pod("web"))["metadata"]["uid"]

        with pytest.raises(PodRefused, match="old-uid does not exist any more"):
            one.add(sandbox("c1", pod="web", uid="old-uid"))
        one.journal.doubtful.clear()
        one.add(sandbox("c2", pod="web", uid=uid))
        one.prove(views=False)


def test_check_compares_with_what_is_recorded(one: Rig):
    one.add(sandbox("c1"))

    check(one, "c1", "10.6.0.1/16", "fd00::1/64")
    with pytest.raises(CheckFailed, match="recorded for it is"):
        check(one, "c1", "10.6.0.2/16", "fd00::1/64")
    with pytest.raises(CheckFailed, match="no address is recorded"):
        check(one, "c2", "10.6.0.1/16")


def test_a_pool_deleted_between_decision_and_result_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with rig(tmp_path, V4, V6, timeout=60.0) as one:
        one.add(sandbox("c1"))
        catalog = one.agent.catalog
        known = catalog.pool
        asked = []

        def vanishing(name: str) -> IPPool:
            asked.append(name)
            if len(asked) <= 2:  # by the two Pool actors; the third is the Endpoint, with the result to make
                return known(name)
            eventually(lambda: remove(name))
            return catalog.fresh_pool(name)

        def remove(name: str) -> None:
            """With its finalizer, which the views may put on at any moment: somebody forces it."""
            with suppress(NotFound):
                found = one.inner.get("SpiderIPPool", name)
                one.inner.update({**found, "metadata": {**found["metadata"], "finalizers": []}})
                one.inner.delete("SpiderIPPool", name)
            assert name not in {obj["metadata"]["name"] for obj in one.inner.list("SpiderIPPool").items}

        monkeypatch.setattr(catalog, "pool", vanishing)
        with pytest.raises(OrbweaverError, match="does not exist"):
            one.add(sandbox("c2"))
        monkeypatch.undo()
        one.journal.doubtful.clear()

        eventually(lambda: prove_records(one.inner, one.journal))


def test_a_request_whose_time_is_over_leaves_nothing(one: Rig):
    with pytest.raises(OrbweaverError):
        get(one.send_add(sandbox("c1"), timeout=0.0))

    one.add(sandbox("c2"))
    one.prove()


def test_requests_for_many_pods_never_mix(one: Rig):
    """The endpoint's key is the pod, the fence is the container: names that look alike stay apart."""
    boxes = [
        sandbox("c1", pod="a"),
        sandbox("c2", pod="a.b"),
        sandbox("c3", pod="a", namespace="other"),
        replace(sandbox("c4", pod="A b;c"), namespace="Odd_name"),
        sandbox("C5"),
    ]
    found = [one.add(box) for box in boxes]

    assert len({address for addresses in found for address in addresses}) == 10
    assert [one.delete(box) for box in boxes[:3]] == [2, 2, 2]
    for box in boxes[3:]:
        one.delete(box)


def test_the_record_says_who_and_why(one: Rig):
    box = sandbox("c1", pod="web", uid="u1")
    get(one.system.get_actor("endpoint/" + box.key).add.remote(add_request(box, network="blue-net")))
    one.journal.acknowledged(("c1", "eth0"), ["10.6.0.1", "fd00::1"])

    found = records(one.inner)["10.6.0.1"]

    assert {
        key: found[key] for key in ("pool", "pod", "uid", "container", "interface", "node", "network")
    } == {
        "pool": "v4",
        "pod": "default/web",
        "uid": "u1",
        "container": "c1",
        "interface": "eth0",
        "node": "node1",
        "network": "blue-net",
    }


def _has(one: Rig, name: str) -> None:
    assert name in one.agent.catalog.pools().pools


def _first(one: Rig, name: str, address: str) -> None:
    assert one.agent.catalog.pools().pools[name].available.first == int.from_bytes(
        bytes(int(part) for part in address.split("."))
    )


def _replicas(one: Rig, wanted: int) -> None:
    found = one.agent.catalog.statefulset("default", "db")
    assert found is not None
    assert found.replicas == wanted


def test_a_static_pod_gets_an_address_by_the_uid_of_its_manifest(tmp_path: Path):
    """Its mirror in the API has another UID than the one that the kubelet gives its runtime."""
    mirror = pod("proxy")
    mirror["metadata"]["annotations"]["kubernetes.io/config.mirror"] = "of-the-manifest"
    mirror["spec"] = {**mirror.get("spec", {}), "nodeName": "node1"}  # the API server asks it of a mirror
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}}
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node1"}}
    with rig(tmp_path, V4, node, mirror, namespace, has_pods=True) as one:
        box = sandbox("c1", pod="proxy", uid="of-the-manifest")
        assert one.add(box) == ["10.6.0.1"]
        assert one.add(box) == ["10.6.0.1"]
        assert [record["uid"] for record in records(one.inner).values()] == ["of-the-manifest"]
        one.prove(views=False)  # in a cluster the controller writes them
        found = audit(Snapshot.read(one.inner, pods=True), now=time.time()).findings
        assert [finding.what for finding in found if isinstance(finding.repair, ReleaseRecord)] == []


def test_a_pool_for_a_node_serves_that_node_without_a_node_object(tmp_path: Path):
    mine = pool("mine", "10.6.0.0/16", "10.6.0.1", nodeName=["node1"])
    other = pool("another", "10.7.0.0/16", "10.7.0.1", nodeName=["node2"])
    with rig(tmp_path, other, mine, node="node1") as one:
        assert one.add(sandbox("c1")) == ["10.6.0.1"]
        one.prove()


def test_what_a_pod_asks_for_in_vain_is_told_once(tmp_path: Path):
    told: list[tuple[str, str]] = []
    annotated = pod(
        "web",
        ippool='{"ipv4": ["v4"], "interface": "eth0"}',
        routes='[{"dst": "10.9.0.0/16", "gw": "10.8.0.1"}]',
    )
    with rig(tmp_path, V4, annotated) as one:
        one.agent.pod_warnings.tell = lambda sandbox, reason, text: told.append((reason, text))
        for _ in range(2):
            assert one.add(sandbox("c1", pod="web")) == ["10.6.0.1"]
        one.prove()

    assert [reason for reason, _ in told] == ["AnnotationIgnored", "RouteUnreachable"]
    assert '"interface" is no key of it' in told[0][1]
    assert "the route to 10.9.0.0/16 is left out" in told[1][1]
