"""The actor that has pools made for applications: they are there before the first pod asks, and follow the replicas.

How it works. What changes of an application is looked at in its cache, and its pools are asked of the subnets' actors, one
question after the other for each interface and family (`decisions/pool_distribution.py`; how many addresses they are to
have: `Size` in `decisions/auto_pool.py`). An ADD that comes before that is done is answered then. What only the API server
knows (an owner that no cache has, an application that has vanished from one) is read by other threads.

What must always hold: this actor waits for nobody; one application's mistakes and its slow subnets cost that application; a
pool goes only when the API server has said that its application is gone, or asks for no pool any more; what fails is tried
again, and an ADD that waits is told so in its time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from actors.allocation.application_pools import ApplicationPoolsActor, PoolsRequest
from actors.decisions.annotations import read_subnets
from actors.decisions.auto_pool import FULL_NAME, ApplicationPools, owner_of
from actors.decisions.settings import Settings
from actors.errors import (
    InvalidObject,
    NoSuchResource,
    NotAllowed,
    NotFound,
    PeerLost,
    PodRefused,
    PoolNotReady,
    StoreUnavailable,
)
from actors.resources.application import Application
from actors.resources.ippool import IPPool
from actors.resources.metadata import Owner
from actors.resources.names import label_value
from actors.resources.workload import RECLAIM, Workload
from actors.runtime import ActorContext, Cancellable, ObjectRef, message
from actors.store.caches.catalog import Catalog
from actors.store.contract import Object, Store, version_number
from actors.subnets.applications import Applications, Identity
from actors.subnets.pool_rounds import RETRY_MOST, PoolRounds, Subnets, ours
from actors.subnets.pools_of_application import (
    ENDED,
    GONE,
    PoolsOfApplication,
    Waiting,
    own_pools,
    owner_labels,
)
from actors.subnets.reading_threads import ReadingThreads

log = logging.getLogger("orbweaver.subnets")

GATHER = 0.2
"""Seconds for which changes of subnets are gathered before applications that lack addresses ask again."""
SCAN = 600.0
"""Seconds between two looks at all applications and at pools whose application may be gone."""
UNWATCHED = 30.0
"""Seconds between two looks at applications of kinds that this process may not watch."""
LOOKED_UP = 1024
"""Owners that are being read at a time; the ADD of another one is told to come again."""
ANSWER = 0.9
"""Part of the time that an ADD names in which it is answered, whatever that is."""


_Look = tuple[str, Owner, bool]
"""A namespace, an owner in it as a pod says it, and whether the caches are passed over."""


class AutoPoolsActor(ApplicationPoolsActor):
    """One per process that makes pools, named `auto-pools/local`. `tell`: news about an application, by reason and text;
    `leads`: whether this process makes them at this moment."""

    def __init__(
        self,
        context: ActorContext,
        *,
        applications: Applications,
        subnets: Subnets,
        catalog: Catalog,
        store: Store,
        settings: Settings,
        threads: ReadingThreads,
        tell: Callable[[Application, str, str], object],
        leads: Callable[[], bool],
        scan: float = SCAN,
        unwatched: float = UNWATCHED,
    ) -> None:
        super().__init__(context)
        self._applications = applications
        self._subnets = subnets
        self._catalog = catalog
        self._store = store
        self._read = threads.read
        self._rounds = PoolRounds(self, subnets, catalog, settings, tell, self._forget, self._find)
        self._leads = leads
        self._interval = scan
        self._pause = unwatched
        self._known: dict[Identity, PoolsOfApplication] = {}
        self._index: dict[tuple[str, str, str], set[str]] = {}
        """Automatic pools by kind, namespace and name of their application, as labels have them."""
        self._indexed: dict[str, tuple[str, str, str]] = {}
        """Where each of them stands there."""
        self._kept: set[str] = set()
        """Pools that stay when their application goes."""
        self._nobodys: set[str] = set()
        """Pools that are looked at soon, because no application is known for them."""
        self._begun = False
        self._early: list[Waiting] = []
        """Who asked before this process had begun."""
        self._looking: dict[_Look, list[Waiting]] = {}
        self._gathering = False
        self._scanning: Cancellable | None = None
        self._polling: Cancellable | None = None

    def on_activate(self) -> None:
        """After a crash everything is found again; nobody else would say that it is time to begin."""
        for pool in self._catalog.pools().pools.values():
            self._note(pool)
        if self._leads():
            self.begin()

    # -- messages -------------------------------------------------------------------------------------------

    @message
    def begin(self) -> None:
        """From now on this process makes the pools: look at all applications that are known, and at all pools."""
        for identity in self._applications.asking():
            self._look_at(identity)
        self._begun = True
        early, self._early = self._early, []
        for waiting in early:
            if not waiting.reply.done():
                self._find(waiting)
        self._scan()
        self._poll()

    @message
    def end(self) -> None:
        """Another process makes them, or none: who waits here asks there."""
        self._begun = False
        lost = PeerLost("this process makes no pools any more; ask who does")
        early, self._early = self._early, []
        for waiting in early:
            waiting.timer.cancel()
            waiting.reply.fail(lost)
        for state in self._known.values():
            state.fate = ENDED
            self._rounds.refuse(state, lost)
            if state.retry is not None:
                state.retry.cancel()
        self._known = {}
        self._rounds.owners.clear()
        self._rounds.going.clear()
        for timer in (self._scanning, self._polling):
            if timer is not None:
                timer.cancel()
        self._scanning = self._polling = None

    @message
    def changed(self, identities: tuple[Identity, ...]) -> None:
        """These applications may have changed, or gone."""
        for identity in identities:
            self._look_at(identity)

    @message
    def pools_changed(self, names: tuple[str, ...]) -> None:
        """These pools may have changed, or gone."""
        for name in names:
            pool = self._catalog.pools().pools.get(name)
            if pool is not None:
                self._reclaim_if_told(pool)
                self._note(pool)
            else:
                self._kept.discard(name)
                self._rounds.going.discard(name)
                self._unnote(name)
            state = self._known.get(self._rounds.owners.get(name, ("", "", "", "")))
            if state is None:
                if pool is not None:
                    self._judge_later(pool)
                else:
                    self._rounds.owners.pop(name, None)
                continue
            if pool is None or pool.terminating:
                if pool is not None:  # its name is not free before it is gone
                    state.pools.pop(name, None)
                elif name not in state.pools:
                    del self._rounds.owners[name]
                self._rounds.reconcile(state)
            elif name in state.leaving:
                if name in state.pools:
                    self._rounds.empty(state, state.pools[name])
            elif state.over:
                self._rounds.reconcile(state)

    @message
    def subnets_changed(self) -> None:
        """Some subnet changed: who lacks addresses may have them now."""
        if not self._gathering:
            self._gathering = True
            self.after(GATHER, self._help_the_short)

    @message
    def pools_for(self, request: PoolsRequest) -> ObjectRef[ApplicationPools]:
        reply: ObjectRef[ApplicationPools] = ObjectRef(label=f"pools for pod {request.pod}")
        wish = read_subnets(f"pod {request.pod}", dict(request.annotations))
        if wish is None:
            raise PodRefused(f"pod {request.pod} asks for no SpiderSubnet")
        timer = self.after(max(0.0, request.wait * ANSWER), self._late, request, reply)
        waiting = Waiting(request, wish, reply, timer)
        if self._begun:
            self._find(waiting)
        else:
            self._early.append(waiting)
        return reply

    def new_objects(self, pools: ApplicationPools) -> tuple[Object, ...]:
        return self._catalog.made_lately(pools.pools)

    # -- applications ---------------------------------------------------------------------------------------

    def _find(self, waiting: Waiting) -> None:
        """Whose pod it is, which may have to be read."""
        request = waiting.request
        top = None if request.again else self._applications.cached_top(request.namespace, request.owner)
        if top is not None:
            self._serve(waiting, top)
            return
        key = (request.namespace, request.owner, request.again)
        if key in self._looking:
            self._looking[key].append(waiting)
        elif len(self._looking) >= LOOKED_UP:
            waiting.timer.cancel()
            waiting.reply.fail(
                PoolNotReady(f"too many owners of pods are being looked up; pod {request.pod} comes again")
            )
        else:
            self._looking[key] = [waiting]
            look = partial(self._applications.read_top, request.namespace, request.owner)
            self.then(self._read(look), self._looked_up, key)

    def _look_at(self, identity: Identity) -> None:
        state, workload = self._known.get(identity), self._applications.cached(identity)
        if workload is None:
            unread = self._applications.unread(identity)
            if state is not None:  # a cache may have lost sight of it for other reasons
                self._look_again(state)
            elif unread is not None:
                self.then(self._read(partial(self._applications.read, unread)), self._first_read)
            return
        if state is None and not (workload.asks and self._applications.is_top(workload)):
            return
        state = self._take(workload)
        if state is not None and state.outdated:
            self._rounds.reconcile(state)

    def _first_read(self, ref: ObjectRef[Workload | None]) -> None:
        """An application of another kind, which nothing was known of."""
        error = ref.error()
        if error is not None:
            log.info("an application is looked at when its pods ask", extra={"error": str(ours(error))})
            return
        workload = ref.result()
        if workload is not None and workload.asks and workload.counted:
            state = self._take(workload)
            if state is not None and state.outdated:
                self._rounds.reconcile(state)

    def _look_again(self, state: PoolsOfApplication) -> None:
        look = partial(self._applications.read, state.application)
        self.then(self._read(look), self._looked_again, state)

    def _looked_again(self, ref: ObjectRef[Workload | None], state: PoolsOfApplication) -> None:
        if state.fate is not None:
            return
        error = ref.error()
        if error is not None:
            self._rounds.try_again(state, error, self._look_again)
            return
        workload = ref.result()
        if workload is None:
            self._gone(state)
            return
        now = self._take(workload)
        if now is None:
            return
        now.failures = 0
        if now.outdated or now.again:
            self._rounds.reconcile(now)
        elif not now.running:
            self._rounds.answer(now)  # who came while it was to be read again

    def _looked_up(self, ref: ObjectRef[Workload | None], key: _Look) -> None:
        waiting_for_it, again = self._looking.pop(key), key[2]
        error = ref.error()
        workload = ref.result() if error is None else None
        known = self._known.get(workload.application.identity) if workload is not None else None
        if workload is not None and again and known is not None and known.pools:
            look = partial(self._going, tuple(known.pools))
            self.then(self._read(look), self._looked_at_pools, workload, waiting_for_it)
            return
        for waiting in waiting_for_it:
            request = waiting.request
            if error is not None:
                waiting.timer.cancel()
                waiting.reply.fail(
                    PoolNotReady(
                        f"whose pod {request.pod} is cannot be read: {ours(error)}; it is tried again"
                    )
                )
            elif workload is None:
                waiting.timer.cancel()
                owner = request.owner
                waiting.reply.fail(
                    PodRefused(
                        f"pod {request.pod} names {owner.kind} {owner.name} as its controller, which is not there, or is"
                        " another one by now; a pool is made for pods of controllers that exist"
                    )
                )
            else:
                self._serve(waiting, workload)

    def _going(self, pools: tuple[str, ...]) -> frozenset[str]:
        """Which of these are gone, or are being deleted, as the store says; in another thread."""
        going = set()
        for name in pools:
            try:
                if self._catalog.fresh_pool(name).terminating:
                    going.add(name)
            except NotFound:
                going.add(name)
            except InvalidObject:
                continue  # it is to be mended, not followed by another one
        return frozenset(going)

    def _looked_at_pools(
        self, ref: ObjectRef[frozenset[str]], workload: Workload, waiting_for_it: list[Waiting]
    ) -> None:
        """Pods found no address in its pools: a person may have deleted one of which the cache here has not heard yet."""
        state = self._known.get(workload.application.identity)
        if state is not None and ref.error() is None:
            for name in ref.result():
                state.pools.pop(name, None)  # it is followed by one of another name
        for waiting in waiting_for_it:
            self._serve(waiting, workload)

    def _serve(self, waiting: Waiting, top: Workload) -> None:
        """An ADD of a pod of this application."""
        state = self._take(top)
        if state is None:
            waiting.timer.cancel()
            waiting.reply.fail(PoolNotReady(f"{top.application.title} was made anew; its pod comes again"))
            return
        if not state.workload.asks:
            state.from_pods = dict(waiting.request.annotations)
        size = waiting.wish.size
        if not state.workload.counted and (size is None or size.beside_replicas):
            waiting.timer.cancel()
            waiting.reply.fail(
                PodRefused(
                    f"pod {waiting.request.pod}: {top.application.title} has no `scale` that says how many pods it wants;"
                    " write the number of pods into it, if its kind has one, or a number of addresses into"
                    ' ipam.spidernet.io/ippool-ip-number, such as "5"'
                )
            )
            return
        state.waiting.append(waiting)
        if state.running or state.retry is not None:
            state.again |= waiting.request.again
        elif not state.outdated and not waiting.request.again:
            self._rounds.answer(state)
        else:
            self._rounds.reconcile(state)

    def _take(self, workload: Workload) -> PoolsOfApplication | None:
        """What is known of an application, with what was seen of it now; None if that is older than what is known."""
        identity = workload.application.identity
        state = self._known.get(identity)
        if state is not None and version_number(workload.version) < version_number(state.workload.version):
            return state if workload.application.uid == state.application.uid else None
        if state is not None and workload.application.uid == state.application.uid:
            state.workload = workload
            return state
        if state is not None:
            self._forget(state)
        state = self._known[identity] = PoolsOfApplication(workload)
        key = (
            workload.application.kind,
            workload.application.namespace,
            label_value(workload.application.name),
        )
        table = self._catalog.pools().pools
        named = [table[name] for name in self._index.get(key, ()) if name in table]
        state.pools, left = own_pools(workload.application, named, self._subnets.table())
        for name in state.pools:
            self._rounds.owners[name] = identity
        for pool in left:
            self._rounds.drop(pool)
        return state

    def _gone(self, state: PoolsOfApplication) -> None:
        log.info("an application is gone", extra={"application": state.application.title})
        self._forget(state)
        for pool in state.pools.values():
            if self._rounds.goes_with(state, pool):
                self._rounds.drop(pool)

    def _forget(self, state: PoolsOfApplication) -> None:
        state.fate = GONE
        self._rounds.relieve(state)
        self._rounds.refuse(state, PodRefused(f"{state.application.title} does not exist any more"))
        if state.retry is not None:
            state.retry.cancel()
        self._known.pop(state.application.identity, None)
        for name in state.pools:
            self._rounds.owners.pop(name, None)

    def _late(self, request: PoolsRequest, reply: ObjectRef[ApplicationPools]) -> None:
        """Its time is over."""
        owners = (
            state for state in self._known.values() for waiter in state.waiting if waiter.reply is reply
        )
        state = next(owners, None)
        why = f" ({state.failure})" if state is not None and state.failure is not None else ""
        reply.fail(
            PoolNotReady(
                f"the pools for pod {request.pod} of its application are not there yet{why}; it comes again"
            )
        )
        if state is not None:
            state.waiting = [waiter for waiter in state.waiting if waiter.reply is not reply]

    # -- looking after all of them --------------------------------------------------------------------------

    def _note(self, pool: IPPool) -> None:
        if pool.labels.get(RECLAIM) == "false":
            self._kept.add(pool.name)
        key = owner_labels(pool)
        if key is not None:
            self._index.setdefault(key, set()).add(pool.name)
            self._indexed[pool.name] = key

    def _reclaim_if_told(self, pool: IPPool) -> None:
        """A pool that was kept for the next application is not to be kept any more."""
        if pool.labels.get(RECLAIM) != "false" and pool.name in self._kept:
            self._kept.discard(pool.name)
            if self._begun and pool.name not in self._rounds.owners:
                self.then(self._read(partial(self._owner_now, pool)), self._judge, pool)

    def _unnote(self, pool: str) -> None:
        key = self._indexed.pop(pool, None)
        if key is not None:
            self._index[key].discard(pool)
            if not self._index[key]:
                del self._index[key]

    def _help_the_short(self) -> None:
        self._gathering = False
        for state in tuple(self._known.values()):
            if state.short:
                self._rounds.reconcile(state)

    def _scan(self) -> None:
        """Look at every application again, and whether one has left pools."""
        if self._scanning is not None:
            self._scanning.cancel()
        self._scanning = self.after(self._interval, self._scan)
        for state in tuple(self._known.values()):
            if not state.running and state.retry is None:
                state.forget_pods()
                self._rounds.reconcile(state)
        for pool in self._catalog.pools().pools.values():
            if (
                owner_labels(pool) is not None
                and pool.name not in self._rounds.owners
                and not pool.terminating
            ):
                self.then(self._read(partial(self._owner_now, pool)), self._judge, pool)

    def _poll(self) -> None:
        """Look at what nobody tells of."""
        if self._polling is not None:
            self._polling.cancel()
        self._polling = self.after(self._pause, self._poll)
        for state in tuple(self._known.values()):
            if not self._applications.is_watched(state.application.identity):
                self._look_again(state)

    def _owner_now(self, pool: IPPool) -> tuple[Application, Workload | None]:
        """Whose pool it is, and what that is now; in another thread."""
        stored = self._store.get("SpiderIPPool", pool.name)
        full = (stored["metadata"].get("annotations") or {}).get(FULL_NAME, "")
        owner = owner_of(pool.labels, full)
        if owner is None:
            raise NotFound(f"whose pool {pool.name} is its labels do not say")
        return owner, self._applications.read(owner)

    def _judge_later(self, pool: IPPool) -> None:
        """A pool that is nobody's, as far as is known: made a moment ago, or the last thing that another leader did."""
        name = pool.name
        known = name in self._kept or name in self._rounds.going or name in self._nobodys
        if self._begun and not known and not pool.terminating and owner_labels(pool) is not None:
            self._nobodys.add(name)
            self.after(RETRY_MOST, self._judge_again, pool)

    def _judge_again(self, pool: IPPool) -> None:
        self._nobodys.discard(pool.name)
        if self._begun and pool.name not in self._rounds.owners:
            self.then(self._read(partial(self._owner_now, pool)), self._judge, pool)

    def _judge(self, ref: ObjectRef[tuple[Application, Workload | None]], pool: IPPool) -> None:
        """A pool that no application is known for."""
        error = ref.error()
        if error is not None:
            log.info("a pool is left alone", extra={"pool": pool.name, "error": str(ours(error))})
            if isinstance(error, StoreUnavailable) and not isinstance(error, NoSuchResource | NotAllowed):
                self.after(RETRY_MOST, self._judge_again, pool)
            return
        owner, workload = ref.result()
        if pool.name in self._rounds.owners:
            return
        if workload is None or workload.application.uid != owner.uid:
            if pool.labels.get(RECLAIM) != "false":
                _, left = own_pools(replace(owner, uid=""), [pool], self._subnets.table())
                for left_pool in left:
                    self._rounds.drop(left_pool)
            return
        state = self._take(workload)
        if state is not None and state.outdated:
            self._rounds.reconcile(state)
