"""Typed handles of the actors that allocate: a call is checked against the actor's own method, as a plain call is.

What must always hold: here alone it is written how a ledger, a pool and a block are named. A call goes wherever the
allocator says that they live; what is named is a method of the actor's class, so that a wrong argument, or an answer
that is taken for another one, is found before it runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar

from actors.resources.addresses import Address
from actors.resources.blocks.block import block_name
from actors.runtime import Actor, ActorHandle, ObjectRef

if TYPE_CHECKING:  # for their types alone: these actors call each other through this module
    from actors.allocation.block import BlockActor
    from actors.allocation.ledger import LedgerActor
    from actors.allocation.pool import PoolActor

A = TypeVar("A", bound=Actor)
P = ParamSpec("P")
R = TypeVar("R")


class ActorSource(Protocol):
    """Who has handles: an allocator, an actor, a system."""

    def get_actor(self, name: str) -> ActorHandle: ...


class TypedHandle(Generic[A]):
    """A handle of an actor of class `A`."""

    __slots__ = ("_handle", "_options")

    def __init__(self, handle: ActorHandle, options: dict[str, float | None] | None = None) -> None:
        self._handle = handle
        self._options = options

    def within(self, seconds: float | None) -> TypedHandle[A]:
        """The same with a time of its own for the answer; None for no limit, not even that of the request."""
        return TypedHandle(self._handle, {"timeout": seconds})

    def ask(self, method: Callable[Concatenate[A, P], R], *args: P.args, **kwargs: P.kwargs) -> ObjectRef[R]:
        """Call a method that answers at once."""
        return self._send(method, args, kwargs)

    def order(
        self, method: Callable[Concatenate[A, P], ObjectRef[R]], *args: P.args, **kwargs: P.kwargs
    ) -> ObjectRef[R]:
        """Call a method that promises its answer, which comes when it is done."""
        return self._send(method, args, kwargs)

    def _send(self, method: Callable[..., Any], args: Any, kwargs: Any) -> ObjectRef[Any]:
        remote = getattr(self._handle, method.__name__)
        if self._options is not None:
            remote = remote.options(**self._options)
        answer: ObjectRef[Any] = remote.remote(*args, **kwargs)
        return answer


def ledger_of(actors: ActorSource) -> TypedHandle[LedgerActor]:
    """What is recorded for each pod, container and range."""
    return TypedHandle(actors.get_actor("ledger/local"))


def pool_of(actors: ActorSource, name: str) -> TypedHandle[PoolActor]:
    """The pool of a name, which gives out its addresses."""
    return TypedHandle(actors.get_actor("pool/" + name))


def block_of(actors: ActorSource, address: Address) -> TypedHandle[BlockActor]:
    """The block in which an address is recorded."""
    return TypedHandle(actors.get_actor("block/" + block_name(*address)))
