"""The actors that allocate, as every process that allocates registers them: the Ledger, the pools and the blocks."""

from __future__ import annotations

import random
from collections.abc import Callable

from actors.allocation.application_pools import KIND as APPLICATION_POOLS
from actors.allocation.application_pools import ApplicationPoolsActor
from actors.allocation.block_writer import BlockActor
from actors.allocation.departures import Departures
from actors.allocation.ledger import BlockLister, LedgerActor
from actors.allocation.node_watches import NodeWatchesActor
from actors.allocation.observer import AllocationObserver
from actors.allocation.pool import PoolActor
from actors.runtime import ActorSystem
from actors.store.caches.catalog import Catalog
from actors.store.contract import Store

SERVED = {
    "ledger": LedgerActor,
    "pool": PoolActor,
    "block": BlockActor,
    "watches": NodeWatchesActor,
    APPLICATION_POOLS: ApplicationPoolsActor,
}
"""What the leader serves to agents."""


def register_allocators(
    system: ActorSystem,
    store: Store,
    catalog: Catalog,
    observer: AllocationObserver,
    *,
    shared: bool,
    mailbox: int = 4096,
    start_fraction: float = 1.0,
    known: BlockLister | None = None,
    departures: Departures | None = None,
    wrote: Callable[[int, int, str], object] = lambda family, base, version: None,
) -> None:
    """`shared`: other processes write the same blocks. `mailbox`: calls that may wait for one pool or block. `start_fraction`:
    see `ActorSystem.register`. `known`, `departures`, `wrote`: see `LedgerActor`, `PoolActor` and `BlockActor`."""
    system.register(
        "ledger",
        lambda context: LedgerActor(context, store=store, known=known),
        mailbox=65536,
        idle=None,
        start_fraction=start_fraction,
        urgent=frozenset({"reached"}),  # agents leave who gives no sign of life
        inline=frozenset({"of_sandbox", "block_written", "knows"}),
    )
    system.register(
        "block",
        lambda context: BlockActor(context, store=store, observer=observer, shared=shared, wrote=wrote),
        mailbox=mailbox,
        idle=60.0,
        start_fraction=start_fraction,
    )
    system.register(
        "pool",
        lambda context: PoolActor(
            context,
            source=catalog,
            store=store,
            departures=departures,
            chance=random.Random() if shared else None,
        ),
        mailbox=mailbox,
        idle=300.0,
        start_fraction=start_fraction,
        inline=frozenset({"allocate"}),
    )
