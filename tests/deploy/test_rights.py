"""Controller and agent with the rights of `deploy/rbac`, on a real API server: they suffice, and the keys are apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from actors.cluster.leadership import NAMESPACE
from actors.errors import OrbweaverError
from actors.store.kubernetes.store import KubernetesStore
from tests.deploy.test_agent import Pods
from tests.support.agent_process import AgentProcess
from tests.support.checker import eventually, records
from tests.support.cluster import ClusterStore
from tests.support.leaders import controllers, leader_of, linked, wait_linked
from tests.support.rig import pool
from tests.tools.apiserver import ApiServer


def test_the_rights_suffice_and_agents_read_no_secret(
    api_server: ApiServer, store: ClusterStore, tokens: dict[str, str], tmp_path: Path
):
    config = {
        name: api_server.write_kubeconfig(tmp_path / f"{name}.config", token)
        for name, token in tokens.items()
    }
    store.create(pool("blue", "10.6.0.0/16", "10.6.0.1-10.6.0.9"))
    with controllers(tmp_path, config["controller"]) as both:
        leader = leader_of(store, both)
        options = ("--timeout", "10", "--log-level", "debug")
        with AgentProcess(tmp_path / "agent", *options, kubeconfig=config["agent"]) as agent:
            pods = Pods(agent, store)
            wait_linked(agent, leader)
            pods.add("web")
            leader.stop()
            pods.add("by-itself")
            wait_linked(agent, leader_of(store, [one for one in both if one is not leader]))
            pods.add("again")
            assert pods.call("DEL", "web", "c-web")[0] == 0
            eventually(lambda: _count(store, 2))
            assert linked(agent)
        assert len(records(store)) == 2
        for process in (*both, agent):
            assert "may not" not in process.log.read_text()

    as_agent = KubernetesStore(api_server.access(tokens["agent"]))
    shown = (tmp_path / "agent" / "leader-token").read_text()
    said = agent.log.read_text()
    assert '"level": "debug"' in said
    assert not any(secret in said for secret in (*tokens.values(), shown, "PRIVATE KEY"))
    for forbidden in (
        lambda: as_agent.get("Secret", "any", NAMESPACE),
        lambda: as_agent.list("Secret", NAMESPACE),
        lambda: as_agent.update(store.get("Lease", "orbweaver-controller", NAMESPACE)),
        lambda: as_agent.create(_review(shown)),
    ):
        with pytest.raises(OrbweaverError, match="may not"):
            forbidden()
    as_agent.close()


def _review(token: str) -> dict[str, Any]:
    return {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenReview",
        "metadata": {"name": "agent"},
        "spec": {"token": token},
    }


def _count(store: KubernetesStore, count: int) -> None:
    assert (store.get("SpiderIPPool", "blue").get("status") or {}).get("allocatedIPCount") == count
