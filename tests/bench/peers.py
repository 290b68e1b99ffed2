"""The systems under test: Orbweaver on the embedded store, and the reference plugin `host-local`.

Both hand out the same range. `count` says how many addresses are recorded, read from the peer's own files.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, Protocol

from cni import shim
from tests.bench.load import cpu_seconds

_FIRST = IPv4Address("10.16.1.0")
_BASE = {"cniVersion": "0.3.1", "name": "bench", "type": "macvlan", "master": "eth0", "mode": "bridge"}
_START_TIMEOUT = 20.0


class Peer(Protocol):
    """One system, ready to serve a pool of a given size."""

    name: str
    program: Path
    conf: dict[str, Any]

    def count(self) -> int: ...

    def server_cpu(self) -> float: ...


class HostLocal:
    """The reference plugin: a directory with a file for each address."""

    name = "host-local"

    def __init__(self, program: Path, directory: Path, size: int) -> None:
        self.program = program
        self._directory = directory
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        span = {"subnet": "10.16.0.0/16", "rangeStart": str(_FIRST), "rangeEnd": str(_FIRST + size - 1)}
        ipam = {"type": "host-local", "ranges": [[{**span, "gateway": "10.16.0.1"}]], "dataDir": str(directory)}
        self.conf = {**_BASE, "ipam": ipam}

    def count(self) -> int:
        return sum(1 for file in (self._directory / "bench").glob("[0-9]*"))

    def server_cpu(self) -> float:
        return 0.0


class Orbweaver:
    """An agent process of its own on a new file."""

    name = "orbweaver"

    def __init__(self, directory: Path, pid: int, socket: Path) -> None:
        self.program = directory / "bin" / "spiderpool"
        self._directory = directory
        self._pid = pid
        self.conf = {**_BASE, "ipam": {"type": "spiderpool", "ipam_unix_socket_path": str(socket)}}

    def count(self) -> int:
        blocks = json.loads(_command(self._directory, "get", "spideripblocks", "-o", "json"))
        return sum(len(json.loads(block["spec"]["records"])) for block in blocks["items"])

    def server_cpu(self) -> float:
        return cpu_seconds(self._pid)


@contextmanager
def orbweaver(directory: Path, size: int) -> Iterator[Orbweaver]:
    """Start an agent with one pool of `size` addresses; it is stopped at the end."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    shim.install(directory / "bin", names=("spiderpool",))
    spec = {"subnet": "10.16.0.0/16", "ips": [f"{_FIRST}-{_FIRST + size - 1}"], "gateway": "10.16.0.1", "default": True}
    pool = {
        "apiVersion": "spiderpool.spidernet.io/v2beta1",
        "kind": "SpiderIPPool",
        "metadata": {"name": "bench"},
        "spec": spec,
    }
    _command(directory, "apply", "-f", "-", feed=json.dumps(pool))
    socket = directory / "agent.sock"
    command = [*_program(), "agent", "--standalone", "--socket", str(socket), "--metrics-port", "0"]
    with (directory / "agent.log").open("wb") as log:
        agent = subprocess.Popen(command, env=_environment(directory), stderr=log)
    try:
        deadline = time.monotonic() + _START_TIMEOUT
        while not socket.exists():
            assert agent.poll() is None and time.monotonic() < deadline, (directory / "agent.log").read_text()
            time.sleep(0.01)
        yield Orbweaver(directory, agent.pid, socket)
    finally:
        agent.terminate()
        agent.wait(_START_TIMEOUT)


def _program() -> list[str]:
    return [sys.executable, "-m", "cni.command.main"]


def _environment(directory: Path) -> dict[str, str]:
    return {**os.environ, "ORBWEAVER_DATA": str(directory / "orbweaver.db")}


def _command(directory: Path, *arguments: str, feed: str | None = None) -> str:
    done = subprocess.run(
        [*_program(), *arguments], input=feed, env=_environment(directory), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
