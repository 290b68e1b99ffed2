"""Results: what a plugin may answer, its versions, and the pod's annotation of status."""

from __future__ import annotations

import pytest

from actors.errors import OrbweaverError
from cni.networks.results import addresses, in_version, read_result, status, with_default_routes

TWO_SIDES = {
    "cniVersion": "1.0.0",
    "interfaces": [
        {"name": "br0", "mac": "aa:00:00:00:00:01"},
        {"name": "net1", "mac": "aa:00:00:00:00:02", "sandbox": "/run/netns/x", "mtu": 1400},
    ],
    "ips": [
        {"address": "10.6.0.1/16", "interface": 0},
        {"address": "10.6.0.7/16", "interface": 1},
        {"address": "fd00::7/64", "interface": 1},
    ],
    "routes": [{"dst": "0.0.0.0/0", "gw": "10.6.0.1"}, {"dst": "10.9.0.0/16"}],
}


@pytest.mark.parametrize(
    "output",
    [b"", b"[]", b"\xff", b'{"ips": {}}', b'{"ips": [1]}', b'{"interfaces": "x"}', b"[" * 100 + b"]" * 100],
)
def test_what_is_no_result_is_an_error_of_its_plugin(output: bytes) -> None:
    with pytest.raises(OrbweaverError, match="plugin macvlan"):
        read_result(output, "macvlan")


def test_the_status_tells_the_first_interface_inside_the_pod() -> None:
    assert status(TWO_SIDES, "default/blue", "net1", default=False) == {
        "name": "default/blue",
        "interface": "net1",
        "ips": ["10.6.0.7", "fd00::7"],
        "mac": "aa:00:00:00:00:02",
        "mtu": 1400,
        "dns": {},
        "gateway": ["10.6.0.1"],
    }


def test_a_result_without_interfaces_tells_the_addresses_of_none() -> None:
    """Section 5.3.3.1."""
    result = {
        "ips": [
            {"address": "10.6.0.7/16"},
            {"address": "10.6.0.8/16", "interface": -1},
            {"address": "10.6.0.9/16", "interface": 3},
        ]
    }

    assert addresses(result) == ("10.6.0.7/16", "10.6.0.8/16")
    assert status(result, "blue", "eth0", default=True) == {
        "name": "blue", "interface": "eth0", "ips": ["10.6.0.7", "10.6.0.8"], "default": True, "dns": {},
    }  # fmt: skip


def test_an_empty_result_has_a_minimal_status() -> None:
    """Section 5.1.1."""
    assert status({}, "default/none", "net1", default=False) == {
        "name": "default/none",
        "interface": "net1",
        "dns": {},
    }


def test_old_versions_say_the_family_of_an_address() -> None:
    old = in_version(TWO_SIDES, "0.3.1")

    assert [ip["version"] for ip in old["ips"]] == ["4", "4", "6"]
    assert in_version(old, "1.0.0") == TWO_SIDES


def test_default_routes_that_were_moved() -> None:
    moved = with_default_routes(TWO_SIDES, [4], ["fd00::1"])

    assert moved["routes"] == [{"dst": "10.9.0.0/16"}, {"dst": "::/0", "gw": "fd00::1"}]
    assert with_default_routes(TWO_SIDES, [6], [])["routes"] == TWO_SIDES["routes"]
