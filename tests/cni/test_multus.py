"""Under Multus, thick and thin: its calls, played exactly, with libcni and the reference plugins behind them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cni.multus_stories import CASES
from tests.cni.test_networks import play

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module", params=["thick", "thin"])
def played(
    request: pytest.FixtureRequest, cni_bin: Path, cnitool: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    program = Path(__file__).with_name("multus_stories.py")
    return play(tmp_path_factory.mktemp("multus"), cni_bin, str(cnitool), request.param, program=program)


@pytest.mark.parametrize("case", CASES)
def test_case(case: str, played: dict[str, str]) -> None:
    assert case in played, f"it was not played; those that were: {sorted(played)}"
    assert not played[case], played[case]
