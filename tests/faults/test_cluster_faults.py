"""Agents and a controller on a real API server, under load, while everything around them fails; after each the checker.

Each test goes on by what was answered, never by the clock, so that a slow machine takes longer and proves the same.
The seed is in the test's name.
"""

from __future__ import annotations

import itertools
import random
import signal
import socket
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.agent_process import AgentProcess, ServingProcess, logged
from tests.support.checker import Journal, Place, eventually, records
from tests.support.cni_client import NoAnswer, add, connect, delete, encode, read_answer
from tests.support.fleet import NODES, Clock, Fleet, fleet
from tests.support.leaders import leader_of, linked, wait_linked
from tests.support.processes import PodName
from tests.support.proxy import Fault, How, Plan, Request
from tests.support.rig import pool, statefulset
from tests.support.seed import fresh_seed
from tests.tools.apiserver import ApiServer

pytestmark = pytest.mark.slow
POOLS = (pool("v4", "10.6.0.0/16", "10.6.0.40-10.6.0.90"), pool("v6", "fd00::/64", "fd00::20-fd00::60"))
SEED = fresh_seed()


@pytest.mark.parametrize("seed", [SEED])
def test_agents_and_controllers_are_killed_at_random_moments(
    api_server: ApiServer, tmp_path: Path, seed: int
):
    """kill -9 of agents, of the leader, and of everything at once, while two agents allocate out of one pool."""
    chance = random.Random(seed)
    with fleet(tmp_path, api_server, *POOLS) as one:
        controllers = [one.controller(f"controller{number}") for number in range(2)]
        agents = [one.agent(node) for node in NODES]
        victims = ["leader", "leader and agent", "all"]
        chance.shuffle(victims)
        with (
            one.load(agents[0], seed, NODES[0]) as first,
            one.load(agents[1], seed + 1, NODES[1]) as second,
        ):
            for victim in victims:
                leader = leader_of(one.store, controllers)
                for agent in agents:
                    wait_linked(agent, leader)
                for load in (first, second):
                    load.wait_succeeded(chance.randrange(1, 30))
                chosen: list[ServingProcess] = [*controllers, *agents] if victim == "all" else [leader]
                if victim == "leader and agent":
                    chosen.append(chance.choice(agents))
                for process in chosen:
                    process.kill()
                one.prove_nothing_lost()
                for process in chosen:
                    process.launch()
                for process in chosen:
                    process.wait_serving()
                for load in (first, second):
                    load.wait_succeeded(5)
        for load in (first, second):
            load.settle()
        one.prove()


@pytest.mark.parametrize("seed", [SEED])
def test_two_leaders_at_once(api_server: ApiServer, tmp_path: Path, seed: int):
    """The leader is paused, another wins, and the first wakes up with writes half done; twice."""
    chance = random.Random(seed)
    with fleet(tmp_path, api_server, *POOLS) as one:
        controllers = [one.controller(f"controller{number}") for number in range(2)]
        agent = one.agent("node1")
        with one.load(agent, seed, "node1") as load:
            for _ in range(2):
                paused = leader_of(one.store, controllers)
                wait_linked(agent, paused)
                load.wait_succeeded(chance.randrange(1, 30))
                paused.pause()
                try:
                    other = leader_of(one.store, [each for each in controllers if each is not paused])
                    wait_linked(agent, other)
                    load.wait_succeeded(chance.randrange(1, 30))
                finally:
                    paused.resume()
                load.wait_succeeded(10)
                one.prove_nothing_lost()
        load.settle()
        one.prove()


@pytest.mark.parametrize("seed", [SEED])
def test_the_network_between_an_agent_and_its_leader_is_cut(api_server: ApiServer, tmp_path: Path, seed: int):
    """In silence, twice: the leader goes on leading, while the agent allocates by itself; what was on its way arrives
    late."""
    chance = random.Random(seed)
    host = f"127.0.{chance.randrange(1, 200)}.2"  # not where the leader listens, but on loopback too
    with fleet(tmp_path, api_server, *POOLS) as one:
        leader = one.controller(address=host)
        cable = one.cable(host, leader.port)
        agent = one.agent("node1")
        with one.load(agent, seed, "node1") as load:
            for _ in range(2):
                wait_linked(agent, leader)
                load.wait_succeeded(chance.randrange(1, 30))
                cable.clog()
                eventually(lambda: _alone(agent))
                load.wait_succeeded(chance.randrange(5, 30))
                cable.unclog()
                load.wait_succeeded(5)
                one.prove_nothing_lost()
            wait_linked(agent, leader)
            load.wait_succeeded(5)
        load.settle()
        one.prove()


def _alone(agent: AgentProcess) -> None:
    assert not linked(agent)


@pytest.mark.parametrize("seed", [SEED])
@pytest.mark.parametrize("what", ["kube-apiserver", "etcd"])
def test_the_api_server_or_etcd_is_killed(api_server: ApiServer, tmp_path: Path, what: str, seed: int):
    """Twice, under load; it comes back after several requests have failed for want of it."""
    chance = random.Random(seed)
    with fleet(tmp_path, api_server, *POOLS) as one:
        one.controller()
        agent = one.agent("node1")
        with one.load(agent, seed, "node1") as load:
            for _ in range(2):
                load.wait_succeeded(chance.randrange(1, 30))
                try:
                    (api_server.kill if what == "kube-apiserver" else api_server.kill_etcd)()
                    load.wait_failed(2)
                finally:
                    api_server.start()
                load.wait_succeeded(10)
                one.prove_nothing_lost()
        load.settle()
        one.prove()


def slow(chance: random.Random) -> Plan:
    """Every answer takes up to a third of a second longer."""
    return lambda request: None if request.is_watch else Fault(How.DELAY, seconds=chance.uniform(0.0, 0.3))


def lossy(chance: random.Random) -> Plan:
    """One write in four is carried out and its reply lost, or lost itself, or refused by a server that is too busy, or that
    fails, or that says somebody else was faster."""
    hows = [
        Fault(How.CUT_AFTER),
        Fault(How.CUT_AFTER),
        Fault(How.CUT_BEFORE),
        Fault(How.ANSWER_AFTER, code=504, reason="Timeout"),
        Fault(How.ANSWER_AFTER, code=500),
        Fault(How.ANSWER, code=500),
        Fault(How.ANSWER, code=409, reason="Conflict"),
        Fault(How.ANSWER, code=429, reason="TooManyRequests", retry_after=1),
        Fault(How.CLOSE_IDLE),
    ]

    def plan(request: Request) -> Fault | None:
        return chance.choice(hows) if request.method != "GET" and chance.random() < 0.25 else None

    return plan


@pytest.mark.parametrize("seed", [SEED])
@pytest.mark.parametrize("made", [slow, lossy])
def test_an_api_server_that_is_slow_or_loses_replies(api_server: ApiServer, tmp_path: Path, made, seed: int):
    """For the agent and for the controller; watches break off too."""
    chance = random.Random(seed)
    with fleet(tmp_path, api_server, *POOLS) as one:
        proxy = one.proxy()
        one.controller(through=proxy)
        agent = one.agent("node1", through=proxy)
        with one.load(agent, seed, "node1") as load:
            proxy.plan = made(random.Random(seed))
            for _ in range(3):
                load.wait_succeeded(chance.randrange(10, 25))
                proxy.cut_watches()
                one.prove_nothing_lost()
        load.settle()
        proxy.plan = lambda _: None
        one.prove()


@pytest.mark.parametrize("seed", [SEED])
def test_clocks_jump(api_server: ApiServer, tmp_path: Path, seed: int):
    """A day ahead, an hour back, and back to the truth, on the agent's machine and on the controller's; nothing that
    a pod has is given up for it, and every address can still be had."""
    chance = random.Random(seed)
    small = pool("v4", "10.6.0.0/16", "10.6.0.60-10.6.0.67")
    with fleet(tmp_path, api_server, small) as one:
        clocks = [Clock(tmp_path / name) for name in ("agent.clock", "controller.clock")]
        agent = one.agent("node1", clock=clocks[0], timeout=60)
        one.controller(clock=clocks[1])
        pods = [one.pod(f"web-{number}", "node1") for number in range(8)]
        jumps = [86400.0, -3600.0, 0.0]
        chance.shuffle(jumps)
        for turn, ahead in enumerate(jumps):
            for clock in clocks:
                clock.jump(ahead)
            for pod_ in pods:  # all eight addresses are in use then
                place = (f"c-{pod_.name}-{turn}", "eth0")
                answer = add(agent.socket, one.journal, place, pod=pod_.name, uid=pod_.uid)
                assert answer is not None
                assert answer.status == 0, answer.output
            one.prove()
            for pod_ in chance.sample(pods, len(pods)):
                answer = delete(agent.socket, one.journal, (f"c-{pod_.name}-{turn}", "eth0"))
                assert answer is not None
                assert answer.status == 0, answer.output
        one.prove()


@pytest.mark.parametrize("seed", [SEED])
@pytest.mark.parametrize("owner", ["", "web"], ids=["bare", "statefulset"])
def test_a_hundred_pods_of_one_name_in_a_row(api_server: ApiServer, tmp_path: Path, owner: str, seed: int):
    """Each replaces the last before its DEL has come; DELs come late, out of order, and twice. The last pod has its
    address, a StatefulSet's the same as the first, and nothing else is left. (The pool is so large that no address is
    given again: one that garbage collection took first would be probed, and these pods have no network namespaces. A
    StatefulSet's is given again, so garbage collection leaves it alone here, however long there is no pod.)"""
    chance = random.Random(seed)
    settings = tmp_path / "settings.yml"
    settings.write_text(f"gc: {{ownDelDelay: {3600 if owner else 5}}}")
    with fleet(
        tmp_path, api_server, pool("v4", "10.6.0.0/16", "10.6.0.60-10.6.0.200"), statefulset("web", 1)
    ) as one:
        one.controller(settings=settings)
        agent = one.agent("node1", timeout=60)
        late: list[Place] = []
        seen: set[str] = set()
        for turn in range(100):
            made = one.pod("web-0", "node1", statefulset=owner)
            place = (f"c{turn}", "eth0")
            answer = add(agent.socket, one.journal, place, pod=made.name, uid=made.uid)
            assert answer is not None
            assert answer.status == 0, answer.output
            seen.update(answer.addresses)
            late.append(place)
            while len(late) > 1 and (len(late) > 8 or chance.random() < 0.5):
                _late_del(
                    agent.socket, one, late.pop(chance.randrange(len(late) - 1)), twice=chance.random() < 0.3
                )
            if turn < 99:
                path = "/api/v1/namespaces/default/pods/web-0"
                one.server.call("DELETE", path, {"gracePeriodSeconds": 0})
                one.journal.releasing(place)  # from now on it may be taken back without a DEL
        for place in late[:-1]:
            _late_del(agent.socket, one, place, twice=True)

        one.prove()
        assert set(one.journal.held) == {("c99", "eth0")}
        assert not owner or len(seen) == 1


def _late_del(path: Path, one: Fleet, place: Place, *, twice: bool) -> None:
    """As a runtime sends it: again, where the agent says that it had no time."""

    def done() -> None:
        answer = delete(path, one.journal, place)
        assert answer is not None
        assert answer.status == 0, answer.output

    for _ in range(1 + twice):
        eventually(done)


@pytest.mark.parametrize("seed", [SEED])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_an_agent_restarts_with_500_adds_waiting(
    api_server: ApiServer, tmp_path: Path, how: signal.Signals, seed: int
):
    """Of those without an answer the runtime sends a DEL, and an ADD for a new sandbox, as the kubelet has it do."""
    chance = random.Random(seed)
    with fleet(tmp_path, api_server, pool("v4", "10.6.0.0/16", "10.6.0.1-10.6.2.254")) as one:
        one.controller()
        agent = one.agent("node1")
        waiting = [one.pod(f"web-{number}", "node1") for number in range(500)]
        for life in itertools.count():
            if life >= 2 and not waiting:  # how many more it takes depends on the machine
                break
            sent = AllAtOnce(agent.socket, one.journal, waiting, life)
            if life < 2:
                _until_recorded(one, chance.randrange(1, 200))
                agent.signal(how)
                agent.wait()
                agent.start()
            waiting = sent.collect()
            for place in list(one.journal.doubtful):
                _late_del(agent.socket, one, place, twice=False)
        assert len(one.journal.held) == 500
        one.prove()


class AllAtOnce:
    """An ADD for each pod, all sent before any answer is read."""

    def __init__(self, path: Path, journal: Journal, pods: Sequence[PodName], life: int) -> None:
        self._journal = journal
        self._open: list[tuple[socket.socket, Place, PodName]] = []
        for made in pods:
            place = (f"c{life}-{made.name}", "eth0")
            client = connect(path)
            journal.unsure(place)
            client.sendall(encode("ADD", *place, pod=made.name, uid=made.uid))
            self._open.append((client, place, made))

    def collect(self) -> list[PodName]:
        """Read the answers; the pods that have no address yet."""
        left = []
        for client, place, made in self._open:
            with client:
                try:
                    answer = read_answer(client)
                except (NoAnswer, OSError):
                    left.append(made)
                    continue
            if answer.status == 0:
                self._journal.acknowledged(place, answer.addresses)
            else:
                left.append(made)
        return left


def _until_recorded(one: Fleet, count: int) -> None:
    def enough() -> None:
        assert len(records(one.store)) >= count

    eventually(enough)


def test_a_repeated_add_that_fails_with_its_leader_leaves_the_first_ones_address(
    api_server: ApiServer, tmp_path: Path
):
    """No block can be written, by the leader or the agent. What is looked for afterwards and released is what the lost
    leader recorded late, and not what an earlier ADD was answered with."""
    with fleet(tmp_path, api_server, *POOLS) as one:
        proxy = one.proxy()
        leader = one.controller(through=proxy)
        agent = one.agent("node1", through=proxy, timeout=20)
        wait_linked(agent, leader)
        made, place = one.pod("web", "node1"), ("c1", "eth0")
        first = add(agent.socket, one.journal, place, pod=made.name, uid=made.uid)
        proxy.plan = no_blocks
        again = add(agent.socket, one.journal, place, pod=made.name, uid=made.uid)
        proxy.plan = lambda _: None

        assert first is not None
        assert first.status == 0
        assert again is not None
        assert again.json["code"] == 11

        eventually(lambda: _looked(agent))
        one.prove()


def no_blocks(request: Request) -> Fault | None:
    return Fault(How.CUT_BEFORE) if request.method == "PUT" and "spideripblocks" in request.path else None


def _looked(agent: AgentProcess) -> None:
    assert logged(agent.log, "looked for what a lost leader recorded")
