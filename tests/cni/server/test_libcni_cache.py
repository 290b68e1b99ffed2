"""What the runtime's notes tell of sandboxes: gone is only what is seen to be."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from actors.reclaim.stale_sandboxes import NotedSandboxes
from cni.server.libcni_cache import BadNote, Namespaces, Note, read_notes, read_sandboxes


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


def read(cache: Path) -> NotedSandboxes:
    return read_sandboxes(cache, Namespaces(cache.parent / "netns", None))


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

    assert read(cache) == NotedSandboxes(alive=frozenset({"elsewhere"}))


def test_without_notes_or_namespaces_nothing_is_known(cache: Path):
    note(cache, "c1", netns="/run/netns/away")

    mounted = Namespaces(cache.parent / "netns", None)
    assert read_sandboxes(cache.parent / "no-cache", mounted) == NotedSandboxes()
    assert read_sandboxes(cache, Namespaces(cache.parent / "no-namespaces", None)) == NotedSandboxes()


class Processes:
    """A /proc in which processes start, `booted` seconds after the epoch at the earliest."""

    booted = 1_700_000_000

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        (path / "stat").write_text(f"cpu 1 2 3\nbtime {self.booted}\nprocesses 9\n")

    def start(self, pid: int, seconds: float) -> Path:
        """One that starts so long after the boot; returns its network namespace."""
        ticks = int(seconds * os.sysconf("SC_CLK_TCK"))
        process = self.path / str(pid)
        (process / "ns").mkdir(parents=True)
        (process / "ns" / "net").touch()
        fields = " ".join(["S", "1", *["0"] * 17, str(ticks), "0"])
        (process / "stat").write_text(f"{pid} (a) odd (name) {fields}\n")
        return process / "ns" / "net"


def test_a_process_s_namespace_is_the_noted_one_as_long_as_the_process_is_not_younger(cache: Path):
    """PIDs are used again: after a reboot nearly surely."""
    processes = Processes(cache.parent / "proc")
    processes.start(10, 100.0)
    processes.start(11, 7000.0)
    for container, pid in (("same", 10), ("another", 11), ("none", 12)):
        note(cache, container, netns=f"/proc/{pid}/ns/net")
        written = processes.booted + 101.0
        os.utime(cache / f"net-{container}-eth0", (written, written))

    read = read_sandboxes(cache, Namespaces(cache.parent / "netns", processes.path))

    assert read.alive == {"same"}
    assert read.gone == {"another", "none"}


def test_a_namespace_that_was_seen_is_known_again_by_its_number(cache: Path):
    processes = Processes(cache.parent / "proc")
    net = processes.start(10, 7000.0)
    namespaces = Namespaces(cache.parent / "netns", processes.path)
    path = Path("/proc/10/ns/net")
    inode = namespaces.inode(path)
    assert inode == net.stat().st_ino

    assert namespaces.is_there(path, noted=0.0, inode=inode) is True, "whatever the clocks say"
    assert namespaces.is_there(path, inode=inode + 1) is False
    assert namespaces.is_there(path) is True
    assert namespaces.is_there(Path("/proc/12/ns/net")) is False
    assert Namespaces(cache.parent, None).is_there(path, inode=inode) is None
    (processes.path / "10" / "stat").write_text("nonsense")
    assert namespaces.is_there(path, noted=0.0) is None


def test_one_look_tells_what_is_seen_of_a_namespace(cache: Path):
    processes, mounted = Processes(cache.parent / "proc"), cache.parent / "netns"
    number = processes.start(10, 7000.0).stat().st_ino
    (mounted / "x").touch()
    namespaces = Namespaces(mounted, processes.path)

    assert namespaces.look("/proc/10/ns/net") == (True, number)
    assert namespaces.look("/proc/12/ns/net") == (False, None)
    assert Namespaces(mounted, None).look("/proc/10/ns/net") == (False, None)
    assert namespaces.look("/var/run/netns/x") == (True, None)
    assert namespaces.look("/run/netns/y") == (False, None)
    assert namespaces.look("/elsewhere/x") == (False, None)
    assert namespaces.look(f"/run/netns/{'y' * 256}") == (False, None)


def test_real_processes_are_seen_through_proc():
    own = subprocess.Popen(["sleep", "60"])
    try:
        namespaces = Namespaces(processes=Path("/proc"))
        path = Path(f"/proc/{own.pid}/ns/net")
        assert namespaces.is_there(path, noted=time.time() + 60.0) is True
        assert namespaces.is_there(path, noted=time.time() - 3600.0) is False, "it is younger than that note"
        assert namespaces.inode(path) == Path("/proc/self/ns/net").stat().st_ino
    finally:
        own.kill()
        own.wait()
    assert namespaces.is_there(path) is False


def test_the_notes_of_one_container_are_found_by_its_name_and_a_bad_one_says_why(cache: Path):
    for container, interface in (("abc", "eth0"), ("abc", "net1"), ("ab", "eth0"), ("abcd", "eth0")):
        note(cache, container, interface, netns="/run/netns/x")
    (cache / "net-bad-eth0").write_text("")
    (cache / "net-worse-eth0").write_text("{")
    note(cache, "worst")

    told = list(read_notes(cache, "abc"))
    assert [one.container for one in told if isinstance(one, Note)] == ["abc", "abc"]
    bad = {one.file: one.why for one in read_notes(cache) if isinstance(one, BadNote)}
    assert bad.keys() == {"net-bad-eth0", "net-worse-eth0", "net-worst-eth0"}
    assert bad["net-bad-eth0"] == "it is empty"
    assert "not JSON" in bad["net-worse-eth0"]
    assert bad["net-worst-eth0"] == "it names no network namespace"
