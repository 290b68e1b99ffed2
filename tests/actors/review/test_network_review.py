"""The leader's word on SpiderMultusConfigs that are about to be stored: whether the network that they name is another's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from actors.networks.attachment import attachment
from actors.networks.claims import read_claimant
from actors.resources.metadata import Owner
from actors.resources.multus_config import ATTACHMENT_NAME, MultusConfig
from actors.resources.network_attachment import API_VERSION, KIND
from actors.review.network_review import NetworkRequest, NetworkReviewActor
from actors.store.sqlite.store import SQLiteStore
from tests.actors.networks.test_multus_config_actor import Sources
from tests.actors.resources.multus_cases import macvlan, multus_config
from tests.support.review_rig import ReviewRig


def config(name: str, network: str = "blue", **section: Any) -> dict[str, Any]:
    return multus_config(macvlan(**section), name, {ATTACHMENT_NAME: network})


class Leader(ReviewRig):
    """A NetworkReview whose caches have what the store has, unless a test keeps what they had (`late`)."""

    def __init__(self, store: SQLiteStore) -> None:
        self.sources = Sources(store)
        super().__init__(
            store,
            "network-review",
            lambda context, _: NetworkReviewActor(context, store=store, sources=self.sources),
        )

    def review(self, obj: dict[str, Any], before: dict[str, Any] | None = None) -> str:
        request = NetworkRequest.of(obj, before)
        return "" if request is None else self.why(request)

    def late(self) -> None:
        """The caches hear of nothing from here on."""
        configs, attachments = self.sources.configs(), self.sources.attachments()
        self.sources.configs = lambda: configs  # type: ignore[method-assign]
        self.sources.attachments = lambda: attachments  # type: ignore[method-assign]

    def network(self, owner: dict[str, Any] | None = None, config: str = "", name: str = "blue") -> None:
        """A NetworkAttachmentDefinition that is there: made from a stored SpiderMultusConfig, or by somebody else."""
        if owner is not None:
            made = read_claimant(owner)
            assert isinstance(made, MultusConfig)
            self.store.create(attachment(made))
            return
        spec = {"config": config} if config else {}
        metadata = {"name": name, "namespace": "default"}
        self.store.create({"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": spec})


@pytest.fixture
def leader(tmp_path: Path) -> Iterator[Leader]:
    store = SQLiteStore(tmp_path / "orbweaver.db")
    made = Leader(store)
    yield made
    made.stop()
    store.close()


def test_a_name_that_nobody_has_is_let_in(leader: Leader) -> None:
    assert leader.review(config("mine")) == ""
    leader.sources.kind_is_absent = True
    assert leader.review(config("mine")) == ""


def test_the_network_of_another_object_is_refused_naming_it(leader: Leader) -> None:
    stored = leader.store.create(config("theirs"))
    leader.network(owner=stored)
    said = leader.review(config("mine"))

    assert said.startswith(
        "SpiderMultusConfig default/mine: NetworkAttachmentDefinition default/blue belongs to "
    )
    assert "SpiderMultusConfig default/theirs; one of them needs another name" in said
    assert leader.review(config("mine", "green")) == ""
    # The same name in another namespace is another network.
    other = config("mine")
    other["metadata"]["namespace"] = "shop"
    assert leader.review(other) == ""


def test_a_name_that_another_object_wants_too_is_refused_before_there_is_a_network(leader: Leader) -> None:
    leader.store.create(config("theirs"))
    assert "belongs to SpiderMultusConfig default/theirs" in leader.review(config("mine"))


def test_the_network_of_another_kind_of_owner_is_refused(leader: Leader) -> None:
    made = read_claimant({**config("x"), "metadata": {**config("x")["metadata"], "uid": "u"}})
    assert isinstance(made, MultusConfig)
    obj = attachment(made)
    owner = Owner("operator.example.com/v1", "Network", "theirs", "u-1")
    obj["metadata"]["ownerReferences"] = [
        {
            "apiVersion": owner.api_version,
            "kind": owner.kind,
            "name": owner.name,
            "uid": owner.uid,
            "controller": True,
        }
    ]
    leader.store.create(obj)

    assert "belongs to Network theirs, which would undo what is written" in leader.review(config("mine"))


def test_one_made_by_hand_is_refused_unless_it_says_the_same(leader: Leader) -> None:
    leader.network(config='{"cniVersion": "1.0.0", "name": "blue", "type": "bridge"}')
    said = leader.review(config("mine"))
    assert (
        "NetworkAttachmentDefinition default/blue was made by somebody else and says something else" in said
    )
    assert "or delete that network first" in said

    wanted = read_claimant(config("mine", "green"))
    assert isinstance(wanted, MultusConfig)
    leader.network(config=attachment(wanted)["spec"]["config"], name="green")
    assert leader.review(config("mine", "green")) == ""


def test_an_edit_that_keeps_the_name_is_let_in(leader: Leader) -> None:
    """Also where the two were let in while no controller could be asked: their status says so."""
    leader.store.create(config("theirs"))
    assert leader.review(config("mine", mtu=1400), config("mine")) == ""
    assert leader.review(config("mine"), config("mine", "green")) != ""


def test_nobody_is_refused_for_what_a_cache_still_shows(leader: Leader) -> None:
    stored = leader.store.create(config("theirs"))
    leader.network(owner=stored)
    leader.network(config="{}", name="green")
    leader.late()
    for kind, name in ((KIND, "blue"), (KIND, "green"), ("SpiderMultusConfig", "theirs")):
        leader.store.delete(kind, name, "default")

    assert leader.review(config("mine")) == ""
    assert leader.review(config("mine", "green")) == ""


def test_the_network_of_an_owner_who_is_gone_is_let_in(leader: Leader) -> None:
    """As after a restore from a backup: objects have new UIDs, and networks name the old ones."""
    stored = leader.store.create(config("mine"))
    leader.network(owner=stored)
    leader.store.delete("SpiderMultusConfig", "mine", "default")

    assert leader.review(config("mine")) == ""
    assert leader.review(config("other")) == ""


def test_what_is_being_deleted_asks_nothing(leader: Leader) -> None:
    leader.store.create(config("theirs"))
    wanted = NetworkRequest.of(config("mine"), None)
    assert wanted is not None
    leaving = config("mine")
    leaving["metadata"]["deletionTimestamp"] = "2026-03-01T00:00:00Z"
    assert NetworkRequest.of(leaving, None) is None
    assert leader.why(replace(wanted)) != ""
