"""The option that names the embedded store's file, the same in every command, and the store behind it."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from actors.errors import StoreUnavailable
from actors.store.sqlite import SQLiteStore

VARIABLE = "ORBWEAVER_DATA"
DATABASE = Path("/var/lib/orbweaver/orbweaver.db")


def add_data_option(parser: argparse.ArgumentParser) -> None:
    """Add `--data FILE`."""
    parser.add_argument(
        "--data",
        type=Path,
        default=Path(os.environ.get(VARIABLE, DATABASE)),
        metavar="FILE",
        help=f"the embedded store's file (%(default)s; or set {VARIABLE})",
    )


@contextmanager
def open_store(chosen: argparse.Namespace, *, create: bool = False) -> Iterator[SQLiteStore]:
    """The store that `--data` names; without `create` it must exist. Raises `StoreUnavailable`."""
    path: Path = chosen.data
    if not create:
        # A command that only asks must not leave an empty store behind a mistyped name.
        try:
            path.stat()
        except FileNotFoundError as error:
            raise StoreUnavailable(
                f"there is no store at {path}; name the agent's file with --data or {VARIABLE}, or make one"
                " with `orbweaver apply`",
                maybe_written=False,
            ) from error
        except OSError as error:
            raise StoreUnavailable(
                f"the store {path} cannot be opened: {error.strerror}; run this as the agent's user, or name"
                f" another file with --data or {VARIABLE}",
                maybe_written=False,
            ) from error
    store = SQLiteStore(path)
    try:
        yield store
    finally:
        store.close()
