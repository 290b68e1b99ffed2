"""What forbids a takeover whoever it is from: pools that cannot be, and addresses that are two pods' or no pool's.

What must always hold: what is judged here is what the takeover would write, by the rules that would refuse it then.
"""

from __future__ import annotations

from dataclasses import replace

from actors.errors import InvalidObject
from actors.resources.admission import admit
from actors.resources.ippool import IPPool
from cni.takeover.reading import ForeignAllocation, Reading

_NAMED = 5
"""Of many alike, so many are named."""


def vetted(reading: Reading) -> Reading:
    """The reading with its problems completed."""
    pools: dict[str, IPPool] = {}
    problems = list(reading.problems)
    for obj in reading.pools:
        name = obj["metadata"]["name"]
        try:
            # One that is there already is judged as an update that changes nothing.
            pools[name] = IPPool.from_object(
                admit(obj, obj if obj["metadata"].get("resourceVersion") else None)
            )
        except InvalidObject as error:
            problems.append(f"pool {name} would be refused: {error}; correct it where it is now")
    problems += _twice(reading.allocations)
    problems += _nowhere(reading, pools)
    return replace(reading, problems=tuple(dict.fromkeys(problems)))


def _twice(allocations: tuple[ForeignAllocation, ...]) -> list[str]:
    """A sentence for each address that more than one pod or container has."""
    holders: dict[tuple[int, int], ForeignAllocation] = {}
    problems = []
    for allocation in allocations:
        first = holders.setdefault((allocation.family, allocation.value), allocation)
        if (first.pod, first.uid, first.container) != (allocation.pod, allocation.uid, allocation.container):
            problems.append(
                f"{allocation.text} is recorded twice, for {_holder(first)} ({first.where}) and for {_holder(allocation)} "
                f"({allocation.where}): find out who uses it, and take the other record away where it is"
            )
    return problems


def _nowhere(reading: Reading, pools: dict[str, IPPool]) -> list[str]:
    """A sentence for what has an address out of a pool that is not there, or that does not have this address."""
    listed = {obj["metadata"]["name"] for obj in reading.pools}
    outside = [
        allocation
        for allocation in reading.allocations
        if (
            not pools[allocation.pool].subnet.contains(allocation.value)
            if allocation.pool in pools
            else allocation.pool not in listed
        )
    ]
    problems = [
        f"{allocation.text} of {_holder(allocation)} ({allocation.where}) belongs to no pool: nothing named "
        f"{allocation.pool!r} has it in its subnet"
        for allocation in outside[:_NAMED]
    ]
    if len(outside) > _NAMED:
        problems.append(f"{len(outside) - _NAMED} more addresses belong to no pool")
    return problems


def _holder(allocation: ForeignAllocation) -> str:
    if allocation.pod:
        return f"pod {allocation.pod}"
    return f"container {allocation.container}" if allocation.container else "nobody that is named"
