"""Several interfaces with nothing else installed: the specification's cases, each with real plugins in real namespaces."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cni.command.sandbox import missing_tools
from tests.cni.network_stories import CASES, ISOLATED

_STORIES = Path(__file__).with_name("network_stories.py")
_SANDBOX = ("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")

pytestmark = pytest.mark.timeout(300)


def play(directory: Path, plugins: Path, *more: str, stories: Path = _STORIES) -> dict[str, str]:
    """What was wrong in each case, played in one sandbox; skip where there is none."""
    missing = missing_tools(("ip", "unshare", "nsenter", "nft", "tc"))
    if missing:
        pytest.skip(f"not installed: {', '.join(sorted(missing.values()))}")
    prefix = _SANDBOX if os.geteuid() == 0 else (*_SANDBOX, "--user", "--map-root-user")
    probe = subprocess.run([*prefix, "true"], capture_output=True, text=True, check=False)
    if probe.returncode != 0:
        pytest.skip(f"network namespaces cannot be made here: {probe.stderr.strip()}")
    done = subprocess.run(
        [*prefix, sys.executable, str(stories), str(directory), str(plugins), *more],
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    log = directory / "agent.log"
    assert done.returncode == 0, (
        f"{done.stdout}{done.stderr}\n{log.read_text()[-3000:] if log.exists() else ''}"
    )
    told = [json.loads(line) for line in done.stdout.splitlines()]
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
