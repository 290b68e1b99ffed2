"""Real controller and agent processes on one API server, for tests that kill, pause and cut them."""

from __future__ import annotations

import json
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from actors.store.contract import Store
from actors.store.lease import Holder, read_holder
from cni.leadership import LEASE
from tests.agent_process import PROGRAM, AgentProcess
from tests.faults.checker import eventually

NAMESPACE = "orbweaver-system"
QUICK = ("--lease-duration", "2", "--renew-deadline", "1.4", "--retry-period", "0.3")
"""A Lease that tests need not wait for; a busy machine may lose it, which is then one more fault."""


class ControllerProcess:
    """`orbweaver controller` with its log in `directory`; its address for agents is on loopback."""

    def __init__(
        self, directory: Path, kubeconfig: Path, *options: str, wrapper: tuple[str, ...] = ()
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.log = directory / "controller.log"
        command = [
            *(*wrapper, *PROGRAM, "controller", "--kubeconfig", str(kubeconfig), "--namespace", NAMESPACE),
            *("--leader-address", "127.0.0.1", "--listen", "127.0.0.1", "--leader-port", "0"),
            *("--metrics-port", "0", *(options or QUICK)),
        ]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=log)

    def events(self, message: str) -> list[dict[str, Any]]:
        """What it logged with this message."""
        lines = self.log.read_text(errors="replace").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{") and f'"{message}"' in line]

    @property
    def identity(self) -> str:
        """Its name in the Lease."""

        def told() -> None:
            assert self.process.poll() is None, self.log.read_text()[-4000:]
            assert self.events("standing by"), self.log.read_text()[-4000:]

        eventually(told, 30)
        return str(self.events("standing by")[0]["identity"])

    @property
    def metrics_port(self) -> int:
        assert self.identity
        return int(self.events("standing by")[0]["metrics_port"])

    def is_ready(self) -> bool:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/readyz", timeout=5) as answer:
            return bool(answer.status == 200)

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait(20)

    def end(self) -> int:
        """SIGTERM, and its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
        return self.process.wait(40)


@contextmanager
def controllers(
    directory: Path, kubeconfig: Path, count: int = 2, *options: str
) -> Iterator[list[ControllerProcess]]:
    """So many of them, gone at the end."""
    with ExitStack() as stack:
        made = []
        for number in range(count):
            one = ControllerProcess(directory / f"controller-{number}", kubeconfig, *options)
            stack.callback(one.end)
            made.append(one)
        yield made


def agent_process(directory: Path, kubeconfig: Path, node: str = "node1", *options: str) -> AgentProcess:
    """`orbweaver agent` on the API server; a context manager."""
    program = (*PROGRAM, "agent", "--kubeconfig", str(kubeconfig), "--node", node, "--namespace", NAMESPACE)
    return AgentProcess(directory, "--timeout", "10", *options, program=program)


def linked(agent: AgentProcess, identity: str | None = None) -> None:
    """Fails unless the agent's last word is that it works with a leader, or with that one."""
    lines = [
        json.loads(line)
        for line in agent.log.read_text(errors="replace").splitlines()
        if line.startswith("{") and ('"allocating at the leader"' in line or '"the leader is lost' in line)
    ]
    assert lines, "it never found a leader"
    assert lines[-1]["event"] == "allocating at the leader", lines[-1]
    assert identity in (None, lines[-1]["leader"]), lines[-1]


def leader_of(store: Store, among: list[ControllerProcess]) -> ControllerProcess:
    """The process that leads: it holds the Lease and says so."""

    def led() -> ControllerProcess | None:
        holder: Holder | None = read_holder(store, LEASE, NAMESPACE)
        for one in among:
            alive = one.process.poll() is None
            if alive and holder is not None and holder.identity == one.identity and one.events("leading"):
                return one
        return None

    eventually(lambda: _true(led()), 30)
    found = led()
    assert found is not None
    return found


def _true(value: object) -> None:
    assert value
