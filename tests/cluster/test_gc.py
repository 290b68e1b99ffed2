"""Addresses come back in a real cluster when nobody sends a DEL, and a sandbox that dies leaves nothing behind."""

from __future__ import annotations

import signal
import time

import pytest

from actors.decisions.settings import GCSettings
from tests.cluster.cluster import Cluster
from tests.cluster.deployment import pods, records, workload
from tests.support import blocks

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(1800)]


OWN_DEL = GCSettings().own_del


def recorded(cluster: Cluster) -> dict[str, dict[str, str]]:
    """Address to record, of all blocks."""
    return blocks.recorded(cluster.items("spideripblocks"))


def holds_what_it_runs(cluster: Cluster, name: str, count: int) -> bool:
    """Whether all pods of a workload run, and the log has their addresses and nothing else."""
    running = {address for _, address, _ in pods(cluster, name).values()}
    return len(running) == count and set(recorded(cluster)) == running


def suspects(cluster: Cluster) -> list[str]:
    """What is taken by force from sandboxes that may still run."""
    return [text for block in cluster.items("spideripblocks") if (text := block["spec"].get("suspect", ""))]


def test_a_force_deleted_pod_keeps_its_address_until_its_sandbox_has_ended(deployed: Cluster) -> None:
    """Its kubelet hangs, so its containers run on and no DEL comes; the node's agent sees when that is over."""
    cluster = deployed
    cluster.apply(workload("Deployment", "gc", 2))
    cluster.wait("the pods run", lambda: holds_what_it_runs(cluster, "gc", 2))
    pod, (where, address, uid) = next(iter(pods(cluster, "gc").items()))
    node = cluster.nodes[where]
    container, netns = node.sandbox(uid)
    node.stand_still("kubelet")
    try:
        cluster.kubectl("delete", "pod", pod, "--force", "--grace-period=0")
        deleted = time.monotonic()
        cluster.wait("a DEL would have come", lambda: time.monotonic() > deleted + 2 * OWN_DEL)
        assert recorded(cluster)[address]["container"] == container
        node.kill_sandbox(container)
        node.call("umount", netns)
        node.call("rm", netns)
        cluster.wait("the address is back", lambda: address not in recorded(cluster))
        cluster.wait("an Event tells of it", lambda: told(cluster, address, pod, "reason=SandboxEnded"))
        assert not suspects(cluster), "nothing was taken by force"
    finally:
        node.signal("kubelet", signal.SIGCONT)
    cluster.wait("its successor runs", lambda: holds_what_it_runs(cluster, "gc", 2), 180)
    cluster.wait("the old sandbox is gone", lambda: len(node.pod_namespaces()) == 1)
    assert holds_what_it_runs(cluster, "gc", 2), "the DEL of the old sandbox freed nobody's address"


def test_a_sandbox_that_dies_while_no_agent_runs_leaves_nothing_behind(deployed: Cluster) -> None:
    """The kubelet makes another one for the same pod, as soon as an agent is there to ask."""
    cluster = deployed
    cluster.apply(workload("Deployment", "gc", 2))
    cluster.wait("the pods run", lambda: holds_what_it_runs(cluster, "gc", 2))
    pod, (where, _, uid) = next(iter(pods(cluster, "gc").items()))
    node = cluster.nodes[where]
    container, _ = node.sandbox(uid)
    assert node.stop_agent() == 0
    node.kill_sandbox(container)
    node.start_agent_again()

    def moved() -> bool:
        """It has a new sandbox, and its address is that one's."""
        held = {record["pod"]: record["container"] for record in recorded(cluster).values()}
        return held.get(f"default/{pod}", container) != container

    cluster.wait("the pod has a new sandbox", moved, 180)
    cluster.wait("the pods run", lambda: holds_what_it_runs(cluster, "gc", 2))
    compared = "records compared with the node's sandboxes"
    cluster.wait("the agent has looked", lambda: compared in node.agent_log())
    cluster.kubectl("delete", "deployment/gc", "--timeout=180s")
    cluster.wait("nothing is recorded any more", lambda: records(cluster) == [])


def test_a_node_that_is_declared_dead_gives_its_addresses_back_and_comes_home_in_peace(
    deployed: Cluster,
) -> None:
    """Its pods' addresses are free as soon as the taint says so; when it comes back, nobody's address is freed by what it
    cleans up."""
    cluster = deployed
    cluster.apply(workload("Deployment", "gc", 2))
    cluster.wait("the pods run", lambda: holds_what_it_runs(cluster, "gc", 2))
    lost, (where, address, _) = next(iter(pods(cluster, "gc").items()))
    stays = next(one for _, one, _ in pods(cluster, "gc").values() if one != address)
    node = cluster.nodes[where]
    node.stand_still("kubelet")
    try:
        cluster.wait("the node is not Ready", lambda: not ready(cluster, where), 180)
        assert address in recorded(cluster), "not Ready alone is not enough yet"
        cluster.kubectl("taint", "node", where, "node.kubernetes.io/out-of-service=down:NoExecute")
        cluster.wait("its address is back", lambda: address not in recorded(cluster))
        cluster.wait("an Event tells of it", lambda: told(cluster, address, lost))
        assert stays in recorded(cluster)
    finally:
        node.signal("kubelet", signal.SIGCONT)
        cluster.kubectl("taint", "node", where, "node.kubernetes.io/out-of-service-", check=False)
    cluster.wait("the node is Ready", cluster.nodes_ready, 180)
    cluster.wait("the pods run", lambda: holds_what_it_runs(cluster, "gc", 2), 180)
    cluster.wait("the old sandbox is gone", lambda: len(node.pod_namespaces()) == 1)
    assert holds_what_it_runs(cluster, "gc", 2)
    cluster.kubectl("delete", "deployment/gc", "--timeout=180s")
    cluster.wait("nothing is recorded any more", lambda: records(cluster) == [])


def told(cluster: Cluster, address: str, pod: str, *selector: str) -> bool:
    """Whether an Event names both."""
    selected = [word for one in selector for word in ("--field-selector", one)]
    messages = [one.get("message", "") for one in cluster.items("events", *selected)]
    return any(address in text and pod in text for text in messages)


def ready(cluster: Cluster, node: str) -> bool:
    conditions = cluster.get("node", node)["status"]["conditions"]
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
