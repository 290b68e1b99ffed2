"""The names and times that agents and controllers agree on: the Lease, the port, and how patient an agent is."""

from __future__ import annotations

from dataclasses import dataclass, field

from actors.cluster.lease import Timing

LEASE = "orbweaver-controller"
AUTHORITY = "orbweaver-leader-ca"
"""Secret with the certificate authority and its key, for controllers only."""
CLIENT = "orbweaver-leader-client"
"""Secret with what agents show and trust."""
PORT = 5722
NAMESPACE = "orbweaver-system"


@dataclass(frozen=True, slots=True)
class Leadership:
    """`namespace`: of the Lease and the Secrets. `budget`: seconds in which a leader must show a sign of life. `patience`:
    seconds that an agent waits for an answer of a leader that lives; never more than half of the time that a request has.
    `cooldown`: seconds for which an agent works by itself after a leader that was there did not answer; it doubles, up to a
    minute, while that repeats."""

    namespace: str = NAMESPACE
    timing: Timing = field(default_factory=Timing)
    port: int = PORT
    budget: float = 1.0
    patience: float = 6.0
    cooldown: float = 5.0
