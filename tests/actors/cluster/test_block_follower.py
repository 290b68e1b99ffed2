"""Proves that the Ledger hears by the watch of what others write, and that nothing is read again of what it knows."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from actors.allocation.ledger_index import LedgerIndex
from actors.allocation.messages import AddressChange
from actors.cluster import block_follower
from actors.cluster.block_follower import BlockFollower
from actors.resources.blocks.block import Block, Claim
from actors.resources.blocks.record import Record
from actors.runtime import get
from tests.support.checker import equal, eventually
from tests.support.rig import Rig, rig

ADDRESS = 0x0A060001
NAME = "v4-0a060000"


def record(pod: str) -> Record:
    return Record("blue", pod, "u1", f"c-{pod[-1]}", "eth0", "node1", "", "2025-01-31T12:00:00Z")


@contextmanager
def followed(directory: Path) -> Iterator[tuple[Rig, BlockFollower]]:
    with rig(directory) as one:
        follower = BlockFollower(one.store, one.system)
        follower.start(60)
        try:
            yield one, follower
        finally:
            follower.stop()


def pods(one: Rig, *names: str) -> list[str]:
    told = get(one.system.get_actor("ledger/local").of_pods.remote(names), 60)
    return sorted(held.record.pod for held in told)


def becomes(told: Callable[[], object], expected: object) -> None:
    def prove() -> None:
        assert told() == expected

    eventually(prove)


def claim(one: Rig, value: int, pod: str) -> None:
    get(one.system.get_actor(f"block/{NAME}").claim.remote(Claim(value, record(pod), None)), 60)


def written_by_another(one: Rig, **fields: Any) -> None:
    obj = one.store.get("SpiderIPBlock", NAME)
    one.store.update({**obj, "spec": {**obj["spec"], **fields}})


def claimed_by_another(one: Rig, value: int, pod: str, attempt: str = "") -> None:
    block = Block.from_object(one.store.get("SpiderIPBlock", NAME))
    block.records[value] = replace(record(pod), claim=attempt)
    written_by_another(one, **block.to_object()["spec"])


def test_what_another_process_writes_the_ledger_knows(tmp_path: Path) -> None:
    with followed(tmp_path) as (one, _):
        claim(one, ADDRESS, "default/a")
        claimed_by_another(one, ADDRESS + 1, "default/b")
        becomes(lambda: pods(one, "default/a", "default/b"), ["default/a", "default/b"])

        one.store.delete("SpiderIPBlock", NAME)
        becomes(lambda: pods(one, "default/a", "default/b"), [])


def test_who_else_recorded_something_without_an_add_is_told_once(tmp_path: Path) -> None:
    told: list[tuple[Record, ...]] = []
    with rig(tmp_path) as one:
        claim(one, ADDRESS, "default/a")
        follower = BlockFollower(one.store, one.system, told.append)
        follower.start(60)
        try:
            claimed_by_another(one, ADDRESS + 1, "default/b")
            becomes(lambda: told, [(record("default/b"),)])
            # By an ADD, of which its agent knows.
            claimed_by_another(one, ADDRESS + 2, "default/c", "x1")
            claimed_by_another(one, ADDRESS + 3, "default/d")
            becomes(lambda: told, [(record("default/b"),), (record("default/d"),)])
            becomes(lambda: pods(one, "default/c"), ["default/c"])
        finally:
            follower.stop()


def test_what_cannot_be_read_stays_as_it_was_known(tmp_path: Path) -> None:
    with followed(tmp_path) as (one, _):
        claim(one, ADDRESS, "default/a")
        written_by_another(one, records="nonsense")
        ledger = one.system.get_actor("ledger/local")
        becomes(lambda: get(ledger.damaged.remote(), 60), ((4, 0x0A060000),))

        assert pods(one, "default/a") == ["default/a"]


def test_what_this_process_wrote_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def content_of(block: Block) -> tuple[AddressChange, ...]:
        read.append(block.version)
        return ()

    monkeypatch.setattr(block_follower, "content_of", content_of)
    with rig(tmp_path) as one:
        claim(one, ADDRESS, "default/a")
        follower = BlockFollower(one.store, one.system)
        follower.start(60)
        try:
            claimed_by_another(one, ADDRESS + 1, "default/b")
            by_another = one.store.get("SpiderIPBlock", NAME)["metadata"]["resourceVersion"]
            becomes(lambda: read, [by_another])
        finally:
            follower.stop()


def test_a_ledger_that_is_busy_takes_no_block_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks for an address waits for its thread."""
    holds, go_on = threading.Event(), threading.Event()
    read: list[str] = []

    class Recorded(Block):
        @classmethod
        def from_object(cls, obj: dict[str, Any]) -> Block:
            read.append(obj["metadata"]["resourceVersion"])
            return Block.from_object(obj)

    def hold(*_: object) -> tuple[()]:
        holds.set()
        assert go_on.wait(120)
        return ()

    with followed(tmp_path) as (one, _):
        claim(one, ADDRESS, "default/a")
        with monkeypatch.context() as patch:
            patch.setattr(LedgerIndex, "of_pod", hold)
            held = one.system.get_actor("ledger/local").of_pods.remote(("default/a",))
            assert holds.wait(60)
        monkeypatch.setattr(block_follower, "Block", Recorded)
        try:
            claimed_by_another(one, ADDRESS + 1, "default/b")
            by_another = one.store.get("SpiderIPBlock", NAME)["metadata"]["resourceVersion"]
            eventually(lambda: equal(read.count(by_another), 1))
        finally:
            go_on.set()
        get(held, 60)
        becomes(lambda: pods(one, "default/b"), ["default/b"])
        assert read.count(by_another) == 1
