"""The coordinator beside the reference plugin `macvlan`: pods that all start at once on one node.

    python tests/bench/dataplane_bench.py DIRECTORY CNI_BIN ROUNDS     in a sandbox that `measure` makes

In each round every pod gets a namespace, an ADD of macvlan (with host-local), and then an ADD of the coordinator behind
it, each plugin for all pods at once; then both DELs. What must always hold: a figure counts only if every call
succeeded and nothing is left on the host afterwards.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import threading
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# The package that is measured is the installed one; of the checkout only tests/ is wanted.
sys.path.append(str(Path(__file__).resolve().parents[2]))

from cni.command.sandbox import lay_cable, run
from tests.bench.load import execute, spread
from tests.bench.processes import cpu_seconds
from tests.support.agent_process import AgentProcess
from tests.support.stories import sandbox_command

PODS = 200
_SERVICES = ["10.96.0.0/12"]


class SandboxMissing(Exception):
    """This user may not make network namespaces here."""


def measure(directory: Path, plugins: Path, rounds: int) -> dict[str, Any]:
    """Medians over the rounds, milliseconds. Raises `SandboxMissing`."""
    sandbox = sandbox_command()
    probe = subprocess.run([*sandbox, "true"], capture_output=True, text=True, check=False)
    if probe.returncode != 0:
        raise SandboxMissing(probe.stderr.strip())
    directory.mkdir()
    command = [*sandbox, sys.executable, __file__, str(directory), str(plugins), str(rounds)]
    found = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    return {
        plugin: {
            command: {key: statistics.median(one[plugin][command][key] for one in found) for key in figures}
            for command, figures in commands.items()
        }
        for plugin, commands in found[0].items()
    }


def print_table(found: dict[str, Any]) -> None:
    print(f"\ncoordinator beside macvlan: {PODS} pods at once")
    print(f"  {'':24}{'p50 ms':>9}{'p99 ms':>9}{'CPU ms':>9}   a request")
    for command in ("ADD", "DEL"):
        for plugin, figures in found.items():
            row = figures[command]
            print(f"  {command} {plugin:20}{row['p50']:9.0f}{row['p99']:9.0f}{row['cpu_ms']:9.2f}")


def main() -> None:
    directory, plugins, rounds = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    lay_cable("uplink0")
    run("ip", "addr", "add", "10.16.0.2/16", "dev", "uplink0")
    with AgentProcess(directory / "agent", "--timeout", "120") as agent:
        _round(agent, plugins, directory / "warm", 4)
        found = [_round(agent, plugins, directory / str(number), PODS) for number in range(rounds)]
    print(json.dumps(found))


def _round(agent: AgentProcess, plugins: Path, directory: Path, pods: int) -> dict[str, dict[str, Any]]:
    span = {
        "subnet": "10.16.0.0/16",
        "rangeStart": "10.16.1.0",
        "rangeEnd": "10.16.1.250",
        "gateway": "10.16.0.1",
    }
    base = {"cniVersion": "1.0.0", "name": "bench"}
    ipam = {"type": "host-local", "ranges": [[span]], "dataDir": str(directory)}
    macvlan = {**base, "type": "macvlan", "master": "uplink0", "ipam": ipam}
    coordinator = {**base, **agent.ipam, "type": "coordinator", "serviceCIDR": _SERVICES}
    programs = {"macvlan": (plugins, macvlan), "coordinator": (agent.plugins, coordinator)}
    containers = [uuid.uuid4().hex + uuid.uuid4().hex for _ in range(pods)]
    links = run("ip", "-br", "link")
    for container in containers:
        run("ip", "netns", "add", container[:16])
    figures: dict[str, dict[str, Any]] = {plugin: {} for plugin in programs}
    previous: dict[str, Any] = {}
    for command, order in (("ADD", ("macvlan", "coordinator")), ("DEL", ("coordinator", "macvlan"))):
        for plugin in order:
            place, conf = programs[plugin]
            before = _cpu(agent)
            answers = _all_at_once(place, plugin, command, conf, containers, previous)
            figures[plugin][command] = {
                **spread([seconds for seconds, _ in answers]),
                "cpu_ms": (_cpu(agent) - before) / pods * 1000,
            }
            if plugin == "macvlan" and command == "ADD":
                previous = {
                    container: json.loads(out)
                    for container, (_, out) in zip(containers, answers, strict=True)
                }
    for container in containers:
        run("ip", "netns", "del", container[:16])
    assert run("ip", "-br", "link") == links, "something stayed behind"
    return figures


def _all_at_once(
    place: Path,
    plugin: str,
    command: str,
    conf: dict[str, Any],
    containers: Sequence[str],
    previous: dict[str, Any],
) -> list[tuple[float, bytes]]:
    answers: list[Any] = [None] * len(containers)
    start = threading.Barrier(len(containers))

    def call(number: int, container: str) -> None:
        environment = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": container,
            "CNI_NETNS": f"/run/netns/{container[:16]}",
            "CNI_IFNAME": "eth0",
            "CNI_PATH": str(place),
            "CNI_ARGS": f"IgnoreUnknown=1;K8S_POD_NAMESPACE=bench;K8S_POD_NAME=pod-{container[:16]}",
        }
        given = {**conf, "prevResult": previous[container]} if container in previous else conf
        start.wait()
        answers[number] = execute(place / plugin, environment, json.dumps(given).encode())

    threads = [threading.Thread(target=call, args=one, daemon=True) for one in enumerate(containers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    failed = [one for one in answers if one is None or one.status != 0]
    assert not failed, f"{len(failed)} of {len(containers)} {plugin} {command} failed: {failed[0]}"
    return [(one.seconds, one.output) for one in answers]


def _cpu(agent: AgentProcess) -> float:
    """Seconds of the programs that ended, of the agent and of its workers."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    children = Path(f"/proc/{agent.pid}/task").glob("*/children")
    workers = [int(pid) for file in children for pid in file.read_text().split()]
    return ended.ru_utime + ended.ru_stime + sum(map(cpu_seconds, (agent.pid, *workers)))


if __name__ == "__main__":
    main()
