"""The NodeCni actor: tells the leader which kind of cluster network this node has.

What must always hold: a new leader hears of it at once, and again every minute, so that what it does not hear of for some
minutes is a node without an agent; what changes on the node is told within that minute.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from actors.runtime import Actor, ActorContext, message

TELL = 60.0
"""Seconds between two looks."""


class NodeCniActor(Actor):
    """One per agent, named `node-cni/local`. `look`: the kind, empty when it is not known; `tell`: sends it to the leader,
    if there is one."""

    def __init__(
        self, context: ActorContext, *, look: Callable[[], str], tell: Callable[[str], object]
    ) -> None:
        super().__init__(context)
        self._look = look
        self._tell = tell

    def on_activate(self) -> None:
        self.after(TELL * (0.75 + random.random() / 2), self._again)

    @message
    def linked(self) -> None:
        """There is a leader, perhaps another one, who does not know of this node yet."""
        self._now()

    def _again(self) -> None:
        self._now()
        self.after(TELL * (0.75 + random.random() / 2), self._again)

    def _now(self) -> None:
        if kind := self._look():
            self._tell(kind)
