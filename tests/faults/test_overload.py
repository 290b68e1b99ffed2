"""More is asked of a leader than it can answer while its callers wait: a real controller and its callers' real connection,
whose store takes long over every write."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest

from actors.allocation.messages import Allocate
from actors.allocation.router import Allocator, ask
from actors.cluster.leader_failover import LeaderFailover
from actors.cluster.leadership import Leadership
from actors.errors import Overloaded
from actors.resources.blocks.block import Granted
from actors.resources.blocks.record import Record
from actors.store.contract import Store
from cni.process.controller import Controller
from tests.support.checker import eventually, records
from tests.support.cluster import Cluster
from tests.support.faulty_store import FaultyStore, Write
from tests.support.identity import agent_token
from tests.support.leaders import in_process
from tests.support.rig import pod, pool
from tests.tools.apiserver import ApiServer

POOLS, EACH = 4, 10
PATIENCE = 60.0


class SlowBlocks:
    """Each write of a block takes two thirds of a caller's patience, while this is `closed`. `begun`: how many there were."""

    def __init__(self) -> None:
        self.begun = 0
        self.closed = False

    def __call__(self, write: Write) -> None:
        if write.kind == "SpiderIPBlock" and self.closed:
            self.begun += 1
            time.sleep(PATIENCE * 2 / 3)


@contextmanager
def leading(store: Store) -> Iterator[Controller]:
    made = Controller(store, in_process())
    try:
        made.start()
        eventually(lambda: _true(made.leads()))
        yield made
        assert made.fatal is None, made.fatal
    finally:
        made.stop()


@contextmanager
def router(store: Store, left: list[str], token: Path) -> Iterator[LeaderFailover]:
    """An agent's, whose callers may not leave the leader."""

    def refuse(wrote: object) -> NoReturn:
        left.append("the leader was left")
        raise AssertionError(left[-1])

    made = LeaderFailover("agent-a", store, Leadership(budget=120.0, patience=PATIENCE, token=token), refuse)
    try:
        made.start()
        eventually(lambda: _true(made.leader))
        yield made
    finally:
        made.stop(1)


def record(number: int) -> Record:
    """As an ADD in a cluster makes it, which has a claim."""
    uid, since = f"{number:08d}-0000-4000-8000-000000000000", "2026-11-21T07:00:00Z"
    pod, container = f"default/web-{number}", f"c{number}"
    return Record("", pod, uid, container, "eth0", "n1", "", since, "net", "", claim=f"claim-{number}")


def add(allocator: Allocator, number: int) -> Granted:
    name = f"pool/pool-{number % POOLS}"
    (granted,) = ask(allocator, allocator.get_actor(name).allocate.remote(Allocate(record(number))))
    assert isinstance(granted, Granted)
    return granted


@pytest.mark.slow
def test_who_would_wait_too_long_is_refused_in_time_and_nobody_leaves_the_leader(
    api_server: ApiServer, tmp_path: Path
) -> None:
    """The pools share a block, so no mailbox of theirs is ever full. What waits behind the first write would be in the
    second, and answered after its callers have lost patience."""
    store = Cluster(api_server).open(tmp_path / "store")
    for number in range(POOLS):
        low = 1 + number * EACH
        store.create(pool(f"pool-{number}", "10.6.0.0/16", f"10.6.0.{low}-10.6.0.{low + EACH - 1}"))
    slow, left = SlowBlocks(), list[str]()
    faulty = FaultyStore(store, slow)
    count = (POOLS - 1) * EACH
    for number in range(2 + count):
        store.create(pod(f"web-{number}"))
    token = tmp_path / "token"
    token.write_text(agent_token(api_server.kubeconfig, "n1"))
    with (
        leading(faulty) as leader,
        router(store, left, token) as at,
        ThreadPoolExecutor(count + 1) as workers,
    ):
        at.work(lambda place: add(place, 0))
        slow.closed = True
        first = workers.submit(at.work, lambda place: add(place, 1))
        eventually(lambda: _true(slow.begun))
        rest = [workers.submit(at.work, lambda place, n=n: add(place, n)) for n in range(2, 2 + count)]
        eventually(lambda: _true(_waiting(leader) == count), PATIENCE / 2)
        answers = [_outcome(one) for one in (first, *rest)]

        assert left == []
        assert isinstance(answers[0], Granted)
        assert {type(one) for one in answers[1:]} == {Overloaded}, answers
        assert at.leader
        slow.closed = False
        # Right after a refusal others are refused, too.
        eventually(lambda: _true(at.work(lambda place: add(place, 1 + POOLS))))
        assert sorted(one["pod"] for one in records(store).values()) == [
            f"default/web-{number}" for number in (0, 1, 1 + POOLS)
        ]
    store.close()


def _waiting(leader: Controller) -> int:
    return sum(row.mailbox for row in leader.system.describe() if row.name.startswith("block/"))


def _outcome(answer: Future[Granted]) -> Granted | BaseException:
    return answer.exception(300) or answer.result()


def _true(value: object) -> None:
    assert value
