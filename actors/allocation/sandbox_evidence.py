"""What a node itself can see of its sandboxes, for whoever releases what one of them held.

What must always hold: a sandbox has ended only by evidence, its network namespace that was there and is not any more; what
cannot be seen is said to be unseen and decides nothing.
"""

from __future__ import annotations

from enum import Enum
from typing import Protocol

from actors.allocation.messages import Sandbox


class SandboxState(Enum):
    """ALIVE: its network namespace is there. ENDED: it is there no more. UNSEEN: that cannot be told on this node."""

    ALIVE = "alive"
    ENDED = "ended"
    UNSEEN = "unseen"


class SandboxEvidence(Protocol):
    """Looks at the node. Safe for several threads, and quick."""

    def began(self, sandbox: Sandbox) -> None:
        """An ADD for it begins: its namespace is the one that the runtime names now. Raises `InvalidRequest` when that is the
        host's own."""

    def deleted(self, sandbox: Sandbox) -> None:
        """A DEL of its interface was answered."""

    def state(self, container: str) -> SandboxState:
        """What can be seen of a container's sandbox at this moment."""


class NoEvidence:
    """Where nothing of the node can be seen."""

    def began(self, sandbox: Sandbox) -> None:
        """See `SandboxEvidence`."""

    def deleted(self, sandbox: Sandbox) -> None:
        """See `SandboxEvidence`."""

    def state(self, container: str) -> SandboxState:
        """See `SandboxEvidence`."""
        return SandboxState.UNSEEN
