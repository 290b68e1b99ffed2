"""The Events actor: tells a pod's owner, with a Kubernetes Event, why the pod got no address.

What must always hold: an Event is news, not state. One that cannot be written is logged and forgotten, and one that
repeats counts up instead of filling the namespace.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from actors.errors import Conflict, NotFound, OrbweaverError
from actors.runtime import Actor, ActorContext, message
from actors.store.contract import Store

log = logging.getLogger("orbweaver.events")

LONGEST = 1024
"""Characters of a message, which the API server bounds (k8s.io/api/core/v1, Event)."""

_CUT = " … (all of it: orbweaver explain)"


class EventsActor(Actor):
    """One per agent in a cluster, named `events/local`."""

    def __init__(
        self, context: ActorContext, *, store: Store, node: str, clock: Callable[[], float] = time.time
    ) -> None:
        super().__init__(context)
        self._store = store
        self._node = node
        self._clock = clock

    @message
    def refused(self, namespace: str, pod: str, uid: str, reason: str, text: str) -> None:
        """Tell that the pod got no address; `reason` is one word, `text` names every pool considered."""
        told = text if len(text) <= LONGEST else text[: LONGEST - len(_CUT)] + _CUT
        digest = hashlib.sha256(f"{uid} {reason} {told}".encode()).hexdigest()[:16]
        name = f"{pod[:200]}.{digest}"
        now = datetime.fromtimestamp(self._clock(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        try:
            self._tell(name, namespace, pod, uid, reason, told, now)
        except OrbweaverError as error:
            log.warning(
                "an Event could not be written", extra={"pod": f"{namespace}/{pod}", "error": str(error)}
            )

    def _tell(self, name: str, namespace: str, pod: str, uid: str, reason: str, text: str, now: str) -> None:
        involved: dict[str, Any] = {"apiVersion": "v1", "kind": "Pod", "namespace": namespace, "name": pod}
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": {**involved, **({"uid": uid} if uid else {})},
            "reason": reason,
            "message": text,
            "type": "Warning",
            "count": 1,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "source": {"component": "orbweaver-agent", "host": self._node},
            "reportingComponent": "orbweaver-agent",
            "reportingInstance": self._node,
        }
        try:
            self._store.create(event)
        except Conflict:
            try:
                found = self._store.get("Event", name, namespace)
                self._store.update({**found, "count": int(found.get("count", 1)) + 1, "lastTimestamp": now})
            except (Conflict, NotFound):
                log.debug("an Event was counted by somebody else", extra={"pod": f"{namespace}/{pod}"})
