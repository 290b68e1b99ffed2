"""Threads that read the API server for an actor that waits for nobody.

What must always hold: an error of ours is the answer, and so is a bug, in words; no more threads wait for the API server than
there are, and the rest stands in line.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from actors.errors import OrbweaverError, PeerLost
from actors.runtime import ObjectRef

log = logging.getLogger("orbweaver.subnets")
T = TypeVar("T")
THREADS = 4


class ReadingThreads:
    """Started with the first work."""

    def __init__(self, threads: int = THREADS) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="application-reader")

    def read(self, work: Callable[[], T]) -> ObjectRef[T]:
        """What `work` returns, when it has."""
        ref: ObjectRef[T] = ObjectRef(label="a look at the API server")
        try:
            self._threads.submit(_run, work, ref)
        except RuntimeError:  # it was stopped
            ref.fail(PeerLost("this process is ending; nothing was read"))
        return ref

    def stop(self) -> None:
        """Read no more; what waits is given up."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _run(work: Callable[[], T], ref: ObjectRef[T]) -> None:
    try:
        ref.complete(work())
    except OrbweaverError as error:
        ref.fail(error)
    except Exception as error:
        log.exception("a look at the API server failed")
        ref.fail(OrbweaverError(f"it could not be looked at: {type(error).__name__}"))
