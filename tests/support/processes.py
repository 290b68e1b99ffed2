"""Clients that live through whatever becomes of an agent, and what must be true of its store afterwards."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from actors.store.contract import Store
from actors.store.sqlite.store import SQLiteStore
from tests.support.checker import Journal, Place, eventually, prove_records, prove_views, records
from tests.support.cni_client import add, connect, delete, encode


@contextmanager
def store_of(path: Path) -> Iterator[SQLiteStore]:
    store = SQLiteStore(path)
    try:
        yield store
    finally:
        store.close()


def apply(directory: Path, *objects: dict[str, Any]) -> None:
    """Put objects into the file before an agent opens it."""
    (directory / "data").mkdir(exist_ok=True)
    with store_of(directory / "data" / "orbweaver.db") as store:
        for obj in objects:
            store.create(obj)


def prove_nothing_lost(store: Store, journal: Journal) -> None:
    """Every acknowledged ADD that nobody began to release is recorded; at any moment, under load too."""
    held = dict(journal.held)
    recorded = records(store)
    for place, addresses in held.items():
        for address in addresses:
            record = recorded.get(address, {})
            still = journal.held.get(place) == addresses
            assert not still or (record.get("container"), record.get("interface")) == place, (
                place,
                address,
                record,
            )


def prove(path: Path, journal: Journal) -> None:
    """All of the checker, for an agent that runs and has nothing left to do."""
    with store_of(path) as store:
        eventually(lambda: prove_records(store, journal))
        eventually(lambda: prove_views(store))


@dataclass(frozen=True)
class PodName:
    """A pod that ADDs are for; without Kubernetes it needs no UID."""

    name: str
    uid: str = ""


class Load:
    """Clients on threads: ADD, repeated ADD and DEL at random; after an ADD without an answer, or with an error, they
    send a DEL, as container runtimes do. A client that meets no agent tries again.

    `pods`: for each client, the pods that it may start sandboxes for, one at a time each; without them every ADD is
    for a new pod. `journal`: of several loads whose addresses must differ from each other.
    """

    def __init__(
        self,
        path: Path,
        threads: int,
        seed: int,
        *,
        hang_up: float = 0.0,
        most: int = 5,
        pods: Sequence[Sequence[PodName]] = (),
        journal: Journal | None = None,
    ) -> None:
        self.journal = journal or Journal()
        self.answered = 0
        self.refused = 0
        """Of those answered: with an error."""
        self.unanswered = 0
        self.hung_up = 0
        self._path, self._hang_up, self._most, self._pods = path, hang_up, most, pods
        self._seed = seed
        self._over = threading.Event()
        self._errors: list[BaseException] = []
        self._threads = [
            threading.Thread(target=self._guarded, args=(n, random.Random(1000 * seed + n)), daemon=True)
            for n in range(threads)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()
        if self._errors:
            raise self._errors[0]

    @property
    def succeeded(self) -> int:
        return self.answered - self.refused

    @property
    def failed(self) -> int:
        return self.refused + self.unanswered

    def wait(self, holds: Callable[[], bool], what: str, within: float = 240.0) -> None:
        """Go on until something holds."""
        until = time.monotonic() + within
        while not holds():
            assert not self._errors, self._errors[0]
            assert time.monotonic() < until, f"{what}: {self.answered} answered, {self.failed} failed"
            time.sleep(0.005)

    def wait_succeeded(self, more: int) -> None:
        """Go on until so many more requests are answered with success."""
        goal = self.succeeded + more
        self.wait(lambda: self.succeeded >= goal, f"{more} more successes do not come")

    def wait_failed(self, more: int) -> None:
        """Go on until so many more requests are refused or not answered at all."""
        goal = self.failed + more
        self.wait(lambda: self.failed >= goal, f"{more} more failures do not come")

    def settle(self) -> None:
        """DEL for whatever is in doubt, until each is answered."""
        until = time.monotonic() + 120
        while self.journal.doubtful:
            for place in list(self.journal.doubtful):
                answer = delete(self._path, self.journal, place)
                assert time.monotonic() < until, (place, answer)

    def _guarded(self, number: int, chance: random.Random) -> None:
        try:
            self._work(number, chance)
        except BaseException as error:
            self._errors.append(error)

    def _work(self, number: int, chance: random.Random) -> None:
        """`free` are pods without a sandbox; one comes back when its sandbox's DEL is answered."""
        mine: list[tuple[Place, PodName]] = []
        doubtful: list[tuple[Place, PodName]] = []
        free = list(self._pods[number]) if self._pods else None
        turn = 0
        while not self._over.is_set():
            turn += 1
            what = chance.random()
            if doubtful:
                answer = delete(self._path, self.journal, doubtful[0][0])
                if answer is not None and answer.status == 0:
                    self._freed(free, doubtful.pop(0))
            elif what < self._hang_up:
                place = (f"h{number}-{turn}", "eth0")
                doubtful.append((place, PodName("")))
                self._add_and_hang_up(place, chance)
                continue
            elif mine and what < 0.2:
                place, pod = chance.choice(mine)
                answer = add(self._path, self.journal, place, pod=pod.name, uid=pod.uid)
            elif len(mine) < self._most and what < 0.65 and free != []:
                pod = PodName(f"pod-{number}-{turn}") if free is None else free.pop(0)
                place = (f"c{self._seed}-{number}-{turn}", "eth0")
                answer = add(self._path, self.journal, place, pod=pod.name, uid=pod.uid)
                (mine if answer is not None and answer.status == 0 else doubtful).append((place, pod))
            elif mine:
                attached = mine.pop(0)
                answer = delete(self._path, self.journal, attached[0])
                if answer is None or answer.status:
                    doubtful.append(attached)
                else:
                    self._freed(free, attached)
            else:
                continue
            if answer is None:
                self.unanswered += 1
                time.sleep(0.005)  # no agent: the runtime, too, comes back later
            else:
                self.refused += answer.status != 0
                self.answered += 1

    def _freed(self, free: list[PodName] | None, attached: tuple[Place, PodName]) -> None:
        if free is not None:
            free.append(attached[1])

    def _add_and_hang_up(self, place: Place, chance: random.Random) -> None:
        self.journal.unsure(place)
        request = encode("ADD", *place)
        try:
            with connect(self._path) as client:
                client.sendall(request[: chance.choice([4, 20, len(request), len(request), len(request)])])
                time.sleep(chance.choice([0.0, 0.0, 0.001, 0.003]))
        except OSError:
            self.unanswered += 1
        self.hung_up += 1
