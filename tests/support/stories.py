"""Programs of stories that run in a sandbox: network, mount and process namespaces of their own, gone with the program."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from cni.command.sandbox import missing_tools

SANDBOX = ("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")


def sandbox_command() -> tuple[str, ...]:
    """What makes a sandbox, for this user."""
    return SANDBOX if os.geteuid() == 0 else (*SANDBOX, "--user", "--map-root-user")


def sandbox_with(*tools: str) -> tuple[str, ...]:
    """The same; where that is not allowed or a tool is missing, skip and say so."""
    missing = missing_tools(("unshare", *tools))
    if missing:
        pytest.skip(f"not installed: {', '.join(sorted(missing.values()))}")
    command = sandbox_command()
    probe = subprocess.run([*command, "true"], capture_output=True, text=True, check=False)
    if probe.returncode != 0:
        pytest.skip(f"network namespaces cannot be made here: {probe.stderr.strip()}")
    return command


def play(
    sandbox: Sequence[str],
    program: Path,
    directory: Path,
    *arguments: str,
    timeout: float = 560,
    environment: Mapping[str, str] | None = None,
) -> str:
    """Run a program in the sandbox; it must end well, or its agent's log in the directory is shown. Returns what it said."""
    done = subprocess.run(
        [*sandbox, sys.executable, str(program), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
        env={**os.environ, **(environment or {})},
    )
    log = directory / "agent.log"
    assert done.returncode == 0, (
        f"{done.stdout}{done.stderr}\n{log.read_text()[-3000:] if log.exists() else ''}"
    )
    return done.stdout
