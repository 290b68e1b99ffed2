"""explain: each interface of a pod with its network, its plugins and its pool, out of the objects that the cluster has."""

from __future__ import annotations

import json
from typing import Any

import pytest


def network(name: str, *plugins: dict[str, Any], namespace: str = "default") -> str:
    config = json.dumps({"cniVersion": "1.0.0", "name": name, "plugins": plugins})
    obj = {
        "apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition",
        "metadata": {"name": name, "namespace": namespace}, "spec": {"config": config},
    }  # fmt: skip
    return f"---\n{json.dumps(obj)}\n"


def pod(**annotations: str) -> str:
    keys = {"networks": "k8s.v1.cni.cncf.io/networks", "first": "v1.multus-cni.io/default-network"}
    metadata = {
        "name": "web-a",
        "namespace": "default",
        "annotations": {keys[k]: v for k, v in annotations.items()},
    }
    return f"---\n{json.dumps({'apiVersion': 'v1', 'kind': 'Pod', 'metadata': metadata})}\n"


def macvlan(*pools: str) -> dict[str, Any]:
    return {"type": "macvlan", "master": "eth1", "ipam": {"type": "spiderpool", "default_ipv4_ippool": pools}}


OTHER = {"type": "bridge", "ipam": {"type": "host-local"}}
COORDINATOR = {"type": "coordinator", "serviceCIDR": ["10.96.0.0/12"]}
TUNING = {"type": "tuning"}


@pytest.fixture
def three(orbweaver: Any, make_pool: Any) -> Any:
    """Three pools, and a network for each of two of them."""
    orbweaver.apply(
        make_pool("blue", "10.6.0.10-10.6.0.19", default=True)
        + make_pool("red", "10.7.0.10-10.7.0.12", subnet="10.7.0.0/16")
        + make_pool("green", "10.8.0.10", subnet="10.8.0.0/16")
        + network("red", macvlan("red"), COORDINATOR)
        + network("green", macvlan("green"), TUNING, namespace="kube-system")
        + network("own", OTHER)
        + network("bare", {"type": "host-device"})
    )
    return orbweaver


def test_every_interface_is_told_with_its_network_plugins_and_pool(three: Any) -> None:
    """Where annotations name no pools, each network's own defaults hold."""
    three.apply(pod(networks="red, kube-system/green@storage, own, bare"))
    done = three("explain", "default/web-a")

    assert done.status == 0, done.err
    for line in (
        "  eth0 IPv4: an address of pool blue (10 of 10 free)",
        "  net1 IPv4: an address of pool red (3 of 3 free)",
        "  storage IPv4: an address of pool green (1 of 1 free)",
        "on these networks",
        "  eth0: the node's own network",
        "  net1: default/red (macvlan, coordinator)",
        "  storage: kube-system/green (macvlan, tuning)",
        "  net3: default/own (bridge), addresses from host-local",
        "  net4: default/bare (host-device), no addresses",
    ):
        assert f"{line}\n" in done.out, done.out


def test_programs_are_told_the_same(three: Any) -> None:
    three.apply(pod(networks="red", first="kube-system/green"))
    done = three("explain", "default/web-a", "-o", "json")

    assert {slot["interface"]: slot["pool"] for slot in done.json["slots"]} == {
        "eth0": "green",
        "net1": "red",
    }
    assert done.json["networks"] == [
        {"interface": "eth0", "network": "kube-system/green", "plugins": ["macvlan", "tuning"],
         "ipam": "spiderpool", "error": None},
        {"interface": "net1", "network": "default/red", "plugins": ["macvlan", "coordinator"],
         "ipam": "spiderpool", "error": None},
    ]  # fmt: skip


def test_a_network_that_is_not_there_is_told_and_the_others_are_explained(three: Any) -> None:
    three.apply(pod(networks="red, gone"))
    done = three("explain", "default/web-a")

    assert "  net1: default/red (macvlan, coordinator)" in done.out
    assert "  net2: default/gone, but there is no such NetworkAttachmentDefinition" in done.out


def test_an_interface_whose_pool_is_empty_refuses_the_pod(three: Any) -> None:
    three.apply(pod(networks="kube-system/green"))
    three.record("10.8.0.10", "green", pod="default/other")
    done = three("explain", "default/web-a")

    assert done.status == 1
    assert "net1 IPv4: pool green refused: exhausted" in done.err


def test_a_pod_without_networks_is_told_as_before(three: Any) -> None:
    three.apply(pod())
    assert "networks" not in three("explain", "default/web-a").out


def test_the_routes_of_each_interface_are_those_of_its_own_network(three: Any) -> None:
    three.apply(pod(networks="red, kube-system/green"))
    store = three.store()
    node = store.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}})
    store.update_status(
        {**node, "status": {"addresses": [{"type": "InternalIP", "address": "10.6.168.123"}]}}
    )
    store.close()
    three.record("10.6.0.10", "blue")
    three.record("10.7.0.10", "red", interface="net1")
    three.record("10.8.0.10", "green", interface="net2")
    done = three("explain", "default/web-a", "--routes")

    assert done.status == 0, done.err
    first, _, rest = done.out.partition("net1 on default/red: mode underlay")
    assert "eth0: mode underlay" in first
    assert "10.96.0.0/12" not in first
    assert "10.96.0.0/12 via 10.6.168.123" in rest
    assert (
        "net2 on kube-system/green: no coordinator, so it has no routes but those of its other plugins"
        in rest
    )
