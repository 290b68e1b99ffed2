"""The systems under test: Orbweaver on the embedded store, and the reference plugin `host-local`.

Both hand out the same range. `count` says how many addresses are recorded, read from the peer's own files.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, Protocol

from tests.bench.load import Pod
from tests.support.agent_process import AgentProcess, pool

FIRST = IPv4Address("10.16.1.0")
BASE = {"cniVersion": "0.3.1", "name": "bench", "type": "macvlan", "master": "eth0", "mode": "bridge"}


class Peer(Protocol):
    """One system, ready to serve a pool of a given size. `confs`: the network configuration of each of its agents.
    `make_pods` makes what must be there before the ADDs, and sets the pods' UIDs; `end_pod` is called between ADD and
    DEL; `settle` waits for what is written behind an answer; `counters` are counted per request; `processes` are whose
    CPU time counts."""

    program: Path
    confs: Sequence[dict[str, Any]]

    def count(self) -> int: ...

    def processes(self) -> Mapping[str, list[int]]: ...

    def make_pods(self, pods: Sequence[Pod]) -> None: ...

    def end_pod(self, pod: Pod) -> None: ...

    def settle(self) -> None: ...

    def counters(self) -> dict[str, float]: ...


class Alone:
    """What a peer has that needs nobody else."""

    def make_pods(self, pods: Sequence[Pod]) -> None:
        return

    def end_pod(self, pod: Pod) -> None:
        return

    def settle(self) -> None:
        return

    def counters(self) -> dict[str, float]:
        return {}


class HostLocal(Alone):
    """The reference plugin: a directory with a file for each address."""

    def __init__(self, program: Path, directory: Path, size: int) -> None:
        self.program = program
        self._directory = directory
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        span = {"subnet": "10.16.0.0/16", "rangeStart": str(FIRST), "rangeEnd": str(FIRST + size - 1)}
        ipam = {
            "type": "host-local",
            "ranges": [[{**span, "gateway": "10.16.0.1"}]],
            "dataDir": str(directory),
        }
        self.confs: Sequence[dict[str, Any]] = [{**BASE, "ipam": ipam}]

    def count(self) -> int:
        return sum(1 for file in (self._directory / "bench").glob("[0-9]*"))

    def processes(self) -> Mapping[str, list[int]]:
        return {}


class Orbweaver(Alone):
    """An agent process of its own."""

    def __init__(self, agent: AgentProcess) -> None:
        self.program = agent.plugins / "spiderpool"
        self.confs: Sequence[dict[str, Any]] = [{**BASE, "ipam": agent.ipam}]
        self._agent = agent

    def count(self) -> int:
        return len(self._agent.records())

    def processes(self) -> Mapping[str, list[int]]:
        return {"agents": [self._agent.pid]}


@contextmanager
def orbweaver(directory: Path, size: int) -> Iterator[Orbweaver]:
    """Start an agent on a new store, with one pool of `size` addresses; it is stopped at the end."""
    shutil.rmtree(directory, ignore_errors=True)
    agent = AgentProcess(directory)
    agent.apply(pool("bench", "10.16.0.0/16", f"{FIRST}-{FIRST + size - 1}", "10.16.0.1"))
    with agent:
        yield Orbweaver(agent)
