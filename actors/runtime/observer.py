"""What the runtime tells to whoever measures it. Metrics implement `RuntimeObserver`; the runtime imports
none.

What must always hold: an observer can never fail or stop a message. The first exception switches it off for
good and is logged once, as in trio's instruments.
"""

from __future__ import annotations

import logging
from typing import Protocol

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


class GuardedObserver:
    """Passes on to an observer until that fails."""

    def __init__(self, observer: RuntimeObserver | None) -> None:
        self._observer = observer

    @property
    def active(self) -> bool:
        """Whether there is anybody to tell: saves taking the time of every message when there is not."""
        return self._observer is not None

    def handled(self, kind: str, method: str, waited: float, took: float, depth: int) -> None:
        if self._observer is not None:
            try:
                self._observer.handled(kind, method, waited, took, depth)
            except Exception as failure:
                self._switch_off(failure)

    def dropped(self, kind: str, method: str) -> None:
        if self._observer is not None:
            try:
                self._observer.dropped(kind, method)
            except Exception as failure:
                self._switch_off(failure)

    def overloaded(self, kind: str, method: str) -> None:
        if self._observer is not None:
            try:
                self._observer.overloaded(kind, method)
            except Exception as failure:
                self._switch_off(failure)

    def crashed(self, kind: str, error: BaseException) -> None:
        if self._observer is not None:
            try:
                self._observer.crashed(kind, error)
            except Exception as failure:
                self._switch_off(failure)

    def repeated(self, kind: str, method: str) -> None:
        if self._observer is not None:
            try:
                self._observer.repeated(kind, method)
            except Exception as failure:
                self._switch_off(failure)

    def activated(self, kind: str, took: float) -> None:
        if self._observer is not None:
            try:
                self._observer.activated(kind, took)
            except Exception as failure:
                self._switch_off(failure)

    def passivated(self, kind: str) -> None:
        if self._observer is not None:
            try:
                self._observer.passivated(kind)
            except Exception as failure:
                self._switch_off(failure)

    def _switch_off(self, failure: Exception) -> None:
        log.error("the runtime's observer %r failed and is switched off", self._observer, exc_info=failure)
        self._observer = None
