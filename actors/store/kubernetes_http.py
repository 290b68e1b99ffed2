"""HTTP/1.1 to an API server over persistent connections: who sent what, and may it have arrived.

What must always hold:

* Every exchange ends within its deadline, however slowly the server talks.
* A request of which not every byte was handed to the kernel cannot have been carried out: the server acts on
  a complete body only. One that was sent whole and not answered may have been (`maybe_written`).
* Only reads, and what did not leave whole, are sent twice. A connection that the server closed while it was
  idle is noticed before it is used again, so a write on it is not lost.
* There are `CONNECTIONS` connections at most; who finds all of them busy waits, until the deadline.

The API server speaks HTTP/2 too, but the standard library does not, and one connection for each request in
flight costs nothing that can be measured at the agent's concurrency.
"""

from __future__ import annotations

import io
import select
import socket
import threading
import time
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from typing import Any, cast

from actors.errors import StoreUnavailable
from actors.store.kubernetes_access import Access

CONNECTIONS = 32
JSON = "application/json"
IDLE = 45.0
"""Seconds after which an unused connection is not used again; the API server closes one after 90."""

_CHUNK = 1 << 14
_RETRY_AFTER = 1.0


@dataclass(frozen=True, slots=True)
class Answer:
    """`retry_after`: the seconds that the server asks to wait for, None if it does not."""

    status: int
    body: bytes
    retry_after: float | None


class NotSent(OSError):
    """The request did not leave whole, so it was not carried out."""


class NoAnswer(OSError):
    """The request was sent whole and no answer came; it may have been carried out."""


class Connection:
    """One connection; one request at a time."""

    def __init__(self, access: Access, deadline: float) -> None:
        """Connect. Raises NotSent."""
        self._access = access
        self._response: HTTPResponse | None = None
        self.since = 0.0
        try:
            self._socket = self._connect(deadline)
        except OSError as error:
            raise NotSent(f"no connection: {error}") from error
        self._reader = _Reader(self._socket, deadline)

    def _connect(self, deadline: float) -> socket.socket:
        access = self._access
        failure: OSError = OSError(f"{access.host} has no address")
        for *_, where in socket.getaddrinfo(access.host, access.port, type=socket.SOCK_STREAM):
            try:
                raw = socket.create_connection((str(where[0]), access.port), timeout=_left(deadline))
            except OSError as error:
                failure = error
                continue
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # A peer that vanished without a word is noticed after 10 + 3 * 5 seconds.
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10)
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 25_000)
            if access.tls is None:
                return raw
            try:
                raw.settimeout(_left(deadline))
                return access.tls.wrap_socket(raw, server_hostname=access.host)
            except BaseException:
                raw.close()
                raise
        raise failure

    def send(
        self, method: str, path: str, body: bytes, authorization: str, deadline: float, accept: str = JSON
    ) -> None:
        """Send a request whole. Raises NotSent."""
        lines = [
            f"{method} {self._access.prefix}{path} HTTP/1.1",
            f"Host: {self._access.authority}",
            "User-Agent: orbweaver",
            f"Accept: {accept}",
        ]
        if authorization:
            lines.append(f"Authorization: {authorization}")
        if body or method not in {"GET", "HEAD"}:
            lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        # In one piece: two would be two TLS records and two system calls.
        rest = memoryview("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
        try:
            while rest:
                self._socket.settimeout(_left(deadline))
                rest = rest[self._socket.send(rest[:_CHUNK]) :]
        except OSError as error:
            raise NotSent(f"the request could not be sent: {error}") from error

    def head(self, method: str, deadline: float) -> HTTPResponse:
        """Read the status line and the headers of the answer. Raises NoAnswer."""
        self._reader = _Reader(self._socket, deadline)
        # HTTPResponse asks its socket for a file and for nothing else.
        response = HTTPResponse(cast("socket.socket", self._reader), method=method)
        try:
            response.begin()
        except (OSError, HTTPException, ValueError) as error:
            raise NoAnswer(_why(error)) from error
        self._response = response
        return response

    def answer(self, method: str, deadline: float) -> Answer:
        """Read a whole answer. Raises NoAnswer."""
        response = self.head(method, deadline)
        try:
            body = response.read()
        except (OSError, HTTPException, ValueError) as error:
            raise NoAnswer(_why(error)) from error
        return Answer(response.status, body, _retry_after(response))

    def more(self, deadline: float) -> bytes:
        """The next piece of a stream, empty at its end. Raises NoAnswer."""
        assert self._response is not None
        self._reader.deadline = deadline
        try:
            return self._response.read1(1 << 20)
        except (OSError, HTTPException, ValueError) as error:
            raise NoAnswer(_why(error)) from error

    @property
    def reusable(self) -> bool:
        """Whether the last answer was read to its end and the server keeps the connection."""
        return self._response is not None and self._response.isclosed() and not self._response.will_close

    @property
    def stale(self) -> bool:
        """Whether the server closed the idle connection, or said something that nobody asked for."""
        if time.monotonic() - self.since > IDLE:
            return True
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(0))

    def interrupt(self) -> None:
        """From another thread: whoever reads sees the end of the stream."""
        try:
            # Not SSLSocket's own, which takes the TLS state away under the reader.
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
        except OSError:
            return  # it was closed already

    def close(self) -> None:
        self._socket.close()


class _Reader(io.RawIOBase):
    """What is received, until the deadline; HTTPResponse takes it for a socket."""

    def __init__(self, source: socket.socket, deadline: float) -> None:
        super().__init__()
        self._source = source
        self.deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._source.settimeout(_left(self.deadline))
        return self._source.recv_into(buffer)

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(self, 1 << 16)


class Client:
    """Sends requests to one API server. Safe to call from any thread."""

    def __init__(self, access: Access, *, connections: int = CONNECTIONS) -> None:
        self.access = access
        self._free = threading.BoundedSemaphore(connections)
        self._limit = connections
        self._idle: list[Connection] = []
        self._closed = threading.Event()

    def send(self, method: str, path: str, body: bytes, timeout: float, accept: str = JSON) -> Answer:
        """One exchange. Raises `StoreUnavailable`. A refused token is renewed once; reads wait and ask again
        when the server is busy (429, 503) and says for how long, as long as there is time."""
        deadline = time.monotonic() + timeout
        renewed = False
        again = method == "GET"
        while True:
            try:
                answer = self._once(method, path, body, renewed, deadline, accept)
            except (NotSent, NoAnswer) as error:
                if again and isinstance(error, NoAnswer) and time.monotonic() < deadline:
                    again = False
                    continue
                raise StoreUnavailable(
                    f"{method} {path.partition('?')[0]} at {self.access} within {timeout:g} s: {error}",
                    maybe_written=method != "GET" and isinstance(error, NoAnswer),
                ) from error
            if answer.status == 401 and not renewed:
                renewed = True
                continue
            if method == "GET" and answer.status in {429, 503}:
                wait = _RETRY_AFTER if answer.retry_after is None else answer.retry_after
                if time.monotonic() + wait < deadline and not self._closed.wait(wait):
                    continue
            return answer

    def stream(self, path: str, timeout: float) -> Connection:
        """A connection of its own on which GET was sent; the caller reads the answer and closes it.

        Raises `StoreUnavailable`.
        """
        deadline = time.monotonic() + timeout
        self._refuse_if_closed()
        try:
            connection = Connection(self.access, deadline)
            try:
                connection.send("GET", path, b"", self.access.authorize(False), deadline)
            except BaseException:
                connection.close()
                raise
        except NotSent as error:
            raise StoreUnavailable(f"watch at {self.access}: {error}", maybe_written=False) from error
        return connection

    def close(self) -> None:
        """Later calls raise `StoreUnavailable`; those under way go on to their end."""
        self._closed.set()
        self._drain()

    def _once(self, method: str, path: str, body: bytes, renew: bool, deadline: float, accept: str) -> Answer:
        authorization = self.access.authorize(renew)
        if not self._free.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise NotSent(f"all {self._limit} connections were busy")
        connection: Connection | None = None
        try:
            self._refuse_if_closed()
            connection = self._kept()
            if connection is not None:
                try:
                    connection.send(method, path, body, authorization, deadline, accept)
                except NotSent:  # it was closed in this very moment
                    connection.close()
                    connection = None
            if connection is None:
                connection = Connection(self.access, deadline)
                connection.send(method, path, body, authorization, deadline, accept)
            answer = connection.answer(method, deadline)
            if connection.reusable:
                connection.since = time.monotonic()
                self._idle.append(connection)
                connection = None
                if self._closed.is_set():  # meanwhile, so `close` may not have seen it
                    self._drain()
            return answer
        finally:
            if connection is not None:
                connection.close()
            self._free.release()

    def _kept(self) -> Connection | None:
        """The connection used last that still stands; those that were not needed for long go unused."""
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:  # another thread took the last one
                return None
            if not connection.stale:
                return connection
            connection.close()
        return None

    def _drain(self) -> None:
        while self._idle:
            try:
                self._idle.pop().close()
            except IndexError:  # another thread took the last one
                return

    def _refuse_if_closed(self) -> None:
        if self._closed.is_set():
            raise StoreUnavailable(f"the store at {self.access} is closed", maybe_written=False)


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("the time is over")
    return left


def _why(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return f"the connection broke before the answer: {str(error) or type(error).__name__}"


def _retry_after(response: HTTPResponse) -> float | None:
    text = response.getheader("Retry-After") or ""
    return float(text) if text.isascii() and text.isdigit() else None
