"""Conflict and gateway detection behind real plugins, in real network namespaces: another namespace plays the host that
has the address, and the capture on its card decides."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cni.detection_stories import STORIES
from tests.cni.test_dataplane import sandbox

__all__ = ["sandbox"]

_STORIES = Path(__file__).with_name("detection_stories.py")


@pytest.mark.parametrize("story", list(STORIES))
def test_story(story: str, sandbox: tuple[str, ...], cni_bin: Path, tmp_path: Path) -> None:
    """What the story says comes true."""
    done = subprocess.run(
        [*sandbox, sys.executable, str(_STORIES), story, str(tmp_path), str(cni_bin)],
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    log = tmp_path / "agent.log"
    assert done.returncode == 0, (
        f"{done.stdout}{done.stderr}\n{log.read_text()[-3000:] if log.exists() else ''}"
    )
