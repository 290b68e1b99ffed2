"""IPAMClaims on a real API server: an agent with a leader, each with the rights of `deploy/rbac`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from actors.decisions.annotations import NETWORKS
from tests.deploy.test_agent import Pods
from tests.support.agent_process import AgentProcess
from tests.support.checker import eventually, records
from tests.support.cluster import ClusterStore
from tests.support.leaders import controllers, leader_of, wait_linked
from tests.support.rig import pod, pool
from tests.tools.apiserver import ApiServer

DEFINITIONS = Path(__file__).resolve().parents[2] / "deploy" / "networks"


def test_a_claim_keeps_its_address_until_it_goes(
    api_server: ApiServer,
    store: ClusterStore,
    tokens: dict[str, str],
    tmp_path: Path,
) -> None:
    for name in ("network-attachment-definitions", "ipamclaims"):
        api_server.apply(*yaml.safe_load_all((DEFINITIONS / f"{name}.yaml").read_text()))
    config = {
        name: api_server.write_kubeconfig(tmp_path / f"{name}.config", token)
        for name, token in tokens.items()
    }
    store.create(pool("blue", "10.6.0.0/16", "10.6.0.1-10.6.0.9"))
    conf = {"cniVersion": "1.0.0", "type": "macvlan", "allowPersistentIPs": True}
    plumbing = "k8s.cni.cncf.io"
    network = {
        "apiVersion": f"{plumbing}/v1",
        "kind": "NetworkAttachmentDefinition",
        "metadata": {"name": "red", "namespace": "default"},
        "spec": {"config": json.dumps(conf)},
    }
    claim = {
        "apiVersion": f"{plumbing}/v1alpha1",
        "kind": "IPAMClaim",
        "metadata": {"name": "vm.red", "namespace": "default"},
        "spec": {"network": "red", "interface": "eth0"},
    }
    for obj in (network, claim):
        eventually(lambda obj=obj: _create(store, obj))  # type: ignore[misc] # once its kind is served
    element = [{"name": "red", "interface": "eth0", "ipam-claim-reference": "vm.red"}]
    uids = {}
    for name in ("first", "second"):
        made = pod(name)
        made["metadata"]["annotations"][NETWORKS] = json.dumps(element)
        uids[name] = str(store.create(made)["metadata"]["uid"])
    with (
        controllers(tmp_path, config["controller"]) as both,
        AgentProcess(tmp_path / "agent", "--timeout", "10", kubeconfig=config["agent"]) as agent,
    ):
        wait_linked(agent, leader_of(store, both))
        pods = Pods(agent, store)

        def call(command: str, name: str) -> dict[str, Any]:
            code, answer = pods.answered(command, name, f"c-{name}", uid=uids[name])
            assert code == 0, answer
            return answer

        (ip,) = call("ADD", "first")["ips"]
        status = store.get("IPAMClaim", "vm.red", "default")["status"]
        assert status == {"ips": [ip["address"]], "ownerPod": {"name": "first"}}
        call("DEL", "first")
        assert list(records(store)) == ["10.6.0.1"]
        api_server.ask("DELETE", "/api/v1/namespaces/default/pods/first", {"gracePeriodSeconds": 0})

        assert call("ADD", "second")["ips"] == [ip]
        assert store.get("IPAMClaim", "vm.red", "default")["status"]["ownerPod"] == {"name": "second"}
        call("DEL", "second")
        assert list(records(store)) == ["10.6.0.1"]
        store.delete("IPAMClaim", "vm.red", "default")
        eventually(lambda: _nothing(store))
        for process in (*both, agent):
            lines = process.log.read_text().splitlines()
            assert not [line for line in lines if "may not" in line and plumbing in line]


def _create(store: ClusterStore, obj: dict[str, Any]) -> None:
    store.create(obj)


def _nothing(store: ClusterStore) -> None:
    assert records(store) == {}
