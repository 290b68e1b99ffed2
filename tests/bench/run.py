"""`tox -e bench`: the figures, as a table and as JSON.

Everything that is compared runs in this one run, in turns, because machines differ from hour to hour and only
ratios hold. Scenario A: one ADD after the other. B: 32 at once, as many addresses as pods. Each is followed by the
DELs of the same containers. Shim: the start of the CNI program alone, over that of /bin/true.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

# The package that is measured is the installed one; of the checkout only tests/ is wanted.
sys.path.append(str(Path(__file__).resolve().parents[2]))

from tests.bench.load import Load, execute, new_containers, spread
from tests.bench.peers import HostLocal, Peer, orbweaver
from tests.bench.runtime_bench import measure
from tests.tools.reference import cni_bin

STARTS = 300


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--out", type=Path, default=Path("bench.json"), help="where the JSON goes (%(default)s)"
    )
    parser.add_argument(
        "--rounds", type=int, default=3, help="of each scenario; medians are reported (%(default)s)"
    )
    parser.add_argument(
        "--pods", type=int, default=1000, help="of scenario B; A has a fifth of it (%(default)s)"
    )
    parser.add_argument("--skip-runtime", action="store_true", help="leave the actor runtime's figures out")
    chosen = parser.parse_args()
    result: dict[str, Any] = {"machine": platform.machine(), "python": platform.python_version()}
    with tempfile.TemporaryDirectory(prefix="orbweaver-bench-") as name:
        directory = Path(name)
        result["shim"] = _starts(directory)
        result["scenarios"] = {
            "A": _scenario(directory, chosen.rounds, chosen.pods // 5, size=chosen.pods, width=1),
            "B": _scenario(directory, chosen.rounds, chosen.pods, size=chosen.pods, width=32),
        }
    if not chosen.skip_runtime:
        result["runtime"] = measure()
    chosen.out.write_text(json.dumps(result, indent=1) + "\n")
    _print(result)
    return 0


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


def _scenario(directory: Path, rounds: int, pods: int, *, size: int, width: int) -> dict[str, Any]:
    runs: dict[str, list[dict[str, Any]]] = {"host-local": [], "orbweaver": []}
    for _ in range(rounds):
        host_local = HostLocal(cni_bin() / "host-local", directory / "host-local", size)
        runs["host-local"].append(_round(host_local, pods, width))
        with ExitStack() as stack:
            runs["orbweaver"].append(
                _round(stack.enter_context(orbweaver(directory / "orbweaver", size)), pods, width)
            )
    return {
        "pods": pods,
        "pool": size,
        "at_once": width,
        **{peer: {phase: _median(runs[peer], phase) for phase in ("ADD", "DEL")} for peer in runs},
        "runs": runs,
    }


def _round(peer: Peer, pods: int, width: int) -> dict[str, Any]:
    load = Load(peer.program, peer.conf)
    containers = new_containers(pods)
    figures: dict[str, Any] = {}
    for phase, left in (("ADD", pods), ("DEL", 0)):
        server, children = peer.server_cpu(), _children()
        figures[phase] = load.phase(phase, containers, width)
        figures[phase]["cpu_ms"] = (peer.server_cpu() - server + _children() - children) / pods * 1000
        recorded = peer.count()
        assert recorded == left, f"{peer.name} has {recorded} addresses recorded after {phase}, not {left}"
    return figures


def _children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _median(runs: list[dict[str, Any]], phase: str) -> dict[str, float]:
    return {key: statistics.median(run[phase][key] for run in runs) for key in runs[0][phase]}


def _print(result: dict[str, Any]) -> None:
    starts = result["shim"]
    print("start of the program alone      p50 ms   over /bin/true")
    for program, figures in starts.items():
        print(f"  {program:28}{figures['p50']:8.2f}{figures['p50'] - starts['/bin/true']['p50']:12.2f}")
    for name, scenario in result["scenarios"].items():
        print(
            f"\nscenario {name}: {scenario['pods']} pods, {scenario['at_once']} at once, pool of {scenario['pool']}"
        )
        print(f"  {'':24}{'p50 ms':>9}{'p99 ms':>9}{'per s':>9}{'CPU ms':>9}")
        for phase in ("ADD", "DEL"):
            for peer in ("host-local", "orbweaver"):
                row = scenario[peer][phase]
                print(
                    f"  {phase} {peer:20}{row['p50']:9.2f}{row['p99']:9.2f}{row['per_second']:9.0f}{row['cpu_ms']:9.2f}"
                )
            print(f"  {phase} orbweaver / host-local: {_ratios(scenario, phase)}")
    if "runtime" in result:
        print("\nactor runtime\n" + json.dumps(result["runtime"], indent=1))


def _ratios(scenario: dict[str, Any], phase: str) -> str:
    ours, theirs = scenario["orbweaver"][phase], scenario["host-local"][phase]
    p50, throughput = (ours[key] / theirs[key] for key in ("p50", "per_second"))
    return f"p50 {p50:.2f}, throughput {throughput:.2f}"


if __name__ == "__main__":
    sys.exit(main())
