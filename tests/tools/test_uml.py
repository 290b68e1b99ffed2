"""The guest of User-Mode Linux: what runs in it, what it may touch, and that nothing of it stays."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.checker import eventually
from tests.tools import uml
from tests.tools.gomodule import ProgramMissing

BOOT = 120.0
_INSIDE = """
import os, pathlib, subprocess, sys
print("tells", os.environ["TOLD"], pathlib.Path.cwd())
pathlib.Path(os.environ["TMPDIR"], "x").write_text("writable")
try:
    pathlib.Path(sys.argv[1]).write_text("by the guest")
except OSError as error:
    print("refused:", error.strerror)
for kind in ("ipvlan", "macvlan", "vlan"):
    tail = ["id", "5"] if kind == "vlan" else []
    subprocess.run(["ip", "link", "add", f"on-{kind}", "type", "dummy"], check=True)
    subprocess.run(["ip", "link", "add", "link", f"on-{kind}", "name", kind, "type", kind, *tail], check=True)
subprocess.run(["ip", "link", "add", "bond7", "type", "bond"], check=True)
sys.exit(7)
"""


@pytest.fixture(scope="module")
def kernel() -> uml.Kernel:
    try:
        return uml.find()
    except ProgramMissing as missing:
        pytest.skip(str(missing))


def _left(guest: uml.Guest) -> str:
    found = subprocess.run(["pgrep", "-f", guest.name], capture_output=True, text=True, check=False)
    return found.stdout


def test_a_command_runs_on_a_kernel_of_its_own(kernel: uml.Kernel, tmp_path: Path):
    """With this Python, in this directory, as root; this machine's files can be read and not written."""
    here = tmp_path / "here"
    here.write_text("by the machine")
    guest = uml.Guest(kernel, [sys.executable, "-c", _INSIDE, str(here)], tmp_path, {"TOLD": "a 'word'"})

    def ended() -> None:
        assert guest.status() is not None

    try:
        eventually(ended, BOOT)
        assert guest.status() == 7, guest.said()
        said = guest.said()
        assert f"tells a 'word' {tmp_path}" in said
        assert "refused: Read-only file system" in said
        assert here.read_text() == "by the machine"
    finally:
        guest.close()
    assert _left(guest) == ""


def test_a_guest_that_is_closed_leaves_nothing(kernel: uml.Kernel, tmp_path: Path):
    command = ["sh", "-c", 'touch "$ORBWEAVER_UML_SHARED/begun"; sleep 1000']
    guest = uml.Guest(kernel, command, tmp_path, {})

    def begun() -> None:
        assert (guest.shared / "begun").exists()

    try:
        eventually(begun, BOOT)
    finally:
        guest.close()
    assert _left(guest) == ""
    assert not guest.shared.exists()
