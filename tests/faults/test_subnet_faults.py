"""A subnet and its automatic pools, while the way to the API server fails and while two leaders believe that they lead.

Each test watches every state that the subnet and its pools were ever in: at none of them has one address two pools, or a pool
one that the subnet's status does not say. In the end the subnet has all its addresses back. The seed is in the test's name.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from actors.decisions.auto_pool import NAME
from actors.errors import Conflict, NotFound
from tests.support import application_churn
from tests.support.agent_process import AgentProcess
from tests.support.application_churn import (
    FLOOR,
    ApplicationChurn,
    allocated,
    automatic,
    deployment,
    subnet,
)
from tests.support.checker import equal, eventually
from tests.support.cni_client import add, delete
from tests.support.fleet import NODES, Fleet, fleet
from tests.support.leaders import ControllerProcess, leader_of, wait_linked
from tests.support.processes import PodName
from tests.support.proxy import Fault, FaultProxy, Gate, How, Request
from tests.support.seed import fresh_seed
from tests.support.subnet_history import recorded
from tests.tools.apiserver import ApiServer

pytestmark = pytest.mark.slow
SEED = fresh_seed()
SETTLES = 180.0
"""Seconds in which everything is as it should be in the end."""
TRY_AGAIN = 11
"""The code of a refusal that says nothing about the pod."""
POLICY = "orbweaver-automatic-pools"
"""The controllers here are the administrator, whom it takes for a person that edits a pool."""


def _writes(method: str, part: str, end: str = "") -> Callable[[Request], bool]:
    def fits(request: Request) -> bool:
        path = request.path.partition("?")[0]
        return request.method == method and f"/{part}" in path and path.endswith(end)

    return fits


SUBNET_STATUS = _writes("PUT", "spidersubnets/", "/status")
POOL_MADE = _writes("POST", "spiderippools")
POOL_STATUS = _writes("PUT", "spiderippools/", "/status")
POOL_GONE = _writes("DELETE", "spiderippools/")


def POOL_WRITTEN(request: Request) -> bool:  # noqa: N802 - one of those above
    return _writes("PUT", "spiderippools/")(request) and not POOL_STATUS(request)


# -- The way to the API server fails. ---------------------------------------------------------------------------------


HOWS = (
    Fault(How.CUT_BEFORE),
    Fault(How.CUT_AFTER),
    Fault(How.ANSWER, code=500),
    Fault(How.ANSWER, code=409, reason="Conflict"),
    Fault(How.ANSWER, code=429, reason="TooManyRequests", retry_after=1),
    Fault(How.ANSWER_AFTER, code=504, reason="Timeout"),
    Fault(How.DELAY, seconds=2.0),
)
WRITES = (SUBNET_STATUS, POOL_MADE, POOL_WRITTEN, POOL_STATUS, POOL_GONE)


class EachOnce:
    """A plan that does each of `HOWS` once to each of `WRITES`, to every second one of a kind, and nothing to all others; at
    one of each kind the API server says nothing until the caller has given up."""

    def __init__(self, chance: random.Random) -> None:
        self._lock = threading.Lock()
        self.left = [(writes, chance.sample(hows, len(hows))) for writes in WRITES for hows in [[*HOWS]]]
        self.left[chance.randrange(3)][1].append(Fault(How.HANG))
        self._spared = dict.fromkeys(range(len(WRITES)), True)

    def __call__(self, request: Request) -> Fault | None:
        with self._lock:
            for number, (fits, faults) in enumerate(self.left):
                if faults and fits(request):
                    self._spared[number] = not self._spared[number]
                    return None if self._spared[number] else faults.pop()
        return None

    @property
    def over(self) -> bool:
        """Whether each was done."""
        return not any(faults for _, faults in self.left)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [SEED])
def test_every_write_of_subnets_and_pools_may_fail_in_every_way(
    api_server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """While applications come, are scaled and go: no pod stays without an address, and the next look puts right what was half
    done."""
    monkeypatch.setattr(application_churn, "PATIENCE", SETTLES)
    floor = subnet("floor", "10.6.0.0/16", "10.6.1.0-10.6.1.99", gateway="10.6.0.1")
    with api_server.without_policy(POLICY), fleet(tmp_path, api_server, floor) as one:
        proxy = one.proxy()
        leader = leader_of(one.store, [one.controller(through=proxy)])
        agents = {node: one.agent(node) for node in NODES}
        for agent in agents.values():
            wait_linked(agent, leader)
        with recorded(one.store, "floor") as history:
            plan = EachOnce(random.Random(seed))
            with ApplicationChurn(one, agents, 3, seed) as load:
                proxy.plan = plan
                eventually(lambda: _true(load.failures or plan.over), 400)
                proxy.plan = lambda _: None
            assert load.failures == []
            assert plan.over
            _all_back(one)
            assert history.prove() > len(WRITES) * len(HOWS)


def _all_back(one: Fleet) -> None:
    """Nobody has a pool any more, and the subnet all its addresses."""
    eventually(lambda: equal(automatic(one.store), []), SETTLES)
    eventually(lambda: equal(allocated(one.store, "floor"), 0), SETTLES)
    one.prove(SETTLES)


def _true(value: object) -> None:
    assert value


@pytest.mark.timeout(600)
def test_a_pod_whose_pool_was_deleted_by_hand_is_served_before_the_leader_has_heard_of_it(
    api_server: ApiServer, tmp_path: Path
) -> None:
    """Its agent refuses the pool, and the leader believes that all is as it should be, because its watch is late."""
    floor = subnet("floor", "10.6.0.0/16", "10.6.1.1-10.6.1.9")
    with api_server.without_policy(POLICY), fleet(tmp_path, api_server, floor) as one:
        proxy = one.proxy()
        leader, agent = one.controller(through=proxy), one.agent("node1", timeout=60)
        wait_linked(agent, leader_of(one.store, [leader]))
        one.store.create(deployment("web", 2, subnet=FLOOR))
        eventually(lambda: equal([pool.ips.size for pool in automatic(one.store)], [3]))
        (deleted,) = automatic(one.store)
        first, second = [
            one.pod(name, "node1", owner="apps/v1 Deployment web", subnet=FLOOR)
            for name in ("web-1", "web-2")
        ]
        _refusals(one, agent, first)
        go_on = proxy.stall_watches("spiderippools")
        one.store.delete("SpiderIPPool", deleted.name)

        refused = _refusals(one, agent, second)

        assert set(refused) <= {TRY_AGAIN}
        go_on.set()
        eventually(lambda: _ended(one, agent, first))
        eventually(lambda: _true(deleted.name not in [pool.name for pool in automatic(one.store)]), SETTLES)
        one.prove_nothing_lost()


def _refusals(one: Fleet, agent: AgentProcess, pod: PodName) -> list[int]:
    """Ask for an address until there is one; the codes of the refusals before. On a busy machine the agent may take its leader
    for lost."""
    codes = list[int]()

    def asked() -> None:
        answer = add(agent.socket, one.journal, (f"c-{pod.name}", "eth0"), pod=pod.name, uid=pod.uid)
        if answer is not None and answer.status:
            codes.append(answer.json["code"])
        assert answer is not None
        assert answer.status == 0, answer.output

    eventually(asked)
    return codes


def _ended(one: Fleet, agent: AgentProcess, pod: PodName) -> None:
    answer = delete(agent.socket, one.journal, (f"c-{pod.name}", "eth0"), pod=pod.name, uid=pod.uid)
    assert answer is not None
    assert answer.status == 0, answer.output


# -- Two leaders. -----------------------------------------------------------------------------------------------------


@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [SEED])
def test_leaders_that_are_paused_at_random_and_wake_up_divide_no_address_twice(
    api_server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """While applications come, are scaled and go, and their pods with them."""
    monkeypatch.setattr(application_churn, "PATIENCE", SETTLES)
    chance = random.Random(seed)
    floor = subnet("floor", "10.6.0.0/16", "10.6.1.0-10.6.1.99", gateway="10.6.0.1")
    with api_server.without_policy(POLICY), fleet(tmp_path, api_server, floor) as one:
        controllers = [one.controller(name) for name in ("first", "second")]
        agents = {node: one.agent(node) for node in NODES}
        with recorded(one.store, "floor") as history:
            with ApplicationChurn(one, agents, 3, seed) as load:
                for _ in range(2):
                    paused = leader_of(one.store, controllers)
                    _started(load, chance.randrange(1, 6))
                    paused.pause()
                    try:
                        leader_of(one.store, [each for each in controllers if each is not paused])
                        _started(load, chance.randrange(1, 6))
                    finally:
                        paused.resume()
                    _started(load, 3)
            assert load.failures == []
            _all_back(one)
            history.prove()


def _started(load: ApplicationChurn, more: int) -> None:
    """Go on until so many more pods have their addresses."""
    goal = load.pods + more
    eventually(lambda: _true(load.failures or load.pods >= goal), 240)
    assert load.failures == []


@dataclass
class Two:
    """Two controllers, each with a way of its own to the API server, and applications of one subnet, which has ten
    addresses."""

    one: Fleet
    controllers: Sequence[ControllerProcess]
    ways: Sequence[FaultProxy]

    def scale(self, name: str, replicas: int | None) -> None:
        """Have an application want so many addresses, None: be gone."""
        store = self.one.store
        if replicas is None:
            store.delete("Deployment", name, "default")
            return
        while True:
            with suppress(Conflict):
                try:
                    now = store.get("Deployment", name, "default")
                except NotFound:
                    store.create(deployment(name, replicas, subnet=FLOOR, ippool_ip_number="+0"))
                else:
                    store.update({**now, "spec": {**now["spec"], "replicas": replicas}})
                return

    def settled(self, **sizes: int | None) -> None:
        """Wait until each application has a pool of this size, others have none, and the subnet says so."""
        expected = {name: size for name, size in sizes.items() if size is not None}

        def divided() -> None:
            pools = automatic(self.one.store)
            assert {pool.labels[NAME]: pool.ips.size for pool in pools} == expected
            assert allocated(self.one.store, "floor") == sum(expected.values())

        eventually(divided, SETTLES)

    def waiting(self, fits: Callable[[Request], bool], how: How, work: Callable[[], None]) -> Waiting:
        """Do something, and hold the next such write of either controller."""
        gate, lock, held = Gate(), threading.Lock(), list[int]()

        def hold(number: int, request: Request) -> Fault | None:
            with lock:
                if held or not fits(request):
                    return None
                held.append(number)
            return Fault(how, gate=gate)

        for number, way in enumerate(self.ways):
            way.plan = partial(hold, number)
        work()
        assert gate.reached.wait(SETTLES)
        (number,) = held
        return Waiting(gate, self.controllers[number], self.controllers[1 - number])


@dataclass(frozen=True)
class Waiting:
    """A write that waits at a gate, whose it is, and the controller whose it is not."""

    gate: Gate
    whose: ControllerProcess
    other: ControllerProcess


@dataclass(frozen=True)
class Moment:
    """Where in its work a leader stands still. `before`, `then`: how many addresses the application "web" has while all is
    settled, and how many it is about to get; None: it is not there."""

    write: Callable[[Request], bool]
    how: How
    before: int | None
    then: int | None


MOMENTS = {
    "the status says of a new pool": Moment(SUBNET_STATUS, How.WAIT_AFTER, None, 3),
    "the status says of growth": Moment(SUBNET_STATUS, How.WAIT_AFTER, 3, 5),
    "the pool is about to grow": Moment(POOL_WRITTEN, How.WAIT_BEFORE, 3, 5),
    "the pool has shrunk": Moment(POOL_WRITTEN, How.WAIT_AFTER, 5, 2),
    "the status is about to say of shrinking": Moment(SUBNET_STATUS, How.WAIT_BEFORE, 5, 2),
    "the pool is about to go": Moment(POOL_GONE, How.WAIT_BEFORE, 3, None),
}


@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [SEED])
def test_a_leader_that_stood_still_in_the_middle_of_its_work_gives_nothing_to_two_pools(
    api_server: ApiServer, tmp_path: Path, seed: int
) -> None:
    """Meanwhile the next leader has given a second application all that the first one had, and was to have."""
    floor = subnet("floor", "10.6.0.0/16", "10.6.1.1-10.6.1.10", gateway="10.6.0.1")
    with api_server.without_policy(POLICY), fleet(tmp_path, api_server, floor) as one:
        ways = [one.proxy(), one.proxy()]
        two = Two(one, [one.controller(f"controller{n}", through=way) for n, way in enumerate(ways)], ways)
        with recorded(one.store, "floor") as history:
            for name in random.Random(seed).sample(list(MOMENTS), len(MOMENTS)):
                last = _stand_still(two, MOMENTS[name])
                history.prove()
            last.other.stop()  # the one that stood still last goes on to work
            leader_of(one.store, [last.whose])
            two.scale("db", None)
            two.settled()
            history.prove()
            one.prove(SETTLES)


@pytest.mark.timeout(900)
def test_a_pool_that_is_made_when_nobody_wants_it_any_more_has_no_addresses_for_long(
    api_server: ApiServer, tmp_path: Path
) -> None:
    """The one write that no version guards: its leader stood still behind it, and the API server took it minutes later."""
    floor = subnet("floor", "10.6.0.0/16", "10.6.1.1-10.6.1.10", gateway="10.6.0.1")
    with api_server.without_policy(POLICY), fleet(tmp_path, api_server, floor) as one:
        ways = [one.proxy(), one.proxy()]
        two = Two(one, [one.controller(f"controller{n}", through=way) for n, way in enumerate(ways)], ways)
        late = _stand_still(two, Moment(POOL_MADE, How.WAIT_BEFORE, None, 3))
        eventually(lambda: equal(late.gate.answered, [201]))
        eventually(lambda: equal([pool.ips.size for pool in automatic(one.store) if pool.ips], [10]))
        assert allocated(one.store, "floor") == 10


def _stand_still(two: Two, moment: Moment) -> Waiting:
    two.scale("db", 2)
    if moment.before is not None:
        two.scale("web", moment.before)
    two.settled(web=moment.before, db=2)
    waiting = two.waiting(moment.write, moment.how, lambda: two.scale("web", moment.then))
    waiting.whose.pause()
    try:
        leader_of(two.one.store, [waiting.other])
        two.settled(web=moment.then, db=2)
        if moment.then is not None:
            two.scale("web", None)
            two.settled(db=2)
        two.scale("db", 10)
        two.settled(db=10)
    finally:
        waiting.gate.opened.set()
        waiting.whose.resume()
    return waiting
