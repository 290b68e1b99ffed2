"""`helm test`: a pod on each node, which tells its address, its gateway and whether it reaches a Service."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.deployment import CONFLIST, POOL, helm, records, release
from tests.support.helm import Refused

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(1800)]

ROUTER = "10.99.0.1"
ROUTED = {**POOL, "metadata": {"name": "routed"},
          "spec": {"subnet": "10.99.0.0/16", "ips": ["10.99.102.10-10.99.102.20"], "gateway": ROUTER}}  # fmt: skip


def network(*chained: str) -> dict[str, Any]:
    """A macvlan network whose pods have a gateway, with other plugins behind it."""
    ipam = {"type": "spiderpool", "default_ipv4_ippool": ["routed"]}
    macvlan = {"type": "macvlan", "master": "eth0", "mode": "bridge", "ipam": ipam}
    plugins = [macvlan, *({"type": one} for one in chained)]
    return {"cniVersion": "1.0.0", "name": "routed", "plugins": plugins}


@pytest.fixture(scope="module")
def routed(deployed: Cluster) -> Iterator[Cluster]:
    deployed.apply(ROUTED)
    yield deployed
    for node in deployed.nodes.values():
        node.configure(CONFLIST)
    deployed.wait("nothing is recorded any more", lambda: records(deployed) == [])
    deployed.kubectl("delete", "spiderippool", "routed", "--timeout=180s")


def ask(cluster: Cluster, *chained: str) -> str:
    """What the test says. Raises Refused when it fails."""
    for node in cluster.nodes.values():
        node.configure(network(*chained))
    with helm(cluster) as asked:
        said: str = asked.ask("test", logs=True, timeout=600, **release(cluster))["logs"]
    return said


def test_each_node_tells_address_gateway_and_service(routed: Cluster) -> None:
    said = ask(routed, "coordinator")

    assert "2 Ready nodes: n1, n2" in said
    for node in routed.nodes:
        assert f"{node}: address 10.99.102.1" in said
        assert f"{node}: gateway {ROUTER} answers" in said
        assert f"{node}: Service 10.96.0.1:443 reached" in said
    assert "every node gives addresses" in said


def test_a_network_without_the_way_to_services_fails_and_says_so(routed: Cluster) -> None:
    """And leaves none of its pods behind."""
    with pytest.raises(Refused):
        ask(routed)
    said = routed.kubectl("-n", "orbweaver-system", "logs", "orbweaver-test")

    for node in routed.nodes:
        assert f"{node}: gateway {ROUTER} answers" in said
        assert f"{node}: WRONG Service 10.96.0.1:443 is not reached" in said
    assert said.rstrip().endswith("FAILED")
    routed.wait(
        "the test's pods are gone",
        lambda: (
            [
                one["metadata"]["name"]
                for one in routed.items(
                    "pods", "-n", "orbweaver-system", "-l", "app.kubernetes.io/component=test"
                )
            ]
            == ["orbweaver-test"]
        ),
    )
    routed.kubectl("-n", "orbweaver-system", "delete", "pod", "orbweaver-test")
