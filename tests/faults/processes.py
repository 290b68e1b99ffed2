"""Clients that live through whatever becomes of an agent, and what must be true of its file afterwards."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from actors.store.sqlite import SQLiteStore
from tests.faults.checker import Journal, Place, eventually, prove_records, prove_views, records
from tests.faults.cni_client import add, connect, delete, encode


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


def prove_nothing_lost(path: Path, journal: Journal) -> None:
    """Every acknowledged ADD that nobody began to release is recorded; at any moment, under load too."""
    held = dict(journal.held)
    with store_of(path) as store:
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


class Load:
    """Clients on threads: ADD, repeated ADD and DEL at random; after an ADD without an answer, or with an error, they
    send a DEL, as container runtimes do. A client that meets no agent tries again."""

    def __init__(self, path: Path, threads: int, seed: int, *, hang_up: float = 0.0, most: int = 5) -> None:
        self.journal = Journal()
        self.answered = 0
        self.unanswered = 0
        self.hung_up = 0
        self._path, self._hang_up, self._most = path, hang_up, most
        self._over = threading.Event()
        self._errors: list[BaseException] = []
        self._threads = [
            threading.Thread(target=self._guarded, args=(n, random.Random(1000 * seed + n)))
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

    def settle(self) -> None:
        """DEL for whatever is in doubt, until each is answered."""
        until = time.monotonic() + 20
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
        mine: list[Place] = []
        doubtful: list[Place] = []
        turn = 0
        while not self._over.is_set():
            turn += 1
            what = chance.random()
            if doubtful:
                answer = delete(self._path, self.journal, doubtful[0])
                if answer is not None and answer.status == 0:
                    doubtful.pop(0)
            elif what < self._hang_up:
                doubtful.append((f"h{number}-{turn}", "eth0"))
                self._add_and_hang_up(doubtful[-1], chance)
                continue
            elif mine and what < 0.2:
                answer = add(self._path, self.journal, chance.choice(mine))
            elif len(mine) < self._most and what < 0.65:
                place = (f"c{number}-{turn}", "eth0")
                answer = add(self._path, self.journal, place, pod=f"pod-{number}-{turn}")
                (mine if answer is not None and answer.status == 0 else doubtful).append(place)
            elif mine:
                place = mine.pop(0)
                answer = delete(self._path, self.journal, place)
                if answer is None or answer.status:
                    doubtful.append(place)
            else:
                continue
            if answer is None:
                self.unanswered += 1
                time.sleep(0.005)  # no agent: the runtime, too, comes back later
            else:
                self.answered += 1

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
