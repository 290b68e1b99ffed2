"""`./try` with a command that there is not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

_TRY = Path(__file__).parents[2] / "try"


@pytest.mark.parametrize(
    "arguments, said", [(["bogus"], "there is no command 'bogus'"), ([], "which command?")]
)
def test_a_command_that_there_is_not_is_named(arguments: list[str], said: str):
    done = subprocess.run(
        [sys.executable, str(_TRY), *arguments], capture_output=True, text=True, check=False, timeout=60
    )

    assert done.returncode == 2
    assert "usage: ./try" in done.stderr
    assert done.stderr.splitlines()[-1] == f"try: {said}"
