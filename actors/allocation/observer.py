"""What allocations report about themselves, without knowing who listens.

What must always hold: an observer can never fail an allocation. Who is given one stands behind `guarded`
(`actors/runtime/observer.py`), which switches an observer off when it raises, and says so once. The views are told by a
message, and nobody waits for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from actors.resources.blocks.record import Record
from actors.runtime import ActorSource


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


def tell_views(actors: ActorSource, records: Sequence[Record]) -> None:
    """Have what people see of these records written anew, also when the request's time is over."""
    if records:
        pods = {record.holder for record in records}
        pools = {record.pool for record in records}
        changed = actors.get_actor("views/local").changed.options(timeout=None)
        changed.remote(tuple(sorted(pods)), tuple(sorted(pools)))
