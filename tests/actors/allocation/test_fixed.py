"""Fixed addresses: StatefulSet pods by ordinal, virtual machines across restart and live migration, and what other
controllers' pods get."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.allocation.messages import Sandbox
from actors.decisions.settings import Settings
from actors.runtime import get
from tests.support.checker import eventually, prove_records, records
from tests.support.rig import Rig, instance, launcher, machine, pod, pool, rig, sandbox, statefulset

V4 = pool("v4", "10.6.0.0/16", "10.6.0.1-10.6.0.9")


def keep(one: Rig, address: str, name: str) -> None:
    one.journal.kept[address] = f"default/{name}"


def endpoint(one: Rig, name: str) -> dict[str, Any]:
    found: dict[str, Any] = one.inner.get("SpiderEndpoint", name, "default")["status"]
    return found


def gone(one: Rig, kind: str, name: str) -> None:
    one.inner.delete(kind, name, "default")


# -- StatefulSets --------------------------------------------------------------------------------------------


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Rig]:
    """web-0 has 10.6.0.1 and was restarted: its address is kept."""
    with rig(tmp_path, V4, statefulset("web", 1), pod("web-0", statefulset="web")) as made:
        assert made.add(sandbox("c1", pod="web-0")) == ["10.6.0.1"]
        made.delete(sandbox("c1", pod="web-0"))
        keep(made, "10.6.0.1", "web-0")
        assert made.add(sandbox("other")) == ["10.6.0.2"]
        yield made
        made.prove()


def again(one: Rig, *expected: str) -> None:
    one.journal.kept.clear()
    assert one.add(sandbox("c2", pod="web-0")) == list(expected)


def replace_pool(one: Rig, *pools: dict[str, Any]) -> None:
    """The old pool stays, but nobody asks it: what a pod holds of it keeps it there."""
    for new in pools:
        one.apply(new)
    one.edit_pool("v4", default=False, ips=["10.6.0.200"])
    eventually(lambda: seen(one, *(new["metadata"]["name"] for new in pools)))


def seen(one: Rig, *names: str) -> None:
    table = one.agent.catalog.pools().pools
    assert set(names) <= set(table)
    assert table["v4"].version == one.inner.get("SpiderIPPool", "v4")["metadata"]["resourceVersion"]


def test_a_pool_that_is_replaced_by_one_of_another_name_gives_the_address_again(web: Rig):
    replace_pool(web, pool("renamed", "10.6.0.0/16", "10.6.0.1-10.6.0.9"))

    again(web, "10.6.0.1")

    assert records(web.inner)["10.6.0.1"]["pool"] == "renamed"


def test_a_pool_that_is_split_gives_it_again(web: Rig):
    high = pool("high", "10.6.0.0/16", "10.6.0.5-10.6.0.9")
    replace_pool(web, high, pool("low", "10.6.0.0/16", "10.6.0.1-10.6.0.4"))

    again(web, "10.6.0.1")

    assert records(web.inner)["10.6.0.1"]["pool"] == "low"


def test_a_disabled_pool_gives_it_again_and_nothing_new(web: Rig):
    web.edit_pool("v4", disable=True)
    web.apply(pool("more", "10.7.0.0/16", "10.7.0.1-10.7.0.9"))
    eventually(lambda: seen(web, "more"))

    assert web.add(sandbox("new")) == ["10.7.0.1"]
    again(web, "10.6.0.1")


def test_an_address_that_is_reserved_meanwhile_goes_back(web: Rig):
    reserved = {"apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": "SpiderReservedIP"}
    web.apply({**reserved, "metadata": {"name": "r"}, "spec": {"ips": ["10.6.0.1"]}})
    eventually(lambda: _assert(web.agent.catalog.reserved(4)))

    again(web, "10.6.0.3")


def _assert(value: object) -> None:
    assert value


def test_another_pool_in_the_annotation_gives_another_address_and_the_old_one_goes_back(web: Rig):
    web.apply(pool("new", "10.7.0.0/16", "10.7.0.1-10.7.0.9", default=False))
    found = web.inner.get("Pod", "web-0", "default")
    annotated = {"ipam.spidernet.io/ippool": '{"ipv4": ["new"]}'}
    web.inner.update({**found, "metadata": {**found["metadata"], "annotations": annotated}})

    again(web, "10.7.0.1")

    assert "10.6.0.1" not in records(web.inner)


@pytest.mark.parametrize("keeping", [False, True])
def test_a_statefulset_that_is_scaled_down(tmp_path: Path, keeping: bool):
    """Its pod's address goes back, or stays with the pod's name where the settings say so."""
    box = sandbox("c1", pod="web-1")
    objects = [V4, statefulset("web", 2), pod("web-1", statefulset="web")]
    with rig(tmp_path, *objects, settings=Settings(keep_scaled_down=keeping)) as one:
        one.add(box)
        found = one.inner.get("StatefulSet", "web", "default")
        one.inner.update({**found, "spec": {**found["spec"], "replicas": 1}})
        eventually(
            lambda: _assert(getattr(one.agent.catalog.statefulset("default", "web"), "replicas", 0) == 1)
        )
        one.delete(box)
        if keeping:
            keep(one, "10.6.0.1", "web-1")
        one.prove()

        gone(one, "StatefulSet", "web")
        one.journal.kept.clear()
        one.prove()


def test_on_a_lost_node_it_is_taken_over_without_a_del(tmp_path: Path):
    """The pod was deleted by force and started elsewhere; the DEL of the node that is back comes late."""
    old = sandbox("c1", pod="web-0")
    with rig(tmp_path, V4, statefulset("web", 1), pod("web-0", statefulset="web"), node="lost") as one:
        one.add(old)
    with rig(tmp_path, node="other") as one:
        assert one.add(sandbox("c2", pod="web-0")) == ["10.6.0.1"]

        assert one.delete(old) == 0
        one.prove()
        assert endpoint(one, "web-0")["current"]["node"] == "other"


# -- virtual machines ----------------------------------------------------------------------------------------

SOURCE, TARGET, NEXT = (
    sandbox(container, pod=f"virt-launcher-vm-{ending}")
    for container, ending in (("cs", "a"), ("ct", "b"), ("cn", "c"))
)
LAUNCHERS = [launcher("vm", ending) for ending in "abc"]


@pytest.fixture
def moving(tmp_path: Path) -> Iterator[Rig]:
    """The machine runs in SOURCE and moves to TARGET: both have its address."""
    with rig(tmp_path, V4, machine("vm"), instance("vm"), *LAUNCHERS) as made:
        assert made.add(SOURCE) == ["10.6.0.1"]
        move(made, SOURCE, TARGET)
        yield made
        made.prove()


def move(one: Rig, earlier: Sandbox, later: Sandbox) -> None:
    """ADD for a machine that runs in `earlier`. The journal knows one holder of an address: from now on `later`."""
    (address,) = one.journal.held[earlier.container, "eth0"]
    one.journal.releasing((earlier.container, "eth0"))
    assert one.add(later) == [address]
    one.journal.doubtful.discard((earlier.container, "eth0"))


def back(one: Rig, later: Sandbox, earlier: Sandbox, address: str) -> None:
    """DEL of the pod that the machine was to move to."""
    assert one.delete(later) == 1
    one.journal.acknowledged((earlier.container, "eth0"), [address])


def check(one: Rig, box: Sandbox, address: str = "10.6.0.1") -> None:
    get(one.system.get_actor("endpoint/" + box.key).check.remote(box, (address,)))


def test_both_pods_of_a_moving_machine_have_its_address(moving: Rig):
    check(moving, SOURCE)
    check(moving, TARGET)
    assert moving.add(sandbox("x")) == ["10.6.0.2"]


def test_the_del_of_the_pod_it_came_from_leaves_the_address_where_it_is(moving: Rig):
    assert moving.delete(SOURCE) == 1
    assert moving.delete(SOURCE) == 0

    check(moving, TARGET)
    assert records(moving.inner)["10.6.0.1"].get("other_sandboxes") is None


def test_when_the_move_fails_the_address_stays_where_it_was(moving: Rig):
    back(moving, TARGET, SOURCE, "10.6.0.1")

    check(moving, SOURCE)
    assert moving.add(SOURCE) == ["10.6.0.1"]


def test_a_repeated_add_of_the_pod_it_comes_from_changes_nothing(moving: Rig):
    before = records(moving.inner)

    answer = get(moving.send_add(SOURCE))

    assert [one.address for one in answer.addresses] == ["10.6.0.1/16"]
    assert records(moving.inner) == before


def test_a_second_move_before_the_first_pod_is_gone(moving: Rig):
    move(moving, TARGET, NEXT)
    for box in (SOURCE, TARGET, NEXT):
        check(moving, box)

    assert [moving.delete(box) for box in (TARGET, SOURCE)] == [1, 1]
    check(moving, NEXT)


def test_the_machine_s_endpoint_has_its_name_and_tells_of_the_newest_pod(moving: Rig):
    def told() -> None:
        status = endpoint(moving, "vm")
        assert status["current"]["ips"][0]["ipv4"] == "10.6.0.1/16"
        assert (status["ownerControllerType"], status["ownerControllerName"]) == (
            "VirtualMachineInstance",
            "vm",
        )

    eventually(told)


def stop(one: Rig) -> None:
    one.delete(SOURCE)
    one.delete(TARGET)
    keep(one, "10.6.0.1", "virt-launcher-vm-b")


def test_a_machine_that_was_stopped_gets_its_address_again(moving: Rig):
    stop(moving)
    gone(moving, "VirtualMachineInstance", "vm")
    prove_records(moving.inner, moving.journal)

    moving.journal.kept.clear()
    assert moving.add(NEXT) == ["10.6.0.1"]


def test_with_the_stopped_machine_its_address_goes(moving: Rig):
    stop(moving)
    gone(moving, "VirtualMachineInstance", "vm")
    gone(moving, "VirtualMachine", "vm")

    moving.journal.kept.clear()
    eventually(lambda: prove_records(moving.inner, moving.journal))


def test_a_machine_that_is_deleted_while_it_runs_gives_its_address_back_with_its_pod(moving: Rig):
    gone(moving, "VirtualMachine", "vm")
    gone(moving, "VirtualMachineInstance", "vm")
    assert moving.delete(SOURCE) == 1
    check(moving, TARGET)

    assert moving.delete(TARGET) == 1
    assert records(moving.inner) == {}


def test_an_instance_without_a_machine_gives_it_back_when_it_is_deleted(tmp_path: Path):
    with rig(tmp_path, V4, instance("vm", of_machine=False), *LAUNCHERS) as one:
        one.add(SOURCE)
        one.delete(SOURCE)
        keep(one, "10.6.0.1", "virt-launcher-vm-a")
        one.prove()

        gone(one, "VirtualMachineInstance", "vm")
        one.journal.kept.clear()
        one.prove()


def test_where_no_pool_of_the_new_pod_has_the_address_the_machine_gets_another(tmp_path: Path):
    """On the other node other pools serve: the pod that it comes from keeps what it uses until its DEL."""
    elsewhere = pool("there", "10.7.0.0/16", "10.7.0.1-10.7.0.9", default=False)
    to_there = launcher("vm", "b", ippool='{"ipv4": ["there"]}')
    objects = [V4, elsewhere, machine("vm"), instance("vm"), LAUNCHERS[0], to_there]
    with rig(tmp_path, *objects) as one:
        one.add(SOURCE)
        assert one.add(TARGET) == ["10.7.0.1"]
        check(one, SOURCE)
        assert one.delete(SOURCE) == 1
        one.prove()


def test_a_machine_s_addresses_are_a_pod_s_where_that_is_switched_off(tmp_path: Path):
    objects = [V4, machine("vm"), instance("vm"), *LAUNCHERS]
    with rig(tmp_path, *objects, settings=Settings(enable_kubevirt=False)) as one:
        assert one.add(SOURCE) == ["10.6.0.1"]
        assert one.add(TARGET) == ["10.6.0.2"]
        one.delete(SOURCE)
        one.prove()
        assert endpoint(one, "virt-launcher-vm-b")["ownerControllerType"] == "VirtualMachineInstance"


# -- other controllers ---------------------------------------------------------------------------------------


def test_pods_of_controllers_that_nobody_here_knows_are_allocated_like_any(tmp_path: Path):
    """Also where the kind is called StatefulSet: which of its pods would come back is not known."""
    kruise = pod("db-0", owner="apps.kruise.io/v1beta1 StatefulSet db")
    clone = pod("c-x", owner="apps.kruise.io/v1alpha1 CloneSet c")
    with rig(tmp_path, V4, kruise, clone, statefulset("db", 1)) as one:
        one.add(sandbox("c1", pod="db-0"))
        one.add(sandbox("c2", pod="c-x"))
        assert {record["owner"] for record in records(one.inner).values()} == {
            "StatefulSet.apps.kruise.io/db",
            "CloneSet.apps.kruise.io/c",
        }
        eventually(lambda: _assert(endpoint(one, "c-x")["ownerControllerType"] == "CloneSet"))
        eventually(lambda: _assert(endpoint(one, "db-0")["ownerControllerName"] == "db"))

        one.delete(sandbox("c1", pod="db-0"))
        one.prove()


def test_a_deployment_s_pod_is_shown_as_the_deployment_s(tmp_path: Path):
    owned = pod("web-7d9f-abcde", owner="apps/v1 ReplicaSet web-7d9f")
    owned["metadata"]["labels"] = {"pod-template-hash": "7d9f"}
    with rig(tmp_path, V4, owned) as one:
        one.add(sandbox("c1", pod="web-7d9f-abcde"))
        eventually(lambda: _assert(endpoint(one, "web-7d9f-abcde")))
        status = endpoint(one, "web-7d9f-abcde")
        assert (status["ownerControllerType"], status["ownerControllerName"]) == ("Deployment", "web")
