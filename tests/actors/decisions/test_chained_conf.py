"""The network configuration list for a node: given, or its own with plugins of ours behind it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from actors.decisions.chained_conf import NAME, conf_for, read_wanted
from actors.errors import InvalidObject

COORDINATOR = {"type": "coordinator", "mode": "auto"}
CHAIN = json.dumps({"chain": [COORDINATOR]})
CALICO = {
    "name": "k8s-pod-network",
    "cniVersion": "0.3.1",
    "plugins": [
        {"type": "calico", "mtu": 0, "ipam": {"type": "calico-ipam"}, "policy": {"type": "k8s"}},
        {"type": "bandwidth", "capabilities": {"bandwidth": True}},
        {"type": "portmap", "snat": True, "capabilities": {"portMappings": True}},
    ],
}  # fmt: skip
CILIUM = {"cniVersion": "0.3.1", "name": "cilium", "plugins": [{"type": "cilium-cni", "enable-debug": False}]}
FLANNEL = {
    "name": "cbr0",
    "cniVersion": "0.3.1",
    "plugins": [
        {"type": "flannel", "delegate": {"hairpinMode": True, "isDefaultGateway": True}},
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ],
}
MULTUS = {"name": "multus-cni-network", "type": "multus-shim", "cniVersion": "0.3.1"}


def text_for(wanted: str, *files: tuple[str, Any]) -> Any:
    text = conf_for(read_wanted(wanted), [(name, json.dumps(conf)) for name, conf in files])
    return None if text is None else json.loads(text)


@pytest.mark.parametrize(
    ("file", "conf"),
    [
        ("10-calico.conflist", CALICO),
        ("05-cilium.conflist", CILIUM),
        ("10-flannel.conflist", FLANNEL),
    ],
)
def test_ours_goes_behind_the_plugins_of_the_node_s_own(file: str, conf: dict[str, Any]) -> None:
    """Under the network's own name, and before its file; Multus and what we wrote before do not count."""
    assert file > NAME > "00-multus.conf"
    others = (
        ("00-multus.conf", MULTUS),
        (NAME, {"name": "old", "plugins": [COORDINATOR]}),
        ("99-loopback.conf", CILIUM),
    )
    found = text_for(CHAIN, (file, conf), *others)
    assert found == {**conf, "plugins": [*conf["plugins"], COORDINATOR]}


def test_ipam_takes_the_place_of_calico_s() -> None:
    wanted = json.dumps({"ipam": {"type": "spiderpool"}, "chain": [COORDINATOR]})
    found = text_for(wanted, ("10-calico.conflist", CALICO))
    assert found["plugins"][0] == {**CALICO["plugins"][0], "ipam": {"type": "spiderpool"}}  # type: ignore[dict-item]
    assert found["plugins"][1:] == [*CALICO["plugins"][1:], COORDINATOR]
    with pytest.raises(InvalidObject, match=r"no plugin of 05-cilium\.conflist has an ipam"):
        text_for(wanted, ("05-cilium.conflist", CILIUM))


def test_a_single_plugin_becomes_a_list() -> None:
    single = {"cniVersion": "0.4.0", "name": "one", "type": "bridge", "ipam": {"type": "host-local"}}
    found = text_for(CHAIN, ("10-one.conf", single))
    bridge = {"type": "bridge", "ipam": {"type": "host-local"}}
    assert found == {"cniVersion": "0.4.0", "name": "one", "plugins": [bridge, COORDINATOR]}


def test_a_whole_list_needs_nothing_of_the_node() -> None:
    assert text_for(json.dumps(FLANNEL)) == FLANNEL
    assert text_for(json.dumps(FLANNEL), ("05-cilium.conflist", CILIUM)) == FLANNEL


def test_without_a_file_of_the_node_s_there_is_nothing_to_write() -> None:
    assert text_for(CHAIN) is None
    assert text_for(CHAIN, ("00-multus.conf", MULTUS), ("README", CILIUM)) is None


@pytest.mark.parametrize(
    "wanted",
    ["", "[]", "{}", '{"chain": {}}', '{"chain": [{}]}', '{"chain": [{"type": ""}]}', '{"ipam": {}}', '{"ipam": "x"}',
     '{"other": 1}', '{"name": "x", "plugins": []}', '{"plugins": [{"type": "x"}]}',
     '{"name": "x", "plugins": [{"type": "x"}], "chain": []}', json.dumps({"chain": [COORDINATOR] * 33})],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused(wanted: str) -> None:
    with pytest.raises(InvalidObject):
        read_wanted(wanted)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"name": "x"}', '{"name": "x", "plugins": [1]}', '{"plugins": [{"type": "x"}]}']
)
def test_nothing_is_put_behind_what_cannot_be_understood(text: str) -> None:
    with pytest.raises(InvalidObject):
        conf_for(read_wanted(CHAIN), [("10-x.conflist", text)])
