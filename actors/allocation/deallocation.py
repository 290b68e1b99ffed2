"""Giving addresses back: those of a sandbox that ended, of a request that failed, and those that a pod must not keep.

What must always hold:

* A release carries the record's own fence, which the block compares (`Block.release` in `actors/resources/blocks/block.py`):
  an address that changed hands since it was looked up stays with its new holder.
* Giving back has its own time: the request's may be over, and what it was granted must go back all the same.
* What stays for a StatefulSet's pod or a virtual machine is kept, not freed. Where nobody can say it, it is kept.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from actors.allocation.block_writer import BlockActor, block_of
from actors.allocation.grant import Grant
from actors.allocation.ledger import LedgerActor, ledger_of
from actors.allocation.observer import tell_views
from actors.allocation.router import Allocator, AllocatorRouter, ask
from actors.decisions.inherit import in_use_elsewhere, wanted
from actors.decisions.settings import Settings
from actors.errors import OrbweaverError, StoreUnavailable
from actors.resources.blocks.allocation import Allocation
from actors.resources.blocks.block import Release, Released
from actors.resources.blocks.quarantine import Quarantine
from actors.resources.blocks.record import Fence, Record
from actors.runtime import ActorSource, ObjectRef
from actors.store.caches.catalog import Catalog

log = logging.getLogger("orbweaver.endpoint")

UNDO_TIMEOUT = 20.0
"""Seconds that releasing a failed request's addresses may take; the request's own time may be over by then."""


@dataclass(frozen=True, slots=True)
class Deallocation:
    """The releases of one Endpoint."""

    pod: str
    """For which pod, `namespace/name`."""
    node: str
    """Where it runs; what another node's sandbox had is given back in the pod's name."""
    router: AllocatorRouter
    """Says at which allocator the blocks are at the moment."""
    catalog: Catalog
    """Has the owners that decide whether an address is kept."""
    settings: Settings
    """Whether addresses are kept for StatefulSets and virtual machines."""
    clock: Callable[[], float]
    """Seconds since the epoch; the moment of a release is recorded."""
    actors: ActorSource
    """Where the views are told of changes."""

    def release(
        self, allocator: Allocator, wanted: Sequence[tuple[Allocation, bool]], *, whoever: bool = False
    ) -> list[tuple[Allocation, bool]]:
        """Release each, or keep it for the pod's next incarnation; returns those that were. `whoever`: also what was
        confirmed for the same sandbox under another claim since it was looked up."""
        now = self.clock()
        refs: list[ObjectRef[Released]] = []
        for held, keep in wanted:
            # What another node's sandbox had, the leader takes back on the word of the pod that has a right to it.
            by = "" if held.record.node == self.node else self.pod
            release = Release(held.value, Fence.of(held.record), now, keep, by=by)
            holding = block_of(allocator, held.address).within(UNDO_TIMEOUT)
            refs.append(holding.order(BlockActor.release, release))
        done: list[tuple[Allocation, bool]] = []
        renamed: list[tuple[Allocation, bool]] = []
        for (held, keep), released in zip(wanted, ask(allocator, *refs), strict=True):
            if released.done:
                done.append((held, keep))
            now_recorded = released.recorded
            same = now_recorded is not None and Fence.of(held.record).whoever().admits(now_recorded)
            if whoever and not released.done and now_recorded is not None and same:
                renamed.append((replace(held, record=now_recorded), keep))
        return done + (self.release(allocator, renamed, whoever=True) if renamed else [])

    def without_vain(
        self, allocator: Allocator, done: Sequence[tuple[Allocation, bool]]
    ) -> list[tuple[Allocation, bool]]:
        """Free what was kept for somebody who went while that was written: whoever looked at what is kept when he went has
        found the address in use. Returns what became of each."""
        vain = [
            replace(held, record=held.record.retained())
            for held, keep in done
            if keep and not self.keeps(held.record)
        ]
        freed = {held.address for held, _ in self.release(allocator, [(held, False) for held in vain])}
        return [(held, keep and held.address not in freed) for held, keep in done]

    def give_back(self, allocator: Allocator, held: Allocation) -> None:
        """Release what the pod had before, unless another sandbox of it uses that."""
        if in_use_elsewhere(held.record):
            return
        try:
            self.release(allocator, [(held, False)])
        finally:
            tell_views(self.actors, [held.record])

    def undo(self, grants: Sequence[Grant], because: str) -> None:
        """Give back what a request was granted and does not use. It never fails."""
        fresh = [
            (grant.allocation, grant.inherited and self.keeps(grant.record))
            for grant in grants
            if grant.fresh
        ]
        if fresh:
            log.info(
                "releasing what a failed request was granted",
                extra={"addresses": len(fresh), "because": because},
            )
            try:
                self.router.work(lambda allocator: self.release(allocator, fresh))
            except OrbweaverError as error:
                # The runtime follows a failed ADD with DEL (CNI spec, "Lifecycle & Ordering"), which finds them.
                log.error("could not release them yet", exc_info=error)
            tell_views(self.actors, [held.record for held, _ in fresh])

    def quarantine(self, grant: Grant, quarantine: Quarantine) -> None:
        """Give back an address that somebody uses, so that nobody gets it for a while."""
        release = Release(grant.value, Fence.of(grant.record), self.clock(), quarantine=quarantine)
        self.router.work(
            lambda allocator: ask(
                allocator,
                block_of(allocator, grant.address).order(BlockActor.release, release),
            )
        )
        tell_views(self.actors, [grant.record])

    def keeps(self, record: Record) -> bool:
        """Whether the address stays with the pod's name, or its machine, after this sandbox."""
        try:
            return bool(wanted(record, self.catalog, self.settings))
        except StoreUnavailable:
            return True  # what should not have been kept is reclaimed later; what was given away is lost


def of_container(allocator: Allocator, container: str) -> tuple[Allocation, ...]:
    """What is recorded for a container id, the Ledger says."""
    (allocations,) = ask(allocator, ledger_of(allocator).ask(LedgerActor.of_container, container))
    return allocations
