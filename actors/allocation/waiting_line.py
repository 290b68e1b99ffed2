"""The requests that wait at one pool for addresses on their way back: who is next, and who waits for nothing.

What must always hold: first come, first served; requests that belong together stand together, at the place of the
first, and go together; nobody stands here past the time that he gave, or behind more than `cut` leaves. No clock.
Who enters and when he is served: `pool.py` (`_serve`, `_settle_line`). For how long a request waits: `endpoint.py`, half of
the time that it has left. What it gives back meanwhile: `reservation.py` (`_wait`).
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Waiter(Generic[T]):
    """One request that waits."""

    number: int
    """In which order requests came to the pool."""
    request: str
    """Which ADD it belongs to; those of one ADD belong together."""
    together: int
    """How many of them there are."""
    until: float
    """When it is to be refused."""
    job: T
    """What it is about."""


class WaitingLine(Generic[T]):
    """Not safe for several threads."""

    __slots__ = ("_waiters",)

    _waiters: list[Waiter[T]]

    def __init__(self) -> None:
        self._waiters = []

    def __len__(self) -> int:
        return len(self._waiters)

    def join(self, waiter: Waiter[T]) -> None:
        """Stand behind who came earlier, wherever it has been meanwhile."""
        mine = [*self.withdraw(waiter.request), waiter]
        first = min(each.number for each in mine)
        for each in mine:
            insort(self._waiters, replace(each, number=first), key=lambda other: other.number)

    def head(self) -> tuple[Waiter[T], ...]:
        """Those who go next, all of one ADD; empty when nobody waits, or when some of them have not come yet."""
        if not self._waiters:
            return ()
        first = self._waiters[0]
        group = tuple(each for each in self._waiters if each.request == first.request)
        return group if len(group) >= first.together else ()

    def go(self) -> None:
        """The head leaves."""
        self.withdraw(self._waiters[0].request)

    def withdraw(self, request: str) -> list[Waiter[T]]:
        """Who waits for an ADD leaves."""
        return self._leave(lambda each: each.request == request)

    def leave(self, whose: Callable[[T], bool]) -> list[Waiter[T]]:
        """Those leave whose job fits."""
        return self._leave(lambda each: whose(each.job))

    def expire(self, now: float) -> list[Waiter[T]]:
        """Those whose time is over leave, and with each who belongs to it."""
        late = {each.request for each in self._waiters if each.until <= now}
        return self._leave(lambda each: each.request in late)

    def cut(self, most: int) -> list[Waiter[T]]:
        """The last ones leave until there are `most` at most."""
        gone: list[Waiter[T]] = []
        while len(self._waiters) > max(0, most):
            gone += self.withdraw(self._waiters[-1].request)
        return gone

    @property
    def first_end(self) -> float | None:
        """When the first of them is to be refused."""
        return min((each.until for each in self._waiters), default=None)

    @property
    def last_end(self) -> float | None:
        """Until when somebody waits at most."""
        return max((each.until for each in self._waiters), default=None)

    def _leave(self, who: Callable[[Waiter[T]], bool]) -> list[Waiter[T]]:
        gone = [each for each in self._waiters if who(each)]
        self._waiters = [each for each in self._waiters if not who(each)]
        return gone
