"""The base class of every actor. Its thread and its mailbox: `threads.py`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

if TYPE_CHECKING:
    from actors.runtime.handle import ActorHandle
    from actors.runtime.intake import Intake
    from actors.runtime.reference import ObjectRef
    from actors.runtime.system import ActorSystem

F = TypeVar("F", bound=Callable[..., Any])


def message(function: F) -> F:
    """Mark a method as one that can be called through handles, from this process and from others."""
    function.__orbweaver_message__ = True  # type: ignore[attr-defined]
    return function


class Cancellable(Protocol):
    """A timer of an actor."""

    def cancel(self) -> None: ...


@dataclass(frozen=True, slots=True)
class ActorContext:
    """What the runtime gives to an actor."""

    system: ActorSystem
    """The runtime itself, which finds other actors."""
    name: str
    """`kind/key`."""
    kind: str
    """Under which its class is registered."""
    key: str
    """What tells it from others of its kind."""
    intake: Intake
    """Its own mailbox, for timers and messages to itself."""


class Actor:
    """Owns its state and handles one message at a time, in a thread of its own.

    A handler may return an `ObjectRef` to answer later; whoever completes that answers the caller. An
    `OrbweaverError` raised by a handler is its answer. Any other exception, and any exception at all from a
    continuation, post or timer, where nobody could be told, is a crash: the instance is thrown away, everyone
    waiting for it gets `PeerLost`, and the next call finds a new instance, made from durable state.
    """

    messages: ClassVar[dict[str, Callable[..., Any]]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.messages = {
            name: value
            for base in reversed(cls.__mro__)
            for name, value in vars(base).items()
            if getattr(value, "__orbweaver_message__", False)
        }

    def __init__(self, context: ActorContext) -> None:
        self.context = context

    def on_activate(self) -> None:
        """Load durable state, before the first message, in the actor's thread.

        An `OrbweaverError` refuses the messages that wait, and the next call tries again.
        """

    def on_passivate(self) -> bool:
        """Asked when idle, and when the process stops: False to stay, which is no answer at the stop. What it
        posts or defers is waited for in both cases.

        Idle means no message waiting, no deferred reply, no continuation outstanding and no timer set. After
        True this instance gets no message any more, unless it posts one here: then it stays.
        """
        return True

    def get_actor(self, name: str) -> ActorHandle:
        """A handle on any actor, wherever it lives; calls go downward only (endpoint, pool, block)."""
        return self.context.system.get_actor(name)

    def then(self, ref: ObjectRef[Any], function: Callable[..., object], *extra: Any) -> None:
        """When `ref` is done, run `function(ref, *extra)` in this actor's thread, before the calls that wait.

        It is never dropped, not counted in the mailbox and has no deadline; it ends only with the instance.
        """
        self.context.intake.then(ref, function, extra)

    def post(self, function: Callable[..., object], *args: Any) -> None:
        """Run `function(*args)` in this actor's thread, behind what waits now. Safe to call from any
        thread."""
        self.context.intake.post(function, args)

    def after(self, seconds: float, function: Callable[..., object], *args: Any) -> Cancellable:
        """Run `function(*args)` in this actor's thread after `seconds`. A timer that is set keeps the actor
        active.

        When the process stops, timers are not waited for.
        """
        return self.context.intake.after(seconds, function, args)
