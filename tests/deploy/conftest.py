"""A store on the real API server, empty but for what the deployment makes, and the tokens of its service accounts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from actors.cluster.leadership import NAMESPACE
from tests.support.checker import eventually
from tests.support.cluster import Cluster, ClusterStore
from tests.tools.apiserver import ApiServer

RBAC = Path(__file__).resolve().parents[2] / "deploy" / "rbac"
_GROUPS = {
    "ServiceAccount": "/api/v1/namespaces/{namespace}/serviceaccounts",
    "ClusterRole": "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    "ClusterRoleBinding": "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
    "Role": "/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/roles",
    "RoleBinding": "/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/rolebindings",
}


@pytest.fixture
def store(api_server: ApiServer, tmp_path: Path) -> Iterator[ClusterStore]:
    opened = Cluster(api_server).open(tmp_path / "store")
    yield opened
    opened.close()


@pytest.fixture
def tokens(api_server: ApiServer) -> dict[str, str]:
    """The token of each service account, once its rights are in force."""
    made = {}
    for name in ("agent", "controller"):
        for obj in yaml.safe_load_all((RBAC / f"{name}.yaml").read_text()):
            path = _GROUPS[obj["kind"]].format(namespace=obj["metadata"].get("namespace"))
            code, answer = api_server.ask("POST", path, obj)
            assert code in (201, 409), answer
        path = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/orbweaver-{name}/token"
        asked = api_server.call("POST", path, {"spec": {"expirationSeconds": 3600}})
        made[name] = str(asked["status"]["token"])
        eventually(lambda name=name: _may_read_lease(api_server, made[name]))  # type: ignore[misc]
    return made


def _may_read_lease(server: ApiServer, token: str) -> None:
    lease: dict[str, Any] = {
        "group": "coordination.k8s.io",
        "resource": "leases",
        "namespace": NAMESPACE,
        "name": "orbweaver-controller",
        "verb": "get",
    }
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    assert server.call("POST", path, {"spec": {"resourceAttributes": lease}}, token)["status"]["allowed"]
