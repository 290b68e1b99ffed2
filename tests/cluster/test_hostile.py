"""A namespace's user against everybody else, on real kubelets: hostile pods and objects of a megabyte, beside ordinary pods.

What must always hold: the ordinary pods run, also when an agent starts anew among all that; no agent and no controller ends;
what the hostile ones were given comes back with them.
"""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from actors.decisions import annotations as known
from actors.resources.addresses import format_address
from actors.resources.pod import NETWORK_STATUS
from tests.cluster.cluster import Cluster
from tests.cluster.deployment import pods, workload
from tests.cluster.images import BUSYBOX
from tests.support import blocks

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(1800)]

NAMESPACE = "hostile"
LARGE, LARGE_BYTES = 24, 1_100_000
_SAME_HASH = [format_address(6, (0xFD000066 << 96) + number * ((1 << 61) - 1)) for number in range(2000)]
HOSTILE: dict[str, dict[str, str]] = {
    "surrogate": {known.POD_POOL: '{"ipv4":["\\udfff"]}'},
    "twice": {known.POD_POOL: "{" + ",".join(f'"ipv4":["no-{n}"]' for n in range(3000)) + "}"},
    "wildcards": {known.POD_POOL: json.dumps({"ipv4": ["*[!z-]" * 40] * 32})},
    "number": {known.POD_ROUTES: '[{"dst":' + "9" * 5000 + ',"gw":-1e400}]'},
    "deep": {known.POD_POOLS: '[{"interface":' * 800 + "1" + "}]" * 800},
    "long": {known.POD_POOLS: "[" * 250_000},
    "addresses": {known.NETWORKS: json.dumps([{"name": "net", "ips": _SAME_HASH}])},
    "right-to-left": {known.POD_DEFAULT_ROUTE_NIC: "eth0\u202e"},
    "witness": {NETWORK_STATUS: json.dumps([{"ips": [{}, None, 1e308]}] * 3000)},
    "routes": {known.POD_ROUTES: json.dumps([{"dst": "0.0.0.0/0", "gw": "10.99.0.1"}] * 256)},
}


def hostile(name: str, annotations: dict[str, str]) -> dict[str, Any]:
    """A pod of the namespace, which names somebody's StatefulSet as its owner, too."""
    owner = {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "x" * 700_000, "uid": "u"}
    metadata: dict[str, Any] = {"name": name, "namespace": NAMESPACE, "annotations": annotations}
    if name == "witness":
        metadata["ownerReferences"] = [owner | {"controller": True}]
    container = {"name": "c", "image": BUSYBOX, "imagePullPolicy": "Never", "command": ["sleep", "100000"]}
    spec = {"terminationGracePeriodSeconds": 0, "containers": [container]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def large(number: int) -> dict[str, Any]:
    """A StatefulSet of a megabyte, without a pod."""
    made = workload("StatefulSet", f"large-{number}", 0)
    labels = {f"k{number:040}": "v" * 59 for number in range(LARGE_BYTES // 100)}
    return {**made, "metadata": {**made["metadata"], "namespace": NAMESPACE, "labels": labels}}


def create(cluster: Cluster, *manifests: dict[str, Any]) -> None:
    """Not applied, which would copy each into an annotation of its own."""
    for manifest in manifests:
        path = cluster.directory / "hostile.json"
        path.write_text(json.dumps(manifest))
        cluster.kubectl("create", "-f", str(path))


def ordinary(cluster: Cluster, name: str, replicas: int) -> float:
    """Seconds until so many pods of somebody else run."""
    began = time.monotonic()
    cluster.apply(workload("Deployment", name, replicas))
    cluster.wait(f"{replicas} ordinary pods run", lambda: len(pods(cluster, name)) == replicas, 180)
    return time.monotonic() - began


def test_ordinary_pods_run_beside_hostile_ones(deployed: Cluster) -> None:
    cluster = deployed
    restarts = {name: node.agent_log().count('"event": "serving"') for name, node in cluster.nodes.items()}
    # Not how often one came to lead: a machine that is busy with other things loses a Lease now and then.
    starts = cluster.controller_log().count('"event": "standing by"')
    told = {name: len(node.controller_log()) for name, node in cluster.nodes.items()}
    before = ordinary(cluster, "calm", 4)
    cluster.kubectl("create", "namespace", NAMESPACE)
    create(cluster, *(large(number) for number in range(LARGE)))
    create(cluster, *(hostile(name, annotations) for name, annotations in HOSTILE.items()))
    during = ordinary(cluster, "beside", 4)

    where, node = next(iter(cluster.nodes.items()))
    assert node.stop_agent() == 0
    node.start_agent_again()  # it lists all of it
    restarts[where] += 1
    again = ordinary(cluster, "after", 2)
    print(
        f"ordinary pods ran after {before:.1f} s, {during:.1f} s beside hostile ones, {again:.1f} s behind a restart"
    )

    for name, one in cluster.nodes.items():
        assert one.agent_log().count('"event": "serving"') == restarts[name], one.agent_log()[-3000:]
        assert "Traceback" not in one.agent_log()
    assert cluster.controller_log().count('"event": "standing by"') == starts
    assert not any("Traceback" in node.controller_log()[told[name] :] for name, node in cluster.nodes.items())
    cluster.kubectl("delete", "namespace", NAMESPACE, "--timeout=180s")
    cluster.kubectl("delete", "deployment", "calm", "beside", "after")
    cluster.wait("no address is left", lambda: not blocks.recorded(cluster.items("spideripblocks")), 180)
