"""Which VLANs and bonds an uninstallation takes off a node: those that ifacer made and nothing uses."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cni.dataplane.ifacer.mark import BORN, note, noted_members
from cni.dataplane.ifacer.plan import HostLinks
from cni.dataplane.state import Link, Route
from cni.uninstall.interfaces import judge

CARDS = (Link("eth0", 2, master=9), Link("eth1", 3, master=9))
BOND = Link("bond0", 9, "bond", alias=note(("eth0", "eth1")))
VLAN = Link("bond0.100", 10, "vlan", parent=9, alias=note())
THERE = (*CARDS, BOND, VLAN)


def names(links: tuple[Link, ...]) -> list[str]:
    return [link.name for link in links]


def test_what_stands_on_another_goes_first() -> None:
    judged = judge(HostLinks(THERE))

    assert names(judged.going) == ["bond0.100", "bond0"]
    assert judged.used == ()
    assert judged.unmarked == ()


def test_what_a_killed_worker_left_goes_too() -> None:
    """It had no members yet: those are given after the note."""
    half = replace(BOND, alias="", group=BORN)

    assert names(judge(HostLinks((half,))).going) == ["bond0"]


def test_what_a_killed_worker_left_stays_with_a_member_of_somebody_else_s() -> None:
    half = replace(BOND, alias="", group=BORN)
    judged = judge(HostLinks((CARDS[0], half)))

    assert judged.going == ()
    assert [why for _, why in judged.used] == ["has the member eth0, which ifacer did not give it"]


@pytest.mark.parametrize(
    ("host", "uses"),
    [
        (HostLinks(THERE, {"bond0.100": ("10.6.0.5/16",)}), "has the address 10.6.0.5/16"),
        (HostLinks(THERE, routes=(Route("10.7.0.0/16", "bond0.100"),)), "carries the route to 10.7.0.0/16"),
        (HostLinks((*THERE, Link("mac0", 11, "macvlan", parent=10))), "is what mac0 stands on"),
        (
            HostLinks((*CARDS, BOND, replace(VLAN, master=7), Link("br0", 7, "bridge"))),
            "belongs to br0",
        ),
    ],
)
def test_what_is_used_stays_with_what_it_stands_on(host: HostLinks, uses: str) -> None:
    judged = judge(host)

    assert judged.going == ()
    assert {link.name: why for link, why in judged.used} == {
        "bond0": "is what bond0.100 stands on",
        "bond0.100": uses,
    }


def test_what_pods_stand_on_stays() -> None:
    judged = judge(HostLinks(THERE), frozenset({10}))

    assert judged.going == ()
    assert judged.used[-1] == (VLAN, "is what interfaces in other network namespaces stand on")


def test_a_bond_with_a_member_of_somebody_else_s_stays() -> None:
    judged = judge(HostLinks((*THERE, Link("eth2", 4, master=9))))

    assert names(judged.going) == ["bond0.100"]
    assert [why for _, why in judged.used] == ["has the member eth2, which ifacer did not give it"]


def test_what_bears_no_mark_stays_and_is_named() -> None:
    """As the node's own do, and those of ifacer of 0.1.0; and an interface of another kind is none of ifacer's."""
    own = (replace(BOND, alias="uplink to rack 7"), replace(VLAN, alias=""))
    dummy = Link("dummy0", 12, "dummy", alias=note())
    judged = judge(HostLinks((*CARDS, *own, dummy)))

    assert judged.going == ()
    assert judged.used == ()
    assert names(judged.unmarked) == ["bond0", "bond0.100"]


def test_a_note_is_never_longer_than_the_kernel_takes() -> None:
    """The names that do not fit are not there, whole or in part; so such a bond stays."""
    cards = [f"enp{number:03}s0f0np0x" for number in range(32)]
    text = note(cards)

    assert len(text.encode()) <= 255
    noted = noted_members(Link("bond0", 9, "bond", alias=text))
    assert noted < set(cards)
    assert note([*cards, *noted]) == text
