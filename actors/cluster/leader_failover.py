"""The router of an agent in a cluster: the leader's actors while there is a leader, else actors of its own.

How it works. A background thread reads the Lease, connects to its holder, which must show the certificate that the Lease
has, shows it the token of this agent's pod, and asks the Ledger there for a sign of life; from then on tasks go to the
leader. Now and then it does so anew, and the new connection takes the place of the old one. A task that the leader fails
runs again in a second actor system of this process with its own Ledger, pools and blocks, which lists and follows the
blocks and is given up again once there is a leader. So an agent normally holds nothing of the cluster's blocks.

    linked ── a call fails ──► away: tasks run here ── the thread finds a leader that answers ──► linked

What must always hold: see `actors.allocation.router`. The allocator here is opened after the leader failed, so its list
holds what the leader acknowledged; it is never used again once a leader was worked with. What was written here is `owed`
to the leader: before a task goes there, its Ledger must have seen those versions of the blocks.
"""

from __future__ import annotations

import itertools
import logging
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from actors.allocation.ledger import LedgerActor, ledger_of
from actors.allocation.registration import SERVED
from actors.allocation.router import Allocator, LocalAllocator, is_lost
from actors.cluster.credentials import SERVER_NAME, client_context
from actors.cluster.leadership import LEASE, Leadership
from actors.cluster.lease import Holder, read_holder
from actors.errors import OrbweaverError, PeerLost, PeerRefused, ProtocolError, StoreUnavailable
from actors.runtime import (
    ActorHandle,
    ActorSystem,
    LinkLimits,
    ObjectRef,
    TcpTransport,
    current_deadline,
    wait,
    within,
)
from actors.store.contract import Store

log = logging.getLogger("orbweaver.leader")
T = TypeVar("T")

RETRY_FIRST, RETRY_MOST = 0.1, 10.0
"""Seconds between attempts to find a leader. Thousands of agents read the Lease while there is none."""
COOLDOWN_MOST = 60.0
KEPT = 60.0
"""Seconds for which an allocator here is kept after its last task: its blocks may have writes to undo."""
_POLL = 0.01
RENEW_AGAIN = 0.05
"""Part of `Leadership.renew` after which a renewal that failed is tried again."""
CONNECT = 5.0
"""Seconds for a connection to the leader, and as many for its hello. In the background; nobody waits for it."""
ANSWER = 12.0
"""Seconds for the first sign of life on it: all agents come at once when their leader changes."""
FORMER = 30.0
"""Seconds for which answers may still come on the connection before."""


class Own(Protocol):
    """The actors of an allocator in this process, which can be ended."""

    @property
    def system(self) -> ActorSystem: ...

    def stop(self) -> None: ...


class LeaderAllocator:
    """One task's view of the leader. `lost`: what of it failed."""

    alone = False

    def __init__(self, system: ActorSystem, holder: Holder, budget: float) -> None:
        self.system = system
        self.holder = holder
        self.lost: OrbweaverError | None = None
        self._budget = budget

    @property
    def failed(self) -> bool:
        return self.lost is not None

    @property
    def speaks(self) -> int:
        return self.system.speaks("ledger")

    def get_actor(self, name: str) -> ActorHandle:
        return self.system.get_actor(name)

    def settle(self, refs: Sequence[ObjectRef[Any]], *, enough: int | None = None) -> None:
        """Wait until the deadline, as long as the leader shows a sign of life within each budget."""
        spare = 0 if enough is None else len(refs) - enough
        # Looked at once a turn: another may answer at any moment.
        while len(pending := [ref for ref in refs if not ref.done()]) > spare:
            missing = len(pending) - spare
            ready, _ = wait(pending, missing, self._budget)
            if len(ready) < missing:
                self.alive()
        for ref in refs:
            error = ref.error()
            if isinstance(error, OrbweaverError) and is_lost(error):
                self.lost = error
                raise error

    def alive(self, versions: tuple[tuple[int, int, str], ...] = ()) -> bool:
        """Whether the leader has seen these versions of blocks. Raises `PeerLost` when it does not answer in time."""
        ref = ledger_of(self).within(self._budget).ask(LedgerActor.reached, versions)
        wait([ref], 1, self._budget)
        if ref.error() is not None or not ref.done():
            self.lost = PeerLost(
                f"the leader {self.holder.identity} at {self.holder.address} does not answer: "
                f"{ref.error() or f'no sign of life within {self._budget:g} s'}"
            )
            raise self.lost from ref.error()
        return bool(ref.result())


@dataclass(slots=True)
class _OwnPlace:
    own: Own
    here: LocalAllocator
    users: int = 0
    used: float = field(default_factory=time.monotonic)


class LeaderFailover:
    """One per agent. `open_own(wrote)` makes the allocator in this process, whose blocks tell `wrote` each version."""

    def __init__(
        self,
        name: str,
        store: Store,
        leadership: Leadership,
        open_own: Callable[[Callable[[int, int, str], None]], Own],
        *,
        connect: Callable[[Holder], TcpTransport] | None = None,
    ) -> None:
        self._name = name
        self._store = store
        self._leadership = leadership
        self._open_own = open_own
        self._connect = connect or self._by_lease
        self._numbers = itertools.count(1)
        self._state = threading.Condition()
        """Guards what follows."""
        self._link: ActorSystem | None = None
        self._holder: Holder | None = None
        self._owed: dict[tuple[int, int], str] = {}
        self._left_at = -float("inf")
        self._not_before = 0.0
        self._cooldown = 0.0
        self._linked_at = 0.0
        self._renew_at = 0.0
        self._told = ""
        self._attempt: ActorSystem | None = None
        self._former: list[tuple[ActorSystem, float]] = []
        """Connections that another one has followed, and until when they stay."""
        self._tried = False
        self._on_linked: list[Callable[[], object]] = []
        self._own: _OwnPlace | None = None
        self._retired: list[_OwnPlace] = []
        self._stopping = False
        self._opening = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="leader-router", daemon=True)

    def start(self) -> None:
        """Begin to look for a leader."""
        self._thread.start()

    def wait_looked(self, timeout: float) -> None:
        """Wait until the first attempt to find a leader has ended, for `timeout` seconds at most."""
        with self._state:
            self._state.wait_for(lambda: self._tried, timeout)

    def stop(self, drain: float) -> None:
        """End the connection, and what was opened here."""
        with self._state:
            self._stopping = True
            link, self._link = self._link, None
            places = [*self._retired, *([self._own] if self._own else [])]
            self._own, self._retired = None, []
            former, self._former = self._former, []
            attempt = self._attempt
            self._state.notify_all()
        if attempt is not None and attempt is not link:
            attempt.shutdown()  # else its thread would wait for the leader
        if self._thread.is_alive():
            self._thread.join()
        for system in (*((link,) if link is not None else ()), *(former_link for former_link, _ in former)):
            system.shutdown()
        for place in places:
            place.own.stop()

    def on_linked(self, callback: Callable[[], object]) -> None:
        """Call back, from any thread, each time there is a leader anew, and now if there is one."""
        with self._state:
            self._on_linked.append(callback)
            linked = self._link is not None
        if linked:
            callback()

    def at_leader(self, name: str) -> ActorHandle | None:
        """The handle of an actor at the leader that this agent works with, None while there is none: for what only a leader
        wants to hear."""
        with self._state:
            return self._link.get_actor(name) if self._link is not None else None

    @property
    def leader(self) -> str:
        """Who is worked with, empty while this agent works by itself."""
        with self._state:
            return self._holder.identity if self._link is not None and self._holder is not None else ""

    def work(
        self,
        task: Callable[[Allocator], T],
        on_lost: Callable[[], object] | None = None,
        *,
        waits: float = 0.0,
    ) -> T:
        """See `actors.allocation.router.AllocatorRouter`."""
        for _ in range(2):
            allocator = self._leader()
            if allocator is None:
                break
            try:
                with within(self._patience(waits)):
                    self._settle_owed(allocator)
                    return task(allocator)
            except OrbweaverError:
                if allocator.lost is None:
                    raise
                self._left(allocator)
                if on_lost is not None:
                    on_lost()
        with self._here() as here:
            return task(here)

    def _patience(self, waits: float) -> float:
        """How long an answer is waited for of a leader that lives; half of the time is left for a run here."""
        deadline = current_deadline()
        left = float("inf") if deadline is None else deadline - time.monotonic() - waits
        return waits + max(0.0, min(self._leadership.patience, left / 2))

    def _leader(self) -> LeaderAllocator | None:
        """The leader; one that was just lost may be followed by another at once, and that is worth the budget."""
        with self._state:
            if self._link is None:
                until = self._left_at + self._leadership.budget
                self._state.wait_for(
                    lambda: self._link is not None or self._stopping or self._not_before > time.monotonic(),
                    max(0.0, until - time.monotonic()),
                )
            if self._link is None or self._holder is None:
                return None
            return LeaderAllocator(self._link, self._holder, self._leadership.budget)

    def _settle_owed(self, allocator: LeaderAllocator) -> None:
        """Let the leader see what was written here, before it is asked what is recorded."""
        until = time.monotonic() + self._leadership.budget
        while True:
            with self._state:
                owed = dict(self._owed)
            if not owed:
                return
            if allocator.alive(tuple((family, base, version) for (family, base), version in owed.items())):
                with self._state:
                    for place, version in owed.items():
                        if self._owed.get(place) == version:
                            del self._owed[place]
                return
            if time.monotonic() > until:
                allocator.lost = PeerLost(
                    f"the leader {allocator.holder.identity} has not seen yet what was written here"
                )
                raise allocator.lost
            time.sleep(_POLL)

    def _wrote(self, family: int, base: int, version: str) -> None:
        with self._state:
            self._owed[family, base] = version

    def _left(self, allocator: LeaderAllocator) -> None:
        """The leader failed a task: nobody goes there until the thread has found it, or another, to answer."""
        with self._state:
            if self._link is not allocator.system:
                return  # somebody noticed before
            self._link = None
            self._left_at = now = time.monotonic()
            if now - self._linked_at > COOLDOWN_MOST:
                self._cooldown = 0.0
            if not isinstance(allocator.lost, PeerLost) or self._cooldown:
                # It is there, but does not do its work: coming back at once would make everybody wait for it again.
                self._cooldown = min(COOLDOWN_MOST, self._cooldown * 2 or self._leadership.cooldown)
                self._not_before = now + self._cooldown * (0.75 + random.random() / 2)
            else:
                self._cooldown = self._leadership.cooldown / 4
                self._not_before = now
            self._retire()
            self._state.notify_all()
        log.warning(
            "the leader is lost, allocating in this process",
            extra={
                "leader": allocator.holder.identity,
                "address": allocator.holder.address,
                "error": str(allocator.lost),
            },
        )
        # What is still asked of it fails, and no answer that comes late is mistaken for one to a new question.
        threading.Thread(target=allocator.system.shutdown, name="leader-left", daemon=True).start()

    @contextmanager
    def _here(self) -> Iterator[LocalAllocator]:
        with self._opening:  # one opens it, the others wait
            with self._state:
                place = self._own
                if place is not None:
                    place.users += 1
            if place is None:
                own = self._open_own(self._wrote)
                place = _OwnPlace(own, LocalAllocator(own.system, alone=False), users=1)
                with self._state:
                    if self._link is None and not self._stopping:
                        self._own = place
                    else:
                        self._retired.append(place)
        try:
            yield place.here
        finally:
            with self._state:
                place.users -= 1
                place.used = time.monotonic()

    def _retire(self) -> None:
        # With the lock. What runs there goes on to its end; nothing new is begun there.
        if self._own is not None:
            self._retired.append(self._own)
            self._own = None

    def _run(self) -> None:
        pause = RETRY_FIRST
        while True:
            with self._state:
                if self._stopping:
                    return
                now = time.monotonic()
                idle = [
                    allocators
                    for allocators in self._retired
                    if not allocators.users and now - allocators.used > KEPT
                ]
                self._retired = [allocators for allocators in self._retired if allocators not in idle]
                over = [system for system, until in self._former if until <= now]
                self._former = [ended for ended in self._former if ended[0] not in over]
                linked = self._link is not None
                renewing = self._holder if linked and now >= self._renew_at else None
                early = self._not_before - now
            for allocators in idle:
                allocators.own.stop()
            for system in over:
                system.shutdown()
            if renewing is None and (linked or early > 0):
                with self._state:
                    if (self._link is not None) == linked:
                        renew = max(0.01, self._renew_at - time.monotonic())
                        self._state.wait(min(5.0, renew if linked else early))
                pause = RETRY_FIRST
                continue
            is_found = self._try(renewing)
            with self._state:
                self._tried = True
                self._state.notify_all()
                if not is_found and renewing is not None:
                    self._renew_at = time.monotonic() + self._leadership.renew * RENEW_AGAIN * (
                        0.5 + random.random()
                    )
                elif not is_found and not self._stopping:
                    self._state.wait(pause * (0.5 + random.random()))
                    pause = min(RETRY_MOST, pause * 2)

    def _try(self, renewing: Holder | None = None) -> bool:
        """Look for the leader once; whether it answers. `renewing`: the one that is worked with already."""
        try:
            holder = self._find(renewing)
            if holder is None or not holder.address or not holder.certificate:
                return False
            transport = self._connect(holder)
        except OrbweaverError as error:
            self._tell(logging.WARNING, "cannot look for the leader", str(error))
            return False
        system = ActorSystem(f"{self._name}-{next(self._numbers)}")
        # Idle links are pinged seldom: a leader has thousands. Before waiting long, `LeaderAllocator.settle` asks for itself.
        if not self._begin(system):
            return False
        limits = LinkLimits(connect=CONNECT, ping_every=20.0, ping_timeout=60.0)
        system.connect(SERVED, transport, limits)
        try:
            LeaderAllocator(system, holder, max(ANSWER, self._leadership.budget)).alive()
        except OrbweaverError as error:
            if isinstance(error.__cause__, ProtocolError):
                self._tell(
                    logging.WARNING,
                    "the leader and this agent do not understand each other, allocating in this process",
                    str(error),
                )
            else:
                self._tell(logging.INFO, "no leader answers", str(error))
            system.shutdown()
            return False
        with self._state:
            stopping = self._stopping
            if not stopping:
                if self._link is not None:
                    self._former.append((self._link, time.monotonic() + FORMER))
                self._link, self._holder = system, holder
                self._linked_at = time.monotonic()
                self._renew_at = self._linked_at + self._leadership.renew * (0.8 + 0.4 * random.random())
                self._retire()
                self._state.notify_all()
            callbacks = tuple(self._on_linked)
        if stopping:
            system.shutdown()
        elif renewing is None:
            log.info("allocating at the leader", extra={"leader": holder.identity, "address": holder.address})
        if not stopping:
            for callback in callbacks:
                callback()
        self._told = ""
        return not stopping

    def _begin(self, attempt: ActorSystem) -> bool:
        """Note what `stop` has to end, so that nobody waits for a leader that does not answer; False once it was called."""
        with self._state:
            self._attempt = attempt
            return not self._stopping

    def _find(self, renewing: Holder | None) -> Holder | None:
        try:
            return read_holder(self._store, LEASE, self._leadership.namespace)
        except StoreUnavailable:
            if renewing is None:
                raise
            return renewing  # the API server is away, and the leader need not be

    def _tell(self, level: int, event: str, error: str) -> None:
        """Log it, if it is not what was logged last: it is tried for as long as it takes."""
        log.log(level if error != self._told else logging.DEBUG, event, extra={"error": error})
        self._told = error

    def _by_lease(self, holder: Holder) -> TcpTransport:
        host, _, port = holder.address.rpartition(":")
        context = client_context(holder.certificate)
        return TcpTransport(
            host.strip("[]"), int(port), context, server_name=SERVER_NAME, token=self._read_token
        )

    def _read_token(self) -> str:
        """For each connection anew: the kubelet replaces it."""
        path = self._leadership.token
        try:
            return path.read_text("ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise PeerRefused(
                f"there is no token to show to the leader at {path}: {error}; mount the projected one of "
                "deploy/agent/daemonset.yaml, or name another file with --leader-token"
            ) from error
