"""A cluster comes back after a power failure: every pod of every node asks for an address at once.

The Pool, Block and Ledger actors of the leader are the product's, on simulated time (`kernel.py`); so are the addresses
they give and the bytes they write. Simulated are the CPU of the leader, the API server (some CPUs, a cost for each
request) and the kubelets: an ADD that fails is tried again after 10 to 15 seconds, as kubelet does. Costs come from
`tests/bench`, and the calibration is told with the result.

Left out: that pods, images and kubelets cost the API server too, and network losses. `without_a_leader` is a model of
its own: agents that list the blocks and write them by compare-and-swap.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

sys.path.append(str(Path(__file__).resolve().parents[2]))

from actors.allocation.block_writer import BlockActor
from actors.allocation.ledger import LedgerActor
from actors.allocation.messages import Allocate
from actors.allocation.observer import Silent
from actors.allocation.pool import PoolActor
from actors.cluster.leadership import Leadership
from actors.errors import Conflict, DeadlineExceeded, NotFound, Overloaded
from actors.resources.blocks.block import BLOCK_SIZE, Block, Claim, Granted, Release, base_of, block_name
from actors.resources.blocks.record import Fence, Record
from actors.resources.intervals import IntervalSet
from actors.resources.ippool import IPPool
from actors.runtime import Actor, ActorContext, ObjectRef
from actors.store.contract import Listing, Object, Store
from cni.process.controller import BEGIN_WITHIN, MAILBOX
from tests.simulation.kernel import Kernel, Process, Servers


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds of CPU, as `tests/bench` measures them: of the leader for an ADD, and, at a guess, for one that it refuses;
    of the API server for a block's write, for a SpiderEndpoint's, and for a block in a list. `latency`: of a request
    without its queue (network, etcd)."""

    leader_add: float = 0.0013
    leader_refusal: float = 0.0001
    block_write: float = 0.0025
    endpoint_write: float = 0.0025
    block_listed: float = 0.00005
    latency: float = 0.003
    messages: int = 4
    """Of the leader's actors for an ADD; each is charged its part."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """`within`: seconds over which the nodes come back. `shards`: processes that the pools are spread over. `bound`:
    messages that wait for one pool; `start_fraction`: part of its time in which each is begun or refused. `patience`: seconds
    an agent waits for the leader. `cpus`: of the API server."""

    nodes: int = 5000
    pods: int = 100_000
    pools: int = 100
    within: float = 10.0
    shards: int = 1
    bound: int = MAILBOX
    start_fraction: float = BEGIN_WITHIN
    patience: float = Leadership().patience
    cpus: int = 8
    costs: Costs = Costs()


@dataclass(slots=True)
class Outcome:
    """`seconds_to`: until half, 99 % and all of the pods have an address. `refused`: ADDs answered with code 11, because
    of overload or because no answer came in time. `api`: requests, bytes, and how busy its CPUs were until the end."""

    seconds_to: dict[str, float] = field(default_factory=dict)
    attempts: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    api: dict[str, float] = field(default_factory=dict)
    memory_mib: float = 0.0
    blocks: int = 0


_NOTHING = IntervalSet()


class SimulatedStore:
    """Blocks, by compare-and-swap, at the price of the API server."""

    def __init__(self, kernel: Kernel, servers: Servers, costs: Costs) -> None:
        self.blocks: dict[str, Object] = {}
        self._kernel = kernel
        self._servers = servers
        self._costs = costs
        self._version = 0

    def list(self, kind: str, namespace: str | None = None, *, timeout: float = 30.0) -> Listing:
        return Listing(tuple(self.blocks.values()), str(self._version))

    def get(self, kind: str, name: str, namespace: str = "", *, timeout: float = 10.0) -> Object:
        self._pay(self._costs.block_write / 2, 0)
        if kind == "SpiderIPPool":
            return {"metadata": {"name": name}, "spec": {}, "status": {}}
        if name not in self.blocks:
            raise NotFound(name)
        return self.blocks[name]

    def create(self, obj: Object, *, timeout: float = 10.0) -> Object:
        return self.update(obj)

    def update(self, obj: Object, *, timeout: float = 10.0) -> Object:
        name = obj["metadata"]["name"]
        held = self.blocks.get(name)
        self._pay(self._costs.block_write, len(json.dumps(obj)))
        if held is not None and held["metadata"]["resourceVersion"] != obj["metadata"].get("resourceVersion"):
            raise Conflict(name)
        self._version += 1
        stored = {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(self._version)}}
        self.blocks[name] = stored
        return stored

    def _pay(self, seconds: float, octets: int) -> None:
        answered = self._servers.serve(seconds, octets)
        self._kernel.effects = answered + self._costs.latency


def pool_objects(cluster: Cluster) -> list[IPPool]:
    """Pools with exactly as many addresses as pods."""
    each = -(-cluster.pods // cluster.pools)
    first = int(IPv4Address("10.64.1.0"))  # the first address of the subnet is the network's own
    found = []
    for number in range(cluster.pools):
        low = first + number * (each + (-each % BLOCK_SIZE))
        spec = {
            "subnet": "10.64.0.0/10",
            "ipVersion": 4,
            "ips": [f"{IPv4Address(low)}-{IPv4Address(low + each - 1)}"],
        }
        found.append(IPPool.from_object({"metadata": {"name": f"pool-{number}"}, "spec": spec}))
    return found


def leader(cluster: Cluster, until: float = 3600.0) -> Outcome:
    """With a leader, or several that share the pools."""
    return _Run(cluster).run(until)


class _Run:
    """One run with a leader."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster, costs = cluster, cluster.costs
        self._chance = random.Random(1)
        self._kernel = kernel = Kernel()
        self._servers = Servers(kernel, cluster.cpus)
        self._store = SimulatedStore(kernel, self._servers, costs)
        self._pools = {pool.name: pool for pool in pool_objects(cluster)}
        source = SimpleNamespace(
            pool=self._pools.__getitem__,
            fresh_pool=self._pools.__getitem__,
            is_own=lambda _: False,
            reserved=lambda family: _NOTHING,
        )
        store = cast("Store", self._store)

        def clock() -> float:
            return 1_800_000_000 + kernel.now

        def make(context: ActorContext) -> Actor:
            if context.kind == "pool":
                return PoolActor(context, source=source, store=store, clock=clock)
            if context.kind == "block":
                return BlockActor(context, store=store, observer=Silent(), clock=clock)
            return LedgerActor(context, store=store)

        self._shards = [
            Process(
                kernel,
                make,
                cost=costs.leader_add / costs.messages,
                refusal=costs.leader_refusal,
                bound=cluster.bound,
                start_fraction=cluster.start_fraction,
                at_once=frozenset({"ledger"}),
            )
            for _ in range(cluster.shards)
        ]
        self._times: list[float] = []
        self._out = Outcome()

    def run(self, until: float) -> Outcome:
        cluster, kernel, out = self._cluster, self._kernel, self._out
        gc.collect()
        before = _resident()
        names = list(self._pools)
        for number in range(cluster.pods):
            node, pool = number % cluster.nodes, names[number % len(names)]
            start = self._chance.uniform(0, cluster.within)
            kernel.at(start, partial(self._add, number, node, pool))
        kernel.run(until)
        gc.collect()
        out.memory_mib = _resident() - before
        _conclude(out, self._times, self._servers, cluster)
        out.blocks = len(self._store.blocks)
        recorded = sum(len(Block.from_object(obj).records) for obj in self._store.blocks.values())
        known = sum(self._shard(pool).cells["ledger/local"].actor.counts()[pool] for pool in self._pools)
        assert recorded == known == len(self._times), (recorded, known)
        return out

    def _shard(self, pool: str) -> Process:
        return self._shards[int(pool.rpartition("-")[2]) % len(self._shards)]

    def _add(self, number: int, node: int, pool: str) -> None:
        """An attempt of the pod: its message, as it leaves the node."""
        self._out.attempts += 1
        deadline = self._kernel.now + self._cluster.patience
        container = f"{number:032x}{self._out.attempts:032x}"
        record = Record(
            "", f"shop/web-{number}", f"{number:08x}-0000-4000-8000-000000000000", container, "eth0",
            f"node-{node}", "", "2026-11-21T07:00:00Z", "underlay", "",
        )  # fmt: skip
        ref = self._shard(pool).call(f"pool/{pool}", "allocate", (Allocate(record),), deadline)
        ref.subscribe(
            lambda done: self._kernel.soon(lambda: self._answered(done, number, node, pool, deadline))
        )

    def _answered(self, ref: ObjectRef[Any], number: int, node: int, pool: str, deadline: float) -> None:
        error = ref.error()
        if error is None and self._kernel.now > deadline:
            # Nobody waits any more: what was granted is released, as an Endpoint does, and asked for anew.
            granted: Granted = ref.result()
            release = Release(granted.value, Fence.of(granted.record), self._kernel.now)
            self._shard(pool).call(f"block/{block_name(4, granted.value)}", "release", (release,), None)
            error = DeadlineExceeded("answered too late")
        if error is None:
            self._times.append(self._kernel.now)
            self._servers.serve(self._cluster.costs.endpoint_write, 780)
            return
        kind = "overloaded" if isinstance(error, Overloaded) else "no answer in time"
        assert isinstance(error, Overloaded | DeadlineExceeded), error
        self._out.refused[kind] = self._out.refused.get(kind, 0) + 1
        pause = 10 * self._chance.uniform(1.0, 1.5)
        self._kernel.soon(lambda: self._add(number, node, pool), pause)


@dataclass(slots=True)
class _Agent:
    """An agent that works by itself: what it believes of the blocks, and its pods that wait."""

    node: int
    pool: int
    waiting: list[int]
    look: int = 0


def without_a_leader(cluster: Cluster, until: float = 3600.0) -> Outcome:
    """No leader: every agent lists the blocks, begins at the first of its pool, and goes elsewhere when others were
    faster. Blocks are the product's `Block`; one write carries all claims of an agent in one block."""
    costs, chance, out = cluster.costs, random.Random(1), Outcome()
    kernel = Kernel()
    servers = Servers(kernel, cluster.cpus)
    pools = pool_objects(cluster)
    blocks: list[list[Block]] = []
    versions: Counter[int] = Counter()
    sizes: dict[int, int] = {}
    for pool in pools:
        usable = [value for low, high in pool.available for value in range(low, high + 1)]
        sizes |= Counter(base_of(value) for value in usable)
        blocks.append([Block(4, base) for base in sorted(sizes) if pool.available.contains(base)])
    times: list[float] = []
    listing = costs.block_listed * (cluster.pods // BLOCK_SIZE)
    listed_octets = 200 * (cluster.pods // BLOCK_SIZE)

    def begin(agent: _Agent) -> None:
        done = servers.serve(listing, listed_octets)
        kernel.at(done + costs.latency, lambda: attempt(agent))

    def attempt(agent: _Agent) -> None:
        """Choose a block on what is known, and send the write; whether it counts shows when it arrives."""
        if not agent.waiting:
            return
        out.attempts += 1
        own = blocks[agent.pool]
        block = own[agent.look % len(own)]
        free = [
            value
            for value in range(block.base, block.base + BLOCK_SIZE)
            if value not in block.records and pools[agent.pool].available.contains(value)
        ]
        if not free:
            out.refused["block is full"] = out.refused.get("block is full", 0) + 1
            done = servers.serve(costs.block_write / 2, 7000)  # found out by reading
            agent.look = elsewhere(agent.pool)
            kernel.at(done + costs.latency, lambda: attempt(agent))
            return
        version = versions[block.base]
        chosen = list(zip(agent.waiting, free, strict=False))
        done = servers.serve(costs.block_write, 350 + 103 * (len(block.records) + len(chosen)))
        kernel.at(done, lambda: arrive(agent, block, version, chosen))

    def arrive(agent: _Agent, block: Block, version: int, chosen: Sequence[tuple[int, int]]) -> None:
        if versions[block.base] != version:
            out.refused["conflict"] = out.refused.get("conflict", 0) + 1
            done = servers.serve(costs.block_write / 2, 7000)
            agent.look = elsewhere(agent.pool)
            kernel.at(done + costs.latency + chance.uniform(0, 0.01), lambda: attempt(agent))
            return
        versions[block.base] += 1
        for pod, value in chosen:
            name = f"pool-{agent.pool}"
            record = Record(name, f"shop/web-{pod}", "", f"{pod:064x}", "eth0", f"node-{agent.node}", "", "")
            assert isinstance(block.claim(Claim(value, record), kernel.now), Granted)
            agent.waiting.remove(pod)
            times.append(kernel.now + costs.latency)
            servers.serve(costs.endpoint_write, 780)
        kernel.at(kernel.now + costs.latency, lambda: attempt(agent))

    def elsewhere(pool: int) -> int:
        """A block with a free address, by chance, as the agent knows from its watch."""
        open_blocks = [index for index, one in enumerate(blocks[pool]) if len(one.records) < sizes[one.base]]
        return chance.choice(open_blocks) if open_blocks else 0

    for node in range(cluster.nodes):
        pods = list(range(node, cluster.pods, cluster.nodes))
        agent = _Agent(node, node % cluster.pools, pods)
        kernel.at(chance.uniform(0, cluster.within), partial(begin, agent))
    kernel.run(until)
    _conclude(out, times, servers, cluster)
    out.blocks = len(sizes)
    return out


def _conclude(out: Outcome, times: list[float], servers: Servers, cluster: Cluster) -> None:
    times.sort()
    assert len(times) == cluster.pods, f"only {len(times)} of {cluster.pods} pods have an address"
    shares = {"half": 0.5, "99 %": 0.99, "all": 1.0}
    out.seconds_to = {name: round(times[int(len(times) * share) - 1], 1) for name, share in shares.items()}
    out.api = {
        "requests": servers.requests,
        "requests_per_second": round(servers.requests / times[-1]),
        "mib": round(servers.octets / 2**20, 1),
        "busy": round(servers.busy / cluster.cpus / times[-1], 2),
    }


def _resident() -> float:
    """MiB of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    raise AssertionError("the kernel does not tell")


def cases(cluster: Cluster) -> Iterator[tuple[str, Outcome]]:
    """No leader; one that is asked no faster than it answers; one that is asked faster; and as many shards as it takes
    for the given time."""
    yield "no leader", without_a_leader(cluster)
    capacity = cluster.pods * cluster.costs.leader_add
    slow = replace(cluster, within=max(cluster.within, 1.2 * capacity))
    yield f"one leader, nodes back within {slow.within:.0f} s", leader(slow)
    yield f"one leader, nodes back within {cluster.within:.0f} s", leader(cluster)
    shards = max(2, round(1.2 * capacity / cluster.within))
    yield f"{shards} shards", leader(replace(cluster, shards=shards))


def main() -> int:
    usual = Cluster()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=usual.nodes)
    parser.add_argument("--pods", type=int, default=usual.pods)
    parser.add_argument("--pools", type=int, default=usual.pools)
    parser.add_argument("--cpus", type=int, default=usual.cpus, help="of the API server (%(default)s)")
    parser.add_argument("--within", type=float, default=usual.within, help="seconds (%(default)s)")
    parser.add_argument("--bench", type=Path, help="figures of a bench to take the costs from")
    chosen = parser.parse_args()
    costs = calibrated(chosen.bench) if chosen.bench else Costs()
    cluster = Cluster(
        nodes=chosen.nodes,
        pods=chosen.pods,
        pools=chosen.pools,
        cpus=chosen.cpus,
        within=chosen.within,
        costs=costs,
    )
    gc.disable()  # half of the time would go into looking for cycles among a million things that stay
    print(json.dumps(asdict(cluster)), flush=True)
    for name, outcome in cases(cluster):
        print(json.dumps({"case": name, **asdict(outcome)}), flush=True)
    return 0


def calibrated(bench: Path) -> Costs:
    """The costs that a bench measured in scenario C with a leader: CPU of the controller for an ADD, of the API server and
    etcd for a request."""
    row = json.loads(bench.read_text())["scenarios"]["C"]["with a leader"]["ADD"]
    by = row["cpu_ms_by"]
    request = (by["apiserver"] + by["etcd"]) / row["api_requests"] / 1000
    return Costs(leader_add=by["controller"] / 1000, block_write=request, endpoint_write=request)


if __name__ == "__main__":
    sys.exit(main())
