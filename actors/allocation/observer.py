"""What allocations report about themselves, without knowing who listens.

What must always hold: an observer can never fail an allocation. The caller goes through `Guarded`, which
switches an observer off when it raises, and says so once.
"""

from __future__ import annotations

import logging
from typing import Protocol

log = logging.getLogger("orbweaver.observer")


class AllocationObserver(Protocol):
    """Durations are in seconds. `stage` is one of queued, decided, committed, total; a release has nothing to decide and is
    answered when it is committed, so it has queued and total. `conflicted`: a block's write lost its compare-and-swap and
    is made again; `operation` is allocation if it carried a claim, else release. `waited`: an ADD waited for an address on
    its way back; `outcome` is one of granted, refused, withdrawn, failed."""

    def stage(self, operation: str, stage: str, seconds: float) -> None: ...

    def finished(self, operation: str, result: str, reason: str) -> None: ...

    def committed(self, batch: int, seconds: float) -> None: ...

    def conflicted(self, operation: str) -> None: ...

    def waited(self, outcome: str, seconds: float) -> None: ...

    def reclaimed(self, reason: str) -> None: ...

    def reclaim_failed(self) -> None: ...


class Silent:
    """Observes nothing: the default."""

    def stage(self, operation: str, stage: str, seconds: float) -> None:
        return

    def finished(self, operation: str, result: str, reason: str) -> None:
        return

    def committed(self, batch: int, seconds: float) -> None:
        return

    def conflicted(self, operation: str) -> None:
        return

    def waited(self, outcome: str, seconds: float) -> None:
        return

    def reclaimed(self, reason: str) -> None:
        return

    def reclaim_failed(self) -> None:
        return


class Guarded:
    """Passes everything on to `inner` until it raises; from then on to nobody."""

    def __init__(self, inner: AllocationObserver) -> None:
        self._inner: AllocationObserver = inner

    def _off(self, error: Exception) -> None:
        self._inner = Silent()
        log.error(
            "an observer raised and is switched off; its metrics stand still from now on", exc_info=error
        )

    def stage(self, operation: str, stage: str, seconds: float) -> None:
        try:
            self._inner.stage(operation, stage, seconds)
        except Exception as error:  # whatever it raises, allocation goes on
            self._off(error)

    def finished(self, operation: str, result: str, reason: str) -> None:
        try:
            self._inner.finished(operation, result, reason)
        except Exception as error:
            self._off(error)

    def committed(self, batch: int, seconds: float) -> None:
        try:
            self._inner.committed(batch, seconds)
        except Exception as error:
            self._off(error)

    def conflicted(self, operation: str) -> None:
        try:
            self._inner.conflicted(operation)
        except Exception as error:
            self._off(error)

    def waited(self, outcome: str, seconds: float) -> None:
        try:
            self._inner.waited(outcome, seconds)
        except Exception as error:
            self._off(error)

    def reclaimed(self, reason: str) -> None:
        try:
            self._inner.reclaimed(reason)
        except Exception as error:
            self._off(error)

    def reclaim_failed(self) -> None:
        try:
            self._inner.reclaim_failed()
        except Exception as error:
            self._off(error)
