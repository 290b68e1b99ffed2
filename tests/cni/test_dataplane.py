"""The coordinator behind real plugins, in real network namespaces: packets and the kernel's own tables decide."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cni.command.sandbox import missing_tools
from tests.cni.dataplane_stories import STORIES

_STORIES = Path(__file__).with_name("dataplane_stories.py")
_SANDBOX = ("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")


@pytest.fixture(scope="module")
def sandbox() -> tuple[str, ...]:
    missing = missing_tools(("ip", "ping", "unshare", "nsenter", "nft", "pgrep"))
    if missing:
        pytest.skip(f"not installed: {', '.join(sorted(missing.values()))}")
    prefix = _SANDBOX if os.geteuid() == 0 else (*_SANDBOX, "--user", "--map-root-user")
    probe = subprocess.run([*prefix, "true"], capture_output=True, text=True, check=False)
    if probe.returncode != 0:
        pytest.skip(f"network namespaces cannot be made here: {probe.stderr.strip()}")
    return prefix


@pytest.mark.parametrize("story", list(STORIES))
def test_story(story: str, sandbox: tuple[str, ...], cni_bin: Path, tmp_path: Path) -> None:
    """What the story says comes true."""
    tell(_STORIES, story, sandbox, cni_bin, tmp_path)


def tell(stories: Path, story: str, sandbox: tuple[str, ...], cni_bin: Path, directory: Path) -> None:
    """Run one story of a program of stories in the sandbox; it must end well."""
    done = subprocess.run(
        [*sandbox, sys.executable, str(stories), story, str(directory), str(cni_bin)],
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    log = directory / "agent.log"
    assert done.returncode == 0, (
        f"{done.stdout}{done.stderr}\n{log.read_text()[-3000:] if log.exists() else ''}"
    )
