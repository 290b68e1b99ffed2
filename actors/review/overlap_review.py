"""The OverlapReview actor: decides, one request after the other, whether a pool or subnet may be stored.

How it works. API servers ask about an object before they store it, and tell nobody whether they did. So what was let in is
remembered until the cache shows it, or for `MEMORY` seconds: of a hundred pools alike that come at once, the first is let
in, and the others are compared with it. What refuses is looked up in the store first, so that nobody is refused for a pool
that is gone or has changed since the cache saw it.
What must always hold: a refusal names both objects and the addresses; what an object had before is never held against it;
memory is bounded in time and number, and forgotten when it cannot be checked: this is an aid for people. An address that
two pools have is given out once whatever is decided here, because it is recorded in one place.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from actors.decisions.overlaps import Extent, extent_of, refusal, shared
from actors.errors import InvalidObject, NoSuchResource, NotFound
from actors.resources import ippool
from actors.resources.intervals import IntervalSet
from actors.resources.subnet import SpiderSubnet
from actors.review.messages import ReviewRequest, ReviewVerdict
from actors.review.time_share import TimeShare
from actors.runtime import Actor, ActorContext, message
from actors.store.caches.catalog import Catalog, PoolTable
from actors.store.contract import Store

SUBNET = "SpiderSubnet"
MEMORY = 10.0
"""Seconds in which an API server stores what it asked about, or not at all."""
MOST = 4096
"""Objects that are remembered. When there are more, the oldest is forgotten."""
MOST_RANGES = 1 << 16
"""Ranges of addresses in all of these."""
LOOKS = 16
"""Reads of the store for one request. One that has more neighbours than that is refused by the next of them unread."""
READ_TIMEOUT = 1.0


@dataclass(frozen=True, slots=True)
class LetIn:
    """What was let in and nobody has seen stored yet; `until` is in monotonic seconds."""

    extent: Extent
    is_update: bool
    until: float


@dataclass(slots=True)
class OverlapReviewState:
    """`let_in`: the oldest first; several entries may be about one object. `pools`: the extents of those in `table`."""

    let_in: list[LetIn] = field(default_factory=list)
    table: PoolTable | None = None
    pools: tuple[Extent, ...] = ()


class OverlapReviewActor(Actor):
    """One in a cluster, named `overlap-review/local` in the leader."""

    def __init__(
        self,
        context: ActorContext,
        *,
        store: Store,
        catalog: Catalog,
        subnets: Callable[[], Mapping[str, SpiderSubnet]] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`subnets`: all of them, as the cache has them; without it they are listed for each question about one."""
        super().__init__(context)
        self._subnets = subnets
        self._state = OverlapReviewState()
        self._store = store
        self._catalog = catalog
        self._clock = clock
        self._time = TimeShare()

    @message
    def review(self, request: ReviewRequest) -> ReviewVerdict:
        """Whether the object may be stored. Raises `StoreUnavailable` or `Overloaded` when that cannot be found out."""
        with self._time.turn():
            return self._judge(request)

    def _judge(self, request: ReviewRequest) -> ReviewVerdict:
        now = self._clock()
        cached = self._cached(request.kind)
        self._forget({extent.name: extent for extent in cached}, request.kind, now)
        why = self._conflict(request, cached)
        if not why and request.kept and request.added.addresses:
            self._remember(LetIn(request.added, request.is_update, now + MEMORY))
        return ReviewVerdict(why)

    def _remember(self, entry: LetIn) -> None:
        """Anybody who reaches the webhook can ask, so what this costs is bounded, not only how long."""
        state = self._state
        state.let_in.append(entry)
        ranges = [len(tuple(admitted.extent.addresses)) for admitted in state.let_in]
        while len(ranges) > MOST or sum(ranges) > MOST_RANGES:
            del ranges[0], state.let_in[0]

    def _conflict(self, request: ReviewRequest, cached: Sequence[Extent]) -> str:
        """Why it cannot be stored, "" for nothing."""
        added, looks = request.added, 0
        for other in cached:
            common = shared(added, other)
            if common and looks < LOOKS:
                looks += 1
                stored = self._stored(other)
                common = shared(added, stored) if stored is not None else IntervalSet()
            if common:
                return refusal(request.wanted, other, common)
        for entry in tuple(self._state.let_in):
            common = shared(added, entry.extent)
            if common and looks < LOOKS:
                looks += 1
                common = self._pending(entry, added)
            if common:
                return refusal(request.wanted, entry.extent, common)
        return ""

    def _pending(self, entry: LetIn, added: Extent) -> IntervalSet:
        """What an object that was let in a moment ago has in common with another one, by what the store says of it now."""
        stored = self._stored(entry.extent)
        if stored is None and entry.is_update:  # it is gone
            self._state.let_in.remove(entry)
            return IntervalSet()
        if stored is not None and not entry.is_update:
            # This one was stored, or another one of its name was before; the cache may not show it yet.
            place = self._state.let_in.index(entry)
            self._state.let_in[place] = replace(entry, extent=stored)
            return shared(added, stored)
        return shared(added, entry.extent)

    def _forget(self, cached: Mapping[str, Extent], kind: str, now: float) -> None:
        """Forget what was stored long ago, if at all, and what the cache shows by now."""

        def is_seen(entry: LetIn) -> bool:
            seen = cached.get(entry.extent.name) if entry.extent.kind == kind else None
            return seen is not None and not entry.extent.addresses.minus(seen.addresses)

        self._state.let_in = [
            entry for entry in self._state.let_in if entry.until > now and not is_seen(entry)
        ]

    def _cached(self, kind: str) -> Sequence[Extent]:
        """All objects of a kind, as the cache has them."""
        if kind == SUBNET and self._subnets is not None:
            return tuple(
                Extent(kind, subnet.name, subnet.family, subnet.listed) for subnet in self._subnets().values()
            )
        if kind == SUBNET:
            return tuple(self._listed())
        table = self._catalog.pools()
        if table is not self._state.table:
            self._state.table = table
            self._state.pools = tuple(
                Extent(ippool.KIND, pool.name, pool.family, pool.available) for pool in table.pools.values()
            )
        return self._state.pools

    def _listed(self) -> Iterator[Extent]:
        try:
            objects = self._store.list(SUBNET, timeout=READ_TIMEOUT).items
        except NoSuchResource:
            return
        for obj in objects:
            with contextlib.suppress(InvalidObject):  # it gives out nothing
                yield extent_of({**obj, "kind": SUBNET})

    def _stored(self, extent: Extent) -> Extent | None:
        """The object as the store has it now; None where there is none, or none that can be read."""
        try:
            obj = self._store.get(extent.kind, extent.name, timeout=READ_TIMEOUT)
            return extent_of({**obj, "kind": extent.kind})
        except (NotFound, InvalidObject):
            return None
