"""ADDs that wait for an address on its way back, through a leader: it is no lost one while they wait, and when it is killed
they go on at their own agent."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from actors.errors import NotFound
from tests.faults.test_leader import Node, prove
from tests.support.agent_process import logged
from tests.support.checker import equal, eventually
from tests.support.cluster import Cluster, ClusterStore
from tests.support.leaders import controllers, leader_of, linked, wait_linked
from tests.support.rig import pod, pool
from tests.tools.apiserver import ApiServer

NAMES = ("node1", "node2")


@pytest.fixture
def store(api_server: ApiServer, tmp_path: Path) -> Iterator[ClusterStore]:
    opened = Cluster(api_server).open(tmp_path / "store")
    opened.create(pool("blue", "10.6.0.0/16", "10.6.0.1-10.6.0.2"))
    for name in NAMES:
        ready = {"type": "Ready", "status": "True"}
        opened.create(
            {
                "apiVersion": "v1",
                "kind": "Node",
                "metadata": {"name": name},
                "status": {"conditions": [ready]},
            }
        )
    yield opened
    opened.close()


def scheduled(name: str, node: str = "node1") -> dict[str, Any]:
    """A pod that a node runs: when it is deleted it is Terminating for its grace period, behind which the leader would take
    its addresses; no test lasts that long."""
    return {**pod(name), "spec": {"nodeName": node, "terminationGracePeriodSeconds": 3600}}


def terminate(store: ClusterStore, *names: str) -> None:
    for name in names:
        store.delete("Pod", name, "default")
        assert store.get("Pod", name, "default")["metadata"]["deletionTimestamp"]


def wait_waiting(node: Node, number: int) -> None:
    """Until so many ADDs of the node wait, or have waited."""
    told = "waiting for an address on its way back"
    eventually(lambda: equal(len({line["pod"] for line in logged(node.agent.log, told)}), number))


def start(
    stack: ExitStack, store: ClusterStore, config: Path, directory: Path, name: str, *, patient: bool = False
) -> Node:
    """An agent, and two pods that have all addresses. `patient`: it does not leave a leader that is only slow."""
    node = Node(stack, directory, config, store, name, timeout="60", budget="20" if patient else "1")
    for pod_name in ("old1", "old2"):
        try:
            store.get("Pod", pod_name, "default")
        except NotFound:
            store.create(scheduled(pod_name))
            node.add_again(pod_name)
    return node


def test_an_add_waits_at_the_leader_and_the_leader_is_not_taken_for_lost(
    stack: ExitStack, store: ClusterStore, config: Path, tmp_path: Path
):
    (leader,) = stack.enter_context(controllers(tmp_path, config, count=1))
    leader_of(store, [leader])
    first = start(stack, store, config, tmp_path, "node1", patient=True)
    second = start(stack, store, config, tmp_path, "node2", patient=True)
    for node in (first, second):
        wait_linked(node.agent, leader)
    terminate(store, "old1", "old2")
    store.create(scheduled("new1"))
    store.create(scheduled("new2", "node2"))
    eventually(lambda: equal(bool(leader.events("leading")), True))

    with ThreadPoolExecutor(2) as workers:
        added = [workers.submit(first.add_again, "new1"), workers.submit(second.add_again, "new2")]
        wait_waiting(first, 1)
        wait_waiting(second, 1)
        first.delete("old1")
        first.delete("old2")
        assert {ref.result() for ref in added} == {"10.6.0.1", "10.6.0.2"}

    assert linked(first.agent) == linked(second.agent) == leader.identity
    prove(store, first, second)


@pytest.mark.parametrize("how", ["killed", "ended"])
def test_an_add_that_waits_at_a_lost_leader_waits_on_at_its_agent(
    stack: ExitStack, store: ClusterStore, config: Path, tmp_path: Path, how: str
):
    (leader,) = stack.enter_context(controllers(tmp_path, config, count=1))
    leader_of(store, [leader])
    node = start(stack, store, config, tmp_path, "node1")
    wait_linked(node.agent, leader)
    terminate(store, "old1", "old2")
    store.create(scheduled("new1"))

    with ThreadPoolExecutor(1) as workers:
        added = workers.submit(node.add_again, "new1")
        wait_waiting(node, 1)
        leader.kill() if how == "killed" else leader.stop()
        eventually(
            lambda: equal(
                bool(logged(node.agent.log, "the leader is lost, allocating in this process")), True
            )
        )
        node.delete("old2")
        assert added.result() == "10.6.0.2"

    node.delete("old1")
    prove(store, node)


def test_an_add_whose_agent_was_killed_waits_no_more_at_the_leader(
    stack: ExitStack, store: ClusterStore, config: Path, tmp_path: Path
):
    """Nobody hears its answer: the first address to come back is for the ADD that the runtime sends again."""
    (leader,) = stack.enter_context(controllers(tmp_path, config, count=1))
    leader_of(store, [leader])
    node = start(stack, store, config, tmp_path, "node1")
    wait_linked(node.agent, leader)
    terminate(store, "old1", "old2")
    store.create(scheduled("new1"))

    with ThreadPoolExecutor(2) as workers:
        lost = workers.submit(node.add_again, "new1")
        wait_waiting(node, 1)
        node.agent.kill()
        assert lost.exception() is not None
        node.agent.start()
        wait_linked(node.agent, leader)
        added = workers.submit(node.add_again, "new1")
        told = "waiting for an address on its way back"
        eventually(lambda: equal(len(logged(node.agent.log, told)) > 1, True))
        node.delete("old1")
        assert added.result() == "10.6.0.1"

    node.delete("old2")
    prove(store, node)
