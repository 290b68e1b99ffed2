"""What pools ask about addresses on their way back; `actors/reclaim/leaving_pods.py` answers it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from actors.resources.blocks.record import Record


class Departures(Protocol):
    """Who is about to give its addresses back, as far as the caches of this process tell."""

    def pods(self) -> tuple[str, ...]:
        """The pods `namespace/name` that are Terminating, have ended, are gone, or are being stopped."""

    def why(self, record: Record) -> str | None:
        """Why the address of this record is on its way back, in words; None if it stays."""

    def stopping(self, pods: Sequence[str]) -> AbstractContextManager[None]:
        """While a DEL for one of these pods is served."""


class NoDepartures:
    """Nothing is known of any pod."""

    def pods(self) -> tuple[str, ...]:
        return ()

    def why(self, record: Record) -> str | None:
        return None

    def stopping(self, pods: Sequence[str]) -> AbstractContextManager[None]:
        return nullcontext()
