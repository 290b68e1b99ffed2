"""Why a pool has no address to give, in words: what became of each of its addresses, and what would bring one back. Pure.

What must always hold: an address that cannot be given although nobody has it is named and never counted as in use, because the
remedy is another one; whatever there is of such addresses, a refusal names a bounded number of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from actors.decisions.brief import exhausted
from actors.errors import InvalidObject, PoolUsedUp
from actors.resources.addresses import format_address
from actors.resources.blocks.block import block_name, span_of
from actors.resources.blocks.quarantine import Quarantine
from actors.resources.intervals import IntervalSet
from actors.resources.ippool import IPPool

_NAMED_AS_RETURNING = 3
"""How many addresses on their way back a refusal names."""
_NAMED_IN_REFUSAL = 16
"""How many addresses that are set aside, and blocks that are left out, a refusal names."""


@dataclass(frozen=True, slots=True)
class PoolShortage:
    """A pool that has nothing to give, at one moment."""

    pool: IPPool
    """The pool."""
    usable: IntervalSet
    """What it may give out, without what is reserved."""
    quarantined: Sequence[tuple[int, Quarantine]]
    """Addresses that are set aside."""
    left_out: Mapping[int, InvalidObject]
    """Blocks that cannot be read or written, by their first address, and why."""
    unjudged: Mapping[int, str]
    """Addresses whose record cannot be judged, and why."""
    returning: Mapping[int, str]
    """Addresses on their way back, and why they are."""
    now: float
    """Unix seconds."""

    def refusal(self, pod: str, *, waited: float | None = None, worth_waiting: bool = False) -> PoolUsedUp:
        """What a pod is told. `waited`: for how many seconds it waited, None where it did not; `worth_waiting`: whether an
        address is on its way back that nobody waits for yet."""
        usable, family = self.usable, self.pool.family
        left_out = sorted(self.left_out)
        lost = span_of(left_out).intersect(usable)
        unjudged = sorted(value for value in self.unjudged if value in usable and value not in lost)
        why = exhausted(
            usable.size,
            quarantine=len(self.quarantined),
            lost=lost.size,
            blocks=[block_name(family, base) for base in left_out],
            unjudged=len(unjudged),
            automatic=self.pool.auto_created,
        )
        clause = self._waited(waited)
        refusal = PoolUsedUp(
            f"pool {self.pool.name} has no free address for pod {pod}: {why}{clause}",
            details=tuple(f"pool {self.pool.name}: {line}" for line in self._details(left_out, unjudged)),
        )
        unusable = lost.size + len(unjudged)
        refusal.pool, refusal.quarantined, refusal.unusable = (
            self.pool.name,
            len(self.quarantined),
            unusable,
        )
        refusal.in_use = usable.size - len(self.quarantined) - unusable
        refusal.reserved = self.pool.available.size - usable.size
        refusal.worth_waiting, refusal.waited = worth_waiting, clause
        return refusal

    def _details(self, left_out: Sequence[int], unjudged: Sequence[int]) -> list[str]:
        family = self.pool.family
        lines = [
            f"{format_address(family, value)} is set aside for {quarantine.until - self.now:.0f} s: {quarantine.why}"
            for value, quarantine in self.quarantined[:_NAMED_IN_REFUSAL]
        ]
        lines += [str(self.left_out[base]) for base in left_out[:_NAMED_IN_REFUSAL]]
        lines += [
            f"{format_address(family, value)} cannot be given: {unjudged_rule(family, value, self.unjudged[value])}"
            for value in unjudged[:_NAMED_IN_REFUSAL]
        ]
        return lines

    def _waited(self, waited: float | None) -> str:
        """A clause on addresses on their way back."""
        returning = sorted(self.returning.items())
        names = ", ".join(
            f"{format_address(self.pool.family, value)} ({why})"
            for value, why in returning[:_NAMED_AS_RETURNING]
        )
        more = len(returning) - _NAMED_AS_RETURNING
        names += f" and {more} more" if more > 0 else ""
        if waited is not None:
            return f"; the request waited {waited:.1f} s" + (f" for {names}" if names else "")
        return f"; on their way back: {names}" if names else ""


def unjudged_rule(family: int, value: int, why: str) -> str:
    """Why an address whose record cannot be judged is not given, and what frees it."""
    return (
        f"its record cannot be judged ({why}), so nobody knows who has it; once nothing uses it, "
        f"`orbweaver ip release {format_address(family, value)} --force` frees it"
    )
