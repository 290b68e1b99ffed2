"""What a subnet could not give: the condition in its status, true while a pool needs more than is left.

What must always hold: nobody is forgotten while he asks, and nobody is remembered for ever who does not: a need that is not
repeated ends after `FORGOTTEN` seconds. The condition's text is written again at most once in `PAUSE` seconds, because
refused pods ask often.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from actors.subnets.messages import Exhausted

TYPE = "Exhausted"
FORGOTTEN, PAUSE = 600.0, 60.0


class Exhaustion:
    """Of one subnet. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._needs: dict[str, tuple[Exhausted, float]] = {}
        """What each pool needs, and when it was asked for last."""
        self._told = float("-inf")
        self._newest: Exhausted | None = None

    @property
    def outstanding(self) -> bool:
        """Whether any pool needs more than there was."""
        return bool(self._needs)

    def met(self, pool: str, refused: Exhausted, now: float) -> None:
        """The subnet could not give a pool what it needs."""
        self._needs[pool] = (refused, now)
        self._newest = refused

    def forget(self, pool: str) -> None:
        """A pool needs nothing more."""
        self._needs.pop(pool, None)

    def next_look(self, now: float) -> float:
        """Seconds until the next need may be forgotten."""
        return max(1.0, min(at for _, at in self._needs.values()) + FORGOTTEN - now)

    def condition(self, before: object, left: int, now: float, clock: float) -> list[dict[str, Any]] | None:
        """The conditions to write in place of those `before`; None for none. `left`: addresses that nobody has. `clock` is in
        seconds since the epoch."""
        self._needs = {
            pool: (refused, at)
            for pool, (refused, at) in self._needs.items()
            if refused.required > left and at + FORGOTTEN > now
        }
        others, mine = [], None
        for entry in before if isinstance(before, list) else ():
            if isinstance(entry, dict) and entry.get("type") == TYPE:
                mine = entry
            elif isinstance(entry, dict):
                others.append(entry)
        status = "True" if self._needs else "False"
        if mine is None and status == "False":
            return others or None
        if (
            mine is not None
            and mine.get("status") == status
            and (status == "False" or now < self._told + PAUSE)
        ):
            return [*others, mine]
        changed = mine is None or mine.get("status") != status
        text = datetime.fromtimestamp(clock, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        condition = {
            "type": TYPE,
            "status": status,
            "reason": "TooFewAddresses" if self._needs else "AddressesLeft",
            "message": self._newest.text
            if self._needs and self._newest is not None
            else "every pool has what it needs",
            "lastTransitionTime": text if changed or mine is None else mine.get("lastTransitionTime", text),
        }
        self._told = now if self._needs else float("-inf")
        return [*others, condition]
