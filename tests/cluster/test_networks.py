"""Several interfaces with nothing else installed, in a real cluster: the chart with the networks mode switched on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from actors.resources.pod import NETWORK_STATUS
from cni.networks.network_list import NAME
from tests.cluster.cluster import Cluster
from tests.cluster.deployment import CONFLIST, POOL, VALUES, helm, release, workload
from tests.cluster.images import BUSYBOX
from tests.support import blocks
from tests.support.helm import CHART

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(1800)]

NETWORKS = "k8s.v1.cni.cncf.io/networks"
ON = {**VALUES, "settings": {"networks": {"enabled": True}}, "crds": {"networkAttachmentDefinitions": True}}
RED = {
    **POOL,
    "metadata": {"name": "red"},
    "spec": {"subnet": "10.98.0.0/16", "ips": ["10.98.101.10-10.98.101.40"]},
}


def network(name: str, *plugins: dict[str, Any]) -> dict[str, Any]:
    config = {"cniVersion": "1.0.0", "name": name, "plugins": list(plugins)}
    return {
        "apiVersion": "k8s.cni.cncf.io/v1",
        "kind": "NetworkAttachmentDefinition",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"config": json.dumps(config)},
    }


def macvlan(pool: str) -> dict[str, Any]:
    ipam = {"type": "spiderpool", "default_ipv4_ippool": [pool]}
    return {"type": "macvlan", "master": "eth0", "mode": "bridge", "ipam": ipam}


def upgrade(cluster: Cluster, values: dict[str, Any]) -> None:
    """Have the release's values be these, and wait until its pods run with them."""
    with helm(cluster) as asked:
        asked.ask("upgrade", chart=str(CHART), values=values, timeout=600, wait="watcher", **release(cluster))
    for node in cluster.nodes.values():
        node.wait_for_agent()


@pytest.fixture(scope="module")
def networked(deployed: Cluster) -> Iterator[Cluster]:
    """The mode switched on, and the nodes' configuration that uses it; afterwards all is as before."""
    upgrade(deployed, ON)
    leases = {"type": "host-local", "ranges": [[{"subnet": "10.97.0.0/24"}]]}
    cards = {"type": "spiderpool", "default_ipv4_ippool": ["red"]}
    deployed.apply(
        RED,
        network("underlay", macvlan("underlay")),
        network("red", macvlan("red")),
        network("local", {"type": "bridge", "bridge": "br-local", "ipam": leases}),
        network("card", {"type": "host-device", "device": "card0", "ipam": cards}),
    )
    for node in deployed.nodes.values():
        node.call("ip", "link", "add", "card0", "type", "veth", "peer", "name", "card0p")
        node.call("ip", "link", "set", "card0p", "up")
        plugin = {"type": NAME, "clusterNetwork": "default/underlay"}
        node.configure({"cniVersion": "1.0.0", "name": "networks", "plugins": [plugin]})
    yield deployed
    deployed.kubectl("delete", "deployment,pod", "--all", "--timeout=180s", "--force", "--grace-period=0")
    deployed.wait("nothing is recorded any more", lambda: not recorded(deployed), 180)
    for node in deployed.nodes.values():
        node.configure(CONFLIST)
        node.call("ip", "link", "del", "card0p")
    deployed.kubectl("delete", "spiderippool", "red", "--timeout=180s")
    deployed.kubectl("delete", "network-attachment-definitions", "--all")
    upgrade(deployed, VALUES)


def recorded(cluster: Cluster) -> dict[str, dict[str, str]]:
    return blocks.recorded(cluster.items("spideripblocks"))


def pod(name: str, networks: str, node: str) -> dict[str, Any]:
    container = {"name": "c", "image": BUSYBOX, "imagePullPolicy": "Never", "command": ["sleep", "100000"]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "annotations": {NETWORKS: networks}},
        "spec": {"nodeName": node, "terminationGracePeriodSeconds": 0, "containers": [container]},
    }


def runs(cluster: Cluster, name: str) -> bool:
    return bool(cluster.get("pod", name)["status"].get("phase") == "Running")


def addresses(cluster: Cluster, name: str) -> dict[str, str]:
    """Interface to address, as the pod itself sees them."""
    found: dict[str, str] = {}
    for line in cluster.kubectl("exec", name, "--", "ip", "-o", "-4", "addr", "show").splitlines():
        words = line.split()
        if words[1] != "lo":
            found[words[1]] = words[3].partition("/")[0]
    return found


def test_a_pod_of_four_interfaces(networked: Cluster) -> None:
    """Macvlan, macvlan, bridge and host-device, the plugins being the node's, executed from the agent's container."""
    where = next(iter(networked.nodes))
    networked.apply(pod("four", "red,local,card", where))
    networked.wait("the pod runs", lambda: runs(networked, "four"), 180)

    mine = addresses(networked, "four")
    assert sorted(mine) == ["eth0", "net1", "net2", "net3"]
    status = json.loads(networked.get("pod", "four")["metadata"]["annotations"][NETWORK_STATUS])
    assert {one["interface"]: one["ips"][0] for one in status} == mine
    assert [one["name"] for one in status] == [
        f"default/{name}" for name in ("underlay", "red", "local", "card")
    ]
    assert networked.get("pod", "four")["status"]["podIP"] == mine["eth0"]
    held = {one["interface"]: address for address, one in recorded(networked).items()}
    assert held == {name: mine[name] for name in ("eth0", "net1", "net3")}

    networked.kubectl("delete", "pod", "four", "--timeout=180s")
    node = networked.nodes[where]
    networked.wait("its addresses are back", lambda: not recorded(networked))
    networked.wait("the node has its card again", lambda: "card0 " in node.call("ip", "-br", "link", "show"))
    networked.wait("nothing is noted of it", lambda: not notes(networked, where))


def notes(cluster: Cluster, where: str) -> list[str]:
    """The containers of which the node's agent has noted something."""
    directory = cluster.nodes[where].root / "var/lib/orbweaver/networks"
    return sorted(file.stem for file in directory.glob("*.json")) if directory.is_dir() else []


def test_pods_start_while_kubelet_and_agent_are_restarted(networked: Cluster) -> None:
    """In the middle of their start, on both nodes; nothing is given twice, and nothing is left."""
    made = workload("Deployment", "busy", 8)
    made["spec"]["template"]["metadata"]["annotations"] = {NETWORKS: "red,local"}
    networked.apply(made)
    nodes = list(networked.nodes.values())
    networked.wait("the first has an address", lambda: bool(recorded(networked)))
    nodes[1].restart_kubelet()
    nodes[0].kill_agent()
    networked.kubectl("rollout", "status", "deployment/busy", "--timeout=180s")

    def settled() -> bool:
        running = [
            one
            for one in networked.items("pods", "-l", "app=busy")
            if one["status"]["phase"] == "Running" and "deletionTimestamp" not in one["metadata"]
        ]
        told = [json.loads(one["metadata"]["annotations"].get(NETWORK_STATUS, "[]")) for one in running]
        ours = {
            ip
            for status in told
            for entry in status
            for ip in entry.get("ips", [])
            if not ip.startswith("10.97.")
        }
        return len(running) == 8 and len(ours) == 16 and set(recorded(networked)) == ours

    networked.wait("what is recorded is what runs", settled, 180)
    networked.kubectl("delete", "deployment/busy", "--timeout=180s")
    networked.wait("nothing is recorded any more", lambda: not recorded(networked), 180)
    networked.wait(
        "nothing is noted any more", lambda: not any(notes(networked, name) for name in networked.nodes)
    )
