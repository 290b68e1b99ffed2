"""The cluster refuses what is to be recorded: the pod is told why, and no address is lost to the pool by it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from actors.resources.admission import SPIDERPOOL
from actors.resources.blocks.block import Block
from actors.store.kubernetes.store import KubernetesStore
from tests.deploy.test_agent import Pods
from tests.support.agent_process import AgentProcess
from tests.support.checker import eventually, records
from tests.support.cluster import Cluster
from tests.support.rig import pool
from tests.tools.apiserver import ApiServer

POLICIES = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies"
BINDINGS = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings"
RULE = {
    "apiGroups": ["spiderpool.spidernet.io"],
    "apiVersions": ["*"],
    "operations": ["CREATE", "UPDATE", "DELETE"],
    "resources": ["spideripblocks"],
}
OTHER = Block(4, 0x0A630000).to_object()
"""A block of addresses that no test has."""


@contextmanager
def frozen(server: ApiServer) -> Iterator[None]:
    """Nobody may change a block."""
    policy: dict[str, Any] = {
        "metadata": {"name": "freeze"},
        "spec": {
            "matchConstraints": {"resourceRules": [RULE]},
            "validations": [{"expression": "false", "message": "change freeze until 14:00"}],
        },
    }
    binding = {
        "metadata": {"name": "freeze"},
        "spec": {"policyName": "freeze", "validationActions": ["Deny"]},
    }
    server.call("POST", POLICIES, policy)
    server.call("POST", BINDINGS, binding)
    try:
        eventually(lambda: _answers(server, 422))
        yield
    finally:
        server.call("DELETE", f"{BINDINGS}/freeze")
        server.call("DELETE", f"{POLICIES}/freeze")
        eventually(lambda: _answers(server, 201))


def _answers(server: ApiServer, code: int) -> None:
    assert server.ask("POST", f"/apis/{SPIDERPOOL}/spideripblocks?dryRun=All", OTHER)[0] == code


def _told(store: KubernetesStore, pod: str, text: str) -> None:
    events = store.list("Event", "default").items
    assert any(event["involvedObject"]["name"] == pod and text in event["message"] for event in events)


def test_a_policy_that_denies_is_told_and_poisons_no_pool(api_server: ApiServer, tmp_path: Path) -> None:
    store = Cluster(api_server).open(tmp_path / "store")
    store.create(pool("blue", "10.6.0.0/16", "10.6.0.1-10.6.0.2", "10.6.0.70"))
    with AgentProcess(tmp_path / "agent", "--timeout", "10", kubeconfig=api_server.kubeconfig) as agent:
        pods = Pods(agent, store)
        with frozen(api_server):
            for number in range(5):
                pods.make(f"web-{number}")
                status, answer = pods.call("ADD", f"web-{number}", f"c-web-{number}")
                assert status != 0
                assert answer["code"] == 11
                assert "SpiderIPBlock v4-0a0600" in answer["msg"]
                assert "change freeze until 14:00" in answer["msg"]
                assert "kubectl apply -f deploy/crds" in answer["msg"]
        eventually(lambda: _told(store, "web-4", "change freeze until 14:00"))
        given = {
            str(pods.answered("ADD", f"web-{number}", f"c-web-{number}")[1]["ips"][0]["address"])
            for number in range(3)
        }
        assert given == {"10.6.0.1/16", "10.6.0.2/16", "10.6.0.70/16"}
        status, answer = pods.answered("ADD", "web-3", "c-web-3")
        assert "pool blue 3 in use" in str(answer)

        with frozen(api_server):
            status, answer = pods.call("DEL", "web-0", "c-web-0")
            assert (status != 0, answer["code"]) == (True, 11)
        assert pods.answered("DEL", "web-0", "c-web-0")[0] == 0
        assert len(records(store)) == 2
    store.close()
