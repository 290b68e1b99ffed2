"""The connections of the CNI socket: how many there are, who is still sending, and who must make room.

What must always hold: every connection that sends nothing, or sends slowly, is one that a later one may displace; only
so many large requests are read at once, so that all of them together have bounded memory. It is the event loop's alone.
"""

from __future__ import annotations

from typing import Generic, TypeVar

LARGE_TOGETHER = 32
"""How many large requests are read at once."""

C = TypeVar("C")


class ConnectionTable(Generic[C]):
    """`most`: connections at once. One more takes the place of the one that has been sending its request for longest."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.open: set[C] = set()
        self.large: set[C] = set()
        self._reading: dict[C, None] = {}

    def __len__(self) -> int:
        return len(self.open)

    def arrived(self, connection: C) -> None:
        """A client connected."""
        self.open.add(connection)
        self._reading[connection] = None

    def displaced_by(self, connection: C) -> C | None:
        """Which connection has to go for this one, which has come last: the one that has been sending its request for
        longest, since a runtime's request is complete as it comes. Itself, where all others are being served."""
        if len(self.open) <= self.most:
            return None
        return next(iter(self._reading))

    def may_be_large(self, connection: C) -> bool:
        """Whether a large request of it may be read now."""
        if connection not in self.large and len(self.large) >= LARGE_TOGETHER:
            return False
        self.large.add(connection)
        return True

    def read(self, connection: C) -> None:
        """Its request is complete, or it is not read any more."""
        self._reading.pop(connection, None)
        self.large.discard(connection)

    def left(self, connection: C) -> None:
        """Its connection is gone."""
        self.open.discard(connection)
        self.read(connection)
