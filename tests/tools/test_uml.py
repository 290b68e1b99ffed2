"""The guest of User-Mode Linux: what runs in it, what it may touch, and that nothing of it stays."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.checker import eventually
from tests.tools import uml
from tests.tools.gomodule import ProgramMissing

BOOT = 300.0
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


def _wait(guest: uml.Guest, happens: Callable[[], bool]) -> None:
    """Wait until it `happens`, or skip the test where the kernel does not work."""

    def happened() -> None:
        guest.status()
        assert happens(), guest.said()

    try:
        eventually(happened, BOOT)
    except ProgramMissing as missing:
        pytest.skip(str(missing))


def _left(guest: uml.Guest) -> str:
    found = subprocess.run(["pgrep", "-a", "-f", guest.name], capture_output=True, text=True, check=False)
    return found.stdout


def test_a_command_runs_on_a_kernel_of_its_own(kernel: uml.Kernel, tmp_path: Path):
    """With this Python, in this directory, as root; this machine's files can be read and not written."""
    here = tmp_path / "here"
    here.write_text("by the machine")
    guest = uml.Guest(kernel, [sys.executable, "-c", _INSIDE, str(here)], tmp_path, {"TOLD": "a 'word'"})

    try:
        _wait(guest, lambda: guest.status() is not None)
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

    try:
        _wait(guest, (guest.shared / "begun").exists)
    finally:
        guest.close()
    assert _left(guest) == ""
    assert not guest.shared.exists()


def test_what_a_kernel_that_ended_by_itself_left_running_is_gone_too(tmp_path: Path):
    """The program here is a shell that leaves two children behind, which is what a kernel that panics may do."""
    program = tmp_path / "kernel"
    program.write_text('#!/bin/sh\nsh -c "sleep 1000; : $2" &\nsh -c "sleep 1000; : $2" &\n')
    program.chmod(0o755)
    guest = uml.Guest(uml.Kernel(program, tmp_path), ["true"], tmp_path, {})

    def left_behind() -> None:
        assert len(_left(guest).splitlines()) == 2

    try:
        eventually(left_behind)
    finally:
        guest.close()
    assert _left(guest) == ""
