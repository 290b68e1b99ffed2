"""`helm upgrade`, `helm rollback` and `helm upgrade` again between the version before and this one, while pods come and go.

The cluster has this version, so the story begins with the way back to the version before, which is a downgrade.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cluster.churn import Churn
from tests.cluster.cluster import Cluster
from tests.cluster.deployment import VALUES, helm, pods, records, release, workload
from tests.cluster.pod_logs import NAMESPACE
from tests.support import blocks
from tests.support.helm import CHART
from tests.tools import image
from tests.tools.release import last

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(1800)]

STAYING, CHURNING = 4, 4
OURS = "app.kubernetes.io/component in (agent, controller)"


def test_an_upgrade_its_rollback_and_the_upgrade_again_fail_no_pod(
    deployed: Cluster, last_image_archive: Path
) -> None:
    cluster, before = deployed, last()
    for node in cluster.nodes.values():
        node.import_image(last_image_archive)
    steps: list[tuple[str, Callable[[], None]]] = [
        (before.version, lambda: upgrade(cluster, str(before.chart))),
        (image.NAME.partition(":")[2], lambda: upgrade(cluster, str(CHART))),
        (before.version, lambda: roll_back(cluster)),
        (image.NAME.partition(":")[2], lambda: upgrade(cluster, str(CHART))),
    ]
    cluster.apply(workload("Deployment", "lasting", STAYING), workload("Deployment", "rolling", CHURNING))
    cluster.wait("all pods run", lambda: len(pods(cluster, "lasting")) == STAYING, 120)
    staying = pods(cluster, "lasting")
    with Churn(cluster, "rolling", CHURNING) as churn:
        churn.wait(1)
        for version, change in steps:
            change()
            assert images(cluster) == {f"orbweaver:{version}"}
            churn.wait(2)
            assert pods(cluster, "lasting") == staying
    assert refusals(cluster) == []
    cluster.kubectl("delete", "deployment", "rolling", "--wait")
    cluster.wait("no pod of the churn is left", lambda: not cluster.items("pods", "-l", "app=rolling"))
    cluster.wait("what stays is recorded, and nothing else", lambda: recorded(cluster) == addresses(staying))
    cluster.kubectl("delete", "deployment", "lasting", "--wait")
    cluster.wait("nothing is recorded any more", lambda: not records(cluster))


def upgrade(cluster: Cluster, chart: str) -> None:
    """`helm upgrade`, until agents and controllers are ready."""
    with helm(cluster) as asked:
        asked.ask("upgrade", chart=chart, values=VALUES, timeout=600, wait="watcher", **release(cluster))


def roll_back(cluster: Cluster) -> None:
    """`helm rollback` to the revision before."""
    with helm(cluster) as asked:
        asked.ask("rollback", timeout=600, wait="watcher", **release(cluster))


def images(cluster: Cluster) -> set[str]:
    """Those of all agents and controllers that are there to stay."""
    return {
        pod["spec"]["containers"][0]["image"]
        for pod in cluster.items("pods", "-n", NAMESPACE, "-l", OURS)
        if "deletionTimestamp" not in pod["metadata"]
    }


def refusals(cluster: Cluster) -> list[str]:
    """What a CNI plugin refused of the pods of this test, and what Orbweaver warned of: a sandbox not made, or not taken
    away. (The kubelet warns of other things too when pods go as soon as they run.) No other test of the cluster has pods
    that are called so: Events outlive them."""
    return [
        f"{event['reason']} of {event['involvedObject']['name']}: {event['message']}"
        for event in cluster.items("events")
        if event["type"] == "Warning"
        and event["involvedObject"]["name"].partition("-")[0] in ("lasting", "rolling")
        and ("plugin type=" in event["message"] or "orbweaver" in json.dumps(event.get("source", {})))
    ]


def addresses(there: dict[str, tuple[str, str, str]]) -> dict[str, str]:
    """Address to pod."""
    return {address: f"default/{name}" for name, (_, address, _) in there.items()}


def recorded(cluster: Cluster) -> dict[str, str]:
    """The same, as the blocks have it."""
    return {address: one["pod"] for address, one in blocks.recorded(cluster.items("spideripblocks")).items()}
