"""The supervision table: which kinds of actor there are, what follows a crash, and in which order they stop.

What must always hold: a crashed actor loses nothing, because its state is durable elsewhere; so starting it
again is always safe, and what is left to decide is when, and how many crashes are too many. An actor that crashes again
at the same place while it does the same uses up nothing more: what one message, pod or record does to one actor ends no
process, and so no other's. What counts is how many actors crash, and in how many ways; that an actor cannot even begin
counts each time.
"""

from __future__ import annotations

import collections
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

ACTIVATION = "its activation"
"""Where an actor crashes that cannot begin."""


class Restart(Enum):
    """When a crashed actor comes back."""

    ON_USE = "on use"
    """With the next message to it. For actors that only answer."""
    AT_ONCE = "at once"
    """By itself, after a pause that doubles. For actors that work unasked, on timers."""


@dataclass(frozen=True, slots=True)
class Child:
    """One row of the table."""

    kind: str
    """Of actor."""
    restart: Restart = Restart.ON_USE
    """What follows a crash."""
    order: int = 0
    """Place in a shutdown: kinds with a lower number finish first. Callers before those they call."""
    max_crashes: int | None = 10
    """This many crashes of all actors of the kind are borne within `period`; one more is fatal. None: each of these actors
    works for one tenant, or for nobody's addresses, and none of them ends the process."""
    period: float = 60.0
    """Seconds."""


class Supervisor:
    """Counts crashes against the table."""

    def __init__(self, table: Iterable[Child] = ()) -> None:
        self._rows = {row.kind: row for row in table}
        self._crashes: dict[str, collections.deque[tuple[float, _Sight]]] = {}
        self._lock = threading.Lock()
        self._fatal = False

    def row(self, kind: str) -> Child:
        """The row of `kind`; a kind that the table does not name has the defaults."""
        return self._rows.get(kind) or Child(kind)

    def crashed(
        self, name: str, kind: str, where: str, error: BaseException, now: float
    ) -> tuple[int, str | None]:
        """Record a crash of an actor in `where`, one of its functions: how many there were in the period, and a message if
        that is too many (once ever)."""
        row = self.row(kind)
        with self._lock:
            crashes = self._crashes.setdefault(kind, collections.deque(maxlen=_REMEMBERED))
            crashes.append((now, (name, where, type(error), _place(error))))
            while crashes and crashes[0][0] <= now - row.period:
                crashes.popleft()
            begun = [sight for _, sight in crashes if sight[1] != ACTIVATION]
            counted = len(crashes) - len(begun) + len(set(begun))
            if row.max_crashes is None or counted <= row.max_crashes or self._fatal:
                return len(crashes), None
            self._fatal = True
        return len(crashes), (
            f"{counted} different crashes of {kind!r} actors within {row.period:g} s, the last one in {name}"
            f" ({type(error).__name__}: {error}); the supervision table bears {row.max_crashes}"
        )


_Sight = tuple[str, str, type[BaseException], tuple[str, int]]
"""A crash as it looks: actor, function, error, and the line that raised it."""
_REMEMBERED = 256


def _place(error: BaseException) -> tuple[str, int]:
    """The line of ours that raised it: of the last frame, whatever library it is in."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return (trace.tb_frame.f_code.co_filename, trace.tb_lineno) if trace is not None else ("", 0)
