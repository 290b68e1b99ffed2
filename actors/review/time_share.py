"""How much of the leader's time judging takes: whoever reaches the webhook can ask, as often as he likes.

What must always hold: a burst is judged at once, so that a hundred pools that are applied together are; who goes on and on
gets a part of a thread's time, and the leader's other actors have the rest.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from actors.errors import Overloaded
from actors.runtime import current_deadline

SHARE = 0.2
"""Of a thread's time, in the long run."""
BURST = 1.0
"""Seconds of it that may be taken at once."""


@dataclass(slots=True)
class TimeShare:
    """One per actor."""

    share: float = SHARE
    """Of one thread's time, in the long run."""
    burst: float = BURST
    """Seconds of a thread's time that may be taken at once."""
    clock: Callable[[], float] = field(default=time.monotonic)
    """Monotonic seconds."""
    _taken: float = 0.0
    """Seconds of a thread's time that are not made up for yet, at `_at`."""
    _at: float = 0.0
    """When that was so, by `clock`."""

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Judge inside, when it is time for it. Raises `Overloaded` where that would be after the request's deadline."""
        now, deadline = self.clock(), current_deadline()
        self._taken = max(0.0, self._taken - self.share * (now - self._at))
        self._at = now
        wait = (self._taken - self.burst) / self.share
        if wait > 0:
            if deadline is not None and now + wait >= deadline:
                raise Overloaded("too many objects are to be judged; this one was not")
            time.sleep(wait)
        began = time.thread_time()
        try:
            yield
        finally:
            self._taken += time.thread_time() - began
