"""Conflict and gateway detection behind real plugins, in real network namespaces: another namespace plays the host that
has the address, and the capture on its card decides."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cni.detection_stories import STORIES
from tests.cni.test_dataplane import sandbox
from tests.support.stories import play

__all__ = ["sandbox"]

_STORIES = Path(__file__).with_name("detection_stories.py")


@pytest.mark.parametrize("story", list(STORIES))
def test_story(story: str, sandbox: tuple[str, ...], cni_bin: Path, tmp_path: Path) -> None:
    """What the story says comes true."""
    play(sandbox, _STORIES, tmp_path, story, str(tmp_path), str(cni_bin))
