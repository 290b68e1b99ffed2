"""Why a pool was not taken."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Refusal:
    """`rule` is one or two words for counting ("node affinity"); `reason` says what did not fit and what
    would."""

    pool: str
    rule: str
    reason: str

    def __str__(self) -> str:
        return f"pool {self.pool} refused: {self.rule}: {self.reason}"
