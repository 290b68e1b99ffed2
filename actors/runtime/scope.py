"""What travels with every message besides its arguments: who it is for, and until when it makes sense.

What must always hold: a call made while a message is handled carries the trace of that message, and its
deadline unless the caller sets another; a continuation (`then`), a `post` and a timer carry no deadline,
because what they finish or undo must be finished or undone however late it is.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Trace:
    """Names one request in the logs of every actor and process that works on it."""

    request: str
    """Request id, unique enough to find one request in a log."""
    pod: str = ""
    """`namespace/name`, empty when there is none."""
    container: str = ""
    """Container id as the runtime gave it."""

    def named(self, **details: Any) -> dict[str, Any]:
        """The fields of a log line about the request."""
        return {"request": self.request, "pod": self.pod, "container": self.container, **details}


class Scope:
    """What the code running now works for. `actor` is set only in an actor's own thread."""

    __slots__ = ("actor", "deadline", "trace")

    def __init__(self, trace: Trace | None, deadline: float | None, actor: str | None) -> None:
        self.trace = trace
        self.deadline = deadline
        self.actor = actor


NOWHERE = Scope(None, None, None)
scope: ContextVar[Scope] = ContextVar("orbweaver_scope", default=NOWHERE)


def current_trace() -> Trace | None:
    """The trace of the message being handled, or of the enclosing `request_scope`; None outside of both."""
    return scope.get().trace


def current_deadline() -> float | None:
    """The deadline (`time.monotonic()` seconds) that calls made here inherit; None when there is none."""
    return scope.get().deadline


@contextlib.contextmanager
def request_scope(trace: Trace | None, timeout: float | None = None) -> Iterator[None]:
    """For a front end: calls made inside carry this trace, and a deadline `timeout` seconds from now."""
    deadline = None if timeout is None else time.monotonic() + timeout
    token = scope.set(Scope(trace, deadline, None))
    try:
        yield
    finally:
        scope.reset(token)


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """Calls made inside have a deadline `seconds` from now, unless the one they would inherit is sooner."""
    here = scope.get()
    deadline = time.monotonic() + seconds
    if here.deadline is not None:
        deadline = min(deadline, here.deadline)
    token = scope.set(Scope(here.trace, deadline, here.actor))
    try:
        yield
    finally:
        scope.reset(token)
