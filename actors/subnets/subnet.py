"""The SubnetActor: the one who divides a SpiderSubnet among its pools, and writes the pools that follow applications.

How it works. Whatever happens (a pool is asked for, a pool or the subnet changed, a pod came or went) leads to one look at
everything, `_settle`: what waits meanwhile is looked at together, so that a hundred applications that come at once cost one
write of the subnet. A look takes the subnet's status, the pools and what the blocks say, decides (`shares.py`, and
which addresses go where, `decisions/subnet_share.py`), and writes; whoever asked for a pool is answered as soon as that one is
stored.

    grow:    status (compare-and-swap) ─► pool object        a crash between: the status says what the pool is to have
    shrink:  pool object ─► look whether a pod was faster ─► status

What must always hold: the status lists every address that a pool of the subnet may give out, at every moment, so nobody
else is given it; a pool never loses an address that a pod has; a subnet that has nothing left is an answer, which changes
nothing. Two leaders at once cost a retry: each write is a compare-and-swap, and who does not lead writes nothing.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

from actors.allocation.ledger import LedgerActor, ledger_of
from actors.decisions.auto_pool import NAMESPACE, owner_of
from actors.errors import Conflict, InvalidObject, NotFound, OrbweaverError, PeerLost, WriteRefused
from actors.resources.admission import FINALIZER, admit
from actors.resources.intervals import IntervalSet
from actors.resources.ippool import IPPool
from actors.resources.subnet import KIND, SpiderSubnet
from actors.resources.subnet_pools import subnet_of
from actors.runtime import Actor, ActorContext, ActorSource, Cancellable, ObjectRef, TypedHandle, get, message
from actors.store.caches.catalog import Catalog, PoolTable
from actors.store.contract import Object, Store, version_number
from actors.subnets.exhaustion import Exhaustion
from actors.subnets.messages import AutoPool, EnsureAnswer, Ensured, Exhausted, SubnetRefused
from actors.subnets.pool_writer import PoolWrite, PoolWriter
from actors.subnets.refused_writes import RefusedWrites
from actors.subnets.shares import SubnetShares, status_of
from actors.subnets.use_index import UseIndex

log = logging.getLogger("orbweaver.subnet")

RETRY = 1.0
"""Seconds after which is tried again what a store or a policy refused."""
GATHER, GATHER_USE = 0.05, 0.5
"""Seconds for which changes of pools are gathered before they are looked at, and those that say no more than that pods came or
went: with thousands of pools some change all the time, and each look costs their number. Whoever asks for a pool does not wait
for that."""
CONTENT = 1.0
"""Seconds after which the status says that nobody lacks addresses any more."""
ATTEMPTS = 20
"""Looks for one event, of which each found that somebody else had written meanwhile."""
GRACE = 30.0
"""Seconds for which a record of a pool that is not there is kept: whoever led before may be about to write the pool."""
LEDGER_TIMEOUT = 10.0
MOST_POOLS = 1024
"""Pools of one subnet that the applications of one namespace may have: each costs every look at the subnet, and a hundred bytes
of its status, which the API server bounds for all of them together."""
WRITERS = 8
"""Pools of one look that are written at a time: when a hundred applications come at once, none waits for the API server's
answers about all others, one after the other."""


@dataclass(slots=True)
class PoolRequest:
    """A pool that somebody waits for."""

    pool: AutoPool
    """As it was asked for last."""
    replies: list[ObjectRef[EnsureAnswer]] = field(default_factory=list)
    """To who is to be answered."""

    def answer(self, answer: EnsureAnswer) -> None:
        """Whoever has an answer already keeps it. From any thread."""
        for reply in self.replies:
            reply.complete(answer)

    def fail(self, error: OrbweaverError) -> None:
        for reply in self.replies:
            reply.fail(error)


@dataclass(slots=True)
class SubnetState:
    """What is asked, and what was done about it."""

    requests: dict[str, PoolRequest] = field(default_factory=dict)
    """Pools that wait for the next look."""
    wanted: dict[str, AutoPool] = field(default_factory=dict)
    """Pools as their applications want them, since this process leads."""
    object: Object | None = None
    """The subnet, as it was read or written last; None to read it."""
    parsed: tuple[Object, SpiderSubnet] | None = None
    """What was parsed last, and what it says."""
    departed: set[str] = field(default_factory=set)
    """Pools that were there and are gone."""
    sequence: int = -1
    """Up to which change the Ledger answered."""
    ranges: tuple[tuple[int, int], ...] = ()
    """What the Ledger was asked about last, and up to which change it answered."""
    began: float = field(default_factory=time.monotonic)
    """Monotonic seconds since when this process divides the subnet."""
    posted: bool = False
    """Whether a look is on its way."""
    timer: Cancellable | None = None
    """Rings at `due`, for the next look."""
    due: float = 0.0
    """Monotonic seconds."""
    gone: bool = False
    """Whether the subnet is gone, so that nothing is looked at any more."""


class SubnetActor(Actor):
    """One per SpiderSubnet, named `subnet/NAME`, on the leader."""

    def __init__(
        self,
        context: ActorContext,
        *,
        store: Store,
        catalog: Catalog,
        subnets: Callable[[], Mapping[str, SpiderSubnet]],
        may_write: Callable[[], bool] = lambda: True,
        is_enabled: Callable[[int], bool] = lambda family: True,
        clock: Callable[[], float] = time.time,
        grace: float = GRACE,
    ) -> None:
        """`subnets`: all of them, as the cache has them. `may_write`: whether this process leads. `is_enabled`: whether
        addresses of a family are given out at all. `grace`: seconds, see `GRACE`."""
        super().__init__(context)
        self._store = store
        self._catalog = catalog
        self._subnets = subnets
        self._may_write = may_write
        self._is_enabled = is_enabled
        self._clock = clock
        self._grace = grace
        self._state = SubnetState()
        self._use = UseIndex()
        self._pools = self._pool_writer()
        self._exhaustion = Exhaustion()
        self._refused = RefusedWrites()

    @property
    def _name(self) -> str:
        return self.context.key

    def _pool_writer(self) -> PoolWriter:
        return PoolWriter(self._store, self._catalog.made, self._check_leads)

    def on_passivate(self) -> bool:
        return self._state.gone and not self._state.requests

    # What is said to it.

    @message
    def begin(self) -> None:
        """Divide the subnet from now on: this process leads, and nothing that it knew before counts."""
        requests = self._state.requests
        self._state = SubnetState(requests=requests)
        self._exhaustion = Exhaustion()
        self._refused = RefusedWrites()
        self._pools = self._pool_writer()
        self._use.forget()
        self._wake()

    @message
    def ensure(self, pool: AutoPool) -> ObjectRef[EnsureAnswer]:
        """Let an application have its pool, as it wants it now. Answered when the pool is stored. Raises
        `StoreUnavailable`, and `PeerLost` where this process does not lead."""
        reply: ObjectRef[EnsureAnswer] = ObjectRef()
        request = self._state.requests.setdefault(pool.name, PoolRequest(pool))
        request.pool = pool
        request.replies.append(reply)
        self._wake()
        return reply

    @message
    def drop(self, pool: str) -> None:
        """An application needs its pool no more: it is deleted, and goes with its last address. Raises `StoreUnavailable`."""
        self._check_leads()
        self._state.wanted.pop(pool, None)
        self._exhaustion.forget(pool)
        seen = self._pools.seen(pool, self._catalog.pools())
        if seen is not None and not seen.terminating:
            self._pools.delete(seen)
        self._wake()

    @message
    def content(self, pool: str) -> None:
        """The application of this pool, for which there were too few addresses, lacks none: it wants fewer, has others, or is
        gone. Written a moment later, because what is scaled up and down lacks them again."""
        self._exhaustion.forget(pool)
        self._again(CONTENT)

    @message
    def changed(self, version: str) -> None:
        """The subnet has this version now, an empty one if it is gone."""
        obj = self._state.object
        if obj is not None and not 0 <= version_number(version) <= version_number(_version(obj)):
            self._state.object = None
        self._state.gone = False
        self._wake()

    @message
    def look(self) -> None:
        """What concerns all pools changed: the addresses that are reserved."""
        self._wake()

    @message
    def pool_changed(self, pool: str) -> None:
        """A pool of the subnet came, changed or went, or pods got or gave back its addresses."""
        now = self._catalog.pools().pools.get(pool)
        if now is None:
            self._pools.forget(pool)
            self._state.departed.add(pool)
        self._again(GATHER_USE if now is not None and self._pools.is_known(now) else GATHER)

    def _wake(self) -> None:
        if not self._state.posted:
            self._state.posted = True
            self.post(self._settle)  # behind what waits now, which is looked at together

    def _again(self, seconds: float) -> None:
        """Look again, after so long at the latest."""
        state, due = self._state, time.monotonic() + seconds
        if state.timer is not None and state.due <= due:
            return
        if state.timer is not None:
            state.timer.cancel()
        state.due = due
        state.timer = self.after(seconds, self._timed)

    def _timed(self) -> None:
        self._state.timer = None
        self._wake()

    # The look at everything.

    def _settle(self) -> None:
        state = self._state
        state.posted = False
        requests, state.requests = state.requests, {}
        try:
            self._attempts(requests)
        except OrbweaverError as error:
            state.object = None  # who knows what was written
            for request in requests.values():
                request.fail(error)
            if not isinstance(error, PeerLost):
                log.warning(
                    "a subnet was not looked after, will try again",
                    extra={"subnet": self._name, "error": str(error)},
                )
                self._again(RETRY)

    def _attempts(self, requests: Mapping[str, PoolRequest]) -> None:
        for _ in range(ATTEMPTS):
            self._check_leads()
            try:
                return self._look(requests)
            except Conflict as error:
                self._state.object = None
                conflict = error
        raise conflict

    def _check_leads(self) -> None:
        if not self._may_write():
            raise PeerLost(f"this process does not lead; nothing was done for SpiderSubnet {self._name}")

    def _look(self, requests: Mapping[str, PoolRequest]) -> None:
        """Put everything right once, and answer what is asked. Raises `Conflict` when somebody else wrote meanwhile."""
        try:
            obj = self._loaded()
            subnet = self._parsed(obj)
        except NotFound:
            self._state.gone = True
            self._state.wanted.clear()
            return _refuse(requests, f"there is no SpiderSubnet {self._name}; name one that exists")
        except InvalidObject as error:
            return _refuse(requests, f"{error}; mend the object")
        if subnet.terminating:
            self._end(obj, subnet)
            return _refuse(requests, f"SpiderSubnet {self._name} is being deleted; name another one")
        table = self._catalog.pools()
        look = _Look(obj, subnet, table, self._shares(subnet, table), requests)
        self._take_note(look)
        answers = self._decide(look)
        self._write_status(look)
        self._write_pools(look, answers)
        self._shrink(look, answers)
        for name, request in requests.items():
            request.answer(answers.get(name) or Ensured(name, look.shares.share(name).size))
        return None

    # What is there.

    def _loaded(self) -> Object:
        """The subnet, with what one that was made by kubectl lacks. Raises `NotFound`."""
        state = self._state
        if state.object is not None:
            return state.object
        obj = self._store.get(KIND, self._name)
        if not obj["metadata"].get("deletionTimestamp"):
            try:
                admitted = admit(obj, obj)
            except InvalidObject as error:
                # Let in by the API server: it serves as far as it can.
                log.warning(
                    "a subnet is not as it should be", extra={"subnet": self._name, "error": str(error)}
                )
                admitted = obj
            if admitted != obj:
                obj = self._store.update(admitted)
        state.object = obj
        return obj

    def _parsed(self, obj: Object) -> SpiderSubnet:
        """What the subnet says; reading hundreds of pools' shares takes longer than a whole look at them. Raises
        `InvalidObject`."""
        state = self._state
        if state.parsed is None or state.parsed[0] is not obj:
            state.parsed = (obj, SpiderSubnet.from_object(obj))
        return state.parsed[1]

    def _shares(self, subnet: SpiderSubnet, table: PoolTable) -> SubnetShares:
        state = self._state
        given = [span for entry in subnet.controlled.values() for span in entry.ips]
        ranges = tuple(subnet.listed.union(given))
        if ranges != state.ranges:
            state.ranges, state.sequence = ranges, -1
        question = ledger_of(self).within(LEDGER_TIMEOUT)
        occupancy = get(question.ask(LedgerActor.occupancy, subnet.family, ranges, state.sequence))
        self._use.learn(occupancy.changes, whole=occupancy.whole)
        state.sequence = occupancy.sequence
        near = [pool for pool in table.pools.values() if _meets(pool, subnet)]
        reserved = self._catalog.reserved(subnet.family)
        return SubnetShares(subnet, reserved, near, self._use.at(self._clock()))

    def _mine(self, look: _Look) -> Iterator[IPPool]:
        """The pools of this subnet that are there."""
        subnets = self._subnets()
        known = [*(other for name, other in subnets.items() if name != look.subnet.name), look.subnet]
        for pool in self._pools.of_cidr(look.subnet.subnet, look.table):
            if subnet_of(pool, known) is look.subnet:
                yield pool

    def _take_note(self, look: _Look) -> None:
        """Of the pools that are there and those that are not: what the status says of them is put right."""
        shares = look.shares
        look.mine = {pool.name: pool for pool in self._mine(look)}
        for pool in look.mine.values():
            if not pool.auto_created:
                shares.adopt(pool)
            elif pool.name not in shares.controlled:
                owner = owner_of(pool.labels)
                shares.adopt(pool, owner.text if owner is not None else "unknown")
            elif pool.terminating:  # what it was promised and does not list it never gets
                shares.adopt(pool, shares.controlled[pool.name].application)
        for name in [name for name in shares.controlled if name not in look.mine]:
            if name in look.table.pools:
                shares.drop(name)  # it is of another subnet now
            elif name in look.table.damaged or name in look.requests:
                continue
            elif name not in self._state.departed and name in self._state.wanted:
                continue  # it is still to be written
            elif name not in self._state.departed and time.monotonic() < self._state.began + self._grace:
                self._again(self._state.began + self._grace - time.monotonic())
            elif not self._pools.exists(name):
                self._state.wanted.pop(name, None)  # who wants it asks for it again, perhaps by another name
                shares.drop(name)
        self._state.departed &= shares.controlled.keys()

    # What is to be.

    def _decide(self, look: _Look) -> dict[str, EnsureAnswer]:
        """Let pools grow; the answers of those that cannot."""
        answers: dict[str, EnsureAnswer] = {}
        latest = {name: request.pool for name, request in look.requests.items()}
        counts = Counter(pool.labels.get(NAMESPACE, "") for pool in look.mine.values() if pool.auto_created)
        for name, pool in {**self._state.wanted, **latest}.items():
            why = self._misfit(look, pool) or _crowd(look, pool, counts)
            if why:
                answers[name] = SubnetRefused(why)
                continue
            refused = look.shares.ensure(name, pool.owner.text, pool.wanted)
            if refused is not None:
                answers[name] = refused
                self._exhaustion.met(name, refused, time.monotonic())
                self._tell(look.subnet, refused)
            else:
                look.wanted[name] = pool
                counts[pool.owner.namespace] += name not in look.mine
                self._state.wanted[name] = pool
        return answers

    def _misfit(self, look: _Look, request: AutoPool) -> str:
        """Why the subnet cannot make this pool at all."""
        subnet, name = look.subnet, request.name
        if request.family != subnet.family:
            return (
                f"SpiderSubnet {subnet.name} is IPv{subnet.family}; name it where IPv{subnet.family} ones go"
            )
        if not self._is_enabled(subnet.family):
            return f"SpiderSubnet {subnet.name} is IPv{subnet.family}, which is disabled in the settings"
        if name in look.table.damaged:
            return (
                f"SpiderIPPool {name} cannot be read: {look.table.damaged[name]}; mend or delete the object"
            )
        present = self._pools.seen(name, look.table)
        if present is None:
            return ""
        if not present.auto_created:
            return (
                f"there is a SpiderIPPool {name} that somebody made by hand; delete it, or call it otherwise"
            )
        if name not in look.mine:
            return (
                f"SpiderIPPool {name} of this application is of another subnet, {present.subnet}; an application's subnet"
                " cannot be changed while it has that pool"
            )
        if present.terminating:
            return f"SpiderIPPool {name} is being deleted; it can be made again when its last address is free"
        return ""

    def _tell(self, subnet: SpiderSubnet, refused: Exhausted) -> None:
        involved = {"kind": KIND, "name": subnet.name, "uid": subnet.uid}
        heard = self.get_actor("events/local").exhausted.options(timeout=None).remote(involved, refused.text)
        heard.subscribe(_log_untold)

    # What is written.

    def _write_status(self, look: _Look) -> None:
        before = look.object.get("status") or {}
        condition = self._exhaustion.condition(
            before.get("conditions"), look.shares.left, time.monotonic(), self._clock()
        )
        if self._exhaustion.outstanding:
            self._again(self._exhaustion.next_look(time.monotonic()))
        status = status_of(before, look.shares, condition)
        if status == before:
            return
        self._check_leads()  # reading the Ledger may have taken long
        look.object = self._state.object = stored = self._store.update_status(
            {**look.object, "status": status}
        )
        if stored.get("status") == status:
            divided = look.subnet.divided(stored, look.shares.controlled, look.shares.former)
            self._state.parsed = (stored, divided)
        log.debug(
            "subnet divided",
            extra={
                "subnet": self._name,
                "allocated": look.shares.allocated,
                "free": look.shares.free,
            },
        )

    def _write_pools(self, look: _Look, answers: dict[str, EnsureAnswer]) -> None:
        """Make the pools' objects say what the status says, several at a time: they are different objects."""
        due, refused = [], set[str]()
        for name in [*look.mine, *(name for name in look.wanted if name not in look.mine)]:
            pool = look.mine.get(name)
            if (pool is not None and pool.terminating) or isinstance(answers.get(name), SubnetRefused):
                continue
            work = self._pool_write(look, name, look.shares.share(name))
            if work.is_done():
                _answer_stored(look, answers, work)
            elif name not in look.requests and (wait := self._refused.wait(work, time.monotonic())):
                refused.add(name)
                self._again(wait)
            else:
                due.append(work)
        stored = partial(_answer_stored, look, answers)
        for work, error in zip(due, _together(due, stored), strict=True):
            if isinstance(error, InvalidObject | WriteRefused):
                answers[work.name] = SubnetRefused(f"SpiderIPPool {work.name} could not be written: {error}")
                refused.add(work.name)
                self._put_off(work, error)
            elif error is not None:
                raise error
        self._refused.keep(refused)

    def _put_off(self, work: PoolWrite, error: OrbweaverError) -> None:
        """A pool could not be written; a person who made it has to be told, who perhaps believes that it is the subnet's."""
        wait, news = self._refused.note(work, str(error), time.monotonic(), RETRY)
        self._again(wait)
        if not news:
            return
        log.warning("a pool could not be written", extra={"pool": work.name, "error": str(error)})
        if work.request is None and work.present is not None:
            text = f"it cannot have the gateway and routes of SpiderSubnet {self._name} as it stands: {error}"
            events = self.get_actor("events/local").unfit.options(timeout=None)
            events.remote(work.name, work.present.uid, text).subscribe(_log_untold)

    def _pool_write(self, look: _Look, name: str, ips: IntervalSet) -> PoolWrite:
        present, wanted = self._pools.seen(name, look.table), self._state.wanted.get(name)
        return PoolWrite(self._pools, name, present, wanted, look.subnet, look.object, ips)

    def _shrink(self, look: _Look, answers: Mapping[str, EnsureAnswer]) -> None:
        """Let pools give back what they have too much and no pod has: first out of the pool, then out of the status."""
        given = False
        for name, wanted in look.wanted.items():
            excess = look.shares.excess(name, wanted.wanted)
            if not excess or name in answers:
                continue
            try:
                self._pool_write(look, name, look.shares.share(name).minus(excess)).run()
            except (InvalidObject, WriteRefused) as error:
                # The status of the pool may still say that a pod has one of them; it will not for long.
                log.debug("a pool could not shrink yet", extra={"pool": name, "error": str(error)})
                self._again(RETRY)
                continue
            still = self._held(look, name).intersect(excess)
            look.shares.give_back(name, excess.minus(still))
            if still:
                self._wake()  # a pod was faster: the pool gets these again
            given = True
        if given:
            self._write_status(look)

    def _held(self, look: _Look, pool: str) -> IntervalSet:
        """What is recorded out of a pool at this moment."""
        family = look.subnet.family
        _, allocations = get(ledger_of(self).within(LEDGER_TIMEOUT).ask(LedgerActor.usage, pool, 1 << 30))
        return IntervalSet(
            (allocation.value, allocation.value) for allocation in allocations if allocation.family == family
        )

    def _end(self, obj: Object, subnet: SpiderSubnet) -> None:
        """The subnet is being deleted: so are its pools, each with its last address, and it goes with the last of them."""
        self._state.wanted.clear()
        look = _Look(obj, subnet, self._catalog.pools(), self._shares(subnet, self._catalog.pools()))
        mine = list(self._mine(look))
        for pool in mine:
            if not pool.terminating:
                self._pools.delete(pool)
        there = {pool.name for pool in mine}
        for name in [name for name in look.shares.controlled if name not in there]:
            if not self._pools.exists(name):
                look.shares.drop(name)
        self._write_status(look)
        metadata = look.object["metadata"]
        if not there and not look.shares.controlled and FINALIZER in (metadata.get("finalizers") or ()):
            left = [name for name in metadata["finalizers"] if name != FINALIZER]
            self._store.update({**look.object, "metadata": {**metadata, "finalizers": left}})
            self._state.object = None
            log.info("subnet removed with its last pool", extra={"subnet": self._name})


@dataclass(slots=True)
class _Look:
    """One look at everything."""

    object: Object
    """The subnet as it stands in the store."""
    subnet: SpiderSubnet
    """The same, parsed."""
    table: PoolTable
    """The pools as the cache knows them."""
    shares: SubnetShares
    """Which addresses which pool has."""
    requests: Mapping[str, PoolRequest] = field(default_factory=dict)
    """Who asks for which pool."""
    mine: dict[str, IPPool] = field(default_factory=dict)
    """The pools of the subnet that are there."""
    wanted: dict[str, AutoPool] = field(default_factory=dict)
    """Those that applications want and can have."""


def subnet_actor_of(actors: ActorSource, name: str) -> TypedHandle[SubnetActor]:
    """The subnet of a name, which divides its addresses among pools."""
    return TypedHandle(actors.get_actor("subnet/" + name))


def _crowd(look: _Look, request: AutoPool, counts: Mapping[str, int]) -> str:
    """Why a new pool would be one too many; `counts`: the pools that each namespace has."""
    namespace = request.owner.namespace
    if request.name in look.shares.controlled or counts.get(namespace, 0) < MOST_POOLS:
        return ""
    return (
        f"the applications of namespace {namespace} have {MOST_POOLS} pools of SpiderSubnet {look.subnet.name}, which is the"
        " most that one namespace may have; delete applications that nobody needs, or name another subnet"
    )


def _refuse(requests: Mapping[str, PoolRequest], why: str) -> None:
    for request in requests.values():
        request.answer(SubnetRefused(why))


def _answer_stored(look: _Look, answers: Mapping[str, EnsureAnswer], work: PoolWrite) -> None:
    """A pool is stored with all that it is to have: whoever waits for it need not wait for the others. One that is about to
    shrink, or got less than it should (`answers`), is answered in the end. From any thread."""
    request = look.requests.get(work.name)
    if request is not None and work.name not in answers and work.ips.size == request.pool.wanted:
        request.answer(Ensured(work.name, work.ips.size))


def _together(
    works: Sequence[PoolWrite], stored: Callable[[PoolWrite], object]
) -> list[BaseException | None]:
    """Run them, tell of each that is `stored`, and wait for all; what each raised."""
    if len(works) < 2:
        return [_error_of(work, stored) for work in works]
    with ThreadPoolExecutor(min(WRITERS, len(works)), thread_name_prefix="pool-writer") as threads:
        return list(threads.map(lambda work: _error_of(work, stored), works))


def _error_of(work: PoolWrite, stored: Callable[[PoolWrite], object]) -> BaseException | None:
    try:
        work.run()
    except Exception as error:
        return error
    stored(work)
    return None


def _version(obj: Object) -> str:
    return str(obj["metadata"]["resourceVersion"])


def _meets(pool: IPPool, subnet: SpiderSubnet) -> bool:
    """Whether a pool may list addresses of a subnet; a quick answer for most of thousands."""
    if pool.family != subnet.family or not pool.ips or not subnet.ips:
        return False
    first, last = subnet.ips.first or 0, subnet.ips.last or 0
    return (pool.ips.first or 0) <= last and first <= (pool.ips.last or 0)


def _log_untold(ref: ObjectRef[None]) -> None:
    error = ref.error()
    if error is not None:  # it is in the subnet's status too
        log.debug("an Event was left out", extra={"error": str(error)})
