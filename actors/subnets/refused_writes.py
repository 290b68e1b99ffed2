"""Pools of a subnet whose objects cannot be written as they should be: when each is tried again, and whether that is news.

What must always hold: a pool that nobody mends costs an attempt a minute, not one at each look; once it, the subnet, or what
its application wants has changed it is tried at once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from actors.subnets.pool_writer import PoolWrite

MOST = 60.0
"""Seconds between two attempts; they double until then."""


@dataclass(frozen=True, slots=True)
class _RefusedWrite:
    tried: object
    """What was to be written, over what."""
    error: str
    wait: float
    """Seconds from that attempt to the next."""
    due: float
    """Monotonic seconds of that one."""


class RefusedWrites:
    """Of one subnet. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._refused: dict[str, _RefusedWrite] = {}

    def wait(self, work: PoolWrite, now: float) -> float:
        """Seconds until this is worth another attempt, 0 for now."""
        refused = self._refused.get(work.name)
        return 0.0 if refused is None or refused.tried != _tried(work) else max(0.0, refused.due - now)

    def note(self, work: PoolWrite, error: str, now: float, first: float) -> tuple[float, bool]:
        """It was refused: seconds until the next attempt, `first` where there was none, and whether the error is a new one."""
        before, tried = self._refused.get(work.name), _tried(work)
        again = before is not None and before.tried == tried
        wait = min(MOST, 2 * before.wait) if before is not None and again else first
        self._refused[work.name] = _RefusedWrite(tried, error, wait, now + wait)
        return wait, before is None or before.error != error

    def keep(self, pools: set[str]) -> None:
        """Nothing is remembered of others than these."""
        for name in self._refused.keys() - pools:
            del self._refused[name]


def _tried(work: PoolWrite) -> object:
    present = replace(work.present, version="") if work.present is not None else None
    generation = work.subnet_object["metadata"].get("generation")
    return present, work.request, generation, work.ips
