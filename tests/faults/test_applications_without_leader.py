"""What becomes of applications' pods while no controller leads: those that have a pool start, new ones wait for the next."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from actors.store.contract import Object
from tests.support.agent_process import AgentProcess
from tests.support.application_churn import FLOOR, automatic, deployment, subnet
from tests.support.checker import eventually
from tests.support.cni_client import add, ask, encode
from tests.support.fleet import Fleet, fleet, on_node
from tests.support.leaders import leader_of, wait_linked
from tests.support.rig import pod
from tests.tools.apiserver import ApiServer

NODE = "node1"


def replicaset(application: Object) -> Object:
    """As the Deployment's controller makes one."""
    meta = application["metadata"]
    owner = {"apiVersion": "apps/v1", "kind": "Deployment", "name": meta["name"], "uid": meta["uid"]}
    template = application["spec"]["template"]
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": f"{meta['name']}-1",
            "namespace": meta["namespace"],
            "ownerReferences": [{**owner, "controller": True}],
        },
        "spec": {"replicas": 1, "selector": application["spec"]["selector"], "template": template},
    }


def started(one: Fleet, agent: AgentProcess, name: str, application: str) -> Any:
    """What the ADD of a pod of the application's ReplicaSet is answered."""
    asked = pod(name, owner=f"apps/v1 ReplicaSet {application}-1", subnet=FLOOR)
    made = one.store.create(on_node(asked, NODE))
    return add(agent.socket, one.journal, (f"c-{name}", "eth0"), pod=name, uid=made["metadata"]["uid"])


def test_a_known_application_starts_pods_and_a_new_one_waits_for_a_leader(
    api_server: ApiServer, tmp_path: Path
) -> None:
    floor = subnet("floor", "10.6.0.0/16", "10.6.1.1-10.6.1.99")
    # The controllers here are the administrator, whom the policy takes for a person that edits a pool.
    with api_server.without_policy("orbweaver-automatic-pools"), fleet(tmp_path, api_server, floor) as one:
        controller, agent = one.controller(), one.agent(NODE, timeout=20)
        wait_linked(agent, leader_of(one.store, [controller]))
        known = one.store.create(deployment("known", 3, subnet=FLOOR))
        one.store.create(replicaset(known))
        eventually(lambda: _is(len(automatic(one.store)) == 1))
        assert started(one, agent, "known-a", "known").status == 0
        controller.kill()

        answer = started(one, agent, "known-b", "known")
        assert answer.status == 0, answer
        new = one.store.create(deployment("new", 1, subnet=FLOOR))
        one.store.create(replicaset(new))
        refused = started(one, agent, "new-a", "new")
        assert refused.status != 0
        assert refused.json["code"] == 11
        assert "made by the leading controller, and none can be reached" in refused.json["msg"]

        controller.start()
        uid = one.store.get("Pod", "new-a", "default")["metadata"]["uid"]
        request = encode("ADD", "c-new-a", pod="new-a", uid=uid)
        eventually(lambda: _is(ask(agent.socket, request).status == 0))
        one.store.delete("ReplicaSet", "known-1", "default")
        one.store.delete("ReplicaSet", "new-1", "default")


def _is(so: bool) -> None:
    assert so
