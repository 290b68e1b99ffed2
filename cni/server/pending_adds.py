"""The ADDs that are under way, and those whose answer nobody took.

What must always hold: an ADD whose answer could not be delivered, or came after the deadline, is undone, because the
runtime does not know what it was given. It is undone once no other ADD of the same interface is in progress, and only if
none of those was answered: a repeated ADD gives out the same addresses. It is the event loop's alone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from actors.allocation.messages import Sandbox
from actors.runtime import ActorSystem, ObjectRef, Trace, request_scope

log = logging.getLogger("orbweaver.cni")

UNDO_PAUSE, UNDO_PAUSE_MOST = 0.5, 10.0
"""Seconds between attempts to release what nobody took."""


@dataclass(slots=True)
class Adds:
    """The ADDs of one (container, interface)."""

    going: int = 0
    """How many are under way."""
    owed: bool = False
    """Whether addresses were recorded that nobody was told of, and are to be released."""
    undoing: bool = False
    """Whether that is being done."""


class PendingAdds:
    """`timeout`: seconds that a release may take. `soon` and `later` run a function on the event loop's thread: at once,
    or after so many seconds."""

    def __init__(
        self,
        system: ActorSystem,
        timeout: float,
        soon: Callable[..., object],
        later: Callable[..., object],
    ) -> None:
        self._system = system
        self._timeout = timeout
        self._soon = soon
        self._later = later
        self._pods: dict[str, list[str]] = {}
        """The pods `namespace/name` that ADDs of a container were sent to."""
        self._wanted: dict[str, list[ObjectRef[None]]] = {}
        """By container; completed when nobody wants the answer any more."""
        self._adds: dict[tuple[str, str], Adds] = {}

    def __len__(self) -> int:
        """For how many interfaces an ADD is under way, or is to be undone."""
        return len(self._adds)

    def pod_of(self, container: str) -> str | None:
        """The pod to which an ADD of the container was sent that is under way."""
        pods = self._pods.get(container)
        return pods[0] if pods else None

    def started(self, sandbox: Sandbox, gone: ObjectRef[None]) -> None:
        """An ADD begins; `gone` is completed when nobody wants its answer any more."""
        self._wanted.setdefault(sandbox.container, []).append(gone)
        self._pods.setdefault(sandbox.container, []).append(sandbox.key)
        self._adds.setdefault((sandbox.container, sandbox.interface), Adds()).going += 1

    def unwanted(self, container: str) -> None:
        """The sandbox is being deleted: no ADD of it is to wait for an address any more."""
        for gone in self._wanted.get(container, ()):
            gone.complete(None)

    def all_unwanted(self) -> None:
        """The agent ends: nobody waits for an address meanwhile."""
        for container in tuple(self._wanted):
            self.unwanted(container)

    def finished(self, sandbox: Sandbox, trace: Trace, *, delivered: bool, fresh: bool) -> None:
        """An ADD ended. `delivered`: its result was taken; `fresh`: it recorded addresses that it did not release."""
        pods = self._pods[sandbox.container]
        pods.remove(sandbox.key)
        if not pods:
            del self._pods[sandbox.container]
            del self._wanted[sandbox.container]
        adds = self._adds[sandbox.container, sandbox.interface]
        adds.going -= 1
        adds.owed = not delivered and (adds.owed or fresh)
        self._settle(sandbox, trace, UNDO_PAUSE)

    def _settle(self, sandbox: Sandbox, trace: Trace, pause: float) -> None:
        attachment = (sandbox.container, sandbox.interface)
        adds = self._adds.get(attachment)
        if adds is None or adds.going or adds.undoing:
            return
        if not adds.owed:
            del self._adds[attachment]
            return
        log.warning("nobody took the answer of an ADD, releasing its addresses", extra=trace.named())
        adds.undoing = True
        with request_scope(trace, self._timeout):
            ref = self._system.get_actor("endpoint/" + sandbox.key).release.remote(sandbox)
        ref.subscribe(lambda done: self._soon(self._undone, sandbox, trace, done, pause))

    def _undone(self, sandbox: Sandbox, trace: Trace, ref: ObjectRef[Any], pause: float) -> None:
        adds = self._adds[sandbox.container, sandbox.interface]
        adds.undoing = False
        error = ref.error()
        if error is None:
            # An ADD that began meanwhile waited in the Endpoint behind the release, so nothing of it is gone.
            adds.owed = False
            self._settle(sandbox, trace, UNDO_PAUSE)
        else:
            log.error("could not release them yet, will try again", extra=trace.named(error=str(error)))
            self._later(pause, self._settle, sandbox, trace, min(2 * pause, UNDO_PAUSE_MOST))
