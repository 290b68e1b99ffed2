"""One client of the CNI socket: reads one request, has it served, answers, closes.

What must always hold: a client that is slow, silent, or sends garbage costs a file descriptor for a bounded time, and a
bounded part of a bounded sum of memory; every complete request is answered by its deadline, with an error if need be. It
knows who serves requests by one function alone.

Wire format, one exchange per connection. Request: `OWC1`, body length (4 bytes, big endian), then
`plugin=NAME` and the `CNI_*` variables as NUL-terminated strings, an empty string, and standard input. Answer:
`OWR1`, exit status, length (4 bytes each, big endian), and what goes to standard output.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import select
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from actors.allocation.observer import AllocationObserver
from actors.decisions.brief import in_brief
from actors.errors import DeadlineExceeded, InvalidRequest, OrbweaverError, Overloaded
from actors.runtime import Trace
from cni.dataplane.netlink.namespaces import require_foreign
from cni.server import protocol
from cni.server.connection_table import LARGE_TOGETHER, ConnectionTable
from cni.server.exchange import CniAnswer, Exchange, Fate, Serve
from cni.server.protocol import IPAM, CniRequest, environment_in

log = logging.getLogger("orbweaver.cni")

REQUEST_MAGIC, ANSWER_MAGIC = b"OWC1", b"OWR1"
REQUEST_LIMIT = 1 << 20
READ_TIMEOUT = 10.0
LARGE = 1 << 16
"""Bytes of a request that not many have; a configuration has a few kB."""

_HEADER = 8
_CHANCE = random.Random()
"""Names requests in the log, which takes no secret: a system call for each would let another thread have the interpreter."""
_OPERATIONS = {"ADD": "allocation", "DEL": "release"}


@dataclass(frozen=True, slots=True)
class Limits:
    """`timeout`: seconds in which every request is answered. `plugins`: those that there are besides the IPAM one.
    `longer`: the seconds of those among them that execute others."""

    timeout: float = 20.0
    plugins: tuple[str, ...] = ()
    longer: Mapping[str, float] = field(default_factory=dict)

    def timeout_of(self, plugin: str) -> float:
        """Seconds in which a request for the plugin is answered."""
        return self.longer.get(plugin, self.timeout)


class Connection(asyncio.Protocol):
    """One connection: reads one request, answers it, closes."""

    def __init__(
        self,
        serve: Serve,
        limits: Limits,
        table: ConnectionTable[Connection],
        observer: AllocationObserver,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._serve = serve
        self._limits = limits
        self._table = table
        self._observer = observer
        self._loop = loop
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._request: CniRequest | None = None
        self._command = "invalid"
        self._version = protocol.NEWEST
        self._started = time.perf_counter()
        self._trace = Trace(f"{_CHANCE.getrandbits(48):012x}")
        self._exchange: Exchange | None = None
        self._dispatched = False
        self._answered = False
        self._plugin = IPAM

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._table.arrived(self)
        displaced = self._table.displaced_by(self)
        if displaced is self:
            self._refuse(Overloaded(f"the agent already serves {self._table.most} CNI requests; try again"))
            return
        if displaced is not None:
            displaced.make_room()
        self._timer = self._loop.call_later(READ_TIMEOUT, self._too_slow)

    def make_room(self) -> None:
        """Another one needs the place; this one has not said what it wants."""
        self._refuse(
            Overloaded(f"{self._table.most} others came before this request was complete; try again")
        )

    def connection_lost(self, exc: Exception | None) -> None:
        self._table.left(self)
        self._transport = None
        if self._timer is not None and (self._answered or not self._dispatched):
            self._timer.cancel()

    def eof_received(self) -> bool:
        if self._exchange is not None and self._transport is not None and _hung_up(self._transport):
            self._exchange.gone.complete(None)
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
        elif length > LARGE and not self._table.may_be_large(self):
            self._refuse(
                Overloaded(f"the agent already reads {LARGE_TOGETHER} requests of this size; try again")
            )
        elif len(self._buffer) >= _HEADER + length:
            self._dispatched = True
            self._table.read(self)
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
        environment: dict[str, str] = {}
        try:
            environment = environment_in(head)
            plugin = environment.get("plugin", "")
            plugins = (IPAM, *self._limits.plugins)
            if plugin not in plugins:
                known = ", ".join(f'"{name}"' for name in plugins)
                raise InvalidRequest(
                    f'this version has no plugin {plugin!r}, only {known}; correct "type" in the network configuration'
                )
            self._plugin = plugin
            request = protocol.parse(environment, stdin)
            # Of the IPAM plugin the pod's Endpoint looks, in a thread of its own.
            if request.command == "ADD" and plugin != IPAM:
                require_foreign(request.sandbox.netns, request.sandbox.key)
        except InvalidRequest as error:
            named = protocol.named_in(environment)
            self._command = named.command or self._command
            self._trace = Trace(self._trace.request, named.pod, named.container)
            self._version = protocol.version_of(stdin)
            self._refuse(error)
            return
        self._version = protocol.version_in(request.conf)
        self._request = request
        self._command = request.command
        sandbox = request.sandbox
        pod = sandbox.key if sandbox.container else ""
        self._trace = Trace(self._trace.request, pod, sandbox.container)
        self._timer = self._loop.call_later(self._limits.timeout_of(self._plugin), self._deadline_passed)
        self._exchange = Exchange(request, self._trace, self._deliver)
        self._serve(self._exchange)

    def _deliver(self, outcome: CniAnswer | OrbweaverError) -> Fate:
        if self._answered:
            return Fate.LATE  # the deadline came first
        if isinstance(outcome, OrbweaverError):
            return self._refuse(outcome)
        return self._answer(0, outcome.output, outcome)

    def stop_reading(self) -> None:
        """The agent stops: a request that is not complete by now is not served."""
        if not self._dispatched:
            self._drop()

    def give_up(self) -> None:
        """The time to drain is over."""
        if not self._answered:
            self._refuse(Overloaded("the agent is stopping and did not finish in time; try again"))

    def _deadline_passed(self) -> None:
        if not self._answered:
            command = self._request.command if self._request is not None else "request"
            self._refuse(
                DeadlineExceeded(
                    f"{command} for pod {self._trace.pod} was not finished within "
                    f"{self._limits.timeout_of(self._plugin):g} s; try again, and "
                    "see the agent's log for what it waits for"
                )
            )

    def _too_slow(self) -> None:
        log.warning(
            "closed a connection whose request was not complete in time", extra={"seconds": READ_TIMEOUT}
        )
        self._drop()

    def _refuse(self, error: OrbweaverError) -> Fate:
        return self._answer(1, protocol.failure(self._version, error), error)

    def _answer(self, status: int, output: bytes, outcome: CniAnswer | OrbweaverError) -> Fate:
        """Answer and close; returns whether the kernel took the answer for somebody who still reads."""
        self._answered = True
        self._table.read(self)
        taken = False
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            taken = _write(self._transport, ANSWER_MAGIC + struct.pack(">II", status, len(output)) + output)
            self._timer = self._loop.call_later(READ_TIMEOUT, self._transport.abort)  # who does not take it
            self._transport.close()
        seconds = time.perf_counter() - self._started
        _report(self._observer, self._trace, self._command, self._plugin, seconds, self._request, outcome)
        return Fate.TAKEN if taken else Fate.LOST

    def _drop(self) -> None:
        self._answered = True
        self._table.read(self)
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._transport.abort()


def _report(
    observer: AllocationObserver,
    trace: Trace,
    command: str,
    plugin: str,
    seconds: float,
    request: CniRequest | None,
    outcome: CniAnswer | OrbweaverError,
) -> None:
    """Tell how a request was answered. `request`: None for one that could not be understood."""
    error = outcome if isinstance(outcome, OrbweaverError) else None
    operation = _OPERATIONS.get(command, command.lower()) if plugin == IPAM else f"{plugin}_{command.lower()}"
    observer.stage(operation, "total", seconds)
    observer.finished(operation, "error" if error else "ok", type(error).__name__ if error else "")
    details: dict[str, Any] = {"command": command, "ms": round(seconds * 1000, 2)}
    if request is not None:
        details |= {"interface": request.sandbox.interface, "network": request.network}
    if isinstance(outcome, CniAnswer):
        if outcome.result is not None:
            details["addresses"] = [
                f"{assigned.address} from {assigned.pool}" for assigned in outcome.result.addresses
            ]
        elif outcome.released is not None:
            details["released"] = outcome.released
    if error is not None:
        details |= {"error": in_brief(error), "code": error.cni_code}
        whole = {"error": error.message, "details": list(error.details)}
        log.debug("all that an answer says in brief", extra=trace.named(**whole))
    log.log(logging.WARNING if error else logging.INFO, "answered", extra=trace.named(**details))


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
