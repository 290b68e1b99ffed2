"""The GC actor: addresses whose holder is gone come back, and nobody else's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from actors.reclaim.node_gc import is_stale
from actors.reclaim.stale_sandboxes import NotedSandboxes, is_left_behind
from actors.resources.blocks.block import Block, Release, block_name
from actors.resources.blocks.record import Fence, Record
from actors.runtime import get
from tests.support.checker import equal, eventually, prove_records, records
from tests.support.faulty_store import Write
from tests.support.rig import Rig, pod, pool, rig, sandbox, statefulset

BLUE = pool("blue", "10.6.0.0/16", "10.6.0.1-10.6.0.9")


def collect(one: Rig, *valid: tuple[str, str], network: str = "net") -> int:
    found: int = get(one.system.get_actor("node-gc/local").collect.remote(network, valid), 60)
    return found


def gone(one: Rig, *places: tuple[str, str]) -> None:
    for place in places:
        one.journal.releasing(place)
        one.journal.released(place)


def test_stale_is_what_ran_here_in_that_network_and_is_not_listed():
    record = Record("blue", "default/web", "u1", "c1", "net1", "node1", "", "", "net", "eth0")

    assert is_stale(record, "node1", "net", set())
    assert is_stale(record, "node1", "net", {("c2", "net1"), ("c1", "net2")})
    assert not is_stale(record, "node1", "net", {("c1", "net1")})
    assert not is_stale(record, "node1", "net", {("c1", "eth0")}), "the interface that reserved it is alive"
    assert not is_stale(record, "node2", "net", set())
    assert not is_stale(record, "node1", "other", set())
    assert not is_stale(record.retained(), "node1", "net", set()), (
        "what is kept for a pod is not a container's"
    )


def test_gc_releases_what_is_not_valid_and_a_second_time_nothing(tmp_path: Path):
    with rig(tmp_path, BLUE) as one:
        for number in range(4):
            one.add(sandbox(f"c{number}"))

        assert collect(one, ("c1", "eth0"), ("c3", "eth0")) == 2
        gone(one, ("c0", "eth0"), ("c2", "eth0"))
        one.prove()
        assert collect(one, ("c1", "eth0"), ("c3", "eth0")) == 0
        assert collect(one, network="another") == 0
        one.prove()


def test_gc_keeps_the_address_of_a_statefulset_pod_for_it(tmp_path: Path):
    """After a reboot nothing is valid any more; the pods come back, and want their own addresses."""
    with rig(tmp_path, BLUE, statefulset("db", 1), pod("db-0", statefulset="db")) as one:
        first = one.add(sandbox("c1", pod="db-0"))
        one.add(sandbox("c2"))

        collect(one)

        gone(one, ("c1", "eth0"), ("c2", "eth0"))
        one.journal.kept = {first[0]: "default/db-0"}
        one.prove()
        assert one.add(sandbox("c3", pod="db-0")) == first
        one.journal.kept = {}
        one.prove()


def test_gc_keeps_nothing_for_an_owner_that_goes_while_it_is_written(tmp_path: Path):
    """Of the StatefulSet's end the same actor hears, and looks when it has written."""

    def plan(write: Write) -> None:
        if write.kind == "SpiderIPBlock" and write.among_alike("*", "SpiderIPBlock") == 2:
            one.inner.delete("StatefulSet", "db", "default")
            eventually(lambda: equal(one.agent.catalog.statefulset("default", "db"), None))

    with rig(tmp_path, BLUE, statefulset("db", 1), pod("db-0", statefulset="db"), plan=plan) as one:
        one.add(sandbox("c1", pod="db-0"))

        assert collect(one) == 1
        eventually(lambda: equal(records(one.inner), {}))
        gone(one, ("c1", "eth0"))
        one.prove()


def reconcile(one: Rig, *, alive: str = "", gone: str = "") -> int:
    found = NotedSandboxes(frozenset(alive.split()), frozenset(gone.split()))
    released: int = get(one.system.get_actor("node-gc/local").reconcile.remote(found), 60)
    return released


def test_on_a_host_the_sandboxes_that_are_gone_give_back_what_they_hold(tmp_path: Path):
    """As after a reboot; a sandbox that the runtime has no note of may be just starting."""
    with rig(tmp_path, BLUE, statefulset("db", 1), pod("db-0", statefulset="db")) as one:
        (kept,) = one.add(sandbox("c1", pod="db-0"))
        for number in (2, 3, 4):
            one.add(sandbox(f"c{number}"))

        assert reconcile(one, alive="c3", gone="c1 c2 never-seen") == 2
        gone(one, ("c1", "eth0"), ("c2", "eth0"))
        one.journal.kept = {kept: "default/db-0"}
        one.prove()
        assert reconcile(one, alive="c3", gone="c1 c2") == 0


@pytest.mark.parametrize(
    "alive, gone, released",
    [
        ("new", "old", True),
        ("new", "", True),
        ("new old", "", False),
        ("", "old", False),
        ("", "old new", False),
        ("old", "", False),
        ("other", "old", False),
    ],
)
def test_in_a_cluster_a_sandbox_is_left_behind_only_beside_a_newer_one_that_is_there(
    alive: str, gone: str, released: bool
):
    """The kubelet makes a new sandbox for a pod whose sandbox went, and that one takes the address over."""
    old = Record("blue", "default/web", "u1", "old", "eth0", "node1", "", "2025-01-31T12:00:00Z", "net")
    new = replace(old, container="new", since="2025-01-31T12:00:05Z")
    sandboxes = NotedSandboxes(frozenset(alive.split()), frozenset(gone.split()))

    assert is_left_behind(old, [old, new], sandboxes, has_pods=True) is released
    assert not is_left_behind(new, [old, new], sandboxes, has_pods=True)
    assert not is_left_behind(old.retained(), [old, new], sandboxes, has_pods=True)
    assert not is_left_behind(old, [old, replace(new, node="node2")], sandboxes, has_pods=True)
    assert not is_left_behind(old, [old, replace(new, since=old.since)], sandboxes, has_pods=True)


def test_what_was_kept_goes_when_the_statefulset_shrinks_or_is_deleted(tmp_path: Path):
    pods = [pod(f"db-{number}", statefulset="db") for number in range(3)]
    with rig(tmp_path, BLUE, statefulset("db", 3), *pods) as one:
        kept = {}
        for number in range(3):
            (address,) = one.add(sandbox(f"c{number}", pod=f"db-{number}"))
            one.delete(sandbox(f"c{number}", pod=f"db-{number}"))
            kept[address] = f"default/db-{number}"
        one.journal.kept = kept
        one.prove()

        found = one.inner.get("StatefulSet", "db", "default")
        one.inner.update({**found, "spec": {"replicas": 1}})
        one.journal.kept = {address: name for address, name in kept.items() if name == "default/db-0"}
        eventually(lambda: prove_records(one.inner, one.journal))
        one.prove()

        one.inner.delete("StatefulSet", "db", "default")
        one.journal.kept = {}
        eventually(lambda: prove_records(one.inner, one.journal))
        one.prove()


def test_a_running_pod_of_a_deleted_statefulset_keeps_its_address(tmp_path: Path):
    with rig(tmp_path, BLUE, statefulset("db", 1), pod("db-0", statefulset="db")) as one:
        one.add(sandbox("c1", pod="db-0"))
        one.inner.delete("StatefulSet", "db", "default")

        swept: int = get(one.system.get_actor("node-gc/local").sweep_kept.remote(), 60)

        assert swept == 0
        one.prove()
        one.delete(sandbox("c1", pod="db-0"))
        one.prove()


def test_gc_ends_the_suspicion_against_what_is_not_valid_any_more(tmp_path: Path):
    with rig(tmp_path, BLUE) as one:
        for number in range(3):
            one.add(sandbox(f"c{number}"))
        for held in get(one.system.get_actor("ledger/local").everything.remote()):
            block = one.system.get_actor("block/" + block_name(held.family, held.value))
            assert get(
                block.release.remote(Release(held.value, Fence.of(held.record), 1.0, forced=True))
            ).done

        collect(one, ("c1", "eth0"))

        (obj,) = one.inner.list("SpiderIPBlock").items
        assert [suspect.container for suspect in Block.from_object(obj).suspect.values()] == ["c1"]
