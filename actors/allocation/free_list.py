"""Which address of a pool comes next: what is believed to be free, and in which order it goes.

The order. An address that was never seen in use goes first, the lowest one. When there is none left, the one that was
released longest ago goes, so that neighbours and firewalls have time to forget it. A release is forgotten after a while
(`memory`, as long as a block remembers it), and the address counts as never used again: otherwise a large pool would
spread over ever more blocks. Where other processes allocate from the pool too and were faster, the search begins at a
block drawn by lot, and one of the few released longest ago is drawn: all of them taking the same order would ask for
the same address each time.

    never used ─┐                  ┌─ granted ──► in use (not in the list)
                ├─ choose, take ──► pending
    released ───┘                  └─ failed, found taken and released, quarantined ──► released

What must always hold:

* An address is in one of these states; one that is pending is chosen for nobody else until `answered`.
* A quarantined address is chosen for nobody before its time, and after it goes by that time, as if released then.
* Nothing here is the truth: the blocks are. A wrong belief costs whoever asks a retry.
* No clock and no chance: both are passed in. Nothing enumerates the addresses of a pool.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias

from actors.allocation.messages import AddressChange
from actors.resources.blocks.block import BLOCK_SIZE, base_of
from actors.resources.blocks.quarantine import Quarantine
from actors.resources.intervals import FreeSet, IntervalSet

Draw: TypeAlias = Callable[[int], int]
"""A number below the given one, by lot, as `random.Random.randrange`."""

CHOICE_WINDOW = 8
"""Where others were faster: how many of those released longest ago one is drawn from."""


class FreeList:
    """The addresses of one pool that may be free. Times are seconds since the epoch. Not safe for several threads."""

    __slots__ = (
        "_begin_at",
        "_cooling",
        "_memory",
        "_never_used",
        "_pending",
        "_quarantine",
        "_released_at",
        "usable",
    )

    usable: IntervalSet
    """What the pool may give at all."""
    _never_used: FreeSet
    """Never seen in use, or so long ago that it is forgotten."""
    _cooling: list[tuple[float, int]]
    """A heap of (released, address); an entry counts only while `_released_at` says the same."""
    _released_at: dict[int, float]
    """When each was released, or, of a quarantined one, when that is over."""
    _quarantine: dict[int, Quarantine]
    """Why some of those in `_released_at` were quarantined; it may be over by now."""
    _pending: dict[int, float | None]
    """What Blocks are asked for, each with the moment somebody else released it meanwhile, if the Ledger said so."""
    _begin_at: int | None
    """Where the search for one never used begins; None while nobody else was faster."""

    def __init__(self, usable: IntervalSet, *, memory: float) -> None:
        """All of `usable` is never used. `memory`: seconds after which a release is forgotten."""
        self.usable = usable
        self._memory = memory
        self._pending = {}
        self._begin_at = None
        self._start_over()

    def over(self, usable: IntervalSet) -> FreeList:
        """A list of other addresses in which nothing is known but what is pending here."""
        other = FreeList(usable, memory=self._memory)
        other._pending, other._begin_at = self._pending, self._begin_at
        other._start_over()
        return other

    def _start_over(self) -> None:
        self._never_used = FreeSet(self.usable)
        self._cooling, self._released_at, self._quarantine = [], {}, {}
        for value in self._pending:
            self._never_used.discard(value)

    # What is asked.

    @property
    def pending(self) -> Mapping[int, float | None]:
        """What Blocks are asked for at this moment."""
        return self._pending

    def has_none(self, now: float) -> bool:
        """Whether `choose` would find nothing."""
        return not self.ready(1, now)

    def ready(self, most: int, now: float) -> int:
        """How many `choose` would find, one after the other; `most` stands for that many and more."""
        number = min(self._never_used.size, most)
        for value in self._released_at:
            if number >= most:
                break
            number += not self._is_quarantined(value, now)
        return number

    def quarantined(self, now: float) -> list[tuple[int, Quarantine]]:
        """What is not given out before its time, and why, lowest first."""
        return sorted(
            (value, quarantine)
            for value, quarantine in self._quarantine.items()
            if quarantine.holds(now) and value in self._released_at
        )

    def _is_quarantined(self, value: int, now: float) -> bool:
        quarantine = self._quarantine.get(value)
        return quarantine is not None and quarantine.holds(now)

    # What is taken out.

    def choose(self, now: float, draw: Draw | None = None) -> int | None:
        """Take the next address; it is pending then. None when there is none. `draw`: others allocate too."""
        self._forget(now - self._memory)
        value = self._take_never_used()
        if value is None and self._released_at:
            window = 1 if draw is None or self._begin_at is None else 1 + draw(CHOICE_WINDOW)
            value = self._take_released(now, window)
        if value is not None:
            self._pending[value] = None
        return value

    def take(self, value: int) -> bool:
        """Take this very address, whatever is known of it; False if it is not usable, or pending."""
        if value not in self.usable or value in self._pending:
            return False
        self._drop(value)
        self._pending[value] = None
        return True

    def answered(self, value: int) -> float | None:
        """The Block has answered for a pending address, which is in no state now; when somebody released it
        meanwhile, if that is known."""
        return self._pending.pop(value, None)

    def leave_out(self, base: int) -> None:
        """Leave the addresses of a block alone, until all is learned anew."""
        self._never_used.discard_range(base, base + BLOCK_SIZE - 1)
        for value in range(base, base + BLOCK_SIZE):
            self._released_at.pop(value, None)
            self._quarantine.pop(value, None)

    def look_elsewhere(self, draw: Draw) -> None:
        """Somebody else was faster: begin at a block with an address never used, drawn by lot."""
        self._begin_at = 0
        number = draw(self._never_used.size or 1)
        for low, high in self._never_used:
            if number <= high - low:
                self._begin_at = base_of(low + number)
                return
            number -= high - low + 1

    def _forget(self, horizon: float) -> None:
        while self._cooling and self._cooling[0][0] <= horizon:
            at, value = heapq.heappop(self._cooling)
            if self._released_at.get(value) == at:
                self._drop(value)
                self._never_used.add(value)

    def _take_never_used(self) -> int | None:
        free = self._never_used
        value = None if self._begin_at is None else free.lowest_from(self._begin_at)
        if value is None:
            return free.take_lowest()
        free.discard(value)
        return value

    def _take_released(self, now: float, window: int) -> int | None:
        """The last of the `window` addresses released longest ago that are not quarantined."""
        passed_over: list[tuple[float, int]] = []
        chosen: tuple[float, int] | None = None
        while self._cooling and window:
            entry = heapq.heappop(self._cooling)
            at, value = entry
            if self._released_at.get(value) != at or (passed_over and passed_over[-1] == entry):
                continue  # it was taken since, perhaps released at the same moment again
            passed_over.append(entry)
            if not self._is_quarantined(value, now):
                chosen = entry
                window -= 1
        for entry in passed_over:
            if entry != chosen:
                heapq.heappush(self._cooling, entry)
        if chosen is None:
            return None
        self._drop(chosen[1])
        return chosen[1]

    # What is put in.

    def cool(self, value: int, at: float) -> None:
        """It is free since `at`."""
        if value not in self.usable:
            return
        self._never_used.discard(value)
        self._quarantine.pop(value, None)
        if self._released_at.get(value) != at:
            self._released_at[value] = at
            heapq.heappush(self._cooling, (at, value))

    def quarantine(self, value: int, quarantine: Quarantine) -> None:
        """It is free, and goes to nobody before `quarantine.until` who does not `take` it."""
        if value in self.usable:
            self.cool(value, quarantine.until)
            self._quarantine[value] = quarantine

    def learn(self, changes: Iterable[AddressChange], now: float, *, whole: bool) -> None:
        """Believe what the Ledger tells. `whole`: that is all there is, and everything else was never used."""
        if whole:
            self._start_over()
        for change in changes:
            value = change.value
            if not change.is_free:
                self._drop(value)
            elif value in self._pending:
                self._pending[value] = change.released
            elif change.quarantine is not None and change.quarantine.holds(now):
                self.quarantine(value, change.quarantine)
            elif change.released is not None:
                self.cool(value, change.released)
            elif value in self._released_at:
                self._quarantine.pop(value, None)
            elif value in self.usable:
                self._never_used.add(value)

    def _drop(self, value: int) -> None:
        """It is in no state any more but, perhaps, pending."""
        self._never_used.discard(value)
        self._released_at.pop(value, None)
        self._quarantine.pop(value, None)
