"""What the runtime's notes tell of sandboxes: gone is only what is seen to be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from actors.reclaim.stale_sandboxes import Sandboxes
from cni.server.libcni_cache import read_sandboxes


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """No notes yet, and one namespace that is there."""
    (tmp_path / "results").mkdir()
    (tmp_path / "netns").mkdir()
    (tmp_path / "netns" / "there").touch()
    return tmp_path / "results"


def note(cache: Path, container: str, interface: str = "eth0", **fields: Any) -> None:
    body = {
        "kind": "cniCacheV1",
        "containerId": container,
        "ifName": interface,
        "networkName": "net",
        **fields,
    }
    (cache / f"net-{container}-{interface}").write_text(json.dumps(body))


def read(cache: Path) -> Sandboxes:
    return read_sandboxes(cache, cache.parent / "netns")


def test_a_sandbox_is_there_as_long_as_one_of_its_namespaces_is(cache: Path):
    netns = cache.parent / "netns"
    note(cache, "new-style", netns=str(netns / "there"))
    note(
        cache,
        "old-style",
        result={"interfaces": [{"name": "h"}, {"name": "e", "sandbox": str(netns / "there")}]},
    )
    note(cache, "as-containerd-writes-it", netns="/var/run/netns/there")
    note(cache, "gone", netns=str(netns / "away"))
    note(cache, "gone-too", netns="/var/run/netns/away")
    note(cache, "two", "eth0", netns=str(netns / "away"))
    note(cache, "two", "net1", netns=str(netns / "there"))

    found = read(cache)

    assert found.alive == {"new-style", "old-style", "as-containerd-writes-it", "two"}
    assert found.gone == {"gone", "gone-too"}


def test_what_cannot_be_seen_is_not_gone(cache: Path):
    note(cache, "elsewhere", netns="/proc/4711/ns/net")
    note(cache, "nowhere")
    note(cache, "odd", result=[])
    (cache / "net-x-eth0").write_text("{")
    (cache / "directory").mkdir()

    assert read(cache) == Sandboxes(alive=frozenset({"elsewhere"}))


def test_without_notes_or_namespaces_nothing_is_known(cache: Path):
    note(cache, "c1", netns="/run/netns/away")

    assert read_sandboxes(cache.parent / "no-cache", cache.parent / "netns") == Sandboxes()
    assert read_sandboxes(cache, cache.parent / "no-namespaces") == Sandboxes()
