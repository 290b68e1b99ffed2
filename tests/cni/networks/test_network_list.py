"""A network's configuration: what is executed of it, and what each plugin is told."""

from __future__ import annotations

import json
from typing import Any

import pytest

from actors.errors import InvalidRequest
from cni.networks.network_list import MOST_PLUGINS, NetworkList, derive, read_network_list

MACVLAN = {"type": "macvlan", "master": "eth1", "ipam": {"type": "spiderpool"}}
PORTMAP = {"type": "portmap", "capabilities": {"portMappings": True, "other": False}}


def read(value: Any, name: str = "blue") -> NetworkList:
    return read_network_list(json.dumps(value), "NetworkAttachmentDefinition default/blue", name)


@pytest.mark.parametrize(
    "value, said",
    [
        ([], "must be a mapping"),
        ({}, "type"),
        ({"plugins": []}, "0 plugins"),
        ({"plugins": [MACVLAN] * (MOST_PLUGINS + 1)}, "41 plugins"),
        ({"type": "../macvlan"}, "bare name"),
        ({"type": "/bin/sh"}, "bare name"),
        ({"type": ".."}, "bare name"),
        ({"type": "a\u0000b"}, "bare name"),
        ({"type": "macvlan", "ipam": {"type": "../sh"}}, "ipam.type"),
        ({"type": "flannel", "delegate": {"type": "x/y"}}, "delegate.type"),
        ({"type": "orbweaver-networks"}, "attaches to networks"),
        ({"plugins": [MACVLAN, {"type": "a/b"}]}, r"plugins\[1\].type"),
        ({**MACVLAN, "name": "a/b"}, "name"),
        ({**MACVLAN, "cniVersion": "0.2.0"}, "cniVersion"),
        ({**MACVLAN, "cniVersion": 1}, "cniVersion"),
        ({"plugins": "macvlan"}, "must be a list"),
    ],
)
def test_what_cannot_be_executed_is_refused(value: Any, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        read(value)


def test_what_is_too_large_or_too_deep_is_refused_unparsed() -> None:
    with pytest.raises(InvalidRequest, match="bytes"):
        read({**MACVLAN, "note": "x" * 70_000})
    with pytest.raises(InvalidRequest, match="nested deeper"):
        read_network_list('{"type":"macvlan","a":' + "[" * 1000 + "]" * 1000 + "}", "it", "blue")


def test_a_single_configuration_is_a_list_of_one() -> None:
    network = read({"cniVersion": "0.4.0", **MACVLAN})

    assert (network.name, network.version, len(network.plugins)) == ("blue", "0.4.0", 1)
    assert derive(network, 0) == {"cniVersion": "0.4.0", "name": "blue", **MACVLAN}


def test_the_newest_version_that_is_spoken_is_taken() -> None:
    assert read({**MACVLAN, "cniVersion": "0.4.0", "cniVersions": ["1.0.0", "9.9.9"]}).version == "1.0.0"
    assert read(MACVLAN).version == "0.3.1"


def test_commands_came_with_versions() -> None:
    old, new = read({**MACVLAN, "cniVersion": "0.3.1"}), read({**MACVLAN, "cniVersion": "1.1.0"})

    assert [old.has(command) for command in ("ADD", "DEL", "CHECK", "GC", "STATUS")] == [
        True,
        True,
        False,
        False,
        False,
    ]
    assert all(new.has(command) for command in ("ADD", "DEL", "CHECK", "GC", "STATUS"))


def test_a_plugin_is_told_of_the_capabilities_that_it_has() -> None:
    network = read({"cniVersion": "1.0.0", "plugins": [MACVLAN, PORTMAP]})
    asked = {"portMappings": [{"hostPort": 80}], "other": 1, "ips": ["10.6.0.7"]}

    assert "runtimeConfig" not in derive(network, 0, capabilities=asked)
    told = derive(network, 1, capabilities=asked, previous={"ips": []})
    assert told["runtimeConfig"] == {"portMappings": [{"hostPort": 80}]}
    assert told["prevResult"] == {"ips": []}
    assert "capabilities" not in told
    assert network.lacking(asked) == ("other",), "addresses reach Orbweaver by the annotation"


def test_what_is_the_runtimes_is_not_the_networks_to_say() -> None:
    network = read({**MACVLAN, "prevResult": {"forged": 1}, "runtimeConfig": {"forged": 1}, "cni.dev/x": 1})

    assert derive(network, 0) == {"cniVersion": "0.3.1", "name": "blue", **MACVLAN}


def test_arguments_outrank_the_networks_own() -> None:
    network = read({**MACVLAN, "args": {"cni": {"a": 1, "b": 1}, "other": 2}})

    assert derive(network, 0, arguments={"b": 3})["args"] == {"cni": {"a": 1, "b": 3}, "other": 2}


def test_gc_is_told_what_is_still_there() -> None:
    told = derive(read(MACVLAN), 0, valid=[("c1", "eth0")])

    assert told["cni.dev/valid-attachments"] == [{"containerID": "c1", "ifname": "eth0"}]


def test_a_list_is_kept_and_read_back_as_it_is() -> None:
    network = read(
        {"cniVersion": "1.1.0", "plugins": [MACVLAN, PORTMAP], "disableCheck": True, "disableGC": True}
    )

    assert read(network.to_json()) == network
    assert not network.checked
    assert not network.collected
