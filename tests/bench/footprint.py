"""What an agent needs: memory of all its processes, and the time until it serves."""

from __future__ import annotations

import shutil
import statistics
import time
from pathlib import Path
from typing import Any

from tests.bench.cluster_peers import ClusterPeers
from tests.bench.load import Load, new_pods
from tests.bench.processes import cpu_seconds, memory

PODS_IN_CLUSTER = 2000
PODS_ON_NODE = 100


def footprint(cluster: ClusterPeers, directory: Path, rounds: int) -> dict[str, Any]:
    """`ready_s`: from the start of the process until it answers, with 2,000 pods in the cluster, all with an address;
    `ready_cpu_s`: its CPU time until then. `memory_mib`: with 100 of them on its node, given their address by it."""
    shutil.rmtree(directory, ignore_errors=True)
    others = PODS_IN_CLUSTER - PODS_ON_NODE
    ready, busy = [], []
    with cluster.agents(directory, 1, PODS_IN_CLUSTER + 200, used=others) as peer:
        cluster.make_pods(extra := new_pods(others - len(range(0, others, 40)), 1), "bench-before")
        pods = new_pods(PODS_ON_NODE, 1)
        peer.make_pods(pods)
        load = Load(peer.program, peer.confs, 200)
        load.add_all(pods, 8)
        peer.settle()
        agent = peer.agents[0]
        used = memory(agent.pid)
        for _ in range(rounds):
            agent.stop()
            started = time.monotonic()
            agent.start()
            ready.append(time.monotonic() - started)
            busy.append(cpu_seconds(agent.pid))
        again = memory(agent.pid)
        load.delete_all(pods, 8)
        peer.settle()
        cluster.remove_pods(extra)
    return {
        "ready_s": statistics.median(ready),
        "ready_cpu_s": statistics.median(busy),
        "memory_mib": used,
        "memory_mib_restarted": again,
    }
