"""The door of a listener that strangers can reach: connections, TLS and who it is, in a thread of its own.

How it works. One thread accepts, shakes hands and reads what each visitor shows, with a selector and sockets that never
block. Whom `identify` knows is handed to the event loop with its connection; nobody else gets there. A visitor that says
nothing costs a socket and half a kilobyte; what TLS needs is made when its first byte comes.

What must always hold: the number of visitors is bounded, in all and for each source, and so is the time that each has.
Nobody keeps the door closed by standing in it: who comes from a source that has its part takes the place of another of the
same, and when all places are taken, that of one whose source has several; an honest visitor needs its own for milliseconds.
Where each source has one, as when all agents come to a new leader, the next ones wait in the kernel's queue. Whatever a
visitor sends ends that visitor alone.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import random
import selectors
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from actors.errors import InvalidObject, OrbweaverError, PeerLost, ProtocolError
from actors.resources.addresses import format_address, parse_address
from actors.runtime import wire
from actors.runtime.identity import Identify, Introduction, PeerIdentity
from actors.runtime.reference import ObjectRef
from actors.runtime.tls_connection import say_end

log = logging.getLogger("orbweaver.gate")

Admit = Callable[[ssl.SSLSocket, PeerIdentity], object]

_BATCH = 32
"""Connections accepted between two looks at those that are there."""
_SAMPLE = 4
_TWO = 2
_PATIENT = 2.0
"""Seconds for which nobody is sent away for others from other sources: as long as all who fit take to be served."""
_LINGER = 1.0
"""Seconds that who is turned away has to read why."""
_SWEEP = 0.25
_NO_DESCRIPTORS = 0.1
"""Seconds without accepting when the process has no descriptor left."""
_TELL_EVERY = 10.0


@dataclass(frozen=True, slots=True)
class GateLimits:
    """What strangers may cost. Times in seconds."""

    visitors: int = 512
    per_source: int = 64
    """An IPv4 address, or the /64 of an IPv6 one; pods behind their node's address share it."""
    introduce: float = 5.0
    """For the handshake and for showing who it is."""
    identify: float = 15.0
    """For finding out whether that is so."""


class Counts(NamedTuple):
    """What became of those who came."""

    admitted: int
    refused: int
    dropped: int
    """Too many, too slow, or no TLS."""


@dataclass(slots=True, eq=False)
class _Visitor:
    """One connection that has not yet shown who it is."""

    sock: socket.socket
    """The connection as it was accepted."""
    descriptor: int
    """Its number, under which it is polled."""
    source: str
    """The peer's address without its port, by which crowds are counted."""
    until: float
    """Monotonic seconds when its time is over."""
    tls: ssl.SSLSocket | None = None
    """The same connection, once the handshake has begun."""
    since: float = field(default_factory=time.monotonic)
    """Monotonic seconds when it came."""
    shaken: bool = False
    """Whether the handshake is done."""
    leaving: bool = False
    """Whether it was refused, and is read for a moment more so that it learns why."""
    gone: bool = False
    """Whether it is closed."""
    events: int = selectors.EVENT_READ
    """What it is polled for; 0 while it waits for somebody else's answer."""
    shown: Introduction = field(default_factory=Introduction)
    """What it has said of itself so far."""


class Gate:
    """`context` gives the server's TLS of the moment. `admit` is called in the gate's thread, and takes the socket over."""

    def __init__(
        self,
        listeners: list[socket.socket],
        context: Callable[[], ssl.SSLContext],
        identify: Identify,
        admit: Admit,
        limits: GateLimits,
        *,
        chance: random.Random | None = None,
    ) -> None:
        self._listeners = listeners
        self._context = context
        self._identify = identify
        self._admit = admit
        self._limits = limits
        self._chance = chance or random.Random()
        self._selector = selectors.DefaultSelector()
        self._visitors: list[_Visitor] = []
        self._sources: dict[str, list[_Visitor]] = {}
        self._crowded: list[str] = []
        """Sources with more than one visitor."""
        self._holding = False
        """Newcomers wait in the kernel's queue."""
        self._known: queue.SimpleQueue[tuple[_Visitor, ObjectRef[PeerIdentity]]] = queue.SimpleQueue()
        self._bell, self._ring = socket.socketpair()
        self._closing = False
        self._accept_from = 0.0
        self._admitted = self._refused = self._dropped = 0
        self._told_at = -_TELL_EVERY
        self._told = 0
        for sock in (*listeners, self._bell, self._ring):
            sock.setblocking(False)
        for listener in listeners:
            self._selector.register(listener, selectors.EVENT_READ, listener)
        self._selector.register(self._bell, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name="gate", daemon=True)

    def start(self) -> None:
        """Begin to accept."""
        self._thread.start()

    def close(self) -> None:
        """Accept no more, and end who is still at the door. From any other thread."""
        self._closing = True
        self._wake()
        if self._thread.is_alive():
            self._thread.join()

    @property
    def visitors(self) -> int:
        """How many are at the door."""
        return len(self._visitors)

    @property
    def counts(self) -> Counts:
        return Counts(self._admitted, self._refused, self._dropped)

    def _wake(self) -> None:
        with contextlib.suppress(OSError):  # full, so it rings; or closed, so nobody is there
            self._ring.send(b"!")

    # In the gate's thread.

    def _run(self) -> None:
        sweep = time.monotonic() + _SWEEP
        try:
            while not self._closing:
                for key, _ in self._selector.select(max(0.0, sweep - time.monotonic())):
                    if isinstance(key.data, _Visitor):
                        if not key.data.gone:  # an earlier event of this turn may have ended it
                            self._guarded(key.data)
                    elif key.data is not None:
                        self._accept(key.data)
                    else:
                        self._answers()
                now = time.monotonic()
                if now >= sweep:
                    sweep = now + _SWEEP
                    self._end_slow(now)
                    self._hold(False)
        finally:
            for visitor in list(self._visitors):
                self._drop(visitor)
            self._selector.close()
            for sock in (*self._listeners, self._bell, self._ring):
                sock.close()

    def _accept(self, listener: socket.socket) -> None:
        if time.monotonic() < self._accept_from:
            time.sleep(0.01)
            return
        for _ in range(_BATCH):
            full = len(self._visitors) >= self._limits.visitors
            making_room = self._maker_of_room() if full else None
            if full and making_room is None:
                self._hold(True)
                return
            try:
                sock, where = listener.accept()
            except (BlockingIOError, ConnectionError, InterruptedError):
                return
            except OSError as error:
                log.error("connections cannot be accepted", extra={"error": str(error)})
                self._accept_from = time.monotonic() + _NO_DESCRIPTORS
                if self._visitors:
                    self._drop(self._chosen(self._visitors))
                return
            self._arrived(sock, source_of(str(where[0])), making_room)

    def _arrived(self, sock: socket.socket, source: str, making_room: _Visitor | None) -> None:
        limits = self._limits
        if len(self._sources.get(source, ())) >= limits.per_source:
            making_room = self._chosen(self._sources[source])
        if making_room is not None:
            self._drop(making_room)
        sock.setblocking(False)
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        visitor = _Visitor(sock, sock.fileno(), source, time.monotonic() + limits.introduce)
        self._visitors.append(visitor)
        same = self._sources.setdefault(source, [])
        same.append(visitor)
        if len(same) == _TWO:
            self._crowded.append(source)
        self._selector.register(visitor.descriptor, selectors.EVENT_READ, visitor)

    def _maker_of_room(self) -> _Visitor | None:
        """Who goes when one more comes and all places are taken; None if nobody does, and that one has to wait."""
        if self._crowded:
            few = self._chance.sample(self._crowded, min(_SAMPLE, len(self._crowded)))
            return self._chosen(max((self._sources[source] for source in few), key=len))
        before = time.monotonic() - _PATIENT
        return next(
            (visitor for visitor in self._visitors if visitor.events and visitor.since < before), None
        )

    def _hold(self, holding: bool) -> None:
        if holding is not self._holding and not self._closing:
            self._holding = holding
            for listener in self._listeners:
                if holding:
                    self._selector.unregister(listener)
                else:
                    self._selector.register(listener, selectors.EVENT_READ, listener)

    def _chosen(self, among: list[_Visitor]) -> _Visitor:
        """Who makes room: the oldest of a few."""
        few = self._chance.sample(among, min(_SAMPLE, len(among)))
        return min(few, key=lambda visitor: visitor.until)

    def _guarded(self, visitor: _Visitor) -> None:
        try:
            self._go_on(visitor)
        except ssl.SSLWantReadError:
            self._await(visitor, selectors.EVENT_READ)
        except ssl.SSLWantWriteError:
            self._await(visitor, selectors.EVENT_WRITE)
        except ProtocolError as error:
            self._turn_away(visitor, error)
        except (OSError, ValueError):
            self._drop(visitor)
        except Exception:
            log.exception("a connection is closed because of an error in this process")
            self._drop(visitor)

    def _go_on(self, visitor: _Visitor) -> None:
        """As far as it goes now. Raises what says why it does not go further."""
        if visitor.leaving:
            if not socket.socket.recv(visitor.sock, 1 << 16):
                self._forget(visitor)
                visitor.sock.close()
            return
        if visitor.tls is None:
            visitor.sock = visitor.tls = self._context().wrap_socket(
                visitor.sock, server_side=True, do_handshake_on_connect=False
            )
        if not visitor.shaken:
            visitor.tls.do_handshake()
            visitor.shaken = True
        while visitor.shown.wanted:
            data = visitor.tls.recv(visitor.shown.wanted)
            if not data:
                raise ConnectionResetError("it left without a word")
            visitor.shown.feed(data)
        token = visitor.shown.token()
        self._selector.unregister(visitor.descriptor)  # nothing more is read before it is known who that is
        visitor.events = 0
        visitor.until = time.monotonic() + self._limits.identify

        def known(ref: ObjectRef[PeerIdentity]) -> None:
            self._known.put((visitor, ref))
            self._wake()

        self._identify(token, visitor.source).subscribe(known)

    def _await(self, visitor: _Visitor, events: int) -> None:
        if visitor.events != events:
            visitor.events = events
            self._selector.modify(visitor.descriptor, events, visitor)

    def _answers(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._bell.recv(4096):
                pass
        while True:
            try:
                visitor, ref = self._known.get_nowait()
            except queue.Empty:
                return
            if visitor.gone or visitor.tls is None:
                continue  # it was too late
            error = ref.error()
            if error is None:
                self._forget(visitor)
                self._admitted += 1
                self._admit(visitor.tls, ref.result())
            else:
                refusal = (
                    error if isinstance(error, OrbweaverError) else PeerLost("it could not be found out")
                )
                self._turn_away(visitor, refusal)

    def _turn_away(self, visitor: _Visitor, error: OrbweaverError) -> None:
        """Tell why, and go on reading for a moment so that it arrives."""
        self._refused += 1
        log.info("a connection was refused", extra={"source": visitor.source, "error": str(error)})
        if visitor.tls is None or not visitor.shaken:
            self._drop(visitor)
            return
        with contextlib.suppress(OSError, ValueError):
            visitor.tls.send(wire.goodbye(error))
        say_end(visitor.tls)
        visitor.leaving = True
        visitor.until = time.monotonic() + _LINGER
        if visitor.events:
            self._await(visitor, selectors.EVENT_READ)
        else:
            visitor.events = selectors.EVENT_READ
            self._selector.register(visitor.descriptor, selectors.EVENT_READ, visitor)

    def _end_slow(self, now: float) -> None:
        for visitor in [waiting for waiting in self._visitors if waiting.until <= now]:
            self._drop(visitor)
        if self._dropped > self._told and now - self._told_at > _TELL_EVERY:
            log.warning(
                "connections were closed before they showed who they are",
                extra={"closed": self._dropped - self._told, "at_the_door": len(self._visitors)},
            )
            self._told, self._told_at = self._dropped, now

    def _drop(self, visitor: _Visitor) -> None:
        self._dropped += not visitor.leaving
        self._forget(visitor)
        visitor.sock.close()

    def _forget(self, visitor: _Visitor) -> None:
        if visitor.events:
            with contextlib.suppress(KeyError, OSError):
                self._selector.unregister(visitor.descriptor)
            visitor.events = 0
        visitor.gone = True
        self._visitors.remove(visitor)
        same = self._sources[visitor.source]
        same.remove(visitor)
        if len(same) == 1:
            self._crowded.remove(visitor.source)
        elif not same:
            del self._sources[visitor.source]
        self._hold(False)


def source_of(address: str) -> str:
    """Whom a connection is counted for: an IPv4 address, or the network of 64 bits that an IPv6 host chooses from."""
    plain = address.partition("%")[0]
    if "." in plain:
        return plain.rpartition(":")[
            2
        ]  # one that is written as an IPv6 address (RFC 4291, section 2.5.5.2), too
    try:
        family, value = parse_address(plain)
    except InvalidObject:
        return address
    return format_address(family, value >> 64 << 64)
