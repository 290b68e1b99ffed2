"""A process that stands still: `kill` returns before every thread has stopped, and one may answer meanwhile."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

WITHIN = 120.0


def stand_still(pid: int) -> None:
    """SIGSTOP, and wait until each thread of the process has stopped. Raises AssertionError when one does not."""
    os.kill(pid, signal.SIGSTOP)
    until = time.monotonic() + WITHIN
    while not all(_stopped(thread) for thread in Path(f"/proc/{pid}/task").iterdir()):
        assert time.monotonic() < until, f"process {pid} did not stop"
        time.sleep(0.001)


def _stopped(thread: Path) -> bool:
    """Also of one that has ended meanwhile."""
    try:
        stat = (thread / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return stat.rpartition(")")[2].split()[0] in "TtZX"
