"""The Ledger actor: what is recorded for each pod, container and range, as far as this process has read or written.

It is an index of the blocks, never the truth: the blocks are. What must always hold: every address that this
process recorded, or may have recorded, is found here before the writer's caller is answered; whoever acts on
an entry goes to the Block, which judges. What a watch tells late never undoes what a Block has told since. It calls
nobody but the store, and that only to activate.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from actors.allocation.messages import Allocation, Change, Occupancy
from actors.errors import DamagedObject, InvalidObject
from actors.resources.blocks.block import BLOCK_SIZE, Block, base_of, parse_block_name
from actors.resources.blocks.quarantine import Quarantine
from actors.resources.blocks.record import Record
from actors.runtime import Actor, ActorContext, message
from actors.store.contract import Store, version_number

log = logging.getLogger("orbweaver.ledger")

REMEMBERED = 8192
"""How many changes are kept for pools that catch up; one that is further behind reads everything anew."""

Place = tuple[int, int]
BlockLister = Callable[[], tuple[str, Sequence[Block]]]
"""All blocks, and a version that they have all reached. Raises `StoreUnavailable`."""


@dataclass(slots=True)
class State:
    records: dict[Place, Record] = field(default_factory=dict)
    released: dict[Place, float] = field(default_factory=dict)
    quarantines: dict[Place, Quarantine] = field(default_factory=dict)
    blocks: dict[Place, set[int]] = field(default_factory=dict)
    versions: dict[Place, int] = field(default_factory=dict)
    pods: dict[str, set[Place]] = field(default_factory=dict)
    containers: dict[str, set[Place]] = field(default_factory=dict)
    pools: dict[str, set[Place]] = field(default_factory=dict)
    touched: dict[str, int] = field(default_factory=dict)
    damaged: set[Place] = field(default_factory=set)
    listed: int = -1
    # Never below what an earlier instance counted to: a pool that learned from that one must read everything anew.
    sequence: int = field(default_factory=time.monotonic_ns)
    recent: deque[tuple[int, int, Change]] = field(default_factory=lambda: deque(maxlen=REMEMBERED))


class LedgerActor(Actor):
    """One per process, named `ledger/local`."""

    def __init__(self, context: ActorContext, *, store: Store, known: BlockLister | None = None) -> None:
        """`known`: gives the blocks where something follows them already, so that they are not listed twice."""
        super().__init__(context)
        self._store = store
        self._known = known or self._listed
        self._state = State()

    def on_activate(self) -> None:
        version, blocks = self._known()
        self._state.listed = version_number(version)
        for block in blocks:
            self._state.versions[block.family, block.base] = version_number(block.version)
            self._apply(block.family, content_of(block))

    def _listed(self) -> tuple[str, list[Block]]:
        listing = self._store.list("SpiderIPBlock")
        blocks = []
        for obj in listing.items:
            try:
                blocks.append(Block.from_object(obj))
            except InvalidObject as error:
                if isinstance(error, DamagedObject):
                    self._state.damaged.add(parse_block_name(obj["metadata"]["name"]))
                log.error(
                    "a damaged block is left out of the index; its addresses are not given out",
                    exc_info=error,
                )
        return listing.version, blocks

    def on_passivate(self) -> bool:
        return False

    @message
    def block_written(self, family: int, base: int, version: str, changes: tuple[Change, ...]) -> None:
        """Take note of what a Block has written, or may have written, to its object, which then has `version`."""
        if self._advance((family, base), version):
            self._apply(family, changes)

    @message
    def block_read(self, family: int, base: int, version: str, changes: tuple[Change, ...]) -> None:
        """Take note of a whole block as a Block has read it (`version` empty: there is none): what is not among
        `changes` is neither recorded nor remembered as released, whatever was believed before."""
        self._state.damaged.discard((family, base))
        if not version or self._advance((family, base), version):
            self._replace(family, base, changes)

    @message
    def block_watched(self, family: int, base: int, version: str, changes: tuple[Change, ...]) -> None:
        """As `block_read`, but out of a watch, which may be behind: only news counts."""
        known = self._state.versions.get((family, base), -1)
        if version_number(version) > known:
            self._state.damaged.discard((family, base))
            self._state.versions[family, base] = version_number(version)
            self._replace(family, base, changes)

    @message
    def unreadable(self, family: int, base: int) -> None:
        """Take note that a block is damaged. What was known of it stays."""
        self._state.damaged.add((family, base))

    @message
    def damaged(self) -> tuple[tuple[int, int], ...]:
        """The blocks, as (family, base), that could not be read when they were read last."""
        return tuple(sorted(self._state.damaged))

    @message
    def reached(self, versions: tuple[tuple[int, int, str], ...]) -> bool:
        """Whether the blocks, each given as (family, base, version), are known here as they were at those versions, or
        later. With none it is a sign of life."""
        state = self._state
        return all(
            max(state.listed, state.versions.get((family, base), -1)) >= version_number(version)
            for family, base, version in versions
        )

    @message
    def behind(self, versions: dict[str, str]) -> tuple[str, ...]:
        """The blocks, out of `versions` by name, that are known here only as they were before."""
        known = self._state.versions
        return tuple(
            name
            for name, version in versions.items()
            if known.get(parse_block_name(name), -1) < version_number(version)
        )

    def _advance(self, block: Place, version: str) -> bool:
        """Whether a Block's word about `version` still counts: a watch may have told of a later one."""
        number = version_number(version)
        if number < self._state.versions.get(block, -1):
            return False
        self._state.versions[block] = number
        return True

    def _replace(self, family: int, base: int, changes: tuple[Change, ...]) -> None:
        told = {change.value for change in changes}
        absent = sorted(self._state.blocks.get((family, base), set()) - told)
        self._apply(family, (*(Change(value, None) for value in absent), *changes))

    @message
    def of_pod(self, pod: str) -> tuple[Allocation, ...]:
        """What is recorded for the pod or virtual machine `namespace/name`, whatever its incarnation."""
        return self._held(self._state.pods.get(pod, ()))

    @message
    def of_pods(self, pods: tuple[str, ...]) -> tuple[Allocation, ...]:
        """What is recorded for any of these pods."""
        return tuple(held for pod in pods for held in self._held(self._state.pods.get(pod, ())))

    @message
    def of_container(self, container: str) -> tuple[Allocation, ...]:
        """What is recorded for a container id."""
        return self._held(self._state.containers.get(container, ()))

    @message
    def of_sandbox(self, container: str, *names: str) -> tuple[Allocation, ...]:
        """What is recorded for a container id or for pods or virtual machines `namespace/name`."""
        state = self._state
        places = set(state.containers.get(container, ()))
        return self._held(places.union(*(state.pods.get(name, ()) for name in names)))

    @message
    def waiting(self) -> tuple[Allocation, ...]:
        """What is kept for pods and virtual machines that do not run."""
        return self._held([place for place, record in self._state.records.items() if record.is_retained])

    @message
    def holders(self, node: str) -> tuple[str, ...]:
        """The pods and virtual machines `namespace/name` that something is recorded for; of one node, unless that is
        empty."""
        records = self._state.records.values()
        return tuple({record.holder for record in records if node in ("", record.node)})

    @message
    def of_node(self, node: str) -> tuple[Allocation, ...]:
        """What is recorded for pods of a node."""
        records = self._state.records
        return self._held(
            [
                place
                for place, record in records.items()
                if record.node == node or any(one.node == node for one in record.other_sandboxes)
            ]
        )

    @message
    def usage(self, pool: str, most: int) -> tuple[int, tuple[Allocation, ...]]:
        """How many addresses are recorded out of a pool, and, if they are not more than `most`, which."""
        places = self._state.pools.get(pool, ())
        return len(places), self._held(places) if len(places) <= most else ()

    @message
    def counts(self) -> dict[str, int]:
        """How many addresses are recorded out of each pool."""
        return {pool: len(places) for pool, places in self._state.pools.items() if places}

    @message
    def changed_pools(self, since: int) -> tuple[int, tuple[str, ...]]:
        """The pools with a change after `since`, a sequence number of an earlier answer, and the number now."""
        touched = self._state.touched
        return self._state.sequence, tuple(pool for pool, at in touched.items() if at > since)

    @message
    def everything(self) -> tuple[Allocation, ...]:
        """All that is recorded."""
        return self._held(self._state.records)

    @message
    def occupancy(self, family: int, ranges: tuple[tuple[int, int], ...], since: int) -> Occupancy:
        """What changed in the ranges since `since` (a sequence number of an earlier answer; -1: tell everything)."""
        state = self._state
        recent = state.recent
        oldest = recent[0][0] if recent else state.sequence + 1
        if since >= oldest - 1:
            found: dict[int, Change] = {}
            for sequence, of_family, change in reversed(recent):
                if sequence <= since:
                    break
                if of_family == family and change.value not in found and _within(change.value, ranges):
                    found[change.value] = change
            return Occupancy(state.sequence, False, tuple(reversed(found.values())))
        return Occupancy(state.sequence, True, tuple(self._whole(family, ranges)))

    def _whole(self, family: int, ranges: tuple[tuple[int, int], ...]) -> Iterable[Change]:
        state = self._state
        for low, high in ranges:
            wanted = (high - low) // BLOCK_SIZE + 2
            bases: Iterable[int]
            if wanted <= len(state.blocks):
                bases = range(base_of(low), high + 1, BLOCK_SIZE)
            else:
                bases = [base for of_family, base in state.blocks if of_family == family]
            for base in bases:
                for value in state.blocks.get((family, base), ()):
                    if low <= value <= high:
                        place = (family, value)
                        yield Change(
                            value,
                            state.records.get(place),
                            state.released.get(place),
                            state.quarantines.get(place),
                        )

    def _held(self, places: Iterable[Place]) -> tuple[Allocation, ...]:
        records = self._state.records
        return tuple(Allocation(family, value, records[family, value]) for family, value in sorted(places))

    def _apply(self, family: int, changes: Iterable[Change]) -> None:
        state = self._state
        for change in changes:
            place = (family, change.value)
            before = state.records.get(place)
            known = (before, state.released.get(place), state.quarantines.get(place))
            if known == (change.record, change.released, change.quarantine):
                continue
            if before is not None:
                del state.records[place]
                for pod in {before.holder, *before.pods}:
                    _unlink(state.pods, pod, place)
                for container in before.containers:
                    _unlink(state.containers, container, place)
                _unlink(state.pools, before.pool, place)
            state.released.pop(place, None)
            state.quarantines.pop(place, None)
            values = state.blocks.setdefault((family, base_of(change.value)), set())
            if change.record is not None:
                state.records[place] = change.record
                for pod in {change.record.holder, *change.record.pods}:
                    state.pods.setdefault(pod, set()).add(place)
                for container in change.record.containers:
                    state.containers.setdefault(container, set()).add(place)
                state.pools.setdefault(change.record.pool, set()).add(place)
                values.add(change.value)
            elif change.released is not None:
                state.released[place] = change.released
                if change.quarantine is not None:
                    state.quarantines[place] = change.quarantine
                values.add(change.value)
            else:
                values.discard(change.value)
            state.sequence += 1
            for record in (before, change.record):
                if record is not None:
                    state.touched[record.pool] = state.sequence
            state.recent.append((state.sequence, family, change))


def content_of(block: Block) -> tuple[Change, ...]:
    """All that a block says, for `block_read` and `block_watched`."""
    records = tuple(Change(value, record) for value, record in block.records.items())
    # What is set aside is among these: a block keeps the time of a release for as long as the address is suspect.
    released = tuple(
        Change(value, None, at, block.quarantines.get(value)) for value, at in block.released.items()
    )
    return (*records, *released)


def _unlink(index: dict[str, set[Place]], key: str, place: Place) -> None:
    places = index.get(key)
    if places is not None:
        places.discard(place)
        if not places:
            del index[key]


def _within(value: int, ranges: tuple[tuple[int, int], ...]) -> bool:
    return any(low <= value <= high for low, high in ranges)
