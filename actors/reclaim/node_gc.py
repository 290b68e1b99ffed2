"""The node's own garbage collection: addresses of sandboxes that this node does not run any more.

What must always hold: it releases through the Block with the record's own fence, so an address that changed hands
meanwhile stays with its new holder; what it cannot decide it leaves. Its occasions: CNI GC, where the runtime lists the
attachments of a network that are still valid (CNI spec 1.1.0, "GC"); the agent's start, when it compares its records
with the sandboxes that are there; and, on a host without Kubernetes, StatefulSets that are deleted or scaled down and
virtual machines that are deleted, for whose kept addresses nobody will come back. What was held on a node that is lost is
the leader's to judge (`rules.py`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Concatenate, ParamSpec

from actors.allocation.block_writer import BlockActor, block_of
from actors.allocation.ledger import LedgerActor, ledger_of
from actors.allocation.observer import AllocationObserver
from actors.allocation.router import Allocator, AllocatorRouter, ask
from actors.decisions.inherit import is_fixed, wanted
from actors.decisions.settings import Settings
from actors.reclaim.release import RELEASE_TIMEOUT, Reclaim, reclaim
from actors.reclaim.stale_sandboxes import NotedSandboxes, is_left_behind
from actors.resources.blocks.allocation import Allocation
from actors.resources.blocks.block import HolderEnded
from actors.resources.blocks.record import Record
from actors.runtime import Actor, ActorContext, message
from actors.store.caches.catalog import Catalog

P = ParamSpec("P")


class NodeGCActor(Actor):
    """One per agent, named `node-gc/local`. `has_pods`: there is a cluster, with pod objects."""

    def __init__(
        self,
        context: ActorContext,
        *,
        router: AllocatorRouter,
        catalog: Catalog,
        settings: Settings,
        node: str,
        observer: AllocationObserver,
        has_pods: bool,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(context)
        self._router = router
        self._catalog = catalog
        self._settings = settings
        self._node = node
        self._observer = observer
        self._has_pods = has_pods
        self._clock = clock

    @message
    def collect(self, network: str, valid: tuple[tuple[str, str], ...]) -> int:
        """CNI GC: release what this node's containers hold in `network`, except the (container, interface) pairs in
        `valid`; as after a DEL, a StatefulSet's pod keeps its address. Returns how many it released or keeps."""
        alive = set(valid)
        mine = self._mine()
        stale = [held for held in mine if is_stale(held.record, self._node, network, alive)]
        self._end_suspicion(network, alive)
        return self._reclaim(stale, "NotValid", f"the runtime does not list it in network {network} (CNI GC)")

    @message
    def reconcile(self, sandboxes: NotedSandboxes) -> int:
        """Release what is recorded for sandboxes of this node that are gone. Returns how many it released or keeps."""
        mine = self._mine()
        of_pod: dict[str, list[Record]] = {}
        for allocation in mine:
            of_pod.setdefault(allocation.record.pod, []).append(allocation.record)
        stale = [
            allocation
            for allocation in mine
            if is_left_behind(
                allocation.record, of_pod[allocation.record.pod], sandboxes, has_pods=self._has_pods
            )
        ]
        return self._reclaim(stale, "SandboxGone", "its sandbox does not exist on the node any more")

    @message
    def sweep_kept(self) -> int:
        """Release what is kept for pods that no StatefulSet wants any more, and for virtual machines and IPAMClaims that are
        gone."""
        stale = [
            held
            for held in self._recorded(LedgerActor.waiting)
            if is_fixed(held.record) and not self._is_kept(held.record)
        ]
        return self._reclaim(
            stale, "OwnerGone", "its StatefulSet, virtual machine or IPAMClaim does not want it any more"
        )

    def _end_suspicion(self, network: str, alive: set[tuple[str, str]]) -> None:
        """What was taken by force from an attachment of `network` that is not valid any more is suspect no longer."""

        def task(allocator: Allocator) -> None:
            ledger = ledger_of(allocator).within(RELEASE_TIMEOUT)
            (suspects,) = ask(allocator, ledger.ask(LedgerActor.suspects_on, self._node))
            ended = [
                block_of(allocator, address.address)
                .within(RELEASE_TIMEOUT)
                .order(
                    BlockActor.holder_ended,
                    HolderEnded(address.value, address.suspect.container, self._node),
                )
                for address in suspects
                if address.suspect.network == network
                and (address.suspect.container, address.suspect.interface) not in alive
            ]
            ask(allocator, *ended)

        self._router.work(task)

    def _is_kept(self, record: Record) -> bool:
        return bool(wanted(record, self._catalog, self._settings))

    def _mine(self) -> tuple[Allocation, ...]:
        """What sandboxes of this node use, as each of them has it."""
        recorded = self._recorded(LedgerActor.of_node, self._node)
        return tuple(view for held in recorded for view in held.per_sandbox if view.record.node == self._node)

    def _recorded(
        self,
        question: Callable[Concatenate[LedgerActor, P], tuple[Allocation, ...]],
        *arguments: P.args,
        **named: P.kwargs,
    ) -> tuple[Allocation, ...]:
        def task(allocator: Allocator) -> tuple[Allocation, ...]:
            ledger = ledger_of(allocator).within(RELEASE_TIMEOUT)
            (allocations,) = ask(allocator, ledger.ask(question, *arguments, **named))
            return allocations

        return self._router.work(task)

    def _reclaim(self, stale: Sequence[Allocation], reason: str, text: str) -> int:
        wanted = []
        for held in stale:
            # Of an owner that goes after this look a `sweep_kept` waits in this actor's mailbox, and comes when this is
            # written. (An Endpoint, which is another actor, has to look twice: `Deallocation.without_vain`.)
            keep = bool(held.record.container) and self._is_kept(held.record)
            wanted.append(Reclaim(held, reason, text, keep, uid=held.record.uid))
        outcome = reclaim(self, self._router, wanted, self._clock(), self._observer, events=self._has_pods)
        return len(outcome.done)


def is_stale(record: Record, node: str, network: str, alive: set[tuple[str, str]]) -> bool:
    """Whether CNI GC of `network` on `node` may release a record: its container ran there, and neither its interface
    nor the one that reserved it is among the attachments still alive."""
    if record.node != node or record.network != network or not record.container:
        return False
    interfaces = {record.interface, record.request} - {""}
    return all((record.container, interface) not in alive for interface in interfaces)
