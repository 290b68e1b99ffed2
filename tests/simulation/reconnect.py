"""All agents of a cluster come to a new leader at once, and each shows who it is.

A model on simulated time (`kernel.py`): the leader's one CPU, the API server's, and agents that try again as
`leader_failover` does. The numbers of the door and of the reviewer are the product's; costs come from `tests/bench/door.py`.
Compared is what it takes with tokens, which are reviewed, and with a certificate for each node, which costs a signature more
and no question. Left out: the calls that the leader answers meanwhile, and losses of the network.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))

from actors.cluster.leader_failover import ANSWER, CONNECT, RETRY_FIRST, RETRY_MOST
from actors.cluster.token_review import WORKERS
from actors.runtime import GateLimits
from tests.simulation.kernel import Kernel, Servers

BACKLOG = 1024
"""What the kernel keeps for the leader."""


@dataclass(frozen=True, slots=True)
class Reconnect:
    """`within`: seconds in which the agents notice. Costs in seconds of CPU: `door` of the leader for TLS, hello and a first
    call; `asking` of the leader and `review` of the API server for a TokenReview; `lease` of the API server for reading the
    Lease. `latency`: of a request without its queue. `signature`: what a client's certificate costs the leader more."""

    agents: int = 5000
    within: float = 1.0
    tokens: bool = True
    cpus: int = 8
    door: float = 0.0014
    asking: float = 0.0004
    review: float = 0.0008
    lease: float = 0.0005
    latency: float = 0.003
    signature: float = 0.0003
    workers: int = WORKERS
    limits: GateLimits = field(default_factory=GateLimits)


@dataclass(slots=True)
class Outcome:
    seconds_to: dict[str, float] = field(default_factory=dict)
    attempts: int = 0
    reviews: int = 0
    timed_out: int = 0
    api_requests_per_second: int = 0
    api_busy: float = 0.0


@dataclass(slots=True, eq=False)
class _Agent:
    number: int
    pause: float = RETRY_FIRST
    known: bool = False
    """Its token was reviewed, and the answer is remembered."""
    asking: bool = False
    attempt: int = 0


def reconnect(given: Reconnect, until: float = 600.0) -> Outcome:
    """What becomes of all of them."""
    return _Run(given).run(until)


class _Run:
    def __init__(self, given: Reconnect) -> None:
        self._given = given
        self._kernel = Kernel()
        self._api = Servers(self._kernel, given.cpus)
        self._leader = Servers(self._kernel, 1)
        self._chance = random.Random(1)
        self._door: dict[tuple[_Agent, int], None] = {}
        self._backlog: deque[tuple[_Agent, int]] = deque()
        self._waiting: deque[_Agent] = deque()
        self._working = 0
        self._done: list[float] = []
        self._out = Outcome()

    def run(self, until: float) -> Outcome:
        for number in range(self._given.agents):
            agent = _Agent(number)
            self._kernel.at(self._chance.uniform(0, self._given.within), partial(self._look, agent))
        self._kernel.run(until)
        out, times = self._out, sorted(self._done)
        assert len(times) == self._given.agents, f"only {len(times)} came in"
        shares = {"half": 0.5, "99 %": 0.99, "all": 1.0}
        out.seconds_to = {
            name: round(times[int(len(times) * share) - 1], 1) for name, share in shares.items()
        }
        out.api_requests_per_second = round(self._api.requests / times[-1])
        out.api_busy = round(self._api.busy / self._given.cpus / times[-1], 2)
        return out

    def _look(self, agent: _Agent) -> None:
        """Read the Lease, then connect."""
        self._out.attempts += 1
        agent.attempt += 1
        read = self._api.serve(self._given.lease, 0) + self._given.latency
        self._kernel.at(read, partial(self._arrive, agent))

    def _arrive(self, agent: _Agent) -> None:
        self._later(CONNECT, agent, self._fail_at_door)
        self._connect(agent, agent.attempt, 1.0)

    def _connect(self, agent: _Agent, attempt: int, again: float) -> None:
        """As the kernels do: into the queue, or once more after a second, two, and four."""
        if agent.attempt != attempt:
            return
        if len(self._backlog) < BACKLOG:
            self._backlog.append((agent, attempt))
            self._accept()
        else:
            self._kernel.at(self._kernel.now + again, partial(self._connect, agent, attempt, again * 2))

    def _accept(self) -> None:
        while self._backlog and len(self._door) < self._given.limits.visitors:
            visit = self._backlog.popleft()
            if visit[0].attempt == visit[1]:
                self._door[visit] = None
                cost = self._given.door if self._given.tokens else self._given.door + self._given.signature
                self._kernel.at(self._leader.serve(cost, 0), partial(self._shaken, *visit))

    def _shaken(self, agent: _Agent, attempt: int) -> None:
        if (agent, attempt) not in self._door:
            return
        if not self._given.tokens or agent.known:
            self._come_in(agent, attempt)
        elif not agent.asking:
            agent.asking = True
            self._waiting.append(agent)
            self._ask()

    def _ask(self) -> None:
        while self._waiting and self._working < self._given.workers:
            self._working += 1
            self._out.reviews += 1
            agent = self._waiting.popleft()
            sent = self._leader.serve(self._given.asking, 0)
            self._kernel.at(sent, partial(self._review, agent))

    def _review(self, agent: _Agent) -> None:
        answered = self._api.serve(self._given.review, 0) + self._given.latency
        self._kernel.at(answered, partial(self._known, agent))

    def _known(self, agent: _Agent) -> None:
        self._working -= 1
        agent.known = True
        self._come_in(agent, agent.attempt)
        self._ask()

    def _come_in(self, agent: _Agent, attempt: int) -> None:
        if (agent, attempt) in self._door:
            self._done.append(self._kernel.now)
            self._leave(agent, attempt)
            agent.attempt = -1

    def _leave(self, agent: _Agent, attempt: int) -> None:
        self._door.pop((agent, attempt), None)
        self._accept()

    def _later(self, seconds: float, agent: _Agent, action: Callable[[_Agent, int], None]) -> None:
        self._kernel.at(self._kernel.now + seconds, partial(action, agent, agent.attempt))

    def _fail_at_door(self, agent: _Agent, attempt: int) -> None:
        """It has waited for as long as it does; behind a review, for an answer."""
        if agent.attempt == attempt and agent.asking and not agent.known:
            self._later(ANSWER - CONNECT, agent, self._give_up)
        else:
            self._give_up(agent, attempt)

    def _give_up(self, agent: _Agent, attempt: int) -> None:
        if agent.attempt != attempt:
            return
        self._out.timed_out += 1
        agent.attempt += 1
        self._leave(agent, attempt)
        wait = agent.pause * (0.5 + self._chance.random())
        agent.pause = min(RETRY_MOST, agent.pause * 2)
        self._kernel.at(self._kernel.now + wait, partial(self._look, agent))


def main() -> int:
    usual = Reconnect()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agents", type=int, default=usual.agents)
    parser.add_argument("--cpus", type=int, default=usual.cpus, help="of the API server (%(default)s)")
    chosen = parser.parse_args()
    given = replace(usual, agents=chosen.agents, cpus=chosen.cpus)
    for name, case in {
        "a leader hands over: all within 1 s, tokens": given,
        "a certificate for each node": replace(given, tokens=False),
        "a leader was killed: within 10 s, tokens": replace(given, within=10.0),
        "a certificate for each node, within 10 s": replace(given, within=10.0, tokens=False),
        "an API server five times as slow": replace(
            given, review=given.review * 5, latency=given.latency * 5
        ),
    }.items():
        print(json.dumps({"case": name, **asdict(reconnect(case))}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
