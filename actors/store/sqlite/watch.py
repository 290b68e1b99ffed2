"""Watches on the SQLite file, and the thread that notices what other processes wrote.

What must always hold:

* A watch reads the change log, so it sees what any process wrote, in order, each change once.
* It moves on with the newest version even when its kind is quiet, so trimming the log does not expire it; the
  bookmarks it gives tell its reader the same, and that the watch is alive.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from actors.errors import StoreUnavailable, WatchExpired
from actors.store.contract import WatchEvent
from actors.store.kinds import Kind
from actors.store.sqlite import file as sqlite_file

log = logging.getLogger("orbweaver.store")

_PAGE = 500

# Rows and bounds in one statement, which is one snapshot: no change can be trimmed away between the two.
_READ = """
SELECT * FROM (
    SELECT version, type, object FROM changes WHERE version > ? AND kind = ? ORDER BY version LIMIT ?
)
UNION ALL
SELECT (SELECT min(version) FROM changes), '', (SELECT max(version) FROM changes)
"""

Reader = Callable[[float], AbstractContextManager[sqlite3.Connection]]


class SQLiteWatch:
    """One running watch; made by `Watches.start`."""

    def __init__(
        self, kind: Kind, since: str, reader: Reader, bookmark: float, ended: Callable[[SQLiteWatch], None]
    ) -> None:
        self.kind = kind
        self.position = int(since) if since.isascii() and since.isdigit() else -1
        self._since = since
        self._reader = reader
        self._bookmark = bookmark
        self._ended = ended
        self._wake = threading.Event()
        self._closed = threading.Event()

    def wake(self) -> None:
        self._wake.set()

    def close(self) -> None:
        self._closed.set()
        self._wake.set()
        self._ended(self)

    def __iter__(self) -> Iterator[WatchEvent]:
        """Raises `WatchExpired` and `StoreUnavailable`; after either the watch is over."""
        try:
            more = True  # read before the first wait: there may be changes since `since`
            while not self._closed.is_set():
                quiet = not more and not self._wake.wait(self._bookmark)
                self._wake.clear()
                if self._closed.is_set():
                    return
                events, more = self._read()
                yield from events
                if quiet and not events:
                    yield self._mark()
        finally:
            self.close()

    def _read(self) -> tuple[list[WatchEvent], bool]:
        with self._reader(10.0) as connection:
            rows = connection.execute(_READ, (self.position, self.kind.name, _PAGE)).fetchall()
        oldest, _, newest = rows.pop()
        oldest, newest = oldest or 1, int(newest or 0)
        if not oldest - 1 <= self.position <= newest:
            since = str(self.position) if self.position >= 0 else repr(self._since)
            raise WatchExpired(
                f"the changes of {self.kind.name} since version {since} "
                f"are not in the log ({oldest} to {newest}): list again"
            )
        more = len(rows) == _PAGE
        self.position = rows[-1][0] if more else newest
        return [WatchEvent(type_, json.loads(text)) for _, type_, text in rows], more

    def _mark(self) -> WatchEvent:
        metadata = {"resourceVersion": str(self.position)}
        return WatchEvent(
            "BOOKMARK", {"kind": self.kind.name, "apiVersion": self.kind.api_version, "metadata": metadata}
        )


class Watches:
    """All watches of a store. `poll`: seconds between looks for others' writes; `lag`: see `wrote`."""

    def __init__(self, path: Path, reader: Reader, *, poll: float, bookmark: float, lag: int) -> None:
        self._path = path
        self._reader = reader
        self._poll = poll
        self._bookmark = bookmark
        self._lag = lag
        self._lock = threading.Lock()
        self._running: set[SQLiteWatch] = set()
        self._newest = 0
        self._closing = threading.Event()
        self._poller: threading.Thread | None = None

    def start(self, kind: Kind, since: str) -> SQLiteWatch:
        watch = SQLiteWatch(kind, since, self._reader, self._bookmark, self._end)
        with self._lock:
            if self._closing.is_set():
                raise StoreUnavailable(f"the store {self._path} is closed", maybe_written=False)
            self._running.add(watch)
            if self._poller is None:
                self._poller = threading.Thread(target=self._watch_file, name="store-poll", daemon=True)
                self._poller.start()
        return watch

    def wrote(self, newest: int, kinds: frozenset[str] | None = None) -> None:
        """Wake the watches of these kinds (all for None), and those that fell `lag` versions behind."""
        with self._lock:
            self._newest = max(self._newest, newest)
            woken = [
                watch
                for watch in self._running
                if kinds is None or watch.kind.name in kinds or newest - watch.position > self._lag
            ]
        for watch in woken:
            watch.wake()

    def close(self) -> None:
        with self._lock:
            self._closing.set()
            running = list(self._running)
        for watch in running:
            watch.close()
        if self._poller is not None:
            self._poller.join()

    def _end(self, watch: SQLiteWatch) -> None:
        with self._lock:
            self._running.discard(watch)

    def _watch_file(self) -> None:
        connection: sqlite3.Connection | None = None
        seen = None
        while not self._closing.wait(self._poll):
            try:
                if connection is None:
                    connection = sqlite_file.connect(self._path)
                (version,) = connection.execute("PRAGMA data_version").fetchone()
                if version != seen:
                    (newest,) = connection.execute("SELECT max(version) FROM changes").fetchone()
                    if (newest or 0) > self._newest:
                        self.wrote(newest)
                    seen = version
            except sqlite3.Error as exc:
                # The watches find out for themselves when they read; here it is enough to come again.
                log.warning("poll failed: %s", exc, extra={"what": "poll-failed", "file": str(self._path)})
                if connection is not None:
                    connection.close()
                connection = seen = None
        if connection is not None:
            connection.close()
