"""The chart's values for the nodes themselves: agents, as pods, write the CNI configuration and take the taint off."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.decisions.chained_conf import NAME
from cni.process.node_taint import TAINT
from tests.cluster.cluster import Cluster
from tests.cluster.deployment import CONFLIST, VALUES, pods, records, workload
from tests.cluster.node import Node
from tests.cluster.test_networks import upgrade

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(1200)]

WRITTEN: dict[str, Any] = {**CONFLIST, "name": "written"}
ON: dict[str, Any] = {
    **VALUES,
    "cniConfiguration": {"enabled": True, "conflist": WRITTEN},
    "nodeTaint": {"enabled": True},
}


def written(node: Node) -> Path:
    """What its agent writes."""
    return node.directory / "cni.d" / NAME


@pytest.fixture
def switched_on(deployed: Cluster) -> Iterator[Cluster]:
    """Both values on, on nodes with the taint; afterwards all is as before."""
    deployed.kubectl("taint", "nodes", "--all", f"{TAINT}=:NoSchedule")
    try:
        upgrade(deployed, ON)
        yield deployed
    finally:
        upgrade(deployed, VALUES)
        for node in deployed.nodes.values():
            written(node).unlink(missing_ok=True)  # which stays until somebody uninstalls
        deployed.kubectl("taint", "nodes", "--all", f"{TAINT}-", check=False)


def test_pods_come_to_a_node_once_its_agent_serves_and_by_what_it_wrote(switched_on: Cluster) -> None:
    cluster = switched_on
    cluster.wait("the taint is off both nodes", cluster.nodes_ready, 180)
    for node in cluster.nodes.values():
        assert json.loads(written(node).read_text()) == WRITTEN
        assert written(node).stat().st_mode & 0o777 == 0o600
        assert "cannot be taken off" not in node.agent_log()

    cluster.apply(workload("Deployment", "written", 2))
    cluster.wait("its pods run", lambda: len(pods(cluster, "written")) == 2, 180)
    assert {node for node, _, _ in pods(cluster, "written").values()} == set(cluster.nodes)
    blocks = "\n".join(records(cluster))
    assert ":written:" in blocks, blocks  # the network's name, as the runtime was told it
    cluster.kubectl("delete", "deployment/written", "--timeout=120s")
    cluster.wait("nothing is recorded any more", lambda: records(cluster) == [], 180)
