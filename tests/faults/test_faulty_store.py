"""The fault injection itself: what it claims to have done to a write is what happened to it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.errors import NotFound, StoreUnavailable
from actors.store.sqlite.store import SQLiteStore
from tests.actors.store.contract_suite import StoreContract, follow, pool
from tests.support.faulty_store import Fault, FaultyStore, How, scripted

__all__ = ["follow"]

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def inner(tmp_path: Path) -> Iterator[SQLiteStore]:
    opened = SQLiteStore(tmp_path / "store.db")
    yield opened
    opened.close()


class TestContractWithoutFaults(StoreContract):
    """Without a plan the wrapper is a store like any other."""

    @pytest.fixture
    def store(self, inner: SQLiteStore) -> FaultyStore:
        return FaultyStore(inner)


def test_before_writes_nothing_and_after_loses_the_reply(inner: SQLiteStore) -> None:
    store = FaultyStore(inner, scripted("1:before 2:after"))

    with pytest.raises(StoreUnavailable) as first:
        store.create(pool("a"))
    with pytest.raises(NotFound):
        inner.get("SpiderIPPool", "a")
    with pytest.raises(StoreUnavailable) as second:
        store.create(pool("a"))

    assert not first.value.maybe_written
    assert second.value.maybe_written
    assert inner.get("SpiderIPPool", "a")
    store.delete("SpiderIPPool", "a")
    assert [write.verb for write in store.writes] == ["create", "create", "delete"]


def test_a_script_counts_by_verb_and_kind(inner: SQLiteStore) -> None:
    store = FaultyStore(inner, scripted("delete/*/1:before create/SpiderIPPool/2:before"))
    store.create(pool("a"))

    with pytest.raises(StoreUnavailable):
        store.delete("SpiderIPPool", "a")
    with pytest.raises(StoreUnavailable):
        store.create(pool("b"))
    store.create(pool("b"))
    store.delete("SpiderIPPool", "a")


def test_a_delay_is_waited_and_then_written(inner: SQLiteStore) -> None:
    store = FaultyStore(inner, lambda write: Fault(How.DELAY, 0.1))
    began = time.monotonic()

    store.create(pool("late"))

    assert time.monotonic() - began >= 0.1
    assert inner.get("SpiderIPPool", "late")


@pytest.mark.parametrize("text", ["x:before", "1:never", "create/2:before", "1"])
def test_a_script_that_means_nothing_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        scripted(text)


@pytest.mark.parametrize("fault, written", [("kill-before", False), ("kill-after", True)])
def test_the_process_is_killed_around_the_write(inner: SQLiteStore, fault: str, written: bool) -> None:
    code = (
        "import sys; from pathlib import Path; from actors.store.sqlite.store import SQLiteStore\n"
        "from tests.actors.store.contract_suite import pool\n"
        "from tests.support.faulty_store import FaultyStore, scripted\n"
        "FaultyStore(SQLiteStore(Path(sys.argv[1])), scripted(sys.argv[2])).create(pool('marked'))\n"
        "print('alive')\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*filter(None, sys.path), str(ROOT)])}
    ran = subprocess.run(
        [sys.executable, "-P", "-c", code, str(inner.path), f"1:{fault}"],
        check=False,
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
    )

    assert ran.returncode == -signal.SIGKILL, ran.stderr
    assert ran.stdout == ""
    names = [item["metadata"]["name"] for item in inner.list("SpiderIPPool").items]
    assert names == (["marked"] if written else [])
