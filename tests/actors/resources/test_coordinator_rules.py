"""A SpiderCoordinator that is admitted keeps no pod from starting: `apply` and the plugin's reader agree on each field."""

from __future__ import annotations

import pytest

from actors.errors import InvalidObject
from actors.resources.admission import admit
from actors.resources.coordinator import SPEC_FIELDS, SpiderCoordinator
from cni.dataplane.coordinator.settings import read_settings
from tests.actors.resources.coordinator_cases import COORDINATORS, FieldCase, label


def test_every_field_has_right_and_wrong_values() -> None:
    assert {case.field for case in COORDINATORS if case.right} == set(SPEC_FIELDS)
    assert {case.field for case in COORDINATORS if not case.right} == set(SPEC_FIELDS)


@pytest.mark.parametrize("case", COORDINATORS, ids=label)
def test_apply_decides_as_the_reader_does(case: FieldCase) -> None:
    if case.right:
        admit(case.obj())
    else:
        with pytest.raises(InvalidObject, match=case.field):
            admit(case.obj())


@pytest.mark.parametrize("case", [case for case in COORDINATORS if case.right], ids=label)
def test_what_is_admitted_the_plugin_takes(case: FieldCase) -> None:
    conf = SpiderCoordinator.from_object(case.obj()).conf

    assert read_settings({"name": "blue", **conf}).warnings == ()


@pytest.mark.parametrize("value", ["fe80::1", "224.0.0.1", "x"])
def test_a_veth_address_that_cannot_be_stops_no_pod(value: str) -> None:
    settings = read_settings({"name": "blue", "vethLinkAddress": value})

    assert settings.veth_address == ""
    assert "vethLinkAddress" in settings.warnings[0]


@pytest.mark.parametrize("table", [0, 253, 254, 255])
def test_a_table_that_is_the_nodes_own_is_not_used(table: int) -> None:
    """Ending a pod's network empties the table of pods, which must not be the main one."""
    settings = read_settings({"name": "blue", "hostRuleTable": table})

    assert settings.host_table == 500
    assert str(table) in settings.warnings[0]
