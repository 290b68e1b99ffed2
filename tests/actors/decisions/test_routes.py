"""Routes of a CNI result: defaults, pool routes, the annotation's routes and what is left out, with
reasons."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from actors.decisions.plan import Plan
from actors.decisions.routes import InterfaceAddress, route, unreached
from actors.resources.addresses import format_address, parse_address, parse_cidr
from actors.resources.ippool import IPPool
from actors.resources.space import PoolRoute


def lease(interface: str, subnet: str, *, clean_gateway: bool = False, **spec: Any) -> InterfaceAddress:
    pool = IPPool.from_object(
        {
            "metadata": {"name": f"pool-{subnet.partition('/')[0].replace('.', '-')}"},
            "spec": {"subnet": subnet, **spec},
        }
    )
    return InterfaceAddress(interface, pool.subnet.first + 9, pool, clean_gateway)


def custom(*pairs: tuple[str, str]) -> tuple[PoolRoute, ...]:
    return tuple(PoolRoute(parse_cidr(dst), parse_address(gw)[1]) for dst, gw in pairs)


def texts(routes: tuple[PoolRoute, ...]) -> list[tuple[str, str]]:
    return [(str(one.destination), format_address(one.family, one.gateway)) for one in routes]


FOUR = lease("eth0", "10.6.0.0/16", gateway="10.6.0.1", routes=[{"dst": "172.16.0.0/12", "gw": "10.6.0.2"}])
SIX = lease("eth0", "fd00:6::/64", gateway="fd00:6::1")
NET1 = lease("net1", "10.7.0.0/16", gateway="10.7.0.1")


def test_default_routes_and_pool_routes_of_both_families() -> None:
    found = route("eth0", [SIX, FOUR, NET1], Plan("shop/web-0", ()))

    assert texts(found.routes) == [
        ("0.0.0.0/0", "10.6.0.1"),
        ("172.16.0.0/12", "10.6.0.2"),
        ("::/0", "fd00:6::1"),
    ]
    assert found.reasons == ()


def test_cleangateway_keeps_the_default_route_out_and_nothing_else() -> None:
    clean = lease(
        "eth0",
        "10.6.0.0/16",
        clean_gateway=True,
        gateway="10.6.0.1",
        routes=[{"dst": "172.16.0.0/12", "gw": "10.6.0.2"}],
    )
    found = route("eth0", [clean], Plan("shop/web-0", ()))

    assert texts(found.routes) == [("172.16.0.0/12", "10.6.0.2")]
    assert found.reasons == ("eth0 IPv4: no default route, because of cleangateway",)


def test_a_pool_without_gateway_gives_no_default_route() -> None:
    found = route("eth0", [lease("eth0", "10.6.0.0/16")], Plan("shop/web-0", ()))

    assert found.routes == ()
    assert found.reasons == ("eth0 IPv4: no default route, pool pool-10-6-0-0 has no gateway",)


def test_the_default_route_goes_to_the_chosen_interface_only() -> None:
    plan = Plan("shop/web-0", (), default_route_nic="net1")

    assert texts(route("eth0", [FOUR, NET1], plan).routes) == [("172.16.0.0/12", "10.6.0.2")]
    assert route("eth0", [FOUR, NET1], plan).reasons == ("eth0 IPv4: no default route, it goes to net1",)
    assert texts(route("net1", [FOUR, NET1], plan).routes) == [("0.0.0.0/0", "10.7.0.1")]


def test_annotation_routes_go_to_the_interface_that_reaches_their_gateway() -> None:
    plan = Plan("shop/web-0", (), routes=custom(("192.168.0.0/16", "10.7.0.9"), ("192.0.2.0/24", "10.6.0.9")))

    assert ("192.168.0.0/16", "10.7.0.9") in texts(route("net1", [FOUR, NET1], plan).routes)
    assert ("192.168.0.0/16", "10.7.0.9") not in texts(route("eth0", [FOUR, NET1], plan).routes)
    assert ("192.0.2.0/24", "10.6.0.9") in texts(route("eth0", [FOUR, NET1], plan).routes)


def test_two_interfaces_in_one_subnet_the_first_gets_the_route() -> None:
    plan = Plan("shop/web-0", (), routes=custom(("192.168.0.0/16", "10.6.0.9")))
    second = lease("net1", "10.6.0.0/16")

    assert ("192.168.0.0/16", "10.6.0.9") in texts(route("eth0", [FOUR, second], plan).routes)
    assert route("net1", [FOUR, second], plan).routes == ()


def test_a_route_that_nobody_reaches_is_left_out_with_a_reason() -> None:
    found = route("eth0", [FOUR], Plan("shop/web-0", (), routes=custom(("192.168.0.0/16", "10.9.0.9"))))

    assert len(found.routes) == 2
    assert found.reasons == (
        "route to 192.168.0.0/16 left out: no interface has a subnet with its gateway 10.9.0.9",
    )


def test_one_destination_has_one_route_and_the_annotation_wins() -> None:
    plan = Plan("shop/web-0", (), routes=custom(("0.0.0.0/0", "10.6.0.9"), ("172.16.0.0/12", "10.6.0.8")))

    assert texts(route("eth0", [FOUR], plan).routes) == [
        ("0.0.0.0/0", "10.6.0.9"),
        ("172.16.0.0/12", "10.6.0.8"),
    ]


def test_a_link_local_gateway_is_on_the_chosen_interface_else_on_the_first_with_ipv6() -> None:
    one, two = (
        lease("eth0", "fd00:6::/64", gateway="fe80::1"),
        lease("net1", "fd00:7::/64", gateway="fe80::1"),
    )
    wanted = custom(("fd00:9::/64", "fe80::7"))

    plain, chosen = (
        Plan("shop/web-0", (), routes=wanted),
        Plan("shop/web-0", (), routes=wanted, default_route_nic="net1"),
    )

    assert texts(route("eth0", [FOUR, one, two], plain).routes)[-2:] == [
        ("::/0", "fe80::1"),
        ("fd00:9::/64", "fe80::7"),
    ]
    assert texts(route("net1", [FOUR, one, two], plain).routes) == [("::/0", "fe80::1")]
    assert texts(route("net1", [FOUR, one, two], chosen).routes) == [
        ("::/0", "fe80::1"),
        ("fd00:9::/64", "fe80::7"),
    ]
    assert route("eth0", [FOUR], plain).reasons != ()


def test_a_route_that_no_interface_reaches_is_told_when_none_is_to_come() -> None:
    alone = Plan("shop/web-0", (), routes=custom(("10.9.0.0/16", "10.7.0.5"), ("10.10.0.0/16", "10.8.0.1")))
    two = replace(alone, networks=("net1",))

    assert len(unreached(alone, "eth0", [FOUR])) == 2
    assert unreached(two, "eth0", [FOUR]) == ()
    (told,) = unreached(two, "net1", [FOUR, NET1])
    assert "the route to 10.10.0.0/16 is left out" in told
    assert "gateway 10.8.0.1 (eth0: 10.6.0.0/16, net1: 10.7.0.0/16)" in told
    assert len(unreached(two, "eth0", [FOUR, NET1])) == 1  # both were planned at once
