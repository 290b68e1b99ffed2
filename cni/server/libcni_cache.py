"""Which sandboxes run on this node, as the runtime's own notes of CNI attachments tell.

Every runtime on libcni (containerd, CRI-O, podman, cnitool) keeps a file for each attachment from the end of its ADD to
the end of its DEL, with the path of the network namespace. What must always hold: a sandbox is said to be gone only
when such a file names namespaces that could be seen here and are not there; whatever cannot be read or seen says nothing.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from pathlib import Path
from typing import Any

from actors.reclaim.stale_sandboxes import Sandboxes
from actors.resources.json_text import read_json

log = logging.getLogger("orbweaver.gc")

CACHE = Path("/var/lib/cni/results")
"""Where libcni keeps its notes (libcni/api.go, CacheDir)."""

_LONGEST = 4 << 20
"""Bytes of a note that are read: it holds the network's configuration and its result, of a megabyte each at most."""

NAMESPACES = Path("/run/netns")
"""Where runtimes mount network namespaces. It is in memory, so nothing in it outlives a reboot."""


def read_sandboxes(cache: Path = CACHE, namespaces: Path = NAMESPACES) -> Sandboxes:
    """What the notes in `cache` say of sandboxes whose namespaces are mounted in `namespaces`."""
    if not namespaces.is_dir():
        return Sandboxes()
    there: dict[str, list[bool]] = defaultdict(list)
    try:
        files = sorted(cache.iterdir())
    except OSError as error:
        log.info("the runtime's notes of attachments cannot be read", extra={"error": str(error)})
        return Sandboxes()
    for file in files:
        try:
            with file.open("rb") as content:
                note = read_json(
                    content.read(_LONGEST).decode(), longest=_LONGEST, deepest=64, only_showable=False
                )
            container, paths = str(note["containerId"]), _paths(note)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            log.debug("a file is no note of an attachment", extra={"file": file.name, "error": repr(error)})
            continue
        # A namespace mounted elsewhere cannot be seen from the agent's container.
        seen = [path.name for path in paths if path.parent in (namespaces, Path("/var") / "run" / "netns")]
        there[container].append(len(seen) < len(paths) or any((namespaces / name).exists() for name in seen))
    return Sandboxes(
        frozenset(container for container, states in there.items() if any(states)),
        frozenset(container for container, states in there.items() if not any(states)),
    )


def _paths(note: dict[str, Any]) -> list[Path]:
    """The namespaces that a note names: in a field of its own since libcni 1.2, in the result's interfaces before."""
    named = [note["netns"]] if note.get("netns") else []
    named += [one["sandbox"] for one in note.get("result", {}).get("interfaces", ()) if one.get("sandbox")]
    if not named:
        raise ValueError("it names no network namespace")
    return [Path(str(path)) for path in named]
