"""Agents that want what another program has: its data, or its port."""

from __future__ import annotations

import socket
import urllib.request
from pathlib import Path

import pytest

from actors.errors import StoreUnavailable
from actors.store.sqlite.store import SQLiteStore
from tests.support.agent_process import AgentProcess, pool
from tests.support.checker import eventually
from tests.support.cni_client import ask, encode
from tests.tools.apiserver import free_ports

POOL = pool("blue", "10.6.0.0/16", "10.6.0.1-10.6.0.9")


def test_a_second_agent_on_the_same_data_refuses_to_start_whatever_its_socket(tmp_path: Path):
    alias = tmp_path / "alias.db"
    with AgentProcess(tmp_path / "first") as first:
        first.apply(POOL)  # a command beside the agent is no agent
        alias.symlink_to(first.data)
        for number, data in enumerate((first.data, alias)):
            second = AgentProcess(tmp_path / f"second-{number}", "--data", str(data))
            second.launch()

            assert second.wait() != 0
            assert f"another agent (process {first.pid}) serves the data" in second.said()
            assert not second.socket.exists()
        assert ask(first.socket, encode("ADD", "c1")).status == 0

        first.kill()
        with AgentProcess(tmp_path / "third", "--data", str(first.data)) as third:
            assert ask(third.socket, encode("DEL", "c1")).status == 0


def test_the_data_of_an_agent_that_ended_is_free(tmp_path: Path):
    path = tmp_path / "data.db"
    store = SQLiteStore(path, for_agent=True)
    with pytest.raises(StoreUnavailable, match="another agent"):
        SQLiteStore(path, for_agent=True)
    beside = SQLiteStore(path)
    store.close()

    SQLiteStore(path, for_agent=True).close()
    beside.close()


def test_an_agent_whose_metrics_port_is_taken_serves_pods_and_takes_it_once_it_is_free(tmp_path: Path):
    (port,) = free_ports(1)  # the kernel gives it to nobody else once it is free
    with socket.create_server(("127.0.0.1", port)) as other:
        agent = AgentProcess(tmp_path, "--metrics-port", str(port)).start()
        try:
            agent.apply(POOL)
            assert ask(agent.socket, encode("ADD", "c1")).status == 0
            assert ask(agent.socket, encode("STATUS")).status == 0
            eventually(lambda: says(agent, "health and metrics are not served"))
            other.close()

            def ready() -> None:
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=60) as answer:
                        assert answer.read() == b"ok\n"
                except OSError as error:
                    raise AssertionError(str(error)) from error

            eventually(ready)
        finally:
            agent.stop()


def says(agent: AgentProcess, text: str) -> None:
    assert text in agent.said()
