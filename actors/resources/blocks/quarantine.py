"""An address that is set aside: nobody has it recorded, and yet somebody uses it, another host or its last holder.

What must always hold: until `until` nobody is granted the address who did not ask for this very one; it stays suspect
beyond that, so that whoever gets it next probes it first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from actors.errors import InvalidObject


@dataclass(frozen=True, slots=True)
class Quarantine:
    """`why`: one clause for messages, such as "02:00:00:00:00:99 answers for it". `until`: in seconds since the
    epoch. `pause`: it only waits for its last holder's end, which ends it sooner."""

    why: str
    until: float
    pause: bool = False

    def holds(self, now: float) -> bool:
        """Whether it is set aside at a moment."""
        return self.until > now

    def to_json(self) -> dict[str, Any]:
        """The form inside the block."""
        return {"why": self.why, "until": round(self.until, 3)} | ({"pause": True} if self.pause else {})

    @classmethod
    def from_json(cls, data: Any) -> Quarantine:
        """Inverse of `to_json`. Raises `InvalidObject`, `ValueError`."""
        if not isinstance(data, dict):
            raise InvalidObject(
                f"why an address is set aside must be a JSON object, not {type(data).__name__}"
            )
        return cls(str(data.get("why", "")), float(data.get("until", 0.0)), data.get("pause") is True)
