"""Pools for the ranges of another IPAM's networks: each address in one, and each network with all of its own."""

from __future__ import annotations

import random

import pytest

from actors.resources.addresses import parse_address, parse_cidr, parse_range
from actors.resources.fields import Fields
from actors.resources.intervals import IntervalSet
from cni.takeover.windows import Window, pools_of, routes_of

SUBNET = parse_cidr("10.6.0.0/24")


def window(name: str, *ranges: str, **more: object) -> Window:
    spans = IntervalSet(parse_range(text, 4) for text in ranges)
    return Window(name, SUBNET, spans, **more)  # type: ignore[arg-type]


def test_ranges_that_overlap_become_pools_that_do_not():
    pools = pools_of("other", [window("a", "10.6.0.1-10.6.0.50"), window("b", "10.6.0.40-10.6.0.90")])

    listed = {obj["metadata"]["name"]: obj["spec"]["ips"] for obj in pools.objects}
    assert listed == {
        "other-10.6.0.0-24": ["10.6.0.1-10.6.0.39"],
        "other-10.6.0.0-24-from-10.6.0.40": ["10.6.0.40-10.6.0.50"],
        "other-10.6.0.0-24-from-10.6.0.51": ["10.6.0.51-10.6.0.90"],
    }
    assert pools.of_window == (
        ("other-10.6.0.0-24", "other-10.6.0.0-24-from-10.6.0.40"),
        ("other-10.6.0.0-24-from-10.6.0.40", "other-10.6.0.0-24-from-10.6.0.51"),
    )
    assert pools.problems == ()
    assert all(obj["spec"]["disable"] for obj in pools.objects)


@pytest.mark.parametrize("seed", range(20))
def test_each_network_may_give_out_what_it_could_before_and_nothing_else(seed):
    chance = random.Random(seed)
    windows = []
    for number in range(5):
        ends = sorted(chance.sample(range(SUBNET.first, SUBNET.last), 4))
        spans = IntervalSet([(ends[0], ends[1]), (ends[2], ends[3])])
        windows.append(Window(f"n{number}", SUBNET, spans))

    pools = pools_of("other", windows)

    listed = {name: members for name, (_, members) in pools.spans.items()}
    assert sum(members.size for members in listed.values()) == sum(
        1 for value in range(SUBNET.first, SUBNET.last) if any(value in each.addresses for each in windows)
    )
    for each, names in zip(windows, pools.of_window, strict=True):
        together = IntervalSet()
        for name in names:
            together = together.union(listed[name])
        assert together == each.addresses


def test_networks_that_share_addresses_and_differ_in_what_a_pool_says_once_are_refused():
    gateway = parse_address("10.6.0.1")[1]
    pools = pools_of(
        "other",
        [window("a", "10.6.0.10-10.6.0.50", gateway=gateway), window("b", "10.6.0.40-10.6.0.90")],
    )

    (problem,) = pools.problems
    assert problem.startswith(
        "a and b both give out 10.6.0.40-10.6.0.50, and differ in their default gateway"
    )


def test_an_address_is_found_in_its_pool():
    pools = pools_of("other", [window("a", "10.6.0.10-10.6.0.19"), window("b", "10.6.0.30")])

    assert pools.holding(*parse_address("10.6.0.30")) == "other-10.6.0.0-24-from-10.6.0.30"
    assert pools.holding(*parse_address("10.6.0.20")) == ""
    assert pools.holding(6, parse_address("10.6.0.30")[1]) == ""


def test_a_default_route_becomes_the_gateway_and_one_without_gateway_is_lost():
    ipam = Fields.of(
        "a network",
        "ipam",
        {
            "routes": [
                {"dst": "0.0.0.0/0"},
                {"dst": "10.7.0.0/16", "gw": "10.6.0.9"},
                {"dst": "fd00:7::/64"},
            ]
        },
    )
    four = routes_of(ipam, 4, parse_address("10.6.0.1")[1])
    six = routes_of(ipam, 6, None)

    assert four.gateway == parse_address("10.6.0.1")[1]
    assert four.others == (("10.7.0.0/16", "10.6.0.9"),)
    assert (six.gateway, six.others, six.lost) == (None, (), ("fd00:7::/64",))


def test_an_address_in_use_that_no_network_gives_out_any_more_is_listed_and_told():
    stray = parse_address("10.6.0.200")[1]
    windows = [window("a", "10.6.0.10-10.6.0.19"), window("b", "10.6.0.30")]

    pools = pools_of("other", windows, [(1, stray), (0, parse_address("10.6.0.30")[1])])

    assert pools.objects[1]["spec"]["ips"] == ["10.6.0.30", "10.6.0.200"]
    assert pools.holding(4, stray) == pools.objects[1]["metadata"]["name"]
    (sentence,) = pools.differences
    assert sentence.startswith("10.6.0.200: in use, and no network gives it out any more")
