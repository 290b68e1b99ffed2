"""What clusters change of the machine itself: directories that nodes mount over, and settings that kubelet makes.

Several clusters may run at once, of several sessions. What must always hold: nothing is taken away while one of them
runs, because a directory that goes takes along whatever is mounted on it, in every mount namespace; the last one to end
leaves the machine as the first one found it, also when a session in between was killed.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

LEDGER = Path("/tmp/orbweaver-tests-machine")
"""What is to be put back. Each cluster holds a shared lock on it; who changes it has it alone."""
_TUNED = ("vm/overcommit_memory", "kernel/panic", "kernel/panic_on_oops")


class Machine:
    """One cluster's use of it: `take` comes first, `give_back` last."""

    def __init__(self, ledger: Path = LEDGER, tuned: Sequence[Path] | None = None) -> None:
        self._path = ledger
        self._tuned = tuned if tuned is not None else [Path("/proc/sys", name) for name in _TUNED]
        self._file: IO[str] | None = None

    def take(self, directories: Sequence[Path]) -> None:
        """Make the directories that are not there, and remember that and the settings, unless another cluster has."""
        file = self._path.open("a+")
        self._file = file
        # Others hold it shared, so the ledger has a lock of its own for the moment of a change.
        with self._changing():
            found = self._read()
            found.setdefault("settings", {str(path): path.read_text() for path in self._tuned})
            made = found.setdefault("made", [])
            for directory in directories:
                for path in (*reversed(directory.parents), directory):
                    if not path.exists():
                        path.mkdir()
                        made.append(str(path))
            self._write(found)
            fcntl.flock(file, fcntl.LOCK_SH)

    def give_back(self) -> None:
        """Put everything back if no other cluster runs."""
        if self._file is None:
            return
        with self._changing(), self._file as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            found = self._read()
            for name, value in found.get("settings", {}).items():
                Path(name).write_text(value)
            for name in reversed(found.get("made", [])):
                with contextlib.suppress(OSError):  # somebody else uses it by now
                    Path(name).rmdir()
            self._write({})

    @contextlib.contextmanager
    def _changing(self) -> Any:
        with self._path.with_suffix(".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _read(self) -> dict[str, Any]:
        text = self._path.read_text()
        found: dict[str, Any] = json.loads(text) if text else {}
        return found

    def _write(self, found: dict[str, Any]) -> None:
        self._path.write_text(json.dumps(found) if found else "")
