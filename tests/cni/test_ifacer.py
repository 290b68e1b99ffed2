"""The plugin `ifacer` through shim, socket and worker, on the kernel that runs the tests.

Bonds and VLANs themselves are seen in tests/uml, on a kernel that has them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from actors.errors import OrbweaverError
from tests.cni.ifacer_stories import PATIENT, POD, network
from tests.support.agent_process import AgentProcess
from tests.support.stories import play, sandbox_with

_STORIES = Path(__file__).with_name("ifacer_stories.py")


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory):
    with AgentProcess(tmp_path_factory.mktemp("ifacer"), *PATIENT) as agent:
        yield agent


@pytest.mark.parametrize("version", ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"])
def test_the_first_plugin_names_the_host_s_interface(agent: AgentProcess, version: str):
    """A chain begins with ifacer: no previous result, and no address in its own."""
    result = network(agent, version, interfaces=["eth7"]).call("ADD", POD)

    assert result == {
        "cniVersion": version, "interfaces": [{"name": "eth7"}], "ips": [], "routes": [], "dns": {},
    }  # fmt: skip


def test_a_previous_result_is_passed_on_to_the_letter(agent: AgentProcess):
    previous = {"cniVersion": "1.0.0", "ips": [{"address": "10.6.0.7/16"}], "x": {"y": [1]}}
    result = network(agent, "1.0.0", interfaces=["eth7"]).call("ADD", POD, {"prevResult": previous})

    assert result == previous


def test_del_and_gc_need_nothing_and_change_nothing(agent: AgentProcess):
    """A runtime repeats a DEL until it succeeds, so neither a broken configuration nor a missing interface refuses it."""
    broken: tuple[dict[str, Any], ...] = (
        {"interfaces": ["gone"], "vlanID": 5},
        {"interfaces": 7, "bond": "x"},
        {},
    )
    for conf in broken:
        assert network(agent, **conf).call("DEL", POD) == {}
    assert network(agent).call("GC", POD, {"cni.dev/valid-attachments": []}) == {}


def test_version_and_status(agent: AgentProcess):
    assert network(agent).call("STATUS", POD) == {}
    assert "1.1.0" in network(agent).call("VERSION", POD)["supportedVersions"]


def test_a_wrong_configuration_is_refused_with_its_field(agent: AgentProcess):
    with pytest.raises(OrbweaverError, match=r'"vlanID" of network blue \(ifacer\) is 5000') as refused:
        network(agent, interfaces=["eth7"], vlanID=5000).call("ADD", POD)
    assert refused.value.cni_code == 7


def test_an_interface_that_is_not_there_is_refused_by_name(agent: AgentProcess):
    with pytest.raises(OrbweaverError, match=r"nic77 in \"interfaces\" is no interface of this node"):
        network(agent, interfaces=["nic77"], vlanID=5).call("ADD", POD)


def test_check_says_what_is_missing(agent: AgentProcess):
    with pytest.raises(OrbweaverError, match=r"nic77"):
        network(agent, interfaces=["nic77"], vlanID=5).call("CHECK", POD, {"prevResult": {}})


def test_on_a_card_of_its_own(tmp_path: Path):
    """In a namespace: what would cut the node off is refused and leaves the card as it was; a kernel without VLANs or
    bonds is named as the reason, and nothing half made stays."""
    play(sandbox_with("ip"), _STORIES, tmp_path, "own_cards", str(tmp_path), "/nonexistent")
