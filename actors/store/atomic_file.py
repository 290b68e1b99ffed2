"""Replaces a file in one step: whoever reads or executes it has the old one or the new one, whole.

How it works. The content is written beside the file, under a name of its own that begins with a dot, synced, closed and
renamed. The dot keeps it from those who look for all files of a directory; closed, because the kernel executes no file that
somebody has open for writing.
What must always hold: of two that write one file at once, one's content is there in the end, whole; what a writer that was
killed left in the directory, a later one takes away.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

UNFINISHED = ".orbweaver-new"
"""How the names of files end that are being written."""
ABANDONED = 60.0
"""Seconds after which nobody writes one any more."""


def replace_file(path: Path, content: bytes, mode: int = 0o600) -> Path:
    """Put `content` at `path`, in a directory that is there, with these permissions; returns the path once it is durable.
    Raises `OSError`; what was there before is then still whole."""
    remove_abandoned(path.parent)
    descriptor, name = tempfile.mkstemp(UNFINISHED, f".{path.name}.", path.parent)
    unfinished = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
    return path


def remove_abandoned(directory: Path, age: float = ABANDONED) -> None:
    """Take away what was never finished and is at least `age` seconds old. Raises `OSError`."""
    before = time.time() - age
    with os.scandir(directory) as entries:
        left = [Path(entry.path) for entry in entries if entry.name.endswith(UNFINISHED)]
    for path in left:
        try:
            if path.lstat().st_mtime <= before:
                path.unlink()
        except FileNotFoundError:
            continue  # finished, or taken away by somebody else
