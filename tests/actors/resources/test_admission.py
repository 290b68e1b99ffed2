"""Admission: what is let in parses, what is refused is refused by field with a remedy, what was written
stays."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.errors import InvalidObject
from actors.resources.admission import FINALIZER, SPIDERPOOL, admit
from actors.resources.ippool import IPPool
from actors.resources.reservedip import ReservedIP
from actors.resources.subnet import IPPOOL_CIDR


def pool(name: str = "blue", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": SPIDERPOOL,
        "kind": "SpiderIPPool",
        "metadata": {"name": name},
        "spec": {"subnet": "10.6.0.0/16", "ips": ["10.6.0.10-10.6.0.19"], **spec},
    }


def reserved(**spec: Any) -> dict[str, Any]:
    return {"apiVersion": SPIDERPOOL, "kind": "SpiderReservedIP", "metadata": {"name": "r"}, "spec": spec}


def test_defaults_are_added_to_a_copy() -> None:
    written = pool(gateway=None, subnet="10.6.0.1/16")
    before = copy.deepcopy(written)
    stored = admit(written)

    assert written == before
    assert stored["spec"] == {
        "ipVersion": 4,
        "subnet": "10.6.0.1/16",
        "ips": ["10.6.0.10-10.6.0.19"],
        "default": False,
        "disable": False,
        "vlan": 0,
    }
    assert stored["metadata"]["finalizers"] == [FINALIZER]
    assert stored["metadata"]["labels"] == {IPPOOL_CIDR: "10-6-0-0-16"}
    assert admit(stored, stored) == stored


def test_a_pool_being_deleted_does_not_get_its_finalizer_back() -> None:
    going = admit(pool())
    going["metadata"]["deletionTimestamp"] = "2025-01-31T12:00:00Z"
    going["metadata"]["finalizers"] = []

    assert admit(going, going)["metadata"]["finalizers"] == []


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"subnet": "10.6.0.0/33"}, "spec.subnet: '10.6.0.0/33' has a prefix length over 32"),
        ({"ips": ["10.7.0.1"]}, "spec.ips[0] is '10.7.0.1', which is not inside spec.subnet 10.6.0.0/16"),
        (
            {"ips": ["10.6.0.1", "10.6.0.9-10.6.0.2"]},
            "spec.ips[1]: '10.6.0.9-10.6.0.2' ends before it starts",
        ),
        ({"ips": ["fd00::1"]}, "spec.ips[0]: 'fd00::1' is not an IPv4 address or range"),
        ({"gateway": "10.7.0.1"}, "which is not inside spec.subnet"),
        (
            {"gateway": "10.6.0.12"},
            "is also one of the addresses to give out (10.6.0.10-10.6.0.19); add it to spec.excludeIPs",
        ),
        ({"vlan": -1}, "spec.vlan is -1, but a VLAN id is 1 to 4094"),
        ({"routes": [{"dst": "0.0.0.0/0", "gw": "10.6.0.1"}]}, "spec.routes[0].dst"),
        (
            {"routes": [{"dst": "10.8.0.0/16", "gw": "10.7.0.1"}]},
            'spec.routes[0].gw is "10.7.0.1", which is not inside',
        ),
        (
            {"routes": [{"dst": "10.8.0.0/16", "gw": "10.6.0.1"}, {"dst": "10.8.0.9/16", "gw": "10.6.0.2"}]},
            "spec.routes[1].dst",
        ),
        ({"podAffinity": {}}, "spec.podAffinity is {}, which matches every pod; name labels in it"),
        ({"excludeIps": []}, "spec.excludeIps is not a known field; did you mean excludeIPs?"),
        ({"nodeNames": []}, "spec.nodeNames is not a known field; did you mean nodeName?"),
        ({"ipVersion": "4"}, 'spec.ipVersion is "4", but must be a whole number'),
    ],
)
def test_a_broken_pool_is_refused_by_field(spec: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidObject) as refusal:
        admit(pool(**spec))

    assert refusal.value.message.startswith("SpiderIPPool blue: spec.")
    assert says in refusal.value.message


def test_a_gateway_may_be_in_ips_when_it_is_excluded() -> None:
    assert admit(pool(gateway="10.6.0.12", excludeIPs=["10.6.0.12"]))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            {"kind": "SpiderIPool"},
            'kind is "SpiderIPool", which is not a kind that is kept here; did you mean SpiderIPPool?',
        ),
        ({"apiVersion": "v1"}, 'SpiderIPPool blue: apiVersion is "v1", but SpiderIPPool is of spiderpool'),
        ({"metadata": {"name": "Blue"}}, 'metadata.name is "Blue", but must be a DNS subdomain'),
        ({"metadata": {}}, "metadata.name is null, but must be a DNS subdomain"),
        ({"Spec": {}}, "Spec is not a known field; did you mean spec?"),
        ({"kind": "SpiderIPBlock"}, "written by Orbweaver only"),
        ({"kind": "SpiderEndpoint"}, "written by Orbweaver only"),
        ({"metadata": []}, "metadata is [], but must be a mapping"),
    ],
)
def test_what_is_no_object_of_ours_is_refused(change: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidObject) as refusal:
        admit({**pool(), **change})

    assert says in refusal.value.message


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"subnet": "10.6.0.0/17"}, "subnet"),
        ({"subnet": "fd00::/64", "ips": [], "ipVersion": 6}, "ipVersion"),
    ],
)
def test_immutable_fields(spec: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidObject, match=rf"spec\.{field} is .* but it was .* and cannot change"):
        admit(pool(**spec), admit(pool()))


def test_the_same_subnet_in_another_form_is_no_change() -> None:
    assert admit(pool(subnet="10.6.7.8/16"), admit(pool()))


def test_an_address_in_use_stays_in_its_pool() -> None:
    old = admit(pool())
    old["status"] = {"allocatedIPs": '{"10.6.0.15":{"pod":"shop/web-0","podUid":"u"}}'}

    assert admit(pool(ips=["10.6.0.15"]), old)
    changes: list[dict[str, Any]] = [{"ips": ["10.6.0.10"]}, {"excludeIPs": ["10.6.0.15"]}]
    for spec in changes:
        with pytest.raises(InvalidObject, match=r"takes away 10\.6\.0\.15 while pod shop/web-0 uses it"):
            admit(pool(**spec), old)


def test_overlap_names_the_other_pool_and_the_range() -> None:
    others = [admit(pool("green", ips=["10.6.0.1", "10.6.0.15-10.6.0.30"], excludeIPs=["10.6.0.16"]))]

    with pytest.raises(InvalidObject) as refusal:
        admit(pool(ips=["10.6.1.1", "10.6.0.10-10.6.0.19"]), None, others)
    assert (
        'spec.ips[1] is "10.6.0.10-10.6.0.19", which overlaps with SpiderIPPool green in 10.6.0.15,'
        " 10.6.0.17-10.6.0.19" in (refusal.value.message)
    )


def test_no_overlap_with_itself_with_other_kinds_other_families_or_what_is_excluded() -> None:
    same = admit(pool())
    others = [
        same,
        admit(reserved(ips=["10.6.0.10"])),
        admit(pool("six", subnet="::/64", ips=["::a06:a"])),
        admit(pool("next", ips=["10.6.0.10-10.6.0.30"], excludeIPs=["10.6.0.10-10.6.0.19"])),
        {"kind": "SpiderIPPool", "metadata": {"name": "broken"}, "spec": {"subnet": "?"}},
    ]

    assert admit(pool(), same, others)


def test_reserved_addresses() -> None:
    assert admit(reserved(ips=["fd00::1"]))["spec"] == {"ipVersion": 6, "ips": ["fd00::1"]}
    for spec, says in (
        ({}, r"spec\.ips is null, but must name at least one address"),
        ({"ips": ["10.0.0.1-fd00::1"]}, r"spec\.ips\[0\]"),
        ({"ip": ["10.0.0.1"]}, "did you mean ips"),
    ):
        with pytest.raises(InvalidObject, match=says):
            admit(reserved(**spec))
    with pytest.raises(InvalidObject, match=r"spec\.ipVersion is 6, but it was 4"):
        admit(reserved(ipVersion=6, ips=["fd00::1"]), admit(reserved(ips=["10.0.0.1"])))


@pytest.mark.parametrize(
    ("kind", "version"), [("Pod", "v1"), ("Namespace", "v1"), ("Node", "v1"), ("StatefulSet", "apps/v1")]
)
def test_objects_of_kubernetes_are_taken_as_they_are_if_they_parse(kind: str, version: str) -> None:
    obj = {
        "apiVersion": version,
        "kind": kind,
        "metadata": {"name": "a", "labels": {"x": "y"}},
        "spec": {"anything": 1},
    }

    assert admit(obj) == obj
    with pytest.raises(InvalidObject, match=f"{kind} a: metadata.labels.x is 1"):
        admit({**obj, "metadata": {"name": "a", "labels": {"x": 1}}})


def attempt(obj: dict[str, Any]) -> tuple[dict[str, Any] | None, str]:
    """What is stored, or None and the refusal."""
    try:
        return admit(obj), ""
    except InvalidObject as refusal:
        return None, refusal.message


addresses = st.integers(0, 40).map(lambda low: f"10.6.0.{low}") | st.sampled_from(
    ["10.7.0.1", "fd00::1", "x", ""]
)
ranges = addresses | st.tuples(addresses, addresses).map("-".join) | st.integers()
specs = st.fixed_dictionaries(
    {"subnet": st.sampled_from(["10.6.0.0/16", "10.6.0.9/24", "fd00::/64", "10.6.0.0", None])},
    optional={
        "ipVersion": st.sampled_from([4, 6, "4", None]),
        "ips": st.lists(ranges, max_size=3),
        "excludeIPs": st.lists(ranges, max_size=3),
        "gateway": addresses,
        "vlan": st.sampled_from([0, 5, 4095, True]),
        "routes": st.lists(
            st.dictionaries(st.sampled_from(["dst", "gw", "via"]), addresses, max_size=2), max_size=2
        ),
        "podAffinity": st.sampled_from(
            [{}, {"matchLabels": {"a": "b"}}, {"matchExpressions": [{"key": "a"}]}, []]
        ),
        "nodeName": st.sampled_from([["n1"], "n1", [1]]),
        "default": st.sampled_from([True, "yes"]),
    },
)


@given(specs)
def test_what_is_admitted_parses_and_is_admitted_again_unchanged(spec: dict[str, Any]) -> None:
    """Any specification is admitted and then an `IPPool`, or refused with the pool's name; nothing else."""
    obj = {"apiVersion": SPIDERPOOL, "kind": "SpiderIPPool", "metadata": {"name": "blue"}, "spec": spec}
    stored, refusal = attempt(obj)
    if stored is None:
        assert refusal.startswith("SpiderIPPool blue: ")
        return
    parsed = IPPool.from_object(stored)

    assert admit(stored, stored, [stored]) == stored
    assert all(parsed.subnet.first <= low <= high <= parsed.subnet.last for low, high in parsed.available)
    assert parsed.gateway is None or parsed.gateway not in parsed.available


@given(st.lists(ranges, max_size=3))
def test_admitted_reserved_addresses_parse(ips: list[Any]) -> None:
    stored, refusal = attempt(reserved(ips=ips))

    if stored is None:
        assert refusal.startswith("SpiderReservedIP r: ")
    else:
        assert ReservedIP.from_object(stored).ips
