"""One activation of one actor: from the first message that needs it to its passivation, crash or stop.

How it works. The system keeps at most one open cell for a name. A sender offers its call under the cell's
lock: the first offer starts the thread, in which the instance is made and activated; a closed cell refuses
the offer and the sender looks the name up again. A cell closes once, under the same lock, so a message is
either in the mailbox of a cell that will answer it, or with a sender that knows it is not.

    starting -> idle by     the instance, which was made and activated
    idle -> busy by         a message that it begins
    busy -> idle by         that message's end
    starting, idle, busy -> closed by
      passivation   idle, and on_passivate() agreed; calls that came meanwhile move to the next cell, in order
      refusal       on_activate raised an OrbweaverError: everyone waiting gets that error
      crash         any other exception: everyone waiting gets PeerLost
      stop          the process ends: everyone waiting gets PeerLost

What must always hold: `instance` is touched by one thread at a time, which holds the turn: the cell's own, or for a
inline message that of its sender, if the cell has nothing else to do; every call that was accepted is
answered exactly once, whatever ends the cell, deferred replies included; locks are taken in the order cell,
system, and no foreign code runs under either.
"""

from __future__ import annotations

import contextlib
import enum
import inspect
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from actors.errors import (
    DeadlineExceeded,
    MessageDropped,
    OrbweaverError,
    Overloaded,
    PeerLost,
    ProtocolError,
)
from actors.runtime.actor import Actor, ActorContext, Mailbox
from actors.runtime.call import Ask, Call, Internal, Offer
from actors.runtime.crashed_messages import KEPT
from actors.runtime.reference import ObjectRef
from actors.runtime.scope import Scope, scope
from actors.runtime.supervision import ACTIVATION
from actors.runtime.timers import Timer

if TYPE_CHECKING:
    from actors.runtime.system import ActorSystem, LocalKind

log = logging.getLogger("orbweaver.runtime")


LATE = 0.1
"""Seconds for which an actor, after it has refused a call that waited for too long, takes no other: the refusals are not to
queue as well. They are few, so what waits never runs out meanwhile."""


class CellState(enum.Enum):
    """What a cell is doing; see the module's table."""

    STARTING = "starting"
    """It has no instance yet."""
    IDLE = "idle"
    BUSY = "busy"
    """It handles a message, in its own thread or a sender's."""
    CLOSED = "closed"
    """For good."""


class CellTimer:
    """A timer of an actor; see `Actor.after`."""

    __slots__ = ("_cell", "_function", "timer")

    def __init__(self, cell: Cell, function: Internal) -> None:
        self._cell = cell
        self._function = function
        self.timer: Timer | None = None

    def cancel(self) -> None:
        self._cell.forget_timer(self)
        if self.timer is not None:
            self.timer.cancel()

    def fire(self) -> None:
        self._cell.timer_fired(self, self._function)


class Cell:
    """See the module's docstring. Methods say in whose thread they run."""

    def __init__(
        self, system: ActorSystem, kind: LocalKind, name: str, waiting: list[Call] | None = None
    ) -> None:
        self.name = name
        self.kind = kind
        self.closed = False
        """Set once, under the lock."""
        self._doing = CellState.STARTING
        """While it is not closed. Set by whoever holds the turn, so that no message costs a lock for it."""
        self.handled = 0
        self.last_used = time.monotonic()
        self.depth = len(waiting or ())
        self.thread: threading.Thread | None = None
        self._system = system
        self._observer = system.observer
        self._waiting = waiting or []
        self._lock = threading.Lock()
        self._turn = threading.Lock()
        """Held by whoever handles a message. Taken before any other lock, or tried without waiting."""
        self._first: deque[Call | Internal] = deque()
        """What is handled before the mailbox: urgent calls, and continuations, so that what has begun is finished before
        anything else begins."""
        self._behind_until = 0.0
        self._mailbox: Mailbox | None = None
        self._instance: Actor | None = None
        self._messages: dict[str, Callable[..., Any]] = {}
        self._deferred: set[Call] = set()
        self._timers: set[CellTimer] = set()
        self._outstanding = 0
        """Continuations outstanding and internal messages not handled: while there are any, the actor is not
        idle."""
        self._idle_check: Timer | None = None
        self._scope = Scope(None, None, name)

    @property
    def state(self) -> CellState:
        return CellState.CLOSED if self.closed else self._doing

    # In any thread.

    def offer(self, call: Call) -> Offer:
        """Put a call into the mailbox, and start the thread if this is the first."""
        with self._lock:
            if self.closed:
                return Offer.CLOSED
            urgent = call.method in self.kind.urgent
            if not urgent and call.deadline is not None and call.sent < self._behind_until:
                return Offer.LATE
            if not urgent and self.depth >= self.kind.mailbox:
                return Offer.FULL
            mailbox = self._mailbox or self._start()
            here = call.method in self.kind.inline and self._is_free() and self._turn.acquire(blocking=False)
            self.depth += 1
            if not here:
                if urgent:
                    self._put_first(mailbox, call)
                else:
                    mailbox.put(call)
                return Offer.TAKEN
        self._handle_here(call, mailbox)
        return Offer.TAKEN

    def _is_free(self) -> bool:
        # Under the lock. Whoever sent something before is not overtaken.
        return self._instance is not None and not (self.depth or self._outstanding or self._first)

    def _handle_here(self, call: Call, mailbox: Mailbox) -> None:
        """Handle an inline message in the sender's thread, which has the turn."""
        mine = scope.set(self._scope)
        try:
            self._handle_call(call)
        finally:
            scope.reset(mine)
            self._turn.release()
        if self.closed:
            mailbox.stop()
        if self._system.draining:
            self._system.something_ended()

    def ask(self, what: Ask) -> bool:
        """Put a request of the system into the mailbox. False when the cell is closed."""
        with self._lock:
            if self.closed:
                return False
            (self._mailbox or self._start()).put(what)
            return True

    def activate(self) -> bool:
        """Start without a call."""
        return self.ask(Ask.ACTIVATE)

    def request_stop(self) -> bool:
        """Ask it to stop when nothing is left to do. False when it is closed."""
        return self.ask(Ask.STOP)

    @property
    def deferred(self) -> int:
        """Calls handled and not answered yet."""
        return len(self._deferred)

    def quiet(self) -> bool:
        """Whether nothing waits and nothing is outstanding, timers aside."""
        return not (
            self.depth
            or self._outstanding
            or self._deferred
            or self.state in (CellState.BUSY, CellState.STARTING)
        )

    def then(self, ref: ObjectRef[Any], function: Callable[..., object], extra: tuple[Any, ...]) -> None:
        internal = Internal(function, (ref, *extra), scope.get().trace)
        with self._lock:
            self._outstanding += 1
        ref.subscribe(lambda _done: self._put_pinned(internal, first=True))

    def post(self, function: Callable[..., object], args: tuple[Any, ...]) -> None:
        internal = Internal(function, args, scope.get().trace)
        with self._lock:
            self._outstanding += 1
        self._put_pinned(internal)

    def after(self, seconds: float, function: Callable[..., object], args: tuple[Any, ...]) -> CellTimer:
        timer = CellTimer(self, Internal(function, args, None))
        with self._lock:
            self._timers.add(timer)
        timer.timer = self._system.timers.at(time.monotonic() + seconds, timer.fire)
        return timer

    def forget_timer(self, timer: CellTimer) -> None:
        with self._lock:
            self._timers.discard(timer)

    def timer_fired(self, timer: CellTimer, internal: Internal) -> None:
        with self._lock:
            if timer not in self._timers:
                return
            self._timers.discard(timer)
            self._outstanding += 1
        self._put_pinned(internal)

    def _put_pinned(self, internal: Internal, *, first: bool = False) -> None:
        with self._lock:
            # A closed cell's continuations have no instance to run in; what they would have answered is
            # failed.
            if not self.closed and self._mailbox is not None:
                if first:
                    self._put_first(self._mailbox, internal)
                else:
                    self._mailbox.put(internal)

    def _put_first(self, mailbox: Mailbox, item: Call | Internal) -> None:
        # Under the lock.
        self._first.append(item)
        mailbox.put(Ask.LOOK)

    def abandon(self, error: OrbweaverError) -> None:
        """Close from outside, whatever the actor is doing; everyone waiting gets `error`."""
        waiting = self._close()
        for call in waiting:
            call.ref.fail(error)
        if self._mailbox is not None:
            self._mailbox.stop()

    def wait_stopped(self, timeout: float) -> None:
        """Wait until nothing of it runs any more."""
        if self._mailbox is not None:
            self._mailbox.wait_stopped(timeout)

    def _start(self) -> Mailbox:
        # Under the lock. It costs the first sender the start of a thread, not the activation.
        self._mailbox = mailbox = Mailbox(self)
        for call in self._waiting:
            mailbox.put(call)
        self._waiting = []
        return mailbox

    def _close(self) -> list[Call]:
        """Close, and hand over every call that has no answer."""
        with self._lock:
            waiting = self._take_all()
            deferred, self._deferred = self._deferred, set()
        return [*deferred, *waiting]

    def _take_all(self) -> list[Call]:
        # Under the lock.
        self.closed = True
        self.depth = 0
        for timer in self._timers:
            if timer.timer is not None:
                timer.timer.cancel()
        self._timers.clear()
        if self._idle_check is not None:
            self._idle_check.cancel()
        waiting = [*(item for item in self._first if isinstance(item, Call)), *self._waiting]
        self._first.clear()
        if self._mailbox is not None:
            waiting = [*waiting, *(item for item in self._mailbox.drain() if type(item) is Call)]
        self._waiting = []
        return waiting

    # In the actor's own thread, or with its turn.

    def begin(self) -> None:
        """Make the instance and activate it."""
        with self._turn:
            self._begin()

    def _begin(self) -> None:
        started = time.monotonic()
        self.thread = threading.current_thread()
        scope.set(self._scope)
        key = self.name.partition("/")[2]
        try:
            instance = self.kind.factory(ActorContext(self._system, self.name, self.kind.kind, key, self))
            instance.on_activate()
        except OrbweaverError as error:
            log.warning("actor %s cannot be activated: %s", self.name, error)
            waiting = self._close()
            self._system.forget(self)
            self._system.activation_refused(self.kind.kind, self.name)
            for call in waiting:
                call.ref.fail(error)
        except BaseException as error:
            self._crash(ACTIVATION, error)
        else:
            self._instance = instance
            self._messages = type(instance).messages
            self._doing = CellState.IDLE
            self.last_used = now = time.monotonic()
            self._observer.activated(self.kind.kind, now - started)
            self._watch_idle(now)

    def handle(self, item: Any) -> None:
        """Handle one message. Never raises."""
        with self._turn:
            self._handle(item)

    def _handle(self, item: Any) -> None:
        while self._first:
            with self._lock:
                first = self._first.popleft() if self._first else None  # closing takes them all
            if isinstance(first, Call):
                self._handle_call(first)
            elif first is not None:
                self._handle_internal(first)
        if self.closed:
            if type(item) is Call:
                item.ref.fail(PeerLost(f"actor {self.name} ended before it began {item.method}()"))
            return
        if type(item) is Call:
            self._handle_call(item)
        elif type(item) is Internal:
            self._handle_internal(item)
        elif item is Ask.PASSIVATE or item is Ask.STOP:
            self._retire(stopping=item is Ask.STOP)
        if self._system.draining:
            self._system.something_ended()

    def _handle_call(self, call: Call) -> None:
        with self._lock:
            self.depth -= 1
        now = time.monotonic()
        refusal = self._refusal(call, now)
        if refusal is not None:
            call.ref.fail(refusal)
            return
        self._doing = CellState.BUSY
        if call.trace is None and call.deadline is None:
            scope.set(self._scope)
        else:
            scope.set(Scope(call.trace, call.deadline, self.name))
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
            if isinstance(error, TypeError) and function is not None and not _takes(function, call):
                # The handler was not entered, which is the caller's fault.
                self._settle(now)
                call.ref.fail(ProtocolError(f"{call.name}: {error}"))
            else:
                self._crash(f"{call.method}()", error, call)
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
            self._behind_until = now + LATE
            self._observer.overloaded(call.kind, call.method)
            return self.behind()
        if self._system.crashed_messages.is_dropped(call):
            log.error("actor %s crashed on this %s() twice, and drops it", self.name, call.method)
            self._observer.repeated(call.kind, call.method)
            return MessageDropped(
                f"{call.name} crashed on this very {call.method}() twice, which is a bug; it is dropped for "
                f"{KEPT:g} s: see the log of {self._system.name}, and report it"
            )
        return None

    def behind(self) -> Overloaded:
        """What is answered to calls that would not be begun in time."""
        return Overloaded(
            f"more is asked of {self.name} than it answers in time; nothing was done, try again later"
        )

    def _begin_by(self, call: Call, deadline: float) -> float:
        if call.method in self.kind.urgent:
            return deadline
        return call.sent + self.kind.start_fraction * (deadline - call.sent)

    def _settle(self, now: float) -> None:
        self.handled += 1
        self.last_used = now
        self._doing = CellState.IDLE

    def _observed(self, call: Call, began: float) -> None:
        if self._system.observed:
            took = time.monotonic() - began
            self._observer.handled(call.kind, call.method, began - call.sent, took, self.depth)

    def _defer(self, call: Call, result: ObjectRef[Any]) -> None:
        with self._lock:
            closed = self.closed
            if not closed:
                self._deferred.add(call)
        if closed:
            call.ref.fail(PeerLost(f"actor {self.name} was stopped before it answered {call.method}()"))
            return

        def answer(done: ObjectRef[Any]) -> None:
            call.ref.follow(done)
            with self._lock:
                self._deferred.discard(call)
                self.last_used = time.monotonic()
            if self._system.draining:
                self._system.something_ended()

        result.subscribe(answer)

    def _handle_internal(self, internal: Internal) -> None:
        self._doing = CellState.BUSY
        scope.set(self._scope if internal.trace is None else Scope(internal.trace, None, self.name))
        try:
            internal.function(*internal.args)
        except BaseException as error:
            self._crash(getattr(internal.function, "__name__", repr(internal.function)) + "()", error)
        else:
            with self._lock:
                self._outstanding -= 1
            self.last_used = time.monotonic()
            self._doing = CellState.IDLE

    def _crash(self, where: str, error: BaseException, call: Call | None = None) -> None:
        log.error("actor %s crashed in %s", self.name, where, exc_info=error)
        waiting = self._close()
        if call is not None:
            waiting.insert(0, call)
            self._system.crashed_messages.crashed(call)
        self._system.forget(self)
        self._observer.crashed(self.kind.kind, error)
        self._system.crashed(self.kind.kind, self.name, where, error)
        for lost in waiting:
            failure = PeerLost(
                f"actor {self.name} crashed in {where} ({type(error).__name__}: {error}); whether"
                f" {lost.method}() took effect is unknown, the next call finds it restarted"
            )
            failure.__cause__ = error
            lost.ref.fail(failure)

    # Idleness.

    def _watch_idle(self, since: float) -> None:
        if self.kind.idle is not None and not self.closed:
            self._idle_check = self._system.timers.at(since + self.kind.idle, self._check_idle)

    def _check_idle(self) -> None:
        # In the timer thread: only decides whether to ask.
        idle = self.kind.idle
        if self.closed or idle is None:
            return
        now = time.monotonic()
        if self.quiet() and not self._timers and now - self.last_used >= idle:
            with contextlib.suppress(RuntimeError):
                self.ask(Ask.PASSIVATE)
        else:
            self._watch_idle(max(self.last_used, now - idle * 0.5))

    def _retire(self, *, stopping: bool) -> None:
        if self._instance is None or self._occupied(stopping):
            return self._watch_idle(time.monotonic())
        try:
            willing = self._instance.on_passivate()
        except BaseException as error:
            return self._crash("on_passivate()", error)
        successor: Cell | None = None
        with self._lock:
            # At the end a refusal is no veto: what it was asked for is to begin what is left to do, and that
            # is waited for.
            if (willing or stopping) and not self._occupied(stopping, calls=False):
                waiting = self._take_all()
                if waiting:
                    successor = Cell(self._system, self.kind, self.name, waiting)
                self._system.forget(self, successor)
        if not self.closed:
            self.last_used = time.monotonic()
            return self._watch_idle(self.last_used)
        self._observer.passivated(self.kind.kind)
        if successor is not None:
            successor.start_waiting()
        return None

    def _occupied(self, stopping: bool, calls: bool = True) -> bool:
        return bool(
            (calls and self.depth) or self._outstanding or self._deferred or (self._timers and not stopping)
        )

    def start_waiting(self) -> None:
        """Start a cell that was made with calls waiting."""
        try:
            self.activate()
        except RuntimeError as error:
            self._system.forget(self)
            self.abandon(Overloaded(f"no thread for actor {self.name}: {error}"))


def _takes(function: Callable[..., Any], call: Call) -> bool:
    """Whether the call's arguments fit the handler's parameters."""
    try:
        inspect.signature(function).bind(None, *call.args, **call.kwargs)
    except TypeError:
        return False
    return True
