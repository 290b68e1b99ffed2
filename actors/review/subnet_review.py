"""The SubnetReview actor: whether a pool and a subnet that is about to be stored fit each other.

A pool lists addresses of the subnet of its CIDR and no others; a new subnet has the addresses of the pools of its CIDR, and
no address of another one's; a subnet keeps what pools have of it; a family that is switched off has no new subnets.
What must always hold: nobody is refused for what a cache had not seen yet: the store is read before a refusal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from actors.decisions.settings import Settings
from actors.errors import InvalidObject, NoSuchResource
from actors.resources.ippool import IPPool
from actors.resources.space_rules import ranges_text
from actors.resources.subnet import KIND, SpiderSubnet
from actors.resources.subnet_pools import misfit, misplaced
from actors.review.messages import ReviewVerdict
from actors.review.time_share import TimeShare
from actors.runtime import Actor, ActorContext, message
from actors.store.caches.catalog import Catalog
from actors.store.contract import Object, Store

READ_TIMEOUT = 1.0


@dataclass(frozen=True, slots=True)
class PlacementRequest:
    """A pool or a subnet that is about to be stored, and what it replaces."""

    wanted: IPPool | SpiderSubnet
    before: IPPool | SpiderSubnet | None = None

    @classmethod
    def of(cls, kind: str, obj: Object, before: Object | None) -> PlacementRequest:
        """Raises `InvalidObject`. What was stored before and cannot be read counts as nothing."""
        read = SpiderSubnet.from_object if kind == KIND else IPPool.from_object
        try:
            replaced = None if before is None else read(before)
        except InvalidObject:
            replaced = None
        return cls(read(obj), replaced)


class SubnetReviewActor(Actor):
    """One in a cluster, named `subnet-review/local` in the leader."""

    def __init__(
        self,
        context: ActorContext,
        *,
        store: Store,
        catalog: Catalog,
        subnets: Callable[[], Mapping[str, SpiderSubnet]],
        settings: Settings,
    ) -> None:
        """`subnets`: all of them, as the cache has them."""
        super().__init__(context)
        self._cached = subnets
        self._store = store
        self._catalog = catalog
        self._settings = settings
        self._time = TimeShare()

    @message
    def review(self, request: PlacementRequest) -> ReviewVerdict:
        """Whether the object may be stored. Raises `StoreUnavailable` or `Overloaded` when that cannot be found out."""
        with self._time.turn():
            return self._judge(request)

    def _judge(self, request: PlacementRequest) -> ReviewVerdict:
        wanted, before = request.wanted, request.before
        if isinstance(wanted, IPPool):
            had = before.listed if isinstance(before, IPPool) else None
            why = misplaced(wanted, self._cached().values(), had)
            return ReviewVerdict(why and misplaced(wanted, self._stored(), had))
        if isinstance(before, SpiderSubnet):
            return ReviewVerdict(lost(wanted, before))
        if not self._settings.enabled(wanted.family):
            return ReviewVerdict(
                f"SpiderSubnet {wanted.name}: spec.subnet {wanted.subnet} is IPv{wanted.family}, which is disabled in the"
                f" settings; set enableIPv{wanted.family} to true first"
            )
        why = misfit(wanted, self._catalog.pools().pools.values(), self._cached().values())
        return ReviewVerdict(
            why and misfit(wanted, self._catalog.fresh_pools().pools.values(), self._stored())
        )

    def _stored(self) -> list[SpiderSubnet]:
        """All subnets as the store has them; one that cannot be read gives out nothing."""
        try:
            objects = self._store.list(KIND, timeout=READ_TIMEOUT).items
        except NoSuchResource:
            return []
        return list(_readable(objects))


def lost(wanted: SpiderSubnet, before: SpiderSubnet) -> str:
    """Why a subnet may not be changed so: it would lose addresses that pools have; "" for no reason."""
    removed = before.listed.minus(wanted.listed)
    for pool, entry in sorted(before.controlled.items()):
        if gone := entry.ips.intersect(removed):
            return (
                f"SpiderSubnet {wanted.name}: spec.ips and spec.excludeIPs take away {ranges_text(gone, wanted.family)} while"
                f" SpiderIPPool {pool} has them; leave them in until the pool is smaller, or gone"
            )
    return ""


def _readable(objects: Iterable[Object]) -> Iterable[SpiderSubnet]:
    for obj in objects:
        try:
            yield SpiderSubnet.from_object(obj)
        except InvalidObject:
            continue
