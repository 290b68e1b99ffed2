"""CNI configurations of another IPAM: what is found, what is written in its place, and that the way back writes the same."""

from __future__ import annotations

import json

import pytest

from actors.errors import InvalidObject
from cni.takeover.networks import (
    FORMER,
    attached_networks,
    former_sections,
    given_back,
    network_of,
    ours,
    taken_over,
)

IPAM = {"type": "other", "range": "10.6.0.0/24"}


def attachment(config, name="blue", **metadata):
    return {
        "apiVersion": "k8s.cni.cncf.io/v1",
        "kind": "NetworkAttachmentDefinition",
        "metadata": {"name": name, "namespace": "default", **metadata},
        "spec": {"config": config if isinstance(config, str) else json.dumps(config)},
    }


def read(obj):
    network = network_of("net", obj["spec"]["config"], "other", name="blue")
    assert network is not None
    return network


def test_a_list_of_plugins_keeps_the_others_and_their_order_there_and_back():
    before = {
        "cniVersion": "1.0.0",
        "name": "net",
        "plugins": [{"type": "ifacer"}, {"type": "macvlan", "ipam": IPAM, "mtu": 9000}, {"type": "tuning"}],
    }
    obj = attachment(before, annotations={"kept": "yes"})
    network = read(obj)
    assert [section.place for section in network.sections] == [1]

    taken = taken_over(obj, network, {1: ours({4: ["p4"], 6: []})})

    plugins = json.loads(taken["spec"]["config"])["plugins"]
    assert plugins[1] == {
        "type": "macvlan",
        "ipam": {"type": "spiderpool", "default_ipv4_ippool": ["p4"]},
        "mtu": 9000,
    }
    assert [plugin["type"] for plugin in plugins] == ["ifacer", "macvlan", "tuning"]
    back = given_back(taken, former_sections(taken, "other"))
    assert json.loads(back["spec"]["config"]) == before
    assert back["metadata"]["annotations"] == {"kept": "yes"}


def test_what_was_edited_meanwhile_stays_on_the_way_back():
    obj = attachment({"name": "net", "type": "macvlan", "ipam": IPAM})
    network = read(obj)
    taken = taken_over(obj, network, {0: ours({4: ["p4"]})})
    edited = {**json.loads(taken["spec"]["config"]), "mtu": 1400}

    back = given_back({**taken, "spec": {"config": json.dumps(edited)}}, former_sections(taken, "other"))

    assert json.loads(back["spec"]["config"]) == {
        "name": "net",
        "type": "macvlan",
        "ipam": IPAM,
        "mtu": 1400,
    }


def test_a_network_that_lost_its_plugins_is_not_guessed_at():
    obj = attachment({"name": "net", "plugins": [{"type": "a"}, {"type": "macvlan", "ipam": IPAM}]})
    network = read(obj)
    taken = taken_over(obj, network, {1: ours({4: ["p4"]})})
    shorter = {**taken, "spec": {"config": json.dumps({"name": "net", "plugins": [{"type": "a"}]})}}

    with pytest.raises(InvalidObject, match="has not the plugins any more"):
        given_back(shorter, former_sections(taken, "other"))


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"0": 1}', '{"x": {"type": "other"}}', '{"0": {"type": "third"}}']
)
def test_what_a_network_remembers_and_cannot_be_read_is_nothing(text):
    obj = attachment({"name": "net", "type": "macvlan"}, annotations={FORMER: text})

    assert former_sections(obj, "other") == {}


def test_networks_are_found_before_and_after_and_a_broken_one_is_a_problem(orbweaver):
    fresh = attachment({"type": "macvlan", "ipam": IPAM})
    network = read(fresh)
    taken = taken_over(fresh, network, {0: ours({})})
    store = orbweaver.store()
    for obj in (
        fresh,
        {**taken, "metadata": {**taken["metadata"], "name": "red"}},
        attachment("{", "torn"),
        attachment("", "of-a-file"),
        attachment({"type": "macvlan", "ipam": {"type": "third"}}, "third"),
    ):
        store.create(obj)

    networks, problems = attached_networks(store, "other")
    store.close()

    assert [(each.key, each.name, each.is_ours) for each in networks] == [
        ("default/blue", "blue", False),
        ("default/red", "red", True),
    ]
    assert [dict(section.ipam.data) for each in networks for section in each.sections] == [IPAM, IPAM]
    (problem,) = problems
    assert "default/torn is no CNI configuration" in problem
