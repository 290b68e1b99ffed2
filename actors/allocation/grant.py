"""One address that a request holds while its ADD is under way."""

from __future__ import annotations

from dataclasses import dataclass

from actors.decisions.inherit import is_fixed
from actors.decisions.plan import Slot
from actors.resources.addresses import Address
from actors.resources.blocks.allocation import Allocation
from actors.resources.blocks.record import Record
from actors.resources.blocks.suspect import Suspect


@dataclass(frozen=True, slots=True)
class Grant:
    """One address that the request now holds."""

    slot: Slot
    """What it serves."""
    value: int
    """The address as a number, of the slot's family."""
    record: Record
    """What the block has of it, with the pool that gave it."""
    fresh: bool
    """This request recorded it, and no earlier one: it goes back when the request fails."""
    inherited: bool
    """It was the pod's before."""
    suspect: Suspect | None = None
    """The last holder of it, who may still use it."""

    @property
    def address(self) -> Address:
        return Address(self.slot.family, self.value)

    @property
    def allocation(self) -> Allocation:
        """What is recorded of it."""
        return Allocation(*self.address, self.record)

    @property
    def kept(self) -> bool:
        """Whether the pod is entitled to this very address, because it had it before."""
        return is_fixed(self.record) and (self.inherited or not self.fresh)
