"""What an agent tells of its requests: metrics with their names and labels, and one log line for each answer."""

from __future__ import annotations

import logging
import tomllib
import urllib.request
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from cni.command.main import main
from cni.server.protocol import VERSIONS
from tests.support.agent_process import AgentProcess
from tests.support.agent_process import pool as agent_pool
from tests.support.checker import equal, eventually
from tests.support.cni_client import add, ask, encode
from tests.support.rig import Rig, pool, rig


@pytest.fixture
def one(tmp_path: Path) -> Iterator[Rig]:
    with rig(tmp_path, pool("v4", "10.6.0.0/16", "10.6.0.1-10.6.0.2")) as made:
        yield made


def metrics(one: Rig) -> dict[str, float]:
    body, _ = one.agent.metrics.expose()
    return parsed(body.decode())


def parsed(text: str) -> dict[str, float]:
    samples = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in samples}


def answered(caplog: pytest.LogCaptureFixture, number: int) -> list[dict[str, Any]]:
    """The lines about answers. The answer goes out before its line is written, and that comes after the metrics."""

    def found() -> list[dict[str, Any]]:
        return [vars(record) for record in caplog.records if record.getMessage() == "answered"]

    eventually(lambda: equal(len(found()), number))
    return found()


@pytest.mark.parametrize(
    "command, operation", [("ADD", "allocation"), ("DEL", "release"), ("CHECK", "check")]
)
def test_a_request_that_cannot_be_understood_is_counted_and_logged_with_whom_it_names(
    one: Rig, caplog: pytest.LogCaptureFixture, command: str, operation: str
):
    with caplog.at_level(logging.INFO, "orbweaver.cni"):
        answer = ask(one.socket, encode(command, "c1", "no/name", namespace="prod", pod="web"))

    assert (answer.status, answer.json["code"]) == (1, 4)
    (line,) = answered(caplog, 1)
    told = metrics(one)
    label = f'{{operation="{operation}",reason="InvalidRequest",result="error"}}'
    assert told["orbweaver_requests_total" + label] == 1
    if operation != "check":
        assert told[f"spiderpool_ipam_{operation}_counts_total"] == 1
        assert told[f"spiderpool_ipam_{operation}_failure_counts_total"] == 1
    assert (line["pod"], line["container"], line["command"]) == ("prod/web", "c1", command)
    assert (line["levelname"], line["code"]) == ("WARNING", 4)


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


def test_pools_without_an_address_and_lost_writes_have_spiderpools_counters(one: Rig):
    add(one.socket, one.journal, ("c1", "eth0"))
    block = one.inner.get("SpiderIPBlock", "v4-0a060000")
    one.inner.update({**block, "metadata": {**block["metadata"], "labels": {"touched": "by-another"}}})
    add(one.socket, one.journal, ("c2", "eth0"))
    assert metrics(one)["spiderpool_ipam_allocation_update_ippool_conflict_counts_total"] == 1
    assert metrics(one)["spiderpool_ipam_release_update_ippool_conflict_counts_total"] == 0

    exhausted = ask(one.socket, encode("ADD", "c3"))
    none = ask(one.socket, encode("ADD", "c4", conf={"ipam": {"default_ipv4_ippool": ["none-such"]}}))

    assert exhausted.json["code"] == none.json["code"] == 101
    kinds = ("failure", "err_ip_used_out", "err_no_available_pool")
    eventually(
        lambda: equal(
            [metrics(one)[f"spiderpool_ipam_allocation_{kind}_counts_total"] for kind in kinds], [2, 1, 1]
        )
    )


def test_a_running_agent_serves_its_metrics_and_writes_a_line_for_each_answer(tmp_path: Path):
    with AgentProcess(tmp_path, "--log-level", "debug") as agent:
        agent.apply(agent_pool("blue", "10.6.0.0/16", "10.6.0.1-10.6.0.9"))
        for command in ("ADD", "DEL"):
            request = encode(command, "c1", pod="web", namespace="prod")
            assert ask(agent.socket, request).status == 0
        assert ask(agent.socket, encode("ADD", "c2", namespace="Prod", pod="web")).json["code"] == 4
        commands = ["ADD", "DEL", "ADD"]  # whoever waits for the agent asks for its STATUS
        eventually(
            lambda: equal(
                [line["command"] for line in lines(agent, "answered") if line["command"] != "STATUS"],
                commands,
            )
        )
        url = f"http://127.0.0.1:{agent.metrics_port}"
        with urllib.request.urlopen(f"{url}/readyz", timeout=60) as answer:
            assert answer.status == 200
        # What an actor counts after it has answered may be a scrape late.
        eventually(lambda: prove_counted(f"{url}/metrics"))

    added, refused = lines(agent, "answered", "ADD")
    assert {**added, "time": 0, "ms": 0, "request": ""} == {
        "time": 0,
        "level": "info",
        "logger": "orbweaver.cni",
        "event": "answered",
        "request": "",
        "pod": "prod/web",
        "container": "c1",
        "command": "ADD",
        "ms": 0,
        "interface": "eth0",
        "network": "net",
        "addresses": ["10.6.0.1/16 from blue"],
    }
    assert (refused["level"], refused["pod"], refused["code"]) == ("warning", "Prod/web", 4)
    decisions = lines(agent, "decision")
    assert {line["request"] for line in decisions} == {added["request"]}
    assert any("blue" in line["reason"] for line in decisions)


def prove_counted(url: str) -> None:
    """One ADD that was answered, one that was refused, and one DEL."""
    with urllib.request.urlopen(url, timeout=60) as answer:
        told = parsed(answer.read().decode())
    for operation, stages in (
        ("allocation", ("queued", "decided", "committed", "total")),
        ("release", ("queued", "total")),
    ):
        for stage in stages:
            name = "orbweaver_stage_duration_seconds_count"
            assert told[f'{name}{{operation="{operation}",stage="{stage}"}}'] >= 1
    ok, wrong = 'reason="",result="ok"', 'reason="InvalidRequest",result="error"'
    assert told[f'orbweaver_requests_total{{operation="allocation",{ok}}}'] == 1
    assert told[f'orbweaver_requests_total{{operation="allocation",{wrong}}}'] == 1
    assert told[f'orbweaver_requests_total{{operation="release",{ok}}}'] == 1
    assert told["spiderpool_ipam_allocation_counts_total"] == 2
    assert told["spiderpool_ipam_allocation_duration_seconds_count"] == 2
    assert told["orbweaver_commit_batch_size_count"] >= 2
    assert told['spiderpool_debug_ippool_total_ip_counts{ippool="blue"}'] == 9
    assert told['spiderpool_debug_ippool_available_ip_counts{ippool="blue"}'] == 9
    assert 'orbweaver_mailbox_depth{actor="endpoint"}' in told


def lines(agent: AgentProcess, event: str, command: str | None = None) -> list[dict[str, Any]]:
    """The lines of its log about one kind of event."""
    return [
        line for line in agent.log_lines if line["event"] == event and command in (None, line.get("command"))
    ]


@pytest.mark.skipif(not list(metadata.distributions(name="orbweaver")), reason="the wheel is not installed")
def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]):
    assert main(["version"]) == 0

    package = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    assert capsys.readouterr().out == f"orbweaver {package['version']} (CNI {', '.join(VERSIONS)})\n"
