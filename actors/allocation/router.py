"""Where the ledger, the pools and the blocks of an agent live now: at the leader, or in this process.

Whoever needs them hands a task to `AllocatorRouter.work`, which runs it at the allocator of the moment and, when
the leader fails it, once more here. So a task must bear to be run twice: it begins by asking what is recorded.

What must always hold: a task that runs here finds all that the leader has recorded for this agent, because the one
here is made anew, by a consistent list, each time the leader has failed; and a leader is worked with only once it has
seen all that was written here. A leader that shows no sign of life within the budget is left at once, by later
requests without waiting; a background thread finds the way back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from actors.errors import (
    DeadlineExceeded,
    OrbweaverError,
    PeerLost,
    ProtocolError,
    StoreUnavailable,
    Unsendable,
)
from actors.runtime import HIGHEST_VERSION, ActorHandle, ActorSystem, ObjectRef, settle

T = TypeVar("T")


class Allocator(Protocol):
    """Where ledger, pools and blocks live for a task: the leader, or this process.

    `alone`: no other process writes the same blocks.
    """

    @property
    def alone(self) -> bool: ...

    @property
    def failed(self) -> bool:
        """Whether it failed the task that runs; then the task runs again elsewhere."""

    @property
    def speaks(self) -> int:
        """The version of the protocol that it knows (`actors/runtime/wire.py`)."""

    def get_actor(self, name: str) -> ActorHandle:
        """The handle of `ledger/local`, `pool/<name>` or `block/<name>` there."""

    def settle(self, refs: Sequence[ObjectRef[Any]], *, enough: int | None = None) -> None:
        """Wait for the answers, or for `enough` of them, whatever they are. Raises what says that it failed."""


class AllocatorRouter(Protocol):
    """Hands tasks to the allocator of the moment."""

    def work(
        self,
        task: Callable[[Allocator], T],
        on_lost: Callable[[], object] | None = None,
        *,
        waits: float = 0.0,
    ) -> T:
        """Run `task` at the allocator of the moment; if that was the leader and it failed, call `on_lost`, which learns that
        what was asked may yet take effect, and run `task` here. `waits`: seconds that a leader may take longer, because
        the task has something to wait for there. Raises what the last run raises."""


def is_lost(error: OrbweaverError) -> bool:
    """Whether an error from a leader says that it failed, and not that the request is refused. (A full mailbox is
    neither: nothing was done, and everybody coming here at once would make it worse. Nor is a message of our own that cannot
    be sent: one pod's must not take the leader from all others.)"""
    if isinstance(error, Unsendable):
        return False
    return isinstance(error, PeerLost | DeadlineExceeded | StoreUnavailable | ProtocolError)


def ask(allocator: Allocator, *refs: ObjectRef[T]) -> list[T]:
    """The answers of calls at an allocator. Raises the first error."""
    allocator.settle(refs)
    return [ref.result() for ref in refs]


class LocalAllocator:
    """The allocator in this process: the actors of `system`."""

    failed = False

    def __init__(self, system: ActorSystem, *, alone: bool) -> None:
        self.system = system
        self.alone = alone
        self.speaks = HIGHEST_VERSION

    def __str__(self) -> str:
        return "this process"

    def get_actor(self, name: str) -> ActorHandle:
        return self.system.get_actor(name)

    def settle(self, refs: Sequence[ObjectRef[Any]], *, enough: int | None = None) -> None:
        """Wait for what really became of each, also past the deadline: an address may be granted late, and must then be
        undone. Every answer comes: a Pool and a Block answer at the latest when a store call times out."""
        settle(refs, enough)


class AlwaysLocal:
    """The router of a process that works with its own actors only."""

    def __init__(self, system: ActorSystem, *, alone: bool) -> None:
        self._here = LocalAllocator(system, alone=alone)

    def work(
        self,
        task: Callable[[Allocator], T],
        on_lost: Callable[[], object] | None = None,
        *,
        waits: float = 0.0,
    ) -> T:
        return task(self._here)
