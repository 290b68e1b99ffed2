"""What allocations report about themselves, without knowing who listens.

What must always hold: an observer can never fail an allocation. Who is given one stands behind `guarded`
(`actors/runtime/observer.py`), which switches an observer off when it raises, and says so once.
"""

from __future__ import annotations

from typing import Protocol


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
