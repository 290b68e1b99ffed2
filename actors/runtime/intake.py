"""What one activation of an actor takes in, until it closes: calls, what the actor tells itself, timers.

What must always hold: it closes once, under its lock, so a call is either here, where it will be answered, or with a sender
that knows it is not; nobody overtakes who sent before, but for what is urgent, and for continuations: what has begun is
finished before anything else begins. No foreign code runs under the lock.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from actors.errors import Overloaded
from actors.runtime.call import Ask, Call, Internal, Offer
from actors.runtime.reference import ObjectRef
from actors.runtime.scope import scope
from actors.runtime.threads import Mailbox
from actors.runtime.timers import Timer, Timers

if TYPE_CHECKING:
    from actors.runtime.system import LocalKind


class ActorTimer:
    """A timer of an actor; see `Actor.after`."""

    __slots__ = ("_function", "_intake", "timer")

    def __init__(self, intake: Intake, function: Internal) -> None:
        self._intake = intake
        self._function = function
        self.timer: Timer | None = None

    def cancel(self) -> None:
        """It fires no more."""
        self._intake.forget_timer(self)
        if self.timer is not None:
            self.timer.cancel()

    def fire(self) -> None:
        """Have the actor run its function."""
        self._intake.timer_fired(self, self._function)


class Intake:
    """One per activation; safe from any thread. `start` makes the mailbox, and with it the thread, for whoever comes first;
    `waiting`: calls that the activation before did not handle."""

    __slots__ = (
        "_kind",
        "_mailbox",
        "_start",
        "_timers",
        "_timers_set",
        "_waiting",
        "active",
        "behind_until",
        "closed",
        "deferred",
        "depth",
        "first",
        "lock",
        "outstanding",
        "turn",
    )

    def __init__(
        self, kind: LocalKind, timers: Timers, start: Callable[[], Mailbox], waiting: list[Call] | None
    ) -> None:
        self._kind = kind
        self._timers = timers
        self._start = start
        self._waiting = waiting or []
        self._mailbox: Mailbox | None = None
        self.first: deque[Call | Internal] = deque()
        """What is handled before the mailbox: urgent calls, and continuations."""
        self._timers_set: set[ActorTimer] = set()
        self.lock = threading.Lock()
        self.turn = threading.Lock()
        """Held by whoever handles a message. Taken before any other lock, or tried without waiting."""
        self.closed = False
        """Set once, under the lock."""
        self.active = False
        """Whether there is an instance, so that a sender may handle its own message."""
        self.depth = len(self._waiting)
        """How many calls wait."""
        self.deferred: set[Call] = set()
        """Calls that were handled and are not answered yet."""
        self.outstanding = 0
        """Continuations that are to come and internal messages that are not handled: while there are any, the actor is not
        idle."""
        self.behind_until = 0.0
        """Monotonic seconds before which no call is taken that has a deadline."""

    # What comes in.

    def offer(self, call: Call) -> Offer:
        """Take a call, if there is place. `HERE`: the sender has got the turn, and is to handle it; it waits for nothing."""
        kind = self._kind
        with self.lock:
            if self.closed:
                return Offer.CLOSED
            urgent = call.method in kind.urgent
            if not urgent:
                if call.deadline is not None and call.sent < self.behind_until:
                    return Offer.LATE
                if self.depth >= kind.mailbox:
                    return Offer.FULL
            mailbox = self._mailbox or self._open()
            if call.method in kind.inline and self._is_free() and self.turn.acquire(blocking=False):
                return Offer.HERE
            self.depth += 1
            if urgent:
                self._put_first(mailbox, call)
            else:
                mailbox.put(call)
        return Offer.TAKEN

    def _is_free(self) -> bool:
        # Under the lock. Whoever sent something before is not overtaken.
        return self.active and not (self.depth or self.outstanding or self.first)

    def ask(self, what: Ask) -> bool:
        """Take a request of the system. False when it is closed."""
        with self.lock:
            if self.closed:
                return False
            (self._mailbox or self._open()).put(what)
            return True

    def then(self, ref: ObjectRef[Any], function: Callable[..., object], extra: tuple[Any, ...]) -> None:
        """Run `function(ref, *extra)` in the actor, before what waits, when `ref` is answered."""
        internal = Internal(function, (ref, *extra), scope.get().trace)
        with self.lock:
            self.outstanding += 1
        ref.subscribe(lambda _done: self._put(internal, first=True))

    def post(self, function: Callable[..., object], args: tuple[Any, ...]) -> None:
        """Run `function(*args)` in the actor, behind what waits."""
        internal = Internal(function, args, scope.get().trace)
        with self.lock:
            self.outstanding += 1
        self._put(internal)

    def after(self, seconds: float, function: Callable[..., object], args: tuple[Any, ...]) -> ActorTimer:
        """Run `function(*args)` in the actor in so many seconds, unless it is cancelled or the actor ends before."""
        timer = ActorTimer(self, Internal(function, args, None))
        with self.lock:
            self._timers_set.add(timer)
        timer.timer = self._timers.at(time.monotonic() + seconds, timer.fire)
        return timer

    def forget_timer(self, timer: ActorTimer) -> None:
        """A timer was cancelled."""
        with self.lock:
            self._timers_set.discard(timer)

    def timer_fired(self, timer: ActorTimer, internal: Internal) -> None:
        """A timer's moment has come; what was cancelled meanwhile does nothing."""
        with self.lock:
            if timer not in self._timers_set:
                return
            self._timers_set.discard(timer)
            self.outstanding += 1
        self._put(internal)

    @property
    def has_timers(self) -> bool:
        return bool(self._timers_set)

    def _put(self, internal: Internal, *, first: bool = False) -> None:
        with self.lock:
            # What is closed has no instance for its continuations; what they would have answered is failed.
            if not self.closed and self._mailbox is not None:
                if first:
                    self._put_first(self._mailbox, internal)
                else:
                    self._mailbox.put(internal)

    def _put_first(self, mailbox: Mailbox, item: Call | Internal) -> None:
        # Under the lock.
        self.first.append(item)
        mailbox.put(Ask.LOOK)

    def _open(self) -> Mailbox:
        # Under the lock. It costs the first sender the start of a thread, not the activation.
        self._mailbox = mailbox = self._start()
        for call in self._waiting:
            mailbox.put(call)
        self._waiting = []
        return mailbox

    # What is handled.

    def take_first(self) -> Call | Internal | None:
        """What is to be handled before the message at hand, if there is anything."""
        with self.lock:
            return self.first.popleft() if self.first else None  # closing takes them all

    def begun(self) -> None:
        """A call that was taken waits no longer."""
        with self.lock:
            self.depth -= 1

    def ran(self) -> None:
        """An internal message was handled."""
        with self.lock:
            self.outstanding -= 1

    def defer(self, call: Call) -> bool:
        """Note that a call is answered later. False when it is closed, and nobody will."""
        with self.lock:
            if not self.closed:
                self.deferred.add(call)
            return not self.closed

    def answered(self, call: Call) -> None:
        """A deferred call has its answer."""
        with self.lock:
            self.deferred.discard(call)

    # Its end.

    def close(self) -> list[Call]:
        """Close, and hand over every call that has no answer."""
        with self.lock:
            waiting = self.take_all()
            deferred, self.deferred = self.deferred, set()
        return [*deferred, *waiting]

    def take_all(self) -> list[Call]:
        """Close, and hand over what waits. Under the lock."""
        if self.closed:  # the thread may be another activation's by now, and what is in its inbox too
            return []
        self.closed = True
        self.depth = 0
        for timer in self._timers_set:
            if timer.timer is not None:
                timer.timer.cancel()
        self._timers_set.clear()
        waiting = [*(item for item in self.first if isinstance(item, Call)), *self._waiting]
        self.first.clear()
        if self._mailbox is not None:
            waiting = [*waiting, *(item for item in self._mailbox.drain() if type(item) is Call)]
        self._waiting = []
        return waiting

    def occupied(self, *, stopping: bool, calls: bool = True) -> bool:
        """Whether something is left to do; when it stops, timers are not waited for."""
        return bool(
            (calls and self.depth) or self.outstanding or self.deferred or (self._timers_set and not stopping)
        )

    def end_thread(self) -> None:
        """Let the thread end after the message that it handles."""
        if self._mailbox is not None:
            self._mailbox.stop()

    def wait_stopped(self, timeout: float) -> None:
        """Wait until nothing of it runs any more."""
        if self._mailbox is not None:
            self._mailbox.wait_stopped(timeout)


def behind(name: str) -> Overloaded:
    """What is answered to calls that would not be begun in time."""
    return Overloaded(f"more is asked of {name} than it answers in time; nothing was done, try again later")
