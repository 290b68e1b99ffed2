"""Actors in another process: the client's side, a route that sends calls over a link, and the server's side.

What must always hold: every call given to a `Peer` is answered once, by the server's reply or by the loss of
the connection; calls arrive in the order in which one thread sent them. A server calls only messages of
kinds that live in its process and that this listener allows.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from actors.errors import (
    DeadlineExceeded,
    OrbweaverError,
    Overloaded,
    PeerLost,
    ProtocolError,
    Unsendable,
)
from actors.runtime import wire
from actors.runtime.call import Call
from actors.runtime.identity import PeerIdentity
from actors.runtime.link import IoThread, LinkLimits, PeerLink
from actors.runtime.reference import ObjectRef
from actors.runtime.shapes import Parameters
from actors.runtime.transport import Door, Listening, Transport

if TYPE_CHECKING:
    from actors.runtime.actor import Actor
    from actors.runtime.system import ActorSystem

log = logging.getLogger("orbweaver.runtime")

CallGuard = Callable[
    ["PeerIdentity | None", wire.CallReceived], "tuple[Any, ...] | ObjectRef[tuple[Any, ...]]"
]
"""Says with which arguments a peer's call goes on, now or later; raises, or fails with, why it does not."""


class Peer:
    """A route to the process behind `transport`. It connects on use, and again on the next use after a
    loss."""

    def __init__(self, system: str, transport: Transport, io: IoThread, limits: LinkLimits) -> None:
        self._system = system
        self._transport = transport
        self._io = io
        self._limits = limits
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._in_flight: dict[int, Call] = {}
        self._link: _ClientLink | None = None
        self._opening: _ClientLink | None = None
        """Connected, and waiting for the server's hello."""
        self._connecting = False
        self._attempt: Future[None] | None = None
        self._waiting: list[bytes] = []
        """Frames for the link that is being made."""
        self._waiting_bytes = 0
        self._backoff = 0.0
        self._retry_at = 0.0
        self._trouble: OrbweaverError | None = None
        self._closed = False
        self._send_limit = limits.frame
        self.speaks = wire.LOWEST_VERSION
        """The version of the protocol that the process there spoke last, the lowest one before it was connected."""

    def submit(self, call: Call) -> None:
        """Send a call; its reference is failed if that cannot be."""
        left = None if call.deadline is None else call.deadline - time.monotonic()
        if left is not None and left <= 0:
            call.ref.fail(DeadlineExceeded(f"{call.name}.{call.method} was not sent before its deadline"))
            return
        number = next(self._numbers)
        try:
            frame = wire.call(number, call.name, call.method, call.args, call.kwargs, left, call.trace)
        except Unsendable as error:
            call.ref.fail(error)
            return
        refusal = self._take(number, call, frame)
        if refusal is not None:
            call.ref.fail(refusal)

    def _take(self, number: int, call: Call, frame: bytes) -> OrbweaverError | None:
        connect = False
        with self._lock:
            if self._closed:
                return PeerLost(f"{call.name}.{call.method} was not sent: this process is shutting down")
            if len(frame) - 4 > self._send_limit:
                return Unsendable(
                    f"{call.name}.{call.method} needs a frame of {len(frame)} bytes,"
                    f" the limit is {self._send_limit}"
                )
            if len(self._in_flight) >= self._limits.in_flight:
                return Overloaded(
                    f"{len(self._in_flight)} calls to {self._transport.describe()} have no answer yet"
                )
            if self._link is not None:
                self._in_flight[number] = call
                if self._link.send(frame):
                    return None
                del self._in_flight[number]
                if self._link.ending():  # `link_lost` is about to be called
                    return PeerLost(
                        f"{call.name}.{call.method} was not sent: the connection to"
                        f" {self._transport.describe()} is ending; nothing was done"
                    )
                return Overloaded(f"{self._transport.describe()} does not read what it is sent")
            if self._waiting_bytes + len(frame) > self._limits.output:
                return Overloaded(
                    f"{self._transport.describe()} is not connected yet and too much waits for it"
                )
            if not self._connecting:
                pause = self._retry_at - time.monotonic()
                if pause > 0:
                    return PeerLost(
                        f"{self._transport.describe()} is away ({self._trouble});"
                        f" next attempt in {pause:.1f} s"
                    )
                connect = self._connecting = True
            self._in_flight[number] = call
            self._waiting.append(frame)
            self._waiting_bytes += len(frame)
        if connect:
            self._attempt = asyncio.run_coroutine_threadsafe(self._connect(), self._io.loop)
        return None

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            await asyncio.wait_for(
                self._transport.connect(lambda: self._new_link(loop)),
                self._limits.connect,
            )
        except (OSError, TimeoutError) as error:
            reason = PeerLost(
                f"{self._transport.describe()} cannot be reached: {str(error) or 'no answer in time'}"
            )
            reason.__cause__ = error
            self.link_lost(None, reason)
        except OrbweaverError as error:  # there is nothing to show
            self.link_lost(None, error)

    def _new_link(self, loop: asyncio.AbstractEventLoop) -> _ClientLink:
        self._opening = link = _ClientLink(loop, self._system, self._limits, self)
        return link

    def link_opened(self, link: _ClientLink) -> None:
        """In the IO thread: the handshake is done."""
        with self._lock:
            if not self._closed:
                self._link = link
                self._connecting = False
                self._backoff = 0.0
                self._send_limit = link.send_limit
                self.speaks = link.version
                self._opening = None
                waiting, self._waiting = self._waiting, []
                self._waiting_bytes = 0
                for frame in waiting:
                    if not link.send(frame):
                        break
                else:
                    return
        link.close(PeerLost(f"{self._system} cannot use this connection"))

    def link_lost(self, link: _ClientLink | None, reason: OrbweaverError) -> None:
        """In the IO thread: a link, or the attempt to make one, has ended."""
        with self._lock:
            if link is not None and link is not self._link and link is not self._opening:
                return  # It was given up before, and another may be open by now.
            was_open = link is not None and link is self._link
            if not was_open:
                self._backoff = min(self._limits.backoff_most, self._backoff * 2 or self._limits.backoff)
                self._retry_at = time.monotonic() + self._backoff
            self._trouble = reason
            self._link = self._opening = None
            self._connecting = False
            self._waiting.clear()
            self._waiting_bytes = 0
            lost = list(self._in_flight.values())
            self._in_flight.clear()
        if lost:
            log.warning("%s: %d calls lost: %s", self._transport.describe(), len(lost), reason)
        for call in lost:
            call.ref.fail(self._lost(call, reason, was_open))

    def _lost(self, call: Call, reason: OrbweaverError, was_open: bool) -> OrbweaverError:
        if not was_open and not isinstance(reason, PeerLost):
            return reason  # The peer refused us in the handshake: nothing was done, and it says why.
        outcome = "whether it took effect is unknown" if was_open else "nothing was done"
        failure = PeerLost(f"no answer to {call.name}.{call.method}: {reason}; {outcome}")
        failure.__cause__ = reason
        return failure

    def replied(self, number: int, value: Any, error: OrbweaverError | None) -> None:
        """In the IO thread: an answer came."""
        with self._lock:
            call = self._in_flight.pop(number, None)
        if call is None:
            raise ProtocolError(f"there is no call {number} to answer")
        if error is not None:
            call.ref.fail(error)
        else:
            call.ref.complete(value)

    async def close(self) -> None:
        """In the IO thread: fail what has no answer, and disconnect."""
        with self._lock:
            self._closed = True
            link = self._link or self._opening
            attempt = self._attempt
        self.link_lost(link, PeerLost("this process is shutting down"))
        if attempt is not None:
            attempt.cancel()
        if link is not None:
            link.close()
            await asyncio.wait([link.ended], timeout=self._limits.connect)


class _ClientLink(PeerLink):
    def __init__(self, loop: asyncio.AbstractEventLoop, system: str, limits: LinkLimits, owner: Peer) -> None:
        super().__init__(loop, system, limits)
        self._owner = owner

    def opened(self, _hello: wire.Hello) -> None:
        self._owner.link_opened(self)

    def received(self, event: wire.PeerEvent) -> None:
        if not isinstance(event, wire.ReplyReceived):
            raise ProtocolError("only clients call")
        self._owner.replied(event.number, event.value, event.error)

    def lost(self, reason: OrbweaverError) -> None:
        self._owner.link_lost(self, reason)


class Listener:
    """Serves the actors of one system to whoever connects to one transport."""

    def __init__(
        self,
        system: ActorSystem,
        io: IoThread,
        limits: LinkLimits,
        kinds: Mapping[str, type[Actor]] | None,
        refuse: Callable[[], OrbweaverError | None],
        guard: CallGuard | None = None,
    ) -> None:
        self._system = system
        self._io = io
        self._limits = limits
        self._kinds = kinds
        self._refuse = refuse
        self.guard = guard
        self._parameters: dict[tuple[str, str], Parameters] = {}
        self._links: dict[_ServerLink, None] = {}
        self._of_node: dict[str, list[_ServerLink]] = {}
        """Those of peers that have shown who they are, the oldest first."""
        self._listening: Listening | None = None

    @property
    def address(self) -> str:
        """Where it listens."""
        return self._listening.address if self._listening is not None else "nowhere"

    @property
    def port(self) -> int:
        """The TCP port on which it listens."""
        return int(self.address.rpartition(":")[2])

    @property
    def connections(self) -> int:
        """How many peers are connected, by their connections."""
        return len(self._links)

    async def listen(self, door: Door) -> None:
        """In the IO thread: start to accept."""
        loop = asyncio.get_running_loop()
        self._listening = await door.listen(
            lambda identity: _ServerLink(loop, self._system, self._limits, self, identity)
        )

    def stop_accepting(self) -> None:
        """In the IO thread: accept no more; connections that exist go on."""
        if self._listening is not None:
            self._listening.close()

    async def close(self) -> None:
        """In the IO thread: end every connection, behind the answers that are queued."""
        self.stop_accepting()
        for link in list(self._links):
            link.close()
        if self._links:
            await asyncio.wait([link.ended for link in self._links])

    def send_away(self, why: OrbweaverError) -> None:
        """From any thread: end the connections that are there, and go on listening."""

        def close_all() -> None:
            for link in list(self._links):
                link.close(why)

        with contextlib.suppress(RuntimeError):  # the loop is closed: the process ends
            self._io.loop.call_soon_threadsafe(close_all)

    def refusal(self, event: wire.CallReceived) -> OrbweaverError | None:
        """Why this call is not for the actors here, or None."""
        kind = event.actor.partition("/")[0]
        if not (self._system.lives_here(kind) if self._kinds is None else kind in self._kinds):
            return ProtocolError(f"{self._system.name} has no actors of kind {kind!r} for its peers")
        if self._kinds is not None:
            wrong = self._misfit(kind, event)
            if wrong is not None:
                return ProtocolError(f"{event.actor}.{event.method}: {wrong}")
        return self._refuse()

    def _misfit(self, kind: str, event: wire.CallReceived) -> str | None:
        """What of a call does not fit the message's declaration. Else a peer could crash an actor with it."""
        assert self._kinds is not None
        function = self._kinds[kind].messages.get(event.method)
        if function is None:
            return f"{kind!r} actors have no message {event.method!r}"
        parameters = self._parameters.get((kind, event.method))
        if parameters is None:
            parameters = self._parameters[kind, event.method] = Parameters.of(function)
        return parameters.misfit(event.args, event.kwargs)

    def joined(self, link: _ServerLink) -> None:
        """A connection more; of one node's, the oldest makes room."""
        self._links[link] = None
        if link.identity is None:
            return
        same = self._of_node.setdefault(link.identity.node, [])
        same.append(link)
        if len(same) > self._limits.of_one_peer:
            same.pop(0).close(PeerLost(f"{link.identity} has too many connections; the oldest is closed"))

    def left(self, link: _ServerLink) -> None:
        """A connection less."""
        self._links.pop(link, None)
        if link.identity is None:
            return
        same = self._of_node.get(link.identity.node, [])
        if link in same:
            same.remove(link)
        if not same:
            self._of_node.pop(link.identity.node, None)


class _ServerLink(PeerLink):
    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        system: ActorSystem,
        limits: LinkLimits,
        owner: Listener,
        identity: PeerIdentity | None,
    ) -> None:
        super().__init__(loop, system.name, limits)
        self.identity = identity
        self._actors = system
        self._owner = owner
        self._lasts: asyncio.TimerHandle | None = None
        self._in_flight: dict[int, ObjectRef[Any]] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._owner.joined(self)
        if self.limits.lasting is not None:
            self._lasts = self._loop.call_later(self.limits.lasting, self._over)

    def _over(self) -> None:
        self.close(PeerLost(f"{self.peer} has shown too long ago who it is; it may connect again"))

    def received(self, event: wire.PeerEvent) -> None:
        if not isinstance(event, wire.CallReceived):
            raise ProtocolError("only servers reply")
        number = event.number
        if number in self._in_flight:
            raise ProtocolError(f"call {number} is under way already")
        deadline = None if event.left is None else time.monotonic() + event.left
        ref: ObjectRef[Any] = ObjectRef(label=f"{event.actor}.{event.method}", deadline=deadline)
        self._in_flight[number] = ref
        # The answer is the actor's own: at the deadline the client's side ends the waiting by itself.
        ref.subscribe(self._answerer(number))
        refusal = self._owner.refusal(event)
        if refusal is not None:
            ref.fail(refusal)
        elif len(self._in_flight) > self.limits.in_flight:
            ref.fail(Overloaded(f"{self.limits.in_flight} calls on this connection have no answer yet"))
        elif self._owner.guard is None:
            self._submit(event, event.args, ref, deadline)
        else:
            self._ask_guard(self._owner.guard, event, ref, deadline)

    def _ask_guard(
        self, guard: CallGuard, event: wire.CallReceived, ref: ObjectRef[Any], deadline: float | None
    ) -> None:
        def decided(done: ObjectRef[tuple[Any, ...]]) -> None:
            error = done.error()
            if error is None:
                self._submit(event, done.result(), ref, deadline)
            else:
                ref.fail(
                    error if isinstance(error, OrbweaverError) else PeerLost(f"it was not judged: {error}")
                )

        try:
            permitted = guard(self.identity, event)
        except OrbweaverError as error:
            ref.fail(error)
            return
        if isinstance(permitted, ObjectRef):
            permitted.subscribe(decided)
        else:
            self._submit(event, permitted, ref, deadline)

    def _submit(
        self, event: wire.CallReceived, args: tuple[Any, ...], ref: ObjectRef[Any], deadline: float | None
    ) -> None:
        kind = event.actor.partition("/")[0]
        kwargs = event.kwargs if self._owner.guard is None else {}
        call = Call(kind, event.actor, event.method, args, kwargs, ref, deadline, event.trace)
        self._actors.submit(call, inside=False)

    def _answerer(self, number: int) -> Callable[[ObjectRef[Any]], None]:
        def answer(ref: ObjectRef[Any]) -> None:
            # In whichever thread completed the reference.
            self._in_flight.pop(number, None)
            if not self.send(self._reply(number, ref)) and not self.ending():
                with contextlib.suppress(RuntimeError):  # The loop is closed: the process ends.
                    self._loop.call_soon_threadsafe(self._too_slow)

        return answer

    def _reply(self, number: int, ref: ObjectRef[Any]) -> bytes:
        error = ref.error()
        try:
            if error is None:
                frame = wire.reply(number, ref.result())
            elif isinstance(error, OrbweaverError):
                frame = wire.failure(number, error)
            else:
                frame = wire.failure(number, OrbweaverError(f"{type(error).__name__}: {error}"))
            if len(frame) - 4 > self.send_limit:
                raise Unsendable(
                    f"the answer to {ref.label} needs a frame of {len(frame)} bytes,"
                    f" the limit is {self.send_limit}"
                )
        except Unsendable as refusal:
            frame = wire.failure(number, refusal)
        return frame

    def _too_slow(self) -> None:
        self.abort(PeerLost(f"{self.peer} does not read its answers and is cut off"))

    def lost(self, reason: OrbweaverError) -> None:
        if self._lasts is not None:
            self._lasts.cancel()
        for ref in tuple(self._in_flight.values()):
            ref.abandon()
        self._owner.left(self)
        log.info("the connection of %s ended: %s", self.peer, reason)
