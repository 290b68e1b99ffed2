"""What a network says to Whereabouts, read by Whereabouts' own rules."""

from __future__ import annotations

import json

import pytest

from actors.resources.addresses import parse_address, parse_cidr
from cni.takeover.networks import network_of
from cni.takeover.whereabouts.ranges import ip_pool_name, ranges_of, reservation_name


def read(slices=None, **ipam):
    text = json.dumps({"name": "net", "type": "macvlan", "ipam": {"type": "whereabouts", **ipam}})
    network = network_of("network a", text, "whereabouts")
    assert network is not None
    return ranges_of(network, slices or {})


def spans(outcome):
    return [use.window.addresses.ranges_text(use.window.subnet.family) for use in outcome.uses]


@pytest.mark.parametrize(
    ("ipam", "expected"),
    [
        ({"range": "10.1.0.0/29"}, ("10.1.0.1-10.1.0.6",)),
        ({"range": "10.1.0.3/29"}, ("10.1.0.1-10.1.0.6",)),
        ({"range": "10.1.0.3-10.1.0.5/29"}, ("10.1.0.3-10.1.0.5",)),
        ({"range": "10.1.0.0/24", "range_start": "10.1.0.9"}, ("10.1.0.9-10.1.0.254",)),
        ({"range": "10.1.0.0/24", "range_end": "10.1.0.9"}, ("10.1.0.1-10.1.0.9",)),
        ({"range": "10.1.0.0/24", "range_start": "10.2.0.9", "range_end": "rubbish"}, ("10.1.0.1-10.1.0.254",)),
        (
            {"range": "10.1.0.0/24", "range_start": "10.1.0.9", "range_end": "10.1.0.8"},
            ("10.1.0.9-10.1.0.254",),
        ),
        ({"range": "10.1.0.0/29", "exclude": ["10.1.0.4/31", "10.1.0.1"]}, ("10.1.0.2-10.1.0.3", "10.1.0.6")),
        ({"range": "fd00::/120"}, ("fd00::1-fd00::fe",)),
    ],
)  # fmt: skip
def test_a_range_gives_out_what_whereabouts_would(ipam, expected):
    assert spans(read(**ipam)) == [expected]


def test_the_gateway_of_the_default_route_is_not_given_out():
    outcome = read(range="10.1.0.0/29", gateway="10.1.0.1", routes=[{"dst": "0.0.0.0/0"}])

    assert spans(outcome) == [("10.1.0.2-10.1.0.6",)]
    assert outcome.uses[0].window.gateway == parse_address("10.1.0.1")[1]


def test_a_gateway_without_a_default_route_adds_none():
    outcome = read(range="10.1.0.0/29", gateway="10.1.0.1")

    assert outcome.uses[0].window.gateway is None
    assert spans(outcome) == [("10.1.0.2-10.1.0.6",)]


def test_the_first_range_comes_before_the_list():
    outcome = read(range="10.1.0.0/29", ipRanges=[{"range": "fd00::/120"}])

    assert [use.ip_pool for use in outcome.uses] == ["10.1.0.0-29", "fd00---120"]


def test_slices_are_pools_of_their_nodes():
    slices = {"blue": (("n1", "10.1.0.0/26"), ("n2", "10.1.0.64/26"))}

    outcome = read(slices, range="10.1.0.0/24", node_slice_size="/26", network_name="blue")

    assert [use.ip_pool for use in outcome.uses] == ["blue-n1-10.1.0.0-26", "blue-n2-10.1.0.64-26"]
    assert [use.window.nodes for use in outcome.uses] == [("n1",), ("n2",)]
    assert {str(use.window.subnet) for use in outcome.uses} == {"10.1.0.0/24"}


@pytest.mark.parametrize(
    ("ipam", "part"),
    [
        ({}, "names no range"),
        ({"range": "10.1.0.0"}, "not a subnet"),
        ({"range": "10.1.0.0/31"}, "no address between"),
        ({"range": "10.1.0.0/24", "ipRanges": [{"range": "10.2.0.0/24"}]}, "several addresses of one family"),
        ({"range": "10.1.0.0/24", "addresses": [{"address": "10.9.0.1/24"}]}, "the same addresses to every pod"),
        ({"range": "10.1.0.0/24", "routes": [{"dst": "rubbish"}]}, "not a subnet"),
    ],
)  # fmt: skip
def test_what_cannot_be_taken_over_is_a_problem_that_names_the_network(ipam, part):
    problems = read(**ipam).problems

    assert any(part in problem and problem.startswith("network a") for problem in problems), problems


def test_names_of_objects_are_whereabouts_own():
    assert ip_pool_name(parse_cidr("10.1.0.0/24"), "", "") == "10.1.0.0-24"
    assert ip_pool_name(parse_cidr("fd00:1::/64"), "blue", "n1") == "blue-n1-fd00-1---64"
    assert reservation_name(*parse_address("fd00::5"), "") == "fd00--5"
    assert reservation_name(*parse_address("fd00:1::"), "blue") == "blue-fd00-1--0"
