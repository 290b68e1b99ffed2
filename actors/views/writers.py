"""What writes blocks and views in a process that is no agent and leads nothing: a repair, a takeover.

What must always hold: agents and a leader may be at work meanwhile, so blocks are written by compare-and-swap, as theirs are;
what was asked of the views is written when the writers have ended.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from actors.allocation.block_writer import BlockActor
from actors.allocation.ledger import LedgerActor
from actors.allocation.observer import Silent
from actors.allocation.router import AlwaysLocal
from actors.allocation.supervision import TABLE
from actors.errors import StoreUnavailable
from actors.runtime import ActorSystem
from actors.store.caches.catalog import Catalog
from actors.store.contract import Store
from actors.views.views import ViewsActor


@contextmanager
def writers(store: Store, name: str, timeout: float) -> Iterator[tuple[ActorSystem, Catalog]]:
    """Ledger, blocks and views of this process alone, under the `name` of what they are for, and the catalog that they read.
    Raises `StoreUnavailable` when the store does not list its objects within `timeout` seconds."""
    catalog = Catalog(store, has_pods=False)
    system = ActorSystem(name, supervision=TABLE)
    system.register("ledger", lambda context: LedgerActor(context, store=store), mailbox=65536, idle=None)
    system.register(
        "block", lambda context: BlockActor(context, store=store, observer=Silent(), shared=True), idle=60.0
    )
    router = AlwaysLocal(system, alone=False)
    system.register(
        "views",
        lambda context: ViewsActor(context, router=router, store=store, catalog=catalog),
        mailbox=65536,
    )
    try:
        catalog.start()
        if not catalog.wait_synced(timeout):
            raise StoreUnavailable(f"the store did not list its objects within {timeout:g} s")
        yield system, catalog
    finally:
        system.shutdown(timeout)  # it ends as soon as the views are written
        catalog.stop()
