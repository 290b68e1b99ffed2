"""`tox -e bench`: the figures, as a table and as JSON.

Everything that is compared runs in this one run, in turns, because machines differ from hour to hour and only
ratios hold: h is host-local's throughput in scenario B of the same run. The scenarios are in `scenarios.py`. Shim: the
start of the CNI program alone, over that of /bin/true. Footprint: memory, and the time until an agent serves.
The coordinator: pods of one node at once, beside the reference plugin `macvlan` (`dataplane_bench.py`).
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import tempfile
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import Any, TextIO

# The package that is measured is the installed one; of the checkout only tests/ is wanted.
sys.path.append(str(Path(__file__).resolve().parents[2]))

from tests.bench import dataplane_bench
from tests.bench.cluster_peers import ClusterPeers, cluster_peers
from tests.bench.footprint import footprint
from tests.bench.load import execute, spread
from tests.bench.peers import HostLocal, Peer, orbweaver
from tests.bench.runtime_bench import measure
from tests.bench.scenarios import Scenario, play, scenarios
from tests.tools.gomodule import ProgramMissing
from tests.tools.reference import cni_bin

STARTS = 300
HOST_LOCAL, EMBEDDED, AGENTS, LEADER = "host-local", "embedded", "agents alone", "with a leader"

Runs = dict[str, dict[str, list[dict[str, dict[str, Any]]]]]
"""Scenario, peer, and for each round the figures of ADD and DEL."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--out", type=Path, default=Path("bench.json"), help="where the JSON goes (%(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=3, help="medians are reported (%(default)s)")
    parser.add_argument(
        "--pods", type=int, default=1000, help="of scenarios B, C and D; A has a fifth of it (%(default)s)"
    )
    parser.add_argument("--seconds", type=float, default=10.0, help="of scenarios E and E8 (%(default)s)")
    parser.add_argument("--only", default="", help="scenarios by letter, such as A,C; all by default")
    parser.add_argument("--peers", default="", help=f"some of: {HOST_LOCAL}, {EMBEDDED}, {AGENTS}, {LEADER}")
    parser.add_argument("--skip-runtime", action="store_true", help="leave the actor runtime's figures out")
    parser.add_argument(
        "--skip-coordinator", action="store_true", help="leave the coordinator beside macvlan out"
    )
    parser.add_argument("--skip-footprint", action="store_true", help="leave memory and start-up out")
    chosen = parser.parse_args()
    asked = scenarios(chosen.pods, chosen.seconds)
    if chosen.only:
        asked = {name: asked[name] for name in chosen.only.split(",")}
    peers = [one.strip() for one in chosen.peers.split(",")] if chosen.peers else None
    result: dict[str, Any] = {"machine": platform.machine(), "python": platform.python_version()}
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="orbweaver-bench-")))
        try:
            cluster = stack.enter_context(cluster_peers())
        except ProgramMissing as missing:
            cluster = None
            print(f"! SKIPPED: the Kubernetes store: {missing}", file=sys.stderr)
        result["shim"] = _starts(directory)
        runs: Runs = {}
        unit = scenarios(chosen.pods, chosen.seconds)["B"]
        for number in range(chosen.rounds):
            if not {"B"} & asked.keys() or (peers is not None and HOST_LOCAL not in peers):
                _round(runs, {"B": unit}, [HOST_LOCAL], directory, None)  # h is always of the same run
            _round(runs, asked, peers, directory, cluster)
            print(f"round {number + 1} of {chosen.rounds} done", file=sys.stderr)
        result["scenarios"] = {
            name: {
                peer: {phase: _median(rounds, phase) for phase in ("ADD", "DEL")}
                for peer, rounds in of_peers.items()
            }
            for name, of_peers in runs.items()
        }
        if cluster is not None and not chosen.skip_footprint:
            result["footprint"] = footprint(cluster, directory / "footprint", chosen.rounds)
        if not chosen.skip_coordinator:
            try:
                result["coordinator"] = dataplane_bench.measure(
                    directory / "coordinator", cni_bin(), chosen.rounds
                )
            except dataplane_bench.SandboxMissing as missing:
                print(f"! SKIPPED: the coordinator: {missing}", file=sys.stderr)
    if not chosen.skip_runtime:
        result["runtime"] = measure()
    result["runs"] = runs
    chosen.out.write_text(json.dumps(result, indent=1) + "\n")
    _print(result)
    return 0


def _round(
    runs: Runs,
    asked: dict[str, Scenario],
    peers: list[str] | None,
    directory: Path,
    cluster: ClusterPeers | None,
) -> None:
    for name, scenario in asked.items():
        for peer, ready in _ready(scenario, directory, cluster).items():
            if peers is None or peer in peers:
                with ready as one:
                    figures = play(one, scenario)
                    runs.setdefault(name, {}).setdefault(peer, []).append(figures)
                for phase, row in figures.items():
                    _row(f"{name} {phase} {peer}", row, None, sys.stderr)


def _ready(
    scenario: Scenario, directory: Path, cluster: ClusterPeers | None
) -> dict[str, AbstractContextManager[Peer]]:
    """The peers that a scenario is for, each made when it is entered."""
    found: dict[str, AbstractContextManager[Peer]] = {}
    if scenario.agents == 1:
        if not scenario.churn:
            found[HOST_LOCAL] = nullcontext(
                HostLocal(cni_bin() / "host-local", directory / "host-local", scenario.size)
            )
        found[EMBEDDED] = orbweaver(directory / "embedded", scenario.size)
    if cluster is not None:
        for peer in (AGENTS, LEADER):
            place = directory / peer.replace(" ", "-")
            found[peer] = cluster.agents(
                place, scenario.agents, scenario.size, used=scenario.used, controller=peer == LEADER
            )
    return found


def _starts(directory: Path) -> dict[str, Any]:
    """VERSION of the shim, which needs no agent, and of host-local, beside /bin/true, one of each in turn."""
    from cni import shim

    shim.install(directory / "starts", names=("spiderpool",))
    programs = {"/bin/true": Path("/bin/true"), "host-local": cni_bin() / "host-local"}
    programs["shim"] = directory / "starts" / "spiderpool"
    times: dict[str, list[float]] = {program: [] for program in programs}
    for _ in range(STARTS):
        for program, path in programs.items():
            answer = execute(path, {"CNI_COMMAND": "VERSION"}, b'{"cniVersion":"1.0.0"}')
            assert answer.status == 0, (program, answer)
            times[program].append(answer.seconds)
    return {program: spread(seconds) for program, seconds in times.items()}


def _median(rounds: list[dict[str, dict[str, Any]]], phase: str) -> dict[str, Any]:
    """Of each number; of what failed, the sum."""
    figures = [one[phase] for one in rounds]
    result: dict[str, Any] = {}
    for key, value in figures[0].items():
        if key in ("failed", "refused_while_free", "left"):
            result[key] = sum(one[key] for one in figures)
        elif key == "errors":
            result[key] = sorted({text for one in figures for text in one[key]})
        elif isinstance(value, dict):
            result[key] = {name: statistics.median(one[key][name] for one in figures) for name in value}
        else:
            result[key] = statistics.median(one[key] for one in figures)
    return result


def _print(result: dict[str, Any]) -> None:
    starts = result["shim"]
    print("start of the program alone      p50 ms   over /bin/true")
    for program, figures in starts.items():
        print(f"  {program:28}{figures['p50']:8.2f}{figures['p50'] - starts['/bin/true']['p50']:12.2f}")
    found = result["scenarios"]
    unit = found.get("B", {}).get(HOST_LOCAL, {}).get("ADD", {}).get("per_second")
    head = (
        f"{'p50':>9}{'p99':>9}{'per s':>8}{'h':>7}{'CPU ms':>8}{'failed':>8}{'left':>6}{'API':>7}{'etcd':>8}"
    )
    for name, peers in found.items():
        print(f"\nscenario {name:30}{head}   CPU ms by process")
        for phase in ("ADD", "DEL"):
            for peer, figures in peers.items():
                _row(f"{phase} {peer}", figures[phase], unit)
        if HOST_LOCAL in peers:
            for peer in peers:
                ours, theirs = (peers[one]["ADD"] for one in (peer, HOST_LOCAL))
                print(f"  ADD p50 of {peer} / host-local: {ours['p50'] / theirs['p50']:.2f}")
    if "coordinator" in result:
        dataplane_bench.print_table(result["coordinator"])
    for key in ("footprint", "runtime"):
        if key in result:
            print(f"\n{key}\n{json.dumps(result[key], indent=1)}")


def _row(title: str, row: dict[str, Any], unit: float | None, to: TextIO = sys.stdout) -> None:
    parts = [f"  {title:37}{row['p50']:9.2f}{row['p99']:9.2f}{row['per_second']:8.0f}"]
    parts.append(f"{row['per_second'] / unit:7.2f}" if unit else f"{'':7}")
    if "cpu_ms" in row:
        parts.append(f"{row['cpu_ms']:8.2f}{row['failed']:5}/{row['refused_while_free']:<2}{row['left']:6}")
        parts.append(f"{row.get('api_requests', 0):7.2f}{row.get('etcd_bytes', 0):8.0f}")
        parts.append("   " + ", ".join(f"{name} {ms:.1f}" for name, ms in row["cpu_ms_by"].items()))
    print("".join(parts), file=to, flush=True)
    for text in row["errors"]:
        print(f"      failed: {text[:300]}", file=to)


if __name__ == "__main__":
    sys.exit(main())
