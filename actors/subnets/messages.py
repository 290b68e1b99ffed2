"""What is said to a SubnetActor, and what it answers.

What must always hold: every value here is frozen and registered with the wire, so that it means the same in another
process; that a pool cannot be had is an answer, not an exception.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from actors.decisions.auto_pool import Pairs
from actors.resources.application import Application
from actors.runtime import wire_value


@dataclass(frozen=True, slots=True)
class AutoPool:
    """A pool as an application needs it now, out of one subnet. Asking for it again changes nothing; with another `wanted`
    the pool grows, or shrinks as far as its addresses are not used.

    `labels`, `annotations` and `affinity` (`spec.podAffinity.matchLabels`) are the application's part of the object; what
    is the subnet's (its name, family, CIDR, gateway and routes) is added, and what others wrote beside it stays."""

    name: str
    """Of the SpiderIPPool."""
    family: int
    """Of its addresses, 4 or 6."""
    owner: Application
    """The application that it is for."""
    wanted: int
    """Addresses."""
    labels: Pairs
    """The application's part of the object's labels."""
    annotations: Pairs
    """Likewise."""
    affinity: Pairs
    """Labels that its pods have (`spec.podAffinity.matchLabels`)."""


@dataclass(frozen=True, slots=True)
class Ensured:
    """The pool is stored and has `addresses`: `wanted`, or more where pods still use those that are to go."""

    pool: str
    addresses: int


@dataclass(frozen=True, slots=True)
class Exhausted:
    """The subnet has not enough free addresses, and nothing was changed. `required`: how many more the pool needs; `left`:
    how many there are; `holders`: the pools that have most, with their numbers, the largest first."""

    subnet: str
    required: int
    left: int
    holders: tuple[tuple[str, int], ...]

    @property
    def text(self) -> str:
        """For people."""
        most = ", ".join(f"{pool} ({count})" for pool, count in self.holders)
        return (
            f"SpiderSubnet {self.subnet} has too few free addresses: required {self.required}, left {self.left}"
            + (f"; most are in the pools {most}" if most else "")
            + "; add addresses to its spec.ips, or delete pools that nobody needs"
        )


@dataclass(frozen=True, slots=True)
class SubnetRefused:
    """Why the subnet cannot make the pool at all, and what would help."""

    reason: str


EnsureAnswer: TypeAlias = Ensured | Exhausted | SubnetRefused

for _value in (Application, AutoPool, Ensured, Exhausted, SubnetRefused):
    wire_value(_value)
