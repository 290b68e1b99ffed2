"""When the image is built, and how long it is kept."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.tools import image
from tests.tools.gomodule import ROOT

_SAID = "the container image is built first"


@pytest.mark.usefixtures("image_archive")
@pytest.mark.parametrize(
    "chosen, needs",
    [
        ("tests/deploy/test_image.py", True),
        ("tests/cluster/test_static_pods.py", True),
        ("tests/tools/test_try.py", False),
    ],
)
def test_the_image_is_built_before_the_first_test_that_needs_it(chosen: str, needs: bool):
    """Where the time of no test runs yet."""
    command = [sys.executable, "-P", "-m", "pytest", "-p", "no:cacheprovider", "--setup-plan", chosen]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    assert (_SAID in done.stdout) is needs


def test_an_image_that_others_use_is_kept(tmp_path: Path):
    """Of seven, two were used a minute ago; the four that were used last stay in any case."""
    ages = [60, 70, 10_000, 20_000, 30_000, 40_000, 50_000]
    for number, age in enumerate(ages):
        (tmp_path / f"{number}").mkdir()
        (tmp_path / f"{number}" / "image.tar").touch()
        (tmp_path / f"{number}.lock").touch()
        os.utime(tmp_path / f"{number}", (time.time() - age,) * 2)

    image._forget_old(tmp_path)
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {"0", "1", "2", "3"}

    for number in range(4):
        (tmp_path / f"new{number}").mkdir()
    image._forget_old(tmp_path)
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {
        *("0", "1"),
        *(f"new{number}" for number in range(4)),
    }
