"""Blocks that are damaged, or too large for one object: nobody is told that their addresses are in use, and what mends
the block is enough."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from actors.errors import AddressTaken, InvalidObject, InvalidRequest, NoAddress, PodRefused
from actors.resources.blocks.block import Block, Claim, Discard, Granted, Release
from actors.resources.blocks.record import Fence, Record
from actors.resources.blocks.suspect import Suspect
from actors.resources.blocks.unjudged import Unjudged
from actors.runtime import get
from actors.store.lifecycle import MAX_OBJECT_BYTES, encode
from tests.support.checker import equal, eventually
from tests.support.faulty_store import Fault, Write
from tests.support.rig import Rig, pool, rig, sandbox

BASE = 0x0A060000
NAME = "v4-0a060000"
RECORD = Record("blue", "default/old", "", "old", "eth0", "node1", "", "2025-01-31T12:00:00Z")
GIANT = replace(RECORD, container="x" * MAX_OBJECT_BYTES)
ADDRESSES = pool("blue", "10.6.0.0/16", "10.6.0.1-10.6.0.60")


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.allocation.pool.LOOK_AGAIN", 0.3)


def damaged() -> dict[str, Any]:
    block = Block(4, BASE, {BASE + 1: RECORD}).to_object()
    return {**block, "spec": {**block["spec"], "records": "{"}}


def nearly_full(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """It has room for what is in it, and for no other record."""
    records = {BASE + number: replace(RECORD, container=f"{number:0253d}") for number in range(1, 41)}
    block = Block(4, BASE, records).to_object()
    monkeypatch.setattr("actors.store.lifecycle.MAX_OBJECT_BYTES", len(encode(block)) + 20)
    return block


def test_a_damaged_block_is_named_in_the_refusal_and_serves_again_once_it_is_mended(tmp_path: Path):
    with rig(tmp_path, ADDRESSES, damaged()) as one:
        with pytest.raises(NoAddress) as refused:
            one.add(sandbox("c1"))
        text = str(refused.value)
        assert f"0 are in use and 60 are in blocks that cannot be used ({NAME}); mend the blocks" in text
        assert f"SpiderIPBlock {NAME} is damaged" in text
        assert "orbweaver check" in text
        assert "all 60" not in text
        (usage,) = one.agent.usage()
        assert (usage.total, usage.used, usage.lost) == (60, 0, 60)

        found = one.inner.get("SpiderIPBlock", NAME)
        one.inner.update({**found, "spec": {**found["spec"], "records": "{}"}})

        eventually(lambda: equal(one.add(sandbox("c1")), ["10.6.0.1"]))
        (usage,) = one.agent.usage()
        assert (usage.total, usage.used, usage.lost) == (60, 1, 0)
        one.prove()


def test_a_pod_that_asks_for_an_address_of_a_damaged_block_is_told_so(tmp_path: Path):
    with rig(tmp_path, ADDRESSES, damaged()) as one:
        with pytest.raises(NoAddress, match=f"{NAME} is damaged") as refused:
            one.add(sandbox("c1"), exact=["10.6.0.7"])
        assert not isinstance(refused.value, AddressTaken), "nobody knows whether it is taken"


def test_a_block_that_is_too_large_is_not_called_damaged_and_others_serve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    full = nearly_full(monkeypatch)
    with rig(tmp_path, pool("blue", "10.6.0.0/16", "10.6.0.60-10.6.0.64"), full) as one:
        assert one.add(sandbox("c1")) == ["10.6.0.64"]

        with pytest.raises(NoAddress) as refused:
            one.add(sandbox("c2"))

        text = str(refused.value)
        assert f"1 are in use and 4 are in blocks that cannot be used ({NAME})" in text
        assert "bytes (1.5 MiB) at most" in text
        assert "damaged" not in text
        (usage,) = one.agent.usage()
        assert usage.lost == 0

        assert one.delete(sandbox(f"{1:0253d}", pod="old")) == 1
        assert one.delete(sandbox(f"{2:0253d}", pod="old")) == 1
        eventually(lambda: equal(one.add(sandbox("c2")), ["10.6.0.60"]))


def test_what_the_store_refuses_for_one_request_is_not_refused_for_those_beside_it(tmp_path: Path):
    gate, reached = threading.Event(), threading.Event()

    def plan(write: Write) -> Fault | None:
        if write.kind == "SpiderIPBlock":
            reached.set()
            gate.wait(60)
        return None

    with rig(tmp_path, ADDRESSES, Block(4, BASE, {BASE + 1: RECORD}).to_object(), plan=plan) as one:
        block = one.system.get_actor(f"block/{NAME}")
        first = block.claim.remote(Claim(BASE + 2, replace(RECORD, container="c2", pod="default/c2")))
        assert reached.wait(60)
        too_large = block.claim.remote(Claim(BASE + 3, replace(GIANT, pod="default/c3")))
        beside = block.claim.remote(Claim(BASE + 4, replace(RECORD, container="c4", pod="default/c4")))
        release = block.release.remote(Release(BASE + 1, Fence.of(RECORD), 1.0))
        gate.set()

        get(first, 60)
        with pytest.raises(PodRefused, match="its container has 1572864 characters, but may have 253 bytes"):
            get(too_large, 60)
        assert get(beside, 60).fresh
        assert get(release, 60).done
        stored = Block.from_object(one.inner.get("SpiderIPBlock", NAME))
        assert stored.records.keys() == {BASE + 2, BASE + 4}


@pytest.mark.parametrize("value", [5, -1, BASE + 64, 1 << 130])
def test_a_claim_of_an_address_elsewhere_is_refused_and_harms_no_block(tmp_path: Path, value: int):
    """Written into this block nobody would find it, and the block could not be read any more."""
    with rig(tmp_path, ADDRESSES) as one:
        block = one.agent.system.get_actor(f"block/{NAME}")
        for refused in (
            block.claim.remote(Claim(value, RECORD)),
            block.release.remote(Release(value, Fence("old"), 0.0)),
        ):
            with pytest.raises(InvalidRequest, match="no address of block"):
                get(refused, timeout=60)
        assert one.add(sandbox("c1")) == ["10.6.0.1"]
        one.delete(sandbox("c1"))


def test_a_version_that_is_none_ends_no_ledger(tmp_path: Path):
    with rig(tmp_path, ADDRESSES) as one:
        ledger = one.agent.system.get_actor("ledger/local")
        with pytest.raises(InvalidObject, match="not the version"):
            get(ledger.reached.remote(((4, BASE, "abc"),)), timeout=60)
        assert one.add(sandbox("c1")) == ["10.6.0.1"]
        assert one.agent.fatal is None
        one.delete(sandbox("c1"))


BROKEN = "#default/:blue:eth0:node1: 1:0:old::old: 7:0:web:~no:c7: 9:0:nine::c9:"


def broken() -> dict[str, Any]:
    """Nobody can tell who has 10.6.0.7; 10.6.0.1 and 10.6.0.9 are in use."""
    block = Block(4, BASE).to_object()
    return {**block, "spec": {**block["spec"], "records": BROKEN}}


def unjudged(one: Rig) -> dict[int, str]:
    stored = Block.from_object(one.inner.get("SpiderIPBlock", NAME))
    return {value - BASE: entry.text for value, entry in stored.unjudged.items()}


def test_a_record_that_cannot_be_judged_costs_its_own_address(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """The others of its block are given, released and given again; it is carried on unchanged, and named once."""
    with rig(tmp_path, pool("blue", "10.6.0.0/16", "10.6.0.6-10.6.0.9"), broken()) as one:
        assert one.add(sandbox("c1")) == ["10.6.0.6"]
        assert one.add(sandbox("c2")) == ["10.6.0.8"]
        with pytest.raises(NoAddress) as refused:
            one.add(sandbox("c3"))
        text = str(refused.value)
        assert "3 are in use and 1 have a record that cannot be judged" in text
        assert "10.6.0.7 cannot be given: its record cannot be judged" in text
        assert "`orbweaver ip release 10.6.0.7 --force` frees it" in text
        (usage,) = one.agent.usage()
        assert (usage.total, usage.lost) == (4, 1)

        assert one.delete(sandbox("c9", pod="nine")) == 1
        assert one.add(sandbox("c3")) == ["10.6.0.9"]
        for container in ("c1", "c2", "c3"):
            assert one.delete(sandbox(container)) == 1
        assert unjudged(one) == {7: "#default/:blue:eth0:node1: 7:0:web:~no:c7:"}
    named = [line for line in caplog.records if "cannot be judged" in line.message]
    assert [line.__dict__["address"] for line in named] == ["10.6.0.7"]


def test_a_pod_that_asks_for_an_address_that_cannot_be_judged_is_told_so(tmp_path: Path):
    with rig(tmp_path, ADDRESSES, broken()) as one:
        for name in ("c1", "c2"):  # as the pool learns it from the Block, and as it knows it then
            with pytest.raises(NoAddress, match=r"10\.6\.0\.7 .*its record cannot be judged") as refused:
                one.add(sandbox(name), exact=["10.6.0.7"])
            assert not isinstance(refused.value, AddressTaken), "nobody knows whether it is taken"


def test_a_record_that_is_spoiled_under_an_agent_is_given_to_nobody(tmp_path: Path):
    """Another process's write is met in the next write of the block, which is decided anew."""
    with rig(tmp_path, pool("blue", "10.6.0.0/16", "10.6.0.7-10.6.0.8")) as one:
        assert one.add(sandbox("c1")) == ["10.6.0.7"]
        found = one.inner.get("SpiderIPBlock", NAME)
        spoiled = found["spec"]["records"].replace("7:0:", "7:9:")
        one.inner.update({**found, "spec": {**found["spec"], "records": spoiled}})

        assert one.add(sandbox("c2")) == ["10.6.0.8"]
        assert one.delete(sandbox("c1")) == 0, "nobody can tell that it is c1's"
        with pytest.raises(NoAddress, match="1 are in use and 1 have a record that cannot be judged"):
            one.add(sandbox("c3"))
        assert list(unjudged(one)) == [7]


def test_an_address_is_free_and_suspect_once_its_record_is_discarded(tmp_path: Path):
    with rig(tmp_path, pool("blue", "10.6.0.0/16", "10.6.0.7"), broken()) as one:
        with pytest.raises(NoAddress):
            one.add(sandbox("c1"))
        entry = Block.from_object(one.inner.get("SpiderIPBlock", NAME)).unjudged[BASE + 7]
        block = one.agent.system.get_actor(f"block/{NAME}")
        assert not get(block.discard.remote(Discard(BASE + 7, Unjudged.of("other", ""), 1.0)), 60).done
        assert get(block.discard.remote(Discard(BASE + 7, entry, 1.0)), 60).done

        stored = Block.from_object(one.inner.get("SpiderIPBlock", NAME))
        assert (stored.unjudged, stored.suspect) == ({}, {BASE + 7: Suspect()})
        given = get(block.claim.remote(Claim(BASE + 7, replace(RECORD, container="c7"))), 60)
        assert given == Granted(BASE + 7, replace(RECORD, container="c7"), suspect=Suspect())
