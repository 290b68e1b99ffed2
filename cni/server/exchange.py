"""One CNI request between the connection that reads and answers it and whoever serves it.

What must always hold: who serves completes `answer` once, however late; the connection completes `fate` once, when the
answer was given, or when it came too late to be given.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from actors.allocation.messages import AddResult
from actors.runtime import ObjectRef, Trace
from cni.server.protocol import CniRequest

log = logging.getLogger("orbweaver.cni")


class Fate(enum.Enum):
    """What became of an answer."""

    TAKEN = "taken"
    """The kernel took it for somebody who still reads."""
    LOST = "lost"
    """Nobody was there to take it."""
    LATE = "late"
    """The client was answered before, with an error."""


@dataclass(frozen=True, slots=True)
class Answer:
    """`output`: what goes to standard output. For the log: an ADD's `result`, how many addresses a DEL `released`."""

    output: bytes = b""
    result: AddResult | None = None
    released: int | None = None


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request that is being served. `gone`: the connection completes it when the client hung up."""

    answer: ObjectRef[Answer] = field(default_factory=ObjectRef)
    fate: ObjectRef[Fate] = field(default_factory=ObjectRef)
    gone: ObjectRef[None] = field(default_factory=ObjectRef)


Serve: TypeAlias = Callable[[CniRequest, Trace], Exchange]
"""Begins to serve a request, without waiting."""


def log_request(level: int, text: str, trace: Trace, **details: Any) -> None:
    """A line about one request."""
    extra = {"request": trace.request, "pod": trace.pod, "container": trace.container, **details}
    log.log(level, text, extra=extra)
