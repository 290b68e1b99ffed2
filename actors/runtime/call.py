"""What comes into an actor's mailbox: calls, what the actor told itself, and what the system asks of it."""

from __future__ import annotations

import enum
import time
from collections.abc import Callable
from typing import Any

from actors.runtime.reference import ObjectRef
from actors.runtime.scope import Trace


class Call:
    """A call on its way to an actor, here or in another process."""

    __slots__ = ("args", "deadline", "kind", "kwargs", "method", "name", "ref", "sent", "trace")

    def __init__(
        self,
        kind: str,
        name: str,
        method: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        ref: ObjectRef[Any],
        deadline: float | None,
        trace: Trace | None,
    ) -> None:
        self.kind = kind
        self.name = name
        self.method = method
        self.args = args
        self.kwargs = kwargs
        self.ref = ref
        self.deadline = deadline
        self.trace = trace
        self.sent = time.monotonic()


class Internal:
    """Something that an actor told itself."""

    __slots__ = ("args", "function", "trace")

    def __init__(self, function: Callable[..., object], args: tuple[Any, ...], trace: Trace | None) -> None:
        self.function = function
        self.args = args
        self.trace = trace


class Ask(enum.Enum):
    """What the system asks of an activation, through its mailbox."""

    ACTIVATE = "activate"
    PASSIVATE = "passivate"
    STOP = "stop"
    LOOK = "look"


class Offer(enum.Enum):
    """What became of a call that was offered."""

    TAKEN = "taken"
    HERE = "here"
    """It is taken, and whoever offered it is to handle it."""
    FULL = "full"
    LATE = "behind"
    CLOSED = "closed"
