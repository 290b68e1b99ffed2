"""The MultusConfig actor on a real store and simulated time: networks follow their objects, and statuses say what became."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest

from actors.errors import InvalidRequest, NotFound
from actors.networks.claims import read_claimant
from actors.networks.multus_config_actor import FORGIVEN, PATIENCE, MultusConfigActor
from actors.resources.multus_config import ATTACHMENT_NAME
from actors.resources.network_attachment import NetworkAttachment
from actors.runtime import Actor, ActorContext
from actors.store.sqlite.store import SQLiteStore
from actors.views.events import EventsActor
from cni.dataplane.own_plugins import check_plugins
from tests.actors.resources.multus_cases import macvlan, multus_config
from tests.simulation.kernel import Kernel, Process
from tests.support.faulty_store import Fault, FaultyStore, How, Write

NETWORK, CONFIG = "NetworkAttachmentDefinition", "SpiderMultusConfig"


class Sources:
    """The store itself as the caches, which are never late; the kind of networks may be missing."""

    def __init__(self, store: SQLiteStore) -> None:
        self._store = store
        self.kind_is_absent = False

    def configs(self) -> Any:
        return tuple(read_claimant(obj) for obj in self._store.list(CONFIG).items)

    def attachments(self) -> Any:
        if self.kind_is_absent:
            return None
        found = [NetworkAttachment.from_object(obj) for obj in self._store.list(NETWORK).items]
        return {(one.namespace, one.name): one for one in found}


class Leader:
    """One process with the actor, and the store with a count of its writes."""

    def __init__(self, path: Path) -> None:
        self.kernel = Kernel()
        self.faults: dict[str, list[How]] = {}
        self.inner = SQLiteStore(path)
        self.store = FaultyStore(self.inner, self._fault)
        self.sources = Sources(self.inner)
        self.process = Process(self.kernel, self._make, cost=0.0, bound=10**6, at_once=frozenset())

    def _make(self, context: ActorContext) -> Actor:
        if context.kind == "events":
            return EventsActor(
                context, store=self.inner, component="controller", host="n1", clock=self._clock
            )
        return MultusConfigActor(
            context,
            sources=self.sources,
            store=self.store,
            check=check_plugins,
            clock=self._clock,
        )

    def _fault(self, write: Write) -> Fault | None:
        planned = self.faults.get(write.kind)
        return Fault(planned.pop(0)) if planned else None

    @property
    def writes(self) -> int:
        return len(self.store.writes)

    def _clock(self) -> float:
        return 1_700_000_000 + self.kernel.now

    def changed(self, *objects: tuple[str, str, str], seconds: float = 0.5) -> None:
        self.process.get_actor("multus-config/local").changed.remote(objects)
        self.run(seconds)

    def run(self, seconds: float) -> None:
        until = self.kernel.now + seconds
        self.kernel.run(until)
        self.kernel.now = until

    def make(self, name: str, spec: dict[str, Any] | None = None, network: str = "") -> None:
        annotations = {ATTACHMENT_NAME: network} if network else {}
        self.inner.create(multus_config(macvlan() if spec is None else spec, name, annotations))
        self.changed((CONFIG, "default", name))

    def network(self, name: str) -> dict[str, Any] | None:
        with contextlib.suppress(NotFound):
            return self.inner.get(NETWORK, name, "default")
        return None

    def ready(self, name: str) -> tuple[str, str, str]:
        """The condition of an object: status, reason, message."""
        (condition,) = self.inner.get(CONFIG, name, "default")["status"]["conditions"]
        return condition["status"], condition["reason"], condition["message"]

    @property
    def events(self) -> dict[str, str]:
        return {one["reason"]: one["message"] for one in self.inner.list("Event").items}


@pytest.fixture
def leader(tmp_path: Path) -> Leader:
    return Leader(tmp_path / "networks.db")


def test_a_network_is_made_and_its_object_says_so(leader: Leader) -> None:
    leader.make("blue", macvlan(vlanID=7))

    made = leader.network("blue")
    assert made is not None
    (owner,) = made["metadata"]["ownerReferences"]
    obj = leader.inner.get(CONFIG, "blue", "default")
    assert (owner["uid"], owner["controller"]) == (obj["metadata"]["uid"], True)
    assert '"master":"eth0.7"' in made["spec"]["config"]
    assert leader.ready("blue")[:2] == ("True", "Made")
    assert (obj["status"]["networkAttachmentDefinition"], obj["status"]["master"]) == ("blue", "eth0.7")
    assert leader.events == {"NetworkMade": "pods are attached by naming default/blue"}


def test_what_is_as_it_should_be_costs_no_write(leader: Leader) -> None:
    leader.make("blue")
    before = leader.writes
    leader.changed((CONFIG, "default", "blue"), (NETWORK, "default", "blue"), (NETWORK, "default", "other"))

    assert leader.writes == before


@pytest.mark.parametrize("how", ["deleted", "edited"])
def test_what_is_done_to_a_network_by_hand_is_undone_at_once_and_told(leader: Leader, how: str) -> None:
    leader.make("blue")
    before = leader.network("blue")
    assert before is not None
    if how == "deleted":
        leader.inner.delete(NETWORK, "blue", "default")
    else:
        leader.inner.update({**before, "spec": {"config": "{}"}})
    leader.changed((NETWORK, "default", "blue"))

    after = leader.network("blue")
    assert after is not None
    assert after["spec"] == before["spec"]
    assert how in leader.events["NetworkRepaired"].replace("changed", "edited")
    assert leader.ready("blue")[0] == "True"


def test_two_that_write_against_each_other_cost_a_few_writes_a_minute(leader: Leader) -> None:
    leader.make("blue")
    leader.run(2 * FORGIVEN)
    before = leader.writes
    for _ in range(600):
        there = leader.network("blue")
        assert there is not None
        leader.inner.update({**there, "spec": {"config": "{}"}})
        leader.changed((NETWORK, "default", "blue"), seconds=0.1)
    assert PATIENCE < leader.writes - before < PATIENCE + 8

    leader.run(2 * FORGIVEN)  # the other one has given up
    after = leader.network("blue")
    assert after is not None
    assert after["spec"]["config"] != "{}"


def test_a_changed_object_changes_its_network(leader: Leader) -> None:
    leader.make("blue")
    obj = leader.inner.get(CONFIG, "blue", "default")
    leader.inner.update({**obj, "spec": macvlan(mtu=1400)})
    leader.changed((CONFIG, "default", "blue"))

    made = leader.network("blue")
    assert made is not None
    assert '"mtu":1400' in made["spec"]["config"]
    assert "NetworkRepaired" not in leader.events


def test_a_network_that_was_there_is_taken_over(leader: Leader) -> None:
    leader.inner.create({
        "apiVersion": "k8s.cni.cncf.io/v1", "kind": NETWORK,
        "metadata": {"name": "blue", "namespace": "default", "annotations": {"a": "b"}}, "spec": {"config": "{}"},
    })  # fmt: skip
    leader.make("blue")

    made = leader.network("blue")
    assert made is not None
    assert made["metadata"]["annotations"] == {"a": "b"}
    assert made["metadata"]["ownerReferences"][0]["name"] == "blue"
    assert "was there and is taken over" in leader.events["NetworkTakenOver"]


def test_of_two_with_one_name_one_has_it_and_the_other_gets_it_when_that_goes(leader: Leader) -> None:
    leader.make("first", network="blue")
    leader.make("second", network="blue")
    assert leader.ready("first")[0] == "True"
    assert leader.ready("second")[:2] == ("False", "NameTaken")
    assert "belongs to SpiderMultusConfig default/first" in leader.events["NetworkNameTaken"]

    leader.inner.delete(CONFIG, "first", "default")
    leader.changed((CONFIG, "default", "first"))

    made = leader.network("blue")
    assert made is not None
    assert made["metadata"]["ownerReferences"][0]["name"] == "second"
    assert leader.ready("second")[0] == "True"


def test_the_name_of_a_network_is_given_up_with_the_annotation(leader: Leader) -> None:
    leader.make("blue", network="azure")
    obj = leader.inner.get(CONFIG, "blue", "default")
    leader.inner.update({**obj, "metadata": {**obj["metadata"], "annotations": {}}})
    leader.changed((CONFIG, "default", "blue"))

    assert leader.network("azure") is None
    assert leader.network("blue") is not None
    assert leader.inner.get(CONFIG, "blue", "default")["status"]["networkAttachmentDefinition"] == "blue"


def test_one_that_cannot_be_understood_says_why_and_hurts_no_other(leader: Leader) -> None:
    leader.inner.create(multus_config({"cniType": "vlan", "macvlan": {}}, "bad"))
    leader.make("good")
    leader.changed((CONFIG, "default", "bad"), (CONFIG, "default", "good"))

    status, reason, text = leader.ready("bad")
    assert (status, reason) == ("False", "Invalid")
    assert "spec.vlan is null" in text
    assert "spec.macvlan is given" in text
    assert leader.network("bad") is None
    assert leader.ready("good")[0] == "True"


def test_what_a_plugin_of_ours_would_refuse_is_not_made(leader: Leader) -> None:
    """The bond's options are the kernel's, which no rule of the API server knows."""
    bond = {"name": "bond0", "mode": 1, "options": "mimon=100"}
    with pytest.raises(InvalidRequest):
        check_plugins({"name": "a", "cniVersion": "1.0.0", "plugins": [
            {"type": "ifacer", "interfaces": ["eth0", "eth1"], "bond": bond}
        ]})  # fmt: skip
    leader.make("blue", macvlan(master=["eth0", "eth1"], bond=bond))

    assert leader.network("blue") is None
    status, reason, text = leader.ready("blue")
    assert (status, reason) == ("False", "Unusable")
    assert "mimon" in text


@pytest.mark.parametrize(
    "chained", [['{"type":"tuning","a":"' + "x" * 60_000 + '"}'] * 3, ['{"type":"../sh"}']]
)
def test_what_nobody_could_attach_to_is_not_made(leader: Leader, chained: list[str]) -> None:
    """Three chained plugins of 60 kB are too much together: they would be written again and again."""
    leader.make("blue", {**macvlan(), "chainCNIJsonData": chained})
    before = leader.writes
    leader.run(300)

    assert leader.network("blue") is None
    assert leader.ready("blue")[:2] == ("False", "Unusable")
    assert leader.writes == before


def test_without_the_kind_of_networks_this_is_said_and_they_are_made_when_it_comes(leader: Leader) -> None:
    leader.sources.kind_is_absent = True
    leader.make("blue")
    assert leader.ready("blue")[:2] == ("False", "NoSuchKind")
    assert "install Multus" in leader.ready("blue")[2]
    leader.run(60)

    leader.sources.kind_is_absent = False
    leader.run(1.5)
    assert leader.network("blue") is not None
    assert leader.ready("blue")[0] == "True"


@pytest.mark.parametrize("kind", [NETWORK, CONFIG])
@pytest.mark.parametrize("how", [How.BEFORE, How.AFTER])
def test_a_write_that_fails_is_made_again(leader: Leader, how: How, kind: str) -> None:
    leader.faults[kind] = [how, how]
    leader.make("blue")
    leader.run(5)

    assert leader.network("blue") is not None
    assert leader.ready("blue")[0] == "True"


def test_everything_is_looked_at_when_a_leader_begins(leader: Leader) -> None:
    for number in range(50):
        leader.inner.create(multus_config(macvlan(), f"net-{number}"))
    leader.process.get_actor("multus-config/local").settle_all.remote()
    leader.run(1)

    assert len(leader.inner.list(NETWORK).items) == 50
    assert all(leader.ready(f"net-{number}")[0] == "True" for number in range(50))
