"""The Events actor: tells with a Kubernetes Event why a pod got no address, and why an address was taken back.

How it works. There is one Event for an object and a reason. The first news of a kind is written at once; what comes within
the next minute is counted, and written at its end, with the text of the newest. What must always hold: an Event is news, not
state. One that cannot be written is logged and forgotten; one object and reason cost one write a minute, however often they
repeat; what is remembered for that is bounded.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from actors.decisions.brief import without_middle
from actors.errors import Conflict, NotFound, OrbweaverError
from actors.resources.json_text import showable
from actors.runtime import Actor, ActorContext, Cancellable, message
from actors.store.contract import Store
from actors.store.kinds import SPIDERPOOL

log = logging.getLogger("orbweaver.events")

PAUSE = 60.0
"""Seconds between two writes about one object and reason."""
REMEMBERED = 1024
"""Objects and reasons of which it is known when they were written. When there are more in a minute, the one that is known for
the longest time is forgotten, with what it had still to count."""


@dataclass(frozen=True, slots=True)
class _News:
    """What an Event tells, and about which object."""

    involved: dict[str, str]
    """The object's reference, without its UID where nobody said it."""
    reason: str
    """In one word."""
    text: str
    """In a sentence."""
    type: str
    """`Normal` or `Warning`."""
    about: str = ""
    """The pod, where the object is another one."""

    @property
    def key(self) -> str:
        named = (f"{name}={value}" for name, value in self.involved.items())
        return " ".join((*named, self.reason, self.about))


@dataclass(slots=True)
class _Series:
    """What was told of one object and reason: the newest of it, how often since the last write, and what wakes up for the
    next one. `uid`: the object's, once it was looked up."""

    newest: _News
    timer: Cancellable
    uid: str
    pending: int = 0


def _severity(wrong: bool) -> str:
    return "Warning" if wrong else "Normal"


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
        pause: float = PAUSE,
    ) -> None:
        super().__init__(context)
        self._pause = pause
        self._series: dict[str, _Series] = {}
        self._store = store
        self._component = component
        self._host = host
        self._clock = clock

    @message
    def refused(self, namespace: str, pod: str, uid: str, reason: str, text: str) -> None:
        """Tell that the pod got no address; `reason` is one word, `text` names every pool considered."""
        involved = {"apiVersion": "v1", "kind": "Pod", "namespace": namespace, "name": pod}
        self._tell(_News(involved | ({"uid": uid} if uid else {}), reason, text, "Warning"))

    @message
    def reclaimed(self, pod: str, uid: str, pool: str, reason: str, text: str) -> None:
        """Tell that addresses were taken back: the pod `namespace/name` if it is still there (`uid`), else the pool."""
        namespace, _, name = pod.partition("/")
        involved = {"apiVersion": "v1", "kind": "Pod", "namespace": namespace, "name": name, "uid": uid}
        if not uid:
            involved = {"apiVersion": SPIDERPOOL, "kind": "SpiderIPPool", "name": pool}
        self._tell(_News(involved, reason, text, "Normal", pod))

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
    def unfit(self, pool: str, uid: str, text: str) -> None:
        """Tell that a pool cannot become one of its subnet's."""
        involved = {"apiVersion": SPIDERPOOL, "kind": "SpiderIPPool", "name": pool, "uid": uid}
        self._tell(_News(involved, "PoolUnfitForSubnet", text, "Warning"))

    @message
    def network(self, key: str, uid: str, reason: str, text: str, wrong: bool) -> None:
        """Tell what became of a SpiderMultusConfig `namespace/name`; `wrong`: somebody has to do something."""
        namespace, _, name = key.partition("/")
        involved = {
            "apiVersion": SPIDERPOOL,
            "kind": "SpiderMultusConfig",
            "namespace": namespace,
            "name": name,
            "uid": uid,
        }
        self._tell(_News(involved, reason, text, _severity(wrong)))

    @message
    def cidrs(self, name: str, uid: str, reason: str, text: str, wrong: bool) -> None:
        """Tell what was learnt, or not, for a SpiderCoordinator."""
        involved = {"apiVersion": SPIDERPOOL, "kind": "SpiderCoordinator", "name": name, "uid": uid}
        self._tell(_News(involved, reason, text, _severity(wrong)))

    @message
    def exhausted(self, involved: dict[str, str], text: str) -> None:
        """Tell that a subnet had too few addresses for a pool. `involved`: the subnet, or the application that got none, by
        `kind`, `name`, `apiVersion` unless it is ours, and `namespace` and `uid` where there are."""
        involved = {"apiVersion": SPIDERPOOL, **{key: value for key, value in involved.items() if value}}
        self._tell(_News(involved, "SubnetExhausted", text, "Warning"))

    @message
    def of_application(self, involved: dict[str, str], reason: str, text: str) -> None:
        """Tell what hinders the pool of an application, which `involved` names with its API version, kind, namespace,
        name and UID."""
        self._tell(_News(involved, reason, text, _severity(True)))

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

    def _tell(self, news: _News) -> None:
        series = self._series.get(news.key)
        if series is not None:
            series.newest, series.pending = news, series.pending + 1
            return
        if len(self._series) >= REMEMBERED:
            oldest = self._series.pop(next(iter(self._series)))
            oldest.timer.cancel()
            log.debug("an Event's count is given up", extra={"object": oldest.newest.involved["name"]})
        timer = self.after(self._pause, self._count, news.key)
        self._series[news.key] = series = _Series(news, timer, self._uid_of(news.involved))
        self._post(series, 1)

    def _count(self, key: str) -> None:
        """A minute is over since the last write."""
        series = self._series.pop(key, None)
        if series is None or not series.pending:
            return
        count, series.pending = series.pending, 0
        series.timer = self.after(self._pause, self._count, key)
        self._series[key] = series
        self._post(series, count)

    def _uid_of(self, involved: Mapping[str, str]) -> str:
        """The UID by which kubectl describe finds an object's Events: what is known, else what the store has."""
        if "uid" in involved or involved["kind"] not in ("Pod", "SpiderIPPool"):
            return involved.get("uid", "")
        name, namespace = involved["name"], involved.get("namespace", "")
        try:
            return str(self._store.get(involved["kind"], name, namespace)["metadata"]["uid"])
        except OrbweaverError as error:
            log.debug("an Event names its object without UID", extra={"object": name, "error": str(error)})
            return ""

    def _post(self, series: _Series, count: int) -> None:
        news = series.newest
        message = without_middle(showable(without_middle(news.text)))  # it names what pods and networks say
        involved = news.involved | ({"uid": series.uid} if series.uid else {})
        subject = involved["name"]
        # One name for all of a kind: whoever starts anew counts on where the process before stopped.
        kind = f"{news.key} {series.uid} {self._component} {self._host}"
        name = f"{subject[:200]}.{hashlib.sha256(kind.encode(errors='replace')).hexdigest()[:16]}"
        # Those of objects without a namespace live in this one (k8s.io/client-go, tools/record).
        namespace = involved.get("namespace", "default")
        now = datetime.fromtimestamp(self._clock(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": involved,
            "reason": news.reason,
            "message": message,
            "type": news.type,
            "count": count,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "source": {"component": self._component, "host": self._host},
            "reportingComponent": self._component,
            "reportingInstance": self._host,
        }
        try:
            self._write(event)
        except OrbweaverError as error:
            log.warning(
                "an Event could not be written",
                extra={"object": subject, "text": message, "error": str(error)},
            )

    def _write(self, event: dict[str, Any]) -> None:
        name, namespace = event["metadata"]["name"], event["metadata"]["namespace"]
        try:
            self._store.create(event)
        except Conflict:
            try:
                there = self._store.get("Event", name, namespace)
                count = int(there.get("count") or 0) + event["count"]
                news = {key: event[key] for key in ("message", "type", "lastTimestamp")}
                self._store.update({**there, **news, "count": count})
            except (Conflict, NotFound):
                log.debug("an Event was counted by somebody else", extra={"counted": name})
