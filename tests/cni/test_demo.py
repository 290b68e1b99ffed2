"""`orbweaver demo`, the real command in its own sandbox: it does what it says, and nothing stays, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from cni.command.main import main
from cni.command.sandbox import missing_tools
from tests.support.agent_process import PROGRAM
from tests.support.checker import equal, eventually

_TIMEOUT = 300


@pytest.fixture
def environment(tmp_path: Path) -> Mapping[str, str]:
    """With a place of its own for temporary files; skips where there are no network namespaces."""
    missing = missing_tools(("ip", "ping", "unshare", "nsenter", "setpriv"))
    if missing:
        pytest.skip(f"not installed: {', '.join(sorted(missing.values()))}")
    user = () if os.geteuid() == 0 else ("--user", "--map-root-user")
    probe = subprocess.run(["unshare", "--net", *user, "true"], capture_output=True, text=True, check=False)
    if probe.returncode != 0:
        pytest.skip(f"network namespaces cannot be made here: {probe.stderr.strip()}")
    return {**os.environ, "TMPDIR": str(tmp_path)}


def test_the_demo_does_what_it_says_and_leaves_nothing(
    environment: Mapping[str, str], cni_bin: Path, tmp_path: Path
):
    done = subprocess.run(
        [*PROGRAM, "demo", "--cni-bin", str(cni_bin), "--adds", "1"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=_TIMEOUT,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    for said in ("web-a pings web-b", "CHECK of web-a: as recorded", "scaled to four", "Done: the sandbox"):
        assert said in done.stdout
    assert list(tmp_path.iterdir()) == []
    assert _processes(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
def test_nothing_of_a_demo_runs_on_when_it_is_ended(
    number: signal.Signals, environment: Mapping[str, str], cni_bin: Path, tmp_path: Path
):
    with subprocess.Popen(
        [*PROGRAM, "demo", "--cni-bin", str(cni_bin)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as demo:
        eventually(lambda: _agent_runs(tmp_path))
        for pid in _processes(tmp_path, "agent"):
            os.kill(pid, signal.SIGSTOP)  # so that it does not come to its end by itself
        demo.send_signal(number)
        demo.wait(120)

    try:
        eventually(lambda: equal(_processes(tmp_path), []))
    finally:
        for pid in _processes(tmp_path):
            os.kill(pid, signal.SIGKILL)
    if number == signal.SIGTERM:
        eventually(lambda: equal(list(tmp_path.iterdir()), []))


def test_a_demo_without_plugins_says_where_it_looked(
    capsys: pytest.CaptureFixture[str],
):
    with tempfile.TemporaryDirectory() as empty:
        assert main(["demo", "--cni-bin", empty]) == 1

        assert f"the CNI plugin 'macvlan' is in none of {empty}; install it" in capsys.readouterr().err


def _agent_runs(directory: Path) -> None:
    assert _processes(directory, "agent")


def _processes(directory: Path, word: str = "") -> list[int]:
    """The processes that work in the directory; with a `word`, those that have it as an argument."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = entry.read_text(errors="replace").split("\0")
        except OSError:
            continue  # it ended meanwhile
        if any(str(directory) in part for part in command) and (not word or word in command):
            found.append(int(entry.parent.name))
    return found
