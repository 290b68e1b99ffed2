"""What another IPAM holds, in one form whoever it is: its pools as Orbweaver would have them, and who has which address.

What must always hold: a reading has everything that the other one gave to somebody, or a problem that says what could
not be read, so that no address is taken for free that is in use. Reading changes nothing anywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

from actors.resources.addresses import format_address
from actors.store.contract import Object

Tell: TypeAlias = Callable[[str], None]
"""Takes one line about what is being done, for the person who waits for it."""


@dataclass(frozen=True, slots=True)
class ForeignAllocation:
    """One address that another IPAM gave to somebody. What it does not know is empty."""

    family: int
    """4 or 6."""
    value: int
    """The address as a number."""
    pool: str
    """The name of the pool among `Reading.pools` that it is out of."""
    where: str
    """Where it is written, for people: `SpiderIPPool blue`, `node n1, /var/lib/cni/networks/blue/10.6.0.7`."""
    pod: str = ""
    """`namespace/name`."""
    uid: str = ""
    """Of the pod."""
    container: str = ""
    """The sandbox's id, as CNI_CONTAINERID has it."""
    interface: str = ""
    """In the pod, as CNI_IFNAME has it."""
    node: str = ""
    """Where the pod runs."""
    network: str = ""
    """What CNI calls the network that it was given for, where that is sure."""

    @property
    def text(self) -> str:
        return format_address(self.family, self.value)


@dataclass(frozen=True, slots=True)
class Reading:
    """Everything that another IPAM holds, as it was read at one moment."""

    title: str
    """What was read, for people: `Spiderpool in namespace kube-system`."""
    pools: tuple[Object, ...] = ()
    """SpiderIPPools as Orbweaver would have them; those that exist already as they are."""
    allocations: tuple[ForeignAllocation, ...] = ()
    """Who has which address."""
    differences: tuple[str, ...] = ()
    """A sentence for each thing that will be otherwise than now, and what to do if it matters."""
    problems: tuple[str, ...] = ()
    """A sentence with its remedy for each thing that forbids the takeover."""


class Source(Protocol):
    """Another IPAM that addresses can be taken over from."""

    def read(self) -> Reading:
        """Everything that it holds, changing nothing. Raises what the store raises, and `InvalidObject` where what
        holds it cannot be read at all."""
        ...

    def take(self, reading: Reading, tell: Tell) -> None:
        """Put Orbweaver in its place; `reading` is what the person was shown. May be repeated after it was interrupted
        anywhere. Raises `OrbweaverError` when it cannot go on, with what to do."""
        ...

    def give_back(self, tell: Tell) -> None:
        """Put it back in Orbweaver's place, with every address that is in use. May be repeated likewise."""
        ...


@runtime_checkable
class ReturnReader(Protocol):
    """A source that also knows before the way back what it hands over."""

    def read_back(self) -> Reading:
        """What would be given back, and what forbids it, changing nothing."""
        ...
