"""What the runtime tells to whoever measures it, and the guard that every observer stands behind. Metrics implement
`RuntimeObserver`; the runtime imports none.

What must always hold: an observer can never fail or stop what it observes. The first exception switches it off for
good and is logged once, as in trio's instruments.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol, TypeVar, cast

log = logging.getLogger("orbweaver.runtime")


class RuntimeObserver(Protocol):
    """Called in the thread where it happens (the actor's, or the caller's for `overloaded`): be quick, never
    block.

    `kind` is the part of the actor's name before the slash; times are seconds.
    """

    def handled(self, kind: str, method: str, waited: float, took: float, depth: int) -> None:
        """A call waited in the mailbox, was handled, and left `depth` others behind it."""

    def dropped(self, kind: str, method: str) -> None:
        """A call was dropped unhandled because its deadline had passed."""

    def overloaded(self, kind: str, method: str) -> None:
        """A call was refused because the mailbox is full."""

    def crashed(self, kind: str, error: BaseException) -> None:
        """An actor crashed."""

    def repeated(self, kind: str, method: str) -> None:
        """A call was dropped unhandled because the actor had crashed on the same one twice."""

    def activated(self, kind: str, took: float) -> None:
        """An actor was activated."""

    def passivated(self, kind: str) -> None:
        """An idle actor was passivated."""


T = TypeVar("T")


def guarded(observer: T | None, whose: str) -> T:
    """The observer, but what it raises reaches nobody: the first exception switches all of it off and is logged. None
    observes nothing. `whose`: for the log, such as "the runtime's"."""
    return cast(T, _SilencedObserver(observer, whose))


class _SilencedObserver:
    """Has every method of `observer`: each is wrapped when it is first asked for, and an attribute from then on."""

    def __init__(self, observer: object | None, whose: str) -> None:
        self._observer = observer
        self._whose = whose
        self._on = observer is not None

    def __getattr__(self, name: str) -> Callable[..., None]:
        method = None if self._observer is None else getattr(self._observer, name)

        def tell(*event: object) -> None:
            if self._on and method is not None:
                try:
                    method(*event)
                except Exception as failure:  # whatever it raises, what it observes goes on
                    self._switch_off(failure)

        setattr(self, name, tell)
        return tell

    def _switch_off(self, failure: Exception) -> None:
        self._on = False
        log.error("%s observer %r failed and is switched off", self._whose, self._observer, exc_info=failure)
