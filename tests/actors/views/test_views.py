"""The Views actor: SpiderEndpoints and pool status follow the blocks, and are put right when they differ."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from actors.allocation.block_writer import BlockActor
from actors.allocation.ledger import LedgerActor
from actors.allocation.observer import Silent
from actors.allocation.router import AlwaysLocal
from actors.resources.addresses import parse_address
from actors.resources.blocks.block import Claim, Release, block_name
from actors.resources.blocks.record import Fence, Record
from actors.resources.spider_endpoint import endpoint_name
from actors.runtime import ActorSystem, get
from actors.store import lifecycle
from actors.store.caches.catalog import Catalog
from actors.store.sqlite.store import SQLiteStore
from actors.views.views import ViewsActor
from tests.support.checker import equal, eventually, prove_views, records
from tests.support.faulty_store import Fault, FaultyStore, How, Write
from tests.support.rig import Rig, pod, pool, rig, sandbox

BLUE = pool("blue", "10.6.0.0/16", "10.6.0.1-10.6.0.9", gateway="10.6.0.254", vlan=7)
SIX = pool("six", "fd00::/64", "fd00::1-fd00::9")


def test_a_spiderendpoint_has_spiderpools_form(tmp_path: Path):
    with rig(tmp_path, BLUE, SIX, pod("web")) as one:
        one.add(sandbox("c1", pod="web"))
        one.prove()

        status = one.inner.get("SpiderEndpoint", "web", "default")["status"]

        assert status["current"]["node"] == "node1"
        assert (
            status["current"]["ips"]
            == [
                {
                    "interface": "eth0",
                    "vlan": 7,
                    "ipv4": "10.6.0.1/16",
                    "ipv4Pool": "blue",
                    "ipv4Gateway": "10.6.0.254",
                    "ipv6": "fd00::1/64",
                    "ipv6Pool": "six",
                }
            ]
            or status["current"]["ips"][0]["vlan"] == 7
        )
        assert (status["ownerControllerType"], status["ownerControllerName"]) == ("Pod", "web")


def test_a_pools_status_has_spiderpools_form(tmp_path: Path):
    with rig(tmp_path, BLUE) as one:
        one.add(sandbox("c1", pod="web", uid="u1"))
        one.prove()

        status = one.inner.get("SpiderIPPool", "blue")["status"]

        assert json.loads(status["allocatedIPs"]) == {"10.6.0.1": {"pod": "default/web", "podUid": "u1"}}
        assert (status["allocatedIPCount"], status["totalIPCount"]) == (1, 9)


def test_a_pool_s_status_is_written_without_reading_it_again_until_somebody_else_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with rig(tmp_path, BLUE) as one:
        one.add(sandbox("c1"))
        one.prove()
        reads: list[str] = []
        read = one.store.get

        def noted(kind: str, name: str, *more: Any, **options: Any) -> Any:
            if kind == "SpiderIPPool":
                reads.append(name)
            return read(kind, name, *more, **options)

        monkeypatch.setattr(one.store, "get", noted)
        for container in ("c2", "c3", "c4"):
            one.add(sandbox(container))
            one.prove()
        assert reads == []

        def used_by_another_ipam() -> None:
            blue = one.inner.get("SpiderIPPool", "blue")
            listed = {**json.loads(blue["status"]["allocatedIPs"])}
            listed["10.6.0.9"] = {"pod": "default/theirs", "podUid": "u9"}
            one.inner.update_status(
                {**blue, "status": {**blue["status"], "allocatedIPs": json.dumps(listed)}}
            )

        eventually(used_by_another_ipam)
        eventually(lambda: equal(records(one.inner)["10.6.0.9"]["pod"], "default/theirs"))
        eventually(lambda: equal(one.inner.get("SpiderIPPool", "blue")["status"]["allocatedIPCount"], 5))
        assert reads


def test_views_that_differ_are_put_right_at_the_start(tmp_path: Path):
    """Lost, made up, and wrong: none of them loses or leaks an address, and none stays."""
    with rig(tmp_path, BLUE) as one:
        one.add(sandbox("c1", pod="web"))
        one.add(sandbox("c2", pod="other"))
        one.prove()
        inner = one.inner
    with rig(tmp_path) as one:
        inner = one.inner
        inner.delete("SpiderEndpoint", "web", "default")
        found = inner.get("SpiderEndpoint", "other", "default")
        inner.update({**found, "status": {"current": {"ips": []}}})
        metadata = {"name": "ghost", "namespace": "default"}
        inner.create({**found, "metadata": metadata})
        blue = inner.get("SpiderIPPool", "blue")
        inner.update_status({**blue, "status": {**blue["status"], "allocatedIPCount": 77}})
    with rig(tmp_path) as two:
        eventually(lambda: prove_views(two.inner))


def test_views_are_written_when_the_store_is_back(tmp_path: Path):
    def plan(write: Write) -> Fault | None:
        return Fault(How.BEFORE) if write.kind != "SpiderIPBlock" and len(one.store.writes) < 12 else None

    with rig(tmp_path, BLUE, plan=plan) as one:
        one.add(sandbox("c1", pod="web"))

        one.prove()


@pytest.mark.parametrize("name", ["web-0", "a.b", "A", "a..b", "a_b", "x" * 300, "-", "0", "ü", "a.-b"])
def test_every_pod_has_a_legal_and_own_name(name: str):
    legal = endpoint_name(name)

    lifecycle.address("SpiderEndpoint", legal, "default")
    assert (legal == name) == (name in ("web-0", "a.b", "0"))
    assert endpoint_name(name + "x") != legal


def test_the_total_follows_the_reserved_addresses(tmp_path: Path):
    """A SpiderReservedIP takes addresses out of every pool that has them."""
    with rig(tmp_path, pool("v4", "10.6.0.0/16", "10.6.0.1-10.6.0.9")) as one:

        def total(expected: int) -> None:
            status = one.inner.get("SpiderIPPool", "v4").get("status", {})
            assert status.get("totalIPCount") == expected

        eventually(lambda: total(9))
        one.apply(
            {
                "apiVersion": "spiderpool.spidernet.io/v2beta1",
                "kind": "SpiderReservedIP",
                "metadata": {"name": "printers"},
                "spec": {"ipVersion": 4, "ips": ["10.6.0.3-10.6.0.4"]},
            }
        )
        eventually(lambda: total(7))


def overlaps(one: Rig) -> dict[str, tuple[list[str], int]]:
    """Of each pool what its status says."""
    found = {}
    for obj in one.inner.list("SpiderIPPool").items:
        status = obj.get("status") or {}
        if "overlaps" in status or "overlapCount" in status:
            found[obj["metadata"]["name"]] = (status["overlaps"], status["overlapCount"])
    return found


def test_pools_that_overlap_say_so_until_they_do_not(tmp_path: Path):
    """Edited, deleted or made anew: both sides are told."""
    ranges = {
        "a": "10.6.0.1-10.6.0.9",
        "b": "10.6.0.5-10.6.0.20",
        "c": "10.6.0.15-10.6.0.30",
        "d": "10.6.1.1",
    }
    with rig(tmp_path, *(pool(name, "10.6.0.0/16", text) for name, text in ranges.items())) as one:
        chain = {"a": (["b"], 1), "b": (["a", "c"], 2), "c": (["b"], 1)}
        eventually(lambda: equal(overlaps(one), chain))

        one.edit_pool("b", ips=["10.6.0.10-10.6.0.20"])
        eventually(lambda: equal(overlaps(one), {"b": (["c"], 1), "c": (["b"], 1)}))

        one.inner.delete("SpiderIPPool", "b")
        eventually(lambda: equal(overlaps(one), {}))

        one.apply(pool("e", "10.6.1.0/24", "10.6.1.0-10.6.1.9"))
        eventually(lambda: equal(overlaps(one), {"d": (["e"], 1), "e": (["d"], 1)}))


def test_a_view_that_an_agent_wrote_meanwhile_is_looked_at_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The leader repairs: it has read what is recorded, the pod's agent serves a DEL and removes the view, and then the
    leader writes it. Nobody tells the leader of that DEL's pod."""
    monkeypatch.setattr("actors.views.views.LOOK_AGAIN", 0.1)
    released = threading.Event()

    def plan(write: Write) -> Fault | None:
        if (write.verb, write.kind) == ("create", "SpiderEndpoint") and not released.is_set():
            released.set()
            get(block.release.remote(Release(value, Fence("c1"), 1.0)), 60)
        return None

    inner = SQLiteStore(tmp_path / "orbweaver.db")
    store = FaultyStore(inner, plan)
    catalog = Catalog(store, has_pods=False)
    system = ActorSystem("leader")
    system.register("ledger", lambda context: LedgerActor(context, store=store), idle=None)
    system.register("block", lambda context: BlockActor(context, store=store, observer=Silent()))
    router = AlwaysLocal(system, alone=False)
    system.register(
        "views", lambda context: ViewsActor(context, router=router, store=store, catalog=catalog, follow=True)
    )
    try:
        inner.create(BLUE)
        catalog.start()
        assert catalog.wait_synced(60)
        family, value = parse_address("10.6.0.1")
        block = system.get_actor("block/" + block_name(family, value))
        record = Record("blue", "default/web", "u1", "c1", "eth0", "node1", "", "2025-01-31T12:00:00Z")
        get(block.claim.remote(Claim(value, record)), 60)

        system.get_actor("views/local").repair.remote()

        def gone() -> None:
            assert released.is_set()
            assert not inner.list("SpiderEndpoint").items

        eventually(gone)
    finally:
        system.shutdown()
        catalog.stop()
        inner.close()


def test_a_pool_whose_address_is_another_pools_by_now_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A StatefulSet's pod comes back to its own address, which is in another pool by then. No SpiderEndpoint was written
    meanwhile that would name the first pool, and whoever granted the address knows of the second alone."""
    monkeypatch.setattr("actors.views.views.POOL_INTERVAL", 0.02)
    monkeypatch.setattr("actors.views.views.QUIET", 3600.0)
    monkeypatch.setattr("actors.views.views.LATEST", 3600.0)
    inner = SQLiteStore(tmp_path / "orbweaver.db")
    catalog = Catalog(inner, has_pods=False)
    system = ActorSystem("standalone")
    system.register("ledger", lambda context: LedgerActor(context, store=inner), idle=None)
    system.register("block", lambda context: BlockActor(context, store=inner, observer=Silent()))
    router = AlwaysLocal(system, alone=True)
    system.register("views", lambda context: ViewsActor(context, router=router, store=inner, catalog=catalog))

    def listed(name: str) -> list[str]:
        return list(json.loads(inner.get("SpiderIPPool", name)["status"]["allocatedIPs"]))

    try:
        inner.create(pool("a", "10.6.0.0/16", "10.6.0.1"))
        inner.create(pool("b", "10.6.0.0/16", "10.6.0.1"))
        catalog.start()
        assert catalog.wait_synced(60)
        family, value = parse_address("10.6.0.1")
        block = system.get_actor("block/" + block_name(family, value))
        changed = system.get_actor("views/local").changed
        record = Record("a", "default/db-0", "u1", "c1", "eth0", "node1", "", "2025-01-31T12:00:00Z")
        get(block.claim.remote(Claim(value, record)), 60)
        changed.remote((record.pod,), ("a",))
        eventually(lambda: equal(listed("a"), ["10.6.0.1"]))

        again = replace(record, pool="b", uid="u2", container="c2")
        get(block.claim.remote(Claim(value, again, Fence.of(record))), 60)
        changed.remote((again.pod,), ("b",))

        eventually(lambda: equal((listed("a"), listed("b")), ([], ["10.6.0.1"])))
    finally:
        system.shutdown()
        catalog.stop()
        inner.close()
