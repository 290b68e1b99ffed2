"""The way of an ADD through the product, walked as the data: which files it passes, and how often each is entered."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.resources.addresses import parse_address
from tests.support.checker import eventually
from tests.support.cni_client import ask, encode
from tests.support.rig import Rig, pool, rig
from tests.support.way import Way, watching

FILES = 24
ENTRIES = 3
VALUES_ENTRIES = 8
"""As often is the same value asked for what it says of itself."""

CONTAINER, ADDRESS = "c0ffee" * 8, "10.6.0.37"


def walk(made: Rig, way: Way) -> None:
    """An ADD of a pod that has nothing, after others, so that nothing is loaded on its way."""
    for number in range(3):
        assert ask(made.socket, encode("ADD", f"other{number}", pod=f"other{number}")).status == 0
    way.begin()
    answer = ask(made.socket, encode("ADD", CONTAINER, pod="web"))
    eventually(lambda: settled(made))
    way.end()
    assert answer.addresses == [f"{ADDRESS}/16"]


def settled(made: Rig) -> None:
    assert not made.agent.front_end.adds
    busy = [row.name for row in made.system.describe() if row.state == "busy" or row.mailbox or row.deferred]
    assert not busy


def test_an_add_goes_one_way_through_few_files(tmp_path: Path):
    first = ADDRESS.replace(".37", ".34")
    with (
        watching(CONTAINER, ADDRESS, parse_address(ADDRESS)[1]) as way,
        rig(tmp_path, pool("v4", "10.6.0.0/16", f"{first}-10.6.0.60")) as made,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr("actors.views.views.POOL_INTERVAL", 3600.0)  # in a rig it is short
        walk(made, way)

    often = "\n".join(f"{count} {door}" for door, count in sorted(way.doors.items()))
    assert len(way.passed) <= FILES, often
    assert {file: count for file, count in way.stations.items() if count > ENTRIES} == {}, often
    assert max(way.entries.values()) <= VALUES_ENTRIES, often
    for passed in ("cni/server/connection.py", "actors/allocation/pool.py", "actors/store/sqlite/writer.py"):
        assert passed in way.passed, "it was not watched"
