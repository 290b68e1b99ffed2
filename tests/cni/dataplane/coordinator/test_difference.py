"""What of a plan is not so, computed from values alone."""

from __future__ import annotations

from cni.dataplane.coordinator.difference import Found, difference, told
from cni.dataplane.state import Desired, Neighbour, PolicyRule, Route

HOST = Route("10.6.0.123/32", "veth0", link=True)
SERVICES = Route("10.96.0.0/12", "veth0", gw="10.6.0.123")
RULE = PolicyRule(4, 32764, 100, src="10.7.0.9/32")
NEIGHBOUR = Neighbour("10.6.0.123", "veth0", "02:00:00:00:00:01")
MOVED = Route("10.7.0.0/16", "net1")
DESIRED = Desired(
    addresses=(("veth0", "169.254.100.1/32"),),
    routes=(HOST, SERVICES),
    rules=(RULE,),
    neighbours=(NEIGHBOUR,),
    sysctls=(("net/ipv4/conf/all/rp_filter", "0"),),
)


def test_nothing_is_missing_where_all_is_as_desired() -> None:
    found = Found((HOST, SERVICES), (RULE,), (NEIGHBOUR,), DESIRED.addresses)

    assert difference(DESIRED, found) == Desired()


def test_all_is_missing_where_there_is_nothing() -> None:
    missing = difference(DESIRED, Found())

    assert (missing.addresses, missing.routes) == (DESIRED.addresses, DESIRED.routes)
    assert (missing.rules, missing.neighbours) == (DESIRED.rules, DESIRED.neighbours)


def test_another_value_of_the_same_thing_is_missing() -> None:
    other = Neighbour(NEIGHBOUR.address, NEIGHBOUR.dev, "02:00:00:00:00:02")

    missing = difference(DESIRED, Found((HOST, Route(SERVICES.dst, "eth0")), (RULE,), (other,)))

    assert (missing.routes, missing.neighbours) == ((SERVICES,), (NEIGHBOUR,))


def test_each_thing_is_told_in_a_line() -> None:
    missing = difference(Desired(routes=(HOST,), rules=(RULE,), gone=(MOVED,)), Found())

    assert told("pod", missing) == [
        "pod: route 10.6.0.123 dev veth0 scope link",
        "pod: rule 32764: from 10.7.0.9 lookup 100",
        "pod: should not have route 10.7.0.0/16 dev net1",
    ]
