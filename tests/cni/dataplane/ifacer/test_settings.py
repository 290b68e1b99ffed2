"""The configuration of `ifacer`: what is read, and what is refused with the field and the remedy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from actors.errors import CNI_INVALID_CONFIG, InvalidRequest
from cni.dataplane.ifacer.settings import BondSettings, IfacerSettings, read_ifacer_settings

TWO = ["eth0", "eth1"]
TARGETS = {"arp_interval": 200, "arp_ip_target": ("10.6.0.1", "10.6.0.2")}


def read(**conf: Any) -> IfacerSettings:
    return read_ifacer_settings({"cniVersion": "1.0.0", "name": "blue", "type": "ifacer", **conf})


def bond(**conf: Any) -> BondSettings:
    found = read(interfaces=TWO, bond={"name": "bond0", **conf}).bond
    assert found is not None
    return found


def test_a_vlan_on_one_interface():
    settings = read(interfaces=["eth0"], vlanID=100)

    assert settings == IfacerSettings("blue", ("eth0",), 100)
    assert (settings.base, settings.vlan_name, settings.master) == ("eth0", "eth0.100", "eth0.100")


def test_a_vlan_on_a_bond():
    settings = read(
        interfaces=TWO, vlanID=7, bond={"name": "bond0", "mode": 1, "options": "primary=eth1;miimon=100"}
    )

    assert settings.bond == BondSettings("bond0", 1, (("primary", "eth1"), ("miimon", 100)))
    assert (settings.base, settings.master) == ("bond0", "bond0.7")


@pytest.mark.parametrize("path", ["82-underlay-vlan.conflist", "multus/vlan-of-a-bond.yaml"])
def test_the_examples_are_right(path: str):
    """The main plugin's master is the interface that ifacer makes."""
    text = (Path(__file__).parents[4] / "deploy" / "examples" / path).read_text()
    conf = json.loads(text if path.endswith("conflist") else yaml.safe_load(text)["spec"]["config"])
    first, main, last = conf["plugins"]

    assert (first["type"], last["type"]) == ("ifacer", "coordinator")
    assert read_ifacer_settings({"name": conf["name"], **first}).master == main["master"]


def test_spiderpool_s_defaults():
    """A bond without name and mode, an interface without VLAN; names of fields without regard to case, as Go reads them."""
    assert read(interfaces=TWO, bond={}).bond == BondSettings("sp_bond0", 0)
    assert read(interfaces=["eth0"], vlanID=0).master == "eth0"
    assert read(interfaces=["eth0"], vlanId=5).vlan == 5
    assert bond(options=None).options == ()


@pytest.mark.parametrize(
    "text, mode, options",
    [
        ("primary=eth0; miimon=100;", 1, {"primary": "eth0", "miimon": 100}),
        ("lacp_rate=fast;xmit_hash_policy=layer3+4", 4, {"ad_lacp_rate": 1, "xmit_hash_policy": 1}),
        ("lacp_rate=1;ad_actor_system=02-00-00-00-00-0A", 4, {"ad_lacp_rate": 1, "ad_actor_system": "02:00:00:00:00:0a"}),
        ('arp_interval=200;arp_ip_target=["10.6.0.1","10.6.0.2"]', 1, TARGETS),
        ("arp_interval=200;arp_ip_target=10.6.0.1,10.6.0.2", 0, TARGETS),
        ("miimon=100;up_delay=200;downdelay=300", 1, {"miimon": 100, "updelay": 200, "downdelay": 300}),
        ("peer_notif_delay=3", 1, {"num_peer_notif": 3}),
        ("tlb_dynamic_lb=0", 5, {"tlb_dynamic_lb": 0}),
    ],
)  # fmt: skip
def test_options(text: str, mode: int, options: dict[str, Any]):
    assert dict(bond(mode=mode, options=text).options) == options


@pytest.mark.parametrize(
    "mode, text, complaint",
    [
        (1, "miimon", r"'miimon'; it must be \"name=value\" pairs"),
        (1, "mimon=100", r"'mimon', which is no bond option; there are ad_actor_sys_prio.*miimon"),
        (1, "miimon=fast", r"miimon=fast; it must be a whole number from 0"),
        (4, "lacp_rate=2", r"lacp_rate=2.*0 to 1, or one of slow, fast"),
        (1, "miimon=100;miimon=200", r"'miimon' twice"),
        (
            0,
            "primary=eth1",
            r"'primary', which mode 0 \(balance-rr\) does not take, only 1 \(active-backup\)",
        ),
        (1, "primary=eth7", r"primary=eth7, which is not in \"interfaces\": eth0, eth1"),
        (4, "arp_interval=100", r"mode 4"),
        (1, "arp_interval=100", r"without arp_ip_target"),
        (1, "arp_interval=100;miimon=100;arp_ip_target=10.6.0.1", r"keep one"),
        (1, "arp_ip_target=10.6.0.300", r"IPv4 addresses"),
        (1, "updelay=100", r"add miimon"),
        (1, "miimon=100;updelay=150", r"multiple of miimon=100"),
        (4, "ad_actor_system=01:00:00:00:00:01", r"MAC of one station"),
    ],
)
def test_a_wrong_option_is_refused(mode: int, text: str, complaint: str):
    with pytest.raises(InvalidRequest, match=complaint) as refused:
        bond(mode=mode, options=text)
    assert refused.value.message.startswith('"bond.options" of network blue (ifacer) ')
    assert refused.value.cni_code == CNI_INVALID_CONFIG


@pytest.mark.parametrize(
    "conf, complaint",
    [
        ({}, r"\"interfaces\".*is missing; it must be a list"),
        ({"interfaces": []}, r"\"interfaces\".*must be a list"),
        ({"interfaces": "eth0"}, r"\"interfaces\".*must be a list"),
        ({"interfaces": ["eth0", 1], "bond": {}}, r"\"interfaces\".*has 1;"),
        ({"interfaces": ["e/0"]}, r'"interfaces".*has "e/0"'),
        ({"interfaces": ["eth0", "eth0"], "bond": {}}, r"eth0 twice"),
        ({"interfaces": ["lo"], "vlanID": 5}, r"has lo"),
        ({"interfaces": TWO}, r"eth0, eth1, and several are joined to a bond; add \"bond\""),
        ({"interfaces": ["eth0"], "vlanID": 4095}, r"\"vlanID\".*is 4095.*1 to 4094"),
        ({"interfaces": ["eth0"], "vlanID": -1}, r"\"vlanID\""),
        ({"interfaces": ["eth0"], "vlanID": "5"}, r'"vlanID".*is "5"'),
        ({"interfaces": ["eth0"], "vlanID": True}, r"\"vlanID\""),
        ({"interfaces": ["enp175s0f1np1"], "vlanID": 100}, r"enp175s0f1np1\.100.*more than 15 bytes.*shorter name"),
        ({"interfaces": ["eth0"], "bond": {"name": "bond0"}}, r"at least two members.*eth0 only"),
        ({"interfaces": TWO, "bond": []}, r"\"bond\".*must be an object"),
        ({"interfaces": TWO, "bond": {"name": "eth1"}}, r"\"bond.name\".*also in \"interfaces\""),
        ({"interfaces": TWO, "bond": {"name": "a name"}}, r"\"bond.name\".*1 to 15 bytes"),
        ({"interfaces": TWO, "bond": {"name": "b", "mode": 7}}, r"\"bond.mode\".*is 7.*6 \(balance-alb\)"),
        ({"interfaces": TWO, "bond": {"name": "b", "mode": "active-backup"}}, r"1 \(active-backup\)"),
        ({"interfaces": TWO, "bond": {"name": "b", "options": ["miimon=100"]}}, r"\"bond.options\".*must be text"),
    ],
)  # fmt: skip
def test_a_wrong_configuration_is_refused(conf: dict[str, Any], complaint: str):
    with pytest.raises(InvalidRequest, match=complaint):
        read(**conf)
