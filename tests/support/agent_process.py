"""A real agent process for tests and benches, and the command line on its store."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cni import shim
from tests.support.blocks import recorded
from tests.support.cni_client import NoAnswer, ask, encode
from tests.support.identity import agent_kubeconfig, agent_token
from tests.support.standstill import stand_still

START_TIMEOUT = 180.0
STOP_TIMEOUT = 120.0
"""More than the agent may take to answer what it accepted and to let its actors finish."""
PROGRAM = (sys.executable, "-P", "-m", "cni.command.main")


WITH_FAULTS = Path(__file__).with_name("process_with_faults.py")


class ServingProcess(ABC):
    """A process of ours that serves until a signal, with its log in `directory`. As a context manager it is started on
    entry and terminated on exit.

    `wrapper` comes before the interpreter. `faults` are options of `process_with_faults.py`: a store that fails, a
    clock that jumps. `packages`: those of another version (`tests/tools/release.py`).
    """

    command: str

    def __init__(
        self,
        directory: Path,
        *options: str,
        wrapper: Sequence[str] = (),
        faults: Sequence[str] = (),
        packages: Path | None = None,
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.log = directory / f"{self.command}.log"
        self.process: subprocess.Popen[bytes] | None = None
        self._begins = 0
        program = (sys.executable, "-P", str(WITH_FAULTS), *faults, "--") if faults else PROGRAM
        self._command = [*wrapper, *program, self.command, *options]
        self._environment = _environment(packages)

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self) -> Self:
        """Start it and wait until it serves. Raises AssertionError with its log when it does not."""
        self.launch()
        return self.wait_serving()

    def wait_serving(self) -> Self:
        """Wait until it serves; one that does not in time is killed. Raises AssertionError with its log."""
        deadline = time.monotonic() + START_TIMEOUT
        while not self.serves():
            if self.running and time.monotonic() < deadline:
                time.sleep(0.01)
                continue
            self.kill()
            raise AssertionError(self.said())
        return self

    def launch(self) -> None:
        """Start it, and do not wait."""
        with self.log.open("ab") as log:
            self._begins = log.tell()
            self.process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._environment
            )

    def become(self, packages: Path | None) -> None:
        """From the next start on, be of another version, or of the working tree's (None)."""
        self._environment = _environment(packages)

    @abstractmethod
    def serves(self) -> bool:
        """Whether it does its work now."""

    def said(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-6000:]

    def stop(self) -> int:
        """SIGTERM, and its exit status."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def wait(self) -> int:
        """Its exit status. Raises AssertionError with what its threads do when it does not end."""
        assert self.process is not None
        try:
            return self.process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired as error:
            self.process.send_signal(signal.SIGUSR1)
            time.sleep(1)
            raise AssertionError(f"it does not end; its threads:\n{self.said()}") from error

    def kill(self) -> None:
        """SIGKILL."""
        self.signal(signal.SIGKILL)
        self.wait()

    def pause(self) -> None:
        """SIGSTOP: it stands where it is, with its connections open."""
        assert self.process is not None
        stand_still(self.process.pid)

    def resume(self) -> None:
        self.signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.running:
            return
        self.resume()
        if kind is None:
            self.stop()
        else:
            self.kill()  # what went wrong already is the test's failure, not how this ends


def logged(log: Path, *events: str, begins: int = 0) -> list[dict[str, Any]]:
    """The lines of a log with one of these names, from a byte on; one that is still being written is not there yet."""
    written = log.read_bytes()[begins:].decode(errors="replace") if log.exists() else ""
    lines = written[: written.rfind("\n") + 1].splitlines()
    entries = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]
    return [line for line in entries if line["event"] in events]


def _environment(packages: Path | None) -> dict[str, str]:
    return {**os.environ, **({"PYTHONPATH": str(packages)} if packages else {})}


class AgentProcess(ServingProcess):
    """`orbweaver agent` with everything it owns in `directory`: store, socket, plugin, log. It is standalone, or, with a
    `kubeconfig`, on a cluster. Where that is the administrator's, the agent has the rights of `deploy/rbac` and the token
    of its node, as a DaemonSet's pod has."""

    command = "agent"

    def __init__(
        self,
        directory: Path,
        *options: str,
        kubeconfig: Path | None = None,
        node: str = "node1",
        wrapper: Sequence[str] = (),
        faults: Sequence[str] = (),
        packages: Path | None = None,
    ) -> None:
        self.data = directory / "data" / "orbweaver.db"
        self.socket = directory / "agent.sock"
        self.plugins = directory / "bin"
        where = ["--standalone", "--data", str(self.data)]
        own = ["--node", node, "--socket", str(self.socket), "--metrics-port", "0"]
        if kubeconfig is not None:
            directory.mkdir(parents=True, exist_ok=True)
            where = ["--kubeconfig", str(agent_kubeconfig(kubeconfig, node, directory / "kubeconfig"))]
            token = directory / "leader-token"
            token.write_text(agent_token(kubeconfig, node))
            own += ["--leader-token", str(token)]
        super().__init__(directory, *where, *own, *options, wrapper=wrapper, faults=faults, packages=packages)
        self.data.parent.mkdir(exist_ok=True)
        shim.install(self.plugins)

    @property
    def ipam(self) -> dict[str, Any]:
        """The `ipam` section that leads a plugin to this agent."""
        return {"type": "spiderpool", "ipam_unix_socket_path": str(self.socket)}

    @property
    def log_lines(self) -> list[dict[str, Any]]:
        """What it logged so far; a line that is still being written is not there yet."""
        written = self.log.read_text()
        return [json.loads(line) for line in written[: written.rfind("\n") + 1].splitlines()]

    @property
    def metrics_port(self) -> int:
        """Of health and metrics, since its last start."""
        return int(self._serving()[-1]["metrics_port"])

    def serves(self) -> bool:
        """It answers STATUS, and has said where it serves what, which it does a moment later."""
        try:
            answers = ask(self.socket, encode("STATUS")).status == 0
        except NoAnswer:
            return False
        return answers and bool(self._serving())

    def _serving(self) -> list[dict[str, Any]]:
        return logged(self.log, "serving", begins=self._begins)

    def orbweaver(self, *arguments: str, feed: str | None = None) -> str:
        """Run the command line on the agent's store; its output. Raises AssertionError with what it said."""
        done = subprocess.run(
            [*PROGRAM, *arguments],
            input=feed,
            env={**os.environ, "ORBWEAVER_DATA": str(self.data)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def apply(self, *objects: Mapping[str, Any]) -> None:
        """Apply objects."""
        self.orbweaver("apply", "-f", "-", feed="\n---\n".join(map(json.dumps, objects)))

    def records(self) -> dict[str, dict[str, str]]:
        """Every recorded address and its record, as the blocks have them."""
        return recorded(json.loads(self.orbweaver("get", "spideripblocks", "-o", "json"))["items"])


def pool(name: str, subnet: str, ips: str, gateway: str | None = None, **spec: Any) -> dict[str, Any]:
    """A SpiderIPPool that serves by default."""
    given = {"gateway": gateway} if gateway else {}
    return {
        "apiVersion": "spiderpool.spidernet.io/v2beta1",
        "kind": "SpiderIPPool",
        "metadata": {"name": name},
        "spec": {"subnet": subnet, "ips": [ips], "default": True, **given, **spec},
    }
