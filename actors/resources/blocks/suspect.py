"""A suspect address: it was taken from its last holder by force, and that one may still use it.

What must always hold: whoever gets a suspect address probes it first. What answers is the last holder until something else
is shown (another MAC than the one that it had): then the address waits for that holder's end, in short and growing pauses.
The end of the last holder's sandbox, told by its DEL or seen on its node, ends the suspicion at once.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

from actors.errors import InvalidObject
from actors.resources.blocks.record import Fence, Record

PAUSE_MOST = 10.0
"""Seconds, at most, until an address is tried again that its last holder answered for."""


@dataclass(frozen=True, slots=True)
class Suspect:
    """Why an address is suspect: its last holder, as far as it is known. The names are empty where some other host uses it."""

    container: str = ""
    """Of the sandbox that it was taken from."""
    pod: str = ""
    """That sandbox's, `namespace/name`."""
    node: str = ""
    """Where that runs, if it does."""
    interface: str = ""
    """The interface in it that had the address."""
    network: str = ""
    """The CNI network of that interface."""
    mac: str = ""
    """Its MAC, empty where nobody learned it."""
    answers: int = 0
    """How often a probe heard that holder since."""

    @classmethod
    def of(cls, record: Record, fence: Fence) -> Suspect:
        """The mark for what the sandbox leaves that the fence admits."""
        holder = next((view for view in record.per_sandbox if fence.admits(view)), record)
        return cls(holder.container, holder.pod, holder.node, holder.interface, holder.network, holder.mac)

    def explains(self, mac: str) -> bool:
        """Whether an answer by this MAC is the last holder's, as far as anybody can tell."""
        return bool(self.pod) and (not self.mac or self.mac == mac)

    def heard(self) -> Suspect:
        """The mark after a probe heard the last holder."""
        return replace(self, answers=self.answers + 1)

    @property
    def pause(self) -> float:
        """Seconds for which the address is left alone after the next answer of its last holder."""
        return min(PAUSE_MOST, 2.0 ** min(self.answers, 10))

    def to_json(self) -> dict[str, Any]:
        """The form inside the block; what is empty is left out."""
        return {name: value for name in _FIELDS if (value := getattr(self, name))}

    @classmethod
    def from_json(cls, data: Any) -> Suspect:
        """Inverse of `to_json`. Raises `InvalidObject`."""
        if not isinstance(data, dict):
            raise InvalidObject(
                f"what is known of a suspect address must be a JSON object, not {type(data).__name__}"
            )
        answers = data.get("answers", 0)
        if isinstance(answers, bool) or not isinstance(answers, int) or not 0 <= answers <= _MOST_ANSWERS:
            raise InvalidObject(f"{answers!r:.40} is no number of answers of a last holder")
        texts = {name: data.get(name, "") for name in _FIELDS if name != "answers"}
        for name, text in texts.items():
            if not isinstance(text, str) or len(text) > _LONGEST or not text.isprintable():
                raise InvalidObject(
                    f"{name} of a suspect address is no text that can be shown, of {_LONGEST} bytes"
                )
        return cls(**texts, answers=answers)


_MOST_ANSWERS = 1_000_000_000
_LONGEST = 512
"""Characters of a text: more than a record's, from which it is taken, may have."""
_FIELDS = tuple(field.name for field in fields(Suspect))
