"""The runtime's own notes of CNI attachments, and whether the network namespaces that they name are there.

Every runtime on libcni (containerd, CRI-O, podman, nerdctl, cnitool) keeps a file for each attachment from the end of its
ADD to the end of its DEL, with the path of the network namespace: mounted below /run/netns, or, where nerdctl and Docker
make the sandbox, `/proc/PID/ns/net` of its process. What must always hold: a namespace is said to be gone only when it
could be seen from here and is not there; whatever cannot be read or seen says nothing.
"""

from __future__ import annotations

import errno
import logging
import os
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from actors.reclaim.stale_sandboxes import NotedSandboxes
from actors.resources.json_text import read_json

log = logging.getLogger("orbweaver.gc")

CACHE = Path("/var/lib/cni/results")
"""Where libcni keeps its notes (libcni/api.go, CacheDir)."""

_LONGEST = 4 << 20
"""Bytes of a note that are read: it holds the network's configuration and its result, of a megabyte each at most."""

MOUNTED = Path("/run/netns")
"""Where runtimes mount network namespaces. It is in memory, so nothing in it outlives a reboot."""

PROCESSES = Path("/proc")

_OF_PROCESS = re.compile(r"/proc/([0-9]+)/(?:task/[0-9]+/)?ns/net")
_FIRST_PID_NAMESPACE = "pid:[4026531836]"
"""The kernel's first one (include/linux/proc_ns.h, PROC_PID_INIT_INO): who is in it sees the processes of all others."""
_START_TIME = 19
"""The field of /proc/PID/stat behind the command's closing bracket (proc(5): starttime is the 22nd of all)."""
_CLOCK_SLACK = 2.0
"""Seconds by which a process may seem to be younger than the note of it: starts are told in ticks since boot."""


def visible_processes() -> Path | None:
    """Where the processes of the node's runtime can be looked at, None where this process has a PID namespace of its own, in
    which a PID of the runtime's means another process or none."""
    try:
        own = PROCESSES / "self" / "ns" / "pid"
        return PROCESSES if str(own.readlink()) == _FIRST_PID_NAMESPACE else None
    except OSError:
        return None


@dataclass(frozen=True, slots=True)
class Namespaces:
    """Where network namespaces can be seen: those `mounted`, and those of `processes`, None where they cannot."""

    mounted: Path = MOUNTED
    processes: Path | None = field(default_factory=visible_processes)

    @property
    def visible(self) -> bool:
        """Whether any can."""
        return self.mounted.is_dir() or self.processes is not None

    def is_there(self, path: str | Path, noted: float | None = None, inode: int | None = None) -> bool | None:
        """Whether a namespace is there; None when that cannot be told. `noted`: when somebody wrote down that it is this
        one, in seconds since the epoch; `inode`: the namespace's own number, where somebody saw it."""
        named = os.path.normpath(path)  # a Path costs as much as the rest of the question
        of_process = _OF_PROCESS.fullmatch(named)
        if of_process is not None:
            return self._of_process(int(of_process[1]), noted, inode)
        mounted = self._mounted(named)
        if mounted is None:
            return None
        if _exists(mounted):
            return True
        return False if self.mounted.is_dir() else None

    def inode(self, path: str | Path) -> int | None:
        """The number of a process's namespace, None of another or where it cannot be seen."""
        of_process = _OF_PROCESS.fullmatch(os.path.normpath(path))
        if of_process is None or self.processes is None:
            return None
        try:
            return (self.processes / of_process[1] / "ns" / "net").stat().st_ino
        except OSError:
            return None

    def look(self, path: str | Path) -> tuple[bool, int | None]:
        """Whether a namespace is seen to be there, and its number, where it is a process's: what every ADD asks, at the cost of
        one look. What is not seen may still be there."""
        named = os.path.normpath(path)
        if _OF_PROCESS.fullmatch(named) is not None:
            inode = self.inode(named)
            return inode is not None, inode
        mounted = self._mounted(named)
        return mounted is not None and _exists(mounted), None

    def _mounted(self, named: str) -> str | None:
        """Where a namespace that is mounted can be seen; one that is mounted elsewhere cannot, from the agent's container."""
        folder, _, name = named.rpartition("/")
        if folder in (str(self.mounted), "/run/netns", "/var/run/netns"):
            return f"{self.mounted}/{name}"
        return None

    def _of_process(self, pid: int, noted: float | None, inode: int | None) -> bool | None:
        """PIDs are used again, after a reboot at the latest: the process is the noted one only if it is not younger."""
        if self.processes is None:
            return None
        process = self.processes / str(pid)
        try:
            now = (process / "ns" / "net").stat().st_ino
            if inode is not None:
                return now == inode
            if noted is None:
                return True
            return self._started(process) <= noted + _CLOCK_SLACK
        except (FileNotFoundError, ProcessLookupError):
            return False
        except (OSError, ValueError, IndexError, StopIteration):
            return None

    def _started(self, process: Path) -> float:
        """When a process started, in seconds since the epoch. Raises OSError, ValueError."""
        assert self.processes is not None
        behind = (process / "stat").read_text().rpartition(")")[2].split()
        lines = (self.processes / "stat").read_text().splitlines()
        booted = next(float(line.split()[1]) for line in lines if line.startswith("btime "))
        return booted + int(behind[_START_TIME]) / os.sysconf("SC_CLK_TCK")


def _exists(path: str) -> bool:
    try:
        os.stat(path)  # noqa: PTH116 - a Path costs more than the look
    except (FileNotFoundError, NotADirectoryError, ValueError):  # the last one for what no path can be
        return False
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        return False
    return True


@dataclass(frozen=True, slots=True)
class Note:
    """One attachment: its container, the namespaces that it names, and when it was written (seconds since the epoch)."""

    container: str
    paths: tuple[Path, ...]
    written: float
    pod: str = ""
    """`namespace/name`; empty where the attachment is no pod's."""

    def is_there(self, namespaces: Namespaces) -> bool | None:
        """Whether one of its namespaces is there; None when none is seen to be and one cannot be told."""
        seen = [namespaces.is_there(path, self.written) for path in self.paths]
        if True in seen:
            return True
        return None if None in seen else False


@dataclass(frozen=True, slots=True)
class BadNote:
    """A file among the notes that tells nothing, and why."""

    file: str
    why: str


def read_notes(cache: Path = CACHE, container: str = "") -> Iterator[Note | BadNote]:
    """The notes in `cache`; those of one container, unless that is empty. Raises OSError when they cannot be listed."""
    for file in sorted(cache.iterdir()):
        if container and f"-{container}-" not in file.name:
            continue  # libcni calls them NETWORK-CONTAINER-INTERFACE
        try:
            note = _read(file)
        except FileNotFoundError:
            continue  # its DEL ended meanwhile
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            yield BadNote(file.name, _why(file, error))
        else:
            if not container or note.container == container:
                yield note


def read_sandboxes(cache: Path = CACHE, namespaces: Namespaces | None = None) -> NotedSandboxes:
    """What the notes in `cache` say of sandboxes."""
    namespaces = namespaces or Namespaces()
    if not namespaces.visible:
        return NotedSandboxes()
    there: dict[str, list[bool | None]] = defaultdict(list)
    try:
        for note in read_notes(cache):
            if isinstance(note, BadNote):
                log.debug("a file is no note of an attachment", extra={"file": note.file, "error": note.why})
            else:
                there[note.container].append(note.is_there(namespaces))
    except OSError as error:
        log.info("the runtime's notes of attachments cannot be read", extra={"error": str(error)})
        return NotedSandboxes()
    return NotedSandboxes(
        frozenset(container for container, states in there.items() if True in states or None in states),
        frozenset(container for container, states in there.items() if set(states) == {False}),
    )


def _read(file: Path) -> Note:
    with file.open("rb") as opened:
        written = os.fstat(opened.fileno()).st_mtime
        text = opened.read(_LONGEST).decode()
        note = read_json(text, longest=_LONGEST, deepest=64, only_showable=False)
    return Note(str(note["containerId"]), tuple(_paths(note)), written, _pod(note))


def _pod(note: dict[str, Any]) -> str:
    """As CNI_ARGS named it."""
    arguments = {str(key): str(value) for key, value in note.get("cniArgs") or ()}
    namespace, name = arguments.get("K8S_POD_NAMESPACE", ""), arguments.get("K8S_POD_NAME", "")
    return f"{namespace}/{name}" if namespace and name else ""


def _paths(note: dict[str, Any]) -> list[Path]:
    """The namespaces that a note names: in a field of its own since libcni 1.2, in the result's interfaces before."""
    named = [note["netns"]] if note.get("netns") else []
    named += [
        interface["sandbox"]
        for interface in note.get("result", {}).get("interfaces", ())
        if interface.get("sandbox")
    ]
    if not named:
        raise ValueError("it names no network namespace")
    return [Path(str(path)) for path in dict.fromkeys(named)]


def _why(file: Path, error: Exception) -> str:
    try:
        if file.is_file() and not file.stat().st_size:
            return "it is empty"
    except OSError:
        return str(error)
    if isinstance(error, KeyError):
        return f"it has no {error.args[0]}"
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error)
