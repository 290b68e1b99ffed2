"""The sandboxes of this node that may hold addresses, and what can be seen of each.

It is told by each ADD which network namespace a container has, and reads the runtime's notes for the rest, such as what ran
before this agent started. What must always hold: see `actors.allocation.sandbox_evidence`. A container whose last
interface was deleted is forgotten; one too many only costs a look.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from actors.allocation.messages import NodeSandbox, Sandbox
from actors.allocation.sandbox_evidence import SandboxState
from cni.dataplane.netlink.namespaces import require_foreign
from cni.server.libcni_cache import CACHE, Namespaces, Note, read_notes

log = logging.getLogger("orbweaver.gc")


@dataclass(slots=True)
class _Known:
    """What an ADD has told of a sandbox."""

    pod: str
    """`namespace/name`."""
    uid: str
    """The pod's."""
    netns: str | None = None
    """What the last ADD named, if it could be seen then."""
    inode: int | None = None
    """Its number, where it has one: the path may lead to another namespace by now."""
    interfaces: set[str] = field(default_factory=set)
    """Those whose DEL is still to come."""


class NodeSandboxes:
    """One per agent. Safe for several threads."""

    def __init__(self, cache: Path = CACHE, namespaces: Namespaces | None = None) -> None:
        self._cache = cache
        self._namespaces = namespaces or Namespaces()
        self._lock = threading.Lock()
        self._known: dict[str, _Known] = {}

    @property
    def sees(self) -> bool:
        """Whether sandboxes can be seen here at all; which of them not, `state` tells."""
        return self._namespaces.visible

    def known(self) -> tuple[NodeSandbox, ...]:
        """Every container that may hold an address."""
        with self._lock:
            return tuple(
                NodeSandbox(container, known.pod, known.uid) for container, known in self._known.items()
            )

    def of_pod(self, pod: str) -> tuple[NodeSandbox, ...]:
        """Those of a pod `namespace/name`."""
        with self._lock:
            return tuple(
                NodeSandbox(container, known.pod, known.uid)
                for container, known in self._known.items()
                if known.pod == pod
            )

    def remember(self, sandboxes: Iterable[NodeSandbox]) -> None:
        """Add what is recorded for this node and was not told by an ADD."""
        with self._lock:
            for sandbox in sandboxes:
                known = self._known.setdefault(sandbox.container, _Known(sandbox.pod, sandbox.uid))
                if sandbox.interface:
                    known.interfaces.add(sandbox.interface)

    def forget(self, container: str) -> None:
        """Nothing is recorded for it any more."""
        with self._lock:
            self._known.pop(container, None)

    def began(self, sandbox: Sandbox) -> None:
        """See `SandboxEvidence`. A container that was started again has another namespace than before."""
        netns = sandbox.netns
        require_foreign(netns, sandbox.key)
        there, inode = self._namespaces.look(netns)
        with self._lock:
            known = self._known.setdefault(sandbox.container, _Known(sandbox.key, sandbox.uid))
            known.pod, known.uid = sandbox.key, sandbox.uid
            known.netns, known.inode = (netns, inode) if there else (None, None)
            known.interfaces.add(sandbox.interface)

    def deleted(self, sandbox: Sandbox) -> None:
        """See `SandboxEvidence`."""
        with self._lock:
            known = self._known.get(sandbox.container)
            if known is not None:
                known.interfaces.discard(sandbox.interface)
                if not known.interfaces:
                    del self._known[sandbox.container]

    def state(self, container: str) -> SandboxState:
        """See `SandboxEvidence`. The runtime's notes are read only once the namespace that an ADD named is gone."""
        with self._lock:
            known = self._known.get(container)
            netns, inode = (None, None) if known is None else (known.netns, known.inode)
        is_there = None if netns is None else self._namespaces.is_there(netns, inode=inode)
        if is_there:
            return SandboxState.ALIVE
        noted = [note.is_there(self._namespaces) for note in self._notes(container)]
        if True in noted:
            return SandboxState.ALIVE
        if None in noted or (netns is not None and is_there is None):
            return SandboxState.UNSEEN
        return SandboxState.ENDED if noted or netns is not None else SandboxState.UNSEEN

    def _notes(self, container: str) -> list[Note]:
        try:
            return [note for note in read_notes(self._cache, container) if isinstance(note, Note)]
        except OSError as error:
            log.debug("the runtime's notes cannot be read", extra={"error": str(error)})
            return []
