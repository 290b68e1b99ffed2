"""What every store must do, as tests: the same class runs on the embedded store and on an API server.

A module that runs it subclasses `StoreContract` and gives a fixture `store`. The store may hold other
objects: names are fresh for every test, and nothing is said about what else is there. The objects are valid
under the CRDs; the namespaces in `namespaces` exist.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest

from actors.errors import Conflict, InvalidObject, NotFound, WatchExpired
from actors.store.contract import Object, Store, WatchEvent
from actors.store.kinds import SPIDERPOOL

_serial = itertools.count()


def fresh(word: str) -> str:
    return f"{word}-{os.getpid()}-{next(_serial)}"


def pool(name: str) -> Object:
    """A pool in a subnet of its own, so that no rule about overlaps can refuse it."""
    number = next(_serial)
    subnet = f"10.{64 + number // 250 % 64}.{number % 250}"
    spec = {"subnet": f"{subnet}.0/24", "ips": [f"{subnet}.10-{subnet}.20"]}
    return {"apiVersion": SPIDERPOOL, "kind": "SpiderIPPool", "metadata": {"name": name}, "spec": spec}


def endpoint(name: str, namespace: str) -> Object:
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": SPIDERPOOL, "kind": "SpiderEndpoint", "metadata": metadata}


def with_meta(obj: Object, **fields: Any) -> Object:
    return {**obj, "metadata": {**obj["metadata"], **fields}}


def version_of(obj: Object) -> str:
    return str(obj["metadata"]["resourceVersion"])


class Follower:
    """Reads a watch on a thread of its own, so that a test can wait for events with a deadline."""

    def __init__(self, store: Store, kind: str, since: str) -> None:
        self.events: list[WatchEvent] = []
        self.error: BaseException | None = None
        self.watch = store.watch(kind, since)
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        try:
            for event in self.watch:
                with self._changed:
                    self.events.append(event)
                    self._changed.notify_all()
        except Exception as exc:
            self.error = exc
        with self._changed:
            self._changed.notify_all()

    def of(self, *names: str) -> list[WatchEvent]:
        return [event for event in self.events if event.object["metadata"].get("name") in names]

    def until(self, enough: Callable[[], bool], timeout: float = 60.0) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: enough() or self.error is not None, timeout), self.events
        if self.error is not None:
            raise self.error

    def ended(self, timeout: float = 60.0) -> bool:
        self._thread.join(timeout)
        return not self._thread.is_alive()


@pytest.fixture
def follow(store: Store) -> Iterator[Callable[[str, str], Follower]]:
    followers: list[Follower] = []

    def start(kind: str, since: str) -> Follower:
        followers.append(Follower(store, kind, since))
        return followers[-1]

    yield start
    for follower in followers:
        follower.watch.close()
        assert follower.ended()


class StoreContract:
    namespaces: ClassVar[tuple[str, str]] = ("default", "kube-public")

    # -- create ---------------------------------------------------------------------------------------------

    def test_create_fills_in_the_systems_fields(self, store: Store) -> None:
        sent = with_meta(pool(fresh("made")), labels={"team": "blue"}, uid="mine", generation=7)

        made = store.create(sent)

        metadata = made["metadata"]
        assert made["spec"]["subnet"] == sent["spec"]["subnet"]
        assert metadata["labels"] == {"team": "blue"}
        assert len(metadata["uid"]) == 36
        assert metadata["generation"] == 1
        assert metadata["resourceVersion"]
        created = time.strptime(metadata["creationTimestamp"], "%Y-%m-%dT%H:%M:%SZ")
        assert abs(time.mktime(created) - time.timezone - time.time()) < 3700
        assert store.get("SpiderIPPool", metadata["name"]) == made

    def test_create_takes_no_status_for_a_kind_with_the_subresource(self, store: Store) -> None:
        made = store.create({**pool(fresh("status")), "status": {"totalIPCount": 5}})

        assert "totalIPCount" not in made.get("status", {})

    def test_create_of_a_taken_name_is_a_conflict(self, store: Store) -> None:
        made = store.create(pool(fresh("taken")))

        with pytest.raises(Conflict, match=made["metadata"]["name"]):
            store.create(pool(made["metadata"]["name"]))

        assert store.get("SpiderIPPool", made["metadata"]["name"]) == made

    def test_create_with_a_version_is_refused(self, store: Store) -> None:
        with pytest.raises(InvalidObject, match="resourceVersion"):
            store.create(with_meta(pool(fresh("versioned")), resourceVersion="1"))

    def test_a_name_is_its_own_in_each_namespace(self, store: Store) -> None:
        name = fresh("both")
        one, two = (store.create(endpoint(name, namespace)) for namespace in self.namespaces)

        assert one["metadata"]["uid"] != two["metadata"]["uid"]
        for namespace, made in zip(self.namespaces, (one, two), strict=True):
            assert store.get("SpiderEndpoint", name, namespace) == made
            listed = store.list("SpiderEndpoint", namespace).items
            assert [item for item in listed if item["metadata"]["name"] == name] == [made]
        everywhere = [item for item in store.list("SpiderEndpoint").items if item["metadata"]["name"] == name]
        assert len(everywhere) == 2

    @pytest.mark.parametrize(
        "obj, says",
        [
            (pool("Upper"), "RFC 1123"),
            (pool("-edge"), "RFC 1123"),
            (pool("a..b"), "RFC 1123"),
            (pool("a\n"), "RFC 1123"),
            (pool("x" * 254), "253"),
            (with_meta(pool("scoped"), namespace="default"), "cluster scoped"),
            (endpoint("nowhere", ""), "namespace"),
            ({**pool("other"), "kind": "SpiderNothing"}, "SpiderNothing"),
            ({**pool("other"), "apiVersion": "v1"}, "apiVersion"),
            ({"apiVersion": SPIDERPOOL, "kind": "SpiderIPPool"}, "metadata"),
            (with_meta(pool("labels"), labels={"a": 1}), "labels"),
            ({**pool("json"), "spec": {"subnet": {1, 2}}}, "JSON"),
            ({**pool("json"), "spec": {"subnet": float("nan")}}, "JSON"),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_create_refuses_what_is_not_an_object(self, store: Store, obj: Object, says: str) -> None:
        with pytest.raises(InvalidObject, match=says):
            store.create(obj)

    # -- get and list ---------------------------------------------------------------------------------------

    def test_get_of_nothing_is_not_found(self, store: Store) -> None:
        name = fresh("nothing")

        with pytest.raises(NotFound, match=name):
            store.get("SpiderIPPool", name)

    def test_get_checks_kind_and_scope(self, store: Store) -> None:
        with pytest.raises(InvalidObject):
            store.get("SpiderNothing", "a")
        with pytest.raises(InvalidObject):
            store.get("SpiderIPPool", "a", "default")
        with pytest.raises(InvalidObject):
            store.get("SpiderEndpoint", "a")

    def test_what_is_returned_is_not_the_callers_object(self, store: Store) -> None:
        """Changing what was sent after the call must change nothing that the store returned."""
        sent = pool(fresh("alias"))
        made = store.create(sent)
        sent["spec"]["ips"].append("10.0.0.1")

        assert len(made["spec"]["ips"]) == 1
        assert len(store.get("SpiderIPPool", made["metadata"]["name"])["spec"]["ips"]) == 1

    def test_odd_text_survives(self, store: Store) -> None:
        notes = {"a": "ä€😀 \u0001 \" \\ \n ' ; --", "b": ""}
        made = store.create(with_meta(pool(fresh("odd")), annotations=notes))

        assert store.get("SpiderIPPool", made["metadata"]["name"])["metadata"]["annotations"] == notes

    # -- update ---------------------------------------------------------------------------------------------

    def test_update_changes_version_and_generation(self, store: Store) -> None:
        made = store.create(pool(fresh("update")))

        changed = store.update({**made, "spec": {**made["spec"], "disable": True}})

        assert changed["spec"]["disable"] is True
        assert version_of(changed) != version_of(made)
        assert changed["metadata"]["generation"] == 2
        for field in ("uid", "creationTimestamp"):
            assert changed["metadata"][field] == made["metadata"][field]
        assert store.get("SpiderIPPool", made["metadata"]["name"]) == changed

    def test_update_of_metadata_keeps_the_generation(self, store: Store) -> None:
        made = store.create(pool(fresh("labels")))

        changed = store.update(with_meta(made, labels={"a": "b"}))

        assert changed["metadata"]["labels"] == {"a": "b"}
        assert changed["metadata"]["generation"] == 1
        assert version_of(changed) != version_of(made)

    def test_update_without_a_change_keeps_the_version(self, store: Store) -> None:
        made = store.create(pool(fresh("same")))

        assert version_of(store.update(made)) == version_of(made)

    def test_update_takes_the_systems_fields_from_the_store(self, store: Store) -> None:
        made = store.create(pool(fresh("system")))

        changed = store.update(
            with_meta(made, generation=99, deletionTimestamp="2020-01-01T00:00:00Z", labels={"a": "b"})
        )

        assert changed["metadata"]["generation"] == 1
        assert "deletionTimestamp" not in changed["metadata"]

    def test_update_from_an_old_version_is_a_conflict_and_changes_nothing(self, store: Store) -> None:
        made = store.create(pool(fresh("old")))
        newer = store.update(with_meta(made, labels={"by": "first"}))

        with pytest.raises(Conflict, match=made["metadata"]["name"]):
            store.update(with_meta(made, labels={"by": "second"}))

        assert store.get("SpiderIPPool", made["metadata"]["name"]) == newer

    def test_update_needs_a_version(self, store: Store) -> None:
        made = store.create(pool(fresh("needs")))

        with pytest.raises(InvalidObject, match="resourceVersion"):
            store.update(with_meta(made, resourceVersion=""))

    def test_update_of_nothing_is_not_found(self, store: Store) -> None:
        with pytest.raises(NotFound):
            store.update(with_meta(pool(fresh("gone")), resourceVersion="1"))

    def test_update_of_a_successor_is_a_conflict(self, store: Store) -> None:
        """The object was deleted and made again: even under the new version the old uid is refused."""
        made = store.create(pool(fresh("successor")))
        store.delete("SpiderIPPool", made["metadata"]["name"])
        again = store.create(pool(made["metadata"]["name"]))

        with pytest.raises(Conflict):
            store.update(with_meta(again, uid=made["metadata"]["uid"], labels={"a": "b"}))

    # -- status ---------------------------------------------------------------------------------------------

    def test_status_and_the_rest_are_written_apart(self, store: Store) -> None:
        made = store.create(pool(fresh("apart")))

        counted = store.update_status({**made, "spec": {}, "status": {"totalIPCount": 11}})
        assert counted["status"]["totalIPCount"] == 11
        assert counted["spec"] == made["spec"]
        assert counted["metadata"]["generation"] == 1
        assert version_of(counted) != version_of(made)

        changed = store.update({**with_meta(counted, labels={"a": "b"}), "status": {"totalIPCount": 99}})
        assert changed["status"]["totalIPCount"] == 11
        assert changed["metadata"]["labels"] == {"a": "b"}

    def test_update_status_leaves_metadata_alone(self, store: Store) -> None:
        made = store.create(pool(fresh("meta")))

        counted = store.update_status({**with_meta(made, labels={"a": "b"}), "status": {"totalIPCount": 11}})

        assert "labels" not in counted["metadata"]

    def test_update_status_compares_the_version(self, store: Store) -> None:
        made = store.create(pool(fresh("stale")))
        store.update(with_meta(made, labels={"a": "b"}))

        with pytest.raises(Conflict):
            store.update_status({**made, "status": {"totalIPCount": 11}})

    def test_update_status_of_a_kind_without_it_is_refused(self, store: Store) -> None:
        made = store.create(endpoint(fresh("plain"), self.namespaces[0]))

        with pytest.raises(InvalidObject, match="status"):
            store.update_status({**made, "status": {}})

    # -- delete ---------------------------------------------------------------------------------------------

    def test_delete_removes(self, store: Store) -> None:
        made = store.create(pool(fresh("delete")))

        store.delete("SpiderIPPool", made["metadata"]["name"])

        with pytest.raises(NotFound):
            store.get("SpiderIPPool", made["metadata"]["name"])
        with pytest.raises(NotFound):
            store.delete("SpiderIPPool", made["metadata"]["name"])

    def test_delete_checks_its_preconditions(self, store: Store) -> None:
        made = store.create(pool(fresh("fenced")))
        name, uid = made["metadata"]["name"], made["metadata"]["uid"]
        newer = store.update(with_meta(made, labels={"a": "b"}))

        with pytest.raises(Conflict):
            store.delete("SpiderIPPool", name, uid="00000000-0000-4000-8000-000000000000")
        with pytest.raises(Conflict):
            store.delete("SpiderIPPool", name, uid=uid, version=version_of(made))
        assert store.get("SpiderIPPool", name) == newer

        store.delete("SpiderIPPool", name, uid=uid, version=version_of(newer))
        with pytest.raises(NotFound):
            store.get("SpiderIPPool", name)

    def test_a_finalizer_holds_the_object_until_it_is_taken_away(self, store: Store) -> None:
        made = store.create(
            with_meta(pool(fresh("held")), finalizers=["orbweaver.test/a", "orbweaver.test/b"])
        )
        name = made["metadata"]["name"]

        store.delete("SpiderIPPool", name)
        marked = store.get("SpiderIPPool", name)
        assert marked["metadata"]["deletionTimestamp"]
        store.delete("SpiderIPPool", name)
        assert store.get("SpiderIPPool", name) == marked

        with pytest.raises(InvalidObject, match="finalizers"):
            store.update(
                with_meta(marked, finalizers=[*marked["metadata"]["finalizers"], "orbweaver.test/c"])
            )
        half = store.update(with_meta(marked, finalizers=["orbweaver.test/b"]))
        assert half["metadata"]["deletionTimestamp"] == marked["metadata"]["deletionTimestamp"]
        store.update(with_meta(half, finalizers=[]))

        with pytest.raises(NotFound):
            store.get("SpiderIPPool", name)

    # -- watch ----------------------------------------------------------------------------------------------

    def test_a_watch_tells_every_change_after_the_listing(self, store: Store, follow: Any) -> None:
        """One change before the watch begins and three after it: none is missing and the order is right."""
        name = fresh("watched")
        since = store.list("SpiderIPPool").version
        made = store.create(pool(name))

        follower = follow("SpiderIPPool", since)
        changed = store.update(with_meta(made, labels={"a": "b"}))
        counted = store.update_status({**changed, "status": {"totalIPCount": 1}})
        store.delete("SpiderIPPool", name)
        follower.until(lambda: len(follower.of(name)) >= 4)

        events = follower.of(name)
        assert [event.type for event in events] == ["ADDED", "MODIFIED", "MODIFIED", "DELETED"]
        assert [event.object for event in events[:3]] == [made, changed, counted]
        last = events[3].object
        assert last["status"] == counted["status"]
        assert last["metadata"]["uid"] == made["metadata"]["uid"]
        assert version_of(last) != version_of(counted)

    def test_a_watch_goes_on_from_any_event(self, store: Store, follow: Any) -> None:
        name = fresh("resume")
        since = store.list("SpiderIPPool").version
        made = store.create(pool(name))
        changed = store.update(with_meta(made, labels={"a": "b"}))
        store.delete("SpiderIPPool", name)
        first = follow("SpiderIPPool", since)
        first.until(lambda: len(first.of(name)) >= 3)

        for position, event in enumerate(first.of(name)):
            again = follow("SpiderIPPool", version_of(event.object))
            expected = ["ADDED", "MODIFIED", "DELETED"][position + 1 :]
            again.until(lambda again=again, expected=expected: len(again.of(name)) >= len(expected))
            assert [event.type for event in again.of(name)] == expected
        assert version_of(changed) == version_of(first.of(name)[1].object)

    def test_a_watch_is_of_one_kind(self, store: Store, follow: Any) -> None:
        follower = follow("SpiderIPPool", store.list("SpiderIPPool").version)
        store.create(endpoint(fresh("unseen"), self.namespaces[0]))
        name = fresh("seen")
        store.create(pool(name))
        follower.until(lambda: bool(follower.of(name)))

        assert {event.object["kind"] for event in follower.events} == {"SpiderIPPool"}

    def test_the_last_finalizer_shows_as_a_deletion(self, store: Store, follow: Any) -> None:
        name = fresh("finalized")
        follower = follow("SpiderIPPool", store.list("SpiderIPPool").version)
        store.create(with_meta(pool(name), finalizers=["orbweaver.test/a"]))
        store.delete("SpiderIPPool", name)
        store.update(with_meta(store.get("SpiderIPPool", name), finalizers=[]))
        follower.until(lambda: len(follower.of(name)) >= 3)

        assert [event.type for event in follower.of(name)] == ["ADDED", "MODIFIED", "DELETED"]

    def test_close_ends_the_iteration(self, store: Store, follow: Any) -> None:
        follower = follow("SpiderIPPool", store.list("SpiderIPPool").version)

        follower.watch.close()

        assert follower.ended()
        assert follower.error is None

    def test_a_version_that_never_was_is_expired(self, store: Store) -> None:
        with pytest.raises(WatchExpired):
            list(store.watch("SpiderIPPool", "1"))

    # -- concurrency ----------------------------------------------------------------------------------------

    def test_no_compare_and_swap_is_lost_between_threads(self, store: Store) -> None:
        """Eight threads count up one annotation by read, add one, swap: the sum is exact at the end."""
        name = fresh("counter")
        store.create(with_meta(pool(name), annotations={"orbweaver.test/count": "0"}))
        failures: list[BaseException] = []

        def count() -> None:
            done = 0
            try:
                while done < 15:
                    held = store.get("SpiderIPPool", name)
                    number = int(held["metadata"]["annotations"]["orbweaver.test/count"])
                    try:
                        store.update(with_meta(held, annotations={"orbweaver.test/count": str(number + 1)}))
                    except Conflict:
                        continue
                    done += 1
            except BaseException as exc:
                failures.append(exc)

        threads = [threading.Thread(target=count, daemon=True) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert not failures
        final = store.get("SpiderIPPool", name)["metadata"]["annotations"]["orbweaver.test/count"]
        assert int(final) == 8 * 15
