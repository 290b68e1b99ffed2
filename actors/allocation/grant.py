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
    """One address that the request now holds. `fresh`: this request recorded it, no earlier one; `inherited`: it was
    the pod's before; `suspect`: this last holder of it may still use it."""

    slot: Slot
    value: int
    record: Record
    fresh: bool
    inherited: bool
    suspect: Suspect | None = None

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
