"""Whose a namespace is: each piece of evidence, and what looks like one and is none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cni.dataplane.coordinator.ownership import (
    are_joined,
    has_an_address,
    is_anothers,
    is_containers,
    is_host_end,
)
from cni.dataplane.coordinator.veth import (
    HOST_END,
    POD_END,
    VETH,
    host_veth_name,
    veth_mac,
)
from cni.dataplane.state import Nic, PodState

C1, C2 = "c1" * 32, "c2" * 32
NUMBER = 7
"""The host's number for the pod's namespace."""
HOST = Nic(host_veth_name(C1), 40, veth_mac(C1, HOST_END), peer=3, namespace=NUMBER, alias="orbweaver blue")
VETH0 = Nic(VETH, 3, veth_mac(C1, POD_END), peer=40)
ETH0 = Nic("eth0", 2, "0a:00:00:00:00:05", ("10.6.0.5/16", "fd00::5/64"))
UNDERLAY, OVERLAY = PodState((ETH0, VETH0)), PodState((ETH0,))
ANSWERED: dict[str, Any] = {
    "interfaces": [{"name": "eth0", "mac": "0A:00:00:00:00:05", "sandbox": "/run/netns/x"}],
    "ips": [{"address": "10.6.0.5/16"}],
}


def owns(state: PodState, container: str = C1, **more: Any) -> bool:
    given = {"host_end": HOST, "namespace": NUMBER, "previous": {}, **more}
    return is_containers(state, container, "eth0", **given)


def test_the_pair_that_was_made_for_the_container_proves_it():
    assert is_host_end(HOST, C1)
    assert are_joined(HOST, VETH0, NUMBER)
    assert owns(UNDERLAY)


@pytest.mark.parametrize(
    "more",
    [
        {"host_end": None},
        {"namespace": -1},
        {"namespace": NUMBER + 1},
        {"host_end": replace(HOST, peer=4)},
        {"host_end": replace(HOST, namespace=-1)},
        {"host_end": replace(HOST, index=41)},
        {"host_end": replace(HOST, mac=veth_mac(C2, HOST_END))},
    ],
)
def test_a_pair_that_is_not_joined_or_was_made_for_another_proves_nothing(more: dict[str, Any]):
    assert not owns(UNDERLAY, previous=ANSWERED, **more)


def test_a_container_whose_id_begins_alike_is_another_one():
    alike = C1[:11] + "f" * 53

    assert not is_host_end(HOST, alike)
    assert not owns(UNDERLAY, alike, previous=ANSWERED)
    assert is_anothers(UNDERLAY, alike, peer=HOST, namespace=NUMBER)


def test_spiderpools_pair_has_the_name_and_is_joined():
    theirs = replace(HOST, mac="fe:ca:00:00:00:01", alias="")

    assert owns(UNDERLAY, host_end=theirs)
    assert not owns(UNDERLAY, host_end=replace(theirs, peer=9))
    assert not is_anothers(UNDERLAY, C2, peer=theirs, namespace=NUMBER), "whose it is, nobody knows"


def test_without_a_pair_the_interface_that_was_answered_proves_it():
    assert owns(OVERLAY, host_end=None, previous=ANSWERED)


@pytest.mark.parametrize(
    "previous",
    [
        {},
        {"ips": ANSWERED["ips"]},
        {"interfaces": ANSWERED["interfaces"]},
        {**ANSWERED, "ips": [{"address": "10.6.0.6/16"}]},
        {**ANSWERED, "interfaces": [{"name": "eth0", "mac": "0a:00:00:00:00:06", "sandbox": "x"}]},
        {**ANSWERED, "interfaces": [{"name": "eth0", "mac": "0a:00:00:00:00:05"}]},
        {**ANSWERED, "interfaces": [{"name": "net1", "mac": "0a:00:00:00:00:05", "sandbox": "x"}]},
        {**ANSWERED, "interfaces": [5, {}]},
        {"ips": 5, "interfaces": 5},
    ],
)
def test_an_address_that_was_given_again_or_another_mac_proves_nothing(previous: dict[str, Any]):
    assert not owns(OVERLAY, host_end=None, previous=previous)


def test_a_mac_that_the_coordinator_gave_counts_with_its_address():
    given = {**ANSWERED, "interfaces": []}

    assert owns(OVERLAY, host_end=None, previous=given, mac_prefix="0a:00")
    assert not owns(OVERLAY, host_end=None, previous=given, mac_prefix="0a:01")


def test_an_add_is_where_the_main_plugin_put_the_addresses():
    assert has_an_address(ETH0, ANSWERED)
    assert has_an_address(ETH0, {"ips": [{"address": "10.6.9.9/16"}, {"address": "FD00:0::5/64"}]})
    assert has_an_address(None, {}), "without addresses there is nothing to compare"
    assert not has_an_address(ETH0, {"ips": [{"address": "10.6.9.9/16"}]})
    assert not has_an_address(None, ANSWERED)
