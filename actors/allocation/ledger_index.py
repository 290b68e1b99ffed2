"""The Ledger's index of all blocks: who holds what, by address, pod, container and pool, kept up change by change.

What must always hold: after any changes it says what an index made anew from all blocks would say; nothing is kept for
a pod, container or pool that holds nothing. The changes themselves are numbered and the last ones remembered, so that a
pool asks for what is new and not for everything. No I/O, no clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import TypeAlias

from actors.allocation.messages import AddressChange, Occupancy, SuspectAddress
from actors.resources.blocks.allocation import Allocation
from actors.resources.blocks.block import BLOCK_SIZE, base_of
from actors.resources.blocks.quarantine import Quarantine
from actors.resources.blocks.record import Record
from actors.resources.blocks.suspect import Suspect

REMEMBERED = 8192
"""How many changes are kept for pools that catch up; one that is further behind reads everything anew."""

AddressKey: TypeAlias = tuple[int, int]
"""Family and address; of a block, its first one."""
Ranges: TypeAlias = tuple[tuple[int, int], ...]
"""Addresses of one family, both ends inside."""


class LedgerIndex:
    """What is recorded, as far as it was told. Not safe for several threads."""

    __slots__ = (
        "_blocks",
        "_containers",
        "_nodes",
        "_pods",
        "_pools",
        "_quarantines",
        "_recent",
        "_released",
        "_suspects",
        "_taken_from",
        "_touched",
        "records",
        "sequence",
        "unjudged",
    )

    records: dict[AddressKey, Record]
    """Who holds an address."""
    sequence: int
    """The number of the last change."""
    unjudged: dict[AddressKey, str]
    """The addresses whose record cannot be judged, and why: they are nobody's, and not free."""
    _released: dict[AddressKey, float]
    """When those without a record were released."""
    _quarantines: dict[AddressKey, Quarantine]
    """Why some of those are not given out."""
    _suspects: dict[AddressKey, Suspect]
    """Which addresses were taken from their last holders by force, whoever has them now."""
    _taken_from: dict[str, set[AddressKey]]
    """Those of each container id, for which nothing need be recorded any more."""
    _blocks: dict[AddressKey, set[int]]
    """The addresses of each block of which anything is known."""
    _pods: dict[str, set[AddressKey]]
    """What is recorded for each pod and virtual machine `namespace/name`."""
    _containers: dict[str, set[AddressKey]]
    """What is recorded for each container id."""
    _nodes: dict[str, set[AddressKey]]
    """What sandboxes of each node use: all agents ask when they start, perhaps at once."""
    _pools: dict[str, set[AddressKey]]
    """What is recorded out of each pool."""
    _touched: dict[str, int]
    """The number of the last change of each pool."""
    _recent: deque[tuple[int, int, AddressChange]]
    """The last changes, each with its number and the family."""

    def __init__(self, sequence: int = 0) -> None:
        """`sequence`: where to count from."""
        self.records, self.unjudged, self._released, self._quarantines = {}, {}, {}, {}
        self._suspects, self._taken_from = {}, {}
        self._blocks, self._pods, self._containers, self._pools = {}, {}, {}, {}
        self._nodes, self._touched = {}, {}
        self.sequence = sequence
        self._recent = deque(maxlen=REMEMBERED)

    # What it is told.

    def apply(self, family: int, changes: Iterable[AddressChange]) -> None:
        """Take note of what became of some addresses."""
        for change in changes:
            key = (family, change.value)
            before = self.records.get(key)
            known = (
                before,
                self._released.get(key),
                self._quarantines.get(key),
                self._suspects.get(key),
                self.unjudged.get(key, ""),
            )
            content = (change.record, change.released, change.quarantine, change.suspect, change.unjudged)
            if known != content:
                self._forget(key, before)
                self._note(key, change)
                self.sequence += 1
                for record in (before, change.record):
                    if record is not None:
                        self._touched[record.pool] = self.sequence
                self._recent.append((self.sequence, family, change))

    def replace(self, family: int, base: int, changes: tuple[AddressChange, ...]) -> None:
        """Take note of a whole block: what is not among `changes` is neither recorded nor remembered as released."""
        values = {change.value for change in changes}
        absent = sorted(self._blocks.get((family, base), set()) - values)
        self.apply(family, (*(AddressChange(value, None) for value in absent), *changes))

    def _forget(self, key: AddressKey, before: Record | None) -> None:
        if before is not None:
            del self.records[key]
            for pod in {before.holder, *before.pods}:
                _unlink(self._pods, pod, key)
            for container in before.containers:
                _unlink(self._containers, container, key)
            for node in _nodes_of(before):
                _unlink(self._nodes, node, key)
            _unlink(self._pools, before.pool, key)
        self.unjudged.pop(key, None)
        self._released.pop(key, None)
        self._quarantines.pop(key, None)
        suspect = self._suspects.pop(key, None)
        if suspect is not None:
            _unlink(self._taken_from, suspect.container, key)

    def _note(self, key: AddressKey, change: AddressChange) -> None:
        values = self._blocks.setdefault((key[0], base_of(change.value)), set())
        if change.suspect is not None:
            self._suspects[key] = change.suspect
            self._taken_from.setdefault(change.suspect.container, set()).add(key)
        if change.record is not None:
            self.records[key] = change.record
            for pod in {change.record.holder, *change.record.pods}:
                self._pods.setdefault(pod, set()).add(key)
            for container in change.record.containers:
                self._containers.setdefault(container, set()).add(key)
            for node in _nodes_of(change.record):
                self._nodes.setdefault(node, set()).add(key)
            self._pools.setdefault(change.record.pool, set()).add(key)
            values.add(change.value)
        elif change.unjudged:
            self.unjudged[key] = change.unjudged
            values.add(change.value)
        elif change.released is not None:
            self._released[key] = change.released
            if change.quarantine is not None:
                self._quarantines[key] = change.quarantine
            values.add(change.value)
        else:
            values.discard(change.value)

    # What it answers.

    def of_pod(self, pod: str) -> tuple[Allocation, ...]:
        """What is recorded for a pod or virtual machine."""
        return self.held(self._pods.get(pod, ()))

    def of_container(self, container: str) -> tuple[Allocation, ...]:
        """What is recorded for a container id."""
        return self.held(self._containers.get(container, ()))

    def of_sandbox(self, container: str, pods: Iterable[str]) -> tuple[Allocation, ...]:
        """What is recorded for a container id or for any of these pods or virtual machines."""
        keys: set[AddressKey] = set(self._containers.get(container, ()))
        return self.held(keys.union(*(self._pods.get(pod, ()) for pod in pods)))

    def of_node(self, node: str) -> tuple[Allocation, ...]:
        """What sandboxes of a node use, or is kept for a pod that ran there."""
        return self.held(self._nodes.get(node, ()))

    def suspects(self) -> tuple[SuspectAddress, ...]:
        """Every suspect address, lowest first."""
        return self._suspect(self._suspects)

    def taken_from(self, container: str) -> tuple[SuspectAddress, ...]:
        """What is suspect because it was taken from a container by force."""
        return self._suspect(self._taken_from.get(container, ()))

    def _suspect(self, keys: Iterable[AddressKey]) -> tuple[SuspectAddress, ...]:
        return tuple(
            SuspectAddress(family, value, self._suspects[family, value]) for family, value in sorted(keys)
        )

    def of_pool(self, pool: str) -> set[AddressKey]:
        """The addresses that are recorded out of a pool. Not to be changed."""
        return self._pools.get(pool, set())

    def held(self, keys: Iterable[AddressKey]) -> tuple[Allocation, ...]:
        """The records of these addresses, lowest first."""
        return tuple(Allocation(family, value, self.records[family, value]) for family, value in sorted(keys))

    def counts(self) -> dict[str, int]:
        """How many addresses are recorded out of each pool that has any."""
        return {pool: len(keys) for pool, keys in self._pools.items()}

    def changed_pools(self, since: int) -> tuple[str, ...]:
        """The pools with a change after the number `since`."""
        return tuple(pool for pool, at in self._touched.items() if at > since)

    def occupancy(self, family: int, ranges: Ranges, since: int) -> Occupancy:
        """What changed in the ranges after the number `since`; everything, where that is too long ago."""
        if not self.remembers(since):
            return Occupancy(self.sequence, True, tuple(self._everything_in(family, ranges)))
        last: dict[int, AddressChange] = {}
        for sequence, of_family, change in reversed(self._recent):
            if sequence <= since:
                break
            if of_family == family and change.value not in last and _within(change.value, ranges):
                last[change.value] = change
        return Occupancy(self.sequence, False, tuple(reversed(last.values())))

    def remembers(self, since: int) -> bool:
        """Whether all changes after the number `since` are remembered."""
        oldest = self._recent[0][0] if self._recent else self.sequence + 1
        return since >= oldest - 1

    def released_since(self, family: int, ranges: Ranges, since: int) -> bool:
        """Whether an address of the ranges has become free after the number `since`, as far as is remembered."""
        for sequence, of_family, change in reversed(self._recent):
            if sequence <= since:
                break
            if of_family == family and change.is_free and _within(change.value, ranges):
                return True
        return False

    def _everything_in(self, family: int, ranges: Ranges) -> Iterator[AddressChange]:
        for low, high in ranges:
            bases: Iterable[int]
            if (high - low) // BLOCK_SIZE + 2 <= len(self._blocks):
                bases = range(base_of(low), high + 1, BLOCK_SIZE)
            else:  # a range of any size has no more blocks than there are
                bases = [base for of_family, base in self._blocks if of_family == family]
            for base in bases:
                for value in self._blocks.get((family, base), ()):
                    if low <= value <= high:
                        key = (family, value)
                        yield AddressChange(
                            value,
                            self.records.get(key),
                            self._released.get(key),
                            self._quarantines.get(key),
                            self._suspects.get(key),
                            self.unjudged.get(key, ""),
                        )


def _nodes_of(record: Record) -> tuple[str, ...]:
    if not record.other_sandboxes:
        return (record.node,)
    return tuple({record.node, *(sandbox.node for sandbox in record.other_sandboxes)})


def _unlink(index: dict[str, set[AddressKey]], name: str, key: AddressKey) -> None:
    keys = index.get(name)
    if keys is not None:
        keys.discard(key)
        if not keys:
            del index[name]


def _within(value: int, ranges: Ranges) -> bool:
    return any(low <= value <= high for low, high in ranges)
