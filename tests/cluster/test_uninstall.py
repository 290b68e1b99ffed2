"""Taking Orbweaver off two nodes: to come back with every address, and to leave nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.deployment import CONFLIST, deploy, helm, install, pods, records, release, workload
from tests.cluster.pod_logs import NAMESPACE
from tests.support.helm import Refused

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(900)]

GROUPS = ("orbweaver", "spider")
NAME = "stays"
OTHERS = (" br-local ", "br-local  ", " cni0 ", "cni0  ", "/var/lib/cni/networks")
"""What the reference plugins bridge and host-local leave on nodes, of other tests' pods."""
NOTES = "/var/lib/cni/results/"
"""Of the runtime, which keeps one for good whose network had another name when its pod ended, as behind a storm."""


@pytest.fixture(scope="module")
def noted_before(deployed: Cluster) -> set[str]:
    """The runtime's notes of other tests' pods."""
    deployed.wait("nothing is recorded any more", lambda: records(deployed) == [])
    return {line for node in deployed.nodes.values() for line in node.changed_state() if NOTES in line}


@pytest.fixture(scope="module")
def taken_off(deployed: Cluster, image_archive: Path, noted_before: set[str]) -> Iterator[Cluster]:
    """The cluster, on which Orbweaver is again at the end."""
    for node in deployed.nodes.values():  # the coordinator leaves more on nodes than the IPAM plugin alone
        node.configure({**CONFLIST, "plugins": [*CONFLIST["plugins"], {"type": "coordinator"}]})
    yield deployed
    deployed.kubectl("delete", "deployment", NAME, "--ignore-not-found", "--timeout=60s")
    if not deployed.items("daemonsets", "-n", NAMESPACE):
        deploy(deployed, image_archive)


def uninstall(cluster: Cluster) -> None:
    with helm(cluster) as asked:
        asked.ask("uninstall", timeout=300, wait="watcher", **release(cluster))


def test_who_installs_it_again_finds_every_address(taken_off: Cluster) -> None:
    """Also the new address that a pod gets is nobody else's."""
    taken_off.apply(workload("Deployment", NAME, 4))
    taken_off.wait("the pods run", lambda: len(pods(taken_off, NAME)) == 4)
    before, recorded = pods(taken_off, NAME), records(taken_off)

    uninstall(taken_off)
    assert pods(taken_off, NAME) == before
    install(taken_off, cleanup=True)

    assert pods(taken_off, NAME) == before
    assert records(taken_off) == recorded
    taken_off.kubectl("scale", "deployment", NAME, "--replicas=5")
    taken_off.wait("the new pod runs", lambda: len(pods(taken_off, NAME)) == 5)
    after = pods(taken_off, NAME)
    assert {name: after[name] for name in before} == before
    assert len({address for _, address, _ in after.values()}) == 5


def test_cleanup_leaves_nothing_and_waits_for_pods(taken_off: Cluster, noted_before: set[str]) -> None:
    """Neither in the cluster nor on its nodes; and nothing goes while a pod has an address."""
    with pytest.raises(Refused):
        uninstall(taken_off)
    said = taken_off.kubectl("-n", NAMESPACE, "logs", "job/orbweaver-uninstall")
    assert "5 addresses are in use" in said
    assert f"by pod default/{NAME}-" in said
    assert len(pods(taken_off, NAME)) == 5
    taken_off.kubectl("delete", "deployment", NAME, "--timeout=60s")
    taken_off.wait("nothing is recorded any more", lambda: records(taken_off) == [])

    assert all("lookup 500" in node.call("ip", "rule") for node in taken_off.nodes.values())

    uninstall(taken_off)

    # Helm waits for what it made, Kubernetes takes away later what came of that.
    taken_off.wait("nothing in the cluster is ours any more", lambda: ours(taken_off) == [])
    for node in taken_off.nodes.values():
        node.unconfigure()
        left = node.changed_state() - noted_before
        left = {line for line in left if not any(word in line for word in OTHERS)}
        assert left == set(), node.name


def ours(cluster: Cluster) -> list[str]:
    """All objects of the cluster that are named as ours, or of our kinds, but for the namespace, which Helm leaves."""
    kinds = cluster.kubectl("api-resources", "--verbs=list", "--output=name", "--cached=false").split()
    counted = ",".join(kind for kind in kinds if not kind.startswith("events"))
    objects = cluster.kubectl("get", counted, "--all-namespaces", "--output=name").split()
    return [
        name for name in objects if any(word in name for word in GROUPS) and name != f"namespace/{NAMESPACE}"
    ]
