"""An HTTP server with a bound on everything that a stranger can make it hold: the only home of tornado.

How it works. A connection has a time for the head of its request, one for the body, one for the answer and one for
taking that answer. When there are as many connections as may be, a new one takes the place of the one that has shown no
whole request for longest, else of one that was answered before: who comes with a request is served, however many others
hold connections open or ask again and again.
What must always hold: one server has at most `connections` descriptors beside its listener, and each of them costs at
most the limits' bytes; every whole request gets one answer, and an error of the handler is such an answer.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from tornado.http1connection import HTTP1Connection, HTTP1ConnectionParameters, HTTP1ServerConnection
from tornado.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPMessageDelegate,
    HTTPServerConnectionDelegate,
    RequestStartLine,
    ResponseStartLine,
)
from tornado.iostream import IOStream, SSLIOStream, StreamClosedError, UnsatisfiableReadError
from tornado.netutil import ssl_wrap_socket

log = logging.getLogger("orbweaver.http")

TEXT = "text/plain; charset=utf-8"
_CHUNK = 1 << 14
_REST = 0.02


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One whole request."""

    method: str
    """In capitals."""
    path: str
    """What stands before the question mark."""
    query: str
    """What stands behind it."""
    headers: Mapping[str, str]
    """By name, in any case."""
    body: bytes
    """Empty for none."""


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """What goes back; the length and the end of the connection are the server's business."""

    status: int
    body: bytes
    content_type: str = TEXT
    headers: Mapping[str, str] = field(default_factory=dict)


Handler = Callable[[HttpRequest], Awaitable[HttpAnswer]]
"""Answers one request, on the server's loop: it must not block. An exception becomes status 500."""


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """What a peer may cost. Times are in seconds."""

    connections: int = 128
    """At one time."""
    head_bytes: int = 1 << 14
    """Of a request's first line and headers."""
    head_seconds: float = 5.0
    """For these; also how long an idle connection is kept."""
    body_bytes: int = 1 << 14
    """Of a request's body."""
    body_seconds: float = 5.0
    """For that."""
    answer_seconds: float = 10.0
    """The handler's time, after which the answer is status 503."""
    take_seconds: float = 5.0
    """How long a peer may take to read it."""


class HttpServer:
    """Serves `listener`, from `open` to `close`, on the event loop that calls these; or, with `start` and `stop`, on a
    loop and thread of its own. With `tls`, every connection is TLS, with what that says when it comes; where it raises
    `OSError`, the connection is closed."""

    def __init__(
        self,
        listener: socket.socket,
        handler: Handler,
        *,
        tls: Callable[[], ssl.SSLContext] | None = None,
        limits: HttpLimits | None = None,
    ) -> None:
        self._listener = listener
        self._handler = handler
        self._tls = tls
        self._limits = limits or HttpLimits()
        self._connections = _Connections(self._limits, self._respond)
        self._resting: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def open(self) -> None:
        """Begin to accept."""
        self._listener.setblocking(False)
        asyncio.get_running_loop().add_reader(self._listener, self._accept)

    def close(self) -> None:
        """Accept no more and drop every connection. The listener stays open: it is the caller's."""
        asyncio.get_running_loop().remove_reader(self._listener)
        if self._resting is not None:
            self._resting.cancel()
        self._connections.close_all()

    def start(self) -> None:
        """Serve in a thread."""
        self._loop = loop = asyncio.new_event_loop()
        loop.call_soon(self.open)
        self._thread = threading.Thread(target=_run, args=(loop,), name="http", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; requests in progress are not waited for."""
        loop, thread = self._loop, self._thread
        if loop is None or thread is None:
            return

        def end() -> None:
            self.close()
            loop.call_soon(loop.stop)  # after what the closing of connections has left to do

        loop.call_soon_threadsafe(end)
        thread.join()

    def _accept(self) -> None:
        """Take a few of those that wait; what they sent is read before the next few can displace them. Where there is no
        room left it rests after each few, so that a flood waits in the kernel and does not become work."""
        if self._connections.full:
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._listener)
            self._resting = loop.call_later(_REST, loop.add_reader, self._listener, self._accept)
        for _ in range(max(1, self._limits.connections // 8)):
            try:
                connection, _address = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:  # it hung up in between, or there are no descriptors
                log.debug("a connection was not accepted", extra={"error": str(error)})
                return
            self._serve(connection)

    def _serve(self, connection: socket.socket) -> None:
        try:
            connection.setblocking(False)
            if self._tls is None:
                stream: IOStream = _Stream(connection, max_buffer_size=self._buffer, read_chunk_size=_CHUNK)
            else:
                wrapped = ssl_wrap_socket(
                    connection, self._tls(), server_side=True, do_handshake_on_connect=False
                )
                stream = _TlsStream(wrapped, max_buffer_size=self._buffer, read_chunk_size=_CHUNK)
        except OSError as error:  # it hung up in between
            log.debug("a connection was lost as it came", extra={"error": str(error)})
            connection.close()
            return
        self._connections.add(stream)

    @property
    def _buffer(self) -> int:
        return max(self._limits.head_bytes, self._limits.body_bytes) + 2 * _CHUNK

    async def _respond(self, request: HttpRequest) -> HttpAnswer:
        try:
            return await asyncio.wait_for(self._handler(request), self._limits.answer_seconds)
        except TimeoutError:
            return HttpAnswer(503, b"there was no answer in time; try again\n")
        except Exception as error:
            log.exception("a request could not be answered", extra={"path": request.path})
            return HttpAnswer(500, f"internal error: {type(error).__name__}\n".encode())


class _Connections(HTTPServerConnectionDelegate):
    """The open connections. A connection is idle until it has shown a whole request, and again after its answer; of the
    busy ones is known whether they had an answer before."""

    def __init__(self, limits: HttpLimits, respond: Handler) -> None:
        self.limits = limits
        self.respond = respond
        self.tasks: set[asyncio.Task[None]] = set()
        self._idle: dict[IOStream, bool] = {}
        self._busy: dict[IOStream, bool] = {}
        self._parameters = HTTP1ConnectionParameters(
            chunk_size=_CHUNK,
            max_header_size=limits.head_bytes,
            header_timeout=limits.head_seconds,
            max_body_size=limits.body_bytes,
            body_timeout=limits.body_seconds,
        )

    @property
    def full(self) -> bool:
        return len(self._idle) + len(self._busy) >= self.limits.connections

    def add(self, stream: IOStream) -> None:
        """Serve one more, in the place of another if there is no room, or not at all."""
        if self.full:
            displaced = next(iter(self._idle), None) or next(
                (busy for busy, answered in self._busy.items() if answered), None
            )
            if displaced is None:
                stream.close()
                return
            self._drop(displaced)
        self._idle[stream] = False
        HTTP1ServerConnection(stream, self._parameters).start_serving(self)

    def close_all(self) -> None:
        for task in tuple(self.tasks):
            task.cancel()
        for stream in (*self._idle, *self._busy):
            self._drop(stream)

    def start_request(self, server_conn: object, request_conn: HTTPConnection) -> HTTPMessageDelegate:
        assert isinstance(request_conn, HTTP1Connection)
        return _HttpExchange(self, request_conn)

    def on_close(self, server_conn: object) -> None:
        assert isinstance(server_conn, HTTP1ServerConnection)
        self._forget(server_conn.stream)

    def busy(self, stream: IOStream) -> None:
        self._busy[stream] = self._idle.pop(stream, False)

    def idle(self, stream: IOStream) -> None:
        if self._busy.pop(stream, None) is not None and not stream.closed():
            self._idle[stream] = True

    def _drop(self, stream: IOStream) -> None:
        stream.close()
        self._forget(stream)

    def _forget(self, stream: IOStream) -> None:
        self._idle.pop(stream, None)
        self._busy.pop(stream, None)


class _HttpExchange(HTTPMessageDelegate):
    """One request and its answer."""

    def __init__(self, connections: _Connections, connection: HTTP1Connection) -> None:
        self._connections = connections
        self._connection = connection
        self._stream = connection.stream
        self._start = RequestStartLine("", "", "")
        self._headers = HTTPHeaders()
        self._body = bytearray()

    def headers_received(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders
    ) -> None:
        assert isinstance(start_line, RequestStartLine)
        self._start, self._headers = start_line, headers

    def data_received(self, chunk: bytes) -> None:
        self._body += chunk

    def finish(self) -> None:
        self._connections.busy(self._stream)
        task = asyncio.get_running_loop().create_task(self._answer())
        self._connections.tasks.add(task)
        task.add_done_callback(self._connections.tasks.discard)

    async def _answer(self) -> None:
        path, _, query = self._start.path.partition("?")
        request = HttpRequest(self._start.method, path, query, self._headers, bytes(self._body))
        answer = await self._connections.respond(request)
        headers = HTTPHeaders(
            {"Content-Type": answer.content_type, "Content-Length": str(len(answer.body)), **answer.headers}
        )
        line = ResponseStartLine("", answer.status, HTTPStatus(answer.status).phrase)
        body = None if request.method == "HEAD" else answer.body
        try:
            taken = self._connection.write_headers(line, headers, body)
            await asyncio.wait_for(taken, self._connections.limits.take_seconds)
        except StreamClosedError:
            return  # it hung up before its answer
        except TimeoutError:
            self._stream.close()
            return
        self._connections.idle(self._stream)
        self._connection.finish()  # from here on the next request of this connection is read


class _TellsTooLong(IOStream):
    """A stream that says why before it closes on a head beyond the limit."""

    def close(self, exc_info: Any = False) -> None:
        if isinstance(exc_info, UnsatisfiableReadError) and not self.closed() and not self.writing():
            line = "HTTP/1.1 431 Request Header Fields Too Large"
            self.write(f"{line}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
        super().close(exc_info)


class _Stream(_TellsTooLong):
    pass


class _TlsStream(_TellsTooLong, SSLIOStream):
    pass


def _run(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    loop.run_forever()
    loop.close()
