"""Pages of docs/ whose commands are run from the page itself, with what they print compared.

A block of `sh` is run, and the block of `text` behind it is what it has to print; a line `…` in it stands for lines that it
leaves out.
"""

from __future__ import annotations

import json
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.cluster.cluster import Cluster
from tests.tools.gomodule import ROOT

# What a takeover says while it waits depends on how fast the machine is.
_WAITED = ("waiting: ", "node ")
_LEFT_OUT = "…"
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# What is another one on each cluster and each time.
_MASKS = (
    (r"-[0-9a-f]{8,10}-[a-z0-9]{5}\b", "-POD"),
    (r"\b(auto[46]-[a-z0-9-]+)-[0-9a-f]{5}\b", r"\1-SUFFIX"),
    (r"\b(\d+d)?(\d+h)?(\d+m)?\d+s\b|\b\d+m\b", "AGE"),
    (r"[\d.]+/[\d.]+/[\d.]+ ms", "TIMES"),
    (r"\bn[12]\b", "NODE"),
    (r" from [\w-]+ namespace$", ""),
    # The pods' ping is that of the machine's busybox or of iputils, which say the same in other words.
    (r":? 56(\(84\) bytes of data\.| data bytes)$", " DATA"),
    (r"(\d+) (packets )?received, (\d+% packet loss)(, time \d+\s*\w+)?$", r"\1 received, \3"),
    (r"^(rtt|round-trip) min/avg/max(/mdev)? = .*$", "TIMES"),
)


def fences(page: Path) -> list[tuple[str, str]]:
    """Each block of code with its language."""
    return [(match[1], match[2]) for match in FENCE.finditer(page.read_text())]


def comparable(text: str, *, repeated: bool = False) -> list[str]:
    """Its lines in an order that does not depend on which pod was first, without what differs each time. `repeated`: some
    pod's start was, which gave it another address than the page has."""
    masks = (*_MASKS, (r"\b10(\.\d+){3}\b", "ADDRESS")) if repeated else _MASKS
    lines = []
    for line in text.splitlines():
        line = line.rstrip()
        for pattern, mask in masks:
            line = re.sub(pattern, mask, line)
        if line.split():
            lines.append(" ".join(line.split()))
    return sorted(lines)


def shows(text: str, printed: str) -> bool:
    """Whether a page's block of a takeover is what was printed, without what depends on how fast the machine was."""
    shown, there = _said(text), _said(printed)
    return set(shown) - {_LEFT_OUT} <= set(there) if _LEFT_OUT in shown else shown == there


def _said(text: str) -> list[str]:
    return comparable("\n".join(line for line in text.splitlines() if not line.startswith(_WAITED)))


def write_programs(cluster: Cluster, values: dict[str, Any]) -> Path:
    """A directory with kubectl, helm and orbweaver for the cluster; `values` are laid over those of every helm command."""
    directory = cluster.directory / "page-bin"
    directory.mkdir(exist_ok=True)
    (cluster.directory / "page-values.json").write_text(json.dumps(values))
    inside = f"nsenter --net=/run/netns/{cluster.netns}"
    python = f"{inside} {sys.executable} -P"
    for name, program in {
        "kubectl": f"{inside} {cluster.programs.kubectl}",
        "helm": f"{python} {Path(__file__).parents[1] / 'support' / 'helm_command.py'}",
        "orbweaver": f"env PYTHONPATH={ROOT} {python} -m cni.command.main",
    }.items():
        write_script(directory / name, f'exec {program} "$@"\n')
    return directory


def write_script(path: Path, text: str) -> None:
    """A program of the shell."""
    path.write_text(f"#!/bin/sh\n{text}")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def run(cluster: Cluster, programs: Path, commands: str) -> str:
    """What the commands print."""
    values = str(cluster.directory / "page-values.json")
    return run_with(
        programs, cluster.directory, commands, KUBECONFIG=str(cluster.kubeconfig("admin")), HELM_VALUES=values
    )


def run_with(programs: Path, home: Path, commands: str, **environment: str) -> str:
    """What the commands print, with a directory of programs before the machine's own. They wait for longer than a page says:
    its reader's machine runs nothing else."""
    commands = re.sub(r"--timeout=\d+s", "--timeout=480s", commands)
    environment = {
        "PATH": f"{programs}:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": str(home),  # kubectl keeps what it learnt below it
        **environment,
    }
    done = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", commands],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, f"{commands}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def failed_starts(cluster: Cluster) -> int:
    """How often a kubelet had to repeat a pod's start, so far."""
    reason = "reason=FailedCreatePodSandBox"
    return sum(event.get("count") or 1 for event in cluster.items("events", "--field-selector", reason))
