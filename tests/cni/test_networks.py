"""Several interfaces with nothing else installed: the specification's cases, each with real plugins in real namespaces."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cni.network_stories import CASES, ISOLATED
from tests.support import stories

_STORIES = Path(__file__).with_name("network_stories.py")

pytestmark = pytest.mark.timeout(600)


def play(directory: Path, plugins: Path, *more: str, program: Path = _STORIES) -> dict[str, str]:
    """What was wrong in each case, played in one sandbox; skip where there is none."""
    sandbox = stories.sandbox_with("ip", "nsenter", "nft", "tc")
    said = stories.play(sandbox, program, directory, str(directory), str(plugins), *more, timeout=560)
    told = [json.loads(line) for line in said.splitlines()]
    return {one["case"]: one["wrong"] for one in told}


@pytest.fixture(scope="module")
def played(cni_bin: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return play(tmp_path_factory.mktemp("networks"), cni_bin)


@pytest.mark.parametrize("case", [name for name in CASES if name not in ISOLATED])
def test_case(case: str, played: dict[str, str]) -> None:
    """What the specification's section, or the case's own name, says comes true."""
    assert case in played, f"it was not played; those that were: {sorted(played)}"
    assert not played[case], played[case]


def test_isolated_namespaces(cni_bin: Path, tmp_path: Path) -> None:
    """Section 7.4, where namespaces are isolated."""
    found = play(tmp_path, cni_bin, "7.4")
    assert found == dict.fromkeys(ISOLATED, "")
