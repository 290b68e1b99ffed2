"""One plugin, executed: its bounds, its errors, its end."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from pathlib import Path

import pytest

from actors.errors import DeadlineExceeded, InvalidRequest, OrbweaverError, Withdrawn
from cni import shim
from cni.networks.execution import NodePlugins, PluginParameters, Stop, execute
from cni.networks.results import LONGEST_RESULT
from tests.support.checker import eventually

ATTACHMENT = PluginParameters("c1", "/run/netns/x", "net1", "K8S_POD_NAME=web")


@pytest.fixture
def node(tmp_path: Path) -> NodePlugins:
    return NodePlugins(f"relative:{tmp_path / 'nothing'}:{tmp_path}")


def program(node: NodePlugins, script: str, name: str = "plugin") -> Path:
    file = Path(node.path.split(":")[-1]) / name
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    return file


def run(
    node: NodePlugins, seconds: float = 60.0, stop: Stop | None = None, conf: dict | None = None
) -> bytes:
    with stop or Stop() as ending:
        return execute("plugin", "ADD", conf or {}, ATTACHMENT, node, time.monotonic() + seconds, ending)


def test_it_gets_the_protocols_variables_and_nothing_of_the_agents(
    node: NodePlugins, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_OF_THE_AGENT", "x")
    program(node, "env; cat")

    said = run(node, conf={"type": "plugin"}).decode()

    lines = dict(line.partition("=")[::2] for line in said.splitlines() if "=" in line)
    assert {key for key in lines if key.startswith("CNI_")} == {
        "CNI_COMMAND", "CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS", "CNI_PATH",
    }  # fmt: skip
    assert lines["CNI_IFNAME"] == "net1"
    assert "SECRET" not in said
    assert json.loads(said[said.index("{") :]) == {"type": "plugin"}


def test_a_request_and_an_answer_larger_than_a_pipe_pass(node: NodePlugins) -> None:
    program(node, "cat")
    conf = {"filler": "x" * (LONGEST_RESULT - 100)}

    assert json.loads(run(node, conf=conf)) == conf


def test_a_plugins_own_error_keeps_its_code(node: NodePlugins) -> None:
    program(node, """printf '%s' '{"code": 11, "msg": "try later", "details": "a\\nb"}'; exit 1""")

    with pytest.raises(OrbweaverError, match=r"plugin plugin ADD of net1: try later \(a b\)") as told:
        run(node)
    assert told.value.cni_code == 11


@pytest.mark.parametrize(
    "script, said",
    [
        ("echo oops >&2; exit 3", "exit status is 3.*oops"),
        ("kill -9 $$", "signal 9"),
        ("echo '[1'; exit 1", "exit status is 1"),
        ("echo '{\"msg\": 5}'; exit 1", "exit status is 1"),
    ],
)
def test_a_failure_without_an_error_is_told(node: NodePlugins, script: str, said: str) -> None:
    program(node, script)

    with pytest.raises(OrbweaverError, match=said):
        run(node)


def test_what_prints_without_end_is_ended(node: NodePlugins) -> None:
    program(node, "exec cat /dev/zero")

    with pytest.raises(OrbweaverError, match="printed more than"):
        run(node)


def test_what_hangs_is_ended_with_all_that_it_started(node: NodePlugins, tmp_path: Path) -> None:
    file = tmp_path / "child"
    program(node, f"sleep 1000 & echo $! > {file}; wait")

    for seconds in (1.0, 10.0, 60.0):  # a busy machine may need longer to start it
        with pytest.raises(
            DeadlineExceeded, match=r"did not answer within [\d.]+ s and .* look on the node"
        ) as told:
            run(node, seconds=seconds)
        assert told.value.cni_code == 11
        if file.exists() and file.read_text():
            break
    child = int(file.read_text())
    eventually(lambda: _ended(child))


def test_what_nobody_wants_any_more_is_ended(node: NodePlugins, tmp_path: Path) -> None:
    program(node, f"touch {tmp_path}/begun; exec sleep 1000")
    stop = Stop()

    def hang_up() -> None:
        eventually(lambda: _exists(tmp_path / "begun"))
        stop.set("the runtime hung up")

    thread = threading.Thread(target=hang_up, daemon=True)
    thread.start()
    with pytest.raises(Withdrawn, match="the runtime hung up"):
        run(node, stop=stop)
    thread.join()
    stop.set("again")  # after its end


def test_what_a_plugin_leaves_running_is_not_waited_for(node: NodePlugins) -> None:
    program(node, "sleep 1000 & echo $! ; exit 0")

    os.kill(int(run(node)), 9)


def test_a_program_that_is_not_there_is_named_with_where_it_was_looked_for(node: NodePlugins) -> None:
    with pytest.raises(InvalidRequest, match=r"no plugin plugin in /.*nothing, /.*; install it") as told:
        run(node)
    assert "relative" not in str(told.value)


def test_in_another_root_the_nodes_own_paths_are_meant(tmp_path: Path) -> None:
    (tmp_path / "opt" / "bin").mkdir(parents=True)
    (tmp_path / "opt" / "bin" / "macvlan").symlink_to("/only/there")
    node = NodePlugins("/opt/bin", tmp_path)

    assert node.find("macvlan") == "/opt/bin/macvlan"


def test_a_plugin_runs_in_the_nodes_own_file_system(tmp_path: Path) -> None:
    """Where the agent sees that at a directory of its own."""
    try:
        shim.in_root()
    except OrbweaverError as error:
        pytest.skip(str(error))
    busybox = shutil.which("busybox")
    if busybox is None or os.geteuid() != 0:
        pytest.skip("it takes root and busybox-static")
    for directory in ("bin", "opt/bin", "var"):
        (tmp_path / directory).mkdir(parents=True)
    shutil.copy(busybox, tmp_path / "bin" / "sh")
    (tmp_path / "var" / "leases").write_text("of the node")
    plugin = tmp_path / "opt" / "bin" / "plugin"
    plugin.write_text("#!/bin/sh\npwd; read lease < /var/leases; echo $lease")
    plugin.chmod(0o755)

    assert run(NodePlugins("/opt/bin", tmp_path)) == b"/\nof the node\n"

    plugin.unlink()
    plugin.symlink_to("/not/there")
    with pytest.raises(OrbweaverError, match=r"exit status is 127.*cannot execute /opt/bin/plugin"):
        run(NodePlugins("/opt/bin", tmp_path))


def _exists(file: Path) -> None:
    assert file.exists()


def _ended(pid: int) -> None:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return
    assert not command, "it still runs"  # it may wait to be reaped
