"""What of a plan is not so: ADD and CHECK compare in this one way; ADD makes what is missing, CHECK tells it.

What must always hold: pure; where everything is as desired, nothing is missing.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from cni.dataplane.state import Desired, Neighbour, PolicyRule, Route


@dataclass(frozen=True, slots=True)
class Found:
    """What there is in one namespace. `addresses`: each with the interface that has it, as in `Desired`."""

    routes: Collection[Route] = ()
    rules: Collection[PolicyRule] = ()
    neighbours: Collection[Neighbour] = ()
    addresses: Collection[tuple[str, str]] = ()


def difference(desired: Desired, present: Found) -> Desired:
    """What is missing, in the order in which it is desired, and what should not be there. Sysctls are not compared: they are
    written whole, and told apart."""
    return Desired(
        addresses=tuple(address for address in desired.addresses if address not in present.addresses),
        routes=tuple(route for route in desired.routes if route not in present.routes),
        rules=tuple(rule for rule in desired.rules if rule not in present.rules),
        neighbours=tuple(
            neighbour for neighbour in desired.neighbours if neighbour not in present.neighbours
        ),
        gone=desired.gone,
    )


def told(where: str, missing: Desired) -> list[str]:
    """A line for each thing that is not so. Addresses are left out: whether the veth has one depends on what the host's are
    now, which is no fault of the pod's."""
    return [
        *(f"{where}: route {route}" for route in missing.routes),
        *(f"{where}: rule {rule}" for rule in missing.rules),
        *(f"{where}: neighbour {neighbour}" for neighbour in missing.neighbours),
        *(f"{where}: should not have route {route}" for route in missing.gone),
    ]
