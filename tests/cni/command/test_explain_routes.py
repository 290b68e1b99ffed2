"""explain --routes where the pod's namespace is elsewhere; the stories of the data plane compare it with a real pod."""

from __future__ import annotations

import json
from typing import Any

import pytest

POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {
        "name": "web-a",
        "namespace": "default",
        "annotations": {"k8s.v1.cni.cncf.io/networks": "red"},
    },
}
NODE = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}}
CONF = {
    "name": "blue",
    "plugins": [{"type": "macvlan"}, {"type": "coordinator", "serviceCIDR": ["10.96.0.0/12"]}],
}


@pytest.fixture
def two_nics(orbweaver: Any, make_pool: Any) -> Any:
    """A pod with an address on eth0 and net1, on a node whose address is known."""
    orbweaver.apply(
        make_pool("blue", "10.6.168.172", gateway="10.6.0.1")
        + make_pool("red", "10.7.168.173", subnet="10.7.0.0/16", gateway="10.7.0.1")
    )
    store = orbweaver.store()
    store.create(POD)
    node = store.create(NODE)
    store.update_status(
        {**node, "status": {"addresses": [{"type": "InternalIP", "address": "10.6.168.123"}]}}
    )
    store.close()
    orbweaver.record("10.6.168.172", "blue")
    orbweaver.record("10.7.168.173", "red", interface="net1")
    return orbweaver


def test_the_plan_of_two_interfaces_is_told_line_by_line(two_nics: Any) -> None:
    done = two_nics("explain", "web-a", "--routes", "--conf", two_nics.file(json.dumps(CONF), "net.conflist"))

    assert done.status == 0, done.err
    for line in (
        "pod default/web-a, planned from its recorded addresses; to compare it with the pod run this as root on node n1",
        "eth0: mode underlay",
        "    link veth0 mac ",
        "    route 10.96.0.0/12 via 10.6.168.123 dev veth0 src 10.6.168.172",
        "    neighbour 10.6.168.123 dev veth0 lladdr ",
        "    route 10.6.168.172 dev vethc1 scope link table 500",
        "net1: mode underlay",
        "    route default via 10.7.0.1 dev net1 table 100",
        "    route 10.6.168.123 dev veth0 scope link table 100",
        "    rule 32764: from 10.7.168.173 lookup 100",
        "    rule 32765: from all to 10.7.168.173/16 lookup 100",
        "    sysctl net.ipv4.conf.net1.rp_filter = 0",
        "    rule 1000: from all lookup 500",
    ):
        assert line in done.out, done.out


def test_the_default_route_follows_the_pods_choice(two_nics: Any) -> None:
    store = two_nics.store()
    pod = store.get("Pod", "web-a", "default")
    pod["metadata"]["annotations"]["ipam.spidernet.io/default-route-nic"] = "net1"
    store.update(pod)
    store.close()

    done = two_nics("explain", "web-a", "--routes", "-o", "json")

    lines = done.json["interfaces"]
    assert "route default via 10.6.0.1 dev eth0 table 100" in lines["eth0"]["pod"]
    assert "rule 32764: from 10.6.168.172 lookup 100" in lines["net1"]["pod"]
    assert done.json["netns"] is None


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("nobody",), "pod default/nobody has no recorded address"),
        (("web-a", "--conf", "{none}"), "none of its plugins is of type coordinator"),
        (("web-a", "--netns", "/nowhere"), "/nowhere of pod default/web-a cannot be opened"),
    ],
)
def test_what_is_in_the_way_is_said(two_nics: Any, arguments: tuple[str, ...], words: str) -> None:
    none = two_nics.file(json.dumps({"name": "x", "plugins": [{"type": "macvlan"}]}), "none.conflist")

    done = two_nics("explain", *(one.format(none=none) for one in arguments), "--routes")

    assert done.status == 1
    assert words in done.err


def test_a_node_without_known_addresses_is_named(two_nics: Any) -> None:
    two_nics.record("10.6.168.172", "blue", node="n2")
    two_nics.record("10.7.168.173", "red", interface="net1", node="n2")

    done = two_nics("explain", "web-a", "--routes")

    assert done.status == 1
    assert "addresses of node n2 are not known here" in done.err
