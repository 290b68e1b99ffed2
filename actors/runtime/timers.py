"""One thread and one heap for everything that happens later: actors' timers, idle checks, deadlines of
references.

What must always hold: a callback is short and never blocks (it queues a message or fails a reference), so
that one late callback cannot delay the rest; a cancelled timer keeps nothing alive for long.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable

log = logging.getLogger("orbweaver.runtime")

_COMPACT_ABOVE = 256


class Timer:
    """One callback at one time. `cancel` may be called from any thread, also when it has fired."""

    __slots__ = ("_callback", "_timers", "when")

    def __init__(self, when: float, callback: Callable[[], object], timers: Timers) -> None:
        self.when = when
        self._callback: Callable[[], object] | None = callback
        self._timers = timers

    def cancel(self) -> None:
        self._timers.cancel(self)

    @property
    def taken(self) -> bool:
        """Whether it has fired or was cancelled."""
        return self._callback is None

    def take(self) -> Callable[[], object] | None:
        """The callback, once: a timer that fires and is cancelled at the same time does one of the two."""
        callback, self._callback = self._callback, None
        return callback


class Timers:
    """The heap and its thread, which starts with the first timer."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._heap: list[tuple[float, int, Timer]] = []
        self._serial = itertools.count()
        self._changed = threading.Condition(threading.Lock())
        self._thread: threading.Thread | None = None
        self._cancelled = 0
        self._closed = False

    def at(self, when: float, callback: Callable[[], object]) -> Timer:
        """Run `callback` in the timer thread at `when` (`time.monotonic()` seconds). After `close`: never."""
        timer = Timer(when, callback, self)
        with self._changed:
            if self._closed:
                return timer
            heapq.heappush(self._heap, (when, next(self._serial), timer))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=f"{self._name}-timers", daemon=True)
                self._thread.start()
            elif self._heap[0][2] is timer:
                self._changed.notify()
        return timer

    def cancel(self, timer: Timer) -> None:
        """Forget a timer; one that has fired already is no error."""
        with self._changed:
            if timer.take() is None:
                return
            self._cancelled += 1
            # Deadlines are mostly cancelled long before they are due: without this, every answered call would
            # stay in memory until its deadline.
            if self._cancelled > _COMPACT_ABOVE and self._cancelled * 2 > len(self._heap):
                self._heap = [entry for entry in self._heap if not entry[2].taken]
                heapq.heapify(self._heap)
                self._cancelled = 0

    def close(self) -> None:
        """Forget all timers and end the thread."""
        with self._changed:
            self._closed = True
            self._heap.clear()
            self._changed.notify()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                if self._closed:
                    return
                now = time.monotonic()
                if not self._heap or self._heap[0][0] > now:
                    self._changed.wait(self._heap[0][0] - now if self._heap else None)
                    continue
                callback = heapq.heappop(self._heap)[2].take()
                if callback is None:
                    self._cancelled -= 1
                    continue
            try:
                callback()
            except Exception:
                log.exception("a timer's callback failed; the other timers go on")
