"""The way of an ADD through an agent and its leader, walked as the data (see `tests/support/way.py`)."""

from __future__ import annotations

from pathlib import Path

from actors.cluster.leadership import Leadership
from actors.resources.addresses import parse_address
from cni.process.agent import Agent, AgentOptions
from cni.process.controller import Controller
from tests.support.checker import eventually
from tests.support.cluster import Cluster
from tests.support.cni_client import ask, encode
from tests.support.identity import agent_token
from tests.support.leaders import in_process
from tests.support.rig import pod, pool
from tests.support.way import watching
from tests.tools.apiserver import ApiServer

FILES = 26
"""What both pass, the store in a cluster among them."""
ENTRIES = 3

CONTAINER, ADDRESS = "c0ffee" * 8, "10.6.0.37"


def test_an_add_goes_one_way_through_agent_and_leader(api_server: ApiServer, tmp_path: Path):
    cluster = Cluster(api_server)
    store = cluster.open(tmp_path / "store")
    first = ADDRESS.replace(".37", ".34")
    store.create(pool("v4", "10.6.0.0/16", f"{first}-10.6.0.60"))
    store.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node1"}})
    names = ["other0", "other1", "other2", "web"]
    uids = {name: store.create(pod(name))["metadata"]["uid"] for name in names}
    token = tmp_path / "token"
    token.write_text(agent_token(api_server.kubeconfig, "node1"))
    with watching(CONTAINER, ADDRESS, parse_address(ADDRESS)[1]) as way:
        leader = Controller(store, in_process())
        options = AgentOptions(
            node="node1",
            cni_socket=tmp_path / "a.sock",
            metrics_port=None,
            cluster=True,
            leadership=Leadership(budget=60.0, token=token),  # a busy machine is no lost leader
        )
        own = cluster.open(tmp_path / "store")
        agent = Agent(own, options)
        try:
            leader.start()
            eventually(lambda: _true(leader.leads()))
            agent.start()
            eventually(lambda: _true(agent._leader is not None and agent._leader.leader))
            for name in names[:-1]:
                answer = ask(options.cni_socket, encode("ADD", f"c-{name}", pod=name, uid=uids[name]))
                assert answer.status == 0, answer.output
            way.begin()
            answer = ask(options.cni_socket, encode("ADD", CONTAINER, pod="web", uid=uids["web"]))
            eventually(lambda: _true(not agent.front_end.adds))
            way.end()
            assert answer.addresses == [f"{ADDRESS}/16"]
        finally:
            agent.stop()
            leader.stop()
            own.close()
            store.close()

    often = "\n".join(f"{count} {door}" for door, count in sorted(way.doors.items()))
    assert len(way.passed) <= FILES, often
    assert {file: count for file, count in way.stations.items() if count > ENTRIES} == {}, often
    for passed in (
        "actors/allocation/endpoint.py",
        "actors/cluster/peer_guard.py",
        "actors/allocation/pool.py",
    ):
        assert passed in way.passed, "it was not watched"


def _true(value: object) -> None:
    assert value
