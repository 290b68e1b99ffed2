"""The coordinator behind real plugins, in real network namespaces: packets and the kernel's own tables decide."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cni.dataplane_stories import STORIES
from tests.support.stories import play, sandbox_with

_STORIES = Path(__file__).with_name("dataplane_stories.py")


@pytest.fixture(scope="module")
def sandbox() -> tuple[str, ...]:
    return sandbox_with("ip", "ping", "nsenter", "nft", "pgrep")


@pytest.mark.parametrize("story", list(STORIES))
def test_story(story: str, sandbox: tuple[str, ...], cni_bin: Path, tmp_path: Path) -> None:
    """What the story says comes true."""
    play(sandbox, _STORIES, tmp_path, story, str(tmp_path), str(cni_bin))
