"""Requests of one pod whose leader was lost while it served them: what it recorded late is found, and released.

How it works. Such a request runs again in this process, from what is recorded by then, and its answer is what counts. The
lost leader may still write: its messages live for some seconds, its lease for some more. So it is looked three times for
what the container has beside what was answered.

What must always hold: nothing that was answered is released here; until what was recorded before is known, only what has
one of the request's own claims counts as late.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from actors.allocation.deallocation import Deallocation, of_container
from actors.allocation.grant import Grant
from actors.allocation.messages import Sandbox
from actors.allocation.observer import tell_views
from actors.allocation.reservation import AddContext
from actors.allocation.router import Allocator
from actors.errors import OrbweaverError
from actors.resources.addresses import Address
from actors.resources.blocks.allocation import Allocation
from actors.runtime import Cancellable

log = logging.getLogger("orbweaver.endpoint")

LOOKS = (8.0, 30.0, 90.0)
"""Seconds after which it is looked for what a lost leader may have recorded late. The first is longer than its messages
live, the second longer than its lease; who was paused longer leaves it to the GC, as the crash of this agent does."""


@dataclass(slots=True)
class LostRequest:
    """One (container, interface) whose leader was lost."""

    answered: frozenset[Address] | None = frozenset()
    """The addresses that were answered for it since, or before; None while nobody knows the latter."""
    guessed: frozenset[str] = frozenset()
    """The claims that its ADD made before anybody had looked what is recorded."""
    looks: list[Cancellable] = field(default_factory=list)
    """The timers of the looks that are to come."""

    def is_late(self, held: Allocation) -> bool:
        """Whether what is recorded for the container counts for nothing."""
        if self.answered is None:
            return held.record.claim in self.guessed
        return held.address not in self.answered


class LostRequests:
    """Of one pod; used in the thread of its Endpoint alone."""

    def __init__(self, after: Callable[..., Cancellable], deallocation: Deallocation) -> None:
        """`after`: sets a timer of the actor (`Actor.after`)."""
        self.by_attachment: dict[tuple[str, str], LostRequest] = {}
        """By container and interface. Empty but for minutes after a leader was lost."""
        self._after = after
        self._deallocation = deallocation

    def includes(self, context: AddContext) -> bool:
        """Whether an interface of this ADD is among them."""
        return any(
            (request.sandbox.container, request.sandbox.interface) in self.by_attachment
            for request in context.requests
        )

    def add(self, context: AddContext) -> None:
        """The leader was lost while it served an ADD: what it records late is to be found. What the container held before
        was the answer to an earlier ADD, which counts whether or not this one succeeds."""
        if context.before is None and not context.guessed:
            return  # it had only been asked what is recorded
        for request in context.requests:
            attachment = (request.sandbox.container, request.sandbox.interface)
            lost = self.by_attachment.setdefault(attachment, LostRequest())
            for look in lost.looks:
                look.cancel()
            lost.answered = context.before
            lost.guessed |= context.guessed
            lost.looks = [
                self._after(seconds, self._look, attachment, seconds == LOOKS[-1]) for seconds in LOOKS
            ]

    def looked(self, context: AddContext) -> None:
        """It is known by now what the container of an ADD held before."""
        for lost in self._of(context):
            if lost.answered is None:
                lost.answered = context.before

    def answered(self, context: AddContext, grants: Sequence[Grant]) -> None:
        """An ADD is answered with these."""
        for lost in self._of(context):
            lost.answered = frozenset(grant.address for grant in grants)

    def ended(self, container: str, interface: str = "") -> None:
        """The container ended, or this interface of it: whatever is recorded for it is late."""
        for (of, name), lost in self.by_attachment.items():
            if of == container and interface in ("", name):
                lost.answered = frozenset()

    def without_late(self, held: Sequence[Allocation], sandbox: Sandbox) -> list[Allocation]:
        """Leave out what a lost leader recorded late beside the address that was answered: a repeated ADD is answered
        the same, also before the other one is found and released."""
        answered: set[Address] = set()
        for (container, _), lost in self.by_attachment.items():
            if container == sandbox.container:
                answered |= lost.answered or frozenset()
        mine = [allocation for allocation in held if sandbox.container in allocation.record.containers]
        served = {_nic(allocation, sandbox) for allocation in mine if allocation.address in answered}
        late = [
            allocation
            for allocation in mine
            if allocation.address not in answered and _nic(allocation, sandbox) in served
        ]
        return [allocation for allocation in held if allocation not in late]

    def _of(self, context: AddContext) -> list[LostRequest]:
        attachments = ((request.sandbox.container, request.sandbox.interface) for request in context.requests)
        return [
            self.by_attachment[attachment] for attachment in attachments if attachment in self.by_attachment
        ]

    def _look(self, attachment: tuple[str, str], last: bool) -> None:
        """Release what came late; after the `last` look it is forgotten."""
        lost = self.by_attachment[attachment]
        container, interface = attachment
        deallocation = self._deallocation

        def drop(allocator: Allocator) -> list[Allocation]:
            late = [
                replace(held, record=held.record.seen_by(container))
                for held in of_container(allocator, container)
                if interface in (held.record.interface, held.record.request) and lost.is_late(held)
            ]
            deallocation.release(allocator, [(held, deallocation.keeps(held.record)) for held in late])
            return late

        try:
            late = deallocation.router.work(drop)
        except OrbweaverError as error:
            log.warning(
                "could not look for what a lost leader recorded, will try again", extra={"error": str(error)}
            )
            lost.looks.append(self._after(LOOKS[0], self._look, attachment, last))
            return
        log.log(
            logging.WARNING if late else logging.INFO,
            "looked for what a lost leader recorded",
            extra={"container": container, "released": len(late)},
        )
        tell_views(deallocation.actors, [held.record for held in late])
        if last:
            del self.by_attachment[attachment]


def _nic(held: Allocation, sandbox: Sandbox) -> tuple[str, int]:
    """Which interface of the sandbox an address is for, and its family."""
    return held.record.seen_by(sandbox.container).interface, held.family
