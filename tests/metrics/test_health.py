"""The port of health and metrics, with its real process."""

from __future__ import annotations

import os
import signal
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from actors.errors import StoreUnavailable
from metrics.health import HealthServer
from metrics.prometheus import Metrics
from tests.support.checker import equal, eventually

OPEN = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"


class Served:
    """A server and the reason why it is not ready."""

    def __init__(self, port: int = 0) -> None:
        self.reason: str | None = None
        self.metrics = Metrics()
        self.server = HealthServer("127.0.0.1", port, self.metrics, lambda: self.reason)
        self.server.start()

    def get(self, path: str, accept: str = "", method: str = "GET") -> tuple[int, str, str]:
        url = f"http://127.0.0.1:{self.server.port}{path}"
        request = urllib.request.Request(url, headers={"Accept": accept}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.headers["Content-Type"], answer.read().decode()
        except urllib.error.HTTPError as refused:
            with refused:
                return refused.code, refused.headers["Content-Type"], refused.read().decode()


@pytest.fixture
def served() -> Iterator[Served]:
    running = Served()
    yield running
    running.server.stop()


@pytest.mark.parametrize("path", ["/healthz", "/v1/runtime/liveness"])
def test_it_lives_whether_ready_or_not(served: Served, path: str):
    served.reason = "the store is away"

    assert served.get(path)[0] == 200


@pytest.mark.parametrize("path", ["/readyz", "/v1/runtime/readiness", "/v1/runtime/startup"])
def test_it_is_ready_or_says_why_not(served: Served, path: str):
    assert served.get(path) == (200, "text/plain; charset=utf-8", "ok\n")
    served.reason = "the store is away"
    assert served.get(path)[0::2] == (503, "the store is away\n")


@pytest.mark.parametrize(
    "accept",
    ["", "*/*", "image/png", ";;;q=a,,/,\t", "text/plain;version=99;escaping=none-such", "text/plain; q=\xe9",
     "application/openmetrics-text;version=x.y;escaping=", "x" * 5000],
)  # fmt: skip
def test_metrics_have_an_answer_whatever_is_accepted(served: Served, accept: str):
    status, content_type, body = served.get("/metrics", accept)

    assert status == 200
    assert content_type.startswith(("text/plain", "application/openmetrics-text"))
    assert "orbweaver_requests" in body


def test_metrics_come_in_the_format_that_prometheus_prefers(served: Served):
    assert served.get("/metrics", OPEN)[1].startswith("application/openmetrics-text")
    assert served.get("/metrics", OPEN)[2].endswith("# EOF\n")
    assert served.get("/metrics")[1].startswith("text/plain")


def test_an_answer_is_not_older_than_its_request(served: Served):
    for number in range(1, 6):
        served.metrics.finished("allocation", "ok", "")
        told = served.get("/metrics")[2]
        assert f'orbweaver_requests_total{{operation="allocation",reason="",result="ok"}} {number}.0' in told


def test_other_paths_and_methods_are_told_what_there_is(served: Served):
    assert served.get("/")[0] == 404
    assert served.get("/metrics/../etc/passwd")[0] == 404
    assert served.get("/metrics", method="DELETE")[0] == 405
    assert served.get("/healthz", method="HEAD") == (200, "text/plain; charset=utf-8", "")


def test_metrics_that_cannot_be_collected_are_said_so_and_health_goes_on(served: Served):
    def fails() -> dict[str, int]:
        raise RuntimeError("what a collector said")

    served.metrics.watch_mailboxes(fails)

    assert served.get("/metrics")[0::2] == (500, "internal error: RuntimeError\n")
    assert served.get("/healthz")[0] == 200


def test_a_process_that_is_killed_is_replaced(served: Served):
    assert served.get("/healthz")[0] == 200
    first = served.server.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)

    assert served.get("/healthz")[0] == 200  # on the same port, after a while
    eventually(lambda: equal(served.server.pid not in (None, first), True))


def test_the_process_ends_with_the_server():
    running = Served()
    assert running.get("/healthz")[0] == 200
    pid, port = running.server.pid, running.server.port
    assert pid is not None
    running.server.stop()

    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=60)


def test_a_port_that_is_taken_is_told_and_taken_once_it_is_free(caplog: pytest.LogCaptureFixture):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        running = Served(port)
        assert running.server.port is None
        assert any("not served" in record.message for record in caplog.records)
    try:
        eventually(lambda: equal(running.server.port, port))

        assert running.get("/readyz")[0] == 200
    finally:
        running.server.stop()


def test_who_waits_for_its_port_ends_at_once():
    with socket.create_server(("127.0.0.1", 0)) as other:
        running = Served(other.getsockname()[1])

        running.server.stop()


def test_an_address_that_no_waiting_brings_is_refused():
    with pytest.raises(StoreUnavailable, match=r"no\.such\.host\.invalid:0.*--metrics-port"):
        HealthServer("no.such.host.invalid", 0, Metrics(), lambda: None)
