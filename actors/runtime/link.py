"""One connection between two processes, on either side: handshake, pings, bounded output, an orderly end.

How it works. One IO thread for each system runs an asyncio loop with all its connections. Other threads only
append frames to a link's queue; the first of them wakes the loop, which writes all that gathered in one go.

What must always hold: `send` may be called from any thread and never blocks; everything else runs in the IO
thread. A peer that breaks the protocol is told so, if it still reads, and is cut off; one that is silent
longer than the limits say is cut off; neither disturbs another connection, nor this process.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from actors.errors import OrbweaverError, PeerLost, ProtocolError
from actors.runtime import wire
from actors.runtime.event_loop import new_event_loop

log = logging.getLogger("orbweaver.runtime")
T = TypeVar("T")

_LINGER = 1.0
"""Seconds that a peer has to read our last words."""


@dataclass(frozen=True, slots=True)
class LinkLimits:
    """What a connection may cost. Times in seconds, sizes in bytes."""

    frame: int = wire.FRAME_LIMIT
    """The largest frame that is taken."""
    output: int = 8 << 20
    """Frames that wait for the peer to read them; a server cuts a slower reader off, a client is
    `Overloaded`."""
    in_flight: int = 4096
    """Calls without an answer on one connection; one more is `Overloaded`."""
    of_one_peer: int = 4
    """Connections of one peer that has shown who it is; the oldest makes room for one more."""
    lasting: float | None = None
    """For how long a server keeps a connection before the peer must show again who it is."""
    connect: float = 5.0
    """From the start of a connection to the peer's hello."""
    ping_every: float = 3.0
    """A peer not heard for this long is pinged."""
    ping_timeout: float = 9.0
    """A peer not heard for this long is lost."""
    backoff: float = 0.05
    """Pause after a failed attempt to connect; it doubles up to `backoff_most`. Calls meanwhile fail at
    once."""
    backoff_most: float = 2.0
    """The longest pause."""


class IoThread:
    """The asyncio loop of one system, in a thread of its own that starts with the first connection."""

    def __init__(self, name: str) -> None:
        self._name = f"{name}-io"
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The running loop."""
        with self._lock:
            if self._loop is None:
                self._loop = new_event_loop()
                self._thread = threading.Thread(target=self._loop.run_forever, name=self._name, daemon=True)
                self._thread.start()
            return self._loop

    def run(self, work: Coroutine[Any, Any, T], timeout: float) -> T:
        """Run a coroutine there and wait for it. Raises TimeoutError."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout)

    def close(self) -> None:
        """Stop the loop and its thread."""
        with self._lock:
            loop, thread = self._loop, self._thread
        if loop is None or thread is None:
            return
        with contextlib.suppress(RuntimeError):  # It was closed before.
            loop.call_soon_threadsafe(loop.stop)
        if thread is not threading.current_thread():
            thread.join()
            loop.close()


class PeerLink(asyncio.Protocol):
    """The half that clients and servers share. They implement `opened`, `received` and `lost`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, system: str, limits: LinkLimits) -> None:
        self.limits = limits
        self.peer = "a peer"
        self.send_limit = limits.frame
        """The largest frame that both sides take."""
        self.version = wire.LOWEST_VERSION
        """Of the protocol that both sides speak."""
        self._loop = loop
        self._system = system
        self._incoming = wire.Incoming(limits.frame)
        self._transport: asyncio.Transport | None = None
        self._lock = threading.Lock()
        self._queue: list[bytes] = []
        self._queued = 0
        self._buffered = 0
        self._waking = False
        self._paused = False
        self._closed = False
        self._reason: OrbweaverError | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._heard = loop.time()
        self._pings = 0
        self.ended: asyncio.Future[None] = loop.create_future()
        """Done when the connection is gone."""

    def opened(self, _hello: wire.Hello) -> None:
        """The handshake is done."""

    def received(self, event: wire.PeerEvent) -> None:
        """A call or a reply came. May raise ProtocolError."""

    def lost(self, reason: OrbweaverError) -> None:
        """The connection is gone, for good; called once."""

    def send(self, frame: bytes) -> bool:
        """Queue a frame, from any thread. False when the peer reads too slowly, or the connection is gone."""
        with self._lock:
            if self._closed or self._queued + self._buffered + len(frame) > self.limits.output:
                return False
            self._queue.append(frame)
            self._queued += len(frame)
            wake = not self._waking
            self._waking = True
        if wake:
            try:
                self._loop.call_soon_threadsafe(self._flush)
            except RuntimeError:  # The loop is closed: the process ends.
                return False
        return True

    def ending(self) -> bool:
        """Whether the connection is closed or about to be."""
        return self._closed or self._reason is not None

    def close(self, error: OrbweaverError | None = None) -> None:
        """Say goodbye and close, behind what is queued; a peer that does not read is cut off."""
        if self._transport is None or self.ending():
            return
        self._reason = error or PeerLost(f"the connection to {self.peer} was closed")
        self.send(wire.goodbye(error))
        self._paused = False
        self._flush()
        with self._lock:
            self._closed = True
        self._transport.close()
        self._loop.call_later(_LINGER, self._transport.abort)

    def abort(self, error: OrbweaverError) -> None:
        """Close at once."""
        self._reason = self._reason or error
        with self._lock:
            self._closed = True
        if self._transport is not None:
            self._transport.abort()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._heard = self._loop.time()
        self._watch = self._loop.call_later(self.limits.connect, self._no_hello)
        self.send(wire.hello(self._system, self.limits.frame))

    def data_received(self, data: bytes) -> None:
        self._heard = self._loop.time()
        if self.ending():
            return
        try:
            for event in self._incoming.receive(data):
                self._dispatch(event)
                if self.ending():
                    return
        except ProtocolError as error:
            log.warning("%s broke the protocol and is cut off: %s", self.peer, error)
            self.close(error)

    def connection_lost(self, exc: Exception | None) -> None:
        with self._lock:
            self._closed = True
            self._queue.clear()
        if self._watch is not None:
            self._watch.cancel()
        reason = self._reason
        if reason is None:
            reason = PeerLost(f"{self.peer} closed the connection" + (f": {exc}" if exc else ""))
            reason.__cause__ = exc
        self._reason = reason
        if not self.ended.done():
            self.ended.set_result(None)
        self.lost(reason)

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._flush()

    # In the loop.

    def _flush(self) -> None:
        transport = self._transport
        if transport is None or self._paused:
            with self._lock:
                self._waking = False
                if transport is not None:
                    self._buffered = transport.get_write_buffer_size()
            return
        with self._lock:
            frames, self._queue = self._queue, []
            self._queued = 0
            self._waking = False
        if frames and not transport.is_closing():
            transport.write(frames[0] if len(frames) == 1 else b"".join(frames))
        with self._lock:
            self._buffered = transport.get_write_buffer_size()

    def _dispatch(self, event: wire.PeerEvent) -> None:
        if isinstance(event, wire.Hello):
            self.peer = event.system
            self.send_limit = min(event.limit, self.limits.frame)
            self.version = event.version
            if self._watch is not None:
                self._watch.cancel()
            self._watch_peer()
            self.opened(event)
        elif isinstance(event, wire.PingReceived):
            self.send(wire.pong(event.number))
        elif isinstance(event, wire.GoodbyeReceived):
            self.abort(event.error or PeerLost(f"{self.peer} said goodbye"))
        elif not isinstance(event, wire.PongReceived):
            self.received(event)

    def _no_hello(self) -> None:
        self.close(PeerLost(f"{self.peer} did not say hello within {self.limits.connect:g} s"))

    def _watch_peer(self) -> None:
        self._watch = self._loop.call_later(self.limits.ping_every, self._check_peer, self._loop.time())

    def _check_peer(self, set_at: float) -> None:
        now = self._loop.time()
        if now - set_at > 2 * self.limits.ping_every:
            # This process itself did not run (SIGSTOP, a suspended machine): what the peer said is still
            # unread.
            self._heard = now
        silent = now - self._heard
        if silent > self.limits.ping_timeout:
            self.abort(PeerLost(f"{self.peer} has not answered for {silent:.1f} s"))
            return
        if silent >= self.limits.ping_every * 0.9:
            self._pings += 1
            self.send(wire.ping(self._pings))
        self._watch_peer()
