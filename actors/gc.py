"""The GC actor: takes back addresses whose holder is gone.

What must always hold: it releases through the Block with the record's own fence, so an address that changed hands
meanwhile stays with its new holder; what it cannot decide it leaves. Two occasions so far: CNI GC, where the
runtime lists the attachments of a network that are still valid (CNI spec 1.1.0, "GC"), and StatefulSets that are
deleted or scaled down, whose pods' kept addresses nobody will come back for.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from actors.decisions.inherit import owning_statefulset
from actors.endpoint import is_kept
from actors.messages import Held
from actors.observer import AllocationObserver
from actors.resources.addresses import format_address
from actors.resources.block import Release, Released, block_name
from actors.resources.record import Fence, Record
from actors.runtime import Actor, ActorContext, message
from actors.seat import Place, Seat, ask
from actors.store.catalog import Catalog

log = logging.getLogger("orbweaver.gc")

RELEASE_TIMEOUT = 20.0


class GCActor(Actor):
    """One per process that allocates, named `gc/local`."""

    def __init__(
        self,
        context: ActorContext,
        *,
        seat: Seat,
        catalog: Catalog,
        node: str,
        observer: AllocationObserver,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(context)
        self._seat = seat
        self._catalog = catalog
        self._node = node
        self._observer = observer
        self._clock = clock

    @message
    def collect(self, network: str, valid: tuple[tuple[str, str], ...]) -> int:
        """CNI GC: release what this node's containers hold in `network`, except the (container, interface) pairs in
        `valid`; as after a DEL, a StatefulSet's pod keeps its address. Returns how many it released or keeps."""
        alive = set(valid)
        held = self._recorded("of_node", self._node)
        stale = [one for one in held if is_stale(one.record, self._node, network, alive)]
        return self._reclaim(stale, "container is gone (CNI GC)")

    @message
    def sweep_statefulsets(self) -> int:
        """Release what is kept for pods that no StatefulSet wants any more."""
        stale = []
        for held in self._recorded("everything"):
            record = held.record
            kept = record.waits and owning_statefulset(record) is not None
            if kept and not is_kept(record, self._catalog):
                stale.append(held)
        return self._reclaim(stale, "its StatefulSet does not want the pod any more")

    def _recorded(self, question: str, *arguments: str) -> tuple[Held, ...]:
        def task(at: Place) -> tuple[Held, ...]:
            method = getattr(at.get_actor("ledger/local"), question).options(timeout=RELEASE_TIMEOUT)
            (held,) = ask(at, method.remote(*arguments))
            found: tuple[Held, ...] = held
            return found

        return self._seat.work(task)

    def _reclaim(self, stale: Sequence[Held], reason: str) -> int:
        now = self._clock()
        releases = []
        for held in stale:
            keep = bool(held.record.container) and is_kept(held.record, self._catalog)
            releases.append((held, Release(held.value, Fence.of(held.record), now, keep)))

        def task(at: Place) -> list[Released]:
            refs = []
            for held, release in releases:
                block = at.get_actor("block/" + block_name(held.family, held.value))
                refs.append(block.release.options(timeout=RELEASE_TIMEOUT).remote(release))
            return ask(at, *refs)

        done = 0
        for held, released in zip(stale, self._seat.work(task), strict=True):
            if released.done:
                done += 1
                self._observer.reclaimed(reason)
                log.info(
                    "address reclaimed",
                    extra={
                        "address": format_address(held.family, held.value),
                        "pod": held.record.pod,
                        "container": held.record.container,
                        "reason": reason,
                    },
                )
        if stale:
            pods = tuple(sorted({held.record.pod for held in stale}))
            pools = tuple(sorted({held.record.pool for held in stale}))
            self.get_actor("views/local").changed.options(timeout=None).remote(pods, pools)
        return done


def is_stale(record: Record, node: str, network: str, alive: set[tuple[str, str]]) -> bool:
    """Whether CNI GC of `network` on `node` may release a record: its container ran there, and neither its interface
    nor the one that reserved it is among the attachments still alive."""
    if record.node != node or record.network != network or not record.container:
        return False
    interfaces = {record.interface, record.request} - {""}
    return all((record.container, interface) not in alive for interface in interfaces)
