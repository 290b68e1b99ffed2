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

import select
import socket
import threading
import time
from dataclasses import dataclass

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from actors.errors import StoreUnavailable
from actors.store.kubernetes.access import Access

CONNECTIONS = 32
JSON = "application/json"
IDLE = 45.0
"""Seconds after which an unused connection is not used again; the API server closes one after 90."""

_CHUNK = 1 << 14
_PIECE = 1 << 16
_FINAL = 200
"""Answers below it are not the last word (RFC 9110, section 15.2)."""
_RETRY_AFTER = 1.0


@dataclass(frozen=True, slots=True)
class ApiResponse:
    """`retry_after`: the seconds that the server asks to wait for, None if it does not."""

    status: int
    body: bytes
    retry_after: float | None


class NotSent(OSError):
    """The request did not leave whole, so it was not carried out."""


class TooMuch(Exception):
    """The answer is larger than who asked can hold; the rest of it was not read."""


class NoAnswer(OSError):
    """The request was sent whole and no answer came; it may have been carried out."""


class ApiConnection:
    """One connection; one request at a time."""

    def __init__(self, access: Access, deadline: float) -> None:
        """Connect. Raises NotSent."""
        self._access = access
        self._answer = _IncomingResponse()
        self.since = 0.0
        try:
            self._socket = self._connect(deadline)
        except OSError as error:
            raise NotSent(f"no connection: {error}") from error

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
        if body or method != "GET":
            lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        # In one piece: two would be two TLS records and two system calls.
        rest = memoryview("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
        try:
            while rest:
                self._socket.settimeout(_left(deadline))
                rest = rest[self._socket.send(rest[:_CHUNK]) :]
        except OSError as error:
            raise NotSent(f"the request could not be sent: {error}") from error

    def head(self, deadline: float) -> int:
        """Read the status and the headers of the answer; returns the status. Raises NoAnswer."""
        answer = self._answer
        answer.expect()
        while not answer.begun:
            self._receive(deadline)
        return answer.status

    def answer(self, deadline: float, most: int | None = None) -> ApiResponse:
        """Read a whole answer, of `most` bytes. Raises NoAnswer, and TooMuch."""
        self.head(deadline)
        answer = self._answer
        while not answer.ended:
            if most is not None and answer.size > most:
                raise TooMuch
            self._receive(deadline)
        return ApiResponse(answer.status, answer.take(), answer.retry_after)

    def more(self, deadline: float) -> bytes:
        """The next piece of a stream, empty at its end. Raises NoAnswer."""
        answer = self._answer
        while not (answer.pieces or answer.ended):
            self._receive(deadline)
        return answer.take()

    def _receive(self, deadline: float) -> None:
        try:
            self._socket.settimeout(_left(deadline))
            data = self._socket.recv(_PIECE)
            if data:
                self._answer.feed(data)
            else:
                self._answer.closed()
        except TimeoutError as error:
            raise NoAnswer("no answer in time") from error
        except OSError as error:
            raise NoAnswer(f"the connection broke before the answer: {error}") from error
        except (HttpParserError, HttpParserUpgrade) as error:
            raise NoAnswer(f"what came is not an HTTP answer: {error}") from error

    @property
    def reusable(self) -> bool:
        """Whether the last answer was read to its end and the server keeps the connection."""
        return self._answer.ended and self._answer.keeps

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
        self._answer.take()  # it and its parser hold each other, so what is not read any more would stay for a while


class _IncomingResponse:
    """The answer that is being read, as far as it has come. The parser calls the methods named `on_...`."""

    def __init__(self) -> None:
        self._parser = HttpResponseParser(self)
        self.expect()

    def expect(self) -> None:
        """Forget the last answer: another request was sent."""
        self.status = 0
        self.retry_after: float | None = None
        self.pieces: list[bytes] = []
        self.size = 0
        """Bytes of the body that have come."""
        self.begun = False
        self.ended = False
        self.keeps = False
        self._framed = False
        """Whether the headers say where the body ends; else that is the end of the connection."""

    def feed(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def closed(self) -> None:
        """The server sends no more. Raises OSError when it had not said all."""
        if not self.begun or self._framed:
            raise OSError("it was closed")
        self.ended = True

    def take(self) -> bytes:
        taken, self.pieces = self.pieces, []
        return taken[0] if len(taken) == 1 else b"".join(taken)

    def on_message_begin(self) -> None:
        self.keeps = False  # and where an answer has ended, nobody asked for another

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name == b"retry-after":
            self.retry_after = float(value) if value.isdigit() else None
        elif name in {b"content-length", b"transfer-encoding"}:
            self._framed = True

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status >= _FINAL and not self.begun:
            self.begun, self.status, self.keeps = True, status, self._parser.should_keep_alive()

    def on_body(self, piece: bytes) -> None:
        if not self.ended:
            self.pieces.append(piece)
            self.size += len(piece)

    def on_message_complete(self) -> None:
        self.ended = self.begun


class Client:
    """Sends requests to one API server. Safe to call from any thread."""

    def __init__(self, access: Access, *, connections: int = CONNECTIONS) -> None:
        self.access = access
        self._free = threading.BoundedSemaphore(connections)
        self._limit = connections
        self._idle: list[ApiConnection] = []
        self._closed = threading.Event()

    def send(
        self,
        method: str,
        path: str,
        body: bytes,
        timeout: float,
        accept: str = JSON,
        most: int | None = None,
    ) -> ApiResponse:
        """One exchange. Raises `StoreUnavailable`, and `TooMuch` for an answer of more than `most` bytes. A refused
        token is renewed once; reads wait and ask again when the server is busy (429, 503) and says for how long, as long
        as there is time."""
        deadline = time.monotonic() + timeout
        renewed = False
        again = method == "GET"
        while True:
            try:
                answer = self._once(method, path, body, renewed, deadline, accept, most)
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

    def stream(self, path: str, timeout: float) -> ApiConnection:
        """A connection of its own on which GET was sent; the caller reads the answer and closes it.

        Raises `StoreUnavailable`.
        """
        deadline = time.monotonic() + timeout
        self._refuse_if_closed()
        try:
            connection = ApiConnection(self.access, deadline)
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

    def _once(
        self,
        method: str,
        path: str,
        body: bytes,
        renew: bool,
        deadline: float,
        accept: str,
        most: int | None,
    ) -> ApiResponse:
        authorization = self.access.authorize(renew)
        if not self._free.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise NotSent(f"all {self._limit} connections were busy")
        connection: ApiConnection | None = None
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
                connection = ApiConnection(self.access, deadline)
                connection.send(method, path, body, authorization, deadline, accept)
            answer = connection.answer(deadline, most)
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

    def _kept(self) -> ApiConnection | None:
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
