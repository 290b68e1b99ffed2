"""The takeover from Spiderpool on two nodes, by the commands of its page: there, back, and there again.

Kubelets and containerd start and end pods of two interfaces all along, attached by the real Multus. Spiderpool's programs are
its own where SPIDERPOOL_ASSETS names them; else its agent is played, as pods, and its controller does nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.churn import Churn
from tests.cluster.cluster import Cluster
from tests.cluster.deployment import CONFLIST, POOL, VALUES, deploy, helm, records, release, workload
from tests.cluster.pages import fences, run, shows, write_programs
from tests.cluster.pod_logs import NAMESPACE as OURS
from tests.cluster.spiderpool import NETWORKS, PEERS, Spiderpool
from tests.cluster.watch import Watch, addresses_of, running, wait_running
from tests.support import blocks
from tests.tools import multus
from tests.tools.gomodule import ROOT, ProgramMissing

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(1800)]

PAGE = ROOT / "docs" / "en" / "takeover-spiderpool.md"
STAYING, CHURNING, KEPT = 3, 4, 1
COMMAND = "orbweaver takeover --from spiderpool"


@pytest.fixture(scope="module")
def theirs(deployed: Cluster, image_archive: Path) -> Iterator[Spiderpool]:
    """The cluster with Spiderpool in our place; afterwards it is as it was."""
    try:
        multus.plugin()
    except ProgramMissing as missing:
        pytest.skip(str(missing))
    deployed.wait("nothing is recorded any more", lambda: records(deployed) == [])
    deployed.kubectl("delete", "spiderippool", POOL["metadata"]["name"], "--timeout=180s")
    deployed.kubectl("delete", "spidercoordinators", "--all", "--timeout=60s")
    uninstall(deployed)
    installed = Spiderpool.choose(deployed)
    deployed.call("ip", "addr", "add", f"{PEERS['net1']}/16", "dev", "br0")
    try:
        installed.install()
        yield installed
    finally:
        put_back(installed, image_archive)


def put_back(theirs: Spiderpool, image_archive: Path) -> None:
    """Take Spiderpool off, and bring Orbweaver back."""
    cluster = theirs.cluster
    cluster.kubectl("delete", "deployments,statefulsets,pods", "--all", "--timeout=180s")
    cluster.wait("nothing is recorded any more", lambda: records(cluster) == [], 120)
    theirs.uninstall()
    uninstall(cluster)
    cluster.call("ip", "addr", "del", f"{PEERS['net1']}/16", "dev", "br0")
    for node in cluster.nodes.values():
        node.configure(CONFLIST)
    deploy(cluster, image_archive)


def uninstall(cluster: Cluster) -> None:
    with helm(cluster) as asked:
        asked.ask("uninstall", timeout=300, wait="watcher", **release(cluster))


def pods_of_two(kind: str, name: str, replicas: int) -> dict[str, Any]:
    obj = workload(kind, name, replicas)
    obj["spec"]["template"]["metadata"]["annotations"] = {"k8s.v1.cni.cncf.io/networks": NETWORKS}
    return obj


def application() -> dict[str, Any]:
    """One whose pods get a pool of their own out of a subnet."""
    obj = workload("Deployment", "app", 2)
    obj["spec"]["template"]["metadata"]["annotations"] = {
        "ipam.spidernet.io/subnet": '{"ipv4": ["floor"]}',
        "ipam.spidernet.io/ippool-ip-number": "+1",
    }
    return obj


def recorded_ours(cluster: Cluster) -> dict[str, str]:
    recorded = blocks.recorded(cluster.items("spideripblocks"))
    return {address: record.get("uid", "") for address, record in recorded.items()}


def recorded_theirs(cluster: Cluster) -> dict[str, str]:
    entries: dict[str, str] = {}
    for pool in cluster.items("spiderippools"):
        allocated = json.loads((pool.get("status") or {}).get("allocatedIPs") or "{}")
        entries |= {address: entry["podUid"] for address, entry in allocated.items()}
    return entries


def prove_ours(cluster: Cluster) -> None:
    """What runs is recorded for its pod, and nothing else is."""
    wait_running(cluster)
    cluster.wait("what is recorded is what runs", lambda: recorded_ours(cluster) == running(cluster))


def prove_theirs(theirs: Spiderpool) -> None:
    """What runs stands in pools and endpoints. What a pod that ended meanwhile has there still is for Spiderpool's controller
    to free, where there is one."""
    cluster = theirs.cluster
    wait_running(cluster)

    def stands() -> bool:
        entries, wanted = recorded_theirs(cluster), running(cluster)
        return entries == wanted if theirs.is_real else wanted.items() <= entries.items()

    cluster.wait("the pools say what runs", stands)
    assert cluster.items("spideripblocks") == []
    shown = {
        entry["ipv4"].partition("/")[0]: obj["status"]["current"]["uid"]
        for obj in cluster.items("spiderendpoints")
        for entry in obj["status"]["current"]["ips"]
    }
    assert running(cluster).items() <= shown.items()


def prove_gone(theirs: Spiderpool) -> None:
    """The SpiderEndpoints of our pods go with their pods."""
    cluster = theirs.cluster
    before = {pod["metadata"]["name"] for pod in cluster.items("pods", "-l", "app=churn")}
    cluster.kubectl("delete", "pods", "-l", "app=churn")
    wait_running(cluster)
    cluster.wait(
        "the endpoints of pods that ended are gone",
        lambda: not before & {obj["metadata"]["name"] for obj in cluster.items("spiderendpoints")},
    )


def test_the_page_there_and_back_and_there_again(theirs: Spiderpool) -> None:
    cluster = theirs.cluster
    programs = write_programs(
        cluster, {key: value for key, value in VALUES.items() if key != "clusterDefaultPool"}
    )
    cluster.apply(
        pods_of_two("Deployment", "stay", STAYING),
        pods_of_two("Deployment", "churn", CHURNING),
        pods_of_two("StatefulSet", "web", KEPT),
    )
    if theirs.is_real:
        cluster.apply(application())
    prove_theirs_first(theirs)
    web = addresses_of(cluster.get("pod", "web-0"))
    printed = ""
    with Watch(cluster, "stay", PEERS) as watch:
        for language, text in fences(PAGE):
            if language == "sh":
                printed = carried_out(theirs, programs, text)
            elif language == "text":
                assert shows(text, printed), printed
        printed = carried_out(theirs, programs, f"{COMMAND} --yes\n")
        assert watch.rounds
    assert addresses_of(cluster.get("pod", "web-0")) == web
    cluster.kubectl("delete", "pod", "web-0")
    prove_ours(cluster)
    assert addresses_of(cluster.get("pod", "web-0")) == web


def prove_theirs_first(theirs: Spiderpool) -> None:
    wait_running(theirs.cluster)
    theirs.cluster.wait(
        "the pools say what runs", lambda: recorded_theirs(theirs.cluster) == running(theirs.cluster)
    )


def carried_out(theirs: Spiderpool, programs: Path, commands: str) -> str:
    """What commands of the page print. While one swaps the two, pods come and go; afterwards it is judged."""
    cluster = theirs.cluster
    if "--yes" not in commands:
        return run(cluster, programs, commands)
    with Churn(cluster, "churn", CHURNING) as churn:
        churn.wait(1)
        printed = run(cluster, programs, commands)
        churn.wait(2)
    print(printed)
    if "--back" in commands:
        prove_theirs(theirs)
        prove_gone(theirs)
    else:
        prove_ours(cluster)
        assert not cluster.items("pods", "-n", "kube-system", "-l", "app.kubernetes.io/name=spiderpool")
    assert ready(cluster, OURS) == ("--back" not in commands)
    return printed


def ready(cluster: Cluster, namespace: str) -> bool:
    """Whether agents of ours run on every node."""
    agents = cluster.get("daemonset", "orbweaver-agent", "-n", namespace)
    return bool(agents["status"].get("numberReady", 0) == len(cluster.nodes))
