"""SpiderMultusConfigs: what is let in, what is refused with all that is wrong, and what is understood."""

from __future__ import annotations

from typing import Any

import pytest

from actors.errors import InvalidObject
from actors.resources.admission import admit
from actors.resources.multus_config import ATTACHMENT_NAME, Bond, MultusConfig
from tests.actors.resources.multus_cases import BOND, CASES, RIGHT, MultusCase, macvlan, multus_config, titles


def said(
    obj: dict[str, Any], old: dict[str, Any] | None = None, others: tuple[dict[str, Any], ...] = ()
) -> str:
    """The refusal, empty for none."""
    try:
        admit(obj, old, others)
    except InvalidObject as error:
        return str(error)
    return ""


@pytest.mark.parametrize("case", CASES, ids=titles(CASES))
def test_a_case_is_decided_as_the_table_says(case: MultusCase) -> None:
    old = None if case.old is None else case.obj(annotations=case.old)
    found = said(case.obj(), old)

    assert bool(found) == bool(case.names), found
    assert not [name for name in case.names if name not in found], found
    assert not case.names or "SpiderMultusConfig default/case: " in found


@pytest.mark.parametrize("case", RIGHT, ids=titles(RIGHT))
def test_what_is_let_in_is_stored_as_it_is_and_can_be_read(case: MultusCase) -> None:
    obj = case.obj()

    assert admit(obj) == obj
    assert MultusConfig.from_object(obj).key == "default/case"


def test_several_things_are_told_one_by_one() -> None:
    with pytest.raises(InvalidObject) as refused:
        admit(multus_config({"cniType": "ipvlan", "ipvlan": {"master": [], "mtu": -1}}))

    assert refused.value.message == "SpiderMultusConfig default/case: 2 things are wrong"
    assert refused.value.details == (
        "spec.ipvlan.master is [], but must name at least one interface of the node",
        "spec.ipvlan.mtu is -1, but must be a whole number from 0 to 2147483647",
    )


@pytest.mark.parametrize(
    "names, namespace, words",
    [
        ({"case": {ATTACHMENT_NAME: "blue"}, "other": {ATTACHMENT_NAME: "blue"}}, "default", "default/other"),
        ({"case": {ATTACHMENT_NAME: "other"}, "other": {}}, "default", "named other, as that of"),
        ({"case": {}, "other": {ATTACHMENT_NAME: "case"}}, "default", ATTACHMENT_NAME),
        ({"case": {ATTACHMENT_NAME: "blue"}, "other": {ATTACHMENT_NAME: "blue"}}, "shop", ""),
        ({"case": {ATTACHMENT_NAME: "blue"}, "other": {}}, "default", ""),
    ],
)
def test_two_objects_cannot_have_one_network(names: dict[str, Any], namespace: str, words: str) -> None:
    other = multus_config(macvlan(), "other", names["other"])
    other["metadata"]["namespace"] = namespace
    mine = multus_config(macvlan(), "case", names["case"])
    found = said(mine, None, (mine, other))

    assert bool(found) == bool(words)
    assert words in found


def test_defaults_are_those_that_are_documented() -> None:
    found = MultusConfig.from_object(multus_config(macvlan()))

    assert (found.attachment, found.network, found.cni_version) == ("case", "case", "0.3.1")
    assert (found.coordinator, found.has_ipam, found.chain) == ({}, True, ())
    assert (found.section.vlan, found.section.mtu, found.section.bond) == (0, 0, None)


def test_the_base_of_an_interface_is_its_master_or_the_bond_of_several() -> None:
    one = MultusConfig.from_object(multus_config(macvlan(bond=BOND))).section
    several = MultusConfig.from_object(multus_config(macvlan(master=["eth1", "eth2"], bond=BOND))).section

    assert (one.base, one.is_bonded) == ("eth0", False)
    assert (several.base, several.is_bonded, several.bond) == ("bond0", True, Bond("bond0", 1))
