"""What no pool gives out, whatever it lists."""

from __future__ import annotations

from typing import Any

import pytest

from actors.resources.addresses import parse_address
from actors.resources.ippool import IPPool


def pool(subnet: str, *ips: str, **spec: Any) -> IPPool:
    return IPPool.from_object(
        {"metadata": {"name": "blue"}, "spec": {"subnet": subnet, "ips": list(ips), **spec}}
    )


@pytest.mark.parametrize(
    "subnet, ips, given",
    [
        ("10.6.0.0/24", "10.6.0.0-10.6.0.255", ["10.6.0.1-10.6.0.254"]),
        ("10.6.0.0/16", "10.6.0.0-10.6.0.255", ["10.6.0.1-10.6.0.255"]),
        ("10.6.0.0/30", "10.6.0.0-10.6.0.3", ["10.6.0.1-10.6.0.2"]),
        ("10.6.0.0/31", "10.6.0.0-10.6.0.1", ["10.6.0.0-10.6.0.1"]),
        ("10.6.0.7/32", "10.6.0.7", ["10.6.0.7"]),
        ("10.6.0.0/24", "10.6.0.255", []),
        ("fd00:6::/64", "fd00:6::-fd00:6::9", ["fd00:6::1-fd00:6::9"]),
        ("fd00:6::/126", "fd00:6::-fd00:6::3", ["fd00:6::1-fd00:6::3"]),
        ("fd00:6::/127", "fd00:6::-fd00:6::1", ["fd00:6::-fd00:6::1"]),
        ("fd00:6::/128", "fd00:6::", ["fd00:6::"]),
        ("::/0", "::-::9", ["::2-::9"]),
        ("::/0", "::fffe:ffff:ffff-::1:0:0:1", ["::fffe:ffff:ffff", "::1:0:0:0-::1:0:0:1"]),
        ("126.0.0.0/7", "126.255.255.255-127.0.0.9", ["126.255.255.255"]),
        ("0.0.0.0/0", "0.0.0.0-255.255.255.255", [
            "1.0.0.0-126.255.255.255", "128.0.0.0-223.255.255.255", "240.0.0.0-255.255.255.254"]),
        ("fe80::/64", "fe80::1-fe80::9", []),
    ],
)  # fmt: skip
def test_what_a_pool_gives_out(subnet: str, ips: str, given: list[str]) -> None:
    made = pool(subnet, ips)

    assert [*made.available.ranges_text(made.family)] == given
    assert made.available.size + made.withheld.size == made.ips.size
    assert bool(made.withheld_reason) == bool(made.withheld)


def test_the_reason_names_the_addresses_and_the_rule() -> None:
    assert pool("10.6.0.0/24", "10.6.0.0-10.6.0.255").withheld_reason == (
        "10.6.0.0, 10.6.0.255 (network and broadcast address of 10.6.0.0/24) cannot be a pod's and are not given out"
    )
    assert (
        "fd00:6:: (routers' anycast address of fd00:6::/64)"
        in pool("fd00:6::/64", "fd00:6::").withheld_reason
    )
    assert "no host can have them" in pool("126.0.0.0/7", "127.0.0.1").withheld_reason


def test_what_is_excluded_is_not_told() -> None:
    made = pool("10.6.0.0/24", "10.6.0.0-10.6.0.255", excludeIPs=["10.6.0.0", "10.6.0.255"])

    assert made.withheld_reason == ""
    assert made.available.size == 254


def test_a_link_local_gateway_is_kept() -> None:
    assert pool("fd00:6::/64", "fd00:6::9", gateway="fe80::1").gateway == parse_address("fe80::1")[1]
