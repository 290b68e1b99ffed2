"""The base class of every actor, and the pykka actor that gives each one its thread and its mailbox.

What must always hold: pykka is imported here and nowhere else; everything reaches an actor by `tell`, with a
reference of our own for the answer, and no exception leaves `on_receive`. pykka keeps an actor alive after an
exception under `ask` and stops it under `tell`; this way there is one rule, and it is ours (`activation.py`).
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

import pykka

from actors.runtime.threads import Threads

if TYPE_CHECKING:
    from pykka._actor import ActorInbox

    from actors.runtime.activation import Activation
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


_THREADS = Threads("actor")


class ActorThread(pykka.ThreadingActor):
    """The thread and the mailbox of one activation of one actor."""

    def __init__(self, activation: Activation) -> None:
        super().__init__()
        self._activation = activation

    @staticmethod
    def _create_actor_inbox() -> ActorInbox:
        # queue.SimpleQueue is written in C: a put and a get cost a tenth of queue.Queue's. Bounds are kept in
        # `Intake`, where a full mailbox is an answer and not a wait.
        inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        return inbox

    def _start_actor_loop(self) -> None:
        _THREADS.run(self._actor_loop)

    def on_start(self) -> None:
        threading.current_thread().name = self._activation.name
        self._activation.begin()
        if self._activation.intake.closed:
            self.stop()

    def on_receive(self, message: Any) -> None:
        self._activation.handle(message)
        if self._activation.intake.closed:
            self.stop()


class Mailbox:
    """The way into an `ActorThread`, for its `Intake`."""

    __slots__ = ("_inbox", "_ref", "put")

    def __init__(self, activation: Activation) -> None:
        """Start the thread. Raises RuntimeError when the system has no thread to give."""
        self._ref = ActorThread.start(activation)
        self._inbox: Any = self._ref.actor_inbox
        self.put: Callable[[Any], None] = self._ref.tell

    def drain(self) -> list[Any]:
        """Take out everything that waits."""
        taken = []
        while True:
            try:
                taken.append(self._inbox.get_nowait().message)
            except queue.Empty:
                return taken

    def stop(self) -> None:
        """Let the thread end after the message it is handling."""
        if self._ref.is_alive():
            self._ref.stop(block=False)

    def wait_stopped(self, timeout: float) -> None:
        """Wait until the thread has ended its last message."""
        self._ref.actor_stopped.wait(timeout)
