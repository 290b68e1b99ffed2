"""check: what is sound is told to be, what is not is found, and repaired only when told to."""

from __future__ import annotations

import threading

import pytest

from actors.store.contract import Object
from actors.store.sqlite.store import SQLiteStore
from cni.command.check import CLEAN, FOUND, UNREADABLE
from tests.support.rig import rig, sandbox, statefulset

QUICK = ("--wait", "0.1")


@pytest.fixture
def served(orbweaver, make_pool):
    """A store that an agent served, with one pod that holds an address."""
    orbweaver.apply(make_pool("blue", default=True))
    with rig(orbweaver.directory) as one:
        one.add(sandbox("c1", pod="web"))
        one.prove()
    return orbweaver


def state(orbweaver) -> dict[str, Object]:
    """Every object that a check might touch."""
    store = orbweaver.store()
    found = {}
    for kind in ("SpiderIPBlock", "SpiderEndpoint", "SpiderIPPool"):
        for obj in store.list(kind).items:
            found[f"{kind} {obj['metadata']['name']}"] = obj
    store.close()
    return found


def break_views(orbweaver) -> None:
    store = orbweaver.store()
    found = store.get("SpiderEndpoint", "web", "default")
    store.update({**found, "status": {"current": {"ips": []}}})
    metadata = {"name": "ghost", "namespace": "default"}
    store.create({**found, "metadata": metadata})
    pool = store.get("SpiderIPPool", "blue")
    store.update_status({**pool, "status": {**pool["status"], "allocatedIPCount": 77}})
    store.close()


def test_a_sound_store_is_clean(served):
    before = state(served)

    done = served("check")

    assert done.status == CLEAN, done.out
    assert "1 pools, 1 blocks, 1 addresses, 1 endpoints: nothing found" in done.out
    assert served("check", "-o", "json").json["clean"] is True
    assert state(served) == before


def test_findings_are_told_with_their_remedy_and_nothing_is_changed(served):
    break_views(served)
    before = state(served)

    done = served("check", *QUICK)

    assert done.status == FOUND
    for told in (
        "endpoint   default/web",
        "endpoint   default/ghost",
        "status     blue",
        "--repair writes it anew",
    ):
        assert told in done.out, done.out
    assert "3 findings" in done.out
    assert state(served) == before


def test_repair_writes_views_anew_says_so_and_has_nothing_left_to_do(served):
    break_views(served)

    done = served("check", "--repair", *QUICK, "-o", "json")

    assert done.status == CLEAN, done.out
    assert set(done.json["repairs"]) == {
        "writing the status of pool blue",
        "writing the SpiderEndpoint of pod default/ghost",
        "writing the SpiderEndpoint of pod default/web",
    }
    after = state(served)
    assert served("check", "--repair", *QUICK, "-o", "json").json["repairs"] == []
    assert state(served) == after


def test_repair_releases_what_no_statefulset_wants_and_leaves_the_rest(served):
    """One is kept for a StatefulSet that does not exist, one for one that does, one belongs to a pod."""
    store = served.store()
    store.create(statefulset("db", 1))
    store.close()
    served.record("10.6.0.15", "blue", "default/old-0", container="", owner="StatefulSet/old")
    served.record("10.6.0.16", "blue", "default/db-0", container="", owner="StatefulSet/db")

    told = served("check", *QUICK)
    done = served("check", "--repair", *QUICK)

    assert "kept       10.6.0.15       StatefulSet/old does not want pod default/old-0 any more" in told.out
    assert done.status == CLEAN, done.out
    assert "released 10.6.0.15: StatefulSet/old does not want" in done.out
    assert "free since" in served("ip", "show", "10.6.0.15").out
    assert "kept for the next pod" in served("ip", "show", "10.6.0.16").out
    assert "in use by pod default/web" in served("ip", "show", "10.6.0.10").out


def test_a_damaged_block_is_found_and_its_pods_views_stay(served):
    """The view is all that is left to tell who had the addresses."""
    store = served.store()
    (block,) = store.list("SpiderIPBlock").items
    store.close()
    served.damage(block["metadata"]["name"])

    done = served("check", "--repair", *QUICK)

    assert done.status == FOUND
    assert "its content cannot be read" in done.out
    assert "SpiderEndpoint default web" in {
        f"SpiderEndpoint default {obj['metadata']['name']}"
        for obj in state(served).values()
        if obj["kind"] == "SpiderEndpoint"
    }


def test_a_record_that_cannot_be_judged_is_found_with_its_remedy_and_its_pods_view_stays(served):
    served.spoil("10.6.0.10")

    done = served("check", "--repair", *QUICK)

    assert done.status == FOUND
    assert "10.6.0.10" in done.out
    assert "its record cannot be judged" in done.out
    assert "ip release ADDRESS --force" in done.out
    assert "lists and should not" not in done.out
    assert [obj["metadata"]["name"] for obj in state(served).values() if obj["kind"] == "SpiderEndpoint"] == [
        "web"
    ]

    assert served("ip", "release", "10.6.0.10", "--force").status == 0
    assert served("check", "--repair", *QUICK).status == CLEAN


def test_a_store_that_is_not_there_cannot_be_checked(orbweaver):
    done = orbweaver("check")

    assert done.status == UNREADABLE
    assert "could not be checked" in done.err


def test_what_changes_meanwhile_is_in_flux(served, monkeypatch):
    """An ADD that a writer records between the looks; its views come later than the second look."""
    looked = threading.Event()
    real = SQLiteStore.list

    def listing(self, kind, *rest, **more):
        found = real(self, kind, *rest, **more)
        if kind == "StatefulSet" and not looked.is_set():  # the last that a look reads
            looked.set()
            served.record("10.6.0.11", "blue", "default/late")
        return found

    break_views(served)
    monkeypatch.setattr(SQLiteStore, "list", listing)

    done = served("check", *QUICK, "-o", "json").json

    assert looked.is_set()
    assert "default/late" not in {one["object"] for one in done["findings"]}
    assert done["inFlux"] >= 1


def test_repair_beside_an_agent_that_goes_on_serving(orbweaver, make_pool):
    """The agent's own Block and Views meet writes that are not theirs."""
    orbweaver.apply(make_pool("blue", default=True))
    orbweaver.record("10.6.0.10", "blue", "default/old-0", container="", owner="StatefulSet/old")
    with rig(orbweaver.directory) as one:
        one.add(sandbox("c1", pod="web"))
        one.prove()
        break_views(orbweaver)

        done = orbweaver("check", "--repair", *QUICK)

        assert done.status == CLEAN, done.out
        addresses = {*one.add(sandbox("c2", pod="next")), *one.add(sandbox("c3", pod="third"))}
        assert len(addresses) == 2
        one.delete(sandbox("c1", pod="web"))
        one.prove()


def test_notes_of_the_runtime_that_end_nothing_are_listed(served, tmp_path) -> None:
    """After a power failure: an empty one, one cut off, and none where the others have one."""
    notes = tmp_path / "results"
    notes.mkdir()
    assert served("check", *QUICK, "--notes", str(notes)).status == CLEAN, (
        "notes that are elsewhere prove nothing"
    )
    with rig(served.directory) as one:
        one.add(sandbox("c2", pod="db"))
        one.add(sandbox("c3", pod="cache"))
    (notes / "net-c1-eth0").write_text('{"containerId": "c1", "netns": "/run/netns/x"}')
    (notes / "net-c2-eth0").write_text("")
    (notes / "net-c9-eth0").write_text('{"containerId": ')

    found = served("check", *QUICK, "--notes", str(notes))

    assert found.status == FOUND
    out = found.out
    assert "net-c2-eth0" in out and "it is empty" in out
    assert "net-c9-eth0" in out and "not JSON" in out
    assert "no note of container c3 of pod default/cache" in out
    assert "container c1" not in out and "container c2" not in out
    assert "remove the file" in out
