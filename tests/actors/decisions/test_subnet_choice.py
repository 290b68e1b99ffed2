"""A list of subnets is followed to its end, and what is left out of it is told."""

from __future__ import annotations

from dataclasses import replace

from actors.decisions.subnet_choice import SubnetChoice, choose_subnets
from actors.resources.addresses import parse_cidr
from actors.resources.subnet import SpiderSubnet

FOUR, SIX = parse_cidr("10.6.0.0/16"), parse_cidr("fd00::/64")
SUBNETS = {
    name: SpiderSubnet(name, subnet)
    for name, subnet in (("floor-1", FOUR), ("floor-2", FOUR), ("floor-6", SIX), ("roof", FOUR))
}


def test_names_in_their_order_and_wildcards_by_name_each_once() -> None:
    assert choose_subnets(("roof", "floor-*", "floor-1"), 4, SUBNETS, {}).names == (
        "roof",
        "floor-1",
        "floor-2",
    )
    assert choose_subnets(("floor-[^1]",), 4, SUBNETS, {}).names == ("floor-2",)
    assert choose_subnets((), 4, SUBNETS, {}) == SubnetChoice(())


def test_what_is_left_out_is_told_and_the_rest_is_used() -> None:
    going = SUBNETS | {"floor-2": replace(SUBNETS["floor-2"], terminating=True)}
    choice = choose_subnets(
        ("flor-1", "floor-6", "floor-2", "broken", "cellar-*", "roof"),
        4,
        going,
        {"broken": "spec.subnet is 7"},
    )

    assert choice.names == ("roof",)
    assert choice.refusals == (
        "there is no SpiderSubnet flor-1; did you mean floor-1?",
        "SpiderSubnet floor-6 is IPv6 and named where IPv4 ones go; name it under ipv6",
        "SpiderSubnet floor-2 is being deleted; name another one",
        "SpiderSubnet broken cannot be read: spec.subnet is 7; mend the object",
        "no IPv4 SpiderSubnet has a name like cellar-*; there are floor-1, floor-2, roof",
    )
    assert choose_subnets(("floor-*",), 4, {"floor-2": going["floor-2"]}, {}).names == ()
    assert "there is no IPv6 one at all" in choose_subnets(("x",), 6, {}, {}).refusals[0]
