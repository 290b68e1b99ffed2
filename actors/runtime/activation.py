"""One activation of one actor: from the first message that needs it to its passivation, crash or stop.

How it works. The system keeps at most one open activation for a name. A sender offers its call (`intake.py`): the first
offer starts the thread, in which the instance is made; one that is closed refuses the offer, and the sender looks the name
up again. Then one message after the other is handled (`dispatch.py`).

    starting -> idle by     the instance, which was made and activated
    idle -> busy by         a message that it begins
    busy -> idle by         that message's end
    starting, idle, busy -> closed by
      passivation   idle, and on_passivate() agreed; calls that came meanwhile move to the next activation, in order
      refusal       on_activate raised an OrbweaverError: everyone waiting gets that error
      crash         any other exception: everyone waiting gets PeerLost
      stop          the process ends: everyone waiting gets PeerLost

What must always hold: the instance is touched by one thread at a time, which holds the turn: the activation's own, or for
an inline message that of its sender, if the actor has nothing else to do; every call that was accepted is answered exactly
once, whatever ends the activation, deferred replies included; locks are taken in the order turn, intake, system, and no
foreign code runs under the last two.
"""

from __future__ import annotations

import contextlib
import enum
import logging
import threading
import time
from typing import TYPE_CHECKING, Any

from actors.errors import OrbweaverError, Overloaded, PeerLost
from actors.runtime.actor import Actor, ActorContext
from actors.runtime.call import Ask, Call, Offer
from actors.runtime.dispatch import ActorCrash, Dispatch
from actors.runtime.intake import Intake
from actors.runtime.scope import scope
from actors.runtime.supervision import ACTIVATION
from actors.runtime.threads import Mailbox
from actors.runtime.timers import Timer

if TYPE_CHECKING:
    from actors.runtime.system import ActorSystem, LocalKind

log = logging.getLogger("orbweaver.runtime")

_LOOK = 0.2
"""Seconds between looks whether an actor that is to leave at once may do so, while it waits for what ends without a message."""


class ActivationState(enum.Enum):
    """What an activation is doing; see the module's table."""

    STARTING = "starting"
    """It has no instance yet."""
    IDLE = "idle"
    BUSY = "busy"
    """It handles a message, in its own thread or a sender's."""
    CLOSED = "closed"
    """For good."""


class Activation:
    """See the module's docstring. Methods say in whose thread they run."""

    def __init__(
        self, system: ActorSystem, kind: LocalKind, name: str, waiting: list[Call] | None = None
    ) -> None:
        self.name = name
        self.kind = kind
        self.thread: threading.Thread | None = None
        self.intake = Intake(kind, system.timers, lambda: Mailbox(self), waiting)
        self.dispatch = Dispatch(system, kind, name, self.intake)
        self._system = system
        self._instance: Actor | None = None
        self._idle_check: Timer | None = None

    @property
    def closed(self) -> bool:
        return self.intake.closed

    @property
    def state(self) -> ActivationState:
        if self.intake.closed:
            return ActivationState.CLOSED
        if not self.intake.active:
            return ActivationState.STARTING
        return ActivationState.BUSY if self.dispatch.busy else ActivationState.IDLE

    # In any thread.

    def offer(self, call: Call) -> Offer:
        """Put a call into the mailbox, and start the thread if this is the first; or handle it here."""
        offer = self.intake.offer(call)
        if offer is not Offer.HERE:
            return offer
        mine = scope.set(self.dispatch.scope)
        try:
            self.dispatch.call(call)
        except ActorCrash as crash:
            self._crashed(crash)
        finally:
            scope.reset(mine)
            self.intake.turn.release()
        if self.intake.closed:
            self.intake.end_thread()
        if self._system.draining:
            self._system.something_ended()
        return Offer.TAKEN

    def activate(self) -> bool:
        """Start without a call. False when it is closed."""
        return self.intake.ask(Ask.ACTIVATE)

    def request_stop(self) -> bool:
        """Ask it to stop when nothing is left to do. False when it is closed."""
        return self.intake.ask(Ask.STOP)

    def quiet(self) -> bool:
        """Whether nothing waits and nothing is outstanding, timers aside."""
        working = self.state in (ActivationState.BUSY, ActivationState.STARTING)
        return not (working or self.intake.occupied(stopping=True))

    def abandon(self, error: OrbweaverError) -> None:
        """Close from outside, whatever the actor is doing; everyone waiting gets `error`."""
        for call in self._close():
            call.ref.fail(error)
        self.intake.end_thread()

    def start_waiting(self) -> None:
        """Start one that was made with calls waiting."""
        try:
            self.activate()
        except RuntimeError as error:
            self._system.forget(self)
            self.abandon(Overloaded(f"no thread for actor {self.name}: {error}"))

    def _close(self) -> list[Call]:
        waiting = self.intake.close()
        self._watch_no_longer()
        return waiting

    # In the actor's own thread, or with its turn.

    def begin(self) -> None:
        """Make the instance and activate it."""
        with self.intake.turn:
            self._begin()

    def _begin(self) -> None:
        started = time.monotonic()
        self.thread = threading.current_thread()
        scope.set(self.dispatch.scope)
        key = self.name.partition("/")[2]
        try:
            instance = self.kind.factory(
                ActorContext(self._system, self.name, self.kind.kind, key, self.intake)
            )
            instance.on_activate()
        except OrbweaverError as error:
            log.warning("actor %s cannot be activated: %s", self.name, error)
            waiting = self._close()
            self._system.forget(self)
            self._system.activation_refused(self.kind.kind, self.name)
            for call in waiting:
                call.ref.fail(error)
        except BaseException as error:
            self._crashed(ActorCrash(ACTIVATION, error))
        else:
            self._instance = instance
            self.dispatch.begin(instance)
            self.intake.active = True
            now = self.dispatch.last_used
            self._system.observer.activated(self.kind.kind, now - started)
            if self.kind.idle:
                self._watch_idle(now)

    def handle(self, item: Any) -> None:
        """Handle one message. Never raises."""
        intake = self.intake
        with intake.turn:
            try:
                if intake.first:
                    self.dispatch.finish_begun()
                if intake.closed:
                    if type(item) is Call:
                        self._ended_before(item)
                elif item is Ask.PASSIVATE or item is Ask.STOP:
                    self._retire(stopping=item is Ask.STOP)
                else:
                    self.dispatch.handle(item)
                    if self.kind.idle == 0:
                        self._leave_at_once()
            except ActorCrash as crash:
                self._crashed(crash)
                if type(item) is Call and item is not crash.call:
                    self._ended_before(item)
        if self._system.draining:
            self._system.something_ended()

    def _ended_before(self, call: Call) -> None:
        call.ref.fail(PeerLost(f"actor {self.name} ended before it began {call.method}()"))

    def _crashed(self, crash: ActorCrash) -> None:
        where, error = crash.where, crash.error
        log.error("actor %s crashed in %s", self.name, where, exc_info=error)
        waiting = self._close()
        if crash.call is not None:
            waiting.insert(0, crash.call)
            self._system.crashed_messages.crashed(crash.call)
        self._system.forget(self)
        self._system.observer.crashed(self.kind.kind, error)
        self._system.crashed(self.kind.kind, self.name, where, error)
        for lost in waiting:
            failure = PeerLost(
                f"actor {self.name} crashed in {where} ({type(error).__name__}: {error}); whether"
                f" {lost.method}() took effect is unknown, the next call finds it restarted"
            )
            failure.__cause__ = error
            lost.ref.fail(failure)

    # Idleness.

    def _leave_at_once(self) -> None:
        """Of a kind whose actors stay no longer than they have something to do. The thread that has handled the last message
        passivates it: a timer for that would wake two threads."""
        intake = self.intake
        if intake.closed:
            return
        if not intake.occupied(stopping=False):
            self._retire(stopping=False)
        elif (intake.deferred or intake.has_timers) and (self._idle_check is None or self._idle_check.taken):
            self._watch_idle(time.monotonic())  # what ends without a message

    def _watch_idle(self, since: float) -> None:
        if self.kind.idle is not None and not self.intake.closed:
            self._watch_no_longer()
            self._idle_check = self._system.timers.at(since + (self.kind.idle or _LOOK), self._check_idle)

    def _watch_no_longer(self) -> None:
        if self._idle_check is not None:
            self._idle_check.cancel()

    def _check_idle(self) -> None:
        # In the timer thread: only decides whether to ask.
        idle = self.kind.idle
        if self.intake.closed or idle is None:
            return
        now, last_used = time.monotonic(), self.dispatch.last_used
        if self.quiet() and not self.intake.has_timers and now - last_used >= idle:
            with contextlib.suppress(RuntimeError):
                self.intake.ask(Ask.PASSIVATE)
        else:
            self._watch_idle(max(last_used, now - idle * 0.5))

    def _retire(self, *, stopping: bool) -> None:
        intake = self.intake
        if self._instance is None or intake.occupied(stopping=stopping):
            return self._watch_idle(time.monotonic())
        try:
            willing = self._instance.on_passivate()
        except BaseException as error:
            raise ActorCrash("on_passivate()", error) from error
        successor: Activation | None = None
        with intake.lock:
            # At the end a refusal is no veto: what it was asked for is to begin what is left to do, and that
            # is waited for.
            if (willing or stopping) and not intake.occupied(stopping=stopping, calls=False):
                waiting = intake.take_all()
                if waiting:
                    successor = Activation(self._system, self.kind, self.name, waiting)
                self._system.forget(self, successor)
        if not intake.closed:
            self.dispatch.last_used = time.monotonic()
            return self._watch_idle(self.dispatch.last_used)
        self._watch_no_longer()
        self._system.observer.passivated(self.kind.kind)
        if successor is not None:
            successor.start_waiting()
        return None
