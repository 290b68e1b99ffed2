"""The informer on a real store: what it caches, what it tells, and what it does when the store goes away."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.errors import InvalidObject, WatchExpired
from actors.store.caches.informer import Informer, ObjectKey
from actors.store.contract import Listing, Object, Store, Watch
from actors.store.sqlite.store import SQLiteStore
from tests.actors.store.contract_suite import endpoint, pool, with_meta
from tests.support.faulty_store import FaultyStore


class Counting(FaultyStore):
    """Counts lists and watches; can say that a watch is expired, once."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.lists = 0
        self.since: list[str] = []
        self.expire_next = False

    def list(self, kind: str, namespace: str | None = None, *, timeout: float = 30.0) -> Listing:
        listing = super().list(kind, namespace, timeout=timeout)
        self.lists += 1
        return listing

    def watch(self, kind: str, since: str) -> Watch:
        if self.expire_next:
            self.expire_next = False
            raise WatchExpired("injected")
        watch = super().watch(kind, since)
        self.since.append(since)
        return watch


class Told:
    """A handler that remembers, and waits for what it should hear."""

    def __init__(self) -> None:
        self.keys: list[ObjectKey] = []
        self._changed = threading.Condition()

    def __call__(self, key: ObjectKey) -> None:
        with self._changed:
            self.keys.append(key)
            self._changed.notify_all()

    def until(self, *names: str, timeout: float = 60.0) -> None:
        def heard() -> bool:
            return {key.name for key in self.keys} >= set(names)

        with self._changed:
            assert self._changed.wait_for(heard, timeout), (names, self.keys)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Counting]:
    counting = Counting(SQLiteStore(tmp_path / "store.db", bookmark=0.1))
    yield counting
    counting.close()


@pytest.fixture
def informer(store: Counting) -> Iterator[Callable[..., tuple[Informer, Told]]]:
    started: list[Informer] = []

    def start(kind: str = "SpiderIPPool", **options: Any) -> tuple[Informer, Told]:
        made, told = Informer(store, kind, jitter=random.Random(1), **options), Told()
        made.subscribe(told)
        made.start()
        started.append(made)
        return made, told

    yield start
    for each in started:
        each.stop()
        assert not each._thread.is_alive()


def until(true: Callable[[], bool], timeout: float = 60.0) -> None:
    deadline = time.monotonic() + timeout
    while not true():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


def test_it_caches_what_is_there_and_follows_changes(store: Counting, informer: Any) -> None:
    made = store.create(pool("a"))
    cache, told = informer()
    assert cache.wait_synced(60)
    assert cache.items() == (made,)
    told.until("a")

    other = store.create(pool("b"))
    told.until("b")
    assert cache.get("b") == other
    told.keys.clear()
    changed = store.update(with_meta(made, labels={"x": "y"}))
    told.until("a")
    assert cache.get("a") == changed
    told.keys.clear()
    store.delete("SpiderIPPool", "a")
    told.until("a")

    assert cache.get("a") is None
    assert cache.items() == (other,)
    assert told.keys == [ObjectKey("SpiderIPPool", "", "a")]
    assert store.lists == 1


def test_items_is_the_same_tuple_until_something_changes(store: Counting, informer: Any) -> None:
    store.create(pool("a"))
    cache, told = informer()
    told.until("a")
    before = cache.items()

    assert cache.items() is before
    store.create(pool("b"))
    told.until("b")
    assert len(cache.items()) == 2
    assert len(before) == 1


def test_the_cache_changes_before_the_handler_hears(store: Counting, informer: Any) -> None:
    seen: list[Any] = []
    cache, _ = informer()
    assert cache.wait_synced(60)
    cache.subscribe(lambda key: seen.append(cache.get(key.name)))

    made = store.create(pool("a"))
    until(lambda: bool(seen))

    assert seen == [made]


def test_a_namespace_is_all_that_it_sees(store: Counting, informer: Any) -> None:
    store.create(endpoint("early", "default"))
    store.create(endpoint("early", "other"))
    cache, told = informer("SpiderEndpoint", namespace="default")
    assert cache.wait_synced(60)

    store.create(endpoint("late", "other"))
    store.create(endpoint("last", "default"))
    told.until("last")

    assert sorted(item["metadata"]["name"] for item in cache.items()) == ["early", "last"]
    assert {key.namespace for key in told.keys} == {"default"}
    assert cache.get("early", "default")["metadata"]["namespace"] == "default"


def test_a_broken_watch_goes_on_without_a_new_list(store: Counting, informer: Any) -> None:
    """The store is away while an object is made: it is seen after the return, from the version reached."""
    cache, told = informer()
    assert cache.wait_synced(60)
    until(lambda: bool(store.since))
    store.away = True
    until(lambda: cache.last_error is not None)
    store.inner.create(pool("meanwhile"))
    store.away = False
    told.until("meanwhile")

    assert store.lists == 1
    assert len(store.since) == 2
    assert cache.get("meanwhile") is not None
    until(lambda: cache.last_error is None)


def test_a_store_that_is_away_at_first_is_waited_for(store: Counting, informer: Any) -> None:
    store.inner.create(pool("a"))
    store.away = True
    cache, told = informer()
    until(lambda: cache.last_error is not None)
    assert "away" in str(cache.last_error)
    assert not cache.wait_synced(0)
    assert cache.items() == ()

    store.away = False
    assert cache.wait_synced(60)
    told.until("a")


def test_an_expired_watch_lists_again_and_tells_what_vanished(store: Counting, informer: Any) -> None:
    """Cut off: one object goes, one changes, one comes, one stays; and the log is gone."""
    _, changing, staying = (store.create(pool(name)) for name in ("gone", "changing", "staying"))
    cache, told = informer()
    told.until("gone", "changing", "staying")
    until(lambda: bool(store.since))
    store.away = True
    until(lambda: cache.last_error is not None)
    told.keys.clear()
    store.inner.delete("SpiderIPPool", "gone")
    store.inner.update(with_meta(changing, labels={"a": "b"}))
    store.inner.create(pool("coming"))
    store.expire_next = True
    store.away = False
    told.until("gone", "changing", "coming")

    assert store.lists == 2
    assert {item["metadata"]["name"] for item in cache.items()} == {"changing", "coming", "staying"}
    assert cache.get("staying") == staying
    assert sorted(key.name for key in told.keys) == ["changing", "coming", "gone"]


def test_a_log_that_was_really_trimmed_leads_to_a_list(tmp_path: Path) -> None:
    store = Counting(SQLiteStore(tmp_path / "small.db", keep=20, bookmark=0.1))
    obj = store.create(pool("busy"))
    cache, told = Informer(store, "SpiderIPPool"), Told()
    cache.subscribe(told)
    cache.start()
    told.until("busy")
    until(lambda: bool(store.since))
    store.away = True
    until(lambda: cache.last_error is not None)
    for number in range(60):
        obj = store.inner.update(with_meta(obj, labels={"n": str(number)}))
    store.away = False
    until(lambda: cache.get("busy") == obj)

    assert store.lists == 2
    cache.stop()
    store.close()


def test_a_handlers_exception_is_logged_and_harmless(
    store: Counting, informer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    cache = Informer(store, "SpiderIPPool")
    told = Told()

    def broken(key: ObjectKey) -> None:
        raise RuntimeError(f"no good: {key.name}")

    cache.subscribe(broken)
    cache.subscribe(told)
    with caplog.at_level(logging.ERROR, "orbweaver.informer"):
        cache.start()
        store.create(pool("a"))
        told.until("a")
        store.create(pool("b"))
        told.until("b")
    cache.stop()

    failures = [record for record in caplog.records if getattr(record, "what", "") == "handler-failed"]
    assert {getattr(record, "object", "") for record in failures} == {"a", "b"}
    assert all(record.exc_info for record in failures)


def test_a_transform_makes_what_is_cached(
    store: Counting, informer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def subnet(obj: Object) -> str | None:
        if obj["metadata"]["name"] == "bad":
            raise InvalidObject("bad subnet")
        return None if obj["metadata"]["name"] == "skipped" else str(obj["spec"]["subnet"])

    for name in ("good", "bad", "skipped"):
        store.create(pool(name))
    cache, told = informer(transform=subnet)
    assert cache.wait_synced(60)
    store.create(pool("later"))
    told.until("later")

    assert cache.get("good") == store.get("SpiderIPPool", "good")["spec"]["subnet"]
    assert cache.get("bad") is None
    assert cache.get("skipped") is None
    assert len(cache.items()) == 2
    assert any("bad subnet" in record.getMessage() for record in caplog.records)


def test_a_bug_in_a_transform_costs_the_object_that_meets_it(
    store: Counting, informer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """An exception that is nobody's plan is logged with its traceback, and every other object is cached."""

    def faulty(obj: Object) -> Object:
        if obj["metadata"]["name"] == "a":
            raise RecursionError
        return obj

    for name in "abc":
        store.create(pool(name))
    cache, told = informer(transform=faulty)
    told.until("b", "c")

    assert any(record.exc_info for record in caplog.records)
    assert cache.wait_synced(0)
    assert (cache.get("a"), cache.last_error) == (None, None)


def test_bookmarks_move_the_version_and_show_life(store: Counting, informer: Any) -> None:
    cache, told = informer()
    assert cache.wait_synced(60)
    store.create(endpoint("elsewhere", "default"))
    newest = store.list("SpiderIPPool").version

    until(lambda: bool(cache.version == newest))

    assert told.keys == []


def test_waits_grow_to_the_limit_and_differ(store: Counting) -> None:
    """The waits between attempts: from 0.05 to 0.1 s up to 2.5 to 5 s, never more."""
    cache = Informer(store, "SpiderIPPool", jitter=random.Random(7))
    waits: list[float] = []

    class Impatient(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            assert timeout is not None
            waits.append(timeout)
            return False

    cache._stopping = Impatient()
    for _ in range(12):
        cache._failed(WatchExpired("again"))

    for number, wait in enumerate(waits):
        limit = min(5.0, 0.1 * 2**number)
        assert limit / 2 <= wait <= limit
    assert len(set(waits)) == 12


def test_stop_returns_while_a_watch_is_quiet(store: Counting) -> None:
    cache = Informer(store, "SpiderIPPool")
    cache.start()
    assert cache.wait_synced(60)
    until(lambda: bool(store.since))

    cache.stop()

    assert not cache._thread.is_alive()
