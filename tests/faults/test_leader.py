"""Agents and their leader as real processes on a real API server: the leader is killed, paused, cut off and replaced,
and after each test the API server alone proves that no address was given twice and none was lost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.deploy.test_agent import Pods
from tests.support.agent_process import AgentProcess, logged
from tests.support.cable import Cable
from tests.support.checker import equal, eventually, records
from tests.support.cluster import Cluster, ClusterStore
from tests.support.leaders import QUICK, controllers, leader_of, linked, wait_linked
from tests.support.rig import pod, pool, statefulset
from tests.tools.apiserver import ApiServer


@pytest.fixture
def store(api_server: ApiServer, tmp_path: Path) -> Iterator[ClusterStore]:
    opened = Cluster(api_server).open(tmp_path / "store")
    opened.create(pool("blue", "10.6.0.0/16", "10.6.0.1-10.6.0.250"))
    yield opened
    opened.close()


class Node:
    """An agent and the pods of its node. `held`: what each pod's ADD was answered."""

    def __init__(
        self,
        stack: ExitStack,
        directory: Path,
        config: Path,
        store: ClusterStore,
        name: str = "node1",
        timeout: str = "20",
        budget: str = "1",
    ):
        """`budget`: seconds after which a leader without a sign of life is left."""
        options = ("--timeout", timeout, "--leader-budget", budget)
        self.agent = AgentProcess(directory / name, *options, kubeconfig=config, node=name)
        self.held: dict[str, str] = {}
        self._pods = Pods(self.agent, store)
        self._store = store
        stack.enter_context(self.agent)

    def add(self, name: str) -> str:
        self._store.create(pod(name))
        return self.add_again(name)

    def add_again(self, name: str) -> str:
        status, answer = self._pods.call("ADD", name, f"c-{name}")
        assert status == 0, answer
        self.held[name] = str(answer["ips"][0]["address"]).partition("/")[0]
        return self.held[name]

    def delete(self, name: str) -> None:
        status, answer = self._pods.call("DEL", name, f"c-{name}")
        assert status == 0, answer
        del self.held[name]


def prove(store: ClusterStore, *nodes: Node) -> None:
    """What was answered is recorded for the pod, once, and nothing else is."""
    held = {name: address for node in nodes for name, address in node.held.items()}
    assert len(set(held.values())) == len(held), held

    def same() -> None:
        assert {address: one["pod"] for address, one in records(store).items()} == {
            address: f"default/{name}" for name, address in held.items()
        }

    eventually(same)


def test_without_any_controller_every_request_is_served(
    stack: ExitStack, store: ClusterStore, config: Path, tmp_path: Path
):
    node = Node(stack, tmp_path, config, store)
    for number in range(3):
        node.add(f"web-{number}")
    node.delete("web-1")
    assert linked(node.agent) == ""
    prove(store, node)


def test_agents_of_all_nodes_allocate_at_the_leader(
    stack: ExitStack, store: ClusterStore, config: Path, tmp_path: Path
):
    both = stack.enter_context(controllers(tmp_path, config))
    leader = leader_of(store, both)
    nodes = [
        Node(stack, tmp_path, config, store, f"node{number}", timeout="60", budget="20")
        for number in range(2)
    ]
    for node in nodes:
        wait_linked(node.agent, leader)
    with ThreadPoolExecutor(4) as workers:
        list(workers.map(lambda number: nodes[number % 2].add(f"web-{number}"), range(12)))
    nodes[0].delete("web-0")
    assert nodes[0].add_again("web-2") == nodes[0].held["web-2"]
    prove(store, *nodes)
    assert not logged(nodes[0].agent.log, "the leader is lost, allocating in this process")
    eventually(lambda: equal([one.serves() for one in both], [True, True]))  # who stands by is ready, too


@pytest.mark.parametrize("how", ["killed", "paused"])
def test_a_leader_is_lost_under_load(
    stack: ExitStack, store: ClusterStore, config: Path, tmp_path: Path, how: str
):
    """Each ADD and DEL succeeds, through the moment and after it; a paused leader wakes up when another has won."""
    both = stack.enter_context(controllers(tmp_path, config))
    first = leader_of(store, both)
    node = Node(stack, tmp_path, config, store)
    wait_linked(node.agent, first)
    names = [f"web-{number}" for number in range(24)]
    for name in names:
        store.create(pod(name))
    with ThreadPoolExecutor(4) as workers:
        answers = [workers.submit(node.add_again, name) for name in names]
        answers[6].result()
        first.kill() if how == "killed" else first.pause()
        for answer in answers:
            answer.result()
        list(workers.map(node.delete, names[:6]))
    second = leader_of(store, [one for one in both if one is not first])
    wait_linked(node.agent, second)
    node.add("late")
    node.delete(names[6])
    if how == "paused":
        first.resume()
        eventually(lambda: _lost(first))
        node.add("later")
        wait_linked(node.agent, second)
    prove(store, node)


def _lost(one) -> None:
    assert one.events("not leading any more")


def test_a_leader_that_ends_hands_over(stack: ExitStack, store: ClusterStore, config: Path, tmp_path: Path):
    both = stack.enter_context(controllers(tmp_path, config))
    first = leader_of(store, both)
    node = Node(stack, tmp_path, config, store)
    wait_linked(node.agent, first)
    node.add("before")
    assert first.stop() == 0
    second = leader_of(store, [one for one in both if one is not first])
    node.add("between")
    wait_linked(node.agent, second)
    node.delete("before")
    node.add("after")
    prove(store, node)
    transitions = store.get("Lease", "orbweaver-controller", "orbweaver-system")["spec"]["leaseTransitions"]
    assert transitions >= 1

    def told() -> None:
        messages = [one["message"] for one in store.list("Event").items if one["reason"] == "LeaderElection"]
        assert f"{second.identity} became leader" in messages

    eventually(told)


class Wired(Node):
    """A node whose way to the leader is a cable."""

    def __init__(
        self, stack: ExitStack, directory: Path, config: Path, store: ClusterStore, **more: str
    ) -> None:
        self.cable = stack.enter_context(Cable())
        options = (*QUICK, "--leader-address", f"127.0.0.1:{self.cable.port}")
        (self.leader,) = stack.enter_context(controllers(directory, config, *options, count=1))
        leader_of(store, [self.leader])
        self.cable.target = self.leader.port
        super().__init__(stack, directory, config, store, **more)
        wait_linked(self.agent, self.leader)

    def add_quietly(self, name: str) -> None:
        """ADD, and wait for the view behind it: the agent asks the leader for that, too."""
        self.add(name)
        eventually(lambda: _true(self._store.get("SpiderEndpoint", name, "default")))


def test_the_network_to_the_leader_is_cut_and_mended(
    stack: ExitStack, store: ClusterStore, config: Path, tmp_path: Path
):
    """What was written on one side of the cut is known on the other afterwards: DEL finds it."""
    node = Wired(stack, tmp_path, config, store)
    node.add("before")
    node.cable.cut()
    node.add("during")
    node.delete("before")
    eventually(lambda: equal(linked(node.agent), ""))
    node.cable.mend()
    wait_linked(node.agent, node.leader)
    node.delete("during")
    node.add("after")
    prove(store, node)
    wait_linked(node.agent, node.leader)


questions = pytest.mark.parametrize(
    ("owner", "first"), [("", 0), ("web", 1)], ids=["a new pod", "a StatefulSet's pod"]
)
"""For a pod that looks new the leader is asked at once for an address; for a StatefulSet's, first what is recorded."""


@questions
def test_the_leader_s_answer_is_lost(
    stack: ExitStack, store: ClusterStore, config: Path, tmp_path: Path, owner: str, first: int
):
    """The leader has recorded it; the agent finds it, and answers with it."""
    node = Wired(stack, tmp_path, config, store)
    node.add_quietly("before")
    store.create(statefulset("web", 0))
    store.create(pod("web-0", statefulset=owner))
    node.cable.back.close(after=first)  # it may learn what is recorded for the pod, but not what it is given
    with ThreadPoolExecutor(1) as worker:
        answer = worker.submit(node.add_again, "web-0")
        eventually(lambda: _recorded(store, "default/web-0"))
        given = [address for address, one in records(store).items() if one["pod"] == "default/web-0"]
        assert [answer.result()] == given
    eventually(lambda: equal(linked(node.agent), ""))
    prove(store, node)
    node.cable.cut()
    node.cable.back.open()
    node.cable.mend()
    wait_linked(node.agent, node.leader)
    prove(store, node)
    node.delete("web-0")
    prove(store, node)


@pytest.mark.parametrize(("letter", "length"), [(" ", 600_000), ("x", 1_040_000), ("x", 1_100_000)])
def test_a_pod_s_names_take_no_agent_from_its_leader_and_no_address_from_others(
    stack: ExitStack, store: ClusterStore, config: Path, tmp_path: Path, letter: str, length: int
):
    """The API server takes ownerReferences of a megabyte; a frame between agent and leader is smaller, and so is a block."""
    node = Wired(stack, tmp_path, config, store, timeout="60", budget="20")
    node.add_quietly("before")
    evil = pod("evil")
    owner = {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "name": letter * length,
        "uid": "u",
        "controller": True,
    }
    evil["metadata"]["ownerReferences"] = [owner]
    store.create(evil)
    node.add_again("evil")
    for number in range(12):
        node.add(f"other-{number}")

    assert linked(node.agent), "it works with its leader all the time"
    assert not logged(node.agent.log, "the leader is lost, allocating in this process")
    for block in store.list("SpiderIPBlock").items:
        assert len(json.dumps(block)) < 20_000
    prove(store, node)


def _recorded(store: ClusterStore, name: str) -> None:
    assert name in {one["pod"] for one in records(store).values()}


@questions
@pytest.mark.parametrize("then", ["stays", "goes"])
def test_a_request_that_reaches_the_leader_late_leaks_nothing(
    stack: ExitStack, store: ClusterStore, config: Path, tmp_path: Path, then: str, owner: str, first: int
):
    """It waits in the network while the agent allocates by itself. For a pod that runs, the leader comes upon its own
    record; what it records for one that has gone by then is found and released."""
    node = Wired(stack, tmp_path, config, store)
    node.add_quietly("before")
    store.create(statefulset("web", 0))
    store.create(pod("web-0", statefulset=owner))
    node.cable.there.close(
        after=first
    )  # the leader may be asked what is recorded, and not yet for an address
    node.add_again("web-0")
    if then == "goes":
        node.delete("web-0")
    node.cable.there.open()
    if then == "goes":
        told = "looked for what a lost leader recorded"
        eventually(lambda: _true(any(one["released"] for one in logged(node.agent.log, told))))
    prove(store, node)
    wait_linked(node.agent, node.leader)
    node.add("late")
    prove(store, node)


def test_a_repeated_add_is_answered_the_same_while_the_leader_s_late_record_stands(
    stack: ExitStack, store: ClusterStore, config: Path, tmp_path: Path
):
    """What the leader would give first is another pod's by then, so its late record is not where the answered one is,
    and comes first by address. The pool has one free address at most, so that it is known which one a pod gets."""
    blue = store.get("SpiderIPPool", "blue")
    store.update({**blue, "spec": {**blue["spec"], "ips": ["10.6.0.1-10.6.0.8"]}})
    node = Wired(stack, tmp_path, config, store)
    for number in range(1, 8):
        assert node.add(f"p{number}") == f"10.6.0.{number}"
    node.add_quietly("before")
    node.delete("before")
    store.create(statefulset("web", 0))
    store.create(pod("web-0", statefulset="web"))
    node.cable.there.close(after=1)
    assert node.add_again("web-0") == "10.6.0.8"
    node.delete("web-0")
    assert node.add("thief") == "10.6.0.8"
    node.delete("p7")
    assert node.add_again("web-0") == "10.6.0.7"
    node.delete("p1")

    def known_to_the_leader() -> None:
        """It writes the status from what it knows; else it would come upon the pod's own record at 10.6.0.7."""
        told = json.loads(store.get("SpiderIPPool", "blue")["status"]["allocatedIPs"])
        assert "10.6.0.1" not in told
        assert told["10.6.0.7"]["pod"] == "default/web-0"

    eventually(known_to_the_leader)
    node.cable.there.open()

    eventually(lambda: _true("10.6.0.1" in records(store)))
    assert node.add_again("web-0") == "10.6.0.7"
    prove(store, node)


def _true(value: object) -> None:
    assert value
