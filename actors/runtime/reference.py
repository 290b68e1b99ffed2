"""References to answers that are not there yet: `ObjectRef`, `get` and `wait`, as in Ray.

What must always hold: a reference is completed once, and whoever comes second is told so by False; callbacks
run once, in the thread that completes (or that subscribes, when it is done already); nothing here blocks but
`get` and `wait`.

Deadlines. A reference made by a call knows the call's deadline. `get` and `wait` fail it with
`DeadlineExceeded` at that time even if the actor stays silent, so a front end always has an answer in time.
`Actor.then` does not: an actor's state depends on what really happened, so its continuation runs when the
actor below has answered, been lost, or dropped the message unhandled.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar, overload

from actors.errors import DeadlineExceeded

T = TypeVar("T")
log = logging.getLogger("orbweaver.runtime")


class ObjectRef(Generic[T]):
    """A value or an error that somebody will provide: the answer to a call, or one that an actor defers."""

    __slots__ = (
        "_abandoned",
        "_answers",
        "_callbacks",
        "_done",
        "_error",
        "_lock",
        "_value",
        "deadline",
        "label",
    )

    def __init__(self, *, label: str = "", deadline: float | None = None) -> None:
        self.label = label
        """What was asked of whom, for error messages."""
        self.deadline = deadline
        """`time.monotonic()` seconds, None for no limit."""
        self._lock = threading.Lock()
        self._done = False
        self._value: Any = None
        self._error: BaseException | None = None
        self._callbacks: list[Callable[[ObjectRef[Any]], object]] | None = None
        self._abandoned = False
        self._answers: ObjectRef[Any] | None = None

    def __repr__(self) -> str:
        state = "pending" if not self._done else "done" if self._error is None else f"failed {self._error!r}"
        return f"<ObjectRef {self.label or hex(id(self))} {state}>"

    def done(self) -> bool:
        """Whether there is a value or an error."""
        return self._done

    def error(self) -> BaseException | None:
        """The error of a reference that is done; None for a value, or while it is pending."""
        return self._error

    def result(self) -> T:
        """The value of a reference that is done, or raises its error. Never waits: for continuations."""
        if not self._done:
            raise RuntimeError(f"{self!r} has no result yet")
        if self._error is not None:
            raise self._error
        value: T = self._value
        return value

    def complete(self, value: T) -> bool:
        """Give the answer. False when there was one already."""
        return self._finish(value, None)

    def fail(self, error: BaseException) -> bool:
        """Give an error as the answer. False when there was an answer already."""
        return self._finish(None, error)

    def follow(self, other: ObjectRef[T]) -> bool:
        """Take over the answer of a reference that is done."""
        return self._finish(other._value, other._error)

    @property
    def abandoned(self) -> bool:
        """Whether whoever asked is gone, so that nobody hears the answer. What was begun goes on; what merely waits may
        end."""
        return self._abandoned or (self._answers is not None and self._answers.abandoned)

    def abandon(self) -> None:
        """Note that whoever asked is gone."""
        self._abandoned = True

    def stands_for(self, call_ref: ObjectRef[T]) -> None:
        """Note that this is the answer which an actor defers to a call with the reference `call_ref`."""
        self._answers = call_ref

    def subscribe(self, callback: Callable[[ObjectRef[T]], object]) -> None:
        """Run `callback(ref)` when there is a real answer, in whichever thread completes it: the deadline alone does not
        end it."""
        with self._lock:
            if not self._done:
                if self._callbacks is None:
                    self._callbacks = [callback]
                else:
                    self._callbacks.append(callback)
                return
        self._run(callback)

    def unsubscribe(self, callback: Callable[[ObjectRef[T]], object]) -> None:
        """Forget a callback that has not run."""
        with self._lock:
            if self._callbacks is not None and callback in self._callbacks:
                self._callbacks.remove(callback)

    def expire(self) -> None:
        """Fail with `DeadlineExceeded`, unless there is an answer."""
        self._finish(
            None, DeadlineExceeded(f"no answer from {self.label or 'the actor'} before the deadline")
        )

    def _finish(self, value: Any, error: BaseException | None) -> bool:
        with self._lock:
            if self._done:
                return False
            self._value = value
            self._error = error
            self._done = True
            callbacks, self._callbacks = self._callbacks, None
        if callbacks is not None:
            for callback in callbacks:
                self._run(callback)
        return True

    def _run(self, callback: Callable[[ObjectRef[T]], object]) -> None:
        try:
            callback(self)
        except Exception:
            # It runs in the thread of whoever completed this, an actor perhaps, who has no part in the fault.
            log.exception("a callback of %r failed", self)


class _Arrival:
    """Counts completions of the references it is subscribed to, and lets one thread sleep until enough
    came."""

    __slots__ = ("_gate", "_lock", "_missing")

    def __init__(self, missing: int) -> None:
        self._missing = missing
        self._lock = threading.Lock()
        self._gate = threading.Lock()
        self._gate.acquire()

    def __call__(self, _ref: ObjectRef[Any]) -> None:
        with self._lock:
            self._missing -= 1
            if self._missing == 0:
                self._gate.release()

    def sleep(self, until: float | None) -> bool:
        """True when enough references are done, False at `until`."""
        if until is None:
            return self._gate.acquire()
        return self._gate.acquire(timeout=max(0.0, min(until - time.monotonic(), threading.TIMEOUT_MAX)))


@overload
def get(refs: ObjectRef[T], timeout: float | None = None) -> T: ...
@overload
def get(refs: Sequence[ObjectRef[T]], timeout: float | None = None) -> list[T]: ...
def get(refs: Any, timeout: float | None = None) -> Any:
    """Wait for the answer, or for all answers of a sequence.

    Raises the error that was given as the answer; `DeadlineExceeded` at the call's deadline, or after
    `timeout` seconds, whichever is first. Only the deadline of the call ends the reference: after a
    `timeout` it can be waited for again.
    """
    until = None if timeout is None else time.monotonic() + timeout
    if isinstance(refs, ObjectRef):
        return _get(refs, until, timeout)
    return [_get(ref, until, timeout) for ref in refs]


def _get(ref: ObjectRef[T], until: float | None, timeout: float | None) -> T:
    if not ref.done():
        arrival = _Arrival(1)
        ref.subscribe(arrival)
        deadline = ref.deadline
        first = until if deadline is None else deadline if until is None else min(until, deadline)
        if not arrival.sleep(first):
            ref.unsubscribe(arrival)
            if deadline is not None and first == deadline:
                ref.expire()
            elif not ref.done():
                raise DeadlineExceeded(f"no answer from {ref.label or 'the actor'} within {timeout} s")
    return ref.result()


def settle(refs: Sequence[ObjectRef[Any]], enough: int | None = None) -> None:
    """Wait for the real answer of each, or of `enough` of them, as `subscribe` does: a deadline alone does not end it."""
    if refs:
        arrival = _Arrival(len(refs) if enough is None else enough)
        for ref in refs:
            ref.subscribe(arrival)
        arrival.sleep(None)


def wait(
    refs: Sequence[ObjectRef[T]], num_returns: int = 1, timeout: float | None = None
) -> tuple[list[ObjectRef[T]], list[ObjectRef[T]]]:
    """Wait until `num_returns` of `refs` are done, or `timeout` seconds are over: (ready, rest), in the
    order given.

    As in Ray, `ready` has at most `num_returns` entries, and a failed reference is ready. Raises ValueError
    when `num_returns` is not between 1 and the number of references.
    """
    refs = list(refs)
    if not 1 <= num_returns <= len(refs):
        raise ValueError(f"num_returns is {num_returns}, and there are {len(refs)} references")
    until = None if timeout is None else time.monotonic() + timeout
    while True:
        pending = [ref for ref in refs if not ref.done()]
        missing = num_returns - (len(refs) - len(pending))
        if missing <= 0:
            break
        deadlines = [ref.deadline for ref in pending if ref.deadline is not None]
        if until is not None:
            deadlines.append(until)
        arrival = _Arrival(missing)
        for ref in pending:
            ref.subscribe(arrival)
        arrived = arrival.sleep(min(deadlines, default=None))
        for ref in pending:
            ref.unsubscribe(arrival)
        if arrived:
            continue
        now = time.monotonic()
        for ref in pending:
            if ref.deadline is not None and ref.deadline <= now:
                ref.expire()
        if until is not None and until <= now:
            break
    ready = [ref for ref in refs if ref.done()][:num_returns]
    chosen = set(map(id, ready))
    return ready, [ref for ref in refs if id(ref) not in chosen]
