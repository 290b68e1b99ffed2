"""A real agent process for tests and benches, and the command line on its store."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cni import shim

START_TIMEOUT = 20.0
STOP_TIMEOUT = 40.0
"""More than the agent may take to answer what it accepted and to let its actors finish."""
PROGRAM = (sys.executable, "-P", "-m", "cni.command.main")


class AgentProcess:
    """`orbweaver agent --standalone` with everything it owns in `directory`: store, socket, plugin, log.

    As a context manager it is started on entry and terminated on exit. `program` replaces the command line's start,
    for agents with injected faults.
    """

    def __init__(
        self, directory: Path, *options: str, program: Sequence[str] = (*PROGRAM, "agent", "--standalone")
    ):
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.data = directory / "orbweaver.db"
        self.socket = directory / "agent.sock"
        self.log = directory / "agent.log"
        self.plugins = directory / "bin"
        self.process: subprocess.Popen[bytes] | None = None
        self._options = options
        self._program = tuple(program)
        shim.install(self.plugins)

    @property
    def ipam(self) -> dict[str, Any]:
        """The `ipam` section that leads a plugin to this agent."""
        return {"type": "spiderpool", "ipam_unix_socket_path": str(self.socket)}

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self) -> None:
        """Start it and wait until it serves. Raises AssertionError with its log when it does not."""
        self.socket.unlink(missing_ok=True)
        command = [
            *self._program,
            *(() if "--kubeconfig" in self._program else ("--data", str(self.data))),
            "--socket",
            str(self.socket),
            "--metrics-port",
            "0",
        ]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([*command, *self._options], stderr=log)
        deadline = time.monotonic() + START_TIMEOUT
        while not self.socket.exists():
            assert self.process.poll() is None and time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.01)

    def stop(self) -> int:
        """SIGTERM, and its exit status."""
        assert self.process is not None
        self.process.terminate()
        try:
            return self.process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired as error:
            self.process.send_signal(signal.SIGUSR1)
            time.sleep(1)
            raise AssertionError(f"it does not end; its threads:\n{self.log.read_text()[-6000:]}") from error

    def kill(self) -> None:
        """SIGKILL."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(START_TIMEOUT)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process is not None and self.process.poll() is None:
            self.stop()

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
        for obj in objects:
            self.orbweaver("apply", "-f", "-", feed=json.dumps(obj))

    def records(self) -> dict[str, dict[str, str]]:
        """Every recorded address and its record, as the blocks have them."""
        blocks = json.loads(self.orbweaver("get", "spideripblocks", "-o", "json"))
        return {
            ip: record
            for block in blocks["items"]
            for ip, record in json.loads(block["spec"]["records"]).items()
        }


def pool(name: str, subnet: str, ips: str, gateway: str | None = None, **spec: Any) -> dict[str, Any]:
    """A SpiderIPPool that serves by default."""
    given = {"gateway": gateway} if gateway else {}
    return {
        "apiVersion": "spiderpool.spidernet.io/v2beta1",
        "kind": "SpiderIPPool",
        "metadata": {"name": name},
        "spec": {"subnet": subnet, "ips": [ips], "default": True, **given, **spec},
    }
