"""Another IPAM's allocations as records in blocks, and records taken out again on the way back.

What must always hold: an address that is recorded for somebody else is left to him and named; a record is taken away by
its own fence alone. Doing it twice changes nothing. Agents and a leader may be at work meanwhile: the blocks are written
by compare-and-swap, as theirs are.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from actors.allocation.block_writer import BlockActor, block_of
from actors.errors import TakeoverUnfinished
from actors.resources.addresses import Address
from actors.resources.blocks.allocation import Allocation
from actors.resources.blocks.block import Block, Claim, Granted, HolderUnknown, Quarantined, Release, Taken
from actors.resources.blocks.record import Fence, Record
from actors.resources.blocks.unjudged import Unjudged
from actors.resources.ippool import IPPool
from actors.resources.pod import Pod
from actors.runtime import ActorSystem, get
from actors.store.contract import Object, Store
from actors.views.writers import writers
from cni.takeover.reading import ForeignAllocation, Reading

TIMEOUT = 30.0
_AT_ONCE = 1024
"""Addresses that are written together: each block that has some of them is an actor with a thread meanwhile."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """What came of recording allocations."""

    new: int
    """How many were not recorded before."""
    refused: tuple[str, ...]
    """A sentence for each that is recorded for somebody else."""


class Recorder:
    """Make it with `recorder`."""

    def __init__(self, system: ActorSystem) -> None:
        self._system = system

    def record(self, allocations: Iterable[ForeignAllocation], pods: Mapping[str, Pod]) -> Recorded:
        """Record allocations; `pods` by `namespace/name`. Raises `OrbweaverError` when the store does."""
        since = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        claims = [(allocation, _record(allocation, pods, since)) for allocation in allocations]
        new, refused = 0, []
        for allocation, record, outcome in self._claimed(claims):
            match outcome:
                case Taken(record=other) if not _is_same(other, record):
                    refused.append(taken_text(allocation, other))
                case HolderUnknown(why=why):
                    refused.append(
                        f"{allocation.text} of pod {allocation.pod}: what is recorded for it cannot be judged ({why}); look at "
                        f"`orbweaver ip show {allocation.text}`"
                    )
                case Granted():
                    new += outcome.fresh
                case _:
                    pass
        self._tell_views(
            (record.holder for _, record in claims), (allocation.pool for allocation, _ in claims)
        )
        return Recorded(new, tuple(refused))

    def _claimed(
        self, claims: Sequence[tuple[ForeignAllocation, Record]]
    ) -> Iterator[tuple[ForeignAllocation, Record, Granted | Taken | HolderUnknown | Quarantined]]:
        for first in range(0, len(claims), _AT_ONCE):
            some = claims[first : first + _AT_ONCE]
            refs = [
                block_of(self._system, Address(allocation.family, allocation.value))
                .within(TIMEOUT)
                .order(BlockActor.claim, Claim(allocation.value, record, named=True))
                for allocation, record in some
            ]
            for (allocation, record), ref in zip(some, refs, strict=True):
                yield allocation, record, get(ref)

    def release(self, held: Iterable[Allocation]) -> None:
        """Take these records away, each unless somebody else has the address by now."""
        held = tuple(held)
        for first in range(0, len(held), _AT_ONCE):
            releases = [
                (allocation.address, Release(allocation.value, Fence.of(allocation.record), time.time()))
                for allocation in held[first : first + _AT_ONCE]
            ]
            get(
                [
                    block_of(self._system, address).within(TIMEOUT).order(BlockActor.release, release)
                    for address, release in releases
                ]
            )
        self._tell_views(
            (allocation.record.holder for allocation in held), (allocation.record.pool for allocation in held)
        )

    def _tell_views(self, pods: Iterable[str], pools: Iterable[str]) -> None:
        views = self._system.get_actor("views/local")
        get(views.changed.options(timeout=TIMEOUT).remote(tuple(set(pods)), tuple(set(pools))))


def _record(allocation: ForeignAllocation, pods: Mapping[str, Pod], since: str) -> Record:
    """The record as an ADD of ours would have made it."""
    pod = pods.get(allocation.pod)
    plain = Record(
        allocation.pool,
        allocation.pod,
        allocation.uid,
        allocation.container,
        allocation.interface,
        allocation.node,
        "",
        since,
        network=allocation.network,
    )
    if pod is None or pod.uid != allocation.uid:
        return plain
    detailed = replace(plain, owner=pod.controller, machine=pod.machine or "")
    return plain if detailed.misfit() is not None else detailed


def _is_same(recorded: Record, claimed: Record) -> bool:
    """Whether the record that stands there is of the same sandbox, or of the same pod where one of them names none: a status
    tells of the pod alone."""
    if recorded.container and claimed.container:
        return claimed.container in recorded.containers
    return recorded.pod == claimed.pod and (recorded.uid == claimed.uid or not (recorded.uid and claimed.uid))


def taken_text(allocation: ForeignAllocation, recorded: Record) -> str:
    """That an address is recorded for somebody else."""
    return (
        f"{allocation.text} of pod {allocation.pod} ({allocation.where}) is recorded for pod {recorded.pod}"
        f"{f' on node {recorded.node}' if recorded.node else ''}: two use one address; delete one of the pods, so that it "
        "comes back with another address"
    )


def conflicts(allocations: Iterable[ForeignAllocation], held: Iterable[Allocation]) -> tuple[str, ...]:
    """A sentence for each allocation whose address is recorded for somebody else."""
    recorded = {(allocation.family, allocation.value): allocation.record for allocation in held}
    texts = []
    for allocation in allocations:
        record = recorded.get((allocation.family, allocation.value))
        if record is not None and not _is_same(record, _record(allocation, {}, "")):
            texts.append(taken_text(allocation, record))
    return tuple(texts)


def everything_recorded(store: Store) -> tuple[Allocation, ...]:
    """Every address with a record, from the store itself. Raises `DamagedObject` for a block that cannot be read: what it
    holds is not known."""
    blocks = (Block.from_object(obj) for obj in store.list("SpiderIPBlock").items)
    return tuple(
        Allocation(block.family, value, record) for block in blocks for value, record in block.records.items()
    )


def unjudged_text(address: Address, unjudged: Unjudged) -> str:
    """That nobody can tell whom an address would have to be given back for."""
    return (
        f"nobody can tell who has {address.text}: {unjudged.why}; discard its record with `orbweaver ip release --force` once"
        " nobody uses it"
    )


def unjudged_in(store: Store, pools: Iterable[Object]) -> tuple[str, ...]:
    """A sentence for each address in the subnets of these pools whose record cannot be judged: which pool it is out of, that
    record alone would say. Raises `InvalidObject`."""
    subnets = {IPPool.from_object(obj).subnet for obj in pools}
    blocks = (Block.from_object(obj) for obj in store.list("SpiderIPBlock").items)
    return tuple(
        unjudged_text(Address(block.family, value), unjudged)
        for block in blocks
        for value, unjudged in sorted(block.unjudged.items())
        if any(subnet.family == block.family and subnet.contains(value) for subnet in subnets)
    )


def must_be_judged(store: Store, pools: Iterable[Object]) -> None:
    """Raise `TakeoverUnfinished` where an address of these pools would be dropped, because its record cannot be judged."""
    problems = unjudged_in(store, pools)
    if problems:
        raise TakeoverUnfinished(
            "what is recorded cannot all be given back; its pools give nothing out. Mend it, and repeat the command",
            details=problems,
        )


def recorded_in(store: Store, pools: Iterable[str], source: str) -> Reading:
    """What is recorded in the pools of these names, as it would be given back, and what cannot be. Raises `DamagedObject`."""
    names = frozenset(pools)
    held = [allocation for allocation in everything_recorded(store) if allocation.record.pool in names]
    objects = tuple(obj for obj in store.list("SpiderIPPool").items if obj["metadata"]["name"] in names)
    return Reading(
        source,
        objects,
        tuple(_as_foreign(allocation) for allocation in held if not allocation.record.is_retained),
        tuple(kept_text(allocation, source) for allocation in held if allocation.record.is_retained),
        unjudged_in(store, objects),
    )


def kept_text(allocation: Allocation, source: str) -> str:
    """That an address is let go which nobody uses."""
    return (
        f"{allocation.address.text} is kept for pod {allocation.record.pod}, which does not run; {source} keeps none, so it "
        "is let go"
    )


def _as_foreign(allocation: Allocation) -> ForeignAllocation:
    record = allocation.record
    return ForeignAllocation(
        allocation.family,
        allocation.value,
        record.pool,
        "SpiderIPBlock",
        record.pod,
        record.uid,
        record.container,
        record.interface,
        record.node,
        record.network,
    )


@contextmanager
def recorder(store: Store) -> Iterator[Recorder]:
    """Blocks and views of this process alone; what changed is in the views when this is left. Raises `StoreUnavailable` when
    the store does not list its objects in time."""
    with writers(store, "takeover", TIMEOUT) as (system, _):
        yield Recorder(system)
