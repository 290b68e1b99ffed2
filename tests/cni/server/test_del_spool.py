"""DELs that came while no agent ran: kept by the real shim, done by the agent that comes, and nothing newer with them."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.errors import StoreUnavailable
from cni import shim
from cni.server.del_spool import LEFT, DelSpool, SpoolReplay, spool_of
from cni.server.exchange import CniAnswer, Exchange
from tests.support.agent_process import AgentProcess, pool
from tests.support.checker import eventually

NETCONF = {"cniVersion": "1.0.0", "name": "net", "type": "macvlan"}


class Runtime:
    """Starts the plugin as a runtime does."""

    def __init__(self, directory: Path) -> None:
        self.socket = directory / "agent.sock"
        self._plugins = directory / "plugins"
        shim.install(self._plugins)

    def __call__(
        self,
        command: str,
        container: str,
        *,
        plugin: str = "spiderpool",
        wait: str = "10",
        more: str = "",
        **cni: str,
    ) -> tuple[int, Any]:
        conf = NETCONF | {
            "ipam": {"type": "spiderpool", "ipam_unix_socket_path": str(self.socket)},
            "more": more,
        }
        named = f"IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-{container};K8S_POD_UID=u-{container}"
        environment = {
            "CNI_COMMAND": command, "CNI_CONTAINERID": container, "CNI_IFNAME": "eth0", "CNI_NETNS": "/run/netns/none",
            "CNI_PATH": "/opt/cni/bin", "CNI_ARGS": named, "ORBWEAVER_SHIM_WAIT": wait, **cni,
        }  # fmt: skip
        done = subprocess.run(
            [self._plugins / plugin],
            input=json.dumps(conf).encode(),
            env=environment,
            capture_output=True,
            check=False,
        )
        return done.returncode, json.loads(done.stdout) if done.stdout else None

    @property
    def kept(self) -> list[str]:
        return sorted(path.name for path in spool_of(self.socket).iterdir() if path.name != LEFT)


@pytest.fixture
def runtime(tmp_path: Path) -> Runtime:
    return Runtime(tmp_path)


@pytest.fixture
def spool(runtime: Runtime) -> DelSpool:
    made = DelSpool(runtime.socket)
    made.prepare()
    return made


def test_a_del_without_an_agent_is_kept_once_and_answered(runtime: Runtime, spool: DelSpool) -> None:
    for _ in range(2):
        assert runtime("DEL", "c1") == (0, None)
    assert runtime("DEL", "c1", plugin="coordinator") == (0, None)
    assert runtime.kept == ["c1@eth0@coordinator", "c1@eth0@spiderpool"]
    data = (spool.directory / "c1@eth0@spiderpool").read_bytes()
    assert data[:4] == b"OWC1"
    assert struct.unpack_from(">I", data, 4)[0] == len(data) - 8
    assert b"CNI_COMMAND=DEL\0" in data
    assert b'"name": "net"' in data
    assert (spool.directory / "c1@eth0@spiderpool").stat().st_mode & 0o777 == 0o600


def test_a_large_del_is_kept_without_its_configuration(runtime: Runtime, spool: DelSpool) -> None:
    assert runtime("DEL", "c1", more="x" * 100_000)[0] == 0
    data = (spool.directory / "c1@eth0@spiderpool").read_bytes()
    assert len(data) < 1000
    assert struct.unpack_from(">I", data, 4)[0] == len(data) - 8
    assert data.endswith(b"\0\0")


@pytest.mark.parametrize(
    "wrong",
    [{"CNI_CONTAINERID": "../c1"}, {"CNI_CONTAINERID": ""}, {"CNI_CONTAINERID": ".c"}, {"CNI_CONTAINERID": "c" * 129},
     {"CNI_IFNAME": "eth0/.."}, {"CNI_IFNAME": "x" * 16}],
)  # fmt: skip
def test_a_name_that_is_none_is_not_kept(runtime: Runtime, spool: DelSpool, wrong: dict[str, str]) -> None:
    status, error = runtime("DEL", "c1", **wrong)
    assert (status, error["code"]) == (1, 11)
    assert not runtime.kept


def test_where_no_agent_ever_was_a_del_fails_and_an_add_does_not_wait(runtime: Runtime) -> None:
    for command in ("DEL", "ADD"):
        status, error = runtime(command, "c1", wait="60")
        assert (status, error["code"]) == (1, 11)
    assert not spool_of(runtime.socket).exists()


def test_a_full_spool_takes_no_more(runtime: Runtime, spool: DelSpool) -> None:
    for number in range(4096):
        (spool.directory / f"c{number}@eth0@spiderpool").touch()
    status, error = runtime("DEL", "one-more")
    assert (status, error["code"]) == (1, 11)
    assert len(runtime.kept) == 4096


def test_a_spool_that_cannot_be_written_is_as_none(runtime: Runtime, spool: DelSpool) -> None:
    spool.directory.rmdir()
    spool.directory.symlink_to("/proc/self/fdinfo")
    status, error = runtime("DEL", "c1")
    assert (status, error["code"]) == (1, 11)


def test_a_shim_that_is_killed_while_it_writes_leaves_nothing_that_counts(
    runtime: Runtime, spool: DelSpool
) -> None:
    (spool.directory / ".new-77").write_bytes(b"OWC1\0\0")
    assert spool.kept() == []
    old = time.time() - 3600
    os.utime(spool.directory / ".new-77", (old, old))
    (spool.directory / ".new-78").touch()
    spool.prepare()
    assert runtime.kept == [".new-78"]


def test_the_spool_may_be_elsewhere(runtime: Runtime, tmp_path: Path) -> None:
    """On a disk, while the socket is in memory."""
    made = DelSpool(runtime.socket, tmp_path / "disk" / "spool")
    for _ in range(2):  # the link that is there is replaced
        made.prepare()
    assert runtime("DEL", "c1")[0] == 0
    assert [path.name for path in made.kept()] == ["c1@eth0@spiderpool"]
    assert (tmp_path / "disk" / "spool" / "c1@eth0@spiderpool").is_file()


class Replayed:
    """What the replay has served, in a loop of its own; `answer` says how."""

    def __init__(self, spool: DelSpool, answer: Callable[[Exchange], object]) -> None:
        self.spool, self.served = spool, list[str]()

        def serve(exchange: Exchange) -> None:
            self.served.append(f"{exchange.request.sandbox.container} {exchange.request.plugin}")
            answer(exchange)

        self._replay = SpoolReplay(spool, serve, ("coordinator",), 5.0)

    def one_pass(self) -> list[str]:
        asyncio.run(self._replay._pass())
        return self.served


def test_what_was_kept_is_done_in_its_order_and_once(runtime: Runtime, spool: DelSpool) -> None:
    for number, (container, plugin) in enumerate(
        [("c2", "spiderpool"), ("c1", "coordinator"), ("c3", "spiderpool")]
    ):
        assert runtime("DEL", container, plugin=plugin)[0] == 0
        os.utime(spool.directory / f"{container}@eth0@{plugin}", (1e9 + number, 1e9 + number))
    done = Replayed(spool, lambda exchange: exchange.deliver(CniAnswer()))
    assert done.one_pass() == ["c2 spiderpool", "c1 coordinator", "c3 spiderpool"]
    assert not runtime.kept
    assert len(done.one_pass()) == 3


def test_what_cannot_be_done_yet_stays(runtime: Runtime, spool: DelSpool) -> None:
    assert runtime("DEL", "c1")[0] == 0
    Replayed(spool, lambda exchange: exchange.deliver(StoreUnavailable("away"))).one_pass()
    assert runtime.kept == ["c1@eth0@spiderpool"]


@pytest.mark.parametrize(
    "content",
    [b"", b"OWC1", b"OWC1\0\0\0\1", b"OWC2" + bytes(4),
     *(b"OWC1" + struct.pack(">I", len(body)) + body for body in (
         b"plugin=spiderpool\0CNI_COMMAND=ADD\0CNI_CONTAINERID=c\0CNI_IFNAME=eth0\0\0",
         b"plugin=other\0CNI_COMMAND=DEL\0\0", b"\xff\0\0", b""))],
)  # fmt: skip
def test_what_is_no_del_of_ours_is_told_and_removed(
    runtime: Runtime, spool: DelSpool, content: bytes
) -> None:
    (spool.directory / "c1@eth0@spiderpool").write_bytes(content)
    done = Replayed(spool, lambda exchange: exchange.deliver(CniAnswer()))
    assert done.one_pass() == []
    assert not runtime.kept


@pytest.mark.parametrize("kind", ["directory", "link", "pipe"])
def test_one_that_cannot_be_read_costs_itself_alone(
    runtime: Runtime, spool: DelSpool, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    """However old it is: what is behind it is done, and the log has it once."""
    odd = spool.directory / "a@eth0@spiderpool"
    if kind == "directory":
        odd.mkdir()
    elif kind == "link":
        odd.symlink_to("nowhere")
    else:
        os.mkfifo(odd)
    os.utime(odd, (1e9, 1e9), follow_symlinks=False)
    assert runtime("DEL", "c1")[0] == 0
    done = Replayed(spool, lambda exchange: exchange.deliver(CniAnswer()))
    for _ in range(2):
        assert done.one_pass() == ["c1 spiderpool"]
    assert "c1@eth0@spiderpool" not in runtime.kept
    assert len([line for line in caplog.messages if "that was kept cannot be" in line]) == 1


def left(spool: DelSpool, ago: float) -> None:
    """An agent ended in order so many seconds ago."""
    spool.leave()
    at = time.time() - ago
    os.utime(spool.directory / LEFT, (at, at))


@pytest.fixture
def just_left(spool: DelSpool) -> Iterator[None]:
    """An agent ended in order a moment ago, at whatever time of the test one looks: programs may start late."""
    over = threading.Event()

    def leave() -> None:
        spool.leave()
        while not over.wait(0.5):
            left(spool, 0)

    spool.leave()
    leaving = threading.Thread(target=leave, daemon=True)
    leaving.start()
    yield
    over.set()
    leaving.join()


@pytest.mark.usefixtures("just_left")
def test_behind_an_agent_that_ended_in_order_an_add_waits_longer_for_the_next(runtime: Runtime) -> None:
    said: list[tuple[int, Any]] = []
    waiting = threading.Thread(target=lambda: said.append(runtime("ADD", "c1", wait="1")), daemon=True)
    waiting.start()
    waiting.join(3)
    assert waiting.is_alive(), said
    with socket.socket(socket.AF_UNIX) as listener:
        listener.settimeout(120)
        listener.bind(str(runtime.socket))
        listener.listen()
        connection, _ = listener.accept()
        with connection:
            size = struct.unpack_from(">I", connection.recv(8, socket.MSG_WAITALL), 4)[0]
            connection.recv(size, socket.MSG_WAITALL)
            connection.sendall(b"OWR1" + struct.pack(">II", 0, 2) + b"{}")
        waiting.join()
    assert said == [(0, {})]


@pytest.mark.parametrize("ago", [31, -3600])  # long ago; and the clock was put back meanwhile
def test_who_left_long_ago_is_waited_for_no_longer(runtime: Runtime, spool: DelSpool, ago: float) -> None:
    left(spool, ago)
    assert runtime("ADD", "c1", wait="1")[1]["code"] == 11
    assert runtime("STATUS", "c1")[1]["code"] == 50


@pytest.mark.usefixtures("just_left")
def test_a_runtime_that_wants_no_waiting_has_none(runtime: Runtime) -> None:
    assert runtime("ADD", "c1", wait="0")[1]["code"] == 11


@pytest.mark.usefixtures("just_left")
def test_while_an_agent_is_replaced_its_node_stays_ready(runtime: Runtime) -> None:
    """Runtimes make a node NotReady whose plugin's STATUS fails."""
    assert runtime("STATUS", "c1") == (0, None)


def test_an_agent_that_ends_says_so(agent: AgentProcess, runtime: Runtime) -> None:
    note = spool_of(runtime.socket) / LEFT
    assert not note.exists()
    agent.stop()
    assert note.stat().st_mode & 0o777 == 0o600
    agent.start()
    agent.kill()
    before = note.stat().st_mtime
    agent.start()
    agent.stop()
    assert note.stat().st_mtime > before


def test_an_add_takes_back_the_del_of_its_attachment_alone(runtime: Runtime, spool: DelSpool) -> None:
    for container in ("c1", "c2"):
        assert runtime("DEL", container)[0] == 0
    assert runtime("ADD", "c1", wait="0")[1]["code"] == 11, "nobody has heard of it, and the DEL counts still"
    assert runtime.kept == ["c1@eth0@spiderpool", "c2@eth0@spiderpool"]
    seen: list[list[str]] = []

    def script() -> None:
        for _ in range(2):
            connection, _ = listener.accept()
            with connection:
                header = connection.recv(8, socket.MSG_WAITALL)
                connection.recv(struct.unpack_from(">I", header, 4)[0], socket.MSG_WAITALL)
                seen.append(runtime.kept)  # before it is answered
                connection.sendall(b"OWR1" + struct.pack(">II", 0, 2) + b"{}")

    replay = SpoolReplay(spool, lambda _: None, (), 5.0)
    first = spool.kept()[0]
    with socket.socket(socket.AF_UNIX) as listener:
        listener.settimeout(120)
        listener.bind(str(runtime.socket))
        listener.listen()
        serving = threading.Thread(target=script, daemon=True)
        serving.start()
        assert runtime("ADD", "c1", plugin="coordinator") == (0, {})
        assert runtime("ADD", "c1") == (0, {})
        serving.join()
    assert seen == [["c1@eth0@spiderpool", "c2@eth0@spiderpool"], ["c2@eth0@spiderpool"]]
    assert replay._begin(first) is None, "it was found before, and is not begun"


# -- with a real agent -------------------------------------------------------------------------------------


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[AgentProcess]:
    made = AgentProcess(tmp_path, "--timeout", "50")
    made.apply(pool("blue", "10.6.0.0/16", "10.6.0.1-10.6.0.9"))
    made.start()
    yield made
    if made.running:
        made.stop()


def addresses(agent: AgentProcess) -> set[str]:
    return {one["container"] for one in agent.records().values()}


def test_pods_come_and_go_while_the_agent_is_replaced(agent: AgentProcess, runtime: Runtime) -> None:
    """DELs are answered at once, an ADD waits for the next agent; what is newer than a DEL stays."""
    before = {container: runtime("ADD", container) for container in ("c1", "c2", "c3")}
    assert all(status == 0 for status, _ in before.values()), before
    for stop in (agent.stop, agent.kill):
        stop()
        assert runtime("DEL", "c1")[0] == 0
        assert runtime("DEL", "c2")[0] == 0
        started: list[tuple[int, Any]] = []
        waiting = threading.Thread(
            target=lambda found=started: found.append(runtime("ADD", "c2", wait="60")), daemon=True
        )
        waiting.start()
        agent.start()
        waiting.join()
        assert started[0][0] == 0, started
        eventually(lambda: _equal(addresses(agent), {"c2", "c3"}))
        eventually(lambda: _equal(runtime.kept, []))  # it is taken away behind the release
        assert runtime("ADD", "c1")[0] == 0


def _equal(found: object, wanted: object) -> None:
    assert found == wanted


def test_an_add_whose_agent_is_killed_under_it_is_asked_again(
    tmp_path: Path, runtime: Runtime, spool: DelSpool
) -> None:
    """It hung up before it answered."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(runtime.socket))
    listener.listen(4)
    listener.settimeout(120)  # who is not asked again ends all the same
    asked: list[bytes] = []

    def script() -> None:
        for number in range(3):
            connection, _ = listener.accept()
            with connection:
                header = connection.recv(8, socket.MSG_WAITALL)
                asked.append(connection.recv(struct.unpack_from(">I", header, 4)[0], socket.MSG_WAITALL))
                if number == 2:
                    connection.sendall(b"OWR1" + struct.pack(">II", 0, 2) + b"{}")

    serving = threading.Thread(target=script, daemon=True)
    serving.start()
    assert runtime("ADD", "c1", wait="60") == (0, {})
    serving.join()
    listener.close()
    assert asked[0] == asked[1] == asked[2]
