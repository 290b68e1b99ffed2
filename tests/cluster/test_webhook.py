"""The webhook as the API server of a cluster finds it: by its Service, whoever of the controllers answers."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.deployment import FIRST, POOL
from tests.cluster.pod_logs import NAMESPACE
from tests.cluster.processes import ClusterFailed

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(1800)]

AGAIN: dict[str, Any] = {
    **POOL,
    "metadata": {"name": "again"},
    "spec": {**POOL["spec"], "ips": [FIRST], "default": False},
}
CONTROLLERS = ("-n", NAMESPACE, "deployment/orbweaver-controller")


def trusted(cluster: Cluster) -> bool:
    """Whether the leader has told API servers whom to trust."""
    webhooks = cluster.get("validatingwebhookconfiguration", "orbweaver")["webhooks"]
    bundles = [base64.b64decode(one["clientConfig"].get("caBundle", "")) for one in webhooks]
    return all(bundle.startswith(b"-----BEGIN CERTIFICATE") for bundle in bundles)


def overlaps(cluster: Cluster) -> list[str]:
    """What the status of the second pool says."""
    status = cluster.get("spiderippool", "again").get("status", {})
    return list(status.get("overlaps", ()))


def controllers(cluster: Cluster) -> int:
    return len(cluster.items("pods", "-n", NAMESPACE, "-l", "app.kubernetes.io/component=controller"))


def asked(cluster: Cluster) -> str:
    """What the API server is told about the second pool, which it does not store."""
    path = cluster.directory / "again.json"
    path.write_text(json.dumps(AGAIN))
    try:
        cluster.kubectl("create", "--dry-run=server", "-f", str(path))
    except ClusterFailed as refused:
        return str(refused)
    return ""


def test_a_pool_that_overlaps_is_refused_while_controllers_run_and_reported_where_none_ran(
    deployed: Cluster,
) -> None:
    cluster = deployed
    cluster.wait("API servers are told whom to trust", lambda: trusted(cluster))
    cluster.wait("the API server has heard of it", lambda: asked(cluster) != "")
    said = ""

    def refused() -> bool:
        """Unless the machine stood still: what is not judged in time is let in."""
        nonlocal said
        try:
            cluster.apply(AGAIN)
        except ClusterFailed as failed:
            said = str(failed)
            return "admission webhook" in said
        cluster.kubectl("delete", "spiderippool", "again", "--timeout=60s")
        return False

    cluster.wait("it is refused", refused)
    assert 'admission webhook "review.orbweaver.io" denied the request' in said
    assert f"SpiderIPPool again: spec.ips overlaps with SpiderIPPool underlay in {FIRST}" in said

    cluster.kubectl("scale", *CONTROLLERS, "--replicas=0")
    try:
        cluster.wait("no controller runs", lambda: controllers(cluster) == 0, 120)
        cluster.apply(AGAIN)
        assert overlaps(cluster) == []
    finally:
        cluster.kubectl("scale", *CONTROLLERS, "--replicas=2")
        cluster.kubectl("rollout", "status", *CONTROLLERS, "--timeout=180s")
    cluster.wait("the overlap is reported", lambda: overlaps(cluster) == ["underlay"], 120)
    cluster.kubectl("delete", "spiderippool", "again", "--timeout=60s")
    cluster.wait("the controllers that are there now are asked", lambda: asked(cluster) != "", 120)
