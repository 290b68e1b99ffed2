"""What `ifacer` plans: what is missing is made, what is there is left alone, what would cut the node off is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from actors.errors import InvalidRequest
from cni.dataplane.ifacer.mark import BORN, note
from cni.dataplane.ifacer.plan import BringUp, CreateBond, CreateVlan, Enslave, HostLinks, Mark, make_plan
from cni.dataplane.ifacer.settings import IfacerSettings, read_ifacer_settings
from cni.dataplane.state import Link, Route

ETH0 = Link("eth0", 2, up=False, mtu=9000)
ETH1 = Link("eth1", 3, mtu=1500)


def settings(*interfaces: str, vlan: int = 0, **bond: Any) -> IfacerSettings:
    conf: dict[str, Any] = {"name": "blue", "interfaces": list(interfaces), "vlanID": vlan}
    if bond:
        conf["bond"] = {"name": "bond0", **bond}
    return read_ifacer_settings(conf)


def vlan(name: str, index: int, parent: int, number: int, *, up: bool = True, protocol: int = 0x8100) -> Link:
    info = {"IFLA_VLAN_ID": number, "IFLA_VLAN_PROTOCOL": protocol}
    return Link(name, index, "vlan", up, parent=parent, info=info)


def bonded(mode: int = 1, **info: Any) -> Link:
    return Link("bond0", 9, "bond", info={"IFLA_BOND_MODE": mode, **info})


MEMBERS = (Link("eth0", 2, master=9), Link("eth1", 3, master=9))
JOINED = settings("eth0", "eth1", mode=1)


def test_a_vlan_is_made_and_its_master_brought_up():
    plan = make_plan(settings("eth0", vlan=100), HostLinks((ETH0,)))

    assert plan == (
        CreateVlan("eth0.100", "eth0", 100),
        Mark("eth0.100", "orbweaver ifacer"),
        BringUp("eth0"),
        BringUp("eth0.100"),
    )


def test_nothing_is_done_twice():
    there = HostLinks((ETH1, vlan("eth1.100", 4, 3, 100)))

    assert make_plan(settings("eth1", vlan=100), there) == ()
    assert make_plan(JOINED, HostLinks((*MEMBERS, bonded()))) == ()


def test_a_configuration_without_vlan_and_bond_asks_for_nothing():
    assert make_plan(settings("eth0"), HostLinks(())) == ()


def test_a_vlan_that_is_down_is_brought_up():
    there = HostLinks((ETH1, vlan("eth1.100", 4, 3, 100, up=False)))

    assert make_plan(settings("eth1", vlan=100), there) == (BringUp("eth1.100"),)


def test_a_bond_with_a_vlan_comes_up_last_and_keeps_the_smallest_mtu():
    asked = settings("eth0", "eth1", vlan=7, mode=1, options="miimon=100")
    plan = make_plan(asked, HostLinks((ETH0, ETH1)))

    options = (("miimon", 100),)
    assert plan == (
        CreateBond("bond0", 1, options, 1500),
        Mark("bond0", "orbweaver ifacer of eth0 eth1"),
        Enslave("eth0", "bond0", was_up=False),
        Enslave("eth1", "bond0", was_up=True),
        CreateVlan("bond0.7", "bond0", 7),
        Mark("bond0.7", "orbweaver ifacer"),
        BringUp("bond0"),
        BringUp("bond0.7"),
    )


def test_what_a_killed_worker_left_unmarked_is_marked():
    """By the group in which it was born; what others made never is."""
    there = vlan("eth1.100", 4, 3, 100)
    assert make_plan(settings("eth1", vlan=100), HostLinks((ETH1, replace(there, group=BORN)))) == (
        Mark("eth1.100", note()),
    )
    assert make_plan(settings("eth1", vlan=100), HostLinks((ETH1, replace(there, alias="mine")))) == ()
    half = replace(bonded(), group=BORN)
    assert make_plan(JOINED, HostLinks((*MEMBERS, half))) == (Mark("bond0", note(("eth0", "eth1"))),)
    assert make_plan(JOINED, HostLinks((*MEMBERS, replace(bonded(), alias="orbweaver ifacers")))) == ()


def test_a_member_that_ifacer_adds_to_a_bond_of_its_own_is_noted_too():
    one = replace(bonded(), alias=note(("eth9", "eth0")))
    plan = make_plan(JOINED, HostLinks((MEMBERS[0], ETH1, one)))

    assert plan == (
        Mark("bond0", "orbweaver ifacer of eth0 eth1 eth9"),
        Enslave("eth1", "bond0", was_up=True),
    )
    assert make_plan(JOINED, HostLinks((*MEMBERS, replace(one, alias=plan[0].note)))) == ()


def test_a_bond_half_made_is_completed():
    """What a killed worker leaves behind: the bond, down, with one member of two; `primary` does not show yet."""
    asked = settings("eth0", "eth1", mode=1, options="primary=eth1")
    half = Link("bond0", 9, "bond", up=False, info={"IFLA_BOND_MODE": 1})

    plan = make_plan(asked, HostLinks((MEMBERS[0], ETH1, half)))

    assert plan == (Enslave("eth1", "bond0", was_up=True), BringUp("bond0"))


def test_a_bond_with_the_node_s_addresses_is_taken_as_it_is():
    """An administrator's bond that matches; what stands on its members' addresses is not asked, as nothing is enslaved."""
    there = HostLinks((*MEMBERS, bonded()), {"eth0": ("10.6.0.5/16",)})

    assert make_plan(settings("eth0", "eth1", vlan=5, mode=1), there) == (
        CreateVlan("bond0.5", "bond0", 5),
        Mark("bond0.5", note()),
        BringUp("bond0.5"),
    )


@pytest.mark.parametrize(
    "there, complaint",
    [
        (HostLinks(()), r"eth1 in \"interfaces\" is no interface of this node"),
        (HostLinks((ETH1, Link("eth1.100", 4, "dummy"))), r"eth1\.100 already, which is dummy and not VLAN 100 on eth1"),
        (HostLinks((ETH1, vlan("eth1.100", 4, 3, 5))), r"which is VLAN 5 and not VLAN 100"),
        (HostLinks((ETH0, ETH1, vlan("eth1.100", 4, 2, 100))), r"which is on eth0 and not VLAN 100 on eth1"),
        (HostLinks((ETH1, vlan("eth1.100", 4, 3, 100, protocol=0x88A8))), r"802\.1ad"),
        (HostLinks((ETH1, vlan("storage", 4, 3, 100))), r"VLAN 100 is on this node already, as storage on eth1"),
        (HostLinks((ETH0, ETH1, vlan("eth0.100", 4, 2, 100))), r"as eth0\.100 on eth0.*use eth0\.100"),
        (
            HostLinks((Link("eth1", 3, master=9), bonded())),
            r"eth1 belongs to the bond bond0.*\"interfaces\": \[\"bond0\"\]",
        ),
    ],
)  # fmt: skip
def test_a_vlan_is_refused(there: HostLinks, complaint: str):
    with pytest.raises(InvalidRequest, match=complaint) as refused:
        make_plan(settings("eth1", vlan=100), there)
    assert refused.value.message.startswith("ifacer of network blue: ")


@pytest.mark.parametrize(
    "there, complaint",
    [
        (HostLinks((ETH0, ETH1), {"eth1": ("10.6.0.5/16",)}), r"eth1 cannot.*has the address 10\.6\.0\.5/16.*off the network"),
        (HostLinks((ETH0, ETH1), {"eth1": ("fd00::5/64",)}), r"fd00::5/64"),
        (HostLinks((ETH0, ETH1), routes=(Route("0.0.0.0/0", "eth0", "10.6.0.1"),)), r"eth0 cannot.*carries the default route"),
        (HostLinks((ETH0, ETH1), routes=(Route("::/0", "eth0", "fe80::1"),)), r"carries the default route"),
        (HostLinks((ETH0, ETH1), routes=(Route("10.96.0.1/32", "eth1"),)), r"carries the route to 10\.96\.0\.1/32"),
        (HostLinks((ETH0, ETH1, vlan("eth0.5", 4, 2, 5))), r"is what eth0\.5 stands on"),
        (HostLinks((ETH0, ETH1, Link("mac0", 5, "macvlan", parent=3))), r"is what mac0 stands on"),
        (HostLinks((ETH0, Link("eth1", 3, master=5), Link("br0", 5, "bridge"))), r"eth1 cannot.*belongs to br0; take it out"),
        (HostLinks((ETH0, ETH1, Link("bond0", 9, "dummy"))), r"interface bond0 already, which is of kind dummy"),
        (HostLinks((*MEMBERS, bonded(4))), r"has mode 4 \(802\.3ad\) and not 1 \(active-backup\)"),
        (
            HostLinks((MEMBERS[0], ETH1, Link("eth7", 7, master=9), bonded())),
            r"has the member eth7, which is not in \"interfaces\"",
        ),
    ],
)  # fmt: skip
def test_a_bond_is_refused(there: HostLinks, complaint: str):
    with pytest.raises(InvalidRequest, match=complaint):
        make_plan(JOINED, there)


def test_routes_that_every_interface_has_do_not_count():
    there = HostLinks((ETH0, ETH1), routes=(Route("fe80::/64", "eth1"),))

    assert Enslave("eth1", "bond0", was_up=True) in make_plan(JOINED, there)


def test_the_other_end_of_a_cable_does_not_stand_on_it():
    there = HostLinks((ETH0, ETH1, Link("peer", 8, "veth", parent=3)))

    assert Enslave("eth1", "bond0", was_up=True) in make_plan(JOINED, there)


@pytest.mark.parametrize(
    "options, info, complaint",
    [
        ("miimon=100", {"IFLA_BOND_MIIMON": 0}, r"miimon 0 and not 100"),
        ("primary=eth1", {"IFLA_BOND_PRIMARY": 2}, r"primary eth0 and not eth1"),
        ("arp_interval=9;arp_ip_target=10.6.0.1", {"IFLA_BOND_ARP_INTERVAL": 9}, r"arp_ip_target"),
    ],
)
def test_a_bond_with_other_options_is_not_taken_for_this_one(
    options: str, info: dict[str, Any], complaint: str
):
    with pytest.raises(InvalidRequest, match=complaint):
        make_plan(settings("eth0", "eth1", mode=1, options=options), HostLinks((*MEMBERS, bonded(1, **info))))


def test_targets_are_compared_without_their_order():
    text = "arp_interval=9;arp_ip_target=10.6.0.1,10.6.0.2"
    found = bonded(1, IFLA_BOND_ARP_INTERVAL=9, IFLA_BOND_ARP_IP_TARGET=["10.6.0.2", "10.6.0.1"])

    assert make_plan(settings("eth0", "eth1", mode=1, options=text), HostLinks((*MEMBERS, found))) == ()
