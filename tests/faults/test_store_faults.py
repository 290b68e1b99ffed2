"""The actors on a store that fails: errors and lost replies at every write, delays, a store that is away."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from actors.errors import OrbweaverError, StoreUnavailable
from actors.runtime import get
from actors.store.contract import Object, Store
from tests.support.checker import eventually, records
from tests.support.faulty_store import Fault, FaultyStore, How, Write
from tests.support.rig import Rig, pod, pool, rig, sandbox, statefulset

# Two small pools whose addresses lie in two blocks each, so that one ADD writes two blocks and churn more.
POOLS = (pool("v4", "10.6.0.0/16", "10.6.0.62-10.6.0.65"), pool("v6", "fd00::/64", "fd00::3e-fd00::41"))
OBJECTS = (*POOLS, statefulset("db", 1), pod("db-0", statefulset="db"))
WRITES = 28
"""Block writes and views' writes of `story`, at least; see `test_the_story_has_that_many_writes`."""


def story(one: Rig) -> None:
    """ADD, repeated ADD, DEL, repeated DEL, a StatefulSet's pod that comes back, reuse."""
    one.add(sandbox("a"))
    one.add(sandbox("b"))
    one.add(sandbox("a"))
    first = one.add(sandbox("d1", pod="db-0"))
    one.delete(sandbox("a"))
    one.delete(sandbox("a"))
    one.delete(sandbox("d1", pod="db-0"))
    one.add(sandbox("c"))
    assert one.add(sandbox("d2", pod="db-0")) == first
    one.delete(sandbox("b"))
    one.add(sandbox("e"))
    one.add(sandbox("f"))
    one.prove()


def fills_up(one: Rig) -> None:
    """Every address of the pools can be had: none is lost in anybody's memory."""
    for place in list(one.journal.held):
        one.delete(sandbox(*place))
    found = {address for number in range(4) for address in one.add(sandbox(f"fill{number}"))}
    assert len(found) == 8
    one.prove()


def test_the_story_has_that_many_writes(tmp_path: Path):
    with rig(tmp_path, *OBJECTS) as one:
        story(one)

        assert len(one.store.writes) >= WRITES
        assert sum(write.kind == "SpiderIPBlock" for write in one.store.writes) >= 14


@pytest.mark.parametrize("how", [How.BEFORE, How.AFTER])
def test_an_error_at_any_one_write_is_got_over(tmp_path: Path, how: How):
    for number in range(1, WRITES + 1):
        directory = tmp_path / str(number)
        directory.mkdir()
        with rig(directory, *OBJECTS, plan=at(number, how)) as one:
            story(one)


@pytest.mark.parametrize("how", [How.BEFORE, How.AFTER])
def test_errors_until_the_deadline_leave_nothing(tmp_path: Path, how: How):
    """From the n-th block write on, for as long as the request has time, every write fails; or the n-th takes place,
    its reply is lost, and the store is away from then on. No DEL follows."""
    failures = 0
    stores: list[FaultyStore] = []
    for number in range(1, 6):
        directory = tmp_path / str(number)
        directory.mkdir()
        failing = threading.Event()
        failing.set()

        def plan(write: Write, number: int = number, failing: threading.Event = failing) -> Fault | None:
            if write.kind != "SpiderIPBlock" or not failing.is_set():
                return None
            if write.among_alike("*", "SpiderIPBlock") < number:
                return None
            stores[-1].away = how is How.AFTER
            return Fault(how)

        with rig(directory, *POOLS, plan=plan) as one:
            stores.append(one.store)
            outcomes = [attempt(one, f"c{turn}", 0.15) for turn in range(3)]
            failures += outcomes.count(False)
            failing.clear()
            one.store.away = False
            one.journal.doubtful.clear()
            one.prove()
            fills_up(one)
    assert failures > 0


class Late:
    """A store whose block writes, while `on`, time out at once and take place later, in their own time."""

    def __init__(self, inner: Store, on: threading.Event, delay: float) -> None:
        self._inner, self._on, self._delay = inner, on, delay
        self.landed: list[bool] = []
        self.threads: list[threading.Thread] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def create(self, obj: Object, *, timeout: float = 10.0) -> Object:
        return self._write(obj, lambda: self._inner.create(obj, timeout=timeout))

    def update(self, obj: Object, *, timeout: float = 10.0) -> Object:
        return self._write(obj, lambda: self._inner.update(obj, timeout=timeout))

    def _write(self, obj: Object, write: Callable[[], Object]) -> Object:
        if obj["kind"] != "SpiderIPBlock" or not self._on.is_set():
            return write()

        def later() -> None:
            time.sleep(self._delay)
            try:
                write()
            except OrbweaverError:
                self.landed.append(False)
            else:
                self.landed.append(True)

        self.threads.append(threading.Thread(target=later, daemon=True))
        self.threads[-1].start()
        raise StoreUnavailable("injected: no answer in time", maybe_written=True)


@pytest.mark.parametrize("delay", [0.0, 0.03, 0.1, 0.3])
def test_a_write_that_takes_place_after_it_timed_out_leaks_nothing(tmp_path: Path, delay: float):
    """A cluster's API server may act on a request long after its client gave up (a CAS is what stops it)."""
    on = threading.Event()
    late: list[Late] = []

    def wrap(inner: Store) -> Any:
        late.append(Late(inner, on, delay))
        return late[0]

    with rig(tmp_path, *POOLS, wrap=wrap) as one:
        one.add(sandbox("before"))
        on.set()
        for number in range(1, 8):  # on a busy machine the first ones may end before they come to write
            attempt(one, f"c{number}", 0.1 * 2**number)
            if late[0].threads:
                break
        on.clear()
        one.journal.doubtful.clear()
        one.prove()
        for thread in late[0].threads:
            thread.join()
        assert late[0].landed
        one.prove()
        fills_up(one)


def test_the_store_is_away_for_a_while_and_comes_back(tmp_path: Path):
    pools = (pool("v4", "10.6.0.0/16", "10.6.0.0-10.6.0.200"), pool("v6", "fd00::/64", "fd00::-fd00::c8"))
    with rig(tmp_path, *pools) as one:
        over = threading.Event()
        load = Load(one, 6, over, timeout=0.3)
        load.start()
        for failures in (1, 12, 4):
            load.wait(done=10)
            one.store.away = True
            load.wait(failed=failures)
            one.store.away = False
        load.wait(done=10)
        over.set()
        load.join()
        load.settle()
        one.prove()


@pytest.mark.parametrize("seed", range(4))
def test_random_faults_under_load(tmp_path: Path, seed: int):
    chance = random.Random(seed)
    quiet = threading.Event()

    def plan(write: Write) -> Fault | None:
        if quiet.is_set() or chance.random() > 0.3:
            return None
        how = chance.choice([How.BEFORE, How.AFTER, How.AFTER, How.DELAY])
        return Fault(how, 0.01)

    pools = (
        pool("v4a", "10.6.0.0/16", "10.6.0.56-10.6.0.72"),
        pool("v4b", "10.6.0.0/16", "10.6.0.60-10.6.0.80"),  # overlaps
        pool("v6", "fd00::/64", "fd00::30-fd00::55"),
    )
    with rig(tmp_path, *pools, plan=plan) as one:
        over = threading.Event()
        load = Load(one, 8, over, timeout=0.2, seed=seed)
        load.start()
        editor = threading.Thread(target=edit, args=(one, over, seed), daemon=True)
        editor.start()
        load.wait(done=100)
        over.set()
        load.join()
        editor.join()
        quiet.set()
        load.settle()
        one.prove()


def edit(one: Rig, over: threading.Event, seed: int) -> None:
    """Grow, shrink and disable a pool again and again."""
    chance = random.Random(seed)
    while not over.wait(0.05):
        one.edit_pool(
            "v4a", ips=[f"10.6.0.56-10.6.0.{chance.randrange(58, 90)}"], disable=chance.random() < 0.2
        )


class Load:
    """Threads that ADD, repeat and DEL until `over`. An ADD that failed is followed by a DEL, sooner or later."""

    def __init__(
        self, one: Rig, threads: int, over: threading.Event, *, timeout: float, seed: int = 0
    ) -> None:
        self._one, self._over, self._timeout = one, over, timeout
        self.done = 0
        self.failed = 0
        self._errors: list[BaseException] = []
        self._threads = [
            threading.Thread(target=self._guarded, args=(n, seed), daemon=True) for n in range(threads)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join()
        if self._errors:
            raise self._errors[0]

    def wait(self, done: int = 0, failed: int = 0) -> None:
        """Go on until so many more are done and so many more have failed."""
        done, failed = self.done + done, self.failed + failed

        def enough() -> None:
            if self._errors:
                raise RuntimeError("a thread of the load ended") from self._errors[0]
            assert (self.done >= done, self.failed >= failed) == (True, True)

        eventually(enough)

    def settle(self) -> None:
        """DEL for everything in doubt, until each is answered."""
        until = time.monotonic() + 120
        while self._one.journal.doubtful:
            for place in list(self._one.journal.doubtful):
                try:
                    self._one.delete(sandbox(*place))
                except OrbweaverError:
                    assert time.monotonic() < until

    def _guarded(self, number: int, seed: int) -> None:
        try:
            self._work(random.Random(100 * seed + number), number)
        except BaseException as error:
            self._errors.append(error)

    def _work(self, chance: random.Random, number: int) -> None:
        """One that fails again and again has more time with each, so that a busy machine comes to an end, too."""
        mine: list[str] = []
        turn, timeout = 0, self._timeout
        while not self._over.is_set():
            turn += 1
            try:
                what = chance.random()
                if mine and what < 0.15:
                    self._one.add(sandbox(chance.choice(mine)), timeout)
                elif len(mine) < 5 and what < 0.65:
                    name = f"t{number}-{turn}"
                    self._one.add(sandbox(name), timeout)
                    mine.append(name)
                elif mine:
                    self._one.delete(sandbox(mine.pop(0)), timeout)
                self.done += 1
                timeout = self._timeout
            except OrbweaverError:
                self.failed += 1
                timeout = min(2 * timeout, 10.0)


def attempt(one: Rig, container: str, timeout: float) -> bool:
    """ADD; whether it succeeded. A failed one is in doubt as far as the client can know."""
    try:
        one.add(sandbox(container), timeout)
    except OrbweaverError:
        return False
    return True


def at(number: int, how: How) -> Callable[[Write], Fault | None]:
    return lambda write: Fault(how) if write.number == number else None


def test_what_could_not_be_written_is_offered_again(tmp_path: Path):
    """The one address of a pool, claimed by a write that never took place, goes to the next who asks."""
    with rig(tmp_path, pool("v4", "10.6.0.0/16", "10.6.0.1")) as one:
        one.store.away = True
        with pytest.raises(OrbweaverError) as refused:
            get(one.send_add(sandbox("c1"), timeout=0.1))
        assert refused.value.retryable
        one.store.away = False
        one.journal.doubtful.clear()

        def offered() -> None:
            one.add(sandbox("c2"))

        eventually(offered)

        assert list(records(one.inner)) == ["10.6.0.1"]
        one.prove()
