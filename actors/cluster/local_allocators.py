"""The actors with which an agent allocates by itself while there is no leader: a system of their own beside the agent's.

What must always hold: they are made anew each time, so that their list of the blocks is newer than whatever the leader
acknowledged; what they tell the views goes to the agent's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from actors.allocation.application_pools import KIND as APPLICATION_POOLS
from actors.allocation.departures import Departures
from actors.allocation.observer import AllocationObserver
from actors.allocation.registration import register_allocators
from actors.allocation.supervision import TABLE
from actors.cluster.block_follower import BlockFollower
from actors.decisions.settings import Settings
from actors.runtime import ActorSystem, Call
from actors.store.caches.catalog import Catalog
from actors.store.contract import Store
from actors.subnets.existing_pools import ExistingPoolsActor
from actors.subnets.reading_threads import ReadingThreads

_DRAIN = 5.0
LIST_TIMEOUT = 30.0
"""Seconds in which the store has to list all blocks."""


@dataclass(frozen=True, slots=True)
class _InSystem:
    """A route to the actors of another system of this process."""

    system: ActorSystem

    def submit(self, call: Call) -> None:
        self.system.submit(call, inside=True)


class OwnAllocators:
    """Ledger, pools and blocks of one agent. Raises `StoreUnavailable` when the blocks are not listed in time."""

    def __init__(
        self,
        agent: ActorSystem,
        store: Store,
        catalog: Catalog,
        observer: AllocationObserver,
        wrote: Callable[[int, int, str], None],
        departures: Departures | None = None,
        settings: Settings | None = None,
    ) -> None:
        self._threads = ReadingThreads()
        self.system = ActorSystem(f"{agent.name}-own", supervision=TABLE, on_fatal=agent.on_fatal)
        self._blocks = BlockFollower(store, self.system)
        register_allocators(
            self.system,
            store,
            catalog,
            observer,
            shared=True,
            known=self._blocks.known,
            departures=departures,
            wrote=wrote,
        )
        self.system.register(
            APPLICATION_POOLS,
            lambda context: ExistingPoolsActor(
                context, catalog=catalog, store=store, settings=settings or Settings(), threads=self._threads
            ),
        )
        self.system.route("views", _InSystem(agent))
        try:
            self._blocks.start(LIST_TIMEOUT)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Finish what has begun, then end."""
        self._blocks.stop()
        self._threads.stop()
        self.system.shutdown(_DRAIN)
