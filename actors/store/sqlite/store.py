"""The embedded store: Kubernetes objects in one SQLite file, under the contract of `actors.store.contract`.

For hosts without a cluster, for the demo and for tests. Several processes may open the file at once. What
must always hold is said where it is kept: the rules for objects in `lifecycle`, durability and the group
commit in `sqlite_writer`, watches in `sqlite_watch`, the file itself in `sqlite_file`.

A version is a number that grows by one with every change of any object, like etcd's revision.
Do not carry an open store over a fork: SQLite's locks do not survive it. Open it again in the child.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from actors.errors import InvalidObject, NoSuchResource, NotFound, StoreUnavailable
from actors.store import lifecycle
from actors.store.contract import Listing, Object
from actors.store.kinds import KINDS, Kind
from actors.store.sqlite import file as sqlite_file
from actors.store.sqlite.lock import AgentLock
from actors.store.sqlite.watch import SQLiteWatch, Watches
from actors.store.sqlite.writer import Writer

_READERS = 8

# The version and the objects in one statement, which is one snapshot.
_LIST = """
SELECT (SELECT max(version) FROM changes), NULL
UNION ALL
SELECT * FROM (SELECT name, object FROM objects WHERE kind = ? {where} ORDER BY namespace, name)
"""
_LIST_ALL = _LIST.format(where="")
_LIST_NAMESPACE = _LIST.format(where="AND namespace = ?")


class SQLiteStore:
    """A `Store` on the file at `path`; raises `StoreUnavailable` when it cannot be opened.

    `poll`: seconds until a watch notices another process's write; this process's wake it at once.
    `keep`, `keep_bytes`: how much of the change log stays; a watch from before that gets `WatchExpired`.
    `bookmark`: seconds after which a quiet watch gives a bookmark. `for_agent`: no other agent may have the data until it
    is closed.
    """

    def __init__(
        self,
        path: Path,
        *,
        poll: float = 0.05,
        keep: int = 10_000,
        keep_bytes: int = 64 << 20,
        bookmark: float = 5.0,
        for_agent: bool = False,
    ) -> None:
        self.path = path
        self._closed = threading.Event()
        self._idle: list[sqlite3.Connection] = []
        self._free = threading.BoundedSemaphore(_READERS)
        identity = sqlite_file.prepare(path)
        self._lock = AgentLock(path) if for_agent else None
        self._watches = Watches(path, self._reader, poll=poll, bookmark=bookmark, lag=max(1, keep // 4))
        try:
            self._writer = Writer(
                path, identity, keep=keep, keep_bytes=keep_bytes, on_commit=self._watches.wrote
            )
        except sqlite3.Error as exc:
            self._unlock()
            raise sqlite_file.unavailable(path, exc, maybe_written=False) from exc

    @property
    def commits(self) -> int:
        """Transactions written by this store so far: fewer than updates where the group commit gathers."""
        return self._writer.commits

    def get(self, kind: str, name: str, namespace: str = "", *, timeout: float = 10.0) -> Object:
        where = lifecycle.address(kind, name, namespace)
        with self._reader(timeout) as connection:
            row = connection.execute(
                "SELECT object FROM objects WHERE kind = ? AND namespace = ? AND name = ?",
                (kind, namespace, name),
            ).fetchone()
        if row is None:
            raise NotFound(f"{where} does not exist")
        stored: Object = json.loads(row[0])
        return stored

    def list(self, kind: str, namespace: str | None = None, *, timeout: float = 30.0) -> Listing:
        """Ordered by namespace and name. `namespace` None or "": all of them."""
        resource = lifecycle.kind_named(kind)
        if namespace and not resource.namespaced:
            raise InvalidObject(f"{kind} is cluster scoped: list it without namespace {namespace!r}")
        with self._reader(timeout) as connection:
            if namespace:
                rows = connection.execute(_LIST_NAMESPACE, (kind, namespace)).fetchall()
            else:
                rows = connection.execute(_LIST_ALL, (kind,)).fetchall()
        return Listing(tuple([json.loads(text) for _, text in rows[1:]]), str(rows[0][0] or 0))

    def versions(self, kind: str, *, timeout: float = 30.0) -> dict[str, str]:
        return {
            obj["metadata"]["name"]: obj["metadata"]["resourceVersion"]
            for obj in self.list(kind, timeout=timeout).items
        }

    def kinds(self, api_version: str, *, timeout: float = 10.0) -> tuple[Kind, ...]:
        kinds = tuple(kind for kind in KINDS.values() if kind.api_version == api_version)
        if not kinds:
            raise NoSuchResource(f"{self.path} holds no kinds of {api_version}", maybe_written=False)
        return kinds

    def scale(self, kind: str, name: str, namespace: str, *, timeout: float = 10.0) -> Object:
        raise NoSuchResource(
            f"{self.path} holds objects as they are, and no scale of them", maybe_written=False
        )

    def watch(self, kind: str, since: str) -> SQLiteWatch:
        return self._watches.start(lifecycle.kind_named(kind), since)

    def create(self, obj: Object, *, timeout: float = 10.0) -> Object:
        copy = lifecycle.private_copy(obj)
        where = lifecycle.address_of(copy)
        uid, now = str(uuid.uuid4()), _now()
        return self._writer.submit(
            where, lambda current: lifecycle.created(where, copy, current, uid=uid, now=now), timeout
        )

    def update(self, obj: Object, *, timeout: float = 10.0) -> Object:
        copy = lifecycle.private_copy(obj)
        where = lifecycle.address_of(copy)
        return self._writer.submit(where, lambda current: lifecycle.updated(where, copy, current), timeout)

    def update_status(self, obj: Object, *, timeout: float = 10.0) -> Object:
        copy = lifecycle.private_copy(obj)
        where = lifecycle.address_of(copy)
        return self._writer.submit(
            where, lambda current: lifecycle.status_updated(where, copy, current), timeout
        )

    def delete(
        self,
        kind: str,
        name: str,
        namespace: str = "",
        *,
        uid: str | None = None,
        version: str | None = None,
        grace: int | None = None,
        timeout: float = 10.0,
    ) -> None:
        where = lifecycle.address(kind, name, namespace)
        now = _now()
        self._writer.submit(
            where,
            lambda current: lifecycle.deleted(where, current, uid=uid, version=version, now=now),
            timeout,
        )

    def trouble(self) -> str | None:
        return self._writer.trouble()

    def close(self) -> None:
        """End the watches, write what waits, close the file. Later calls raise `StoreUnavailable`."""
        if self._closed.is_set():
            return
        self._closed.set()
        self._watches.close()
        self._writer.close()
        while self._idle:
            self._idle.pop().close()
        self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.release()

    @contextmanager
    def _reader(self, timeout: float) -> Iterator[sqlite3.Connection]:
        """A connection to read with, from a pool: threads come and go by the thousand."""
        if not self._free.acquire(timeout=max(0.0, timeout)):
            raise StoreUnavailable(
                f"{self.path} could not be read within {timeout:g} s: {_READERS} reads are under way, "
                "the disk hangs",
                maybe_written=False,
            )
        try:
            if self._closed.is_set():
                raise StoreUnavailable(f"the store {self.path} is closed", maybe_written=False)
            connection = self._idle.pop() if self._idle else None
            try:
                if connection is None:
                    connection = sqlite_file.connect(self.path)
                yield connection
            except sqlite3.Error as exc:
                if connection is not None:
                    connection.close()
                    connection = None
                raise sqlite_file.unavailable(self.path, exc, maybe_written=False) from exc
            finally:
                if connection is not None:
                    if self._closed.is_set():
                        connection.close()
                    else:
                        self._idle.append(connection)
        finally:
            self._free.release()


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
