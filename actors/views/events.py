"""The Events actor: tells with a Kubernetes Event why a pod got no address, and why an address was taken back.

What must always hold: an Event is news, not state. One that cannot be written is logged and forgotten, and one that
repeats counts up instead of filling the namespace.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from actors.errors import Conflict, NotFound, OrbweaverError
from actors.resources.json_text import showable
from actors.runtime import Actor, ActorContext, message
from actors.store.contract import Store
from actors.store.kinds import SPIDERPOOL

log = logging.getLogger("orbweaver.events")

LONGEST = 1024
"""Characters of a message, which the API server bounds (k8s.io/api/core/v1, Event)."""

_CUT = " … (all of it: orbweaver explain)"


@dataclass(frozen=True, slots=True)
class _News:
    """What an Event tells, and about which object."""

    involved: dict[str, str]
    reason: str
    text: str
    type: str


class EventsActor(Actor):
    """One per process in a cluster, named `events/local`. `component` and `host`: who tells it."""

    def __init__(
        self,
        context: ActorContext,
        *,
        store: Store,
        component: str,
        host: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(context)
        self._store = store
        self._component = component
        self._host = host
        self._clock = clock

    @message
    def refused(self, namespace: str, pod: str, uid: str, reason: str, text: str) -> None:
        """Tell that the pod got no address; `reason` is one word, `text` names every pool considered."""
        involved = {"apiVersion": "v1", "kind": "Pod", "namespace": namespace, "name": pod}
        self._tell(_News(involved | self._uid("Pod", pod, namespace, uid), reason, text, "Warning"))

    @message
    def reclaimed(self, pod: str, uid: str, pool: str, reason: str, text: str) -> None:
        """Tell that addresses were taken back: the pod `namespace/name` if it is still there (`uid`), else the pool."""
        namespace, _, name = pod.partition("/")
        involved = {"apiVersion": "v1", "kind": "Pod", "namespace": namespace, "name": name, "uid": uid}
        if not uid:
            involved = {"apiVersion": SPIDERPOOL, "kind": "SpiderIPPool", "name": pool}
            involved |= self._uid("SpiderIPPool", pool)
        self._tell(_News(involved, reason, text, "Normal"))

    @message
    def overlapping(self, pool: str, uid: str, text: str) -> None:
        """Tell that a pool has addresses in common with others."""
        involved = {"apiVersion": SPIDERPOOL, "kind": "SpiderIPPool", "name": pool, "uid": uid}
        self._tell(_News(involved, "PoolsOverlap", text, "Warning"))

    @message
    def withheld(self, pool: str, uid: str, text: str) -> None:
        """Tell that a pool lists addresses that no pod may have."""
        involved = {"apiVersion": SPIDERPOOL, "kind": "SpiderIPPool", "name": pool, "uid": uid}
        self._tell(_News(involved, "AddressesWithheld", text, "Warning"))

    @message
    def elected(self, namespace: str, lease: str, identity: str) -> None:
        """Tell who leads by a Lease now, as Kubernetes' own controllers do."""
        involved = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "namespace": namespace,
            "name": lease,
        }
        self._tell(_News(involved, "LeaderElection", f"{identity} became leader", "Normal"))

    def _uid(self, kind: str, name: str, namespace: str = "", known: str = "") -> dict[str, str]:
        """The UID by which kubectl describe finds an object's Events: what is `known`, else what the store has."""
        if known:
            return {"uid": known}
        try:
            return {"uid": self._store.get(kind, name, namespace)["metadata"]["uid"]}
        except OrbweaverError as error:
            log.debug("an Event names its object without UID", extra={"object": name, "error": str(error)})
            return {}

    def _tell(self, news: _News) -> None:
        text = showable(
            news.text[: 2 * LONGEST]
        )  # it names what pods and networks say, which may have no encoding
        told = text if len(text) <= LONGEST else text[: LONGEST - len(_CUT)] + _CUT
        subject = news.involved["name"]
        digest = hashlib.sha256(f"{news.involved.get('uid', '')} {news.reason} {told}".encode()).hexdigest()[
            :16
        ]
        name = f"{subject[:200]}.{digest}"
        # Those of objects without a namespace live in this one (k8s.io/client-go, tools/record).
        namespace = news.involved.get("namespace", "default")
        now = datetime.fromtimestamp(self._clock(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": news.involved,
            "reason": news.reason,
            "message": told,
            "type": news.type,
            "count": 1,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "source": {"component": self._component, "host": self._host},
            "reportingComponent": self._component,
            "reportingInstance": self._host,
        }
        try:
            self._write(event, name, namespace, now)
        except OrbweaverError as error:
            log.warning(
                "an Event could not be written", extra={"object": subject, "text": told, "error": str(error)}
            )

    def _write(self, event: dict[str, Any], name: str, namespace: str, now: str) -> None:
        try:
            self._store.create(event)
        except Conflict:
            try:
                found = self._store.get("Event", name, namespace)
                self._store.update({**found, "count": int(found.get("count", 1)) + 1, "lastTimestamp": now})
            except (Conflict, NotFound):
                log.debug("an Event was counted by somebody else", extra={"counted": name})
