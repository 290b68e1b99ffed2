"""The SQLite file: how it is made, opened and checked, and what SQLite's errors mean to an operator.

What must always hold:

* The file and a directory made for it are readable by their owner only (0600 and 0700): it names every pod of the
  host. An existing file that others may read or write is closed to them.
* A store is made whole under another name and then put in its place, so a file of no bytes is a loss, not a new store,
  and is refused; so is a name that leads elsewhere, or whose write-ahead log is there without it.
* WAL with synchronous=FULL: a commit that returned was fsynced, and readers never wait for a writer.
* A file that is not ours, or was written by a newer release, is refused and left as it is.
* `changes` holds the last changes in order of version and never becomes empty once there was one: the newest
  version of the whole store is its highest key, so the counter needs no row of its own.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import stat
import threading
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from actors.errors import StoreUnavailable

log = logging.getLogger("orbweaver.store")

SCHEMA = 1
APPLICATION_ID = 0x4F524257  # "ORBW", shown by file(1)

_TRIAL = 1 << 18

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


@dataclass(frozen=True, slots=True)
class FileIdentity:
    """Which file it is, wherever it is moved."""

    device: int
    inode: int

    @classmethod
    def of(cls, status: os.stat_result) -> FileIdentity:
        return cls(status.st_dev, status.st_ino)


def prepare(path: Path, *, timeout: float = 10.0) -> FileIdentity:
    """Make the file if there is none, and check that it is ours. Raises `StoreUnavailable`."""
    deadline = time.monotonic() + timeout
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            identity = _secure(path)
        except FileNotFoundError:
            _create(path, deadline)
            identity = _secure(path)
    except OSError as exc:
        raise StoreUnavailable(
            f"the store's file {path} cannot be opened: {exc.strerror}; check the path, its owner and "
            "the mount",
            maybe_written=False,
        ) from exc
    while True:
        try:
            with closing(connect(path)) as connection:
                _check(path, connection)
            return identity
        except sqlite3.Error as exc:
            # Several processes may open a new file at once, and the change to WAL does not wait for a lock.
            if _code(exc) not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED) or time.monotonic() > deadline:
                raise unavailable(path, exc, maybe_written=False) from exc
            time.sleep(0.01)


def missing(path: Path, identity: FileIdentity) -> str | None:
    """Why what is written to the open file would be lost: its name leads to it no more."""
    try:
        there = FileIdentity.of(path.stat())
    except FileNotFoundError:
        return (
            f"the store's file {path} was removed while it was in use; stop Orbweaver, restore the file or, to start with "
            "nothing, start it again"
        )
    except OSError as exc:
        return f"the store's file {path} cannot be looked at: {exc.strerror}"
    if there != identity:
        return f"the store's file {path} was replaced while it was in use; restart Orbweaver to use the other one"
    return None


def has_space(path: Path) -> bool:
    """Whether as much can be written beside the file as a large transaction takes: by writing it."""
    trial = path.with_name(f"{path.name}-trial-{os.getpid()}")
    try:
        descriptor = os.open(trial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError:
        return False
    try:
        os.write(descriptor, bytes(_TRIAL))
        os.fsync(descriptor)
    except OSError:
        return False
    finally:
        os.close(descriptor)
        trial.unlink(missing_ok=True)
    return True


def _secure(path: Path) -> FileIdentity:
    """The file that is there, closed to others than its owner. Raises `OSError` and `StoreUnavailable`."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise StoreUnavailable(f"{path} is no regular file; name another one", maybe_written=False)
        if status.st_size == 0:
            raise StoreUnavailable(
                f"{path} is empty, which a store never is: its content was lost, and with it who has which address; restore "
                "a copy, or remove the file to start with nothing",
                maybe_written=False,
            )
        if stat.S_IMODE(status.st_mode) & 0o077:
            log.warning(
                "others could read or write the store's file; they cannot any more",
                extra={"file": str(path), "mode": f"{stat.S_IMODE(status.st_mode):04o}"},
            )
            os.fchmod(descriptor, 0o600)
            for beside in ("-wal", "-shm"):
                with contextlib.suppress(FileNotFoundError):
                    path.with_name(path.name + beside).chmod(0o600)
        return FileIdentity.of(status)
    finally:
        os.close(descriptor)


def _create(path: Path, deadline: float) -> None:
    """Put a new store in place, unless another process is faster. Raises `OSError` and `StoreUnavailable`."""
    if path.is_symlink():
        raise StoreUnavailable(
            f"{path} is a link to {path.readlink()}, where there is nothing; correct the link, or name that file itself",
            maybe_written=False,
        )
    log_left = path.with_name(path.name + "-wal")
    if log_left.exists() and log_left.stat().st_size and not path.exists():
        raise StoreUnavailable(
            f"{path} is not there, but its write-ahead log {log_left} is: the file was lost, and with it who has which "
            "address; restore a copy, or remove the log too to start with nothing",
            maybe_written=False,
        )
    new = path.with_name(f"{path.name}-new-{os.getpid()}-{threading.get_ident()}")
    new.unlink(missing_ok=True)
    os.close(os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    try:
        with closing(connect(new)) as connection:
            _lay_out(new, connection)
        with contextlib.suppress(FileExistsError):
            os.link(new, path)
    except sqlite3.Error as exc:
        raise unavailable(path, exc, maybe_written=False) from exc
    finally:
        new.unlink(missing_ok=True)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _lay_out(path: Path, connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        _upgrade(path, connection)
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _check(path: Path, connection: sqlite3.Connection) -> None:
    if _pragma(connection, "user_version") != SCHEMA:
        _lay_out(path, connection)
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
    version = _pragma(connection, "user_version")  # again: another process may have been faster
    if version == SCHEMA:
        return
    if version > SCHEMA and _pragma(connection, "application_id") == APPLICATION_ID:
        raise StoreUnavailable(
            f"{path} was written by a newer Orbweaver (schema {version}, this one knows {SCHEMA}); "
            "upgrade Orbweaver, or start with another file",
            maybe_written=False,
        )
    if version or connection.execute("SELECT count(*) FROM sqlite_schema").fetchone() != (0,):
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
