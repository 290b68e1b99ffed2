"""What an agent tells of its requests: metrics with their names and labels, and one log line for each answer."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.checker import eventually
from tests.faults.cni_client import ask, encode
from tests.faults.rig import Rig, pool, rig


@pytest.fixture
def one(tmp_path: Path) -> Iterator[Rig]:
    with rig(tmp_path, pool("v4", "10.6.0.0/16", "10.6.0.1-10.6.0.2")) as made:
        yield made


def metrics(one: Rig) -> dict[str, float]:
    body, _ = one.agent.metrics.expose("")
    lines = [line for line in body.decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def answered(caplog: pytest.LogCaptureFixture, number: int) -> list[dict[str, Any]]:
    """The lines about answers. The answer goes out before its line is written, and that comes after the metrics."""

    def found() -> list[dict[str, Any]]:
        return [vars(record) for record in caplog.records if record.getMessage() == "answered"]

    eventually(lambda: _is(len(found()), number))
    return found()


@pytest.mark.parametrize(
    "command, operation", [("ADD", "allocation"), ("DEL", "release"), ("CHECK", "check")]
)
def test_a_request_that_cannot_be_understood_is_counted_and_logged_with_whom_it_names(
    one: Rig, caplog: pytest.LogCaptureFixture, command: str, operation: str
):
    conf = {"name": 5}  # no name of a network

    with caplog.at_level(logging.INFO, "orbweaver.cni"):
        answer = ask(one.socket, encode(command, "c1", "net1", namespace="prod", pod="web", conf=conf))

    assert (answer.status, answer.json["code"]) == (1, 7)
    (line,) = answered(caplog, 1)
    told = metrics(one)
    label = f'{{operation="{operation}",reason="InvalidRequest",result="error"}}'
    assert told["orbweaver_requests_total" + label] == 1
    if operation != "check":
        assert told[f"spiderpool_ipam_{operation}_counts_total"] == 1
        assert told[f"spiderpool_ipam_{operation}_failure_counts_total"] == 1
    assert (line["pod"], line["container"], line["command"]) == ("prod/web", "c1", command)
    assert (line["levelname"], line["code"]) == ("WARNING", 7)


def test_an_environment_that_is_broken_is_told_as_far_as_it_goes(one: Rig, caplog: pytest.LogCaptureFixture):
    arguments = f"no pair;K8S_POD_NAME={'x' * 5000}"

    with caplog.at_level(logging.INFO, "orbweaver.cni"):
        ask(one.socket, encode("ADD", "c1", arguments=arguments))
        ask(one.socket, encode("ad", ""))

    first, second = answered(caplog, 2)
    assert (first["pod"], first["container"], first["command"]) == ("default/" + "x" * 253, "c1", "ADD")
    assert (second["pod"], second["container"], second["command"]) == ("", "", "invalid")
    invalid = '{operation="invalid",reason="InvalidRequest",result="error"}'
    assert metrics(one)["orbweaver_requests_total" + invalid] == 1


def _is(found: object, expected: object) -> None:
    assert found == expected
