"""An agent and a controller that cannot start: they say what is missing and what to do, and end when they are asked to."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

import cni.process.base
from actors.errors import NoSuchResource, StoreUnavailable
from actors.store.kubernetes.store import KubernetesStore
from cni.process.controller import Controller
from tests.actors.store.contract_suite import fresh
from tests.deploy.test_agent import READ, rule
from tests.support.agent_process import AgentProcess
from tests.support.checker import eventually
from tests.support.leaders import in_process
from tests.tools.apiserver import ApiServer

GROUP = "spiderpool.spidernet.io"
ALL_BUT_NODES = (
    rule(GROUP, ["spiderippools", "spiderreservedips", "spidercoordinators", "spideripblocks"], *READ),
    rule("", ["pods", "namespaces"], *READ),
    rule("apps", ["statefulsets"], *READ),
    # Which of these kinds there are depends on the tests before.
    rule("k8s.cni.cncf.io", ["network-attachment-definitions", "ipamclaims"], *READ),
    rule("kubevirt.io", ["virtualmachines", "virtualmachineinstances"], *READ),
)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cni.process.base, "START_TIMEOUT", 30.0)


@pytest.mark.usefixtures("impatient")
def test_a_start_without_a_right_names_kind_rule_and_remedy(api_server: ApiServer) -> None:
    token = api_server.service_account(fresh("poor"), *ALL_BUT_NODES)
    store = KubernetesStore(api_server.access(token))
    process = Controller(store, in_process())
    try:
        with pytest.raises(StoreUnavailable) as caught:
            process.start()
    finally:
        process.stop()
        store.close()

    (told,) = caught.value.details
    assert "did not list Node within 30 s" in caught.value.message
    assert told.startswith("Node: user system:serviceaccount:default:poor")
    assert '"resources": ["nodes"], "verbs": ["list"]' in told
    assert "kubectl apply -k deploy/" in told


@pytest.mark.usefixtures("impatient")
def test_a_start_without_our_kinds_says_how_to_make_them(
    bare_api_server: ApiServer, api_server: ApiServer
) -> None:
    """One CRD of ours is taken away for the while."""
    name = f"spiderreservedips.{GROUP}"
    path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}"
    definition = bare_api_server.call("GET", path)
    store = KubernetesStore(api_server.access())
    process = Controller(store, in_process())
    api_server.call("DELETE", path)
    try:
        eventually(lambda: _gone(api_server, path))
        eventually(lambda: _unknown(store, "SpiderReservedIP"))
        with pytest.raises(StoreUnavailable, match=r"kubectl apply -f deploy/crds") as caught:
            process.start()
        assert "did not list SpiderReservedIP within" in caught.value.message
    finally:
        process.stop()
        store.close()
        eventually(lambda: _gone(api_server, path))
        definition["metadata"] = {"name": name}
        del definition["status"]
        api_server.apply(definition)
        # The rules for this kind count again a moment later.
        spec = {"ips": ["no address"]}
        refused = {"apiVersion": f"{GROUP}/v2beta1", "kind": "SpiderReservedIP", "metadata": {"name": "x"}}
        api_server.wait_refused({**refused, "spec": spec})


def _gone(server: ApiServer, path: str) -> None:
    assert server.ask("GET", path)[0] == 404


def _unknown(store: KubernetesStore, kind: str) -> None:
    try:
        store.list(kind)
    except NoSuchResource:
        return
    raise AssertionError(f"{kind} is served still")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_start_that_is_asked_to_end_ends(
    api_server: ApiServer, tmp_path: Path, number: signal.Signals
) -> None:
    """Its lists are refused for ever, and it would look for 30 s."""
    token = api_server.service_account(fresh("nobody"))
    config = api_server.write_kubeconfig(tmp_path / "config", token)
    agent = AgentProcess(tmp_path / "agent", kubeconfig=config)
    agent.launch()
    eventually(lambda: _said(agent, "may not list"))
    agent.signal(number)

    assert agent.wait() == 0
    assert "was asked to end before it had started" in agent.said()
    assert "did not list" not in agent.said()


def _said(agent: AgentProcess, text: str) -> None:
    assert text in agent.said()
