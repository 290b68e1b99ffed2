"""Controller, agent and operator with the rights of `deploy/rbac`, on a real API server: they suffice, and are no more."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from actors.cluster.leadership import NAMESPACE
from actors.cluster.webhook_certificates import SECRET
from actors.errors import InvalidObject, OrbweaverError
from actors.store.kubernetes.store import KubernetesStore
from tests.deploy.test_agent import Pods
from tests.deploy.test_agent_policies import endpoint
from tests.deploy.test_webhook_certificates import bundle, installed
from tests.support.agent_process import PROGRAM, AgentProcess
from tests.support.checker import eventually, records
from tests.support.cluster import ClusterStore
from tests.support.leaders import controllers, leader_of, linked, wait_linked
from tests.support.rig import pod, pool
from tests.tools.apiserver import ApiServer

GOLDEN = Path(__file__).parent / "rights"
DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
PLACES = (NAMESPACE, "default")
ROLES = {"agent": "orbweaver-agent", "controller": "orbweaver-controller", "check": "orbweaver-check"}


def rules(server: ApiServer, token: str, namespace: str) -> list[str]:
    """What `kubectl auth can-i --list` shows, in lines that can be compared."""
    path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews"
    status = server.call("POST", path, {"spec": {"namespace": namespace}}, token)["status"]
    assert not status["incomplete"]
    found = set()
    for rule in status["resourceRules"]:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                what = f"{resource}.{group}" if group else resource
                names = f" [{', '.join(sorted(rule['resourceNames']))}]" if rule.get("resourceNames") else ""
                found |= {f"{what}{names}: {verb}" for verb in rule["verbs"]}
    for rule in status["nonResourceRules"]:
        found |= {f"{url}: {verb}" for url in rule["nonResourceURLs"] for verb in rule["verbs"]}
    return sorted(found)


@pytest.mark.parametrize("role", ROLES)
def test_a_role_may_what_its_list_says_and_no_more(
    api_server: ApiServer, tokens: dict[str, str], role: str
) -> None:
    """After a wanted change of a role: write what this prints into the file, and read it."""

    def as_listed() -> None:
        lines = []
        for namespace in PLACES:
            everybody = set(rules(api_server, tokens["anybody"], namespace))
            own = [line for line in rules(api_server, tokens[role], namespace) if line not in everybody]
            lines += [f"In namespace {namespace}:", *own, ""]
        text = "\n".join(lines)
        assert text == (GOLDEN / f"{role}.txt").read_text(), text

    eventually(as_listed)


@pytest.mark.parametrize(
    "component", ["networks/agent-rights", "node-taint/rights"], ids=lambda path: path.partition("/")[0]
)
def test_a_component_gives_agents_what_its_list_says_and_no_more(
    api_server: ApiServer, tokens: dict[str, str], component: str
) -> None:
    """The same of what a component gives beside."""
    everything = {namespace: set(rules(api_server, tokens["agent"], namespace)) for namespace in PLACES}

    def as_listed() -> None:
        lines = []
        for namespace, before in everything.items():
            own = [line for line in rules(api_server, tokens["agent"], namespace) if line not in before]
            lines += [f"In namespace {namespace}:", *own, ""]
        text = "\n".join(lines)
        name = component.partition("/")[0]
        assert text == (GOLDEN / f"agent-{name}.txt").read_text(), text

    objects = yaml.safe_load_all((DEPLOY / f"{component}.yaml").read_text())
    with api_server.applied(*objects):
        eventually(as_listed)
    eventually(lambda: _has(api_server, tokens["agent"], everything))


def _has(server: ApiServer, token: str, everything: dict[str, set[str]]) -> None:
    assert {namespace: set(rules(server, token, namespace)) for namespace in everything} == everything


def test_an_operator_checks_and_looks_an_address_up(
    api_server: ApiServer, store: ClusterStore, tokens: dict[str, str], tmp_path: Path
) -> None:
    config = api_server.write_kubeconfig(tmp_path / "config", tokens["check"])
    for words in (("check",), ("ip", "show", "10.6.0.1")):
        done = subprocess.run(
            [*PROGRAM, *words, "--kubeconfig", str(config)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, (words, done.stdout, done.stderr)


def test_the_rights_suffice_and_agents_read_no_secret(
    api_server: ApiServer, store: ClusterStore, tokens: dict[str, str], tmp_path: Path
):
    config = {
        name: api_server.write_kubeconfig(tmp_path / f"{name}.config", token)
        for name, token in tokens.items()
    }
    store.create(pool("blue", "10.6.0.0/16", "10.6.0.1-10.6.0.9"))
    api_server.ask("POST", f"/api/v1/namespaces/{NAMESPACE}/secrets", {"metadata": {"name": SECRET}})
    with installed(api_server), controllers(tmp_path, config["controller"]) as both:
        eventually(lambda: _published(api_server))
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
            assert pods.answered("DEL", "web", "c-web")[0] == 0
            eventually(lambda: _count(store, 2))
            assert linked(agent)
        assert len(records(store)) == 2
        for process in (*both, agent):
            assert "may not" not in process.log.read_text()

    for where, node in {"here": "node1", "there": "node2"}.items():
        store.create(pod(where))
        store.create(endpoint(where, node))
    as_agent = ClusterStore(api_server.access(tokens["agent"]))
    as_agent.delete("SpiderEndpoint", "here", "default")
    shown = (tmp_path / "agent" / "leader-token").read_text()
    said = agent.log.read_text()
    assert '"level": "debug"' in said
    assert not any(secret in said for secret in (*tokens.values(), shown, "PRIVATE KEY"))
    with pytest.raises(
        InvalidObject, match="agent of node node1 may not write the SpiderEndpoint of a pod of node node2"
    ):
        as_agent.delete("SpiderEndpoint", "there", "default")
    for forbidden in (
        lambda: as_agent.delete("Pod", "here", "default"),
        lambda: as_agent.get("Secret", SECRET, NAMESPACE),
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


def _published(server: ApiServer) -> None:
    assert "BEGIN CERTIFICATE" in bundle(server)


def _count(store: KubernetesStore, count: int) -> None:
    assert (store.get("SpiderIPPool", "blue").get("status") or {}).get("allocatedIPCount") == count
