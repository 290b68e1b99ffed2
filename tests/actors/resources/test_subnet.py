"""SpiderSubnet: what its specification offers, and what its status says of who has it, however that was written."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.errors import InvalidObject
from actors.resources.admission import FINALIZER, SPIDERPOOL, admit
from actors.resources.intervals import IntervalSet
from actors.resources.subnet import (
    SUBNET_CIDR_LABEL,
    Controlled,
    SpiderSubnet,
    read_controlled,
    read_former,
    write_controlled,
    write_former,
)

BASE = 0x0A060000


def subnet(name: str = "rack", status: Any = None, **spec: Any) -> dict[str, Any]:
    body = {"subnet": "10.6.0.1/16", "ips": ["10.6.0.0-10.6.0.19"], **spec}
    made = {"apiVersion": SPIDERPOOL, "kind": "SpiderSubnet", "metadata": {"name": name}, "spec": body}
    return made if status is None else {**made, "status": status}


def test_what_pools_can_be_made_of() -> None:
    found = SpiderSubnet.from_object(subnet(excludeIPs=["10.6.0.5"], gateway="10.6.0.5"))

    assert list(found.available) == [(BASE + 1, BASE + 4), (BASE + 6, BASE + 19)]
    assert found.withheld_reason.startswith("10.6.0.0 (network and broadcast address")
    # Let in by an API server without our rules: a gateway is nobody's address all the same.
    assert BASE + 7 not in SpiderSubnet.from_object(subnet(gateway="10.6.0.7")).available


def test_a_status_is_read_as_spiderpool_writes_it() -> None:
    status = {
        "controlledIPPools": '{"auto4-web-eth0-1a2b3":{"ips":["10.6.0.1-10.6.0.3","10.6.0.9"],"application":'
        '"apps_v1_Deployment_shop_web"},"by-hand":{"ips":["10.6.0.5"]}}',
        "totalIPCount": 19,
        "allocatedIPCount": 5,
    }
    found = SpiderSubnet.from_object(subnet(status=status))

    assert found.controlled == {
        "auto4-web-eth0-1a2b3": Controlled(
            IntervalSet([(BASE + 1, BASE + 3), (BASE + 9, BASE + 9)]), "apps_v1_Deployment_shop_web"
        ),
        "by-hand": Controlled(IntervalSet([(BASE + 5, BASE + 5)])),
    }
    assert (found.total, found.allocated) == (19, 5)
    assert write_controlled(found.controlled, 4) == status["controlledIPPools"]


@pytest.mark.parametrize(
    "entry",
    [None, 7, [], {"ips": "10.6.0.1"}, {"ips": [1]}, {"ips": ["x"]}, {"ips": ["fd00::1"]}, {"ips": [], "application": 1}],
)  # fmt: skip
def test_an_entry_that_cannot_be_read_costs_no_other(entry: Any) -> None:
    text = json.dumps({"bad": entry, "good": {"ips": ["10.6.0.1"]}})

    assert list(read_controlled(text, 4)) == ["good"]


@pytest.mark.parametrize("text", [None, 5, "", "{", "[]", '"x"', "{}", "[" * 50])
def test_a_text_that_cannot_be_read_names_nobody(text: Any) -> None:
    assert read_controlled(text, 4) == {}
    assert read_former(text, 4) == {}


def test_a_status_that_is_no_mapping_is_passed_over() -> None:
    assert SpiderSubnet.from_object(subnet(status=[1])).controlled == {}


@given(st.dictionaries(st.text("abc-", min_size=1), st.lists(st.integers(0, 60), min_size=1)))
def test_what_is_written_is_read_again(pools: dict[str, list[int]]) -> None:
    had = {name: IntervalSet((BASE + one, BASE + one) for one in values) for name, values in pools.items()}

    assert read_former(write_former(had, 4), 4) == had
    assert {
        name: one.ips
        for name, one in read_controlled(
            write_controlled({name: Controlled(ips, "x") for name, ips in had.items()}, 4), 4
        ).items()
    } == had
    assert (write_former(had, 4) is None) == (not had)


def test_a_stored_subnet_has_its_family_its_label_and_our_finalizer() -> None:
    stored = admit(subnet())

    assert stored["spec"]["ipVersion"] == 4
    assert stored["spec"]["subnet"] == "10.6.0.1/16"
    assert stored["metadata"]["labels"] == {SUBNET_CIDR_LABEL: "10-6-0-0-16"}
    assert stored["metadata"]["finalizers"] == [FINALIZER]
    assert admit(stored, stored) == stored


def test_subnets_that_share_an_address_are_refused() -> None:
    others = [admit(subnet("other", ips=["10.6.0.19-10.6.0.30"]))]

    with pytest.raises(
        InvalidObject,
        match=r"overlaps with SpiderSubnet other in 10\.6\.0\.19; an address may be in one subnet",
    ):
        admit(subnet(), None, others)
    assert admit(subnet(ips=["10.6.0.1-10.6.0.18"]), None, others)


def test_the_pools_of_an_application_are_not_edited_by_hand() -> None:
    labels = {"ipam.spidernet.io/owner-application-name": "web"}
    old = admit(
        {
            "apiVersion": SPIDERPOOL,
            "kind": "SpiderIPPool",
            "metadata": {"name": "auto4-web", "labels": labels},
            "spec": {
                "subnet": "10.6.0.0/16",
                "ips": ["10.6.0.1"],
                "podAffinity": {"matchLabels": {"a": "b"}},
            },
        }
    )

    for key, value in (("ips", ["10.6.0.1-10.6.0.2"]), ("excludeIPs", ["10.6.0.1"]), ("podAffinity", None)):
        with pytest.raises(
            InvalidObject, match=rf"spec\.{key} .* follows application web; scale the application"
        ):
            admit({**old, "spec": {**old["spec"], key: value}}, old)
    assert admit({**old, "spec": {**old["spec"], "gateway": "10.6.0.9", "disable": True}}, old)


def test_a_status_that_was_just_written_need_not_be_parsed() -> None:
    """What is known of it then is what a reader finds in it."""
    family_of = SpiderSubnet.from_object(subnet())
    controlled = {"web": Controlled(IntervalSet([(BASE + 1, BASE + 3)]), "apps_v1_Deployment_shop_web")}
    former = {"old": IntervalSet([(BASE + 9, BASE + 9)]), "nothing": IntervalSet()}
    status = {
        "controlledIPPools": write_controlled(controlled, 4),
        "formerIPPools": write_former(former, 4),
        "totalIPCount": 19,
        "allocatedIPCount": 3,
        "conditions": [{"type": "Exhausted", "status": "True"}],
    }
    stored = subnet(status=status)
    stored["metadata"]["resourceVersion"] = "7"

    assert family_of.divided(stored, controlled, former) == SpiderSubnet.from_object(stored)
