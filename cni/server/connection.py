"""One client of the CNI socket: reads one request, hands it over, answers, closes.

What must always hold: a client that is slow, silent, or sends garbage costs a file descriptor for a bounded time, and a
bounded part of a bounded sum of memory; every complete request is answered by its deadline, with an error if need be.

Wire format, one exchange per connection. Request: `OWC1`, body length (4 bytes, big endian), then
`plugin=NAME` and the `CNI_*` variables as NUL-terminated strings, an empty string, and standard input. Answer:
`OWR1`, exit status, length (4 bytes each, big endian), and what goes to standard output.
"""

from __future__ import annotations

import asyncio
import logging
import os
import select
import struct
import time
import uuid
from typing import TYPE_CHECKING, Any, Protocol, cast

from actors.allocation.messages import AddResult
from actors.decisions.brief import in_brief
from actors.errors import (
    CNI_NOT_AVAILABLE,
    DeadlineExceeded,
    InvalidRequest,
    OrbweaverError,
    Overloaded,
    StoreUnavailable,
    WriteRefused,
)
from actors.runtime import ObjectRef, Trace, request_scope
from cni.dataplane.netlink.namespaces import require_foreign
from cni.server import protocol
from cni.server.protocol import CniRequest

if TYPE_CHECKING:
    from cni.server.frontend import FrontEnd

log = logging.getLogger("orbweaver.cni")

REQUEST_MAGIC, ANSWER_MAGIC = b"OWC1", b"OWR1"
IPAM = "spiderpool"
REQUEST_LIMIT = 1 << 20
READ_TIMEOUT = 10.0
CLIENTS = 1024
"""Connections at once. One more takes the place of the one that has been sending its request for longest."""
LARGE, LARGE_TOGETHER = 1 << 16, 32
"""Bytes of a request that not many have (a configuration has a few kB), and how many such are read at once."""

_HEADER = 8
_OPERATIONS = {"ADD": "allocation", "DEL": "release"}


class ChainedPlugin(Protocol):
    """A plugin that stands behind others in a network's list, as `coordinator` does."""

    def handle(self, request: CniRequest) -> ObjectRef[bytes]:
        """Begin to serve the request, without waiting; the reference completes with what goes to standard output.
        Raises `InvalidRequest`."""
        ...


class Connection(asyncio.Protocol):
    """One connection: reads one request, answers it, closes."""

    def __init__(self, front: FrontEnd, loop: asyncio.AbstractEventLoop) -> None:
        self._front = front
        self._loop = loop
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._request: CniRequest | None = None
        self._command = "invalid"
        self._version = protocol.NEWEST
        self._started = time.perf_counter()
        self._trace = Trace(uuid.uuid4().hex[:12])
        self._gone: ObjectRef[None] | None = None
        self._dispatched = False
        self._answered = False
        self._plugin = IPAM

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._front.arrived(self)
        if self._front.clients > self._front.most and not self._front.displace(self):
            self._refuse(Overloaded(f"the agent already serves {self._front.most} CNI requests; try again"))
        else:
            self._timer = self._loop.call_later(READ_TIMEOUT, self._too_slow)

    def displaced(self) -> None:
        """Another one needs the place; this one has not said what it wants."""
        self._refuse(
            Overloaded(f"{self._front.most} others came before this request was complete; try again")
        )

    def connection_lost(self, exc: Exception | None) -> None:
        self._front.left(self)
        self._transport = None
        if self._timer is not None and (self._answered or not self._dispatched):
            self._timer.cancel()

    def eof_received(self) -> bool:
        if self._gone is not None and self._transport is not None and _hung_up(self._transport):
            self._gone.complete(None)
        return self._dispatched  # the shim keeps its side open; a half-closed one still gets its answer

    def data_received(self, data: bytes) -> None:
        if self._dispatched or self._answered:
            return
        self._buffer += data
        if self._buffer[:4] != REQUEST_MAGIC[: len(self._buffer)]:
            log.warning("closed a connection that does not speak the shim's protocol")
            self._drop()
            return
        if len(self._buffer) < _HEADER:
            return
        length = struct.unpack_from(">I", self._buffer, 4)[0]
        if length > REQUEST_LIMIT:
            self._refuse(
                InvalidRequest(
                    f"the request has {length} bytes; at most {REQUEST_LIMIT} are read", cni_code=6
                )
            )
        elif length > LARGE and not self._front.large(self):
            self._refuse(
                Overloaded(f"the agent already reads {LARGE_TOGETHER} requests of this size; try again")
            )
        elif len(self._buffer) >= _HEADER + length:
            self._dispatched = True
            self._front.read(self)
            if self._timer is not None:
                self._timer.cancel()
            body, self._buffer = bytes(self._buffer[_HEADER : _HEADER + length]), bytearray()
            try:
                self._handle(body)
            except Exception as error:  # a bug, but a request gets its answer all the same
                log.exception("a request could not be handled", extra={"request": self._trace.request})
                if not self._answered:
                    self._refuse(OrbweaverError(f"internal error: {error!r:.200}; see the agent's log"))

    def _handle(self, body: bytes) -> None:
        head, _, stdin = body.partition(b"\0\0")
        self._version = protocol.version_of(stdin)
        environment: dict[str, str] = {}
        try:
            environment = _environment(head)
            plugin = environment.get("plugin", "")
            chained = self._front.chained.get(plugin)
            if plugin != IPAM and chained is None:
                known = ", ".join(f'"{name}"' for name in (IPAM, *self._front.chained))
                raise InvalidRequest(
                    f'this version has no plugin {plugin!r}, only {known}; correct "type" in the network configuration'
                )
            self._plugin = plugin
            request = protocol.parse(environment, stdin)
            if request.command == "ADD":
                require_foreign(request.sandbox.netns, request.sandbox.key)
        except InvalidRequest as error:
            named = protocol.named_in(environment)
            self._command = named.command or self._command
            self._trace = Trace(self._trace.request, named.pod, named.container)
            self._refuse(error)
            return
        self._request = request
        self._command = request.command
        sandbox = request.sandbox
        pod = sandbox.key if sandbox.container else ""
        self._trace = Trace(self._trace.request, pod, sandbox.container)
        if request.ignored:
            log_request(
                logging.WARNING,
                "a DEL says what cannot be understood; it is done all the same",
                self._trace,
                ignored=list(request.ignored),
            )
        if request.command == "VERSION":
            self._answer(0, protocol.versions(request))
        elif request.command == "STATUS":
            self._status()
        elif chained is not None:
            self._timer = self._loop.call_later(self._front.timeout, self._deadline_passed)
            self._chain(chained, request)
        else:
            self._timer = self._loop.call_later(self._front.timeout, self._deadline_passed)
            if request.command == "ADD":
                self._gone = self._front.started(request)
            elif request.command == "DEL":
                self._front.unwanted(sandbox.container)
            if request.command == "GC":
                self._send(request, "")
            else:
                self._front.route(request).subscribe(lambda ref: self._front.soon(self._routed, request, ref))

    def _chain(self, plugin: ChainedPlugin, request: CniRequest) -> None:
        try:
            ref = plugin.handle(request)
        except OrbweaverError as error:
            self._refuse(error)
        else:
            ref.subscribe(lambda done: self._front.soon(self._chained, done))

    def _chained(self, ref: ObjectRef[bytes]) -> None:
        error = ref.error()
        if self._answered:
            return  # the deadline came first
        if error is None:
            self._answer(0, ref.result())
        else:
            self._refuse(
                error if isinstance(error, OrbweaverError) else OrbweaverError(f"internal error: {error!r}")
            )

    def _routed(self, request: CniRequest, ref: ObjectRef[str]) -> None:
        error = ref.error()
        if error is not None:
            self._finish(request, error, None)
        else:
            self._send(request, ref.result())

    def _send(self, request: CniRequest, key: str) -> None:
        system, sandbox = self._front.system, request.sandbox
        with request_scope(self._trace, self._front.timeout):
            if request.command == "GC":
                valid = tuple((one.container, one.interface) for one in request.valid)
                ref = system.get_actor("node-gc/local").collect.remote(request.network, valid)
            else:
                endpoint = system.get_actor("endpoint/" + key)
                if request.command == "ADD":
                    ref = endpoint.add.remote(request.add_request(), self._gone)
                elif request.command == "DEL":
                    ref = endpoint.release.remote(sandbox)
                else:
                    ref = endpoint.check.remote(sandbox, request.previous or ())
        # What really became of an ADD must be known even after the deadline, to undo it.
        ref.subscribe(lambda done: self._front.soon(self._done, request, done))

    def _done(self, request: CniRequest, ref: ObjectRef[Any]) -> None:
        error = ref.error()
        self._finish(request, error, None if error is not None else ref.result())

    def _finish(self, request: CniRequest, error: BaseException | None, value: Any) -> None:
        delivered = False
        if self._answered:
            pass  # the deadline came first
        elif error is not None:
            known = (
                error if isinstance(error, OrbweaverError) else OrbweaverError(f"internal error: {error!r}")
            )
            self._refuse(known)
            # A retry cures what the cluster refuses to record only once somebody has changed the cluster.
            if request.command == "ADD" and (isinstance(known, WriteRefused) or not known.retryable):
                self._front.on_refused(request, known)
        elif request.command == "ADD":
            delivered = self._answer(0, protocol.success(request, value), value)
        else:
            self._answer(0, b"", value)
        if request.command == "ADD":
            fresh = error is None and value.fresh
            self._front.finished(request, self._trace, delivered=delivered, fresh=fresh)

    def stop_reading(self) -> None:
        """The agent stops: a request that is not complete by now is not served."""
        if not self._dispatched:
            self._drop()

    def give_up(self) -> None:
        """The time to drain is over."""
        if not self._answered:
            self._refuse(Overloaded("the agent is stopping and did not finish in time; try again"))

    def _status(self) -> None:
        reason = self._front.not_ready()
        if reason is None:
            self._answer(0, b"")
        else:
            self._refuse(
                StoreUnavailable(f"the agent cannot serve ADD now: {reason}", cni_code=CNI_NOT_AVAILABLE)
            )

    def _deadline_passed(self) -> None:
        if not self._answered:
            command = self._request.command if self._request is not None else "request"
            self._refuse(
                DeadlineExceeded(
                    f"{command} for pod {self._trace.pod} was not finished within {self._front.timeout:g} s; try again, and "
                    "see the agent's log for what it waits for"
                )
            )

    def _too_slow(self) -> None:
        log.warning(
            "closed a connection whose request was not complete in time", extra={"seconds": READ_TIMEOUT}
        )
        self._drop()

    def _refuse(self, error: OrbweaverError) -> None:
        self._answer(1, protocol.failure(self._version, error), error=error)

    def _answer(
        self, status: int, output: bytes, value: Any = None, error: OrbweaverError | None = None
    ) -> bool:
        """Answer and close; returns whether the kernel took the answer for somebody who still reads."""
        self._answered = True
        self._front.read(self)
        delivered = False
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            delivered = _write(
                self._transport, ANSWER_MAGIC + struct.pack(">II", status, len(output)) + output
            )
            self._timer = self._loop.call_later(READ_TIMEOUT, self._transport.abort)  # who does not take it
            self._transport.close()
        self._report(value, error)
        return delivered

    def _report(self, value: Any, error: OrbweaverError | None) -> None:
        request = self._request
        took = time.perf_counter() - self._started
        command = self._command
        operation = (
            _OPERATIONS.get(command, command.lower())
            if self._plugin == IPAM
            else f"{self._plugin}_{command.lower()}"
        )
        self._front.observer.stage(operation, "total", took)
        self._front.observer.finished(
            operation, "error" if error else "ok", type(error).__name__ if error else ""
        )
        details: dict[str, Any] = {"command": command, "ms": round(took * 1000, 2)}
        if request is not None:
            details |= {"interface": request.sandbox.interface, "network": request.network}
        if isinstance(value, AddResult):
            details["addresses"] = [f"{one.address} from {one.pool}" for one in value.addresses]
        elif isinstance(value, int):
            details["released"] = value
        if error is not None:
            details |= {"error": in_brief(error), "code": error.cni_code}
            whole = {"error": error.message, "details": list(error.details)}
            log_request(logging.DEBUG, "all that an answer says in brief", self._trace, **whole)
        log_request(logging.WARNING if error else logging.INFO, "answered", self._trace, **details)

    def _drop(self) -> None:
        self._answered = True
        self._front.read(self)
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._transport.abort()


def log_request(level: int, text: str, trace: Trace, **details: Any) -> None:
    extra = {"request": trace.request, "pod": trace.pod, "container": trace.container, **details}
    log.log(level, text, extra=extra)


def _write(transport: asyncio.Transport, data: bytes) -> bool:
    """Write the only thing that is ever written to a client; returns whether the kernel took all of it for somebody who
    still reads. Not by the transport alone, which may write later: a client that hung up looks like one that closed its
    writing half until something is written to it (EPIPE)."""
    try:
        taken = os.write(transport.get_extra_info("socket").fileno(), data)
    except BlockingIOError:
        taken = 0
    except OSError:
        return False
    if taken < len(data):
        transport.write(data[taken:])
    return taken == len(data)


def _hung_up(transport: asyncio.Transport) -> bool:
    """Whether the other side is closed for good, not only its writing half. (Only the poll of a Unix socket tells.)"""
    poll = select.poll()
    poll.register(transport.get_extra_info("socket").fileno(), 0)  # POLLHUP is told in any case
    return any(events & select.POLLHUP for _, events in poll.poll(0))


def _environment(head: bytes) -> dict[str, str]:
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        text = head.decode(errors="replace")
        if "CNI_COMMAND=DEL" not in text.split("\0"):  # a DEL is not refused for what it does not need
            raise InvalidRequest(f"the CNI environment is not UTF-8: {error}", cni_code=4) from error
    pairs = [pair.partition("=") for pair in text.split("\0") if pair]
    return {key: value for key, _, value in pairs}
