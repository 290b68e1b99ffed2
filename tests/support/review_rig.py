"""One of the leader's review actors on a store, whose changes its caches see only when `follow` is called."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from actors.allocation.supervision import TABLE
from actors.review.messages import ReviewVerdict
from actors.runtime import ActorSystem, get
from actors.store.caches.catalog import Catalog
from actors.store.contract import Store


class ReviewRig:
    """`make`: the actor `KIND/local`, given its context and the catalog."""

    def __init__(self, store: Store, kind: str, make: Callable[[Any, Catalog], Any]) -> None:
        self.store = store
        self.catalog = Catalog(store, has_pods=False)
        self.system = ActorSystem("leader", supervision=TABLE)
        self.system.register(kind, lambda context: make(context, self.catalog), idle=None)
        self._name = f"{kind}/local"

    def follow(self) -> None:
        self.catalog.start()
        assert self.catalog.wait_synced(60)

    def why(self, request: Any) -> str:
        """Why the actor refuses, "" where it does not."""
        verdict: ReviewVerdict = get(self.system.get_actor(self._name).review.remote(request))
        return verdict.why

    def stop(self) -> None:
        self.system.shutdown()
        self.catalog.stop()
