"""What our pods of one node have logged, also those that are gone.

What must always hold: nothing that was once seen is lost. The kubelet removes a pod's logs with the pod, so each file is opened
as soon as it is there, and read to its end through that.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import BinaryIO

NAMESPACE = "orbweaver-system"


class PodLogs:
    """The logs below one node's directory of pods' logs."""

    def __init__(self) -> None:
        self._opened: dict[Path, BinaryIO] = {}

    def look(self, directory: Path) -> None:
        """Open the files that are new."""
        for path in sorted(directory.glob(f"{NAMESPACE}_orbweaver-*/*/*.log")):
            if path not in self._opened:
                with contextlib.suppress(OSError):  # it went while we looked
                    self._opened[path] = path.open("rb")

    def text(self, directory: Path, container: str) -> str:
        """All that the containers of a name wrote, in the order in which they began to."""
        self.look(directory)
        return "".join(_said(file) for path, file in self._opened.items() if path.parent.name == container)

    def close(self) -> None:
        """Let go of the files."""
        for file in self._opened.values():
            file.close()
        self._opened.clear()


def _said(file: BinaryIO) -> str:
    """The lines without what the runtime puts in front: time, stream, and F for a whole line or P for a part of one."""
    file.seek(0)
    said = []
    for line in file.read().decode(errors="replace").splitlines():
        _, _, tag, text = line.split(" ", 3)
        said.append(text if tag == "P" else f"{text}\n")
    return "".join(said)
