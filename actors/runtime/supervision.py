"""The supervision table: which kinds of actor there are, what follows a crash, and in which order they stop.

What must always hold: a crashed actor loses nothing, because its state is durable elsewhere; so starting it
again is always safe, and what is left to decide is when, and how many crashes are too many.
"""

from __future__ import annotations

import collections
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum


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
    restart: Restart = Restart.ON_USE
    order: int = 0
    """Place in a shutdown: kinds with a lower number finish first. Callers before those they call."""
    max_crashes: int = 10
    """This many crashes of all actors of the kind are borne within `period`; one more is fatal."""
    period: float = 60.0
    """Seconds."""


class Supervisor:
    """Counts crashes against the table."""

    def __init__(self, table: Iterable[Child] = ()) -> None:
        self._rows = {row.kind: row for row in table}
        self._crashes: dict[str, collections.deque[float]] = {}
        self._lock = threading.Lock()
        self._fatal = False

    def row(self, kind: str) -> Child:
        """The row of `kind`; a kind that the table does not name has the defaults."""
        return self._rows.get(kind) or Child(kind)

    def crashed(self, name: str, kind: str, error: BaseException, now: float) -> tuple[int, str | None]:
        """Record a crash: how many there were in the period, and a message if that is too many (once
        ever)."""
        row = self.row(kind)
        with self._lock:
            crashes = self._crashes.setdefault(kind, collections.deque(maxlen=row.max_crashes + 1))
            crashes.append(now)
            while crashes and crashes[0] <= now - row.period:
                crashes.popleft()
            count = len(crashes)
            if count <= row.max_crashes or self._fatal:
                return count, None
            self._fatal = True
        return count, (
            f"{count} crashes of {kind!r} actors within {row.period:g} s, the last one in {name}"
            f" ({type(error).__name__}: {error}); the supervision table bears {row.max_crashes}"
        )
