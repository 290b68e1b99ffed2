"""Kernel settings (sysctls) of the network namespace in which a thread is."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

_SYSCTLS = next(path for path in (Path("/host/proc/sys"), Path("/proc/sys")) if path.is_dir())
"""In a container that is not privileged /proc/sys can only be read; the DaemonSet has the host's beside it."""


def differing_sysctls(values: Iterable[tuple[str, str]]) -> list[str]:
    """What of it is otherwise in the namespace in which this thread is. Raises `OSError`."""
    lines = []
    for path, value in values:
        file = _SYSCTLS / path
        there = file.read_text().strip() if file.exists() else "nothing"
        if there != value:
            lines.append(f"sysctl {path.replace('/', '.')} is {there}, not {value}")
    return lines


def write_sysctls(values: Iterable[tuple[str, str]]) -> int:
    """Set what differs, in the namespace in which this thread is; returns how many. Raises `OSError`."""
    changed = 0
    for path, value in values:
        file = _SYSCTLS / path
        if file.read_text().strip() != value:
            file.write_text(value)
            changed += 1
    return changed
