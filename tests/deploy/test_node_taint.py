"""A node's taint until its agent serves, with the rights of deploy/node-taint on a real API server."""

from __future__ import annotations

import json
import urllib.error
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cni.process.node_taint import TAINT, NodeTaint
from tests.support.agent_process import AgentProcess
from tests.support.checker import eventually
from tests.support.cluster import ClusterStore
from tests.support.identity import API_SERVER, agent_token
from tests.tools.apiserver import ApiServer

RIGHTS = Path(__file__).resolve().parents[2] / "deploy" / "node-taint" / "rights.yaml"
OTHER = {"key": "gpu", "value": "yes", "effect": "NoSchedule"}
TAINTS = [{"key": TAINT, "effect": "NoSchedule"}, OTHER]
NODES = "/api/v1/nodes"


@pytest.fixture
def nodes(api_server: ApiServer, store: ClusterStore) -> Iterator[None]:
    """Two, with the rights and the policy in force, which no other test sees."""
    objects = list(yaml.safe_load_all(RIGHTS.read_text()))
    for name in ("node1", "node2"):
        api_server.call(
            "POST", NODES, {"metadata": {"name": name}, "spec": {"taints": TAINTS, "podCIDR": "10.1.0.0/24"}}
        )
    with api_server.applied(*objects):
        yield


def taints(api_server: ApiServer, node: str) -> Any:
    """Without the one that the API server itself gives to a new node."""
    found = api_server.call("GET", f"{NODES}/{node}")["spec"].get("taints", [])
    return [taint for taint in found if taint["key"] in (TAINT, "gpu")]


def test_an_agent_that_serves_takes_its_node_s_taint_off(
    api_server: ApiServer, store: ClusterStore, nodes: None, tmp_path: Path
) -> None:
    with AgentProcess(
        tmp_path / "agent", "--take-taint-off", kubeconfig=api_server.kubeconfig, node="node1"
    ) as agent:
        eventually(lambda: _equal(taints(api_server, "node1"), [OTHER]))
        assert taints(api_server, "node2") == TAINTS
        assert "cannot be taken off" not in agent.log.read_text()


def _equal(found: object, wanted: object) -> None:
    assert found == wanted


Change = Callable[[dict[str, Any]], object]
CHANGES: dict[str, Change] = {
    "another taint": lambda node: node["spec"].update(taints=[TAINTS[0]]),
    "a taint more": lambda node: node["spec"]["taints"].append({"key": "x", "effect": "NoSchedule"}),
    "unschedulable": lambda node: node["spec"].update(unschedulable=True),
    "a label": lambda node: node["metadata"].update(labels={"a": "b"}),
    "an annotation": lambda node: node["metadata"].update(annotations={"a": "b"}),
    "a finalizer": lambda node: node["metadata"].update(finalizers=["a/b"]),
}


def test_it_may_change_nothing_else_of_its_node_and_nothing_of_another(
    api_server: ApiServer, store: ClusterStore, nodes: None
) -> None:
    token = agent_token(api_server.kubeconfig, "node1", audience=API_SERVER)

    def says(name: str, change: Change) -> str:
        node = api_server.call("GET", f"{NODES}/{name}")
        change(node)
        try:
            api_server.call("PUT", f"{NODES}/{name}?dryRun=All", node, token)
        except urllib.error.HTTPError as error:
            return str(json.load(error)["message"])
        return ""

    def right(node: dict[str, Any]) -> None:
        node["spec"]["taints"] = [taint for taint in node["spec"]["taints"] if taint["key"] != TAINT]

    eventually(lambda: _equal(says("node1", right), ""))
    eventually(lambda: _in("no node but the one of its token", says("node2", right)))
    for title, change in CHANGES.items():

        def both(node: dict[str, Any], change: Change = change) -> None:
            right(node)
            change(node)

        assert "changes nothing of its node but" in says("node1", both), title


def _in(part: str, whole: str) -> None:
    assert part in whole


def test_a_node_without_it_is_not_written(api_server: ApiServer, store: ClusterStore, nodes: None) -> None:
    taint = NodeTaint(store, "node1")
    assert taint.take_off()
    before = api_server.call("GET", f"{NODES}/node1")["metadata"]["resourceVersion"]
    assert not taint.take_off()
    assert api_server.call("GET", f"{NODES}/node1")["metadata"]["resourceVersion"] == before
