"""The catalog between the moment in which a pool is made and the one in which its cache hears of it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.errors import NotFound
from actors.resources.ippool import IPPool
from actors.store.caches.catalog import Catalog, PoolTable
from actors.store.caches.informer import ObjectKey
from actors.store.sqlite.store import SQLiteStore
from tests.support.faulty_store import FaultyStore
from tests.support.rig import pool


class Counting(FaultyStore):
    """Counts what is read, object by object."""

    gets = 0

    def get(self, kind: str, name: str, namespace: str = "", *, timeout: float = 10.0) -> dict[str, Any]:
        self.gets += 1
        return super().get(kind, name, namespace, timeout=timeout)


@pytest.fixture
def late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Counting, Catalog]]:
    """A store, and a catalog whose watch is late."""
    monkeypatch.setattr("actors.store.caches.informer.Informer.start", lambda self: None)
    store = Counting(SQLiteStore(tmp_path / "orbweaver.db"))
    catalog = Catalog(store, has_pods=False)
    catalog.start()
    yield store, catalog
    store.close()


def test_a_pool_that_the_cache_has_not_heard_of_is_read_once(late: tuple[Counting, Catalog]) -> None:
    store, catalog = late
    store.create(pool("blue", "10.6.0.0/16", "10.6.0.1"))
    known = PoolTable({}, {})

    for _ in range(3):
        found = catalog.with_pools(known, ("blue", "gone"))
        assert list(found.pools) == ["blue"]
        assert catalog.pool("blue").name == "blue"
    assert store.gets == 1 + 3, "what is not there is asked for each time"
    with pytest.raises(NotFound):
        catalog.pool("gone")

    read = store.gets
    catalog._tell_followers(ObjectKey("SpiderIPPool", "", "blue"))
    catalog.pool("blue")
    assert store.gets == read + 1, "from then on the cache counts"


def test_a_pool_that_one_is_told_of_is_not_read_and_goes_when_the_watch_is_faster(
    late: tuple[Counting, Catalog], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, catalog = late
    made = store.create(pool("blue", "10.6.0.0/16", "10.6.0.1"))
    catalog.made(made)

    assert catalog.pool("blue").uid == made["metadata"]["uid"]
    assert catalog.knows_pool("blue")
    assert store.gets == 0
    (told,) = catalog.made_lately(("blue", "other"))
    assert told["spec"] == made["spec"]
    assert "annotations" not in told["metadata"]
    other = Catalog(store, has_pods=False)
    other.start()
    other.hear_of(told)
    assert other.pool("blue") == catalog.pool("blue")
    assert not other.is_own("blue")

    store.delete("SpiderIPPool", "blue")
    informer = catalog.informer("SpiderIPPool")
    informer._relist()
    catalog.hear_of(made)
    assert not catalog.knows_pool("blue"), "the cache has been further, and it was gone"
    monkeypatch.setattr("actors.store.caches.catalog._NEW", -1.0)
    catalog.made(made)
    assert catalog.made_lately(("blue",)) == ()
    catalog.hear_of({**made, "spec": {"subnet": "nothing"}})


def test_a_pool_that_is_forgotten_while_one_is_told_of_it_is_told_or_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of very many pools that are made at once the oldest are forgotten, by the threads that make them."""

    class Forgetful(OrderedDict[str, Any]):
        def get(self, name: str, default: Any = None) -> Any:
            return self.pop(name, default)

    store = SQLiteStore(tmp_path / "orbweaver.db")
    catalog = Catalog(store, has_pods=False)
    monkeypatch.setattr(catalog, "_made", Forgetful())
    catalog.made(store.create(pool("blue", "10.6.0.0/16", "10.6.0.1")))

    assert [told["metadata"]["name"] for told in catalog.made_lately(("blue", "blue"))] == ["blue"]
    store.close()


def test_of_a_pool_that_the_watch_has_not_told_of_the_newest_state_is_known(
    late: tuple[Counting, Catalog],
) -> None:
    """Who is told of pools is told by several at once, and late."""
    store, catalog = late
    first = store.create(pool("blue", "10.6.0.0/16", "10.6.0.1"))
    store.delete("SpiderIPPool", "blue")
    catalog.informer("SpiderIPPool")._relist()
    second = store.create(pool("blue", "10.6.0.0/16", "10.6.0.2"))
    third = store.update({**second, "spec": {**second["spec"], "ips": ["10.6.0.3"]}})
    catalog.hear_of(third)
    known = catalog.pool("blue").version

    catalog.hear_of(second)
    assert catalog.pool("blue").version == known, "an older one does not replace it"
    catalog.hear_of(first)
    assert catalog.knows_pool("blue"), "one that the cache has passed does not take it away"
    assert catalog.pool("blue").version == known
    assert store.gets == 0


def test_a_pool_that_went_while_it_was_read_is_not_known_on(
    late: tuple[Counting, Catalog], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, catalog = late
    store.create(pool("blue", "10.6.0.0/16", "10.6.0.1"))
    read = catalog.fresh_pool("blue")

    def read_late(name: str) -> IPPool:
        store.delete("SpiderIPPool", name)
        catalog.informer("SpiderIPPool")._relist()
        return read

    monkeypatch.setattr(catalog, "fresh_pool", read_late)
    catalog.pool("blue")
    assert not catalog.knows_pool("blue")
