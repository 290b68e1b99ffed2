"""Agents, controllers and plugins of two neighbouring versions beside each other, as a roll-out and its rollback have them.

All are real processes on a real API server; the older ones run the wheel of `tests/releases/`.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from actors.runtime import HIGHEST_VERSION
from cni import shim
from cni.server.del_spool import LEFT, spool_of
from tests.support.agent_process import AgentProcess, ServingProcess, logged
from tests.support.application_churn import FLOOR, deployment, subnet
from tests.support.checker import eventually
from tests.support.cni_client import add, delete
from tests.support.fleet import NODES, Fleet, fleet, on_node
from tests.support.leaders import ControllerProcess, leader_of, linked, wait_linked
from tests.support.plugin_load import PluginLoad
from tests.support.processes import PodName
from tests.support.rig import pod as application_pod
from tests.support.rig import pool
from tests.support.seed import fresh_seed
from tests.tools import release

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
POOLS = (pool("v4", "10.6.0.0/16", "10.6.0.40-10.6.0.90"), pool("v6", "fd00::/64", "fd00::20-fd00::60"))
SEED = fresh_seed()
CLIENTS, PODS = 2, 4


def plugins(directory: Path, packages: Path | None) -> Path:
    """The programs as a version installs them."""
    if packages is None:
        shim.install(directory)
    else:
        directory.mkdir()
        (directory / "spiderpool").symlink_to(packages / "cni" / "shim" / "bin" / shim.binary().name)
    return directory


def load(one: Fleet, agent: AgentProcess, node: str, programs: Path, seed: int) -> PluginLoad:
    pods = [
        [one.pod(f"{node}-{client}-{number}", node) for number in range(PODS)] for client in range(CLIENTS)
    ]
    return PluginLoad(agent, programs, pods, one.journal, seed)


def replace(process: ServingProcess, packages: Path | None) -> None:
    """As its DaemonSet or Deployment does: the old one ends before the new one begins."""
    assert process.stop() == 0
    process.become(packages)
    process.start()


def version_of(process: ServingProcess, event: str) -> str:
    """As the process said at its last start; the first version did not say it."""
    return str(logged(process.log, event)[-1].get("version", release.last().version))


def is_old(process: ServingProcess) -> bool:
    event = "serving" if isinstance(process, AgentProcess) else "standing by"
    return version_of(process, event) == release.last().version


@pytest.mark.parametrize("seed", [SEED])
def test_a_roll_out_and_its_rollback_fail_no_pod(api_server, tmp_path: Path, seed: int):
    """Agents and controllers by turns, while pods come and go; one node's plugins are of the older version all the time, the
    other's of the newer, so that each of them meets agents of both."""
    chance, old = random.Random(seed), release.last().packages()
    with fleet(tmp_path, api_server, *POOLS) as one:
        controllers = [one.controller(f"controller{number}", packages=old) for number in range(2)]
        agents = [one.agent(node, packages=old, timeout=40) for node in NODES]
        programs = [
            plugins(tmp_path / f"plugins{number}", version) for number, version in enumerate((old, None))
        ]
        loads = [
            load(one, agent, node, there, seed + number)
            for number, (agent, node, there) in enumerate(zip(agents, NODES, programs, strict=True))
        ]
        met: set[tuple[bool, bool]] = set()
        with loads[0], loads[1]:
            look(one, controllers, agents, loads, met)
            for packages in (None, old):
                chance.shuffle(agents)
                chance.shuffle(controllers)
                order: list[ServingProcess] = [agents[0], *controllers, agents[1]]
                for process in order:
                    replace(process, packages)
                    look(one, controllers, agents, loads, met)
                assert {is_old(process) for process in order} == {packages is not None}
        for each in loads:
            assert not each.failures
        one.prove()
        assert met == {(True, True), (True, False), (False, True), (False, False)}
        for agent in agents:
            assert [path.name for path in spool_of(agent.socket).iterdir() if path.name != LEFT] == []


def look(
    one: Fleet,
    controllers: Sequence[ControllerProcess],
    agents: Sequence[AgentProcess],
    loads: Sequence[PluginLoad],
    met: set[tuple[bool, bool]],
) -> None:
    """Agents work with the leader, whatever versions they are; pods go on. Notes which versions met: agent's, leader's."""
    leader = leader_of(one.store, list(controllers))
    for agent in agents:
        wait_linked(agent, leader)
        met.add((is_old(agent), is_old(leader)))
    for each in loads:
        each.wait(4)
    one.prove_nothing_lost()


@pytest.mark.parametrize("age", ["old", "new"])
def test_an_agent_whose_leader_speaks_another_protocol_allocates_by_itself(
    api_server, tmp_path: Path, age: str
):
    """And says so; once there is a leader that it understands it works with that one."""
    packages = release.last().packages() if age == "old" else None
    with fleet(tmp_path, api_server, *POOLS) as one:
        later = one.controller("later", faults=("--protocol", "7"))
        leader_of(one.store, [later])
        agent = one.agent("node1", packages=packages, timeout=40)
        for number in range(3):
            attach(one, agent, number)
        highest = HIGHEST_VERSION if age == "new" else 1
        told = f"speaks protocol versions 7 to 7, this process 1 to {highest}: upgrade the older"
        eventually(lambda: _says(agent, told))
        assert linked(agent) == ""
        now = one.controller("now")
        later.stop()
        wait_linked(agent, leader_of(one.store, [now]))
        attach(one, agent, 3)
        for number in range(4):
            answer = delete(agent.socket, one.journal, (f"c{number}", "eth0"))
            assert answer is not None
            assert answer.status == 0
        one.prove()


@pytest.mark.parametrize("age", ["old", "new"])
def test_an_agent_whose_messages_its_leader_does_not_know_allocates_by_itself(
    api_server, tmp_path: Path, age: str
):
    """The leader names what it does not know, and serves everybody else."""
    packages = release.last().packages() if age == "old" else None
    with fleet(tmp_path, api_server, *POOLS) as one:
        leader = one.controller(packages=packages)
        leader_of(one.store, [leader])
        later = one.agent("node1", faults=("--renamed", "Allocate"), timeout=40)
        other = one.agent("node2", timeout=40, budget=10)
        for agent in (later, other):
            wait_linked(agent, leader)
        attach(one, later, 0)
        eventually(lambda: _says(later, "'AllocateOfLater' is not known here"))
        attach(one, other, 1, "node2")
        assert linked(other) == leader.identity
        one.prove()


@pytest.mark.parametrize("older", ["agent", "leader"])
def test_pods_of_an_application_get_addresses_whoever_is_older(api_server, tmp_path: Path, older: str):
    """A new agent asks a new leader for pools and addresses at once, which an old leader does not know."""
    old = release.last().packages()
    floor = subnet("floor", "10.6.0.0/16", "10.6.1.1-10.6.1.99")
    # The controller here is the administrator, whom the policy takes for a person that edits a pool.
    with api_server.without_policy("orbweaver-automatic-pools"), fleet(tmp_path, api_server, floor) as one:
        leader = one.controller(packages=old if older == "leader" else None)
        agent = one.agent("node1", packages=old if older == "agent" else None, timeout=40, budget=10)
        wait_linked(agent, leader_of(one.store, [leader]))
        one.store.create(deployment("web", 2, subnet=FLOOR))
        for name in ("web-a", "web-b"):
            asked = application_pod(name, owner="apps/v1 Deployment web", subnet=FLOOR)
            uid = one.store.create(on_node(asked, "node1"))["metadata"]["uid"]
            answer = add(agent.socket, one.journal, (f"c-{name}", "eth0"), pod=name, uid=uid)
            assert answer is not None
            assert answer.status == 0, answer.json
        assert linked(agent) == leader.identity
        assert not logged(agent.log, "the leader is lost, allocating in this process")
        one.prove()


def attach(one: Fleet, agent: AgentProcess, number: int, node: str = "node1") -> None:
    """A pod more, which gets its address at the first attempt."""
    pod: PodName = one.pod(f"web-{number}", node)
    answer = add(agent.socket, one.journal, (f"c{number}", "eth0"), pod=pod.name, uid=pod.uid)
    assert answer is not None
    assert answer.status == 0, answer.json


def _says(process: ServingProcess, text: str) -> None:
    assert text in process.log.read_text(errors="replace")
