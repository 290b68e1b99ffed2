"""The health port of a real agent under attack by local processes: CNI goes on, and health answers soon after."""

from __future__ import annotations

import contextlib
import resource
import socket
import struct
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.agent_process import AgentProcess
from tests.support.checker import eventually
from tests.support.cni_client import ask, encode
from tests.support.processes import apply
from tests.support.rig import pool

DESCRIPTORS = 1024
"""What a service has by default."""
OWN = 120
"""An agent at rest has about 40 descriptors and 30 threads."""


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[AgentProcess]:
    apply(tmp_path, pool("v4", "10.6.0.0/16", "10.6.0.10-10.6.0.250"))
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before[0], min(4096, before[1])), before[1]))
    with AgentProcess(tmp_path, wrapper=("sh", "-c", f'ulimit -n {DESCRIPTORS}; exec "$@"', "sh")) as running:
        yield running
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def serves(agent: AgentProcess) -> None:
    """Ten pods come and go, and the attack takes neither descriptors nor threads of the process that serves them."""
    for number in range(10):
        assert ask(agent.socket, encode("ADD", f"c{number}")).status == 0
        assert ask(agent.socket, encode("DEL", f"c{number}")).status == 0
        process = Path(f"/proc/{agent.pid}")
        assert len(list((process / "fd").iterdir())) < OWN
        assert len(list((process / "task").iterdir())) < OWN


def healthy(port: int) -> None:
    """It answers, at the latest when it is asked again: between connecting and asking another may take the place."""
    eventually(lambda: answers(port))


def answers(port: int) -> None:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=60) as answer:
            assert answer.status == 200
    except OSError as error:
        raise AssertionError(f"no answer: {error}") from error


def attacker(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=60)


def test_slow_connections(agent: AgentProcess):
    """As many as the agent has descriptors, each kept alive with a byte now and then, and opened anew when it is closed."""
    port, over = agent.metrics_port, threading.Event()
    slow = [slow_one(port) for _ in range(DESCRIPTORS - 27)]

    def drip() -> None:
        while not over.is_set():
            for place, client in enumerate(slow):
                try:
                    client.sendall(b"a")
                except OSError:
                    client.close()
                    with contextlib.suppress(OSError):
                        slow[place] = slow_one(port)

    dripping = threading.Thread(target=drip, daemon=True)
    dripping.start()
    try:
        serves(agent)
        healthy(port)
    finally:
        over.set()
        dripping.join()
        for client in slow:
            client.close()
    serves(agent)


def slow_one(port: int) -> socket.socket:
    client = attacker(port)
    with contextlib.suppress(ConnectionError):
        client.sendall(b"GET /metrics HTTP/1.1\r\nX: ")
    return client


def test_connections_that_hang_up_at_once(agent: AgentProcess):
    port, over = agent.metrics_port, threading.Event()

    def hang_up() -> None:
        while not over.is_set():
            with contextlib.suppress(OSError), attacker(port) as client:
                client.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    threads = [threading.Thread(target=hang_up, daemon=True) for _ in range(8)]
    for thread in threads:
        thread.start()
    try:
        serves(agent)
        healthy(port)
    finally:
        over.set()
        for thread in threads:
            thread.join()
    serves(agent)


def test_pipelined_scrapes(agent: AgentProcess):
    port = agent.metrics_port
    clients: list[socket.socket] = []
    try:
        for _ in range(200):
            clients.append(attacker(port))
            with contextlib.suppress(ConnectionError):
                clients[-1].sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 20)
        serves(agent)
        healthy(port)
    finally:
        for client in clients:
            client.close()
    serves(agent)


def test_what_comes_to_the_port_is_no_descriptor_of_the_agent(agent: AgentProcess):
    port = agent.metrics_port
    with slow_one(port) as client:
        eventually(lambda: accepted(port, client))
        assert f"socket:[{server_side(port, client)}]" not in descriptors(agent.pid)


def descriptors(pid: int) -> set[str]:
    """What a process has open; it may close some meanwhile."""
    names = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            names.add(link.readlink().name)
    return names


def accepted(port: int, client: socket.socket) -> None:
    assert server_side(port, client) != 0


def server_side(port: int, client: socket.socket) -> int:
    """The inode of the other end of a connection, 0 while no process has it."""
    wanted = (f"0100007F:{port:04X}", f"0100007F:{client.getsockname()[1]:04X}")
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return next((int(words[9]) for words in lines if (words[1], words[2]) == wanted), 0)
