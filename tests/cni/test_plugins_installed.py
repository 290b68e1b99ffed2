"""The plugins on a node: whole at every moment, and as this version has them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cni import shim
from cni.shim.keeper import PluginKeeper
from tests.support.checker import eventually
from tests.support.rig import rig

POINTS = 100
INSTALLER = """
import os, signal, sys
from pathlib import Path
from cni import shim

directory, points = Path(sys.argv[1]), int(sys.argv[2])
new, old = shim.binary().read_bytes(), b"what was there before"


def install(stop_at):
    count = 0

    def trace(frame, event, argument):
        nonlocal count
        count += 1
        if count == stop_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)
    shim.install(directory)
    sys.settrace(None)
    return count


install(0)  # what it imports only once is imported now
total = install(0)
seen, unfinished = [], []
for number in range(points):
    for name in shim.PLUGINS:
        (directory / name).write_bytes(old)
    child = os.fork()
    if child == 0:
        install(1 + number * total // points)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL, status
    found = [(directory / name).read_bytes() for name in shim.PLUGINS]
    assert all(one in (old, new) for one in found), [len(one) for one in found]
    seen.append(sum(one == new for one in found))
    left = list(directory.glob(".*"))
    assert len(left) <= 1, left
    unfinished += left
    for path in left:  # they are too young to be tidied up
        path.unlink()
assert set(seen) == {0, 1, 2, 3}, seen
assert unfinished, "none was killed while it wrote"
for path in unfinished:
    path.touch()
    os.utime(path, (0, 0))
install(0)
assert sorted(path.name for path in directory.iterdir()) == sorted(shim.PLUGINS)
print(total)
"""


def test_an_installer_that_is_killed_at_a_hundred_points_leaves_old_or_new(tmp_path: Path) -> None:
    """And the next one tidies up behind it."""
    done = subprocess.run(
        [sys.executable, "-c", INSTALLER, str(tmp_path / "bin"), str(POINTS)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= POINTS


OTHERS = b"somebody else's program"


def spoil(path: Path, how: str) -> None:
    match how:
        case "gone":
            path.unlink()
        case "cut":
            path.write_bytes(path.read_bytes()[:100])
        case "other":
            path.write_bytes(path.read_bytes()[:-1] + b"x")
        case "longer":
            path.write_bytes(path.read_bytes() + b"x")
        case "not to be executed":
            path.chmod(0o644)
        case "a link":
            path.unlink()
            (other := path.with_name("somebody-else's")).write_bytes(OTHERS)
            path.symlink_to(other)
        case "a pipe":
            path.unlink()
            os.mkfifo(path)


@pytest.mark.parametrize("how", ["gone", "cut", "other", "longer", "not to be executed", "a link", "a pipe"])
def test_what_is_not_right_is_put_right_and_what_is_right_left_alone(tmp_path: Path, how: str) -> None:
    keeper = PluginKeeper(tmp_path)
    assert keeper.install() == shim.PLUGINS
    before = (tmp_path / "spiderpool").stat()
    assert keeper.install() == ()
    spoil(tmp_path / "ifacer", how)
    assert keeper.install() == ("ifacer",)
    assert shim.differing(tmp_path) == ()
    assert (tmp_path / "spiderpool").stat().st_ino == before.st_ino
    assert keeper.install() == ()
    if how == "a link":
        assert (tmp_path / "somebody-else's").read_bytes() == OTHERS


def test_a_running_agent_puts_its_plugins_right(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    directory = tmp_path / "host" / "bin"
    keeper = PluginKeeper(directory, look=0.1)
    keeper.install()
    with rig(tmp_path, plugins=keeper):
        spoil(directory / "spiderpool", "cut")
        eventually(lambda: _right(directory))
        eventually(lambda: _told(caplog, "plugins were not as this version has them, and are put right"))
    spoil(directory / "spiderpool", "cut")
    assert shim.differing(directory) == ("spiderpool",), "it ended with its agent"


def test_a_directory_that_cannot_be_written_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keeper = PluginKeeper(tmp_path / "file" / "bin", look=0.05)
    (tmp_path / "file").touch()
    keeper.start()
    eventually(lambda: _told(caplog, "the plugins are not looked after"))
    keeper.stop()
    assert caplog.messages.count("the plugins are not looked after") == 1


def _told(caplog: pytest.LogCaptureFixture, message: str) -> None:
    assert message in caplog.messages


def _right(directory: Path) -> None:
    assert shim.differing(directory) == ()
