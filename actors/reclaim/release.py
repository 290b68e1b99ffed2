"""Taking addresses back that were decided to be nobody's any more, and telling of it.

What must always hold: a release carries the record's own fence, so an address that changed hands since the decision
stays with its new holder, and only what was really released is told of: by log line, metric and, in a cluster, an
Event. One that cannot be released is told too, and is its caller's to try again.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from actors.allocation.block_writer import BlockActor, block_of
from actors.allocation.observer import AllocationObserver, tell_views
from actors.allocation.router import Allocator, AllocatorRouter, is_lost
from actors.errors import OrbweaverError
from actors.resources.addresses import format_address
from actors.resources.blocks.allocation import Allocation
from actors.resources.blocks.block import Release, Released
from actors.resources.blocks.record import Fence
from actors.runtime import Actor, ObjectRef

log = logging.getLogger("orbweaver.gc")

RELEASE_TIMEOUT = 20.0


@dataclass(frozen=True, slots=True)
class Reclaim:
    """One address to take back."""

    held: Allocation
    """The address, and the record that is meant."""
    reason: str
    """In one word, for metrics and Events."""
    text: str
    """The same in a sentence."""
    keep: bool = False
    """Leave it for the pod's next incarnation."""
    forced: bool = False
    """The holder may still run, so whoever gets it next probes it."""
    uid: str = ""
    """The pod's, where it still exists, for the Event; else empty."""

    @property
    def address(self) -> str:
        return format_address(self.held.family, self.held.value)


@dataclass(frozen=True, slots=True)
class Reclaimed:
    """What became of it: what was released or kept, and what could not be because of an error."""

    done: tuple[Reclaim, ...]
    failed: tuple[Reclaim, ...]


def reclaim(
    actor: Actor,
    router: AllocatorRouter,
    wanted: Sequence[Reclaim],
    now: float,
    observer: AllocationObserver,
    *,
    events: bool,
) -> Reclaimed:
    """Release all of them at once, so that those of one block go with one write. `events`: tell pods' owners too."""

    def task(allocator: Allocator) -> list[Released | OrbweaverError]:
        refs = []
        for request in wanted:
            held = request.held
            release = Release(held.value, Fence.of(held.record), now, request.keep, request.forced)
            block = block_of(allocator, held.address).within(RELEASE_TIMEOUT)
            refs.append(block.order(BlockActor.release, release))
        allocator.settle(refs)
        return [_outcome(ref, allocator) for ref in refs]

    done: list[Reclaim] = []
    failed: list[Reclaim] = []
    for request, outcome in zip(wanted, router.work(task) if wanted else (), strict=True):
        if isinstance(outcome, OrbweaverError):
            failed.append(request)
            observer.reclaim_failed()
            log.warning("an address could not be taken back", extra=_facts(request) | {"error": str(outcome)})
        elif outcome.done:
            done.append(request)
    tell_of(actor, done, observer, events=events)
    tell_views(actor, [request.held.record for request in done])
    return Reclaimed(tuple(done), tuple(failed))


def tell_of(actor: Actor, done: Sequence[Reclaim], observer: AllocationObserver, *, events: bool) -> None:
    """Make known what was taken back: log line, metric and, with `events`, an Event."""
    for reclaimed in done:
        observer.reclaimed(reclaimed.reason)
        log.info(
            "address kept for the pod's next sandbox" if reclaimed.keep else "address reclaimed",
            extra=_facts(reclaimed),
        )
    if events:
        _tell(actor, done)


def _outcome(ref: ObjectRef[Any], allocator: Allocator) -> Released | OrbweaverError:
    """What became of one release. Raises the error that means that the place itself has failed."""
    try:
        released: Released = ref.result()
    except OrbweaverError as error:
        if allocator.failed and is_lost(error):
            raise
        return error
    return released


def _tell(actor: Actor, done: Sequence[Reclaim]) -> None:
    """One Event for each pod and reason, where the pod is gone for each pool too: a pod has several addresses."""
    groups: dict[tuple[str, str, str, str, str], dict[str, list[str]]] = {}
    for reclaimed in done:
        record = reclaimed.held.record
        fate = (
            f"kept for the next pod {record.pod}" if reclaimed.keep else f"taken back from pod {record.pod}"
        )
        about = (
            record.pod,
            reclaimed.uid,
            "" if reclaimed.uid else record.pool,
            reclaimed.reason,
            f"{fate}: {reclaimed.text}",
        )
        groups.setdefault(about, {}).setdefault(record.pool, []).append(reclaimed.address)
    for (pod, uid, pool, reason, text), by_pool in groups.items():
        lists = (f"{', '.join(addresses)} of pool {name}" for name, addresses in by_pool.items())
        message = f"{', '.join(lists)} {text}"
        ref = actor.get_actor("events/local").reclaimed.remote(pod, uid, pool, reason, message)
        ref.subscribe(_log_untold)


def _log_untold(ref: ObjectRef[None]) -> None:
    error = ref.error()
    if error is not None:  # many at once; each has its log line
        log.debug("an Event was left out", extra={"error": str(error)})


def _facts(reclaimed: Reclaim) -> dict[str, Any]:
    record = reclaimed.held.record
    return {
        "address": reclaimed.address,
        "pool": record.pool,
        "pod": record.pod,
        "container": record.container,
        "node": record.node,
        "reason": reclaimed.reason,
        "why": reclaimed.text,
        "forced": reclaimed.forced,
    }
