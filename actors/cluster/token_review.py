"""Finds out whose token a peer shows: the API server is asked, once for each token while that is fresh.

What must always hold: a peer is known only by what the API server says of its token: the agents' own service account, our
audience, and the node of the pod that the token is bound to, so it dies with that pod. Strangers cannot make the API server
work: what does not even claim to be such a token is refused here, as much is under way at a time as there are threads, what
waits is bounded, in number and in time, and whoever showed a false token waits behind all others from then on. Only who
shows a token that was an agent's before does not: strangers may come from an agent's own address.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from actors.errors import OrbweaverError, Overloaded, PeerRefused
from actors.runtime import ObjectRef, PeerIdentity
from actors.store.contract import Object, Store

log = logging.getLogger("orbweaver.peers")

NODE = "authentication.kubernetes.io/node-name"
"""What the API server adds to the user of a token that is bound to a pod (Kubernetes 1.30 and later)."""

WORKERS = 8
WAITING = 8192
"""All agents of a large cluster at once."""
FRESH = 60.0
"""Seconds for which an answer is remembered: an agent that could not be served at once comes again."""
REFUSED = 2.0
"""Seconds for which a refusal is remembered: the API server looks for the token's pod in a cache, which may not have seen yet
that there is a new one."""
REMEMBERED = 8192
SUSPECT = 60.0
"""Seconds for which whoever showed a false token waits behind all others."""
SUSPECT_PAUSE = 0.05
"""Seconds between two questions for those."""
PATIENCE = 15.0
"""Seconds after which nobody waits at the door any more for what becomes of a token."""
TIMEOUT = 5.0


def claims_fit(token: str, account: str, audience: str, now: float) -> bool:
    """Whether a token says of itself that it is one of `account` for `audience`. Anybody can write that; it only keeps
    what is none away from the API server."""
    parts = token.split(".")
    if len(parts) != 3 or not all(parts):
        return False
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, RecursionError):
        return False
    if not isinstance(claims, dict):
        return False
    audiences, expires = claims.get("aud"), claims.get("exp")
    named = audience in audiences if isinstance(audiences, list) else audience == audiences
    return claims.get("sub") == account and named and isinstance(expires, int | float) and expires > now - 300


def identity_of(review: Object, account: str, audience: str) -> PeerIdentity:
    """The peer that a TokenReview's answer names. Raises `PeerRefused` with what is missing, and the remedy."""
    status: Mapping[str, Any] = review.get("status") or {}
    if not status.get("authenticated"):
        why = str(status.get("error") or "it is not valid any more, or was never")
        raise PeerRefused(f"the API server does not know the token: {why[:300]}")
    if audience not in (status.get("audiences") or ()):
        raise PeerRefused(
            f"the token is not for {audience}; mount a projected service account token of that audience"
        )
    user = status.get("user") or {}
    if user.get("username") != account:
        raise PeerRefused(f"the token is {user.get('username')}'s, and agents are {account}")
    nodes: list[str] = (user.get("extra") or {}).get(NODE) or []
    if len(nodes) != 1 or not nodes[0]:
        raise PeerRefused(
            "the token is bound to no pod on a node, so it does not say where the agent runs; use the projected token of "
            "the DaemonSet's pod, on Kubernetes 1.30 or later"
        )
    return PeerIdentity(account.rpartition(":")[2], str(nodes[0]))


class _QueuedToken(NamedTuple):
    """A token that is to be asked about. `since`: monotonic seconds."""

    digest: bytes
    token: str
    source: str
    since: float


class TokenReviewer:
    """One per controller. `identify` never blocks and may be called from any thread."""

    def __init__(
        self,
        store: Store,
        account: str,
        audience: str,
        *,
        workers: int = WORKERS,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`account`: as the API server writes it, `system:serviceaccount:NAMESPACE:NAME`."""
        self._store = store
        self._account, self._audience = account, audience
        self._clock, self._wall = clock, wall
        self._state = threading.Condition()
        """Guards what follows."""
        self._known: OrderedDict[bytes, tuple[PeerIdentity | OrbweaverError, float]] = OrderedDict()
        self._asked: dict[bytes, list[ObjectRef[PeerIdentity]]] = {}
        self._waiting: deque[_QueuedToken] = deque()
        self._behind: deque[_QueuedToken] = deque()
        self._accepted: OrderedDict[bytes, None] = OrderedDict()
        """Tokens that were an agent's when they were asked about last."""
        self._suspects: OrderedDict[str, float] = OrderedDict()
        self._stopping = False
        self.reviews = 0
        """How many questions the API server was asked."""
        self._threads = [
            threading.Thread(target=self._work, args=(queue,), name="token-review", daemon=True)
            for queue in (*(self._waiting for _ in range(workers)), self._behind)
        ]

    def start(self) -> None:
        """Begin to ask."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Ask nothing more; whoever waits is told so."""
        with self._state:
            self._stopping = True
            waiting = [ref for refs in self._asked.values() for ref in refs]
            self._asked.clear()
            self._waiting.clear()
            self._behind.clear()
            self._state.notify_all()
        for ref in waiting:
            ref.fail(Overloaded("this controller is ending"))
        for thread in self._threads:
            if thread.is_alive():
                thread.join()

    def identify(self, token: str, source: str) -> ObjectRef[PeerIdentity]:
        """Whose token it is; fails with `PeerRefused`, or with why that could not be found out."""
        ref: ObjectRef[PeerIdentity] = ObjectRef()
        if not claims_fit(token, self._account, self._audience, self._wall()):
            ref.fail(
                PeerRefused(
                    f"what was shown is no token of {self._account} for {self._audience} that still holds"
                )
            )
            return ref
        digest = hashlib.sha256(token.encode()).digest()
        answer: PeerIdentity | OrbweaverError | None = None
        with self._state:
            now = self._clock()
            known = self._known.get(digest)
            if known is not None and known[1] > now:
                answer = known[0]
            elif digest in self._asked:
                self._asked[digest].append(ref)
            elif self._stopping:
                answer = Overloaded("this controller is ending")
            else:
                suspect = self._suspects.get(source, 0.0) > now and digest not in self._accepted
                queue = self._behind if suspect else self._waiting
                if len(queue) >= WAITING:
                    answer = Overloaded(f"{len(queue)} tokens wait to be reviewed; come again")
                else:
                    self._asked[digest] = [ref]
                    queue.append(_QueuedToken(digest, token, source, now))
                    self._state.notify_all()
        if isinstance(answer, PeerIdentity):
            ref.complete(answer)
        elif answer is not None:
            ref.fail(answer)
        return ref

    def _work(self, queue: deque[_QueuedToken]) -> None:
        while True:
            with self._state:
                self._state.wait_for(lambda: self._stopping or bool(queue))
                if self._stopping:
                    return
                digest, token, source, since = queue.popleft()
                late = self._clock() > since + PATIENCE
                self.reviews += not late
            if late:
                self._answered(digest, source, Overloaded("too many tokens wait to be reviewed; come again"))
                continue
            try:
                answer: PeerIdentity | OrbweaverError = self._review(token)
            except OrbweaverError as error:
                answer = error
            self._answered(digest, source, answer)
            if queue is self._behind:
                with self._state:
                    self._state.wait_for(lambda: self._stopping, SUSPECT_PAUSE)

    def _review(self, token: str) -> PeerIdentity:
        review = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "metadata": {"name": "agent"},
            "spec": {"token": token, "audiences": [self._audience]},
        }
        return identity_of(self._store.create(review, timeout=TIMEOUT), self._account, self._audience)

    def _answered(self, digest: bytes, source: str, answer: PeerIdentity | OrbweaverError) -> None:
        with self._state:
            now = self._clock()
            if isinstance(answer, PeerIdentity | PeerRefused):
                self._known[digest] = (answer, now + (FRESH if isinstance(answer, PeerIdentity) else REFUSED))
                self._known.move_to_end(digest)
                if len(self._known) > REMEMBERED:
                    self._known.popitem(last=False)
            if isinstance(answer, PeerIdentity):
                self._accepted[digest] = None
                self._accepted.move_to_end(digest)
                if len(self._accepted) > REMEMBERED:
                    self._accepted.popitem(last=False)
            if isinstance(answer, PeerRefused):
                self._accepted.pop(digest, None)
                self._suspects[source] = now + SUSPECT
                self._suspects.move_to_end(source)
                if len(self._suspects) > REMEMBERED:
                    self._suspects.popitem(last=False)
            refs = self._asked.pop(digest, [])
        for ref in refs:
            if isinstance(answer, PeerIdentity):
                ref.complete(answer)
            else:
                ref.fail(answer)
