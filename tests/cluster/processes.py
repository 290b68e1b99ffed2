"""Processes of the cluster: started in namespaces, ended by their ids.

What must always hold: each dies with the test session, even when that is killed; what a process printed is in a file,
and its end is in the error when it does not start.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.support.standstill import stand_still


class ClusterFailed(Exception):
    """A part did not start or did not get where it should in time; the text says which and why."""


class Processes:
    """Processes with a log each in `directory`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, command: Sequence[str], extra: Mapping[str, str] | None = None) -> int:
        """Start one; returns its id. Its log is `NAME.log`."""
        with (self.directory / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                env={**os.environ, **(extra or {})},
            )
        self._running[name] = process
        return process.pid

    def wait(self, name: str, ready: Callable[[], bool], seconds: float = 180.0) -> None:
        """Wait until `ready`. Raises ClusterFailed when the process ends before or the time is over."""
        deadline = time.monotonic() + seconds
        while not ready():
            status = self._running[name].poll()
            if status is not None or time.monotonic() > deadline:
                ended = f"ended with status {status}" if status is not None else f"not ready in {seconds:g} s"
                raise ClusterFailed(f"{name} {ended}:\n{self.log(name)[-3000:]}")
            time.sleep(0.05)

    def log(self, name: str) -> str:
        """All that it printed."""
        return (self.directory / f"{name}.log").read_text(errors="replace")

    def signal(self, name: str, number: int) -> None:
        """Send a signal to one that runs."""
        self._running[name].send_signal(number)

    def stand_still(self, name: str) -> None:
        """SIGSTOP."""
        stand_still(self._running[name].pid)

    def end(self, name: str, seconds: float = 60.0) -> int | None:
        """SIGTERM, then SIGKILL; returns the exit status, None when it did not run."""
        process = self._running.pop(name, None)
        if process is None:
            return None
        process.terminate()
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            return process.wait(seconds)

    def end_all(self) -> None:
        """The last started first."""
        for name in reversed(tuple(self._running)):
            self.end(name)


def run(*command: str, check: bool = True) -> str:
    """Run a short command; returns what it printed. Raises ClusterFailed with what it said."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    if check and done.returncode != 0:
        raise ClusterFailed(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout
