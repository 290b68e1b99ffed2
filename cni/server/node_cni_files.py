"""The files in which the node's runtime finds its network, read within bounds."""

from __future__ import annotations

import contextlib
from pathlib import Path

from actors.decisions.node_cni import SUFFIXES, node_cni
from actors.resources.json_text import LONGEST

DIRECTORY = Path("/etc/cni/net.d")
MOST_FILES = 64


def look_at_node_cni(directory: Path) -> str:
    """The kind of cluster network that the directory's first file tells; empty when none does, or none may be read."""
    files = []
    with contextlib.suppress(OSError):
        for path in sorted(entry for entry in directory.iterdir() if entry.suffix in SUFFIXES)[:MOST_FILES]:
            with path.open(encoding="utf-8", errors="replace") as file:
                files.append((path.name, file.read(LONGEST + 1)))
    return node_cni(files)
