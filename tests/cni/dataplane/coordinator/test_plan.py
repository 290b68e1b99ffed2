"""The plan is computed without a kernel; a model of one applies it, and what was planned is checked against it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.errors import InvalidRequest, PodRefused
from cni.dataplane.coordinator.plan import effective_mode, make_plan
from cni.dataplane.coordinator.settings import read_settings
from cni.dataplane.state import MAIN, CoordinatorPlan, HostState, Nic, PodState, PolicyRule, Route, applied

HOST = HostState(("10.6.168.123/16", "fd00:6::123/64"))
ETH0 = Nic("eth0", 2, "02:00:00:00:00:01", ("10.6.168.172/16",))
NET1 = Nic("net1", 4, "02:00:00:00:00:02", ("10.7.168.173/16",))
VETH0 = Nic("veth0", 3, "02:00:00:00:00:03")
SERVICES = {"name": "blue", "serviceCIDR": ["10.96.0.0/12", "fd00:96::/112"]}


def _routes_of(nic: Nic) -> tuple[Route, ...]:
    found = []
    for cidr in nic.addresses:
        address = cidr.partition("/")[0]
        if ":" in cidr:
            found += [
                Route(f"{cidr[: cidr.index('::')]}::/64", nic.name),
                Route("::/0", nic.name, gw="fd00:6::1"),
            ]
        else:
            net = ".".join(address.split(".")[:2])
            found += [
                Route("0.0.0.0/0", nic.name, gw=f"{net}.0.1"),
                Route(f"{net}.0.0/16", nic.name, src=address, link=True, proto=2),
            ]
    return tuple(found)


def _pod(*nics: Nic) -> PodState:
    return PodState(nics, tuple(route for nic in nics for route in _routes_of(nic)))


def _recorded(pod: PodState) -> set[str]:
    return {address.partition("/")[0] for nic in pod.nics for address in nic.addresses}


def _plan(
    pod: PodState,
    interface: str,
    *,
    expected: tuple[str, ...] = (),
    gateways: tuple[str, ...] = (),
    pod_chose: bool = False,
    **conf: object,
) -> CoordinatorPlan:
    settings = replace(read_settings({**SERVICES, **conf}), pod_chose=pod_chose)
    return make_plan(
        settings,
        pod,
        HOST,
        container="c" * 64,
        interface=interface,
        recorded=_recorded(pod),
        expected=expected,
        gateways=gateways,
    )


def test_two_nics_get_the_tables_of_the_document() -> None:
    """Spiderpool's document "Pod annotation of multi-NIC"."""
    state = applied(_pod(ETH0), _plan(_pod(ETH0), "eth0"))
    state = PodState((*state.nics, NET1), state.routes + _routes_of(NET1), state.rules)

    state = applied(state, _plan(state, "net1"))

    assert [str(rule) for rule in sorted(state.rules, key=lambda rule: rule.priority)] == [
        "1000: from all fwmark 0x1 lookup 500",
        "1000: from all fwmark 0x2 lookup main",
        "32764: from 10.7.168.173 lookup 100",
        "32765: from all to 10.7.168.173/16 lookup 100",
    ]
    assert sorted(str(route) for route in state.routes if route.table == 100) == [
        "10.6.168.123 dev veth0 scope link table 100",
        "10.7.0.0/16 dev net1 proto kernel scope link src 10.7.168.173 table 100",
        "10.96.0.0/12 via 10.6.168.123 dev veth0 table 100",
        "default via 10.7.0.1 dev net1 table 100",
    ]
    assert [str(route) for route in state.routes if route.default and route.table == MAIN] == [
        "default via 10.6.0.1 dev eth0"
    ]


def test_the_chosen_nic_keeps_the_default_route() -> None:
    state = applied(_pod(ETH0), _plan(_pod(ETH0), "eth0", podDefaultRouteNic="net1"))
    state = PodState((*state.nics, NET1), state.routes + _routes_of(NET1), state.rules)

    state = applied(state, _plan(state, "net1", podDefaultRouteNic="net1"))

    assert {(route.dev, route.table) for route in state.routes if route.default} == {
        ("net1", MAIN), ("eth0", 100), ("veth0", 500)
    }  # fmt: skip
    assert PolicyRule(4, 32764, 100, src="10.6.168.172/32") in state.rules


@pytest.mark.parametrize("expected", [(), ("eth0", "net1")])
def test_a_chosen_nic_that_is_not_there_is_refused_by_name(expected: tuple[str, ...]) -> None:
    with pytest.raises(InvalidRequest, match=r"net7.*eth0, net1"):
        _plan(_pod(ETH0, VETH0, NET1), "net1", podDefaultRouteNic="net7", expected=expected)


def test_the_first_interface_is_refused_when_the_pod_says_that_the_chosen_one_never_comes() -> None:
    with pytest.raises(InvalidRequest, match=r"net7.*eth0, net1"):
        _plan(_pod(ETH0), "eth0", podDefaultRouteNic="net7", expected=("eth0", "net1"))
    with pytest.raises(InvalidRequest, match=r"net7.*eth0"):
        _plan(_pod(ETH0), "eth0", podDefaultRouteNic="net7", expected=("eth0",), pod_chose=True)


def test_what_a_configuration_chose_is_nothing_to_a_pod_with_one_interface() -> None:
    plan = _plan(_pod(ETH0), "eth0", podDefaultRouteNic="net1", expected=("eth0",))

    assert plan.pod.gone == ()


@pytest.mark.parametrize("by_ipam", [True, False])
def test_the_chosen_nic_may_be_the_third(by_ipam: bool) -> None:
    """While it is still to come the others have the tables that they keep; `by_ipam`: IPAM knew the choice and gave
    default routes to it alone, as for the annotation."""
    expected = ("eth0", "net1", "net2")
    net2 = Nic("net2", 6, "02:00:00:00:00:06", ("10.8.168.174/16",))
    state = PodState(())
    for nic in (ETH0, NET1, net2):
        routes = _routes_of(nic)
        net = ".".join(nic.addresses[0].split(".")[:2])
        if by_ipam and nic is not net2:
            routes = tuple(route for route in routes if not route.default)
        if not by_ipam and any(route.default and route.table == MAIN for route in state.routes):
            routes = tuple(
                route for route in routes if not route.default
            )  # EEXIST, which main plugins ignore
        state = PodState((*state.nics, nic), state.routes + routes, state.rules)
        for _ in range(2):
            plan = _plan(
                state, nic.name, podDefaultRouteNic="net2", expected=expected, gateways=(f"{net}.0.1",)
            )
            again, state = state, applied(state, plan)

        assert again == state

    assert {str(route) for route in state.routes if route.default and route.table != 500} == {
        "default via 10.6.0.1 dev eth0 table 100",
        "default via 10.7.0.1 dev net1 table 101",
        "default via 10.8.0.1 dev net2",
    }
    assert {str(rule) for rule in state.rules} >= {
        "1000: from all fwmark 0x2 lookup 100",
        "32764: from 10.6.168.172 lookup 100",
        "32762: from 10.7.168.173 lookup 101",
    }


def test_a_family_that_only_a_further_interface_has_keeps_its_default_route() -> None:
    """Else the pod could begin no IPv6 connection."""
    dual = Nic("net1", 4, NET1.mac, (*NET1.addresses, "fd00:6::9/64"))
    state = applied(_pod(ETH0, VETH0), _plan(_pod(ETH0, VETH0), "eth0"))
    state = PodState((*state.nics, dual), state.routes + _routes_of(dual), state.rules)

    for _ in range(2):
        state = applied(state, _plan(state, "net1"))

        assert {str(route) for route in state.routes if route.default and route.dev != "veth0"} == {
            "default via 10.6.0.1 dev eth0",
            "default via 10.7.0.1 dev net1 table 100",
            "default via fd00:6::1 dev net1",
            "default via fd00:6::1 dev net1 table 100",
        }


def test_what_a_router_advertised_moves_and_its_default_route_does_not_come_back() -> None:
    """The subnet's route stays in the main table too, where the kernel renews it with each advertisement."""
    dual = Nic("eth0", 2, ETH0.mac, (*ETH0.addresses, "fd00:6::9/64"))
    state = applied(_pod(dual, VETH0), _plan(_pod(dual, VETH0), "eth0"))
    slaac = "fd00:7::9/64"
    net1 = Nic("net1", 4, NET1.mac, (*NET1.addresses, slaac), dynamic=(slaac,))
    learnt = (
        Route("fd00:7::/64", "net1", proto=2, metric=256),
        Route("::/0", "net1", gw="fe80::1", proto=9, metric=1024),
    )
    state = PodState((*state.nics, net1), (*state.routes, *_routes_of(NET1), *learnt), state.rules)

    for _ in range(2):
        plan = _plan(state, "net1")
        before, state = state, applied(state, plan)

        assert ("net/ipv6/conf/net1/accept_ra_defrtr", "0") in plan.pod.sysctls
    assert before == state
    assert {(route.dst, route.table) for route in state.routes if route.dev == "net1" and route.family == 6} == {
        ("fd00:7::/64", MAIN), ("fd00:7::/64", 100), ("::/0", 100)
    }  # fmt: skip
    assert PolicyRule(6, 32764, 100, src="fd00:7::9/128") in state.rules


def test_routes_are_left_alone_when_asked() -> None:
    plan = _plan(_pod(ETH0, VETH0, NET1), "net1", tunePodRoutes=False)

    assert plan.pod.gone == ()
    assert [rule for rule in plan.pod.rules if not rule.mark] == []


@pytest.mark.parametrize(
    "mode, nics, interface, expected",
    [
        ("auto", (ETH0,), "eth0", "underlay"),
        ("auto", (ETH0, VETH0, NET1), "net1", "underlay"),
        ("auto", (ETH0, NET1), "net1", "overlay"),
        ("disable", (ETH0,), "eth0", "disable"),
    ],
)
def test_mode(mode: str, nics: tuple[Nic, ...], interface: str, expected: str) -> None:
    assert effective_mode(read_settings({"name": "n", "mode": mode}), _pod(*nics), interface) == expected


@pytest.mark.parametrize(
    "mode, nics, interface",
    [
        ("underlay", (ETH0, NET1), "net1"),
        ("overlay", (ETH0,), "eth0"),
        ("overlay", (ETH0, VETH0, NET1), "net1"),
    ],
)
def test_a_mode_that_cannot_work_is_refused(mode: str, nics: tuple[Nic, ...], interface: str) -> None:
    with pytest.raises(InvalidRequest, match=interface):
        effective_mode(read_settings({"name": "n", "mode": mode}), _pod(*nics), interface)


def test_an_interface_that_is_not_there_is_refused() -> None:
    with pytest.raises(PodRefused, match="net3"):
        _plan(_pod(ETH0), "net3")


@pytest.mark.parametrize(
    "field, value",
    [
        ("mode", "sideways"),
        ("podMACPrefix", "0b:1c"),
        ("podRPFilter", 3),
        ("serviceCIDR", ["10.96.0"]),
        ("hijackCIDR", "10.96.0.0/12"),
        ("policyRoutes", [{"dst": "10.0.0.0/8", "gw": "fd00::1"}]),
        ("hostRuleTable", -1),
        ("policyRoutes", [{"dst": "10.0.0.0/8", "gw": "224.0.0.1"}]),
        ("txQueueLen", "many"),
        ("vethMTU", 0),
        ("tunePodRoutes", "yes"),
        ("podDefaultRouteNic", 1),
    ],
)
def test_a_wrong_value_is_refused_by_its_field(field: str, value: object) -> None:
    with pytest.raises(InvalidRequest, match=field):
        read_settings({"name": "blue", field: value})


_COUNTS = st.integers(1, 5)


@given(
    count=_COUNTS,
    families=st.sampled_from([(4,), (6,), (4, 6)]),
    chosen=_COUNTS,
    tune=st.booleans(),
    host=st.sampled_from([HOST, HostState(("10.6.168.123/16",)), HostState(())]),
)
def test_adding_interface_after_interface(
    count: int, families: tuple[int, ...], chosen: int, tune: bool, host: HostState
) -> None:
    """After every ADD: applying it again changes nothing; one interface holds the default routes of the main table; every
    other one has a table of its own and rules from its addresses to it; what leads to the host does so by veth0."""
    state = PodState(())
    for number in range(count):
        name = "eth0" if number == 0 else f"net{number}"
        addresses = tuple(
            f"10.{6 + number}.0.9/16" if one == 4 else f"fd00:{6 + number}::9/64" for one in families
        )
        nic = Nic(name, 10 + number, f"02:00:00:00:01:{number:02x}", addresses)
        state = PodState((*state.nics, nic), state.routes + _routes_of(nic), state.rules)
        settings = read_settings(
            {**SERVICES, "tunePodRoutes": tune, "podDefaultRouteNic": "net1" if chosen == 1 else ""}
        )
        plan = make_plan(settings, state, host, container="c" * 64, interface=name, recorded=_recorded(state))
        state = applied(state, plan)
        again = make_plan(
            settings, state, host, container="c" * 64, interface=name, recorded=_recorded(state)
        )

        assert applied(state, again) == state
        for family in families:
            holders = {
                one.dev for one in state.routes if one.default and one.table == MAIN and one.family == family
            }
            if not tune:
                continue
            assert len(holders) == 1, holders
            others = [one for one in state.nics if one.name not in (*holders, "veth0")]
            tables = {
                one.name: {
                    rule.table for rule in state.rules if rule.src.partition("/")[0] in
                    {address.partition("/")[0] for address in one.addresses} and rule.family == family
                }
                for one in others
            }  # fmt: skip
            assert all(len(found) == 1 for found in tables.values()), tables
            assert len({min(found) for found in tables.values()}) == len(others)
        bare = {one.partition("/")[0] for one in host.addresses}
        assert all(one.dev == "veth0" for one in state.routes if one.dst.partition("/")[0] in bare)


@pytest.mark.parametrize(
    "address, given",
    [
        ("169.254.100.1", True),
        ("10.0.0.1", True),  # Spiderpool takes any IPv4 address
        ("10.6.0.1", False),  # a neighbour of the pod, its gateway perhaps
        ("10.6.168.172", False),
        ("192.168.7.1", False),  # the host's own
    ],
)
def test_the_veth_has_the_address_that_is_wished_unless_it_is_a_neighbours(address: str, given: bool) -> None:
    settings = read_settings({**SERVICES, "vethLinkAddress": address})
    host = HostState((*HOST.addresses, "192.168.7.1/24"))

    plan = make_plan(
        settings, _pod(ETH0), host, container="c" * 64, interface="eth0", recorded=_recorded(_pod(ETH0))
    )

    assert plan.pod.addresses == ((("veth0", f"{address}/32"),) if given else ())
