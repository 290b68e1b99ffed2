"""Pods of two interfaces that all start at once on one node: the plugin `orbweaver-networks`, and beside it `cnitool`, which
attaches each pod to the same two networks, one after the other.

    python tests/bench/networks_bench.py [PODS [ROUNDS]]     as root

In each round every pod gets a namespace, both interfaces (macvlan, addresses from Orbweaver) and its end, once in each way.
What must always hold: a figure counts only if every call succeeded and nothing is left afterwards; both ways run the same
two programs with the same configurations, in the same run.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

# The package that is measured is the installed one; of the checkout only tests/ is wanted.
sys.path.append(str(Path(__file__).resolve().parents[2]))

from actors.store.sqlite.store import SQLiteStore
from cni import shim
from cni.command.sandbox import lay_cable, run
from cni.networks.network_list import NAME
from tests.bench.load import execute, spread
from tests.support.agent_process import AgentProcess, pool
from tests.support.stories import SANDBOX
from tests.tools import reference

_INSIDE = "ORBWEAVER_BENCH_INSIDE"
_UPLINK = "uplink0"
_WAYS = (NAME, "cnitool twice")


def main() -> None:
    pods, rounds = (int(word) for word in (*sys.argv[1:], "200", "2")[:2])
    if _INSIDE not in os.environ:
        sys.exit(
            subprocess.run(
                [*SANDBOX, sys.executable, *sys.argv], env={**os.environ, _INSIDE: "1"}, check=False
            ).returncode
        )
    with tempfile.TemporaryDirectory() as directory:
        _measure(Path(directory), pods, rounds)


def _measure(directory: Path, pods: int, rounds: int) -> None:
    lay_cable(_UPLINK)
    conf = directory / "conf.yml"
    conf.write_text(json.dumps({"networks": {"enabled": True}}))
    options = ("--timeout", "120", "--config", str(conf), "--networks-cache", str(directory / "notes"))
    agent = AgentProcess(directory / "agent", *options)
    shim.install(agent.plugins, [NAME])
    store = SQLiteStore(agent.data)
    store.create(pool("blue", "10.6.0.0/16", "10.6.1.0-10.6.9.255"))
    store.create(pool("red", "10.7.0.0/16", "10.7.1.0-10.7.9.255", default=False))
    networks = {name: _network(agent, name) for name in ("blue", "red")}
    nets = directory / "net.d"
    nets.mkdir()
    for name, network in networks.items():
        (nets / f"{name}.conflist").write_text(json.dumps(network))
        metadata = {"name": name, "namespace": "bench"}
        kind = {"apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition"}
        store.create({**kind, "metadata": metadata, "spec": {"config": json.dumps(network)}})
    found: dict[str, list[dict[str, dict[str, float]]]] = {way: [] for way in _WAYS}
    with agent:
        for number in range(rounds + 1):
            for way, play in ((NAME, _by_networks), (_WAYS[1], _by_cnitool)):
                figures = _round(agent, store, play, networks, nets, pods if number else 4)
                if number:  # the first is to warm up
                    found[way].append(figures)
    print(f"pods of two interfaces: {pods} at once, {rounds} rounds, load {os.getloadavg()[0]:.0f}")
    print(f"  {'':24}{'p50 ms':>9}{'p99 ms':>9}{'CPU ms':>9}   a pod")
    for command in ("ADD", "DEL"):
        for way, several in found.items():
            row = {
                key: statistics.median(one[command][key] for one in several)
                for key in ("p50", "p99", "cpu_ms")
            }
            print(f"  {command} {way:20}{row['p50']:9.0f}{row['p99']:9.0f}{row['cpu_ms']:9.1f}")


def _network(agent: AgentProcess, name: str) -> dict[str, Any]:
    ipam = {**agent.ipam, "default_ipv4_ippool": [name]}
    macvlan = {"type": "macvlan", "master": _UPLINK, "mode": "bridge", "ipam": ipam}
    return {"cniVersion": "1.0.0", "name": name, "plugins": [macvlan]}


def _round(
    agent: AgentProcess,
    store: SQLiteStore,
    play: Callable[..., float],
    networks: dict[str, Any],
    nets: Path,
    pods: int,
) -> dict[str, dict[str, float]]:
    names = [uuid.uuid4().hex[:12] for _ in range(pods)]
    for name in names:
        run("ip", "netns", "add", name)
        annotations = {"k8s.v1.cni.cncf.io/networks": "red"}
        metadata = {"name": name, "namespace": "bench", "annotations": annotations}
        store.create({"apiVersion": "v1", "kind": "Pod", "metadata": metadata})
    figures = {}
    for command in ("ADD", "DEL"):
        before = _cpu(agent)
        seconds = _all_at_once(names, partial(play, agent, networks, nets, command))
        figures[command] = {**spread(seconds), "cpu_ms": (_cpu(agent) - before) / pods * 1000}
    assert agent.records() == {}, "something is still recorded"
    for name in names:
        run("ip", "netns", "del", name)
        store.delete("Pod", name, "bench")
    return figures


def _by_networks(agent: AgentProcess, networks: dict[str, Any], nets: Path, command: str, name: str) -> float:
    conf = {
        "cniVersion": "1.0.0",
        "name": "node",
        "type": NAME,
        "delegates": [networks["blue"]],
        "ipam_unix_socket_path": str(agent.socket),
    }
    environment = {
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": f"c-{name}",
        "CNI_NETNS": f"/run/netns/{name}",
        "CNI_IFNAME": "eth0",
        "CNI_PATH": f"{reference.cni_bin()}:{agent.plugins}",
        "CNI_ARGS": f"IgnoreUnknown=1;K8S_POD_NAMESPACE=bench;K8S_POD_NAME={name}",
    }
    answer = execute(agent.plugins / NAME, environment, json.dumps(conf).encode())
    assert answer.status == 0, answer.output
    return answer.seconds


def _by_cnitool(agent: AgentProcess, networks: dict[str, Any], nets: Path, command: str, name: str) -> float:
    environment = {
        "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin",
        "NETCONFPATH": str(nets),
        "CNI_PATH": f"{reference.cni_bin()}:{agent.plugins}",
        "CNI_ARGS": f"IgnoreUnknown=1;K8S_POD_NAMESPACE=bench;K8S_POD_NAME={name}",
    }
    started = time.perf_counter()
    order = (("eth0", "blue"), ("net1", "red"))
    for interface, network in order if command == "ADD" else reversed(order):
        done = subprocess.run(
            [reference.cnitool(), command.lower(), network, f"/run/netns/{name}"],
            env={**environment, "CNI_IFNAME": interface},
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    return time.perf_counter() - started


def _all_at_once(names: Sequence[str], call: Callable[[str], float]) -> list[float]:
    seconds: dict[str, float] = {}
    start = threading.Barrier(len(names))

    def begin(name: str) -> None:
        start.wait()
        seconds[name] = call(name)

    threads = [threading.Thread(target=begin, args=(name,), daemon=True) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seconds) == len(names), f"{len(names) - len(seconds)} of {len(names)} failed"
    return list(seconds.values())


def _cpu(agent: AgentProcess) -> float:
    """Seconds of the programs that ended, here and under the agent, and of the agent itself; not of this bench."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    fields = Path(f"/proc/{agent.pid}/stat").read_text().rpartition(")")[2].split()
    ticks = sum(int(field) for field in fields[11:15])  # its own, and of its children that ended (proc(5))
    return ended.ru_utime + ended.ru_stime + ticks / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
