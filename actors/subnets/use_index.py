"""What the blocks say of one subnet's addresses, kept up change by change, as the Ledger tells it.

What must always hold: after any changes it says what an index made anew would say. No I/O, no clock.
"""

from __future__ import annotations

from collections.abc import Iterable

from actors.allocation.messages import AddressChange
from actors.decisions.subnet_share import KnownUse
from actors.resources.blocks.quarantine import Quarantine
from actors.resources.intervals import FreeSet
from actors.subnets.shares import SubnetUse


class UseIndex:
    """Of the addresses that it was told of. Not safe for several threads."""

    __slots__ = ("_holders", "_of_pool", "_quarantines", "_released", "_seen", "_used")

    _used: FreeSet
    """Recorded, or of a record that cannot be judged."""
    _seen: FreeSet
    """Released, and not used since."""
    _released: dict[int, float]
    """When each of those was."""
    _quarantines: dict[int, Quarantine]
    """Why some addresses are not given out although they are free."""
    _holders: dict[int, str]
    """The pool that each recorded address was recorded for."""
    _of_pool: dict[str, FreeSet]
    """What is recorded out of each pool."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Nothing is known."""
        self._used, self._seen = FreeSet(), FreeSet()
        self._released, self._quarantines, self._holders, self._of_pool = {}, {}, {}, {}

    def learn(self, changes: Iterable[AddressChange], *, whole: bool) -> None:
        """Believe what the Ledger tells. `whole`: that is all there is."""
        if whole:
            self.forget()
        for change in changes:
            self._forget(change.value)
            self._note(change)

    def _forget(self, value: int) -> None:
        self._used.discard(value)
        self._seen.discard(value)
        self._released.pop(value, None)
        self._quarantines.pop(value, None)
        pool = self._holders.pop(value, None)
        if pool is not None:
            self._of_pool[pool].discard(value)
            if not self._of_pool[pool].size:
                del self._of_pool[pool]

    def _note(self, change: AddressChange) -> None:
        value = change.value
        if not change.is_free:
            self._used.add(value)
            if change.record is not None:
                self._holders[value] = change.record.pool
                self._of_pool.setdefault(change.record.pool, FreeSet()).add(value)
            return
        if change.quarantine is not None:
            self._quarantines[value] = change.quarantine
        if change.released is not None:
            self._seen.add(value)
            self._released[value] = change.released

    def at(self, now: float) -> SubnetUse:
        """What is known, at a time in seconds since the epoch."""
        aside = ((value, value) for value, why in self._quarantines.items() if why.holds(now))
        used = self._used.frozen().union(aside)
        known = KnownUse(used, self._seen.frozen(), self._released)
        return SubnetUse(known, {pool: held.frozen() for pool, held in self._of_pool.items()})
