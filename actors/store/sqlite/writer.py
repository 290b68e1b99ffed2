"""The one writer of the SQLite file in this process: everything that waits goes into one transaction.

What must always hold:

* A write is answered after the commit that carries it, never before.
* Each write is decided by itself, against the state that the writes before it in the batch leave: a conflict
  of one does not touch the others. Nothing is written until all are decided.
* When a transaction fails, every write in it fails with `StoreUnavailable`. `maybe_written` is said only
  where the answer is open: the commit itself failed in a way that may have left a complete commit record in
  the log.
* A caller waits no longer than its timeout, even when the disk hangs: that is why a thread of its own writes,
  and not the caller. Measured beside the same transaction in the caller: 466 and 457 µs a write.

Each call into SQLite lets go of the interpreter's lock and has to win it back, which under load costs more
than the call. So a batch of any size is about six calls: begin, one read, two multi-row inserts, commit.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path

from actors.errors import OrbweaverError, StoreUnavailable
from actors.store.contract import Object
from actors.store.lifecycle import ObjectName, WriteOutcome, encode
from actors.store.sqlite import file as sqlite_file
from actors.store.sqlite.file import FileIdentity

log = logging.getLogger("orbweaver.store")

BATCH = 256
TRIAL_PAUSE = 1.0  # seconds between looks whether a full disk has space again
_ROWS = 32  # rows in one statement: each number of rows up to this is a prepared statement of its own
_LOCK_SLICE = 0.2  # seconds to wait for another process's lock before looking whether anybody still waits
_CHECKPOINT_PAGES = 1000

_CHECKPOINT = "PRAGMA wal_checkpoint(PASSIVE)"
# CROSS JOIN keeps the order: by index from each wanted row. IN (VALUES ...) would read the whole table.
_SELECT = """
SELECT
    (SELECT max(version) FROM changes),
    (SELECT total FROM changes ORDER BY version DESC LIMIT 1),
    (
        SELECT group_concat(object)
        FROM (VALUES (?)) AS wanted
        CROSS JOIN objects
            ON kind = wanted.column1 AND namespace = wanted.column2 AND name = wanted.column3
    )
"""
# Up to the first row that stays for its bytes, and up to the first that stays for its version; never the
# newest. Only rows that go are read to find the first, because `total` grows with the version.
_TRIM = """
DELETE FROM changes
WHERE version < max((SELECT version FROM changes WHERE total > ? ORDER BY version LIMIT 1), ?) AND version < ?
"""

Decide = Callable[[Object | None], WriteOutcome]
Row = tuple[str, str, str]  # kind, namespace, name
ChangeRow = tuple[int, str, str, int, str]  # version, kind, type, total, object
OnCommit = Callable[[int, frozenset[str]], None]


class _Write:
    """One write on its way. `done` is held until `answer`: a bare lock wakes its waiter fastest."""

    __slots__ = ("address", "answered", "decide", "done", "error", "result", "row")

    def __init__(self, address: ObjectName, decide: Decide) -> None:
        self.address = address
        self.row: Row = (address.kind.name, address.namespace, address.name)
        self.decide = decide
        self.done = threading.Lock()
        self.done.acquire()
        self.answered = False
        self.result: Object | None = None
        self.error: BaseException | None = None

    def answer(self) -> None:
        self.answered = True
        self.done.release()


class Writer:
    """`keep` and `keep_bytes` bound the change log; `on_commit(newest, kinds)` runs after a commit."""

    def __init__(
        self, path: Path, identity: FileIdentity, *, keep: int, keep_bytes: int, on_commit: OnCommit
    ) -> None:
        self.commits = 0
        self._path = path
        self._identity = identity
        self._no_space: str | None = None
        self._keep = keep
        self._keep_bytes = keep_bytes
        self._on_commit = on_commit
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        self._queue: deque[_Write] = deque()
        self._closed = False
        self._blocked = False
        self._pages = 0
        self._trim_at = 0
        self._trim_bytes_at = 0
        self._connection: sqlite3.Connection | None = sqlite_file.connect(path, busy=_LOCK_SLICE)
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._thread.start()

    def submit(self, address: ObjectName, decide: Decide, timeout: float) -> Object:
        """Do one write and wait until it is durable. Raises what `decide` raises, and `StoreUnavailable`."""
        write = _Write(address, decide)
        with self._lock:
            if self._closed:
                raise StoreUnavailable(
                    f"the store {self._path} is closed: {address} was not written", maybe_written=False
                )
            self._queue.append(write)
            self._work.notify()
        if not write.done.acquire(timeout=max(0.0, timeout)):
            self._give_up(write, timeout)
        if write.error is not None:
            raise write.error
        assert write.result is not None
        return write.result

    def _give_up(self, write: _Write, timeout: float) -> None:
        with self._lock:
            waiting = write in self._queue
            if waiting:
                self._queue.remove(write)
        if write.done.acquire(blocking=False):
            return  # it was answered in the last moment
        why = "another process holds the write lock" if self._blocked else "the disk is slow or hangs"
        raise StoreUnavailable(
            f"{write.address} could not be written to {self._path} within {timeout:g} s: {why}",
            maybe_written=not waiting,
        )

    def trouble(self) -> str | None:
        """Why writes fail now: the file is not where its name leads any more, or the last write found no space."""
        return sqlite_file.missing(self._path, self._identity) or self._no_space

    def close(self) -> None:
        """Write what waits, then end. Later writes are refused."""
        with self._lock:
            self._closed = True
            self._work.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._lock:
                while not self._queue and not self._closed:
                    if not self._work.wait(None if self._no_space is None else TRIAL_PAUSE):
                        break
                if not self._queue and self._closed:
                    break
                idle = not self._queue
            if idle:  # nobody writes while the disk is full, and somebody has to find out that it is not
                if sqlite_file.has_space(self._path):
                    self._no_space = None
                continue
            batch: list[_Write] = []
            try:
                self._transact(batch)
            except Exception as exc:
                log.exception("writer failed", extra={"what": "writer-failed", "file": str(self._path)})
                self._drop_connection()
                self._fail(
                    batch, StoreUnavailable(f"the writer of {self._path} failed: {exc!r}", maybe_written=True)
                )
        self._drop_connection()

    def _transact(self, batch: list[_Write]) -> None:
        """Begin, then gather: what arrives while we wait for the lock goes along."""
        committing = False
        gone = sqlite_file.missing(self._path, self._identity)
        if gone is not None:
            with self._lock:
                batch.extend(self._queue)
                self._queue.clear()
            self._fail(batch, StoreUnavailable(gone, maybe_written=False))
            return
        try:
            connection = self._begin()
            if connection is None:
                return
            with self._lock:
                while self._queue and len(batch) < BATCH:
                    batch.append(self._queue.popleft())
            newest, rows = self._decide(connection, batch)
            committing = bool(rows)
            connection.execute("COMMIT" if rows else "ROLLBACK")
        except sqlite3.Error as exc:
            self._failed(batch, exc, committing)
            return
        if rows:
            self.commits += 1
            self._no_space = None
        for write in batch:
            write.answer()
        if rows:
            # Pages that the log grew by, roughly: the upper levels of three trees, and each object twice.
            self._pages += 6 + sum(1 + len(row[4]) // 2048 for row in rows)
            self._on_commit(newest, frozenset(row[1] for row in rows))
            self._keep_house(connection, newest, rows[-1][3])

    def _begin(self) -> sqlite3.Connection | None:
        """The write lock, or None when nobody waits any more."""
        while True:
            if self._connection is None:
                self._connection = sqlite_file.connect(self._path, busy=_LOCK_SLICE)
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                self._blocked = False
                return self._connection
            except sqlite3.OperationalError as exc:
                if not sqlite_file.is_busy(exc):
                    raise
                self._blocked = True
                with self._lock:
                    if not self._queue:
                        return None

    def _decide(self, connection: sqlite3.Connection, batch: list[_Write]) -> tuple[int, list[ChangeRow]]:
        """Decide every write and put what changes into the transaction; the rows that the log got."""
        newest, total, state = _read(connection, {write.row for write in batch})
        rows: list[ChangeRow] = []
        touched: dict[Row, str | None] = {}
        for write in batch:
            try:
                outcome = write.decide(state.get(write.row))
                if outcome.event is not None:
                    outcome.object["metadata"]["resourceVersion"] = str(newest + 1)
                    text = encode(outcome.object)
                    newest += 1
                    total += len(text)
                    rows.append((newest, write.row[0], outcome.event, total, text))
                    gone = outcome.event == "DELETED"
                    touched[write.row] = None if gone else text
                    state[write.row] = None if gone else outcome.object
                write.result = outcome.object
            except OrbweaverError as exc:
                write.error = exc
            except Exception as exc:  # a bug in a rule ends the call that met it, not the others
                write.error = exc
        puts = [(*row, text) for row, text in touched.items() if text is not None]
        _insert(connection, "INSERT INTO changes (version, kind, type, total, object) VALUES", rows)
        _insert(connection, "INSERT OR REPLACE INTO objects (kind, namespace, name, object) VALUES", puts)
        for row in (row for row, text in touched.items() if text is None):
            connection.execute("DELETE FROM objects WHERE kind = ? AND namespace = ? AND name = ?", row)
        return newest, rows

    def _failed(self, batch: list[_Write], error: sqlite3.Error, committing: bool) -> None:
        # SQLITE_FULL comes from a page that could not be written, and the commit record is the last page; an
        # I/O error may also come from the fsync behind a complete commit record, which a recovery would find.
        unknown = committing and not sqlite_file.is_full(error)
        if sqlite_file.is_full(error) and self._connection is not None:
            # A log that is wholly in the database starts over, in space that it already has.
            if self._connection.in_transaction:  # SQLite itself rolls back after some errors
                self._quietly(self._connection, "ROLLBACK")
            self._quietly(self._connection, _CHECKPOINT)
        else:
            self._drop_connection()
        if not batch:
            with self._lock:
                batch.extend(self._queue)
                self._queue.clear()
        failure = sqlite_file.unavailable(self._path, error, maybe_written=unknown)
        if sqlite_file.is_full(error):
            self._no_space = failure.message
        failure.__cause__ = error
        log.error("write failed: %s", failure, extra={"what": "write-failed", "writes": len(batch)})
        self._fail(batch, failure)

    def _fail(self, batch: Iterable[_Write], failure: StoreUnavailable) -> None:
        for write in batch:
            if not write.answered:
                error = StoreUnavailable(
                    f"{write.address}: {failure.message}", maybe_written=failure.maybe_written
                )
                error.__cause__ = failure.__cause__
                write.error = error
                write.answer()

    def _keep_house(self, connection: sqlite3.Connection, newest: int, total: int) -> None:
        """After the answers: trim the change log and carry the write-ahead log over into the database."""
        if newest >= self._trim_at or total >= self._trim_bytes_at:
            self._trim_at = newest + max(1, self._keep // 20)
            self._trim_bytes_at = total + self._keep_bytes // 20
            self._pages += 100
            self._quietly(connection, _TRIM, (total - self._keep_bytes, newest - self._keep + 1, newest))
        if self._pages >= _CHECKPOINT_PAGES:
            self._pages = 0
            self._quietly(connection, _CHECKPOINT)

    def _quietly(self, connection: sqlite3.Connection, statement: str, values: tuple[int, ...] = ()) -> None:
        """Upkeep that may fail: the file stays whole without it, and it is tried again with a later write."""
        try:
            connection.execute(statement, values).fetchall()
        except sqlite3.Error as exc:
            log.warning("upkeep failed: %s", exc, extra={"what": "upkeep-failed", "file": str(self._path)})

    def _drop_connection(self) -> None:
        """Closing rolls back what is open. The next write connects again."""
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.close()
            except sqlite3.Error as exc:
                log.warning("close failed: %s", exc, extra={"what": "close-failed", "file": str(self._path)})


def _read(connection: sqlite3.Connection, rows: set[Row]) -> tuple[int, int, dict[Row, Object | None]]:
    """The newest version, the bytes logged up to it, and the objects of these rows that exist."""
    wanted = list(rows)
    state: dict[Row, Object | None] = {}
    newest = total = 0
    for start in range(0, len(wanted), _ROWS):
        part = wanted[start : start + _ROWS]
        # Joined into one text, so that all of them are one step of SQLite and one pass of the JSON parser.
        newest, total, text = connection.execute(
            _select(len(part)), [value for row in part for value in row]
        ).fetchone()
        for obj in json.loads(f"[{text or ''}]"):
            metadata = obj["metadata"]
            state[(obj["kind"], metadata.get("namespace", ""), metadata["name"])] = obj
    return newest or 0, total or 0, state


@lru_cache(maxsize=_ROWS)
def _select(count: int) -> str:
    return _SELECT.replace("(?)", ", ".join(["(?, ?, ?)"] * count))


def _insert(
    connection: sqlite3.Connection, into: str, rows: list[ChangeRow] | list[tuple[str, str, str, str]]
) -> None:
    for start in range(0, len(rows), _ROWS):
        part = rows[start : start + _ROWS]
        marks = "(" + ", ".join("?" * len(part[0])) + ")"
        connection.execute(
            f"{into} {', '.join([marks] * len(part))}", [value for row in part for value in row]
        )
