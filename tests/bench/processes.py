"""What a process costs: CPU time and memory, as the kernel counts them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path


def cpu_seconds(pid: int) -> float:
    """CPU time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def cpu_by_name(processes: Mapping[str, list[int]]) -> dict[str, float]:
    """CPU time of groups of processes."""
    return {name: sum(map(cpu_seconds, pids)) for name, pids in processes.items()}


def memory(pid: int) -> float:
    """MiB of a process and its descendants together: PSS, in which what several share counts once."""
    return sum(_pss(each) for each in family(pid))


def family(pid: int) -> Iterator[int]:
    """The process and its descendants."""
    yield pid
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield from family(int(child))


def _pss(pid: int) -> float:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
    assert found is not None, text
    return int(found[1]) / 1024
