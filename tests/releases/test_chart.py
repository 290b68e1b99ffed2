"""`helm install` of the version before, then upgrade, rollback and upgrade again, on a real API server with objects in it.

No node runs anything here; `tests/cluster/test_upgrade.py` does the same under pods.
"""

from __future__ import annotations

import base64
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.helm import CHART, NAMESPACE, Helm
from tests.tools import kubernetes, release, wheel
from tests.tools.apiserver import ApiServer
from tests.tools.gomodule import ROOT, ProgramMissing

OF_OURS = "/apis/spiderpool.spidernet.io/v2beta1"
AGENTS = f"/apis/apps/v1/namespaces/{NAMESPACE}/daemonsets/orbweaver-agent"
POOLS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/spiderippools.spiderpool.spidernet.io"
BLOCK = {
    "apiVersion": "spiderpool.spidernet.io/v2beta1",
    "kind": "SpiderIPBlock",
    "metadata": {"name": "v4-0a06a840"},
    "spec": {"cidr": "10.6.168.64/26", "ipVersion": 4, "records": "#a/:blue:eth0:n1::net 3:0:web:u:c:s"},
}


BUNDLE = base64.b64encode(b"certificates").decode()
WEBHOOK = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/orbweaver"


@pytest.fixture
def server() -> Iterator[ApiServer]:
    """One of its own: Helm takes no objects that somebody else made."""
    try:
        started = ApiServer(kubernetes.assets())
    except ProgramMissing as missing:
        pytest.skip(str(missing))
    try:
        started.start()
        yield started
    finally:
        started.stop()


def examples() -> list[dict[str, Any]]:
    """Objects of our kinds, as pages show them."""
    found = [BLOCK]
    for path in sorted((ROOT / "deploy" / "examples").rglob("*.yaml")):
        found += [
            one for one in yaml.safe_load_all(path.read_text()) if one["apiVersion"] == BLOCK["apiVersion"]
        ]
    return found


def place(obj: dict[str, Any]) -> str:
    """Its path at the API server."""
    namespace = obj["metadata"].get("namespace")
    within = f"/namespaces/{namespace}" if namespace else ""
    return f"{OF_OURS}{within}/{obj['kind'].lower()}s/{obj['metadata']['name']}"


def test_upgrade_rollback_and_upgrade_leave_every_object_as_it_was(server: ApiServer, tmp_path: Path) -> None:
    before = release.last()
    with tarfile.open(before.chart) as chart:
        file = chart.extractfile("orbweaver/values.yaml")
        assert file is not None
        all_of = yaml.safe_load(file)
    common = {"name": "orbweaver", "namespace": NAMESPACE, "kubeconfig": str(server.kubeconfig)}
    with Helm(log=tmp_path / "helm.log") as helm:
        helm.ask("install", chart=str(before.chart), values={}, create_namespace=True, timeout=120, **common)
        trusted = server.call("GET", WEBHOOK)
        for webhook in trusted["webhooks"]:  # as the leader does
            webhook["clientConfig"]["caBundle"] = BUNDLE
        server.call("PUT", WEBHOOK, trusted)
        objects = examples()
        server.apply(*objects)
        stored = {place(obj): server.call("GET", place(obj)) for obj in objects}
        steps = {
            # With all values of the version before, as who copied its values.yaml gives them.
            "upgrade": lambda: helm.ask("upgrade", chart=str(CHART), values=all_of, timeout=120, **common),
            "rollback": lambda: helm.ask("rollback", timeout=120, **common),
            "upgrade again": lambda: helm.ask("upgrade", chart=str(CHART), values={}, timeout=120, **common),
            "rollback again": lambda: helm.ask("rollback", timeout=120, **common),
            # With the values of the version before, which lack what is new.
            "upgrade with its values": lambda: helm.ask(
                "upgrade", chart=str(CHART), values={}, reuse_values=True, timeout=120, **common
            ),
        }
        for name, change in steps.items():
            change()
            version = before.version if name.startswith("rollback") else wheel.version()
            agent = server.call("GET", AGENTS)["spec"]["template"]["spec"]["containers"][0]
            assert agent["image"] == f"orbweaver:{version}", name
            for webhook in server.call("GET", WEBHOOK)["webhooks"]:
                assert webhook["clientConfig"]["caBundle"] == BUNDLE, name
            assert server.call("GET", POOLS)["metadata"]["labels"]["app.kubernetes.io/version"] == version
            for path, obj in stored.items():
                assert server.call("GET", path) == obj, name
                assert server.call("PUT", path, obj)["spec"] == obj["spec"], name
                stored[path] = server.call("GET", path)
