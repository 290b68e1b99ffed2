"""The names and times that agents and controllers agree on: the Lease, the port, and how patient an agent is."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from actors.cluster.lease import Timing
from actors.decisions.settings import AGENT_NAMESPACE

LEASE = "orbweaver-controller"
AGENT = "orbweaver-agent"
"""The agents' service account: whose tokens the leader takes."""
AUDIENCE = "orbweaver-leader"
"""Whom those tokens are for: one for the API server says nothing here, nor one of these there."""
TOKEN = Path("/var/run/secrets/orbweaver/token")
"""Where an agent finds its token; the kubelet writes another one before it expires."""
PORT = 5722
NAMESPACE = AGENT_NAMESPACE


@dataclass(frozen=True, slots=True)
class Leadership:
    """`namespace`: of the Lease and of the agents. `budget`: seconds in which a leader must show a sign of life. `patience`:
    seconds that an agent waits for an answer of a leader that lives; never more than half of the time that a request has.
    `cooldown`: seconds for which an agent works by itself after a leader that was there did not answer; it doubles, up to a
    minute, while that repeats. `renew`: seconds, about, after which an agent shows the leader anew who it is, on a connection
    that takes the place of the one before; the kubelet has replaced the token by then, if that was due. `lasting`: seconds
    for which a leader takes messages of an agent that has not done so."""

    namespace: str = NAMESPACE
    timing: Timing = field(default_factory=Timing)
    port: int = PORT
    budget: float = 1.0
    patience: float = 6.0
    cooldown: float = 5.0
    token: Path = TOKEN
    renew: float = 600.0
    lasting: float = 1200.0
