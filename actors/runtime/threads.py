"""Threads that are used again: an actor that is activated gets one that another has left, if there is one.

An actor for each pod comes and goes within a second. Starting a thread for it costs as much as a tenth of what it does,
most of it waiting until the new thread runs.

What must always hold: work begins at once, never behind other work; where the system gives no more threads, the caller
is told so.
"""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Callable

Work = Callable[[], object]


class Threads:
    """Daemon threads: work that hangs must not keep a process from ending after its drain time."""

    def __init__(self, name: str, linger: float = 10.0) -> None:
        """`linger`: seconds without work after which a thread ends."""
        self._name = name
        self._linger = linger
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._idle: list[queue.SimpleQueue[Work]] = []

    def run(self, work: Work) -> None:
        """Run `work` in a thread of its own. Raises RuntimeError when the system has none to give."""
        with self._lock:
            inbox = self._idle.pop() if self._idle else None  # the one that was used last
        if inbox is not None:
            inbox.put(work)
        else:
            name = f"{self._name}-{next(self._numbers)}"
            threading.Thread(target=self._work, args=(work, name), name=name, daemon=True).start()

    def _work(self, work: Work, name: str) -> None:
        inbox: queue.SimpleQueue[Work] = queue.SimpleQueue()
        while True:
            work()
            del work  # and with it the actor
            threading.current_thread().name = name
            with self._lock:
                self._idle.append(inbox)
            try:
                work = inbox.get(timeout=self._linger)
            except queue.Empty:
                with self._lock:
                    if inbox in self._idle:
                        self._idle.remove(inbox)
                        return
                work = inbox.get()  # it was given some at this moment
