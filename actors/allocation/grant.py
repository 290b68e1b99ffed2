"""One address that a request holds while its ADD is under way."""

from __future__ import annotations

from dataclasses import dataclass

from actors.decisions.inherit import is_fixed
from actors.decisions.plan import Slot
from actors.resources.blocks.record import Record
from actors.resources.blocks.suspect import Suspect


@dataclass(slots=True)
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
    def kept(self) -> bool:
        """Whether the pod is entitled to this very address, because it had it before."""
        return is_fixed(self.record) and (self.inherited or not self.fresh)
