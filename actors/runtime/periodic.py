"""Does something again and again in a thread of its own, for as long as a process runs.

What must always hold: an error, whatever it is, costs one turn and a line in the log, which is not repeated while the error
stays the same; one that is a bug has its traceback there, and ends the task no more than others, as with an informer. Who
calls `stop` waits for the turn that is under way, and no other begins.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping

from actors.errors import OrbweaverError


class PeriodicThread:
    """One per task. `start` and `stop` around the life of what it is for; a `stop` alone does nothing."""

    def __init__(
        self,
        name: str,
        turn: Callable[[], float | None],
        *,
        log: logging.Logger,
        failing: str,
        retry: float,
        first: float = 0.0,
        details: Mapping[str, str] | None = None,
    ) -> None:
        """`turn`: does it once, and says in how many seconds again, None for never. `failing`: what the log says, with
        `details`, when it raises; the next turn comes after `retry` seconds. `first`: seconds before the first turn."""
        self._turn = turn
        self._log = log
        self._failing = failing
        self._retry = retry
        self._first = first
        self._details = dict(details or {})
        self._reported = ""
        self._wake = threading.Event()
        self._ending = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def wake(self) -> None:
        """Take the next turn now. From any thread."""
        self._wake.set()

    def stop(self) -> None:
        """End, once the turn that is under way has ended."""
        self._ending = True
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        pause: float | None = self._first
        while pause is not None:
            if pause > 0:
                self._wake.wait(pause)
            self._wake.clear()
            if self._ending:
                return
            pause = self._take_turn()

    def _take_turn(self) -> float | None:
        try:
            pause = self._turn()
        except (OrbweaverError, OSError) as error:
            self._report(logging.WARNING, str(error))
            return self._retry
        except Exception as error:
            # A bug. Nobody would see that this thread has ended, and what it looks after goes on without it.
            self._report(logging.ERROR, repr(error), exc_info=True)
            return self._retry
        self._reported = ""
        return pause

    def _report(self, level: int, error: str, *, exc_info: bool = False) -> None:
        if error != self._reported:
            self._log.log(level, self._failing, exc_info=exc_info, extra={**self._details, "error": error})
        self._reported = error
