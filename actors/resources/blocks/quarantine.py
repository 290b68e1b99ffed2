"""An address that is set aside: nobody has it recorded, and yet somebody uses it, another host or its last holder.

What must always hold: until `until` nobody is granted the address who did not ask for this very one; it stays suspect
beyond that, so that whoever gets it next probes it first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from actors.errors import InvalidObject

DEFAULT = 300.0
"""Seconds for which an address is set aside where nobody says otherwise."""
LONGEST = 2 * 86_400.0
"""Seconds; twice what settings admit, for clocks that differ."""


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
        """Inverse of `to_json`. Raises `InvalidObject`."""
        if not isinstance(data, dict):
            raise InvalidObject(
                f"why an address is set aside must be a JSON object, not {type(data).__name__}"
            )
        why, until = data.get("why", ""), data.get("until", 0.0)
        if not isinstance(why, str) or len(why) > _LONGEST or not why.isprintable():
            raise InvalidObject(
                f"why an address is set aside must be a text of at most {_LONGEST} characters"
            )
        if isinstance(until, bool) or not isinstance(until, int | float) or not 0 <= until <= _LAST_MOMENT:
            raise InvalidObject("until when an address is set aside must be a moment")
        return cls(why, float(until), data.get("pause") is True)

    @classmethod
    def unreadable(cls, released: float) -> Quarantine:
        """In the place of one that cannot be read, of an address that was released at that moment."""
        return cls("why it is set aside cannot be read", released + DEFAULT)

    def lasts_too_long(self, released: float) -> bool:
        """Whether it ends later than anybody could have wished who set it aside when it was released."""
        return self.until > released + LONGEST


_LONGEST = 1024
_LAST_MOMENT = 1e11
"""Seconds since the epoch, in the year 5138."""
