"""The real reference plugins, and a real CNI client, get their addresses from a real agent and their pods meet."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cni.command.sandbox import missing_tools
from tests.cni.sandbox_stories import STORIES

_STORIES = Path(__file__).with_name("sandbox_stories.py")
_SANDBOX = ("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")


@pytest.fixture(scope="module")
def sandbox() -> tuple[str, ...]:
    """The command prefix that makes a sandbox; where that is not allowed or a tool is missing, skip and say so."""
    missing = missing_tools(("ip", "ping", "unshare", "nsenter"))
    if missing:
        pytest.skip(f"not installed: {', '.join(sorted(missing.values()))}")
    prefix = _SANDBOX if os.geteuid() == 0 else (*_SANDBOX, "--user", "--map-root-user")
    probe = subprocess.run([*prefix, "true"], capture_output=True, text=True, check=False)
    if probe.returncode != 0:
        pytest.skip(f"network namespaces cannot be made here: {probe.stderr.strip()}")
    return prefix


@pytest.mark.parametrize("story", [name for name in STORIES if name != "cnitool"])
def test_story(story: str, sandbox: tuple[str, ...], cni_bin: Path, tmp_path: Path) -> None:
    """What the story says comes true with the real plugin."""
    _play(sandbox, story, tmp_path, cni_bin)


def test_cnitool(sandbox: tuple[str, ...], cni_bin: Path, cnitool: Path, tmp_path: Path) -> None:
    """A client that nobody here wrote is served."""
    _play(sandbox, "cnitool", tmp_path, cni_bin, cnitool)


def _play(sandbox: tuple[str, ...], story: str, directory: Path, *programs: Path) -> None:
    done = subprocess.run(
        [*sandbox, sys.executable, str(_STORIES), story, str(directory), *map(str, programs)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    log = directory / "agent.log"
    assert done.returncode == 0, (
        f"{done.stdout}{done.stderr}\n{log.read_text()[-3000:] if log.exists() else ''}"
    )
