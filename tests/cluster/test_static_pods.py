"""Pods that a kubelet runs by itself: the API server has a mirror of each, with another UID than the runtime is told."""

from __future__ import annotations

import time
from typing import Any

import pytest

from actors.decisions.settings import GCSettings
from actors.resources.pod import MIRROR
from tests.cluster.cluster import Cluster
from tests.cluster.images import BUSYBOX
from tests.support import blocks

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(1800)]

STATIC: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "static", "namespace": "default"},
    "spec": {
        "terminationGracePeriodSeconds": 0,
        "containers": [
            {"name": "c", "image": BUSYBOX, "imagePullPolicy": "Never", "command": ["sleep", "100000"]}
        ],
    },
}


def running(cluster: Cluster, name: str) -> dict[str, Any] | None:
    """The mirror of a static pod that runs."""
    found = [one for one in cluster.items("pods") if one["metadata"]["name"] == name]
    return next((one for one in found if one["status"].get("phase") == "Running"), None)


def test_a_static_pod_gets_an_address_and_keeps_it(deployed: Cluster) -> None:
    """Also when its mirror is deleted, which ends nothing, and when the agent compares what it finds at its start."""
    cluster = deployed
    where, node = next(iter(cluster.nodes.items()))
    name = f"static-{where}"
    node.static_pod("static", STATIC)
    cluster.wait("the static pod runs", lambda: running(cluster, name) is not None, 180)
    mirror = running(cluster, name)
    assert mirror is not None
    uid = mirror["metadata"]["annotations"][MIRROR]
    assert uid != mirror["metadata"]["uid"]
    address = mirror["status"]["podIP"]

    def held() -> bool:
        """The one address is recorded by the kubelet's own UID."""
        found = blocks.recorded(cluster.items("spideripblocks"))
        return {where: one["uid"] for where, one in found.items()} == {address: uid}

    assert held()
    # The kubelet makes another mirror within a minute or two; until then there is no pod of that name.
    cluster.kubectl("delete", "pod", name, "--force", "--grace-period=0")
    deleted = time.monotonic()
    assert node.stop_agent() == 0
    node.start_agent_again()
    cluster.wait(
        "garbage collection has looked", lambda: time.monotonic() > deleted + 2 * GCSettings().own_del
    )
    assert held()

    node.static_pod("static", None)
    cluster.wait("its address is back", lambda: blocks.recorded(cluster.items("spideripblocks")) == {}, 180)
