"""The HTTP server: the right answer to every request, and a bound on whoever sends none."""

from __future__ import annotations

import asyncio
import http.client
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from actors.tcp_listener import listen
from metrics.http_server import Handler, HttpAnswer, HttpLimits, HttpRequest, HttpServer

PATIENCE = 60.0
Serve = Callable[..., int]


async def echo(request: HttpRequest) -> HttpAnswer:
    if request.path == "/fails":
        raise RuntimeError("what the handler said")
    if request.path == "/never":
        await asyncio.Event().wait()
    text = f"{request.method} {request.path} {request.query} {request.body.decode()}"
    return HttpAnswer(200, text.encode())


@pytest.fixture
def serve() -> Iterator[Serve]:
    """A function that starts a server and returns its port."""
    running: list[tuple[HttpServer, socket.socket]] = []

    def start(handler: Handler = echo, *, tls: ssl.SSLContext | None = None, **limits: float) -> int:
        listener = listen("127.0.0.1", 0)
        shown = None if tls is None else lambda: tls
        server = HttpServer(listener, handler, tls=shown, limits=HttpLimits(**limits))  # type: ignore[arg-type]
        server.start()
        running.append((server, listener))
        return int(listener.getsockname()[1])

    yield start
    for server, listener in running:
        server.stop()
        listener.close()


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)


def raw(port: int, request: bytes) -> bytes:
    """Everything that comes until the server closes."""
    with connect(port) as client:
        client.sendall(request)
        return to_the_end(client)


def to_the_end(client: socket.socket) -> bytes:
    answer = b""
    try:
        while piece := client.recv(1 << 16):
            answer += piece
    except ConnectionError:
        pass
    return answer


def get(port: int, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    with closing(connection):
        connection.request("GET", path)
        with connection.getresponse() as answer:
            return answer.status, answer.read()


def test_a_request_reaches_the_handler_whole(serve: Serve):
    connection = http.client.HTTPConnection("127.0.0.1", serve(), timeout=PATIENCE)
    connection.request("POST", "/review?timeout=3s", body=b"what")
    with connection.getresponse() as answer:
        assert (answer.status, answer.read()) == (200, b"POST /review timeout=3s what")
    connection.close()


def test_one_connection_serves_many_requests_and_pipelined_ones_in_their_order(serve: Serve):
    requests = b"".join(b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % number for number in range(20))
    last = b"GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"

    answer = raw(serve(), requests + last)

    places = [answer.index(b"GET /%d " % number) for number in range(20)]
    assert places == sorted(places)
    assert answer.count(b"HTTP/1.1 200 OK") == 21


def test_http_1_0_is_answered_and_closed(serve: Serve):
    assert raw(serve(), b"GET /old HTTP/1.0\r\n\r\n").endswith(b"GET /old  ")


def test_head_has_the_length_and_no_body(serve: Serve):
    answer = raw(serve(), b"HEAD /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")

    assert b"Content-Length: 9\r\n" in answer
    assert answer.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    "request_, status",
    [
        (b"garbage\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 20_000 + b"\r\n\r\n", b"431"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", b"400"),
        (b"GET /fails HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b"500"),
    ],
)
def test_what_cannot_be_served_has_an_answer_too(serve: Serve, request_: bytes, status: bytes):
    assert raw(serve(), request_).split(b" ")[1] == status


def test_a_handler_that_does_not_end_is_given_up(serve: Serve):
    assert get(serve(answer_seconds=0.1), "/never")[0] == 503


def test_a_slow_head_and_a_slow_body_are_dropped_in_time(serve: Serve):
    port = serve(head_seconds=0.2, body_seconds=0.2)

    for begun in (b"", b"GET / HT", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc"):
        with connect(port) as client:
            client.sendall(begun)
            assert to_the_end(client) == b""


def test_who_does_not_take_its_answer_is_dropped(serve: Serve):
    async def large(request: HttpRequest) -> HttpAnswer:
        return HttpAnswer(200, bytes(32 << 20))

    port = serve(large, take_seconds=0.2, connections=1)
    with connect(port) as deaf:
        deaf.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        deaf.recv(1)  # it has begun to answer
        # The one place is taken until the answer is given up; who comes before that is refused.
        until_answered(port)


def until_answered(port: int) -> None:
    while True:
        try:
            with connect(port) as client:
                client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                if client.recv(1):
                    return
        except ConnectionError:
            continue


def test_connections_that_only_wait_make_room_for_requests(serve: Serve):
    port = serve(connections=8)
    with connect(port) as polite:
        polite.sendall(b"GET /first HTTP/1.1\r\nHost: x\r\n\r\n")
        assert polite.recv(1 << 16).endswith(b"GET /first  ")
        waiting = [connect(port) for _ in range(50)]
        try:
            assert get(port, "/asks") == (200, b"GET /asks  ")
            assert to_the_end(waiting[0]) == b""  # the oldest went first
            assert polite.recv(1) == b""  # before them, the one that had nothing to ask
        finally:
            for client in waiting:
                client.close()


def test_the_descriptors_are_bounded(serve: Serve):
    answering, release = threading.Event(), threading.Event()
    most = 0

    async def slow(request: HttpRequest) -> HttpAnswer:
        nonlocal most
        answering.set()
        while not release.is_set():
            await asyncio.sleep(0.01)
        return HttpAnswer(200, b"")

    port = serve(slow, connections=2)
    clients = [connect(port) for _ in range(2)]
    for client in clients:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert answering.wait(PATIENCE)
    # Requests that are being answered are not dropped for others: those find no place until one is done.
    refused = 0
    while refused < 5:
        with connect(port) as client:
            refused += to_the_end(client) == b""
    release.set()
    for client in clients:
        assert b"200 OK" in to_the_end(client)
        client.close()


def test_tls_and_a_plain_peer_on_it(serve: Serve, tmp_path: Path):
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-keyout", str(key), "-out", str(certificate), "-subj", "/CN=x", "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    port = serve(tls=context, connections=4)
    silent = [connect(port) for _ in range(20)]  # none of them begins the handshake
    assert b"200" not in raw(port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")

    trusting = ssl.create_default_context(cafile=str(certificate))
    connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=PATIENCE, context=trusting)
    connection.request("POST", "/validate", body=b"x" * 10_000)
    with connection.getresponse() as answer:
        assert answer.status == 200
        assert answer.read().endswith(b"x" * 10_000)
    connection.close()
    for client in silent:
        client.close()
