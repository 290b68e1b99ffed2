"""An agent that has lost one of its two peers, the API server or the leader, and works on with the other. Real processes;
the ways between them are cables."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from actors.errors import CNI_TRY_AGAIN_LATER
from tests.deploy.test_agent import Pods
from tests.support.agent_process import AgentProcess, logged
from tests.support.cable import Cable
from tests.support.checker import equal, eventually, prove_views, records
from tests.support.cluster import Cluster, ClusterStore
from tests.support.leaders import QUICK, controllers, leader_of, linked, wait_linked
from tests.support.rig import pod, pool
from tests.tools.apiserver import ADMIN_TOKEN, ApiServer

NODE = "node1"
KNOWN = ("web-0", "web-1", "web-2", "web-3")
"""Pods that are there before the agent is, so that it has listed them when it serves."""


@pytest.fixture
def store(api_server: ApiServer, tmp_path: Path) -> Iterator[ClusterStore]:
    opened = Cluster(api_server).open(tmp_path / "store")
    opened.create(pool("blue", "10.6.0.0/16", "10.6.0.1-10.6.0.50"))
    opened.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}})
    yield opened
    opened.close()


class Site:
    """A leader, and an agent whose ways to it and to the API server can be cut. `held`: what its pods were answered."""

    def __init__(self, stack: ExitStack, api_server: ApiServer, store: ClusterStore, directory: Path) -> None:
        self.store = store
        self.held: dict[str, str] = {}
        self._uids: dict[str, str] = {}
        self.to_leader = stack.enter_context(Cable())
        self.to_server = stack.enter_context(Cable(api_server.port))
        options = (*QUICK, "--leader-address", f"127.0.0.1:{self.to_leader.port}")
        config = api_server.write_kubeconfig(directory / "config", ADMIN_TOKEN)
        (self.leader,) = stack.enter_context(controllers(directory, config, *options, count=1))
        leader_of(store, [self.leader])
        self.to_leader.target = self.leader.port
        through = api_server.write_kubeconfig(directory / "through", ADMIN_TOKEN, port=self.to_server.port)
        # A leader that is only slow is not left, and what is lost is found out in half of a request's time.
        patient = ("--timeout", "20", "--leader-budget", "5")
        self.agent = AgentProcess(directory / NODE, *patient, kubeconfig=through, node=NODE)
        self._pods = Pods(self.agent, store)
        self.start(*KNOWN)
        stack.enter_context(self.agent)
        wait_linked(self.agent, self.leader)

    def start(self, *names: str) -> None:
        """Bind pods to the node."""
        for name in names:
            made = pod(name)
            made["spec"]["nodeName"] = NODE
            self._uids[name] = self.store.create(made)["metadata"]["uid"]

    def ask(self, command: str, name: str) -> tuple[int, dict[str, Any]]:
        return self._pods.call(command, name, f"c-{name}", self._uids[name])

    def add(self, name: str) -> str:
        status, answer = self.ask("ADD", name)
        assert status == 0, answer
        self.held[name] = str(answer["ips"][0]["address"]).partition("/")[0]
        return self.held[name]

    def delete(self, name: str) -> None:
        status, answer = self.ask("DEL", name)
        assert status == 0, answer
        del self.held[name]

    def prove(self) -> None:
        """What was answered is recorded for the pod, once, nothing else is, and the views say the same."""
        assert len(set(self.held.values())) == len(self.held), self.held

        def same() -> None:
            assert {address: one["pod"] for address, one in records(self.store).items()} == {
                address: f"default/{name}" for name, address in self.held.items()
            }
            prove_views(self.store)

        eventually(same)


@pytest.fixture
def site(api_server: ApiServer, store: ClusterStore, tmp_path: Path) -> Iterator[Site]:
    with ExitStack() as stack:
        yield Site(stack, api_server, store, tmp_path)


def test_the_agent_is_cut_off_from_the_api_server_and_not_from_the_leader(site: Site) -> None:
    """It decides on what it knows, and the leader records: pods that it has heard of come and go. One that it has not is
    refused, retryably, in words that say which and why; it is served after the mend, and the views follow."""
    site.add("web-0")
    site.add("web-1")
    site.to_server.cut()
    site.start("unheard-of")
    site.add("web-2")
    site.add("web-3")
    assert site.add("web-0") == site.held["web-0"]
    site.delete("web-1")
    site.delete("web-2")
    status, answer = site.ask("ADD", "unheard-of")
    assert status != 0
    assert answer["code"] == CNI_TRY_AGAIN_LATER
    assert "default/unheard-of" in answer["msg"], answer
    assert set(records(site.store)) == set(site.held.values())
    assert linked(site.agent) == site.leader.identity
    assert not logged(site.agent.log, "the leader is lost, allocating in this process")

    site.to_server.mend()
    eventually(lambda: _true(site.add("unheard-of")))
    site.prove()


def test_the_agent_is_cut_off_from_the_leader_and_not_from_the_api_server(site: Site) -> None:
    """What the leader recorded is found and released without it, and the leader knows when it is reached again."""
    for number in range(3):
        site.add(f"web-{number}")
    site.to_leader.cut()
    site.delete("web-0")
    site.delete("web-1")
    eventually(lambda: equal(linked(site.agent), ""))
    site.prove()
    site.to_leader.mend()
    wait_linked(site.agent, site.leader)
    site.delete("web-2")
    site.prove()


def test_the_agent_is_cut_off_from_both(site: Site) -> None:
    """Nothing can be recorded then: each request is refused, retryably, and is done after the mend."""
    site.add("web-0")
    site.to_server.cut()
    site.to_leader.cut()
    with ThreadPoolExecutor(2) as workers:
        answers = list(workers.map(site.ask, ("ADD", "DEL"), ("web-1", "web-0")))
    for status, answer in answers:
        assert status != 0
        assert answer["code"] == CNI_TRY_AGAIN_LATER
    site.to_server.mend()
    site.to_leader.mend()
    eventually(lambda: site.delete("web-0"))
    eventually(lambda: _true(site.add("web-1")))
    site.prove()


def test_the_leader_s_answers_are_lost_while_the_api_server_is_away(site: Site) -> None:
    """Nobody could look what was recorded before. What the leader records for the failed ADDs is found and released, and
    what an earlier ADD was answered with is not."""
    site.add("web-0")
    site.to_server.cut()
    site.to_leader.back.close()
    with ThreadPoolExecutor(2) as workers:
        answers = list(workers.map(lambda name: site.ask("ADD", name), ("web-0", "web-1")))
    assert [answer["code"] for _, answer in answers] == [CNI_TRY_AGAIN_LATER] * 2
    eventually(
        lambda: equal(
            {one["pod"] for one in records(site.store).values()}, {"default/web-0", "default/web-1"}
        )
    )

    site.to_server.mend()
    site.to_leader.cut()
    site.to_leader.back.open()
    site.to_leader.mend()
    told = "looked for what a lost leader recorded"
    eventually(
        lambda: _true({one["container"] for one in logged(site.agent.log, told)} == {"c-web-0", "c-web-1"})
    )
    site.prove()
    assert site.add("web-0") == site.held["web-0"]


def _true(value: object) -> None:
    assert value
