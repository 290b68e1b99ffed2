"""Annotations: read whole or the pod is refused, with pod, annotation, field and a right form."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.decisions import annotations as known
from actors.decisions.annotations import NetworkSelection, PoolNames, SubnetWish
from actors.decisions.auto_pool import Size
from actors.errors import PodRefused
from actors.resources.addresses import parse_address
from actors.resources.namespace import Namespace
from actors.resources.pod import Pod


def pod(key: str, value: str) -> Pod:
    return Pod("shop", "web-0", annotations={key: value})


READERS: dict[str, Any] = {
    known.POD_POOLS: known.read_ippools,
    known.POD_POOL: known.read_ippool,
    known.POD_ROUTES: known.read_routes,
    known.POD_DEFAULT_ROUTE_NIC: known.read_default_route_nic,
    known.POD_SUBNETS: lambda pod: known.read_subnets(f"pod {pod.key}", pod.annotations),
    known.POD_SUBNET: lambda pod: known.read_subnets(f"pod {pod.key}", pod.annotations),
    **{
        key: lambda pod: known.read_subnets(
            f"pod {pod.key}", {known.POD_SUBNET: '{"ipv4":["a"]}', **pod.annotations}
        )
        for key in (known.POD_IP_NUMBER, known.POD_RECLAIM)
    },
    known.NETWORKS: known.read_networks,
    known.DEFAULT_NETWORK: lambda pod: known.read_default_network(pod, "kube-system", None),
    **{
        key: lambda pod: known.read_namespace_pools(pod, Namespace("shop", annotations=pod.annotations))
        for key in known.NAMESPACE_POOLS.values()
    },
}


def test_right_forms() -> None:
    read = known.read_ippools(pod(known.POD_POOLS, '[{"interface":"eth0","ipv4":["a"],"cleangateway":true}]'))
    assert read == (PoolNames("eth0", ("a",), (), True),)
    assert known.read_ippool(pod(known.POD_POOL, '{"ipv6":["a","b"]}')) == PoolNames("", (), ("a", "b"))
    routes = known.read_routes(pod(known.POD_ROUTES, '[{"dst":"fd00::/8","gw":"fd00:6::1"}]'))
    assert [(str(route.destination), (6, route.gateway)) for route in routes] == [
        ("fd00::/8", parse_address("fd00:6::1"))
    ]
    assert known.read_networks(pod(known.NETWORKS, "a, b/c@data ,d")) == (
        NetworkSelection("shop", "a", "net1", ()),
        NetworkSelection("b", "c", "data", ()),
        NetworkSelection("shop", "d", "net3", ()),
    )
    assert known.read_networks(pod(known.NETWORKS, '[{"name":"a","mac":"x","ips":["10.0.0.1/8"]}]')) == (
        NetworkSelection("shop", "a", "net1", (parse_address("10.0.0.1"),)),
    )


@pytest.mark.parametrize(
    "key", [key for key in READERS if key not in (known.POD_IP_NUMBER, known.POD_RECLAIM)]
)
def test_absent_is_absent(key: str) -> None:
    assert READERS[key](Pod.bare("shop", "web-0")) in (None, ())


SUBNETS = {
    known.POD_SUBNETS: '[{"interface":"eth0","ipv4":["a","b-*"],"ipv6":["c"]},{"interface":"net1","ipv4":["d"]}]'
}


@pytest.mark.parametrize(
    ("annotations", "wish"),
    [
        (
            SUBNETS,
            SubnetWish(
                known.POD_SUBNETS,
                (PoolNames("eth0", ("a", "b-*"), ("c",)), PoolNames("net1", ("d",), ())),
            ),
        ),
        (
            {known.POD_SUBNET: '{"ipv4":["a"]}', known.POD_IP_NUMBER: "+2", known.POD_RECLAIM: "false"},
            SubnetWish(known.POD_SUBNET, (PoolNames("eth0", ("a",), ()),), Size(2, True), False),
        ),
        (
            {
                known.POD_SUBNET: '{"interface":"net2","ipv6":["a"]}',
                known.POD_IP_NUMBER: "5",
                known.POD_RECLAIM: "T",
            },
            SubnetWish(known.POD_SUBNET, (PoolNames("net2", (), ("a",)),), Size(5, False), True),
        ),
        (
            SUBNETS | {known.POD_SUBNET: "not read, because the other one outranks it"},
            SubnetWish(
                known.POD_SUBNETS,
                (PoolNames("eth0", ("a", "b-*"), ("c",)), PoolNames("net1", ("d",), ())),
            ),
        ),
    ],
)
def test_what_an_application_asks_of_subnets(annotations: dict[str, str], wish: SubnetWish) -> None:
    assert known.read_subnets("Deployment shop/web", annotations) == wish


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        (known.POD_POOLS, "", "it is not JSON"),
        (known.POD_POOLS, "[", "it is not JSON"),
        (known.POD_POOLS, "[" * 100000, "it has 100000 bytes, but may have 65536"),
        (known.POD_POOLS, "[" * 973 + "]" * 973, "nested deeper than 16"),
        (known.POD_POOLS, '[{"a":' * 500 + "1" + "}]" * 500, "nested deeper than 16"),
        (known.POD_POOLS, '[{"interface":"\\ud800","ipv4":["a"]}]', "it holds a control character"),
        (known.POD_POOLS, '[{"interface":"eth0","ipv4":["a\\u0007"]}]', "it holds a control character"),
        (known.POD_POOL, '{"ipv4":["\\ud800"]}', "it holds a control character"),
        (known.POD_POOL, '{"\\udfff":["a"]}', "it holds a control character"),
        (known.POD_POOL, json.dumps({"ipv4": ["a" * 254]}), "has 254 characters, but may have 253"),
        (known.POD_POOL, json.dumps({"ipv4": ["a"] * 257}), "it has 257 pools, but may have 256"),
        (known.POD_POOL, json.dumps({"ipv4": ["a*"] * 33}), "it has 33 wildcards, but may have 32"),
        (known.POD_POOL, '{"ipv4":[' + "1" * 5000 + "]}", "it is not JSON"),
        (known.POD_POOL, '{"ipv4":NaN}', "NaN is no number"),
        (
            known.POD_POOLS,
            json.dumps([{"interface": f"net{number}", "ipv4": ["a"]} for number in range(33)]),
            "it has 33 interfaces, but may have 32",
        ),
        (
            known.POD_POOLS,
            json.dumps([{"interface": f"net{number}", "ipv4": ["a"] * 129} for number in range(2)]),
            "it has 258 pools, but may have 256",
        ),
        (
            known.POD_ROUTES,
            json.dumps([{"dst": "10.0.0.0/8", "gw": "10.0.0.1"}] * 257),
            "it has 257 routes, but may have 256",
        ),
        (known.POD_ROUTES, json.dumps([{"dst": "1" * 9000, "gw": "10.0.0.1"}]), "has 9000 characters"),
        (known.POD_DEFAULT_ROUTE_NIC, "\ud800", "is not the name of an interface"),
        (known.NETWORKS, ",".join(["a"] * 33), "it has more than 32 networks"),
        (known.NETWORKS, json.dumps([{"name": "a"}] * 33), "it has more than 32 networks"),
        (known.NETWORKS, json.dumps([{"name": "a", "ips": ["10.0.0.1"] * 17}]), "it has 17 addresses"),
        (known.NETWORKS, "a" * 60000, "'... (60000 characters) is not the name of an object"),
        (known.NETWORKS, "[" * 900 + "]" * 900, "nested deeper than 16"),
        (known.NETWORKS, '[{"name":"a","interface":"\\ud800"}]', "it holds a control character"),
        (known.NAMESPACE_POOLS[4], "[" * 973 + "]" * 973, "nested deeper than 16"),
        (known.NAMESPACE_POOLS[6], json.dumps(["a"] * 257), "it has 257 pools, but may have 256"),
        (known.POD_POOLS, "{}", "it is {}, but must be a list"),
        (known.POD_POOLS, "[]", "the list is empty"),
        (known.POD_POOLS, "[3]", "[0] is 3, but must be a mapping"),
        (known.POD_POOLS, '[{"interface":"eth0"}]', "[0] names no pool"),
        (
            known.POD_POOLS,
            '[{"nic":"eth0"}]',
            '[0] names no pool; name at least one in ipv4 or ipv6 ("nic" is no key of it',
        ),
        (known.POD_POOLS, '[{"ipv4":"a"}]', '[0].ipv4 is "a", but must be a list'),
        (known.POD_POOLS, '[{"ipv4":[1]}]', "[0].ipv4[0] is 1, but must be a text"),
        (known.POD_POOLS, '[{"ipv4":[""]}]', "the name of a pool is empty"),
        (
            known.POD_POOLS,
            '[{"ipv4":["a"],"cleangateway":"true"}]',
            "must be true or false, without quotes",
        ),
        (known.POD_POOLS, '[{"interface":"e/0","ipv4":["a"]}]', '"e/0" is not the name of an interface'),
        (known.POD_POOLS, '[{"interface":"eth0","ipv4":["a"]},{"ipv4":["a"]}]', "some do not"),
        (
            known.POD_POOLS,
            '[{"interface":"a","ipv4":["a"]},{"interface":"a","ipv4":["b"]}]',
            "has two entries",
        ),
        (known.POD_POOL, "[]", "it is [], but must be a mapping"),
        (known.POD_POOL, "{}", "it names no pool"),
        (known.POD_POOL, '{"ip4":["a"]}', '"ip4" is no key of it; did you mean ipv4?'),
        (
            known.POD_ROUTES,
            '[{"dst":"10.0.0.0/8"}]',
            "[0].gw is null, but every route needs dst and gw",
        ),
        (
            known.POD_ROUTES,
            '[{"dst":"10.0.0.0/8","gw":"fd00::1"}]',
            "[0].gw: 'fd00::1' is an IPv6 address",
        ),
        (
            known.POD_ROUTES,
            '[{"dst":"10.0.0.0","gw":"10.0.0.1"}]',
            "[0].dst: '10.0.0.0' is not a subnet",
        ),
        (known.POD_DEFAULT_ROUTE_NIC, "a-very-long-interface", "is not the name of an interface"),
        (known.NETWORKS, "a/b/c", "'a/b/c' is not of the form"),
        (known.NETWORKS, "a,,b", "'' is not of the form"),
        (known.NETWORKS, "a@", "'a@' is not of the form"),
        (known.NETWORKS, "A_b", "'A_b' is not the name of an object"),
        (known.NETWORKS, '[{"namespace":"x"}]', "entry 0 has no name"),
        (
            known.NETWORKS,
            '[{"name":"a","ips":["10.0.0"]}]',
            "[0].ips[0]: '10.0.0' is not an IP address",
        ),
        (known.NETWORKS, '["a"]', '[0] is "a", but must be a mapping'),
        (known.POD_SUBNETS, "[]", "the list is empty"),
        (known.POD_SUBNETS, '[{"ipv4":["a"]}]', '"" is not the name of an interface'),
        (
            known.POD_SUBNETS,
            '[{"interface":"eth0"}]',
            "[0] names no subnet; name at least one in ipv4 or ipv6",
        ),
        (known.POD_SUBNETS, '[{"interface":"eth0","ipv4":[""]}]', "the name of a subnet is empty"),
        (
            known.POD_SUBNETS,
            '[{"interface":"eth0","ipv4":["a"]},{"interface":"eth0","ipv4":["b"]}]',
            "interface eth0 has two entries; keep one",
        ),
        (
            known.POD_SUBNETS,
            '[{"interface":"eth0","ipv4":["a"]},{"interface":"net1","ipv4":["a"]}]',
            'subnet "a" is named twice for IPv4; keep one',
        ),
        (
            known.POD_SUBNETS,
            '[{"interface":"a","ipv4":' + json.dumps(["x"] * 257) + "}]",
            "it has 257 subnets",
        ),
        (known.POD_SUBNETS, "[" * 900 + "]" * 900, "nested deeper than 16"),
        (known.POD_SUBNET, "[]", "it is [], but must be a mapping"),
        (known.POD_SUBNET, '{"ipv4":"a"}', 'ipv4 is "a", but must be a list'),
        (known.POD_SUBNET, json.dumps({"ipv4": ["a*"] * 33}), "it has 33 wildcards, but may have 32"),
        *(
            (known.POD_IP_NUMBER, text, "but must be a number of addresses, or + and a number")
            for text in ("", "-1", "++1", "1+", "1.5", "+ 1", "a", "1234567890", "9" * 5000, "\u0663")
        ),
        *(
            (known.POD_RECLAIM, text, "but must be true or false")
            for text in ("", "yes", "tRuE", "no", "2", "t" * 5000)
        ),
        (known.DEFAULT_NETWORK, "{", "it is not JSON"),
        (known.NAMESPACE_POOLS[4], '{"ipv4":["a"]}', "but must be a list"),
        (known.NAMESPACE_POOLS[4], "[4]", "[0] is 4, but must be a text"),
    ],
)
def test_refusal_names_pod_annotation_field_and_a_right_form(key: str, value: str, says: str) -> None:
    with pytest.raises(PodRefused) as refusal:
        READERS[key](pod(key, value))

    assert refusal.value.message.startswith("pod shop/web-0: ")
    assert f"annotation {key}: " in refusal.value.message
    assert says in refusal.value.message
    assert "; a right form is: " in refusal.value.message
    assert len(refusal.value.message) < 800
    assert refusal.value.message.isprintable()


json_like = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=5)
    | st.sampled_from(["eth0", "10.0.0.1", "10.0.0.0/8"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["interface", "ipv4", "ipv6", "cleangateway", "dst", "gw", "name", "ips"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=10,
)


@given(st.sampled_from(sorted(READERS)), json_like.map(json.dumps) | st.text(max_size=20))
def test_whatever_it_is_it_is_read_or_refused(key: str, value: str) -> None:
    """No value of an annotation raises anything but `PodRefused`."""
    said = f"annotation {key}"
    try:
        READERS[key](pod(key, value))
    except PodRefused as refusal:
        said = refusal.message

    assert f"annotation {key}" in said


@pytest.mark.parametrize(
    ("key", "value", "ignored"),
    [
        (known.POD_POOL, '{"ipv4":["a"],"interface":"eth0"}', ["interface"]),
        (known.POD_POOLS, '[{"ipv4":["a"],"defaultRoute":true}]', ["defaultRoute"]),
        (known.POD_POOLS, '[{"interfaces":"eth0","ipv4":["a"]}]', ["interfaces"]),
        (known.POD_POOLS, '[{"ipv4":["a"],"x":1},{"ipv4":["b"],"x":2,"y":3}]', ["x", "y"]),
        (known.POD_ROUTES, '[{"dst":"10.0.0.0/8","gw":"10.6.0.1","via":"eth0"}]', ["via"]),
        (known.POD_POOLS, '[{"IPv4":["a"],"cleanGateway":true,"Interface":"eth0"}]', []),
        (known.POD_SUBNETS, '[{"ipv4":["a"],"interface":"eth0","cleangateway":true}]', ["cleangateway"]),
    ],
)
def test_a_key_that_spiderpool_passes_over_refuses_no_pod_and_is_told(
    key: str, value: str, ignored: list[str]
) -> None:
    pod = Pod("shop", "web", annotations={key: value})

    known.read_ippools(pod)
    known.read_ippool(pod)
    known.read_routes(pod)
    told = known.ignored_keys(pod)

    assert len(told) == len(ignored)
    assert all(
        f'annotation {key}: "{word}" is no key of it' in text
        for word, text in zip(ignored, told, strict=True)
    )


def test_thousands_of_unknown_keys_are_told_by_a_few() -> None:
    annotation = json.dumps({"ipv4": ["a"], **{f"key{number}": 1 for number in range(3000)}})

    assert len(known.ignored_keys(Pod("shop", "web", annotations={known.POD_POOL: annotation}))) == 5


def test_nothing_is_told_of_an_annotation_that_another_outranks() -> None:
    annotations = {known.POD_POOLS: '[{"ipv4":["a"]}]', known.POD_POOL: '{"interface":"eth0"}'}

    assert known.ignored_keys(Pod("shop", "web", annotations=annotations)) == ()
    asks = annotations | {known.POD_SUBNET: '{"ipv4":["a"],"x":1}'}
    assert len(known.ignored_keys(Pod("shop", "web", annotations=asks))) == 1
    assert known.ignored_keys(Pod("shop", "web", annotations=asks), subnets=False) == ()
