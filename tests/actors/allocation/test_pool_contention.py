"""Several processes allocate from one pool: who was slower learns at once what is taken, and goes elsewhere."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

from actors.allocation.block_writer import BlockActor
from actors.allocation.ledger import LedgerActor
from actors.allocation.messages import Allocate
from actors.allocation.observer import Silent
from actors.allocation.pool import PoolActor
from actors.resources.blocks.block import Block, Granted, base_of
from actors.resources.blocks.record import Record
from actors.resources.intervals import IntervalSet
from actors.resources.ippool import IPPool
from actors.runtime import Actor, ActorContext
from tests.simulation.kernel import Kernel, Process, Servers
from tests.simulation.power_failure import Costs, SimulatedStore

FIRST = 0x0A060000


def record(number: int) -> Record:
    return Record("", f"default/web-{number}", "", f"c{number}", "eth0", "node1", "", "")


class Agent:
    """Ledger, pool and blocks of a process that others are faster than."""

    def __init__(self, size: int) -> None:
        self.kernel = Kernel()
        self.servers = Servers(self.kernel, 1)
        self.store: Any = SimulatedStore(self.kernel, self.servers, Costs())
        last = f"10.6.{(size - 1) >> 8}.{(size - 1) & 255}"
        spec = {"subnet": "10.6.0.0/16", "ipVersion": 4, "ips": [f"10.6.0.0-{last}"]}
        self.pool = IPPool.from_object({"metadata": {"name": "blue"}, "spec": spec})
        self.process = Process(self.kernel, self._make, cost=0.0, bound=100, at_once=frozenset({"ledger"}))
        self.process.call("ledger/local", "counts", (), None)  # so that it has listed before the others write

    def _make(self, context: ActorContext) -> Actor:
        if context.kind == "pool":
            source: Any = SimpleNamespace(
                pool=lambda _: self.pool,
                fresh_pool=lambda _: self.pool,
                reserved=lambda _: IntervalSet(),
                is_own=lambda _: False,
            )
            return PoolActor(context, source=source, store=self.store, chance=random.Random(7))
        if context.kind == "block":
            return BlockActor(context, store=self.store, observer=Silent(), shared=True)
        return LedgerActor(context, store=self.store)

    def others_take(self, values: range) -> None:
        """Behind the back of this process."""
        for base in sorted({base_of(value) for value in values}):
            block = Block(4, base)
            block.records = {value: record(value) for value in values if base_of(value) == base}
            self.store.create(block.to_object())

    def add(self, count: int) -> list[int]:
        refs = [
            self.process.call("pool/blue", "allocate", (Allocate(record(-1 - number)),), None)
            for number in range(count)
        ]
        self.kernel.run(1000.0)
        granted = [ref.result() for ref in refs]
        assert all(isinstance(one, Granted) for one in granted)
        return [one.value for one in granted]


def test_who_is_beaten_does_not_try_every_address_of_the_block():
    agent = Agent(1024)
    agent.others_take(range(FIRST, FIRST + 64))

    values = agent.add(8)

    assert len(set(values)) == 8
    assert all(value >= FIRST + 64 for value in values)
    assert agent.servers.requests <= 12, "each address that is taken was found out by itself"


def test_who_is_not_beaten_goes_lowest_first():
    # FIRST is the subnet's own address, which no pod gets.
    assert Agent(1024).add(4) == [FIRST + 1, FIRST + 2, FIRST + 3, FIRST + 4]


def test_the_last_address_is_found_wherever_it_is():
    agent = Agent(256)
    agent.others_take(range(FIRST, FIRST + 255))

    assert agent.add(1) == [FIRST + 255]
