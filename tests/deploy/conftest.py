"""A store on the real API server, empty but for what the deployment makes, and the tokens of its service accounts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.cluster.leadership import NAMESPACE
from tests.support.cluster import Cluster, ClusterStore
from tests.support.identity import API_SERVER, agent_token
from tests.tools.apiserver import ApiServer


@pytest.fixture
def store(api_server: ApiServer, tmp_path: Path) -> Iterator[ClusterStore]:
    opened = Cluster(api_server).open(tmp_path / "store")
    yield opened
    opened.close()


@pytest.fixture
def tokens(api_server: ApiServer, store: ClusterStore) -> dict[str, str]:
    """The token of each role's account, and of one that has none, which may what everybody may."""
    made = {"agent": agent_token(api_server.kubeconfig, "node1", audience=API_SERVER)}
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "operators-check"},
        "subjects": [{"kind": "ServiceAccount", "name": "operator", "namespace": NAMESPACE}],
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": "ClusterRole",
            "name": "orbweaver-check",
        },
    }
    api_server.apply(binding)
    for name, account in {
        "controller": "orbweaver-controller",
        "check": "operator",
        "anybody": "anybody",
    }.items():
        made[name] = agent_token(
            api_server.kubeconfig, "node1", account=account, audience=API_SERVER, bound=False
        )
    return made
