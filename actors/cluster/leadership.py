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
    """How agents and controllers find a leader, and when they take it for lost. Times are in seconds."""

    namespace: str = NAMESPACE
    """Of the Lease and of the agents."""
    timing: Timing = field(default_factory=Timing)
    """Of the Lease: how long it lasts, and how often it is renewed."""
    port: int = PORT
    """On which controllers listen for agents; 0 takes a free one, which the Lease names."""
    budget: float = 1.0
    """In which a leader must show a sign of life."""
    patience: float = 6.0
    """For which an agent waits for the answer of a leader that lives; never more than half of the time that a request has."""
    cooldown: float = 5.0
    """For which an agent works by itself after a leader that was there did not answer; it doubles, up to a minute, while
    that repeats."""
    token: Path = TOKEN
    """The file with the agent's service account token, which the kubelet replaces."""
    renew: float = 600.0
    """After about so long an agent shows the leader anew who it is, on a connection that takes the place of the one before;
    the kubelet has replaced the token by then, if that was due."""
    lasting: float = 1200.0
    """For which a leader takes messages of an agent that has not done so."""
