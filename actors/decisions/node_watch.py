"""Whether a sandbox's own node looks after it: what the leader believes of an agent that tells so.

Apart from the actor that keeps it and the rules that judge by it, because the rules import no actor.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class NodeWatch:
    """`until` when the release of what a sandbox holds is left to its node's agent, in seconds since the epoch (0: nobody
    looks after it); `heard`: the agent said so since this leader began."""

    until: float = 0.0
    heard: bool = False


NOBODY = NodeWatch()
