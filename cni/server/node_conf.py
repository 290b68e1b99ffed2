"""Writes the network configuration list that the node's runtime shall find, and keeps it right while the agent runs.

What must always hold: a runtime reads the old file or the new one, whole; it is written only while the agent serves, so that
no runtime calls a network ready that is not; it stays when the agent ends, so that no pod starts with another plugin while
the agent is replaced. Only `cni/uninstall/node.py` takes it away.
"""

from __future__ import annotations

import logging
from pathlib import Path

from actors.decisions.chained_conf import NAME, WantedConf, conf_for, read_wanted
from actors.decisions.node_cni import SUFFIXES
from actors.errors import InvalidObject, NotFound
from actors.resources.json_text import LONGEST
from actors.runtime.periodic import PeriodicThread
from actors.store.atomic_file import replace_file
from cni.server.node_cni_files import MOST_FILES

log = logging.getLogger("orbweaver.cni")

MODE = 0o600
"""For root alone, as runtimes are: what the node's own list says is copied, and that may be for nobody else's eyes."""
LOOK, LOOK_SOON = 10.0, 2.0
"""Seconds between two looks; and while the node has no file yet to put something behind."""


def wanted_in(path: Path) -> WantedConf:
    """What a file asks for. Raises `InvalidObject`."""
    try:
        with path.open(encoding="utf-8") as file:
            return read_wanted(file.read(LONGEST + 1))
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidObject(f"--cni-conf {path} cannot be read: {error}") from error


class NodeConf:
    """One per agent that was asked to write it."""

    def __init__(
        self, directory: Path, wanted: WantedConf, look: float = LOOK, soon: float = LOOK_SOON
    ) -> None:
        self._directory = directory
        self._wanted = wanted
        self._look = look
        self._thread = PeriodicThread(
            "node-conf",
            self._put_right,
            log=log,
            failing="the node's network configuration is not written",
            retry=soon,
            details={"directory": str(directory)},
        )

    @property
    def path(self) -> Path:
        return self._directory / NAME

    def write(self) -> bool:
        """Put the file right; whether it is there. Raises `InvalidObject` and `OSError`."""
        text = conf_for(self._wanted, self._files())
        if text is None:
            return self.path.exists()
        if _read(self.path) != text or self.path.lstat().st_mode & 0o777 != MODE:
            replace_file(self.path, text.encode(), MODE)
            log.info("the node's network configuration is written", extra={"file": str(self.path)})
        return True

    def start(self) -> None:
        """Write it now, and put it right from time to time."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more; the file stays."""
        self._thread.stop()

    def _put_right(self) -> float:
        if not self.write():
            raise NotFound("the node has no network configuration yet to put something behind")
        return self._look

    def _files(self) -> list[tuple[str, str]]:
        names = sorted(entry for entry in self._directory.iterdir() if entry.suffix in SUFFIXES)[:MOST_FILES]
        return [(path.name, _read(path) or "") for path in names]


def _read(path: Path) -> str | None:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(LONGEST + 1)
    except OSError:
        return None
