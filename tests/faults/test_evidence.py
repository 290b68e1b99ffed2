"""Evidence before timers, with an agent, its leader and a real API server: what a sandbox holds is its own until its node
sees it end, whatever becomes of its pod, of the agent and of the leader.

The agent and the controller run in this process. Network namespaces are files, as a runtime mounts them, and who answers
on the wire is a list.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from actors.allocation.messages import Sandbox
from actors.cluster.leadership import Leadership
from actors.decisions.settings import GCSettings
from actors.resources.addresses import format_address
from actors.resources.blocks.block import Block
from actors.runtime import get
from actors.store.kubernetes.store import KubernetesStore
from cni.process.agent import Agent, AgentOptions
from cni.process.controller import Controller
from cni.server.frontend import FrontEnd
from cni.server.libcni_cache import Namespaces
from tests.actors.reclaim.test_cluster_gc import World, controller
from tests.cni.server.test_del_spool import Runtime
from tests.support.checker import equal, eventually, records
from tests.support.cluster import Cluster
from tests.support.identity import agent_token
from tests.support.rig import add_request, pool, sandbox
from tests.support.segment import Segment
from tests.tools.apiserver import ApiServer

HASTY = GCSettings(own_del=0.0, dead_on_ready_delay=0.0, dead_on_not_ready_delay=0.0)
"""A leader that waits for nothing but for agents that watch."""


@pytest.fixture
def world(api_server: ApiServer, tmp_path: Path) -> Iterator[World]:
    store = Cluster(api_server).open(tmp_path / "store")
    for event in store.list("Event").items:
        store.delete("Event", event["metadata"]["name"], event["metadata"]["namespace"])
    store.create(pool("blue", "10.6.0.0/16", "10.6.0.1-10.6.0.2"))
    plain = KubernetesStore(api_server.access())
    made = World(store, plain, api_server)
    made.node("n1")
    yield made
    plain.close()
    store.close()


class Node:
    """A node with its runtime's directories, and an agent that comes and goes."""

    def __init__(self, world: World, directory: Path) -> None:
        self.world = world
        self.mounted, self.notes = directory / "netns", directory / "results"
        for made in (self.mounted, self.notes):
            made.mkdir()
        self.segment = Segment()
        self._directory = directory
        self._token = directory / "token"
        self._token.write_text(agent_token(world.server.kubeconfig, "n1"))

    @contextmanager
    def agent(self, *, linked: bool = True) -> Iterator[Agent]:
        """An agent of the node, working with the leader unless told otherwise."""
        options = AgentOptions(
            node="n1",
            cni_socket=self._directory / "agent.sock",
            metrics_port=None,
            drain=2.0,
            cluster=True,
            leadership=Leadership(token=self._token),
            attachments=self.notes,
            namespaces=Namespaces(self.mounted, None),
        )
        agent = Agent(self.world.plain, options)
        prober, agent.prober = agent.prober, self.segment  # type: ignore[assignment]
        try:
            agent.start()
            if linked:
                eventually(lambda: equal(bool(agent._leader and agent._leader.leader), True))
            yield agent
            assert agent.fatal is None, agent.fatal
        finally:
            agent.prober = prober
            agent.stop()

    def run(self, agent: Agent, pod: dict[str, Any], *, seen: bool = True) -> str:
        """A sandbox of a pod with an address, of which the runtime has a note; `seen`: its namespace is where an agent can
        see it."""
        metadata = pod["metadata"]
        container = f"c-{metadata['name']}"
        if seen:
            (self.mounted / container).touch()
            note = f'{{"containerId": "{container}", "netns": "/var/run/netns/{container}"}}'
            (self.notes / f"net-{container}-eth0").write_text(note)
        return self.add(agent, self.box(container, metadata, seen=seen))

    @staticmethod
    def box(container: str, metadata: dict[str, Any], *, seen: bool = True) -> Sandbox:
        netns = f"/run/netns/{container}" if seen else f"/elsewhere/{container}"
        return replace(sandbox(container, pod=metadata["name"], uid=metadata["uid"]), netns=netns)

    @staticmethod
    def add(agent: Agent, box: Sandbox) -> str:
        endpoint = agent.system.get_actor("endpoint/" + box.key)
        return get(endpoint.add.remote(add_request(box)), 60).addresses[0].address.partition("/")[0]

    def end(self, container: str) -> None:
        """The sandbox ends, and no DEL comes."""
        (self.mounted / container).unlink()


def holders(world: World) -> set[str]:
    return {str(one.get("container", "")) for one in records(world.store).values()}


def marks(world: World) -> dict[str, str]:
    """Of each suspect address, from which container it was taken."""
    blocks = [Block.from_object(obj) for obj in world.store.list("SpiderIPBlock").items]
    return {
        format_address(block.family, value): suspect.container
        for block in blocks
        for value, suspect in block.suspect.items()
    }


def heard(running: Controller) -> None:
    """The leader knows that the node is watched."""
    assert running._watches.watch("n1", "any", 1.0, 0.0).heard


def judged(running: Controller, name: str) -> None:
    """Let the leader look at a pod that is gone as often as it takes until it would have taken what it may."""
    eventually(lambda: equal(running._cluster_state.pod(f"default/{name}"), None))
    for _ in range(3):
        get(running.local("gc").changed.remote((("Pod", "default", name),)), 60)
        get(running.local("gc").scan.remote(), 60)


@pytest.mark.parametrize("ready", [True, False], ids=["Ready", "kubelet hangs"])
def test_a_force_deleted_pod_keeps_its_address_until_its_sandbox_has_ended(
    world: World, tmp_path: Path, ready: bool
):
    node = Node(world, tmp_path)
    with controller(world.plain, HASTY) as running, node.agent() as agent:
        pod = world.pod("web")
        address = node.run(agent, pod)
        eventually(lambda: heard(running))
        if not ready:
            world.node("n1", ready=False, since="2099-01-31T12:00:00Z")
        world.delete(pod)
        judged(running, "web")
        assert holders(world) == {"c-web"}, "its sandbox lives"

        node.end("c-web")
        eventually(lambda: equal(holders(world), set()))
        assert marks(world) == {}
        eventually(lambda: equal(reasons(world), {address: "SandboxEnded"}))


def reasons(world: World) -> dict[str, str]:
    return {
        event["message"].partition(" of pool")[0]: event["reason"]
        for event in world.store.list("Event").items
        if event["source"].get("component") == "orbweaver-agent"
    }


def test_an_agent_that_is_away_for_a_moment_finds_what_ended_meanwhile(world: World, tmp_path: Path):
    node = Node(world, tmp_path)
    with controller(world.plain, HASTY) as running:
        with node.agent() as agent:
            for name in ("a", "b"):
                node.run(agent, world.pod(name))
            eventually(lambda: heard(running))
        for name in ("a", "b"):
            world.delete(world.store.get("Pod", name, "default"))
            judged(running, name)
        assert holders(world) == {"c-a", "c-b"}, "the agent was heard a moment ago"
        node.end("c-a")
        with node.agent():
            eventually(lambda: equal(holders(world), {"c-b"}))
            judged(running, "b")
            assert holders(world) == {"c-b"}
            node.end("c-b")
            eventually(lambda: equal(holders(world), set()))
    assert marks(world) == {}


def test_a_del_that_was_kept_while_the_agent_was_away_is_done_before_the_leader_takes_anything(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The runtime takes its note away once the DEL is answered, and the network namespace after it: meanwhile the next agent
    sees nothing of the sandbox. It is slow to begin with what was kept."""
    node, runtime = Node(world, tmp_path), Runtime(tmp_path)
    monkeypatch.setattr("actors.reclaim.sandbox_watch.UNSEEN_FOR", 3600.0)
    start, held = FrontEnd.start, list[set[str]]()
    with controller(world.plain, HASTY) as running:
        with node.agent() as agent:
            pod = world.pod("web")
            node.run(agent, pod)
            eventually(lambda: heard(running))
        world.delete(pod)
        judged(running, "web")
        named = (
            f"IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web;K8S_POD_UID={pod['metadata']['uid']}"
        )
        assert runtime("DEL", "c-web", CNI_ARGS=named) == (0, None)
        (node.notes / "net-c-web-eth0").unlink()

        def start_late(front_end: FrontEnd) -> None:
            judged(running, "web")
            held.append(holders(world))
            start(front_end)

        monkeypatch.setattr(FrontEnd, "start", start_late)
        with node.agent():
            eventually(lambda: equal(holders(world), set()))
    assert held == [{"c-web"}]
    assert marks(world) == {}


def test_a_new_leader_takes_nothing_before_the_agents_have_told_it(world: World, tmp_path: Path):
    node = Node(world, tmp_path)
    with controller(world.plain, HASTY), node.agent() as agent:
        pod = world.pod("web")
        node.run(agent, pod)
    world.delete(pod)
    with controller(world.plain, HASTY) as running:
        judged(running, "web")
        assert holders(world) == {"c-web"}
        with node.agent():
            eventually(lambda: heard(running))
            judged(running, "web")
            assert holders(world) == {"c-web"}
            node.end("c-web")
            eventually(lambda: equal(holders(world), set()))


def test_without_a_leader_the_agent_does_it_alone(world: World, tmp_path: Path):
    node = Node(world, tmp_path)
    with node.agent(linked=False) as agent:
        pod = world.pod("web")
        node.run(agent, pod)
        world.delete(pod)
        node.end("c-web")
        eventually(lambda: equal(holders(world), set()))


def test_what_the_agent_cannot_see_the_leader_decides_and_by_force(world: World, tmp_path: Path):
    node = Node(world, tmp_path)
    with controller(world.plain, HASTY) as running, node.agent() as agent:
        hidden, seen = world.pod("hidden"), world.pod("seen")
        address = node.run(agent, hidden, seen=False)
        node.run(agent, seen)
        eventually(lambda: heard(running))
        for pod in (hidden, seen):
            world.delete(pod)
        eventually(lambda: equal(holders(world), {"c-seen"}))
        assert marks(world) == {address: "c-hidden"}


def test_who_gets_an_address_whose_last_holder_answers_goes_elsewhere_and_it_is_free_with_that_one_s_end(
    world: World, tmp_path: Path
):
    """The agent was away for so long that the leader took the address; the sandbox ran on. No quarantine, no alarm."""
    node = Node(world, tmp_path)
    with controller(world.plain, replace(HASTY, agent_away=0.0)):
        with node.agent() as agent:
            old = world.pod("old")
            address = node.run(agent, old)
        world.delete(old)
        eventually(lambda: equal(marks(world), {address: "c-old"}))
        node.segment.used.add(address)
        with node.agent() as agent:
            other = node.run(agent, world.pod("new"))
            assert other != address
            assert marks(world) == {address: "c-old"}
            conflicts = [one for one in world.store.list("Event").items if one["reason"] == "IPConflict"]
            assert not conflicts, "it is no other host"

            node.segment.used.clear()
            node.end("c-old")
            eventually(lambda: equal(marks(world), {}))
            assert node.run(agent, world.pod("next")) == address
            assert holders(world) == {"c-new", "c-next"}


def test_a_late_del_of_the_last_holder_ends_the_suspicion_for_all_nodes(world: World, tmp_path: Path):
    node = Node(world, tmp_path)
    with controller(world.plain, replace(HASTY, agent_away=0.0)):
        with node.agent() as agent:
            old = world.pod("old")
            address = node.run(agent, old)
        world.delete(old)
        eventually(lambda: equal(marks(world), {address: "c-old"}))
        with node.agent() as agent:
            box = node.box("c-old", old["metadata"])
            assert get(agent.system.get_actor("endpoint/" + box.key).release.remote(box), 60) == 0
            assert marks(world) == {}
