"""Handling one message after the other with the instance of one activation.

What must always hold: whoever calls it holds the turn, so the instance is touched by one thread at a time; a call is
answered exactly once, also one that is answered later; a call that is over, or has waited for too long, is refused
unhandled.
"""

from __future__ import annotations

import inspect
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from actors.errors import DeadlineExceeded, MessageDropped, OrbweaverError, PeerLost, ProtocolError
from actors.runtime.actor import Actor
from actors.runtime.call import Call, Internal
from actors.runtime.crashed_messages import KEPT
from actors.runtime.intake import Intake, behind
from actors.runtime.reference import ObjectRef
from actors.runtime.scope import Scope, scope

if TYPE_CHECKING:
    from actors.runtime.system import ActorSystem, LocalKind

log = logging.getLogger("orbweaver.runtime")

LATE = 0.1
"""Seconds for which an actor, after it has refused a call that waited for too long, takes no other: the refusals are not to
queue as well. They are few, so what waits never runs out meanwhile."""


class ActorCrash(Exception):
    """A handler failed with what is no answer: the instance is not to be used any more."""

    def __init__(self, where: str, error: BaseException, call: Call | None = None) -> None:
        """`where`: the function; `call`: whose handler it was."""
        super().__init__(where)
        self.where = where
        self.error = error
        self.call = call


class Dispatch:
    """One per activation."""

    __slots__ = (
        "_instance",
        "_intake",
        "_kind",
        "_messages",
        "_name",
        "_observer",
        "_system",
        "busy",
        "handled",
        "last_used",
        "scope",
    )

    def __init__(self, system: ActorSystem, kind: LocalKind, name: str, intake: Intake) -> None:
        self._system = system
        self._observer = system.observer
        self._kind = kind
        self._name = name
        self._intake = intake
        self._instance: Actor | None = None
        self._messages: dict[str, Callable[..., Any]] = {}
        self.busy = False
        """Set by whoever holds the turn, so that no message costs a lock for it."""
        self.handled = 0
        self.last_used = time.monotonic()
        self.scope = Scope(None, None, name)
        """Of what runs for nobody's request."""

    def begin(self, instance: Actor) -> None:
        """From here on messages are handled."""
        self._instance = instance
        self._messages = type(instance).messages
        self.last_used = time.monotonic()

    def finish_begun(self) -> None:
        """Handle what goes before the mailbox. Raises `ActorCrash`."""
        while (item := self._intake.take_first()) is not None:
            self.handle(item)

    def handle(self, item: Call | Internal) -> None:
        """Handle one message that was waiting. Raises `ActorCrash`."""
        if type(item) is Call:
            self._intake.begun()
            self.call(item)
        elif type(item) is Internal:
            self._run(item)

    def call(self, call: Call) -> None:
        """Handle a call, or refuse it. Raises `ActorCrash`."""
        now, deadline = time.monotonic(), call.deadline
        doubtful = call.ref.done() or (deadline is not None and now >= self._begin_by(call, deadline))
        if doubtful or self._system.crashed_messages.there_are:
            refusal = self._refusal(call, now)
            if refusal is not None:
                call.ref.fail(refusal)
                return
        self.busy = True
        if call.trace is None and call.deadline is None:
            scope.set(self.scope)
        else:
            scope.set(Scope(call.trace, call.deadline, self._name))
        function = self._messages.get(call.method)
        try:
            if function is None:
                raise ProtocolError(f"{call.kind!r} actors have no message {call.method!r}")
            result = function(self._instance, *call.args, **call.kwargs)
        except OrbweaverError as error:
            self._settle(now)
            self._observed(call, now)
            call.ref.fail(error)
        except BaseException as error:
            if not isinstance(error, TypeError) or function is None or _takes(function, call):
                raise ActorCrash(f"{call.method}()", error, call) from error
            # The handler was not entered, which is the caller's fault.
            self._settle(now)
            call.ref.fail(ProtocolError(f"{call.name}: {error}"))
        else:
            self._settle(now)
            self._observed(call, now)
            if isinstance(result, ObjectRef):
                self._defer(call, result)
            else:
                call.ref.complete(result)

    def _refusal(self, call: Call, now: float) -> OrbweaverError | None:
        """Why a call is not begun, if it is not: it is over, it waited for too long, or it is known to crash the actor."""
        if call.ref.done() or (call.deadline is not None and call.deadline <= now):
            self._observer.dropped(call.kind, call.method)
            return DeadlineExceeded(
                f"{call.name}.{call.method} was not begun before its deadline; nothing was done"
            )
        if call.deadline is not None and now > self._begin_by(call, call.deadline):
            self._intake.behind_until = now + LATE
            self._observer.overloaded(call.kind, call.method)
            return behind(self._name)
        if self._system.crashed_messages.is_dropped(call):
            log.error("actor %s crashed on this %s() twice, and drops it", self._name, call.method)
            self._observer.repeated(call.kind, call.method)
            return MessageDropped(
                f"{call.name} crashed on this very {call.method}() twice, which is a bug; it is dropped for "
                f"{KEPT:g} s: see the log of {self._system.name}, and report it"
            )
        return None

    def _begin_by(self, call: Call, deadline: float) -> float:
        if call.method in self._kind.urgent:
            return deadline
        return call.sent + self._kind.start_fraction * (deadline - call.sent)

    def _settle(self, now: float) -> None:
        self.handled += 1
        self.last_used = now
        self.busy = False

    def _observed(self, call: Call, began: float) -> None:
        if self._system.observed:
            took = time.monotonic() - began
            self._observer.handled(call.kind, call.method, began - call.sent, took, self._intake.depth)

    def _defer(self, call: Call, result: ObjectRef[Any]) -> None:
        if not self._intake.defer(call):
            call.ref.fail(PeerLost(f"actor {self._name} was stopped before it answered {call.method}()"))
            return
        result.stands_for(call.ref)

        def answer(done: ObjectRef[Any]) -> None:
            call.ref.follow(done)
            self._intake.answered(call)
            self.last_used = time.monotonic()
            if self._system.draining:
                self._system.something_ended()

        result.subscribe(answer)

    def _run(self, internal: Internal) -> None:
        self.busy = True
        scope.set(self.scope if internal.trace is None else Scope(internal.trace, None, self._name))
        try:
            internal.function(*internal.args)
        except BaseException as error:
            where = getattr(internal.function, "__name__", repr(internal.function)) + "()"
            raise ActorCrash(where, error) from error
        self._intake.ran()
        self.last_used = time.monotonic()
        self.busy = False


def _takes(function: Callable[..., Any], call: Call) -> bool:
    """Whether the call's arguments fit the handler's parameters."""
    try:
        inspect.signature(function).bind(None, *call.args, **call.kwargs)
    except TypeError:
        return False
    return True
