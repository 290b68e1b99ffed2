"""What is kept for a pod's name, a claim, an application and each of several interfaces stays the same address, whichever of
the two versions the agent and the controller are.

Both are real processes with the accounts of `deploy/rbac`, under its policies, which are the newer version's.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from actors.decisions.annotations import NETWORKS
from tests.support.agent_process import AgentProcess
from tests.support.application_churn import FLOOR, deployment, subnet
from tests.support.checker import eventually, records
from tests.support.cluster import ClusterStore
from tests.support.cni_client import Answer, ask, encode
from tests.support.fleet import Fleet, fleet, on_node
from tests.support.identity import API_SERVER, agent_token
from tests.support.leaders import ControllerProcess, leader_of, linked, wait_linked
from tests.support.rig import pod, pool, statefulset
from tests.tools import release
from tests.tools.apiserver import ApiServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

PLUMBING = "k8s.cni.cncf.io"
NETWORK = {
    "apiVersion": f"{PLUMBING}/v1",
    "kind": "NetworkAttachmentDefinition",
    "metadata": {"name": "red", "namespace": "default"},
    "spec": {"config": json.dumps({"cniVersion": "1.0.0", "type": "macvlan", "allowPersistentIPs": True})},
}
CLAIM = {
    "apiVersion": f"{PLUMBING}/v1alpha1",
    "kind": "IPAMClaim",
    "metadata": {"name": "vm.red", "namespace": "default"},
    "spec": {"network": "red", "interface": "eth0"},
}
BOTH = json.dumps([{"interface": "eth0", "ipv4": ["v4"]}, {"interface": "net1", "ipv4": ["back"]}])
POOLS = (
    pool("v4", "10.6.0.0/16", "10.6.0.40-10.6.0.90"),
    pool("back", "10.7.0.0/16", "10.7.0.40-10.7.0.90", default=False),
    subnet("floor", "10.8.0.0/16", "10.8.1.1-10.8.1.99"),
)


class Pods:
    """Pods that come again and again under the names by which something is kept for them."""

    def __init__(self, one: Fleet, agent: AgentProcess) -> None:
        self._one, self._agent = one, agent
        self._round = 0

    def come_and_go(self) -> dict[str, list[str]]:
        """Each is made, gets its addresses at the first attempt, and goes; returns them."""
        self._round += 1
        return {name: self._one_life(name, obj) for name, obj in self._objects().items()}

    def _objects(self) -> dict[str, dict[str, Any]]:
        claiming = pod(f"launcher-{self._round}")
        element = [{"name": "red", "interface": "eth0", "ipam-claim-reference": "vm.red"}]
        claiming["metadata"]["annotations"][NETWORKS] = json.dumps(element)
        return {
            "db-0": pod("db-0", statefulset="db", ippools=BOTH),
            "claim": claiming,
            "web": pod("web-a", owner="apps/v1 Deployment web", subnet=FLOOR),
        }

    def _one_life(self, name: str, obj: dict[str, Any]) -> list[str]:
        metadata = self._one.store.create(on_node(obj, "node1"))["metadata"]
        interfaces = ("eth0", "net1") if name == "db-0" else ("eth0",)
        container = f"{name}-{self._round}"
        addresses: list[str] = []
        for interface in interfaces:
            addresses += self.call("ADD", container, interface, metadata).addresses
        for interface in interfaces:
            self.call("DEL", container, interface, metadata)
        path = f"/api/v1/namespaces/default/pods/{metadata['name']}"
        self._one.server.ask("DELETE", path, {"gracePeriodSeconds": 0})
        return addresses

    def call(self, command: str, container: str, interface: str, metadata: dict[str, Any]) -> Answer:
        request = encode(command, container, interface, pod=metadata["name"], uid=metadata["uid"])
        answer = ask(self._agent.socket, request)
        assert answer.status == 0, answer.json
        return answer


def test_what_is_kept_stays_through_every_pair_of_versions(api_server: ApiServer, tmp_path: Path) -> None:
    old = release.last().packages()
    for name in ("network-attachment-definitions", "ipamclaims"):
        path = Path(__file__).parents[2] / "deploy" / "networks" / f"{name}.yaml"
        api_server.apply(*yaml.safe_load_all(path.read_text()))
    with fleet(tmp_path, api_server, *POOLS) as one:
        for obj in (NETWORK, CLAIM, statefulset("db", 1), deployment("web", 1, subnet=FLOOR)):
            eventually(lambda obj=obj: _create(one.store, obj))  # type: ignore[misc] # once its kind is served
        token = agent_token(
            api_server.kubeconfig, "node1", account="orbweaver-controller", audience=API_SERVER, bound=False
        )
        config = api_server.write_kubeconfig(tmp_path / "controller.config", token)
        agent = one.agent("node1", packages=old, timeout=40, budget=10)
        with ControllerProcess(tmp_path / "controller", config, packages=old) as controller:
            wait_linked(agent, leader_of(one.store, [controller]))
            pods = Pods(one, agent)
            stays = one.store.create(on_node(pod("stays", ippools=BOTH), "node1"))["metadata"]
            running = [pods.call("ADD", "s", name, stays).addresses for name in ("eth0", "net1")]
            kept = pods.come_and_go()
            assert len(kept["db-0"]) == 2
            # Agent's version, controller's: from the older to the newer, and back another way.
            for versions in ((None, old), (None, None), (old, None), (old, old)):
                for process, packages in zip((agent, controller), versions, strict=True):
                    assert process.stop() == 0
                    process.become(packages)
                controller.start()
                agent.start()
                wait_linked(agent, leader_of(one.store, [controller]))
                again = pods.come_and_go()
                assert {name: again[name] for name in ("db-0", "claim")} == {
                    name: kept[name] for name in ("db-0", "claim")
                }
                assert again["web"][0].startswith("10.8.1.")
                assert [pods.call("ADD", "s", name, stays).addresses for name in ("eth0", "net1")] == running
                assert linked(agent) == controller.identity
            for interface in ("eth0", "net1"):
                pods.call("DEL", "s", interface, stays)
            one.store.delete("IPAMClaim", "vm.red", "default")
            one.store.delete("StatefulSet", "db", "default")
            one.store.delete("Deployment", "web", "default")
            eventually(lambda: _nothing(one.store))
        for process in (agent, controller):
            lines = process.log.read_text().splitlines()
            assert not [line for line in lines if "may not" in line and "secrets" not in line]


def _create(store: ClusterStore, obj: dict[str, Any]) -> None:
    store.create(obj)


def _nothing(store: ClusterStore) -> None:
    assert records(store) == {}
    assert {obj["metadata"]["name"] for obj in store.list("SpiderIPPool").items} == {"v4", "back"}
