"""One address with the record of who has it: what is asked for, judged, released and listed.

What must always hold: a value; where it is recorded follows from the address alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from actors.resources.addresses import Address
from actors.resources.blocks.record import Record


@dataclass(frozen=True, slots=True)
class Allocation:
    """One address that is, or may be, recorded."""

    family: int
    value: int
    record: Record

    @property
    def address(self) -> Address:
        return Address(self.family, self.value)

    @property
    def per_sandbox(self) -> tuple[Allocation, ...]:
        """The same for each sandbox that uses the address, with a record whose fence names that one."""
        return tuple(Allocation(self.family, self.value, record) for record in self.record.per_sandbox)
