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

from tests.bench.cluster_peers import ClusterPeers, cluster_peers
from tests.bench.load import Load, execute, new_containers, spread
from tests.bench.peers import HostLocal, Peer, orbweaver
from tests.bench.runtime_bench import measure
from tests.tools.gomodule import ProgramMissing
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
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="orbweaver-bench-")))
        try:
            cluster = stack.enter_context(cluster_peers())
        except ProgramMissing as missing:
            cluster = None
            print(f"! SKIPPED: the Kubernetes store: {missing}", file=sys.stderr)
        result["shim"] = _starts(directory)
        result["scenarios"] = {
            "A": _scenario(directory, chosen.rounds, chosen.pods // 5, cluster, size=chosen.pods, width=1),
            "B": _scenario(directory, chosen.rounds, chosen.pods, cluster, size=chosen.pods, width=32),
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


def _scenario(
    directory: Path, rounds: int, pods: int, cluster: ClusterPeers | None, *, size: int, width: int
) -> dict[str, Any]:
    runs: dict[str, list[dict[str, Any]]] = {"host-local": [], "orbweaver": []}
    if cluster is not None:
        runs["orbweaver on Kubernetes"] = []
    for _ in range(rounds):
        host_local = HostLocal(cni_bin() / "host-local", directory / "host-local", size)
        runs["host-local"].append(_round(host_local, pods, width))
        with orbweaver(directory / "orbweaver", size) as embedded:
            runs["orbweaver"].append(_round(embedded, pods, width))
        if cluster is not None:
            with cluster.agent(directory / "cluster", size) as peer:
                runs["orbweaver on Kubernetes"].append(_round(peer, pods, width))
    return {
        "pods": pods,
        "pool": size,
        "at_once": width,
        **{peer: {phase: _median(runs[peer], phase) for phase in ("ADD", "DEL")} for peer in runs},
        "runs": runs,
    }


def _round(peer: Peer, pods: int, width: int) -> dict[str, Any]:
    containers = new_containers(pods)
    load = Load(peer.program, peer.conf, peer.make_pods(containers))
    figures: dict[str, Any] = {}
    for phase, left in (("ADD", pods), ("DEL", 0)):
        server, children, before = peer.server_cpu(), _children(), peer.counters()
        figures[phase] = load.phase(phase, containers, width)
        peer.settle()
        figures[phase]["cpu_ms"] = (peer.server_cpu() - server + _children() - children) / pods * 1000
        for name, value in peer.counters().items():
            figures[phase][name] = (value - before[name]) / pods
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
        peers = list(scenario["runs"])
        print(
            f"  {'':28}{'p50 ms':>9}{'p99 ms':>9}{'per s':>9}{'CPU ms':>9}   a request (API requests, etcd bytes)"
        )
        for phase in ("ADD", "DEL"):
            for peer in peers:
                row = scenario[peer][phase]
                print(
                    f"  {phase} {peer:24}{row['p50']:9.2f}{row['p99']:9.2f}{row['per_second']:9.0f}{row['cpu_ms']:9.2f}"
                    + (
                        f"   {row['api_requests']:.2f}, {row['etcd_bytes']:.0f}"
                        if "api_requests" in row
                        else ""
                    )
                )
            for peer in peers[1:]:
                print(f"  {phase} {peer} / host-local: {_ratios(scenario, peer, phase)}")
    if "runtime" in result:
        print("\nactor runtime\n" + json.dumps(result["runtime"], indent=1))


def _ratios(scenario: dict[str, Any], peer: str, phase: str) -> str:
    ours, theirs = scenario[peer][phase], scenario["host-local"][phase]
    p50, throughput = (ours[key] / theirs[key] for key in ("p50", "per_second"))
    return f"p50 {p50:.2f}, throughput {throughput:.2f}"


if __name__ == "__main__":
    sys.exit(main())
