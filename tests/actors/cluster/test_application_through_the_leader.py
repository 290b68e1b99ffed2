"""What the ADD of an application's pod costs: questions of its agent to the leader, and requests to the API server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from actors.cluster.leadership import Leadership
from actors.cluster.peer_guard import PeerGuard
from actors.store.kubernetes.store import KubernetesStore
from cni.process.agent import Agent, AgentOptions
from cni.process.controller import Controller
from tests.support.application_churn import FLOOR, automatic, deployment, subnet
from tests.support.checker import eventually
from tests.support.cluster import Cluster
from tests.support.cni_client import ask, encode
from tests.support.fleet import on_node
from tests.support.identity import agent_token
from tests.support.leaders import in_process
from tests.support.rig import pod
from tests.tools.apiserver import ApiServer

OF_A_VIEW = ("ledger", "of_pods")
"""What an agent asks to write the SpiderEndpoints of pods that have their addresses."""


def test_a_pod_of_an_application_costs_one_question_and_reads_no_pool(
    api_server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    questions: list[tuple[str, str]] = []
    judge = PeerGuard.__call__

    def heard(guard: PeerGuard, identity: Any, call: Any) -> Any:
        if call.method != "reached":  # a sign of life
            questions.append((call.actor.partition("/")[0], call.method))
        return judge(guard, identity, call)

    monkeypatch.setattr(PeerGuard, "__call__", heard)
    cluster = Cluster(api_server)
    store, own = cluster.open(tmp_path / "store"), cluster.open(tmp_path / "store")
    reads = [_reads_of(each) for each in (store, own)]
    store.create(subnet("floor", "10.6.0.0/16", "10.6.1.1-10.6.1.99"))
    store.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node1"}})
    token = tmp_path / "token"
    token.write_text(agent_token(api_server.kubeconfig, "node1"))
    leader = Controller(store, in_process())
    options = AgentOptions(
        node="node1",
        cni_socket=tmp_path / "a.sock",
        metrics_port=None,
        cluster=True,
        leadership=Leadership(budget=60.0, token=token),  # a busy machine is no lost leader
    )
    agent = Agent(own, options)
    # The controller here is the administrator, whom the policy takes for a person that edits a pool.
    with api_server.without_policy("orbweaver-automatic-pools"):
        try:
            leader.start()
            eventually(lambda: _true(leader.leads()))
            agent.start()
            eventually(lambda: _true(agent._leader is not None and agent._leader.leader))
            owner = store.create(deployment("web", 3, subnet=FLOOR))
            answers = []
            for name in ("web-a", "web-b"):
                questions.clear()
                asked = pod(name, owner="apps/v1 Deployment web", subnet=FLOOR)
                asked["metadata"]["ownerReferences"][0]["uid"] = owner["metadata"]["uid"]
                made = store.create(on_node(asked, "node1"))
                request = encode("ADD", f"c-{name}", pod=name, uid=made["metadata"]["uid"])
                answers.append(ask(options.cni_socket, request))
                asked_for = [
                    question
                    for question in questions
                    if question[0] != "watches" and question != OF_A_VIEW  # which is not the ADD's
                ]
                assert asked_for == [("auto-pools", "allocate")], name
            (made_pool,) = automatic(store)
        finally:
            agent.stop()
            leader.stop()
            own.close()
            store.close()
    given = [address.partition("/")[0] for answer in answers for address in answer.addresses]
    assert len(set(given)) == 2
    assert all(answer.status == 0 for answer in answers)
    at_leader, at_agent = (names.count(made_pool.name) for names in reads)
    assert at_agent == 0, "the leader tells of it"
    assert at_leader <= 2, "its views read it, once, or again when somebody else wrote it"


def _reads_of(store: Any) -> list[str]:
    """The pools that it is asked for from now on."""
    assert isinstance(store, KubernetesStore)
    reads: list[str] = []
    get = store.get

    def noted(kind: str, name: str, *more: Any, **options: Any) -> Any:
        if kind == "SpiderIPPool":
            reads.append(name)
        return get(kind, name, *more, **options)

    store.get = noted  # type: ignore[method-assign]
    return reads


def _true(value: object) -> None:
    assert value
