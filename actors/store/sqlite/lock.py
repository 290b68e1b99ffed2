"""The lock of the one agent that serves the data of a file.

Two agents on one file would both reclaim, keep views and judge sandboxes, each without the other's, whatever sockets they
listen on. Commands that read or change objects beside an agent take no lock: the store itself is for many.
What must always hold: the lock goes with the process that holds it, however that ends; it lies beside the file and not on
it, because closing a descriptor of SQLite's own file would end SQLite's locks on it.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from actors.errors import StoreUnavailable


class AgentLock:
    """Held from its making until `release`. Raises `StoreUnavailable` when another agent holds it."""

    def __init__(self, data: Path) -> None:
        # Two names of one file are one file.
        path = data.resolve()
        path = path.with_name(f"{path.name}-agent")
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise StoreUnavailable(
                f"the agent's lock {path} cannot be opened: {error.strerror}; make its directory writable for this user",
                maybe_written=False,
            ) from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(self._descriptor, 0)
            os.write(self._descriptor, f"{os.getpid()}\n".encode())
        except BlockingIOError as error:
            holder = os.read(self._descriptor, 32).decode(errors="replace").strip()
            self.release()
            raise StoreUnavailable(
                f"another agent (process {holder or 'unknown'}) serves the data in {data}; stop it first, or give this one "
                "its own --data",
                maybe_written=False,
            ) from error
        except OSError as error:
            self.release()
            raise StoreUnavailable(
                f"the agent's lock {path} cannot be taken: {error.strerror}", maybe_written=False
            ) from error

    def release(self) -> None:
        """Let another agent have the data. The file stays: whoever waits for it may have opened it already."""
        os.close(self._descriptor)
