"""SpiderIPPool and SpiderReservedIP: parsed once, consistent afterwards, refused by field."""

from __future__ import annotations

from typing import Any

import pytest

from actors.errors import InvalidObject
from actors.resources.addresses import parse_cidr
from actors.resources.ippool import IPPool
from actors.resources.reservedip import ReservedIP


def pool(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "spiderpool.spidernet.io/v2beta1",
        "kind": "SpiderIPPool",
        "metadata": {"name": "blue", "uid": "u-1", "resourceVersion": "7", "labels": {"team": "net"}},
        "spec": {"subnet": "10.6.0.1/16", **spec},
    }


def test_reads_every_field() -> None:
    """The fields of Spiderpool's own example, and all others, under Spiderpool's names."""
    found = IPPool.from_object(
        pool(
            ipVersion=4,
            ips=["10.6.168.60-10.6.168.69", "10.6.168.80"],
            excludeIPs=["10.6.168.61", "10.6.168.68-10.6.168.69"],
            gateway="10.6.0.1",
            routes=[{"dst": "172.16.0.0/12", "gw": "10.6.0.2"}],
            vlan=5,
            podAffinity={"matchLabels": {"app": "web"}},
            namespaceAffinity={"matchExpressions": [{"key": "env", "operator": "In", "values": ["prod"]}]},
            namespaceName=["shop"],
            nodeAffinity={"matchLabels": {"zone": "a"}},
            nodeName=["n1"],
            multusName=["kube-system/macvlan-conf"],
            default=True,
            disable=True,
        )
    )

    assert (found.name, found.uid, found.version, found.family) == ("blue", "u-1", "7", 4)
    assert found.subnet == parse_cidr("10.6.0.0/16")
    assert found.available.ranges_text(4) == ("10.6.168.60", "10.6.168.62-10.6.168.67", "10.6.168.80")
    assert found.gateway == 0x0A060001
    assert [(str(route.destination), route.gateway) for route in found.routes] == [
        ("172.16.0.0/12", 0x0A060002)
    ]
    assert found.vlan == 5
    assert found.pod_affinity is not None
    assert found.pod_affinity.matches({"app": "web"})
    assert str(found.namespace_affinity) == "env in (prod)"
    assert (found.namespace_names, found.node_names) == (("shop",), ("n1",))
    assert found.multus_names == ("kube-system/macvlan-conf",)
    assert (found.default, found.disabled, found.terminating) == (True, True, False)
    assert found.labels == {"team": "net"}


def test_a_pool_without_ips_has_no_address() -> None:
    assert not IPPool.from_object(pool()).available


def test_family_follows_the_subnet_and_null_counts_as_absent() -> None:
    found = IPPool.from_object(
        pool(subnet="fd00:6::/112", ips=["fd00:6::10"], gateway=None, ipVersion=None, default=None)
    )

    assert (found.family, found.gateway, found.default) == (6, None, False)


def test_a_pool_being_deleted_is_terminating() -> None:
    obj = pool()
    obj["metadata"]["deletionTimestamp"] = "2025-01-31T12:00:00Z"

    assert IPPool.from_object(obj).terminating


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"subnet": None}, "spec.subnet is null, but every pool needs one"),
        ({"subnet": 5}, "spec.subnet is 5, but must be a text"),
        ({"subnet": "10.6.0.0"}, "spec.subnet: '10.6.0.0' is not a subnet in CIDR form"),
        ({"ipVersion": 6}, "spec.ipVersion is 6, but spec.subnet 10.6.0.0/16 is IPv4"),
        ({"ipVersion": 5}, "spec.ipVersion is 5, but must be 4 or 6"),
        ({"ips": "10.6.0.9"}, 'spec.ips is "10.6.0.9", but must be a list'),
        ({"ips": ["10.6.0.9", 3]}, r"spec.ips[1] is 3, but must be a text"),
        (
            {"ips": ["10.6.0.9", "10.7.0.1"]},
            "spec.ips[1] is '10.7.0.1', which is not inside spec.subnet 10.6.0.0/16",
        ),
        ({"ips": ["10.6.0.9", "fd00::1"]}, "spec.ips[1]: 'fd00::1' is not an IPv4 address or range"),
        ({"ips": ["10.6.0.9-10.6.0.2"]}, "spec.ips[0]: '10.6.0.9-10.6.0.2' ends before it starts"),
        ({"excludeIPs": ["10.9.0.9"]}, "spec.excludeIPs[0] is '10.9.0.9', which is not inside"),
        ({"gateway": "10.7.0.1"}, 'spec.gateway is "10.7.0.1", which is not inside spec.subnet'),
        ({"gateway": "router"}, "spec.gateway: 'router' is not an IP address"),
        ({"routes": [{"dst": "10.0.0.0/8"}]}, "spec.routes[0].gw is null, but every route needs dst and gw"),
        (
            {"routes": [{"dst": "fd00::/8", "gw": "10.6.0.1"}]},
            'spec.routes[0].dst is "fd00::/8", which is IPv6 in an IPv4',
        ),
        (
            {"routes": [{"dst": "10.0.0.0/8", "gw": "10.6.0.1", "mtu": 3}]},
            "spec.routes[0].mtu is not a known field",
        ),
        ({"vlan": 4095}, "spec.vlan is 4095, but a VLAN id is 1 to 4094"),
        ({"default": "true"}, 'spec.default is "true", but must be true or false, without quotes'),
        ({"podAffinity": {"matchExpressions": [{"key": "a", "operator": "in"}]}}, "did you mean In?"),
    ],
)
def test_refusal_names_pool_field_value_and_rule(spec: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidObject) as refusal:
        IPPool.from_object(pool(**spec))

    assert refusal.value.message.startswith("SpiderIPPool blue: spec.")
    assert says in refusal.value.message


@pytest.mark.parametrize(
    "obj", [None, [], {}, {"metadata": {"name": 3}}, {"kind": "Pod", "metadata": {"name": "a"}}, {1: 2}]
)
def test_refuses_what_is_no_pool_at_all(obj: Any) -> None:
    with pytest.raises(InvalidObject, match="SpiderIPPool"):
        IPPool.from_object(obj)


def test_reserved_addresses() -> None:
    def reserved(**spec: Any) -> ReservedIP:
        return ReservedIP.from_object({"kind": "SpiderReservedIP", "metadata": {"name": "r"}, "spec": spec})

    assert reserved(ips=["fd00::1-fd00::2"]).family == 6
    assert reserved(ipVersion=4, ips=["10.0.0.1", "10.0.0.2"]).ips.ranges_text(4) == ("10.0.0.1-10.0.0.2",)
    assert not reserved().ips
    with pytest.raises(InvalidObject, match=r"SpiderReservedIP r: spec\.ips\[1\]: 'fd00::1'"):
        reserved(ips=["10.0.0.1", "fd00::1"])
    with pytest.raises(InvalidObject, match=r"spec\.ipVersion is 5"):
        reserved(ipVersion=5)
