"""What a SpiderMultusConfig is made into: one golden file for each type, of the object and of its network."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from actors.networks.attachment import (
    COPIED,
    attachment,
    cni_configuration,
    is_as_wanted,
    owner_reference,
    same_configuration,
)
from actors.resources.admission import admit
from actors.resources.json_text import DEEPEST
from actors.resources.multus_config import MOST_CHAINED, SECTIONS, MultusConfig
from actors.resources.network_attachment import NetworkAttachment
from cni.dataplane.own_plugins import check_plugins
from cni.server import protocol
from tests.actors.resources.multus_cases import macvlan, multus_config

GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.yaml"))


def read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    obj, network = yaml.safe_load_all(path.read_text())
    return obj, network


def config(annotations: dict[str, str] | None = None, **section: Any) -> MultusConfig:
    obj = multus_config(macvlan(**section), annotations=annotations)
    obj["metadata"]["uid"] = "u"
    return MultusConfig.from_object(obj)


def stored(wanted: dict[str, Any], **metadata: Any) -> NetworkAttachment:
    return NetworkAttachment.from_object({**wanted, "metadata": {**wanted["metadata"], **metadata}})


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_the_network_is_the_one_in_the_golden_file(path: Path) -> None:
    obj, expected = read(path)
    made = attachment(MultusConfig.from_object(admit(obj)))
    texts = [one["spec"].pop("config", "") for one in (made, expected)]

    assert made == expected
    assert texts[0] == texts[1] or json.loads(texts[0]) == json.loads(texts[1])


def test_the_largest_that_is_let_in_is_read_by_whoever_attaches_to_it() -> None:
    """As deep as a chained plugin may be, and as many as there may be: no network is ready that no pod can have."""
    chained = '{"type":"tuning","a":' + "[" * (DEEPEST - 1) + "]" * (DEEPEST - 1) + "}"
    obj = multus_config({**macvlan(), "chainCNIJsonData": [chained] * MOST_CHAINED})
    conf = cni_configuration(MultusConfig.from_object(admit(obj)))
    assert conf is not None
    check_plugins(conf)
    network = NetworkAttachment.from_object(attachment(MultusConfig.from_object(obj)))

    assert len(network.plugins()) == MOST_CHAINED + 2


def test_there_is_a_golden_file_for_each_type() -> None:
    assert {read(path)[0]["spec"]["cniType"] for path in GOLDEN} == {*SECTIONS}


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_our_own_plugins_take_what_is_made(path: Path) -> None:
    """ifacer, coordinator, and the address request of the one that makes the interface."""
    conf = cni_configuration(MultusConfig.from_object(read(path)[0]))
    if conf is None:
        return
    check_plugins(conf)
    environment = {
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": "c",
        "CNI_NETNS": "/run/netns/n",
        "CNI_IFNAME": "net1",
    }
    for plugin in conf["plugins"]:
        if "ipam" not in plugin:
            continue
        stdin = {"cniVersion": conf["cniVersion"], "name": conf["name"], **plugin}
        asks = protocol.parse(environment, json.dumps(stdin).encode()).asks
        pools = read(path)[0]["spec"][SECTIONS[plugin["type"]]].get("ippools", {})
        assert {family: asks.pools(family) for family in (4, 6)} == {
            family: tuple(pools.get(f"ipv{family}", ())) for family in (4, 6)
        }


def test_what_others_wrote_on_a_network_stays_and_what_its_owner_takes_out_goes() -> None:
    before = config({"example.com/a": "1", "example.com/b": "1"})
    there = attachment(before)
    there["metadata"]["annotations"]["somebody.else/c"] = "1"
    assert is_as_wanted(before, stored(there))

    after = config({"example.com/a": "2"})
    assert not is_as_wanted(after, stored(there))
    made = attachment(after, there)
    assert made["metadata"]["annotations"] == {
        "example.com/a": "2",
        COPIED: "example.com/a",
        "somebody.else/c": "1",
    }
    assert is_as_wanted(after, stored(made))


def test_what_keeps_a_network_and_whom_it_belongs_to_besides_stays() -> None:
    wanted = config()
    of_another = {"apiVersion": "v1", "kind": "ConfigMap", "name": "app", "uid": "a"}
    of_one_before = {**owner_reference(wanted), "uid": "gone"}
    there: dict[str, Any] = {
        "apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition",
        "metadata": {
            "name": "case", "namespace": "default", "uid": "n", "resourceVersion": "7", "labels": {"a": "b"},
            "finalizers": ["example.com/keep"], "ownerReferences": [of_another, of_one_before],
        },
        "spec": {"config": "{}"},
    }  # fmt: skip
    made = attachment(wanted, there)

    assert made["metadata"] == there["metadata"] | {"ownerReferences": [owner_reference(wanted), of_another]}
    assert is_as_wanted(wanted, stored(made))


@pytest.mark.parametrize(
    "change",
    [
        {"config": '{"cniVersion": "0.3.1", "name": "case", "plugins": []}'},
        {"config": "by hand"},
        {"config": ""},
        {"owner": None},
        {"annotations": {}},
        {"annotations": {COPIED: "example.com/a", "example.com/a": "2"}},
    ],
)
def test_what_was_changed_by_hand_is_not_as_wanted(change: dict[str, Any]) -> None:
    wanted = config({"example.com/a": "1"})
    there = stored(attachment(wanted))

    assert is_as_wanted(wanted, there)
    assert not is_as_wanted(wanted, replace(there, **change))


def test_a_text_of_another_form_says_the_same() -> None:
    wanted = config()
    there = stored(attachment(wanted))
    assert is_as_wanted(wanted, replace(there, config=json.dumps(json.loads(there.config), indent=4)))
    assert not same_configuration("{", "{ ")
    assert same_configuration("{", "{")
