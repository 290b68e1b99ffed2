"""For how long each node has nobody who gives out an address, while one side stops and the other one starts.

What must always hold: a time that was not seen from its beginning is not told.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from cni.takeover.reading import Tell


class Gap:
    """The time without an agent, by node, as who swaps the sides sees it: from the moment at which the agent is told to end
    to the one at which the other side's is seen to be ready."""

    def __init__(self, tell: Tell, clock: Callable[[], float] = time.monotonic) -> None:
        self._tell, self._clock = tell, clock
        self._since: dict[str, float] = {}
        self._lasted: dict[str, float] = {}

    def begins(self, nodes: Iterable[str]) -> None:
        """The agents of these nodes are about to be told to end."""
        now = self._clock()
        for node in nodes:
            self._since.setdefault(node, now)

    def ends(self, nodes: Iterable[str]) -> None:
        """Agents are ready on these nodes; each is told of once."""
        now = self._clock()
        for node in sorted(nodes):
            if node in self._since and node not in self._lasted:
                self._lasted[node] = now - self._since[node]
                self._tell(f"node {node}: served again, after {self._lasted[node]:.1f} s without an agent")

    def summary(self) -> str:
        """How long it was at most, of the nodes that were seen all along."""
        if not self._lasted:
            return "how long nodes were without an agent is not known: they were before this run began"
        longest = max(self._lasted, key=lambda node: self._lasted[node])
        return (
            f"{len(self._lasted)} nodes were without an agent for {self._lasted[longest]:.1f} s at most (node {longest});"
            " pods that started meanwhile wait for the kubelet's next attempt"
        )
