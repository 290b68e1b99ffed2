"""Whose turn it is: the requests for one container one after the other, and of one namespace a bounded number at once.

What must always hold: requests for a container run in the order in which they came (specification, section 3, "Lifecycle &
Ordering"), whoever else waits; a namespace whose plugins hang holds up itself alone, since each has its own line and its
own threads; every line is bounded.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from actors.errors import Overloaded

log = logging.getLogger("orbweaver.networks")

AT_ONCE = 32
"""Requests of one namespace that run at a time."""
LINE = 1024
"""Requests of one namespace that wait."""
THREADS = 1024
"""As many as the agent serves clients; they start when they are needed."""


@dataclass(slots=True)
class _Line:
    running: int = 0
    waiting: deque[tuple[str, Callable[[], object]]] = field(default_factory=deque)


class Turns:
    """Runs work in threads of its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lines: dict[str, _Line] = {}
        self._containers: set[str] = set()
        self._stopped = False
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="networks")

    def submit(self, namespace: str, container: str, work: Callable[[], object]) -> None:
        """Run `work`, which raises nothing, when it is its turn. `container` is empty for what is about none. Raises
        `Overloaded`."""
        with self._lock:
            if self._stopped:
                raise Overloaded("the agent is stopping; try again")
            line = self._lines.setdefault(namespace, _Line())
            if len(line.waiting) >= LINE:
                raise Overloaded(
                    f"{LINE} requests of namespace {namespace} wait for its networks already; try again"
                )
            line.waiting.append((container, work))
            self._start(namespace, line)

    def stop(self, *, wait: bool = True) -> None:
        """Take no more; what runs ends."""
        with self._lock:
            self._stopped = True
            for line in self._lines.values():
                line.waiting.clear()
        self._threads.shutdown(wait=wait, cancel_futures=True)

    def _start(self, namespace: str, line: _Line) -> None:
        """Start what may: the first of the line whose container is not served."""
        passed: deque[tuple[str, Callable[[], object]]] = deque()
        held: set[str] = set()
        while line.waiting and line.running < AT_ONCE:
            container, work = line.waiting.popleft()
            if container and (container in self._containers or container in held):
                passed.append((container, work))
                held.add(container)
                continue
            line.running += 1
            self._containers.add(container)
            self._threads.submit(self._run, namespace, container, work)
        line.waiting.extendleft(reversed(passed))

    def _run(self, namespace: str, container: str, work: Callable[[], object]) -> None:
        try:
            work()
        except Exception:
            log.exception("a request for networks ended in a way that nobody foresaw")
        finally:
            with self._lock:
                line = self._lines[namespace]
                line.running -= 1
                self._containers.discard(container)
                self._start(namespace, line)
                if not line.running and not line.waiting:
                    del self._lines[namespace]
