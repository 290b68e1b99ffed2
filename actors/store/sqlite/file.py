"""The SQLite file: how it is made, opened and checked, and what SQLite's errors mean to an operator.

What must always hold:

* The file and its directory are readable by their owner only (0600 and 0700): it names every pod of the host.
* WAL with synchronous=FULL: a commit that returned was fsynced, and readers never wait for a writer.
* A file that is not ours, or was written by a newer release, is refused and left as it is.
* `changes` holds the last changes in order of version and never becomes empty once there was one: the newest
  version of the whole store is its highest key, so the counter needs no row of its own.
"""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path

from actors.errors import StoreUnavailable

SCHEMA = 1
APPLICATION_ID = 0x4F524257  # "ORBW", shown by file(1)

_REMEDIES = {
    sqlite3.SQLITE_FULL: "free space on its file system; nothing that was acknowledged is lost",
    sqlite3.SQLITE_BUSY: "another process holds its write lock; look for it with `fuser` and try again",
    sqlite3.SQLITE_CORRUPT: "stop Orbweaver, move the file with its -wal and -shm aside, restore a copy",
    sqlite3.SQLITE_NOTADB: "the file is damaged or not a store: move it aside, or name another file",
    sqlite3.SQLITE_READONLY: "make the file, its -wal and -shm and its directory writable for this user",
    sqlite3.SQLITE_CANTOPEN: "check that the file and its directory exist and are writable for this user",
    sqlite3.SQLITE_IOERR: "look for disk errors in the kernel log (dmesg)",
}

# `total` is the number of bytes ever logged up to and with this row, so a bound in bytes needs no sum.
_TABLES = """
CREATE TABLE objects (
    kind TEXT NOT NULL,
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    object TEXT NOT NULL,
    UNIQUE (kind, namespace, name)
);
CREATE TABLE changes (
    version INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,
    type TEXT NOT NULL,
    total INTEGER NOT NULL,
    object TEXT NOT NULL
);
"""


def connect(path: Path, *, busy: float = 1.0) -> sqlite3.Connection:
    """A connection that any one thread at a time may use. `busy`: seconds to wait for a lock."""
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw",
        uri=True,
        timeout=busy,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=256,
    )
    try:
        connection.execute("PRAGMA synchronous=FULL")
        # The writer checkpoints after it has answered; this bound only catches what it could not do.
        connection.execute("PRAGMA wal_autocheckpoint=8000")
    except BaseException:
        connection.close()
        raise
    return connection


def prepare(path: Path, *, timeout: float = 10.0) -> None:
    """Make the file if there is none, and check that it is ours. Raises `StoreUnavailable`."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as exc:
        raise StoreUnavailable(
            f"the store's file {path} cannot be opened: {exc.strerror}; check the path, its owner and "
            "the mount",
            maybe_written=False,
        ) from exc
    deadline = time.monotonic() + timeout
    while True:
        try:
            with closing(connect(path)) as connection:
                _check(path, connection)
            return
        except sqlite3.Error as exc:
            # Several processes may open a new file at once, and the change to WAL does not wait for a lock.
            if _code(exc) not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED) or time.monotonic() > deadline:
                raise unavailable(path, exc, maybe_written=False) from exc
            time.sleep(0.01)


def _check(path: Path, connection: sqlite3.Connection) -> None:
    if _pragma(connection, "user_version") != SCHEMA:
        connection.execute("BEGIN IMMEDIATE")
        try:
            _upgrade(path, connection)
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")
    elif _pragma(connection, "application_id") != APPLICATION_ID:
        raise _foreign(path)
    (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
    if mode != "wal":
        raise StoreUnavailable(
            f"the file system of {path} cannot hold a write-ahead log (journal mode stays {mode}); "
            "put the store on a local disk, not on a network file system",
            maybe_written=False,
        )


def _upgrade(path: Path, connection: sqlite3.Connection) -> None:
    found = _pragma(connection, "user_version")  # again: another process may have been faster
    if found == SCHEMA:
        return
    if found > SCHEMA and _pragma(connection, "application_id") == APPLICATION_ID:
        raise StoreUnavailable(
            f"{path} was written by a newer Orbweaver (schema {found}, this one knows {SCHEMA}); "
            "upgrade Orbweaver, or start with another file",
            maybe_written=False,
        )
    if found or connection.execute("SELECT count(*) FROM sqlite_schema").fetchone() != (0,):
        raise _foreign(path)
    for statement in _TABLES.split(";"):
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version={SCHEMA}")


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    (value,) = connection.execute(f"PRAGMA {name}").fetchone()
    return int(value)


def _foreign(path: Path) -> StoreUnavailable:
    return StoreUnavailable(
        f"{path} is an SQLite database, but not one of Orbweaver's; it was left as it is: name another file",
        maybe_written=False,
    )


def _code(error: sqlite3.Error) -> int:
    """The primary result code (the low byte, https://www.sqlite.org/rescode.html), 0 when there is none."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def is_full(error: sqlite3.Error) -> bool:
    return _code(error) == sqlite3.SQLITE_FULL


def is_busy(error: sqlite3.Error) -> bool:
    return _code(error) == sqlite3.SQLITE_BUSY


def unavailable(path: Path, error: sqlite3.Error, *, maybe_written: bool) -> StoreUnavailable:
    """The error that an operator can act upon. `maybe_written` as in `StoreUnavailable`."""
    remedy = _REMEDIES.get(_code(error), "try again; if it stays, look at the disk and the kernel log")
    return StoreUnavailable(f"the store's file {path}: {error}; {remedy}", maybe_written=maybe_written)
