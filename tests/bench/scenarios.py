"""What is asked of a peer, and what it costs.

A: one ADD after the other. B: 32 at once, as many addresses as pods. C: the same from 8 agents, 4 at once on each. D:
as C, on a pool of which four fifths are in use. Each is followed by the DELs. E: 32 workers that loop ADD, delete the
pod, DEL, on 64 addresses; E8: the same from 8 agents.
"""

from __future__ import annotations

import resource
from dataclasses import dataclass
from typing import Any

from tests.bench.load import Load, new_pods
from tests.bench.peers import Peer
from tests.bench.processes import cpu_by_name


@dataclass(frozen=True, slots=True)
class Scenario:
    """`width`: at once on each agent; `used`: addresses in use before; `churn`: seconds, 0 for ADDs and then DELs."""

    agents: int
    width: int
    pods: int
    size: int
    used: int = 0
    churn: float = 0.0


def scenarios(pods: int, seconds: float) -> dict[str, Scenario]:
    """`pods` of scenarios B, C and D; A has a fifth of it."""
    return {
        "A": Scenario(1, 1, pods // 5, pods),
        "B": Scenario(1, 32, pods, pods),
        "C": Scenario(8, 4, pods, pods),
        "D": Scenario(8, 4, pods, 5 * pods, used=4 * pods),
        "E": Scenario(1, 32, 2 * pods, 64, churn=seconds),
        "E8": Scenario(8, 4, 2 * pods, 64, churn=seconds),
    }


def play(peer: Peer, scenario: Scenario) -> dict[str, dict[str, Any]]:
    """The figures of ADD and DEL; per request where it says so. Raises AssertionError when an address is wrong."""
    pods = new_pods(scenario.pods, len(peer.confs))
    peer.make_pods(pods)
    before = peer.count()
    load = Load(peer.program, peer.confs, scenario.size - scenario.used)
    if scenario.churn:
        cost = _Cost(peer)
        adds, deletes = load.churn(pods, scenario.width, scenario.churn, peer.end_pod)
        adds["left"] = 0
        deletes["left"] = peer.count() - before
        peer.settle()
        adds |= cost.per(adds["done"])
        assert peer.count() == before, f"{peer.count() - before} addresses stay recorded"
        return {"ADD": adds, "DEL": deletes}
    figures = {}
    for phase, run, expected in (("ADD", load.add_all, len(pods)), ("DEL", load.delete_all, 0)):
        cost = _Cost(peer)
        figures[phase] = run(pods, scenario.width)
        figures[phase]["left"] = peer.count() - before
        peer.settle()
        figures[phase] |= cost.per(len(pods))
        recorded = peer.count() - before
        assert recorded == expected, f"{recorded} addresses are recorded after {phase}, not {expected}"
    return figures


class _Cost:
    """From here to `per`: CPU time by process, and what the peer counts."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._cpu, self._counted = _cpu(peer), peer.counters()

    def per(self, requests: int) -> dict[str, Any]:
        cpu = {name: (used - self._cpu[name]) / requests * 1000 for name, used in _cpu(self._peer).items()}
        counted = self._peer.counters()
        return {
            "cpu_ms": sum(cpu.values()),
            "cpu_ms_by": cpu,
            **{name: (value - self._counted[name]) / requests for name, value in counted.items()},
        }


def _cpu(peer: Peer) -> dict[str, float]:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {"plugin": children.ru_utime + children.ru_stime, **cpu_by_name(peer.processes())}
