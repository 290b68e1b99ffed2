"""One round of questions for one application after the other: what its subnets are asked for, and what comes of the answers.

How it works. Each interface and family asks its subnets one after the other (`decisions/pool_distribution.py`), all of them at
once. When the last is answered, the ADDs that wait are. What the application wants anew meanwhile is the next round.

What must always hold: nothing here waits; what a round could not do for an error is tried again, and nobody who waits is
refused for that; a pool that is not asked for any more goes when its last pod has left it, and not before.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol

from actors.decisions.annotations import read_subnets
from actors.decisions.auto_pool import Size
from actors.decisions.pool_distribution import Outcome, distribute
from actors.decisions.settings import Settings
from actors.decisions.subnet_choice import choose_subnets
from actors.errors import OrbweaverError, PodRefused, PoolNotReady
from actors.resources.application import Application
from actors.resources.names import label_value
from actors.resources.subnet import SpiderSubnet
from actors.resources.workload import RECLAIM
from actors.runtime import Actor, ObjectRef
from actors.store.caches.catalog import Catalog
from actors.subnets.applications import Identity
from actors.subnets.messages import AutoPool, EnsureAnswer, Ensured, Exhausted
from actors.subnets.pools_of_application import GONE, OwnPool, PoolsOfApplication, Run, Waiting

log = logging.getLogger("orbweaver.subnets")

RETRY_FIRST, RETRY_MOST = 0.5, 30.0
"""Seconds until what failed is tried again; they double."""
SHORT = "SubnetExhausted"
"""Reason of an Event about an application that has fewer addresses than it wants."""


class Subnets(Protocol):
    """Who makes the pools."""

    def table(self) -> Mapping[str, SpiderSubnet]: ...

    def damaged(self) -> Mapping[str, str]: ...

    def ensure(self, subnet: str, pool: AutoPool) -> ObjectRef[EnsureAnswer]: ...

    def drop(self, subnet: str, pool: str) -> ObjectRef[Any]: ...

    def content(self, subnet: str, pool: str) -> ObjectRef[Any]: ...


class PoolRounds:
    """Belongs to one actor, in whose thread all of it runs. `tell`: news about an application, by reason and text; `forget`:
    an application has no pools and wants none; `ask_anew`: what the application of a pod wants is to be read for it. `owners`:
    whose each pool is, of those of known applications."""

    def __init__(
        self,
        actor: Actor,
        subnets: Subnets,
        catalog: Catalog,
        settings: Settings,
        tell: Callable[[Application, str, str], object],
        forget: Callable[[PoolsOfApplication], object],
        ask_anew: Callable[[Waiting], object],
    ) -> None:
        self._actor = actor
        self._subnets = subnets
        self._catalog = catalog
        self._settings = settings
        self._tell = tell
        self.forget = forget
        self._ask_anew = ask_anew
        self.owners: dict[str, Identity] = {}
        self.going: set[str] = set()
        """Pools that were taken away and may still be in a cache."""

    def reconcile(self, state: PoolsOfApplication) -> None:
        """Ask the subnets for what the application wants now."""
        if state.running:
            state.again = True
            return
        state.begin()
        runs: list[Run] = []
        if state.asked:
            try:
                state.wish = read_subnets(state.application.title, state.asked)
            except PodRefused as error:
                state.settled = state.aim
                self._tell(state.application, type(error).__name__, error.message)
                self.refuse(state, error)
                return
            runs = runs_of(state, self._subnets.table(), self._subnets.damaged(), self._settings)
        state.running = len(runs)
        state.refusals = {run.group: run.refusals for run in runs}
        for pool in state.outside({run.group: run.subnets for run in runs}):
            if self.goes_with(state, pool):
                self.empty(state, pool)
        for run in runs:
            self._step(state, run, None)
        if not runs:
            self._finished(state)

    def _step(self, state: PoolsOfApplication, run: Run, outcome: Outcome | None) -> None:
        """The next question of a run, after the answer to the one before."""
        try:
            subnet, number = next(run.questions) if outcome is None else run.questions.send(outcome)
        except StopIteration as end:
            state.distributions[run.group] = end.value
            self._part_done(state)
            return
        pool = state.asking(run.group, subnet, number, size_of(state, self._settings), self._is_taken)
        state.leaving.discard(pool.name)
        own = OwnPool(pool.name, subnet, label_value(run.group[0]), run.group[1], number)
        self._actor.then(self._subnets.ensure(subnet, pool), self._answered, state, run, own)

    def _is_taken(self, name: str) -> bool:
        return name in self._catalog.pools().pools or name in self.owners

    def _answered(
        self, ref: ObjectRef[EnsureAnswer], state: PoolsOfApplication, run: Run, own: OwnPool
    ) -> None:
        error = ref.error()
        if error is not None:
            state.failure = ours(error)
            self._part_done(state)
            return
        answer = ref.result()
        if isinstance(answer, Exhausted):
            state.lacking[own.subnet, own.name] = run.group
        if state.fate is not None:
            self._answered_late(state, own, answer)
            return
        if isinstance(answer, Ensured):
            state.pools[own.name] = replace(own, addresses=answer.addresses)
            self.owners[own.name] = state.application.identity
            outcome = Outcome(answer.addresses)
        elif isinstance(answer, Exhausted):
            outcome = Outcome(None, answer.left, answer.text)
        else:
            outcome = Outcome(None, 0, answer.reason)
        self._step(state, run, outcome)

    def _answered_late(self, state: PoolsOfApplication, own: OwnPool, answer: EnsureAnswer) -> None:
        """The application has gone meanwhile, or another process makes its pools."""
        if state.fate != GONE:
            return
        self.relieve(state)
        if isinstance(answer, Ensured) and state.reclaims and own.name not in self.owners:
            self.drop(replace(own, addresses=answer.addresses))

    def relieve(self, state: PoolsOfApplication) -> None:
        """Let the subnets know that had too few addresses for it, where it lacks none any more."""
        for (subnet, pool), group in tuple(state.lacking.items()):
            distribution = state.distributions.get(group)
            if state.fate == GONE or distribution is None or not distribution.missing:
                del state.lacking[subnet, pool]
                self._subnets.content(subnet, pool).subscribe(_log_unheard)

    def _part_done(self, state: PoolsOfApplication) -> None:
        state.running -= 1
        if not state.running:
            self._finished(state)

    def _finished(self, state: PoolsOfApplication) -> None:
        """All questions of one round are answered."""
        if state.fate is not None:
            return
        if state.failure is not None:
            self.try_again(state, state.failure, self.reconcile)
            return
        state.failures = 0
        if state.again or state.has_news:  # it changed meanwhile
            self.reconcile(state)
            return
        state.settled = state.aim
        self.relieve(state)
        if not state.asked and not state.pools:
            self.forget(state)
            return
        shortage = "; ".join(filter(None, (state.shortage(group) for group in state.refusals)))
        if shortage:
            self._tell(state.application, SHORT, shortage)
        self.answer(state)

    def empty(self, state: PoolsOfApplication, pool: OwnPool) -> None:
        """A pool that the application does not ask for any more: it goes when the last pod has left it."""
        group = pool.interface, pool.family
        emptied = state.asking(group, pool.subnet, 0, size_of(state, self._settings), self._is_taken)
        state.leaving.add(pool.name)
        self._actor.then(self._subnets.ensure(pool.subnet, emptied), self._emptied, state, pool)

    def _emptied(self, ref: ObjectRef[EnsureAnswer], state: PoolsOfApplication, pool: OwnPool) -> None:
        answer = ref.result() if ref.error() is None else None
        if state.fate is not None or not isinstance(answer, Ensured):
            return  # the next look tries again
        if answer.addresses or pool.name not in state.leaving:
            return  # pods have them still, or it is wanted again
        state.leaving.discard(pool.name)
        state.pools.pop(pool.name, None)
        self.owners.pop(pool.name, None)
        self.drop(pool)

    def answer(self, state: PoolsOfApplication) -> None:
        """Tell all that wait what there is."""
        waiting, state.waiting = state.waiting, []
        for waiter in waiting:
            try:
                answer = state.answer(waiter.wish, self._settings.enabled)
            except PoolNotReady as error:
                if waiter.request.again:
                    waiter.timer.cancel()
                    waiter.reply.fail(error)
                else:  # it may be of a newer template than is known
                    self._ask_anew(replace(waiter, request=replace(waiter.request, again=True)))
            else:
                waiter.timer.cancel()
                waiter.reply.complete(answer)

    def refuse(self, state: PoolsOfApplication, error: OrbweaverError) -> None:
        """Fail all that wait."""
        waiting, state.waiting = state.waiting, []
        for waiter in waiting:
            waiter.timer.cancel()
            waiter.reply.fail(error)

    def try_again(
        self, state: PoolsOfApplication, error: BaseException, work: Callable[[PoolsOfApplication], None]
    ) -> None:
        """Do `work` once more after a while, which grows with each failure in a row (`RETRY_FIRST` to `RETRY_MOST`
        seconds)."""
        state.failures += 1
        wait = min(RETRY_MOST, RETRY_FIRST * 2 ** min(state.failures - 1, 10))
        log.warning(
            "the pools of an application are tried again",
            extra={"application": state.application.title, "error": str(ours(error)), "seconds": wait},
        )
        state.retry = self._actor.after(wait, self._retried, state, work)

    def _retried(self, state: PoolsOfApplication, work: Callable[[PoolsOfApplication], None]) -> None:
        state.retry = None
        if state.fate is None:
            work(state)

    def goes_with(self, state: PoolsOfApplication, pool: OwnPool) -> bool:
        """Whether a pool goes when its application is gone, by what stands on the pool, which a person may have changed; or by
        what the application said after that was written."""
        cached = self._catalog.pools().pools.get(pool.name)
        if cached is not None and not state.has_news:
            return cached.labels.get(RECLAIM) != "false"
        return state.reclaims

    def drop(self, pool: OwnPool) -> None:
        """Have a pool deleted, once."""
        if pool.name in self.going:
            return
        self.going.add(pool.name)
        log.info("an automatic pool goes", extra={"pool": pool.name, "subnet": pool.subnet})
        self._actor.then(self._subnets.drop(pool.subnet, pool.name), self._dropped, pool, 0)

    def _dropped(self, ref: ObjectRef[Any], pool: OwnPool, failures: int) -> None:
        error = ref.error()
        if error is None:
            return
        wait = min(RETRY_MOST, RETRY_FIRST * 2 ** min(failures, 10))
        log.warning(
            "a pool could not be taken away, it is tried again",
            extra={"pool": pool.name, "error": str(ours(error)), "seconds": wait},
        )
        self._actor.after(wait, self._drop_again, pool, failures + 1)

    def _drop_again(self, pool: OwnPool, failures: int) -> None:
        if pool.name not in self.going or pool.name in self.owners:
            return  # it is gone, or somebody's again, or this process makes no pools any more
        self._actor.then(self._subnets.drop(pool.subnet, pool.name), self._dropped, pool, failures)


def _log_unheard(ref: ObjectRef[Any]) -> None:
    error = ref.error()
    if error is not None:  # the subnet forgets by itself, later
        log.debug("a subnet did not hear that nobody lacks addresses", extra={"error": str(error)})


def size_of(state: PoolsOfApplication, settings: Settings) -> Size:
    """How large each of its pools is to be: as it says, else as the cluster does."""
    wished = state.wish.size if state.wish is not None else None
    return wished or Size(settings.spare_addresses, beside_replicas=True)


def runs_of(
    state: PoolsOfApplication,
    subnets: Mapping[str, SpiderSubnet],
    damaged: Mapping[str, str],
    settings: Settings,
) -> list[Run]:
    """The questions to subnets for what an application wishes, an interface and family each."""
    assert state.wish is not None
    wanted = size_of(state, settings).wanted(state.workload.replicas)
    runs = []
    for choice in state.wish.interfaces:
        for family in (4, 6):
            if not choice.names(family) or not settings.enabled(family):
                continue
            group = choice.interface, family
            chosen = choose_subnets(choice.names(family), family, subnets, damaged)
            present = {name: pool.addresses for name, pool in state.own(group).items()}
            pods = state.pods(sum(present.values()))
            questions = distribute(chosen.names, present, wanted, pods)
            runs.append(Run(group, chosen.names, questions, chosen.refusals))
    return runs


def ours(error: BaseException) -> OrbweaverError:
    """An error of ours; raises what is a bug."""
    if not isinstance(error, OrbweaverError):
        raise error
    return error
