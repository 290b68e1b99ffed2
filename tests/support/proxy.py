"""An HTTP proxy in front of a real API server that fails where a test wants it to.

Clients speak plain HTTP to it; it speaks HTTPS to the API server and passes their tokens on. `plan` is asked
about each request and returns the fault to do, or None to pass it on. What must always hold: a request without a
fault reaches the API server and its answer the client unchanged, watches as they stream.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from actors.store.kubernetes.access import Access, access_to
from tests.tools.apiserver import ADMIN_TOKEN, ApiServer


class How(Enum):
    """What is done to a request."""

    CUT_BEFORE = "the connection is closed, the API server gets nothing"
    CUT_AFTER = "the API server carries it out, the connection is closed before the answer"
    ANSWER = "the proxy answers by itself, the API server gets nothing"
    ANSWER_AFTER = "the API server carries it out, the proxy answers something else"
    CLOSE_IDLE = "it is answered, then the connection is closed although the answer did not say so"
    DELAY = "it is passed on later"
    HANG = "the API server gets nothing, and no answer comes"
    WAIT_BEFORE = "it waits at a gate, and is passed on when that opens"
    WAIT_AFTER = "the API server carries it out, the answer waits at a gate"


@dataclass(frozen=True, slots=True)
class Gate:
    """Where one request waits. `reached`: it is there; set `opened` to let it go on. `answered`: what the API server said, by
    its code."""

    reached: threading.Event = field(default_factory=threading.Event)
    opened: threading.Event = field(default_factory=threading.Event)
    answered: list[int] = field(default_factory=list)

    def wait(self) -> None:
        """Be the one who waits, for some minutes at most."""
        self.reached.set()
        self.opened.wait(240)


@dataclass(frozen=True, slots=True)
class Fault:
    """`code`, `retry_after` and `reason` are of ANSWER and ANSWER_AFTER, `seconds` of DELAY, `gate` of WAIT_BEFORE and
    WAIT_AFTER."""

    how: How
    code: int = 500
    reason: str = "InternalError"
    retry_after: int | None = None
    seconds: float = 0.0
    gate: Gate = field(default_factory=Gate)


@dataclass(frozen=True, slots=True)
class Request:
    """`number` counts all requests from 1, `alike` those of this method."""

    number: int
    alike: int
    method: str
    path: str

    @property
    def is_watch(self) -> bool:
        return "watch=1" in self.path


Plan = Callable[[Request], Fault | None]


def passing(_: Request) -> Fault | None:
    """The plan without faults."""
    return None


def once(how: How, *methods: str, **details: Any) -> Plan:
    """The plan that does one fault to the next request of one of the methods."""
    lock = threading.Lock()
    left = [Fault(how, **details)]

    def plan(request: Request) -> Fault | None:
        with lock:
            return left.pop() if left and request.method in methods and not request.is_watch else None

    return plan


class FaultProxy:
    """One proxy; `requests` is what came so far. Set `plan` at any time."""

    def __init__(self, server: ApiServer) -> None:
        self.plan: Plan = passing
        self.requests: list[Request] = []
        self._alike: Counter[str] = Counter()
        self._server = server
        self._lock = threading.Lock()
        self._streams: set[socket.socket] = set()
        self._clients: set[socket.socket] = set()
        self._released = threading.Event()
        self._stalled: tuple[str, threading.Event] | None = None
        outer = self

        class Handler(_Handler):
            proxy = outer

        self._http = _Listener(("127.0.0.1", 0), Handler)
        self.port: int = self._http.server_address[1]
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def access(self, token: str = ADMIN_TOKEN) -> Access:
        """Access to the API server through this proxy."""
        return access_to(f"http://127.0.0.1:{self.port}", authorize=lambda _: f"Bearer {token}")

    def cut_watches(self) -> int:
        """Break the running watches off in the middle; returns how many there were."""
        with self._lock:
            streams = tuple(self._streams)
        for stream in streams:
            _break(stream)
        return len(streams)

    def stall_watches(self, part: str) -> threading.Event:
        """Hold back what running watches of paths with this part tell, until the event that is returned is set."""
        self._stalled = (part, threading.Event())
        return self._stalled[1]

    def pass_on(self) -> None:
        """Pass on what is delayed."""
        self._released.set()

    def cut_idle(self) -> None:
        """Close every client's connection."""
        with self._lock:
            clients = tuple(self._clients)
        for client in clients:
            _break(client)

    def close(self) -> None:
        self._released.set()
        self._http.shutdown()
        self._http.server_close()
        self.cut_idle()

    # -- for the handler ----------------------------------------------------------------------------------------

    def came(self, method: str, path: str) -> tuple[Request, Fault | None]:
        with self._lock:
            self._alike[method] += 1
            request = Request(len(self.requests) + 1, self._alike[method], method, path)
            self.requests.append(request)
        return request, self.plan(request)

    def forward(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[Any, Any]:
        tls = ssl.create_default_context(cafile=str(self._server.ca_file))
        connection = http.client.HTTPSConnection("127.0.0.1", self._server.port, context=tls, timeout=60)
        try:
            connection.request(method, path, body or None, headers)
            return connection, connection.getresponse()
        except BaseException:
            connection.close()
            raise


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    proxy: FaultProxy

    def setup(self) -> None:
        super().setup()
        with self.proxy._lock:
            self.proxy._clients.add(self.connection)

    def finish(self) -> None:
        with self.proxy._lock:
            self.proxy._clients.discard(self.connection)
        with contextlib.suppress(OSError):  # the client, or a fault, closed it before
            super().finish()

    def log_message(self, *_: object) -> None:
        """Nothing: what came is in `requests`."""

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except (OSError, ValueError, http.client.HTTPException):  # the last of an API server that has ended
            self.close_connection = True

    def _any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        request, fault = self.proxy.came(self.command, self.path)
        how = fault.how if fault is not None else None
        if how is How.HANG:
            self.proxy._released.wait(120)
        if how in {How.CUT_BEFORE, How.HANG}:
            self._cut()
            return
        if fault is not None and how is How.ANSWER:
            self._answer(fault)
            return
        if fault is not None and how is How.DELAY:
            self.proxy._released.wait(fault.seconds)
        if fault is not None and how is How.WAIT_BEFORE:
            fault.gate.wait()
        try:
            connection, response = self.proxy.forward(self.command, self.path, body, self._headers())
        except OSError:
            self._cut()
            return
        with contextlib.closing(connection):
            if request.is_watch:
                self._stream(response)
                return
            content = response.read()
        if fault is not None:
            fault.gate.answered.append(response.status)
        if fault is not None and how is How.WAIT_AFTER:
            fault.gate.wait()
        if fault is not None and how is How.CUT_AFTER:
            self._cut()
        elif fault is not None and how is How.ANSWER_AFTER:
            self._answer(fault)
        else:
            self._reply(response.status, content, dict(response.getheaders()))
            if how is How.CLOSE_IDLE:
                self._cut()

    do_GET = do_POST = do_PUT = do_DELETE = _any  # noqa: N815 - http.server looks for these names

    def _headers(self) -> dict[str, str]:
        passed = ("Authorization", "Content-Type", "Accept", "User-Agent")
        return {name: self.headers[name] for name in passed if name in self.headers}

    def _answer(self, fault: Fault) -> None:
        status = {
            "kind": "Status",
            "apiVersion": "v1",
            "status": "Failure",
            "reason": fault.reason,
            "message": "a fault that the test wants",
            "code": fault.code,
        }
        headers = {"Content-Type": "application/json"}
        if fault.retry_after is not None:
            headers["Retry-After"] = str(fault.retry_after)
        self._reply(fault.code, json.dumps(status).encode(), headers)

    def _reply(self, code: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response_only(code)
        for name, value in headers.items():
            if name.lower() not in {"content-length", "transfer-encoding", "connection"}:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _stream(self, response: Any) -> None:
        self.send_response_only(response.status)
        self.send_header("Content-Type", response.getheader("Content-Type") or "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        with self.proxy._lock:
            self.proxy._streams.add(self.connection)
        try:
            while piece := response.read1(1 << 16):
                if (stalled := self.proxy._stalled) is not None and stalled[0] in self.path:
                    stalled[1].wait(240)
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            self.wfile.write(b"0\r\n\r\n")
        finally:
            with self.proxy._lock:
                self.proxy._streams.discard(self.connection)

    def _cut(self) -> None:
        self.close_connection = True
        _break(self.connection)


def _break(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # it is closed already


def wait_until(true: Callable[[], bool], timeout: float = 120.0) -> None:
    """Wait until something is true; fails the test when it does not become so in time."""
    deadline = time.monotonic() + timeout
    while not true():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.01)
