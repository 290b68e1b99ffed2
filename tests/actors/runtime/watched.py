"""An actor, and an observer, that write down what happens."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from actors.runtime import (
    Actor,
    ActorContext,
    ActorSystem,
    message,
)


class Watched(Actor):
    """Writes down what happens to it in a journal of the test's."""

    def __init__(self, context: ActorContext, journal: list[str]) -> None:
        super().__init__(context)
        self.journal = journal
        self.count = 0

    def on_activate(self) -> None:
        self.journal.append(f"+{self.context.name}")

    def on_passivate(self) -> bool:
        self.journal.append(f"-{self.context.name}")
        return True

    @message
    def call(self, function: Callable[[Watched], Any]) -> Any:
        return function(self)

    @message
    def crash(self) -> None:
        raise KeyError("a bug")


def watched(system: ActorSystem, kind: str = "watched", **options: Any) -> list[str]:
    journal: list[str] = []
    system.register(kind, lambda context: Watched(context, journal), **options)
    return journal


def threads_of(system: ActorSystem, name: str) -> int:
    return sum(thread.name == name for thread in threading.enumerate())


class Counts:
    """An observer that breaks when told to."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.broken = False

    def _note(self, event: str) -> None:
        if self.broken:
            raise RuntimeError("the metrics are broken")
        self.events.append(event)

    def handled(self, kind: str, method: str, waited: float, took: float, depth: int) -> None:
        assert waited >= 0
        assert took >= 0
        assert depth >= 0
        self._note(f"handled {kind} {method}")

    def dropped(self, kind: str, method: str) -> None:
        self._note(f"dropped {kind} {method}")

    def overloaded(self, kind: str, method: str) -> None:
        self._note(f"overloaded {kind} {method}")

    def crashed(self, kind: str, error: BaseException) -> None:
        self._note(f"crashed {kind} {type(error).__name__}")

    def repeated(self, kind: str, method: str) -> None:
        self._note(f"repeated {kind} {method}")

    def activated(self, kind: str, took: float) -> None:
        self._note(f"activated {kind}")

    def passivated(self, kind: str) -> None:
        self._note(f"passivated {kind}")
