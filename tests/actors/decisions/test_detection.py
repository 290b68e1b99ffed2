"""Detection as a decision: what a configuration says, and in which words a finding is told."""

from __future__ import annotations

from typing import Any

import pytest

from actors.decisions.detection import (
    Detection,
    DetectionOverrides,
    Probe,
    ProbeResult,
    conflict,
    read_overrides,
    silence,
    unsound,
)
from actors.errors import InvalidRequest
from actors.resources.fields import Fields

PROBE = Probe("net1", "10.6.0.7", conflict=True, gateway="10.6.0.1", pool="blue", vlan=100)


def test_off_by_default_and_sound():
    assert not Detection().conflicts
    assert not Detection().gateways
    assert not unsound(Detection(conflicts=True, gateways=True))


def wishes(conf: dict[str, Any]) -> DetectionOverrides:
    return read_overrides(Fields.of("network net", "", conf, InvalidRequest))


def test_a_network_overrides_what_it_names_and_nothing_else():
    settings = Detection(conflicts=True, gateways=True, retries=5)

    wished = wishes({"detectGateway": False, "detectOptions": {"timeout": "1.5s", "quarantine": "2h"}})

    assert wished == DetectionOverrides(gateways=False, timeout=1.5, quarantine=7200.0)
    assert settings.under(wished) == Detection(conflicts=True, retries=5, timeout=1.5, quarantine=7200.0)
    assert settings.under(wishes({})) == settings
    assert settings.under(wishes({"detectOptions": None, "detectIPConflict": None})) == settings


@pytest.mark.parametrize(
    "conf, said",
    [
        ({"detectIPConflict": "yes"}, 'detectIPConflict is "yes", but must be true or false'),
        ({"detectGateway": 1}, "detectGateway is 1, but must be true or false"),
        ({"detectOptions": []}, "detectOptions is [], but must be a mapping"),
        ({"detectOptions": {"retry": 3}}, "detectOptions.retry is not a known field; did you mean retries?"),
        (
            {"detectOptions": {"retries": 0}},
            "detectOptions.retries is 0, but must be a whole number from 1 to 10",
        ),
        ({"detectOptions": {"retries": True}}, "detectOptions.retries is true"),
        (
            {"detectOptions": {"timeout": 100}},
            "detectOptions.timeout is 100, but must be a time from 10ms to 2s",
        ),
        ({"detectOptions": {"timeout": "3s"}}, 'detectOptions.timeout is "3s"'),
        ({"detectOptions": {"interval": "0ms"}}, 'detectOptions.interval is "0ms"'),
        ({"detectOptions": {"quarantine": "1d"}}, 'detectOptions.quarantine is "1d"'),
    ],
)
def test_a_wrong_value_is_named_with_what_is_right(conf: dict[str, Any], said: str):
    with pytest.raises(InvalidRequest, match=r"^network net: ") as wrong:
        wishes(conf)

    assert said in str(wrong.value)


@pytest.mark.parametrize(
    "detection, said",
    [
        (Detection(retries=4, interval=0.05), "4 probes 50ms apart do not fit into the timeout of 100ms"),
        (Detection(retries=10, timeout=1.0), "10 retries of 1s may take more than 5 s"),
    ],
)
def test_values_that_do_not_go_together_are_refused(detection: Detection, said: str):
    assert said in unsound(detection)


def test_findings_are_told_with_pod_pool_gateway_interface_and_vlan():
    said = conflict("default/a", PROBE, ProbeResult(holder="02:00:00:00:00:99"))
    for word in ("default/a", "10.6.0.7", "blue", "net1", "02:00:00:00:00:99"):
        assert word in said

    said = silence("default/a", PROBE, Detection())
    for word in ("default/a", "10.6.0.1", "blue", "net1", "VLAN 100", "10.6.0.7"):
        assert word in said
