"""`orbweaver explain` on a cluster foretells what agents do, with the settings that they have."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from actors.cluster.leadership import NAMESPACE
from cni.command.cluster_settings import NAME
from tests.actors.store.contract_suite import fresh
from tests.deploy.test_agent import GROUP, READ, rule
from tests.support.agent_process import PROGRAM
from tests.support.cluster import Cluster
from tests.support.rig import pool
from tests.tools.apiserver import ADMIN_TOKEN, ApiServer

MAP = yaml.safe_load((Path(__file__).resolve().parents[2] / "deploy" / "configmap.yaml").read_text())
PATH = f"/api/v1/namespaces/{NAMESPACE}/configmaps"


def explain(config: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [*PROGRAM, "explain", "default/web", *options, "--kubeconfig", str(config)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def configured(api_server: ApiServer, tmp_path: Path) -> Iterator[Any]:
    """A function that puts `conf.yml` of the ConfigMap that `deploy/` makes, on a cluster with a pool that no rule names."""
    store = Cluster(api_server).open(tmp_path / "store")
    store.create(pool("blue", "10.6.0.0/16", "10.6.0.1-10.6.0.9", default=False))
    assert (MAP["metadata"]["name"], MAP["metadata"]["namespace"]) == (NAME, NAMESPACE)

    def put(text: str) -> None:
        api_server.ask("POST", PATH, MAP)
        api_server.call("PUT", f"{PATH}/{NAME}", {**MAP, "data": {"conf.yml": text}})

    yield put
    api_server.ask("DELETE", f"{PATH}/{NAME}")
    store.close()


def test_it_decides_with_the_clusters_settings(
    api_server: ApiServer, configured: Any, tmp_path: Path
) -> None:
    config = api_server.write_kubeconfig(tmp_path / "config", ADMIN_TOKEN)
    configured("clusterDefaultIPv4IPPool: [blue]\n")
    served = explain(config)
    (tmp_path / "other.yml").write_text("enableIPv6: true\n")
    otherwise = explain(config, "--config", str(tmp_path / "other.yml"))
    configured("enableIPv5: true\n")
    wrong = explain(config)

    assert (served.returncode, served.stderr) == (0, "")
    assert "an address of pool blue" in served.stdout
    assert otherwise.returncode == 1
    assert wrong.returncode == 1
    assert "enableIPv5: is no key of this version" in wrong.stderr


def test_it_says_when_it_may_not_read_them(api_server: ApiServer, configured: Any, tmp_path: Path) -> None:
    token = api_server.service_account(
        fresh("reader"),
        rule(GROUP, ["spiderippools", "spiderreservedips", "spideripblocks"], *READ),
        rule("", ["pods", "namespaces", "nodes"], *READ),
    )
    configured("clusterDefaultIPv4IPPool: [blue]\n")
    done = explain(api_server.write_kubeconfig(tmp_path / "config", token))

    assert done.returncode == 1
    told, *_ = done.stderr.splitlines()
    assert f"ConfigMap {NAMESPACE}/{NAME} cannot be read" in told
    assert '"resources": ["configmaps"]' in told
    assert "--config" in told
