"""The Coordinator actor on a real store and simulated time: the status follows the cluster, and changes are told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from actors.decisions.node_cni import NodeCniTypes
from actors.runtime import Actor, ActorContext
from actors.store.sqlite.store import SQLiteStore
from actors.views.coordinator import GATHER, INTERVAL, CoordinatorActor
from actors.views.events import EventsActor
from tests.simulation.kernel import Kernel, Process
from tests.support.faulty_store import FaultyStore

KUBEADM = "networking:\n  podSubnet: 10.244.0.0/16\n  serviceSubnet: 10.96.0.0/12\n"


class Leader:
    """One process with the actor; `nodes`: what agents tell; `leads`: whether it may write."""

    def __init__(self, path: Path) -> None:
        self.kernel = Kernel()
        self.inner = SQLiteStore(path)
        self.store = FaultyStore(self.inner)
        self.nodes = NodeCniTypes({})
        self.leads = True
        self.process = Process(self.kernel, self._make, cost=0.0, bound=10**6, at_once=frozenset())
        self.config("kubeadm-config", ClusterConfiguration=KUBEADM)

    def _make(self, context: ActorContext) -> Actor:
        if context.kind == "events":
            return EventsActor(context, store=self.inner, component="controller", host="n1")
        return CoordinatorActor(
            context, store=self.store, nodes=lambda: self.nodes, may_write=lambda: self.leads
        )

    def config(self, name: str, **data: str) -> None:
        metadata = {"name": name, "namespace": "kube-system"}
        self.inner.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})

    def changed(self, seconds: float = 2 * GATHER) -> None:
        self.process.get_actor("coordinator/local").changed.remote()
        self.run(seconds)

    def run(self, seconds: float) -> None:
        until = self.kernel.now + seconds
        self.kernel.run(until)
        self.kernel.now = until

    @property
    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = self.inner.get("SpiderCoordinator", "default")["status"]
        return found

    @property
    def events(self) -> dict[str, str]:
        return {one["reason"]: one["message"] for one in self.inner.list("Event").items}


@pytest.fixture
def leader(tmp_path: Path) -> Leader:
    return Leader(tmp_path / "coordinator.db")


def test_the_object_is_made_and_its_status_written_once(leader: Leader) -> None:
    leader.changed()
    assert leader.status == {
        "phase": "Synced", "podCIDRType": "none", "overlayPodCIDR": [], "serviceCIDR": ["10.96.0.0/12"]
    }  # fmt: skip
    writes = len(leader.store.writes)
    leader.changed()
    leader.run(3 * INTERVAL)

    assert len(leader.store.writes) == writes
    assert leader.events == {}


def test_many_changes_at_once_are_one_look(leader: Leader) -> None:
    """All nodes tell a new leader of their networks at once."""
    leader.changed()
    for number in range(200):
        leader.nodes = NodeCniTypes({"cluster": [f"n{one}" for one in range(number + 1)]})
        leader.process.get_actor("coordinator/local").changed.remote()
    writes = len(leader.store.writes)
    leader.run(2 * GATHER)

    assert leader.status["overlayPodCIDR"] == ["10.244.0.0/16"]
    assert len(leader.store.writes) == writes + 1
    assert (
        leader.events["PodCIDRTypeChanged"]
        == "the pods' CIDRs are those of cluster now, and were those of none"
    )


def test_who_does_not_lead_writes_nothing(leader: Leader) -> None:
    leader.leads = False
    leader.changed()
    leader.run(3 * INTERVAL)

    assert leader.store.writes == []


def test_a_new_leader_keeps_what_was_found_until_the_nodes_have_told_it(leader: Leader) -> None:
    leader.nodes = NodeCniTypes({"cluster": ["n1"]})
    leader.changed()
    leader.nodes = NodeCniTypes({}, early=True)
    leader.changed(INTERVAL)
    assert leader.status["podCIDRType"] == "cluster"

    leader.nodes = NodeCniTypes({})  # nobody has told anything for long
    leader.run(2 * INTERVAL)
    assert leader.status["podCIDRType"] == "none"


def test_what_is_missing_and_which_nodes_differ_is_told(leader: Leader) -> None:
    config = leader.inner.get("ConfigMap", "kubeadm-config", "kube-system")
    services = {"ClusterConfiguration": "networking:\n  serviceSubnet: 10.96.0.0/12\n"}
    leader.inner.update({**config, "data": services})
    leader.nodes = NodeCniTypes({"cluster": ["n1", "n2"], "none": ["n3"]})
    leader.changed()

    assert leader.status["phase"] == "NotReady"
    assert "networking.podSubnet" in leader.events["ClusterNotReady"]
    assert leader.events["NodesDiffer"].endswith("cluster on 2 nodes, none on n3")


def test_a_store_that_is_away_leaves_the_status_as_it_is(leader: Leader) -> None:
    leader.changed()
    before = leader.status
    leader.store.away = True
    leader.nodes = NodeCniTypes({"cluster": ["n1"]})
    leader.changed()
    assert leader.status == before

    leader.store.away = False
    leader.run(2 * INTERVAL)
    assert leader.status["podCIDRType"] == "cluster"
