"""The node's watch over sandboxes whose pods are on their way out: what one of them held is back when it has ended.

The kubelet of a pod that is gone, replaced, finished or Terminating still stops its containers, in a second or in minutes,
and sends a DEL, or never does. Only the node can see when it is over. This actor looks for such sandboxes, at changes of
pods and now and then at all, and looks at each of them several times a second until it has ended; then the pod's
Endpoint releases as the DEL would have. It tells the leader that it does so, which then leaves these pods to it.

What must always hold: nothing is released of a sandbox that is alive or unseen; what is unseen is told to the leader,
whose delays decide about it. On a host without Kubernetes there are no pods to ask: a sandbox that was seen to have
ended at two looks in a row gives back what it held.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from actors.allocation.endpoint import Ended
from actors.allocation.ledger import LedgerActor, ledger_of
from actors.allocation.messages import NodeSandbox
from actors.allocation.observer import AllocationObserver
from actors.allocation.router import Allocator, AllocatorRouter, ask
from actors.allocation.sandbox_evidence import SandboxEvidence, SandboxState
from actors.errors import OrbweaverError
from actors.reclaim.release import Reclaim, tell_of
from actors.reclaim.stale_sandboxes import is_on_its_way_out
from actors.resources.pod import Pod
from actors.runtime import Actor, ActorContext, Cancellable, ObjectRef, message

log = logging.getLogger("orbweaver.gc")

LOOK = 0.25
"""Seconds between two looks at what is watched."""
SWEEP = 10.0
"""Seconds between two looks at everything: what no change of a pod told is found then."""
ANNOUNCE = 20.0
"""Seconds between two messages to the leader. 5,000 agents send it 250 in a second, and it believes each for minutes."""
SEED_AGAIN = 600.0
"""Seconds after which it is asked again what is recorded for the node, though no leader has told of anything."""
RETRY_FIRST, RETRY_MOST = 1.0, 30.0
"""Seconds until a release or a look at the Ledger that failed is tried again."""
ASK_TIMEOUT = 20.0
UNSEEN_FOR = 5.0
"""Seconds for which a sandbox must have been unseen before the leader is told so. The runtime takes its note away when the DEL
is answered, also with that of a DEL that was kept for this agent, which may still be at it; the namespace goes after it."""
UNSEEN_LOOK = 5.0
"""Seconds, at most, between two looks at one that stays unseen; a quarter of the time for which it has been."""
UNSEEN_MOST = 512
"""Sandboxes that one message names."""

REASON, TEXT = "SandboxEnded", "its sandbox has ended on the node and no DEL came for it"


class FollowedSandboxes(SandboxEvidence, Protocol):
    """The node's sandboxes that may hold an address."""

    @property
    def sees(self) -> bool:
        """Whether sandboxes can be seen here at all."""

    def known(self) -> tuple[NodeSandbox, ...]:
        """All of them."""

    def of_pod(self, pod: str) -> tuple[NodeSandbox, ...]:
        """Those of a pod `namespace/name`."""

    def remember(self, sandboxes: Iterable[NodeSandbox]) -> None:
        """These hold addresses too."""

    def forget(self, container: str) -> None:
        """Nothing is held by it any more."""


@dataclass(slots=True)
class Watched:
    """One sandbox of this node that may hold addresses."""

    sandbox: NodeSandbox
    """Which one, and whose."""
    not_before: float = 0.0
    """Monotonic seconds of the next try after one that failed."""
    pause: float = RETRY_FIRST
    """The next pause, in seconds; doubled with each failure."""
    releasing: bool = False
    """Its Endpoint is at it."""
    ended: int = 0
    """At how many looks in a row it had ended."""
    unseen_since: float = float("inf")
    """Monotonic seconds of the first of the looks in a row that could not tell whether it runs."""
    look_again: float = 0.0
    """Monotonic seconds before which nobody looks at it."""

    def saw(self, state: SandboxState, now: float) -> None:
        """Note what was seen at a moment in monotonic seconds. What stays unseen is looked at less and less often: for each
        such look all of the runtime's notes are listed, and many may be unseen."""
        self.ended = self.ended + 1 if state is SandboxState.ENDED else 0
        if state is SandboxState.UNSEEN:
            self.unseen_since = min(now, self.unseen_since)
            self.look_again = now + min(UNSEEN_LOOK, (now - self.unseen_since) / 4)
        else:
            self.unseen_since = float("inf")

    def is_unseen(self, now: float) -> bool:
        """Whether that was so for long enough to be told, at a moment in monotonic seconds."""
        return now - self.unseen_since >= UNSEEN_FOR


@dataclass(slots=True)
class SandboxWatchState:
    """What is watched, and what the leader was told of it."""

    watched: dict[str, Watched] = field(default_factory=dict)
    """By container."""
    unseen: frozenset[str] = frozenset()
    """Containers of which the leader was told that nobody here sees whether they run."""
    looking: bool = False
    """Whether the next look is ordered."""
    seeded: float = float("-inf")
    """Monotonic seconds when it was last asked what is recorded for this node."""
    foreign_seen: int | None = None
    """The number of the last answer to an announcement when that was asked."""
    foreign_told: int | None = None
    """That of the last answer by now: with another one somebody else recorded something for this node since."""
    announcement: Cancellable | None = None
    """The timer of the next word to the leader."""
    started: bool = False
    """Whether `start` has been called."""


class SandboxWatchActor(Actor):
    """One per agent, named `sandbox-watch/local`."""

    def __init__(
        self,
        context: ActorContext,
        *,
        router: AllocatorRouter,
        sandboxes: FollowedSandboxes,
        pod: Callable[[str], Pod | None] | None,
        node: str,
        observer: AllocationObserver,
        announce: Callable[[bool, tuple[NodeSandbox, ...]], None] = lambda sees, unseen: None,
    ) -> None:
        """`pod`: the pod of this node that has a name `namespace/name` now; None on a host without pods. `announce`: tells
        the leader whether this node is watched, and which of its sandboxes whose pods are on their way out are unseen."""
        super().__init__(context)
        self._router = router
        self._sandboxes = sandboxes
        self._pod = pod
        self._node = node
        self._observer = observer
        self._announce = announce
        self._state = SandboxWatchState()

    def on_activate(self) -> None:
        self.post(self._begin)

    @message
    def start(self) -> None:
        """Begin to watch, as it does by itself after a crash."""
        self._begin()

    def _begin(self) -> None:
        """What is recorded for the node is asked first, since this process may be younger than it."""
        if not self._state.started:
            self._state.started = True
            self._sweep()
            self._announce_now()

    @message
    def pod_changed(self, pod: str) -> None:
        """A pod `namespace/name` changed, or went."""
        if self._state.started and self._pod is not None:
            self._examine(self._sandboxes.of_pod(pod))

    @message
    def linked(self) -> None:
        """There is a leader, perhaps another one, who does not know yet that this node is watched."""
        if self._state.started:
            self._announce_now()

    @message
    def heard(self, foreign_version: int) -> None:
        """The leader answered: see `NodeWatchesActor.watching`. The next sweep asks what is recorded; all agents would at once
        when their leader changes."""
        self._state.foreign_told = foreign_version

    def _sweep(self) -> None:
        self._seed()
        self._examine(self._sandboxes.known())
        self.after(SWEEP * (0.75 + random.random() / 2), self._sweep)

    def _seed(self) -> None:
        state, now, version = self._state, time.monotonic(), self._state.foreign_told
        if now - state.seeded < SEED_AGAIN and version == state.foreign_seen:
            return

        def task(allocator: Allocator) -> tuple[NodeSandbox, ...]:
            ledger = ledger_of(allocator).within(ASK_TIMEOUT)
            (sandboxes,) = ask(allocator, ledger.ask(LedgerActor.sandboxes_of, self._node))
            return sandboxes

        try:
            self._sandboxes.remember(self._router.work(task))
            state.seeded, state.foreign_seen = now, version
        except OrbweaverError as error:
            log.warning("this node's sandboxes are not known yet, asking again", extra={"error": str(error)})

    # -- what is watched ------------------------------------------------------------------------------------

    def _examine(self, sandboxes: Iterable[NodeSandbox]) -> None:
        """Watch those of them that nothing comes back for, and no longer those whose pod lives after all."""
        watched = self._state.watched
        for sandbox in sandboxes:
            if self._pod is None or is_on_its_way_out(self._pod(sandbox.pod), sandbox.uid):
                watched.setdefault(sandbox.container, Watched(sandbox))
            else:
                watched.pop(sandbox.container, None)
        if not self._state.looking:
            self._look()

    def _look(self) -> None:
        state = self._state
        state.looking = False
        # A look comes with every change of a pod, and mostly there is nothing to look at.
        known = {sandbox.container for sandbox in self._sandboxes.known()} if state.watched else set()
        unseen, now = [], time.monotonic()
        for container, watched in list(state.watched.items()):
            if container not in known:
                del state.watched[container]  # its DEL came
                continue
            if now >= watched.look_again:
                watched.saw(self._sandboxes.state(container), now)
            if watched.is_unseen(now):
                unseen.append(watched.sandbox)
            elif watched.ended >= (1 if self._pod is not None else 2):
                self._release(watched)
        if self._pod is not None and frozenset(sandbox.container for sandbox in unseen) - state.unseen:
            self._tell(unseen)
        else:
            state.unseen &= frozenset(sandbox.container for sandbox in unseen)
        # Without pods everything is watched, and a look now and then is enough.
        if state.watched and (
            self._pod is not None or any(watched.ended for watched in state.watched.values())
        ):
            state.looking = True
            self.after(LOOK if self._pod is not None else SWEEP / 4, self._look)

    # -- what has ended -------------------------------------------------------------------------------------

    def _release(self, watched: Watched) -> None:
        if watched.releasing or time.monotonic() < watched.not_before:
            return
        watched.releasing = True
        endpoint = self.get_actor(f"endpoint/{watched.sandbox.pod}")
        ref = endpoint.ended.options(timeout=ASK_TIMEOUT).remote(watched.sandbox.container)
        self.then(ref, self._released, watched)

    def _released(self, ref: ObjectRef[Ended], watched: Watched) -> None:
        watched.releasing = False
        container = watched.sandbox.container
        try:
            ended = ref.result()
        except OrbweaverError as error:
            watched.not_before = time.monotonic() + watched.pause
            watched.pause = min(RETRY_MOST, 2 * watched.pause)
            log.warning(
                "what an ended sandbox held could not be released yet, will try again",
                extra={"container": container, "pod": watched.sandbox.pod, "error": str(error)},
            )
            return
        if not ended.really:
            return  # an ADD told of it again
        self._state.watched.pop(container, None)
        self._sandboxes.forget(container)
        uid = ""
        if self._pod is not None and (pod := self._pod(watched.sandbox.pod)) is not None:
            uid = pod.uid
        done = [Reclaim(held, REASON, TEXT, keep, uid=uid) for held, keep in ended.done]
        tell_of(self, done, self._observer, events=self._pod is not None)

    # -- what the leader is told ----------------------------------------------------------------------------

    def _announce_now(self) -> None:
        state = self._state
        if state.announcement is not None:
            state.announcement.cancel()
        now = time.monotonic()
        self._tell([watched.sandbox for watched in state.watched.values() if watched.is_unseen(now)])
        state.announcement = self.after(ANNOUNCE * (0.75 + random.random() / 2), self._announce_now)

    def _tell(self, unseen: list[NodeSandbox]) -> None:
        self._state.unseen = frozenset(sandbox.container for sandbox in unseen)
        few = len(unseen) <= UNSEEN_MOST
        self._announce(self._sandboxes.sees and few, tuple(unseen) if few else ())
