"""What was attached to each container, on the node's disk, so that DEL needs neither the pod nor its networks' objects.

What must always hold: a note is written before anything of it is done, and again with the results, each time whole or not
at all (`atomic_file.py`); it names everything that the plugins need to undo it. A note that cannot be read
costs its own container. Notes are bounded in size and number.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from actors.errors import (
    CNI_NOT_AVAILABLE,
    InvalidObject,
    OrbweaverError,
    Overloaded,
    PodRefused,
    StoreUnavailable,
)
from actors.resources.fields import Fields
from actors.resources.json_text import UnreadableText, read_json, showable
from actors.resources.network_attachment import DEEPEST_CONFIG
from actors.store.atomic_file import replace_file
from cni.networks.execution import PluginParameters
from cni.networks.network_list import NetworkList, judge_network_list

log = logging.getLogger("orbweaver.networks")

DIRECTORY = Path("/var/lib/orbweaver/networks")
MOST_NOTES = 4096
"""Containers of one node; a kubelet starts 110 pods unless told otherwise."""
LONGEST_NOTE = 4 << 20
"""Bytes of a note: 33 networks, each with a configuration and a result."""

_CONTAINER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,252}")
_SUFFIX = ".json"
_SHOWN = 253
_FORM = 1


@dataclass(frozen=True, slots=True)
class Attached:
    """One network of a container."""

    name: str
    """`namespace/name` of its object, or what the node's own configuration calls it."""
    interface: str
    """In the pod."""
    network: NetworkList
    """The plugins that attached it, to be asked again at CHECK and DEL."""
    default: bool = False
    """Whether it is the pod's first network."""
    arguments: str = ""
    """CNI_ARGS."""
    capabilities: Mapping[str, Any] = field(default_factory=dict)
    """What the pod asks its plugins for, by capability."""
    cni_arguments: Mapping[str, Any] = field(default_factory=dict)
    """What it asks for by `args.cni`."""
    result: Mapping[str, Any] | None = None
    """Of its last plugin, None until that has answered."""

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "interface": self.interface,
            "network": self.network.to_json(),
            "default": self.default,
            "arguments": self.arguments,
            "capabilities": dict(self.capabilities),
            "cniArguments": dict(self.cni_arguments),
            "result": None if self.result is None else dict(self.result),
        }

    @classmethod
    def from_fields(cls, entry: Fields) -> Attached:
        """Inverse of `to_json`. Raises `InvalidObject`, `InvalidRequest`."""
        name = entry.text("name")
        return cls(
            name,
            entry.text("interface"),
            judge_network_list(
                entry.inner("network").data, showable(f"{entry.subject}: network {name[:_SHOWN]}"), name
            ),
            entry.flag("default"),
            entry.text("arguments"),
            dict(entry.inner("capabilities").data),
            dict(entry.inner("cniArguments").data),
            dict(entry.inner("result").data) if entry.has("result") else None,
        )


@dataclass(frozen=True, slots=True)
class AttachmentNote:
    """All networks of one container, in the order in which they are attached."""

    container: str
    """CNI_CONTAINERID."""
    pod: str
    """`namespace/name`."""
    netns: str
    """CNI_NETNS."""
    interface: str
    """The one whose ADD attached them."""
    path: str
    """CNI_PATH of that ADD."""
    attached: tuple[Attached, ...]
    """The networks."""
    inode: int | None = None
    """The number of that namespace where it is a process's, whose path means another one when the process is gone."""

    def attachment(self, attached: Attached) -> PluginParameters:
        """The parameters of one network's plugins."""
        return PluginParameters(self.container, self.netns, attached.interface, attached.arguments)

    def with_result(self, index: int, result: Mapping[str, Any]) -> AttachmentNote:
        """The note after a network's plugins have answered."""
        changed = list(self.attached)
        changed[index] = replace(changed[index], result=result)
        return replace(self, attached=tuple(changed))


class AttachmentCache:
    """The notes in one directory, which is made when the first is written. Safe to call from any thread for different
    containers."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def write(self, note: AttachmentNote) -> None:
        """Keep the note in place of an earlier one. Raises `PodRefused` for one that is too large, `Overloaded` when there
        are too many, `OrbweaverError` when the disk does not take it."""
        body = {
            "form": _FORM,
            "container": note.container,
            "pod": note.pod,
            "netns": note.netns,
            "interface": note.interface,
            "path": note.path,
            "inode": note.inode,
            "attached": [network.to_json() for network in note.attached],
        }
        data = json.dumps(body, separators=(",", ":")).encode()
        if len(data) > LONGEST_NOTE:
            raise PodRefused(
                f"pod {note.pod}: what its {len(note.attached)} networks say has {len(data)} bytes together, but may have "
                f"{LONGEST_NOTE}; name fewer or smaller ones"
            )
        path = self._path(note.container)
        try:
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            if not path.exists() and sum(1 for _ in self._files()) >= MOST_NOTES:
                raise Overloaded(
                    f"{self._directory} has notes of {MOST_NOTES} containers that were not deleted; end sandboxes that are "
                    "left over on this node"
                )
            replace_file(path, data)
        except OSError as error:
            raise OrbweaverError(
                f"the networks of pod {note.pod} cannot be noted in {self._directory}: {error.strerror}; "
                "look at the node's disk"
            ) from error

    def require_room(self) -> None:
        """Raise `StoreUnavailable` (code 50) where the next note could not be written: its disk is full or read-only, or there
        are too many."""
        there = next(place for place in (self._directory, *self._directory.parents) if place.exists())
        try:
            disk = os.statvfs(there)
        except OSError as error:
            raise StoreUnavailable(
                f"{there} cannot be looked at: {error.strerror}", cni_code=CNI_NOT_AVAILABLE
            ) from error
        why = ""
        if disk.f_flag & os.ST_RDONLY:
            why = "is on a file system that is read-only; look at the node's disk"
        elif disk.f_bavail * disk.f_frsize < LONGEST_NOTE or (disk.f_files and not disk.f_favail):
            why = "is on a disk that is full; make room on the node"
        elif sum(1 for _ in self._files()) >= MOST_NOTES:
            why = f"has notes of {MOST_NOTES} containers that were not deleted; end sandboxes that are left over on this node"
        if why:
            raise StoreUnavailable(f"{self._directory} {why}", cni_code=CNI_NOT_AVAILABLE)

    def read(self, container: str) -> AttachmentNote | None:
        """The container's note, None without one. Raises `InvalidObject` for one that cannot be read."""
        try:
            with self._path(container).open("rb") as file:
                data = file.read(LONGEST_NOTE + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise InvalidObject(
                f"the note of container {container} cannot be read: {error.strerror}"
            ) from error
        return read_note(container, data)

    def remove(self, container: str) -> None:
        """Forget the container."""
        with contextlib.suppress(FileNotFoundError):
            self._path(container).unlink()

    def all(self) -> Iterator[AttachmentNote]:
        """Every note that can be read."""
        for file in list(self._files()):
            try:
                note = self.read(file.name.removesuffix(_SUFFIX))
            except OrbweaverError as error:
                log.warning(
                    "a note of attachments cannot be read", extra={"file": str(file), "error": str(error)}
                )
                continue
            if note is not None:
                yield note

    def age(self, container: str, now: float) -> float:
        """Seconds since the note was written."""
        try:
            return now - self._path(container).stat().st_mtime
        except OSError:
            return 0.0

    def _files(self) -> Iterator[Path]:
        with contextlib.suppress(FileNotFoundError):
            yield from (
                file
                for file in self._directory.iterdir()
                if file.name.endswith(_SUFFIX) and not file.name.startswith(".")
            )

    def _path(self, container: str) -> Path:
        if _CONTAINER.fullmatch(container) is None:
            raise InvalidObject(f"{container[:64]!r} is no container's id")
        return self._directory / f"{container}{_SUFFIX}"


def read_note(container: str, data: bytes) -> AttachmentNote:
    """A container's note. Raises `InvalidObject`, `InvalidRequest`."""
    subject = f"the note of container {container}"
    try:
        value = read_json(
            data.decode(), longest=LONGEST_NOTE, deepest=DEEPEST_CONFIG + 8, only_showable=False
        )
    except (UnicodeDecodeError, UnreadableText) as error:
        raise InvalidObject(f"{subject} cannot be read: {error}") from error
    top = Fields.of(subject, "", value)
    if top.number("form", 0) != _FORM:
        raise top.refuse("form", f"but this version reads {_FORM}")
    return AttachmentNote(
        top.text("container"),
        top.text("pod"),
        top.text("netns"),
        top.text("interface"),
        top.text("path"),
        tuple(Attached.from_fields(entry) for entry in top.items("attached")),
        top.number("inode", 0) or None,
    )
