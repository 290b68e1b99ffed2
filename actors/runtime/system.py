"""The actors of one process: which kinds there are, where each lives, and how all of it stops.

What must always hold: at most one open activation for a name; `submit` never blocks on an actor and gives every
call exactly one answer; after `shutdown` no thread of the runtime is left but one that a handler holds.

A note on speed: a call that two threads play back and forth pays two switches of CPython's global lock. The
switch interval (`sys.setswitchinterval`) matters only while other threads compute; it is the process's to
set.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from actors.errors import OrbweaverError, Overloaded, PeerLost, ProtocolError
from actors.runtime.activation import Activation
from actors.runtime.actor import Actor, ActorContext
from actors.runtime.call import Call, Offer
from actors.runtime.crashed_messages import CrashedMessages
from actors.runtime.handle import ActorHandle
from actors.runtime.intake import behind
from actors.runtime.link import IoThread, LinkLimits
from actors.runtime.observer import RuntimeObserver, guarded
from actors.runtime.peer import CallGuard, Listener, Peer
from actors.runtime.supervision import Child, Restart, Supervisor
from actors.runtime.timers import Timers
from actors.runtime.transport import Door, Transport
from actors.runtime.wire import HIGHEST_VERSION

log = logging.getLogger("orbweaver.runtime")

_RESTART_FIRST = 0.1
_RESTART_MOST = 10.0
_DISCONNECT = 30.0
"""Seconds until all connections have ended. Each takes a second at most, and longer only where the machine stands still."""
_JOIN = 1.0


class CallRoute(Protocol):
    """Where calls to a kind of actor go."""

    def submit(self, call: Call) -> None:
        """Take a call that will be answered; never blocks, never raises."""


@dataclass(frozen=True, slots=True)
class ActorRow:
    """One line of `ActorSystem.describe`."""

    name: str
    """`kind/key`."""
    state: str
    """`starting`, `idle` or `busy`."""
    mailbox: int
    """Calls waiting."""
    deferred: int
    """Calls handled and not answered yet."""
    handled: int
    """Calls since it was activated."""


@dataclass(slots=True)
class LocalKind:
    """A kind of actor that lives in this process."""

    kind: str
    """The first part of its actors' names."""
    factory: Callable[[ActorContext], Actor]
    """Makes one, in the thread in which it will live."""
    mailbox: int
    """How many calls may wait for one actor; one more is refused."""
    idle: float | None
    """Seconds without work after which an actor is passivated; None: never; 0: at once."""
    start_fraction: float
    """Of a call's time: what was not begun by then is refused."""
    urgent: frozenset[str]
    """Messages that are handled before all others, and never refused for load."""
    inline: frozenset[str]
    """Messages that the sender's thread may handle when the actor has nothing else to do."""
    system: ActorSystem
    """Which it is registered with."""

    def submit(self, call: Call) -> None:
        """Hand a call to its actor, which starts if it is not there."""
        activation = self.system.activations.get(call.name)
        while True:
            offer = Offer.CLOSED
            if activation is not None:
                try:
                    offer = activation.offer(call)
                except RuntimeError as error:
                    self.system.forget(activation)
                    failure = Overloaded(f"no thread for actor {call.name}: {error}")
                    activation.abandon(failure)
                    call.ref.fail(failure)
                    return
            if offer is Offer.TAKEN:
                return
            if offer is not Offer.CLOSED:
                self._refuse(call, offer)
                return
            activation = self.system.open(self, call.name)
            if activation is None:
                call.ref.fail(
                    PeerLost(f"{call.name}.{call.method} was not begun: the process is shutting down")
                )
                return

    def _refuse(self, call: Call, offer: Offer) -> None:
        self.system.observer.overloaded(call.kind, call.method)
        if offer is Offer.LATE:
            call.ref.fail(behind(call.name))
        else:
            call.ref.fail(
                Overloaded(f"the mailbox of {call.name} is full ({self.mailbox} calls); try again later")
            )


class ActorSystem:
    """Registers kinds, hands out handles, supervises and stops. All methods are safe to call from any
    thread."""

    def __init__(
        self,
        name: str,
        observer: RuntimeObserver | None = None,
        *,
        supervision: Iterable[Child] = (),
        on_fatal: Callable[[str], None] | None = None,
    ) -> None:
        self.name = name
        self.observer: RuntimeObserver = guarded(observer, "the runtime's")
        self.observed = observer is not None
        """Saves taking the time of every message when there is nobody to tell."""
        self.on_fatal = on_fatal
        """Called once with a message for the operator when a kind crashes too often: the process should
        end."""
        self.timers = Timers(name)
        self.activations: dict[str, Activation] = {}
        self.draining = False
        self.crashed_messages = CrashedMessages()
        self._supervisor = Supervisor(supervision)
        self._io = IoThread(name)
        self._peers: list[Peer] = []
        self._listeners: list[Listener] = []
        self._routes: dict[str, CallRoute] = {}
        self._lock = threading.Lock()
        self._ended = threading.Condition(threading.Lock())
        self._stopped = False

    def register(
        self,
        kind: str,
        factory: Callable[[ActorContext], Actor],
        mailbox: int = 1024,
        idle: float | None = 30.0,
        *,
        start_fraction: float = 1.0,
        urgent: frozenset[str] = frozenset(),
        inline: frozenset[str] = frozenset(),
    ) -> None:
        """Let actors of `kind` live here: `kind/key` is made by `factory` on the first call to it.

        `mailbox` calls may wait for one actor; after `idle` seconds without work it is passivated, None for
        never, 0 for as soon as it has nothing left to do (it has no `inline` messages then).
        A call that has a deadline is begun within `start_fraction`, a part of the time that it has when it comes,
        or is `Overloaded`. Messages named in `urgent` are handled before all others that wait, and never refused.
        Those in `inline` never wait for anything: while the actor has nothing else to do, the sender's thread handles them,
        which saves two threads from waiting for each other.
        """
        if not kind or "/" in kind:
            raise ValueError(f"{kind!r} cannot be a kind of actor: it is the part of a name before the slash")
        if idle == 0 and inline:
            raise ValueError(
                f"{kind!r} actors leave with their last message, which their own thread has to handle"
            )
        self.route(kind, LocalKind(kind, factory, mailbox, idle, start_fraction, urgent, inline, self))

    def route(self, kind: str, route: CallRoute) -> None:
        """Send calls to `kind` there. Raises ValueError when the kind has a place already."""
        with self._lock:
            if kind in self._routes:
                raise ValueError(f"actors of kind {kind!r} have a place already")
            self._routes[kind] = route

    def connect(
        self, kinds: str | Iterable[str], transport: Transport, limits: LinkLimits | None = None
    ) -> None:
        """Send calls to these kinds to the process behind `transport`. It is connected on the first use."""
        peer = Peer(self.name, transport, self._io, limits or LinkLimits())
        for kind in [kinds] if isinstance(kinds, str) else kinds:
            self.route(kind, peer)
        with self._lock:
            self._peers.append(peer)

    def serve(
        self,
        door: Door,
        kinds: Mapping[str, type[Actor]] | None = None,
        limits: LinkLimits | None = None,
        *,
        refuse: Callable[[], OrbweaverError | None] = lambda: None,
        guard: CallGuard | None = None,
    ) -> Listener:
        """Accept calls from other processes, to all kinds that live here or only to those named, whose messages' arguments
        are then checked against what their classes declare. `refuse` is asked for each call, and quick to answer; `guard`
        is asked then who may call what, and how.

        Raises OrbweaverError when it cannot be listened there.
        """
        limits = limits or LinkLimits()
        listener = Listener(self, self._io, limits, kinds, refuse, guard)
        self._io.run(listener.listen(door), limits.connect)
        with self._lock:
            self._listeners.append(listener)
        log.info("%s serves its actors on %s", self.name, listener.address)
        return listener

    def speaks(self, kind: str) -> int:
        """The version of the protocol (`wire.py`) that is spoken with the process where actors of `kind` live."""
        route = self._routes.get(kind)
        return route.speaks if isinstance(route, Peer) else HIGHEST_VERSION

    def is_active(self, name: str) -> bool:
        """Whether the actor lives here and has been called lately."""
        activation = self.activations.get(name)
        return activation is not None and not activation.closed

    def get_actor(self, name: str) -> ActorHandle:
        """A handle on the actor `kind/key`; nothing is activated and nothing is checked before the first
        call."""
        return ActorHandle(self, name)

    def activate(self, name: str) -> None:
        """Start an actor of this process without a call, for those that work unasked.

        Raises ValueError when its kind does not live here.
        """
        route = self._routes.get(name.partition("/")[0])
        if not isinstance(route, LocalKind):
            raise ValueError(f"{name} does not live in this process")  # noqa: TRY004 - the name is wrong, not its type
        activation = self.open(route, name)
        while activation is not None and not activation.activate():
            activation = self.open(route, name)

    def submit(self, call: Call, *, inside: bool) -> None:
        """Send a call on its way. `inside`: an actor makes it, so it is still taken while the system
        drains."""
        if self.draining and (self._stopped or not inside):
            call.ref.fail(PeerLost(f"{call.name}.{call.method} was not begun: {self.name} is shutting down"))
            return
        route = self._routes.get(call.kind)
        if route is None:
            call.ref.fail(
                ProtocolError(f"{self.name} knows no actors of kind {call.kind!r} (for {call.name!r})")
            )
            return
        route.submit(call)

    def local_kinds(self) -> frozenset[str]:
        """The kinds that live in this process."""
        with self._lock:
            return frozenset(kind for kind, route in self._routes.items() if isinstance(route, LocalKind))

    def lives_here(self, kind: str) -> bool:
        """Whether actors of `kind` live in this process."""
        return isinstance(self._routes.get(kind), LocalKind)

    def describe(self) -> tuple[ActorRow, ...]:
        """The active actors, by name."""
        with self._lock:
            activations = sorted(self.activations.values(), key=lambda activation: activation.name)
        return tuple(_row(activation) for activation in activations)

    def shutdown(self, drain: float = 0.0) -> tuple[ActorRow, ...]:
        """Refuse new calls, finish what has begun for up to `drain` seconds, then stop everything.

        Kinds finish in the order of the supervision table, so that an actor can still call those below it.
        What is left unfinished fails with `PeerLost`; returns the actors that had something left, empty when
        all is done.
        """
        with self._lock:
            if self.draining:
                return ()
            self.draining = True
            listeners, peers = list(self._listeners), list(self._peers)
        if listeners:
            self._io.loop.call_soon_threadsafe(_each, [listener.stop_accepting for listener in listeners])
        until = time.monotonic() + drain
        while self._drain_once(until):
            pass
        now = time.monotonic()
        with self._lock:
            self._stopped = True
            activations = list(self.activations.values())
            self.activations.clear()
        activations.sort(key=lambda activation: activation.name)
        left = tuple(_row(activation) for activation in activations if not activation.quiet())
        for activation in activations:
            activation.abandon(PeerLost(f"actor {activation.name} was stopped: {self.name} is shutting down"))
        if listeners or peers:
            self._io.run(_disconnect(listeners, peers), _DISCONNECT)
        self._io.close()
        self.timers.close()
        for activation in activations:
            if activation.thread is not threading.current_thread():
                activation.intake.wait_stopped(max(0.0, now + _JOIN - time.monotonic()))
        return left

    def _drain_once(self, until: float) -> bool:
        """Let the first group of kinds that has work left finish. False when none has, or the time is
        over."""
        with self._lock:
            activations = list(self.activations.values())
        if not activations:
            return False
        order = min(self._supervisor.row(activation.kind.kind).order for activation in activations)
        group = [
            activation
            for activation in activations
            if self._supervisor.row(activation.kind.kind).order == order
        ]
        for activation in group:
            if activation.quiet():
                activation.request_stop()
        left = until - time.monotonic()
        if left <= 0:
            return False
        with self._ended:
            # Woken by every message that ends; the limit is for what ends without a message.
            self._ended.wait(min(left, 0.02))
        return True

    # For activations.

    def open(self, kind: LocalKind, name: str) -> Activation | None:
        """The open activation of `name`, made if need be; None when the system has stopped."""
        with self._lock:
            if self._stopped:
                return None
            activation = self.activations.get(name)
            if activation is None or activation.closed:
                activation = self.activations[name] = Activation(self, kind, name)
            return activation

    def forget(self, activation: Activation, successor: Activation | None = None) -> None:
        """An activation closed; `successor` takes its place."""
        with self._lock:
            if self.activations.get(activation.name) is activation:
                if successor is not None:
                    self.activations[activation.name] = successor
                else:
                    del self.activations[activation.name]

    def something_ended(self) -> None:
        """While draining: a message was handled or a deferred reply arrived."""
        with self._ended:
            self._ended.notify_all()

    def crashed(self, kind: str, name: str, where: str, error: BaseException) -> None:
        """Count a crash, and do what the table says."""
        count, fatal = self._supervisor.crashed(name, kind, where, error, time.monotonic())
        if fatal is not None:
            log.critical("%s: %s", self.name, fatal)
            if self.on_fatal is not None:
                try:
                    self.on_fatal(fatal)
                except Exception:
                    log.exception("on_fatal failed")
        self._restart_later(kind, name, count)

    def activation_refused(self, kind: str, name: str) -> None:
        """An actor could not load its state: nobody's fault, and no crash."""
        self._restart_later(kind, name, 4)

    def _restart_later(self, kind: str, name: str, count: int) -> None:
        if self._supervisor.row(kind).restart is not Restart.AT_ONCE or self.draining:
            return
        pause = min(_RESTART_MOST, _RESTART_FIRST * 2 ** min(count - 1, 10))
        log.warning("actor %s is restarted in %.1f s", name, pause)
        self.timers.at(time.monotonic() + pause, lambda: self._restart(name))

    def _restart(self, name: str) -> None:
        if not self.draining:
            try:
                self.activate(name)
            except (OrbweaverError, RuntimeError):
                log.exception("actor %s cannot be restarted", name)


def _each(actions: list[Callable[[], None]]) -> None:
    for action in actions:
        action()


async def _disconnect(listeners: list[Listener], peers: list[Peer]) -> None:
    for listener in listeners:
        await listener.close()
    for peer in peers:
        await peer.close()


def _row(activation: Activation) -> ActorRow:
    return ActorRow(
        name=activation.name,
        state=activation.state.value,
        mailbox=activation.intake.depth,
        deferred=len(activation.intake.deferred),
        handled=activation.dispatch.handled,
    )
