"""Addresses that were recorded for an interface before its own ADD asks for them.

What must always hold: what stands here is durable in its block, for this very container and interface; it is answered to
an ADD of the same network and pod, and stands here only while the request that recorded it is under way. Safe to use from
any thread.
"""

from __future__ import annotations

from actors.allocation.messages import AddRequest, AddResult


class ReservedAddresses:
    """`kept`: by container and interface; nearly always empty."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], tuple[AddRequest, AddResult]] = {}

    def keep(self, request: AddRequest, result: AddResult) -> None:
        """The answer to the ADD of an interface."""
        self.kept[request.sandbox.container, request.sandbox.interface] = (request, result)

    def answer_to(self, request: AddRequest) -> AddResult | None:
        """What was recorded for an ADD, if it asks for just that."""
        kept = self.kept.get((request.sandbox.container, request.sandbox.interface))
        if kept is None or kept[0] != request:
            return None
        return kept[1]

    def forget(self, container: str) -> None:
        """The request that recorded them is over."""
        for key in [key for key in list(self.kept) if key[0] == container]:
            self.kept.pop(key, None)
