"""What strangers who reach the webhook's port can cost the leader, whose actors have the same process."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from cni.admission import webhook as module
from cni.admission.admission_review import AdmissionQuestion
from cni.admission.webhook import PATH, Webhook, WebhookOptions
from metrics.http_server import HttpAnswer, HttpRequest
from tests.support.checker import equal, eventually
from tests.support.webhook_authority import NAME, webhook_authority
from tests.tools.apiserver import free_ports

QUESTION = HttpRequest("POST", PATH, "", {}, b"{}")


@pytest.fixture
def webhook(tmp_path: Path) -> Iterator[Webhook]:
    authority = webhook_authority(tmp_path, "127.0.0.1")
    options = WebhookOptions(lambda: authority.server, lambda: authority.client, NAME, "127.0.0.1", 0)
    made = Webhook(options, (), lambda: None)
    yield made
    made.stop()


def test_questions_are_read_for_a_fifth_of_the_time_at_most(
    webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    cost = 0.05
    read: list[tuple[float, float]] = []

    def slow(body: bytes) -> AdmissionQuestion:
        began, until = time.monotonic(), time.thread_time() + cost
        while time.thread_time() < until:
            pass
        read.append((began, time.monotonic()))
        return AdmissionQuestion("u", None)

    monkeypatch.setattr(module, "read_question", slow)
    monkeypatch.setattr(module, "ANSWER_TIMEOUT", 300.0)  # reading may take long on the clock

    async def ask() -> list[HttpAnswer]:
        return await asyncio.gather(*(webhook.answer(QUESTION) for _ in range(5)))

    answers = asyncio.run(ask())
    assert {answer.status for answer in answers} == {200}
    assert len(read) == 5
    assert all(later[0] - earlier[1] >= 3.9 * cost for earlier, later in pairwise(read)), read


def test_who_would_wait_for_too_long_is_told_so_unread(webhook: Webhook) -> None:
    """An API server lets the object in then."""
    webhook._reads_on = time.monotonic() + 3600

    async def ask() -> HttpAnswer:
        return await webhook.answer(QUESTION)

    assert asyncio.run(ask()).status == 503


def test_a_question_that_comes_alone_is_answered(webhook: Webhook) -> None:
    asked = {"apiVersion": "admission.k8s.io/v1", "request": {"uid": "u", "kind": {"kind": "Pod"}}}
    request = HttpRequest("POST", PATH, "", {}, json.dumps(asked).encode())

    async def ask() -> HttpAnswer:
        return await webhook.answer(request)

    assert json.loads(asyncio.run(ask()).body)["response"] == {"uid": "u", "allowed": True}


def test_a_port_that_is_taken_is_served_when_it_is_free(tmp_path: Path) -> None:
    """The controller does everything else meanwhile."""
    authority = webhook_authority(tmp_path, "127.0.0.1")
    (port,) = free_ports(1)  # the kernel gives it to nobody else once it is free
    with socket.create_server(("127.0.0.1", port)):
        options = WebhookOptions(lambda: authority.server, lambda: authority.client, NAME, "127.0.0.1", port)
        made = Webhook(options, (), lambda: None)
        made.start()
        assert made.port is None
    try:
        eventually(lambda: connects(port))
        eventually(lambda: equal(made.port, port))
    finally:
        made.stop()


def test_one_that_waits_for_its_port_ends_at_once(tmp_path: Path) -> None:
    authority = webhook_authority(tmp_path, "127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        options = WebhookOptions(lambda: authority.server, lambda: authority.client, NAME, "127.0.0.1", port)
        made = Webhook(options, (), lambda: None)
        made.start()
        made.stop()
        assert made.port is None


def connects(port: int) -> None:
    try:
        socket.create_connection(("127.0.0.1", port), 60).close()
    except OSError as error:
        raise AssertionError("nobody serves it yet") from error
