"""A cluster of two nodes to try Orbweaver on: the image built, the chart installed, two pods with addresses.

./try cluster          and it stays until Ctrl-C
./try cluster --once   and it ends; what it took is printed
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence

from tests.cluster import programs
from tests.cluster.cluster import Cluster
from tests.cluster.deployment import deploy, pods, workload
from tests.cluster.processes import ClusterFailed
from tests.tools import image
from tests.tools.gomodule import ProgramMissing


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="./try cluster", description="Start a cluster with Orbweaver on it."
    )
    parser.add_argument("--once", action="store_true", help="end when pods have addresses")
    once = parser.parse_args(arguments).once
    began = float(os.environ.get("ORBWEAVER_BEGAN") or time.time())
    asked_to_end = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: asked_to_end.set())
    try:
        found = programs.find()
        archive = image.archive()
    except ProgramMissing as missing:
        print(f"try: there can be no cluster here: {missing}", file=sys.stderr)
        return 1
    tell(began, "the image is there")
    cluster = Cluster(found)
    try:
        cluster.start()
        tell(began, "two nodes are there")
        deploy(cluster, archive)
        tell(began, "the chart is installed, and the nodes are Ready")
        cluster.apply(workload("Deployment", "web", 2))
        cluster.wait("a pod runs", lambda: bool(pods(cluster, "web")))
        tell(began, "the first pod has its address")
        cluster.wait("both pods run", lambda: len(pods(cluster, "web")) == 2)
        print(cluster.kubectl("get", "pods", "-A", "-o", "wide"))
        print(cluster.kubectl("get", "sp"))
        if not once:
            words = f"nsenter --net=/run/netns/{cluster.netns} {found.kubectl} --kubeconfig {cluster.kubeconfig('admin')}"
            print(f"kubectl here is:\n\n  alias k='{words}'\n\nCtrl-C ends it.", flush=True)
            asked_to_end.wait()
    except ClusterFailed as failed:
        print(f"try: {failed}", file=sys.stderr)
        return 1
    finally:
        cluster.stop()
    return 0


def tell(began: float, what: str) -> None:
    """A line with the time since the command."""
    print(f"{time.time() - began:6.1f} s  {what}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
