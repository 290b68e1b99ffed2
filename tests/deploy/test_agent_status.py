"""What the API server lets an agent write of pods and of IPAMClaims: of its node's pods one annotation, of a claim what it
does not say yet."""

from __future__ import annotations

import json
import urllib.error
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from actors.allocation.messages import Sandbox
from actors.errors import OrbweaverError
from actors.resources.pod import NETWORK_STATUS
from actors.runtime import ActorSystem
from actors.store.caches.catalog import Catalog
from actors.store.kubernetes.store import KubernetesStore
from cni.networks.agent_cluster import AgentCluster
from tests.support.checker import eventually
from tests.support.identity import API_SERVER, agent_token
from tests.tools.apiserver import ApiServer

NETWORKS = Path(__file__).resolve().parents[2] / "deploy" / "networks"
PODS = "/api/v1/namespaces/default/pods"
CLAIMS = "/apis/k8s.cni.cncf.io/v1alpha1/namespaces/default/ipamclaims"

Change = Callable[[dict[str, Any]], object]


class StatusWriter:
    """Node1's agent at the API server; what it writes is a dry run."""

    def __init__(self, server: ApiServer, *, bound: bool = True) -> None:
        self._server = server
        self._token = agent_token(server.kubeconfig, "node1", audience=API_SERVER, bound=bound)

    def says(self, path: str, change: Change) -> str:
        """What is said against a change of an object's status, "" for nothing."""
        obj = self._server.call("GET", path)
        change(obj)
        try:
            self._server.call("PUT", f"{path}/status?dryRun=All", obj, self._token)
        except urllib.error.HTTPError as error:
            return str(json.load(error)["message"])
        return ""


# -- pods ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pods(api_server: ApiServer) -> Iterator[None]:
    """One of each node, and one of none, with the rights of the component."""
    with api_server.applied(*yaml.safe_load_all((NETWORKS / "agent-rights.yaml").read_text())):
        for node in ("node1", "node2", ""):
            spec = {"containers": [{"name": "c", "image": "none"}], **({"nodeName": node} if node else {})}
            metadata = {
                "name": f"of-{node or 'none'}",
                "annotations": {"a": "b"},
                "labels": {"a": "b"},
                "finalizers": ["a.b/c"],
            }
            body = {"metadata": metadata, "spec": {**spec, "automountServiceAccountToken": False}}
            made = api_server.call("POST", PODS, body)
            waiting = {"type": "Ready", "status": "False", "lastTransitionTime": "2026-11-27T07:00:00Z"}
            status = {**made["status"], "podIP": "10.6.0.1", "conditions": [waiting]}
            api_server.call("PUT", f"{PODS}/of-{node or 'none'}/status", {**made, "status": status})
        yield
        for node in ("node1", "node2", "none"):
            api_server.call("PATCH", f"{PODS}/of-{node}", {"metadata": {"finalizers": None}})
            api_server.call("DELETE", f"{PODS}/of-{node}?gracePeriodSeconds=0")


def attach(pod: dict[str, Any]) -> None:
    pod["metadata"].setdefault("annotations", {})[NETWORK_STATUS] = "[]"


def and_also(change: Change) -> Change:
    def both(pod: dict[str, Any]) -> None:
        attach(pod)
        change(pod)

    return both


CHANGES: dict[str, Change] = {
    "another annotation": lambda pod: pod["metadata"]["annotations"].update(c="d"),
    "an annotation changed": lambda pod: pod["metadata"]["annotations"].update(a="c"),
    "an annotation taken away": lambda pod: pod["metadata"]["annotations"].pop("a"),
    "an annotation in the place of another": lambda pod: pod["metadata"].update(
        annotations={NETWORK_STATUS: "[]", "c": "d"}
    ),
    "a label": lambda pod: pod["metadata"]["labels"].update(c="d"),
    "no labels": lambda pod: pod["metadata"].pop("labels"),
    "a finalizer taken away": lambda pod: pod["metadata"].pop("finalizers"),
    "its address": lambda pod: pod["status"].update(podIP="10.6.0.2"),
    "its phase": lambda pod: pod["status"].update(phase="Failed"),
    "its readiness": lambda pod: pod["status"]["conditions"][0].update(status="True"),
}


def test_an_agent_writes_one_annotation_of_its_node_s_pods(api_server: ApiServer, pods: None) -> None:
    agent = StatusWriter(api_server)
    eventually(lambda: _equal(agent.says(f"{PODS}/of-node1", attach), ""))  # once it has the right
    assert "of a pod of node node2" in agent.says(f"{PODS}/of-node2", attach)
    assert "of a pod that is on no node" in agent.says(f"{PODS}/of-none", attach)
    assert "names no node" in StatusWriter(api_server, bound=False).says(f"{PODS}/of-none", attach)
    assert "names no node" in StatusWriter(api_server, bound=False).says(f"{PODS}/of-node1", attach)


@pytest.mark.parametrize("title", CHANGES)
def test_an_agent_changes_nothing_else_of_a_pod(api_server: ApiServer, pods: None, title: str) -> None:
    agent = StatusWriter(api_server)
    eventually(lambda: _equal(agent.says(f"{PODS}/of-node1", attach), ""))
    said = agent.says(f"{PODS}/of-node1", and_also(CHANGES[title]))
    assert "changes nothing of a pod but the annotation k8s.v1.cni.cncf.io/network-status" in said


def test_what_an_agent_publishes_is_within_that(api_server: ApiServer, pods: None) -> None:
    """The agent's own code, with its node's token."""
    token = agent_token(api_server.kubeconfig, "node1", audience=API_SERVER)
    system, store = ActorSystem("agent"), KubernetesStore(api_server.access(token))
    cluster = AgentCluster(system, store, Catalog(store, has_pods=True), has_pods=True)

    def publish(name: str) -> None:
        uid = api_server.call("GET", f"{PODS}/{name}")["metadata"]["uid"]
        cluster.publish(Sandbox("c" * 64, "eth0", "default", name, uid, "/run/netns/x"), '[{"name": "red"}]')

    try:
        eventually(lambda: publish("of-node1"))
        with pytest.raises(OrbweaverError, match="of a pod of node node2"):
            publish("of-node2")
    finally:
        store.close()
        system.shutdown()
    metadata = api_server.call("GET", f"{PODS}/of-node1")["metadata"]
    assert metadata["annotations"] == {"a": "b", NETWORK_STATUS: '[{"name": "red"}]'}


# -- claims -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def claims(api_server: ApiServer) -> Iterator[None]:
    """One without addresses, and one that has an IPv4 address and what another controller says of it."""
    api_server.apply(yaml.safe_load((NETWORKS / "ipamclaims.yaml").read_text()))
    told = {
        "type": "IPsAllocated",
        "status": "True",
        "reason": "R",
        "message": "",
        "lastTransitionTime": "2026-11-27T07:00:00Z",
    }
    statuses: dict[str, dict[str, Any]] = {
        "fresh": {},
        "old": {"ips": ["10.6.0.5/16"], "ownerPod": {"name": "vm-1"}, "conditions": [told]},
    }
    for name, status in statuses.items():
        spec = {"network": "red", "interface": "eth0"}
        metadata = {"name": name, "namespace": "default"}
        body = {
            "apiVersion": "k8s.cni.cncf.io/v1alpha1",
            "kind": "IPAMClaim",
            "metadata": metadata,
            "spec": spec,
        }
        made = api_server.call("POST", CLAIMS, body)
        if status:
            api_server.call("PUT", f"{CLAIMS}/{name}/status", {**made, "status": status})
    yield
    for name in statuses:
        api_server.call("DELETE", f"{CLAIMS}/{name}")


def names(*ips: str, **more: Any) -> Change:
    """The addresses that a claim's status names now, and the pod that has them."""
    status = {"ips": list(ips), "ownerPod": {"name": "vm-2"}, **more}
    return lambda claim: claim.update(status={**claim.get("status", {}), **status})


FIRST, OTHERS = "may write addresses into an IPAMClaim that has none", "change nothing in an IPAMClaim"


@pytest.mark.parametrize(
    ("name", "change", "why"),
    [
        ("fresh", names("10.6.0.5/16"), ""),
        ("fresh", names("10.6.0.5/16", "fd00::5/64"), ""),
        ("fresh", names(), ""),
        ("fresh", names("10.6.0.5/16", conditions=[]), OTHERS),
        ("old", names("10.6.0.5/16"), ""),
        ("old", names("10.6.0.5/24"), ""),
        ("old", names("10.6.0.5/16", "fd00::5/64"), ""),
        ("old", names("fd00::5/64", "10.6.0.5/16"), ""),
        ("old", names("10.6.0.6/16"), FIRST),
        ("old", names(), FIRST),
        ("old", names("10.6.0.6/16", "10.6.0.5/16"), FIRST),
        ("old", names("fd00::5/64"), FIRST),
        ("old", names("10.6.0.5/16", conditions=[]), OTHERS),
        ("old", lambda claim: claim.update(status={"ips": ["10.6.0.5/16"]}), OTHERS),
        ("old", lambda claim: claim.pop("status"), FIRST),
    ],
)
def test_an_agent_writes_what_a_claim_does_not_say_yet(
    api_server: ApiServer, claims: None, name: str, change: Change, why: str
) -> None:
    agent = StatusWriter(api_server)

    def said() -> None:  # the definition of the kind may be new to the policies
        answer = agent.says(f"{CLAIMS}/{name}", change)
        assert why in answer if why else answer == "", answer

    eventually(said)


def test_a_token_that_names_no_node_writes_no_claim(api_server: ApiServer, claims: None) -> None:
    nameless = StatusWriter(api_server, bound=False)
    eventually(lambda: _in("names no node", nameless.says(f"{CLAIMS}/fresh", names("10.6.0.5/16"))))


def _equal(answer: str, wanted: str) -> None:
    assert answer == wanted


def _in(part: str, whole: str) -> None:
    assert part in whole
