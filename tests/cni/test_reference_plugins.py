"""The real reference plugins, and a real CNI client, get their addresses from a real agent and their pods meet."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cni.sandbox_stories import STORIES
from tests.support.stories import play, sandbox_with

_STORIES = Path(__file__).with_name("sandbox_stories.py")


@pytest.fixture(scope="module")
def sandbox() -> tuple[str, ...]:
    return sandbox_with("ip", "ping", "nsenter")


@pytest.mark.parametrize("story", [name for name in STORIES if name != "cnitool"])
def test_story(story: str, sandbox: tuple[str, ...], cni_bin: Path, tmp_path: Path) -> None:
    """What the story says comes true with the real plugin."""
    play(sandbox, _STORIES, tmp_path, story, str(tmp_path), str(cni_bin))


def test_cnitool(sandbox: tuple[str, ...], cni_bin: Path, cnitool: Path, tmp_path: Path) -> None:
    """A client that nobody here wrote is served."""
    play(sandbox, _STORIES, tmp_path, "cnitool", str(tmp_path), str(cni_bin), str(cnitool))
