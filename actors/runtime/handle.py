"""Handles: how one calls an actor without knowing where it lives. Shaped like Ray's.

What must always hold: making a handle costs nothing and activates nothing; `.remote()` never blocks and never
raises, what goes wrong is the answer.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from actors.runtime.call import Call
from actors.runtime.reference import ObjectRef
from actors.runtime.scope import scope

if TYPE_CHECKING:
    from actors.runtime.system import ActorSystem

INHERITED = -1.0


class RemoteMethod:
    """One message of one actor."""

    __slots__ = ("_handle", "_method", "_timeout")

    def __init__(self, handle: ActorHandle, method: str, timeout: float | None = INHERITED) -> None:
        self._handle = handle
        self._method = method
        self._timeout = timeout

    def options(self, *, timeout: float | None) -> RemoteMethod:
        """Seconds until the deadline of the call; None for no deadline, not even the inherited one."""
        return RemoteMethod(self._handle, self._method, None if timeout is None else max(0.0, timeout))

    def remote(self, *args: Any, **kwargs: Any) -> ObjectRef[Any]:
        """Send the message; the answer arrives in the reference.

        It fails with the error the handler raised, or with `Overloaded` (mailbox full, nothing was done),
        `DeadlineExceeded`, `PeerLost` (crash or lost connection: it may have been done) or `ProtocolError`
        (no such actor kind, message or arguments).
        """
        here = scope.get()
        timeout = self._timeout
        if timeout is None:
            deadline = None
        elif timeout == INHERITED:
            deadline = here.deadline
        else:
            deadline = time.monotonic() + timeout
        handle = self._handle
        system = handle.__system__
        ref: ObjectRef[Any] = ObjectRef(label=f"{handle.name}.{self._method}", deadline=deadline)
        call = Call(handle.__kind__, handle.name, self._method, args, kwargs, ref, deadline, here.trace)
        system.submit(call, inside=here.actor is not None)
        return ref


class ActorHandle:
    """`handle.method.remote(...)` calls `method`."""

    # The names of messages are free for the actors, so what is ours is out of their way.
    __slots__ = ("__kind__", "__system__", "name")

    def __init__(self, system: ActorSystem, name: str) -> None:
        self.name = name
        self.__kind__ = name.partition("/")[0]
        self.__system__ = system

    def __repr__(self) -> str:
        return f"<ActorHandle {self.name}>"

    def __getattr__(self, method: str) -> RemoteMethod:
        if method.startswith("_"):
            raise AttributeError(method)
        return RemoteMethod(self, method)
