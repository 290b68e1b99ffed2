"""Two checkouts side by side: what a request costs before and after, in turns within one run.

    python -m tests.bench.compare BEFORE AFTER [--only A,B,C] [--rounds 5] [--pods 1000]

Each checkout plays with its own `tests/bench`; the order changes with every round, and host-local plays scenario B in each.
CPU time is what compares on a machine that others use too; times and rates only on a quiet one.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

HOST_LOCAL, EMBEDDED, LEADER = "host-local", "embedded", "leader"
PEERS = {"A": (EMBEDDED, LEADER), "B": (EMBEDDED, LEADER), "C": (LEADER,), "D": (LEADER,)}

Figures = dict[str, dict[str, Any]]
"""Of ADD and DEL, as `tests.bench.scenarios.play` gives them."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("before", type=Path, help="a checkout, with the shim in cni/shim/bin")
    parser.add_argument("after", type=Path)
    parser.add_argument("--only", default="A,B,C", help="scenarios (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="pairs; medians are shown (%(default)s)")
    parser.add_argument("--pods", type=int, default=1000, help="of B, C and D; A has a fifth (%(default)s)")
    chosen = parser.parse_args()
    asked = [(name, peer) for name in chosen.only.split(",") for peer in PEERS[name]]
    found: dict[tuple[str, str, str], list[Figures]] = {}
    with ExitStack() as stack:
        sides = {
            side: stack.enter_context(_player(place, chosen.pods))
            for side, place in (("before", chosen.before), ("after", chosen.after))
        }
        for number in range(chosen.rounds):
            names = list(sides) if number % 2 == 0 else list(sides)[::-1]
            for name, peer in [("B", HOST_LOCAL), *asked]:
                for side in names:
                    figures = _ask(sides[side], name, peer)
                    found.setdefault((name, peer, side), []).append(figures)
                    _show(f"{number + 1} {name} {peer} {side}", [figures])
    for (name, peer, side), rows in found.items():
        _show(f"median {name} {peer} {side}", rows)
    return 0


@contextmanager
def _player(place: Path, pods: int) -> Iterator[subprocess.Popen[str]]:
    """A process that plays in a checkout, with an API server of its own."""
    environment = {**os.environ, "PYTHONPATH": str(place.resolve())}
    process = subprocess.Popen(
        [sys.executable, __file__, str(pods)],
        cwd=place,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", f"the bench of {place} does not start"
        yield process
    finally:
        process.communicate(timeout=120)


def _ask(process: subprocess.Popen[str], name: str, peer: str) -> Figures:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{name} {peer}\n")
    process.stdin.flush()
    figures: Figures = json.loads(process.stdout.readline())
    return figures


def _show(title: str, rows: list[Figures]) -> None:
    for phase in ("ADD", "DEL"):
        of_phase = [row[phase] for row in rows]
        cpu = {
            of: round(statistics.median(row["cpu_ms_by"][of] for row in of_phase), 2)
            for of in of_phase[0]["cpu_ms_by"]
        }
        p50, rate, whole = (
            statistics.median(row[key] for row in of_phase) for key in ("p50", "per_second", "cpu_ms")
        )
        print(f"{title} {phase}: p50 {p50:.2f} ms, {rate:.0f}/s, CPU {whole:.2f} ms {cpu}", flush=True)


def _play(pods: int) -> int:
    """In a checkout: plays what standard input asks for, one line each."""
    # The program's own bench is meant, not the one of this file's checkout.
    sys.path.insert(0, str(Path.cwd()))
    from tests.bench.cluster_peers import cluster_peers
    from tests.bench.peers import HostLocal, orbweaver
    from tests.bench.scenarios import play, scenarios
    from tests.tools.reference import cni_bin

    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="orbweaver-compare-")))
        cluster = stack.enter_context(cluster_peers())
        print("ready", flush=True)
        for line in sys.stdin:
            name, peer = line.split()
            scenario = scenarios(pods, 10.0)[name]
            place = directory / peer
            ready: Any
            if peer == HOST_LOCAL:
                ready = nullcontext(HostLocal(cni_bin() / "host-local", place, scenario.size))
            elif peer == EMBEDDED:
                ready = orbweaver(place, scenario.size)
            else:
                ready = cluster.agents(
                    place, scenario.agents, scenario.size, used=scenario.used, controller=True
                )
            with ready as one:
                print(json.dumps(play(one, scenario)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(_play(int(sys.argv[1])) if len(sys.argv) == 2 and sys.argv[1].isdigit() else main())
