"""One CNI request between the connection that reads and answers it and whoever serves it.

What must always hold: who serves calls `deliver` once, however late, on the event loop's thread, and hears what became of
the answer.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from actors.allocation.messages import AddResult
from actors.errors import OrbweaverError
from actors.runtime import ObjectRef, Trace
from cni.server.protocol import CniRequest


class Fate(enum.Enum):
    """What became of an answer."""

    TAKEN = "taken"
    """The kernel took it for somebody who still reads."""
    LOST = "lost"
    """Nobody was there to take it."""
    LATE = "late"
    """The client was answered before, with an error."""


@dataclass(frozen=True, slots=True)
class CniAnswer:
    """`output`: what goes to standard output. For the log: an ADD's `result`, how many addresses a DEL `released`."""

    output: bytes = b""
    result: AddResult | None = None
    released: int | None = None


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request that is being served. `deliver`: gives the answer, or says why there is none, to whoever asked; `gone`: the
    connection completes it when the client hung up."""

    request: CniRequest
    trace: Trace
    deliver: Callable[[CniAnswer | OrbweaverError], Fate]
    gone: ObjectRef[None] = field(default_factory=ObjectRef)


Serve: TypeAlias = Callable[[Exchange], None]
"""Begins to serve a request, without waiting."""
