"""Handles: how one calls an actor without knowing where it lives. Shaped like Ray's.

What must always hold: making a handle costs nothing and activates nothing; `.remote()` never blocks and never
raises, what goes wrong is the answer. Through a `TypedHandle` a call is checked against the actor's own method, as a plain
call is: a wrong argument, or an answer that is taken for another one, is found before it runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar

from actors.runtime.actor import Actor
from actors.runtime.call import Call
from actors.runtime.reference import ObjectRef
from actors.runtime.scope import scope

if TYPE_CHECKING:
    from actors.runtime.system import ActorSystem

A = TypeVar("A", bound="Actor")
P = ParamSpec("P")
R = TypeVar("R")

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
        return RemoteMethod(self._handle, self._method, _seconds(timeout))

    def remote(self, *args: Any, **kwargs: Any) -> ObjectRef[Any]:
        """Send the message; the answer arrives in the reference.

        It fails with the error the handler raised, or with `Overloaded` (mailbox full, nothing was done),
        `DeadlineExceeded`, `PeerLost` (crash or lost connection: it may have been done) or `ProtocolError`
        (no such actor kind, message or arguments).
        """
        return self._handle.__send__(self._method, self._timeout, args, kwargs)


def _seconds(timeout: float | None) -> float | None:
    """A time for an answer that somebody asked for; one that is over is no other than one that ends now."""
    return None if timeout is None else max(0.0, timeout)


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

    def __send__(
        self, method: str, timeout: float | None, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> ObjectRef[Any]:
        """Send a message, with `timeout` as `RemoteMethod` has it, whose `remote` says what comes back."""
        here = scope.get()
        if timeout is None:
            deadline = None
        elif timeout == INHERITED:
            deadline = here.deadline
        else:
            deadline = time.monotonic() + timeout
        ref: ObjectRef[Any] = ObjectRef(label=f"{self.name}.{method}", deadline=deadline)
        call = Call(self.__kind__, self.name, method, args, kwargs, ref, deadline, here.trace)
        self.__system__.submit(call, inside=here.actor is not None)
        return ref


class ActorSource(Protocol):
    """Who has handles: an allocator, an actor, a system."""

    def get_actor(self, name: str) -> ActorHandle: ...


class TypedHandle(Generic[A]):
    """A handle of an actor of class `A`."""

    __slots__ = ("_handle", "_timeout")

    def __init__(self, handle: ActorHandle, timeout: float | None = INHERITED) -> None:
        self._handle = handle
        self._timeout = timeout

    def within(self, seconds: float | None) -> TypedHandle[A]:
        """The same with a time of its own for the answer; None for no limit, not even that of the request."""
        return TypedHandle(self._handle, _seconds(seconds))

    def ask(self, method: Callable[Concatenate[A, P], R], *args: P.args, **kwargs: P.kwargs) -> ObjectRef[R]:
        """Call a method that answers at once."""
        return self._handle.__send__(method.__name__, self._timeout, args, kwargs)

    def order(
        self, method: Callable[Concatenate[A, P], ObjectRef[R]], *args: P.args, **kwargs: P.kwargs
    ) -> ObjectRef[R]:
        """Call a method that promises its answer, which comes when it is done."""
        return self._handle.__send__(method.__name__, self._timeout, args, kwargs)
