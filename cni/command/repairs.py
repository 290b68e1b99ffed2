"""Puts right what an audit found, with the actors that write the same things in earnest.

What must always hold: a record is released only by its own fence, and only after its pod, node and owner were read again
and judged anew; what a StatefulSet or virtual machine still wants is kept for it. Views are written by the Views actor,
so that they are what the agent would have written. Doing it twice changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from actors.allocation.block_writer import BlockActor, block_of
from actors.allocation.ledger import LedgerActor, ledger_of
from actors.audit import Finding, ReleaseRecord, WriteEndpoint, WriteStatus, WriteSubnet, verdict_on
from actors.decisions.settings import Settings
from actors.errors import OrbweaverError, StoreUnavailable
from actors.reclaim.evidence import LiveClusterState
from actors.reclaim.rules import Action, Verdict
from actors.resources.addresses import Address, format_address
from actors.resources.blocks.allocation import Allocation
from actors.resources.blocks.block import Discard, Release
from actors.resources.blocks.record import Fence
from actors.resources.blocks.unjudged import Unjudged
from actors.resources.spider_endpoint import pod_of, shows
from actors.runtime import ActorSystem, get
from actors.store.caches.catalog import Catalog
from actors.store.contract import Store
from actors.subnets.subnet import SubnetActor, subnet_actor_of
from actors.subnets.subnets import SubnetFollower
from actors.views.views import POOL_INTERVAL, QUIET, RETRY
from actors.views.writers import writers

TIMEOUT = 20.0
SETTLE = QUIET + POOL_INTERVAL + 2 * RETRY
"""Seconds after which the views that were asked for are written, unless the store is away."""


class Repairs:
    """The actors of one repair; `repairs` starts and ends them."""

    def __init__(self, store: Store, system: ActorSystem, catalog: Catalog, settings: Settings) -> None:
        self._store = store
        self._system = system
        self._settings = settings
        self._divides = False
        """Whether subnets are divided here, beside the leader."""
        self._subnets = SubnetFollower(
            system, store, catalog, leads=lambda: self._divides, is_enabled=settings.enabled, grace=0.0
        )

    def do(self, findings: Iterable[Finding]) -> Iterator[str]:
        """Repair what can be; tells of each thing that it did, or why it did not. Views follow within `SETTLE`."""
        pods: dict[str, None] = {}
        pools: dict[str, None] = {}
        subnets: dict[str, None] = {}
        for finding in findings:
            match finding.repair:
                case ReleaseRecord(held):
                    yield self._release(held, self.verdict(held))[1]
                    pods[held.record.holder] = pools[held.record.pool] = None
                case WriteEndpoint(pod):
                    yield f"writing the SpiderEndpoint of pod {pod}"
                    pods[pod] = None
                case WriteStatus(pool):
                    if pool not in pools:
                        yield f"writing the status of pool {pool}"
                    pools[pool] = None
                case WriteSubnet(subnet):
                    if subnet not in subnets:
                        yield f"dividing subnet {subnet} among its pools"
                    subnets[subnet] = None
                case None:
                    continue
        if pods or pools:
            views = self._system.get_actor("views/local")
            get(views.changed.options(timeout=TIMEOUT).remote(tuple(pods), tuple(pools)))
        if subnets and not self._subnets.start().wait_synced(TIMEOUT):
            raise StoreUnavailable(
                f"the store did not list its subnets within {TIMEOUT:g} s", maybe_written=False
            )
        self._divides = bool(subnets)
        for subnet in subnets:
            get(subnet_actor_of(self._system, subnet).within(TIMEOUT).ask(SubnetActor.begin))

    def end(self) -> None:
        """Follow nothing any more."""
        self._subnets.stop()

    def release_by_hand(self, held: Allocation, *, force: bool) -> bool:
        """Release one record, with `force` whoever has it, and tell; whether nobody has it now."""
        verdict = Verdict(Action.RELEASE, "ByHand", "by hand", forced=True) if force else self.verdict(held)
        done, text = self._release(held, verdict)
        print(text)
        if done:
            views = self._system.get_actor("views/local")
            get(views.changed.options(timeout=TIMEOUT).remote((held.record.holder,), (held.record.pool,)))
        return done

    def discard(self, family: int, value: int, unjudged: Unjudged) -> bool:
        """Free an address of a record that cannot be judged, and tell; whether it is gone. The SpiderEndpoints that show it
        are looked at again: nobody else knows by now whose it was."""
        address = Address(family, value)
        text = address.text
        block = block_of(self._system, address).within(TIMEOUT)
        try:
            released = get(block.order(BlockActor.discard, Discard(value, unjudged, time.time())))
        except OrbweaverError as error:
            print(f"could not release {text}: {error}")
            return False
        done = f"released {text}: by hand; it is probed before it is given out"
        print(done if released.done else f"left {text} alone: what stood there is gone")
        if released.done:
            pods = tuple(pod_of(obj) for obj in self._store.list("SpiderEndpoint").items if shows(obj, text))
            views = self._system.get_actor("views/local")
            get(views.changed.options(timeout=TIMEOUT).remote(pods))
        return released.done

    def verdict(self, held: Allocation) -> Verdict | None:
        """What is to become of a record, on pod, node and owner as they are now; None while its holder may have it."""
        siblings = self._siblings(held.record.pod)
        return verdict_on(held, siblings, LiveClusterState(self._store), self._settings, time.time())

    def _release(self, held: Allocation, verdict: Verdict | None) -> tuple[bool, str]:
        text, record = format_address(held.family, held.value), held.record
        if verdict is None:
            return False, f"left {text} alone: pod {record.pod} may have it"
        keep = verdict.action is Action.KEEP_FOR_NEXT
        release = Release(held.value, Fence.of(record), time.time(), keep, verdict.forced)
        block = block_of(self._system, held.address).within(TIMEOUT)
        try:
            released = get(block.order(BlockActor.release, release))
        except OrbweaverError as error:
            return False, f"could not release {text}: {error}"
        if not released.done:
            return released.recorded is None, f"left {text} alone: what was recorded there is gone"
        done = f"{'kept' if keep else 'released'} {text}{' for the next pod' if keep else ''}: {verdict.text}"
        return not keep, done

    def _siblings(self, pod: str) -> list[Allocation]:
        allocations = get(ledger_of(self._system).within(TIMEOUT).ask(LedgerActor.of_pod, pod))
        return [view for held in allocations for view in held.per_sandbox if view.record.pod == pod]


@contextmanager
def repairs(store: Store, settings: Settings) -> Iterator[Repairs]:
    """Raises `StoreUnavailable` when the store does not list its objects in time."""
    with writers(store, "repair", TIMEOUT) as (system, catalog):
        at_work = Repairs(store, system, catalog, settings)
        try:
            yield at_work
        finally:
            at_work.end()
