"""Keeps the plugins on a node as this version has them: somebody else's installer, or a hand, may replace one.

What must always hold: what is right is not written, and what is wrong is put right within a look; a directory that cannot
be written costs nothing but a line in the log.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from actors.runtime.periodic import PeriodicThread
from cni import shim

log = logging.getLogger("orbweaver.plugins")

LOOK = 10.0
"""Seconds between two looks, which cost a millisecond of CPU at most. Until the next one no pod starts without its plugin."""


class PluginKeeper:
    """One per agent that installs plugins. `install` comes first; `start` and `stop` around the agent's life."""

    def __init__(self, directory: Path, names: Sequence[str] = shim.PLUGINS, look: float = LOOK) -> None:
        self._directory = directory
        self._names = tuple(names)
        self._look = look
        self._thread = PeriodicThread(
            "plugin-keeper",
            self._put_right,
            log=log,
            failing="the plugins are not looked after",
            retry=look,
            first=look,
        )

    def install(self) -> tuple[str, ...]:
        """Put right what is not; returns the names of those. Raises `OrbweaverError`."""
        wrong = shim.differing(self._directory, self._names)
        if wrong:
            shim.install(self._directory, wrong)
        return wrong

    def start(self) -> None:
        """Look from time to time."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more; the plugins stay, for pods that end while no agent runs."""
        self._thread.stop()

    def _put_right(self) -> float:
        wrong = self.install()
        if wrong:
            log.warning(
                "plugins were not as this version has them, and are put right",
                extra={"directory": str(self._directory), "plugins": list(wrong)},
            )
        return self._look
