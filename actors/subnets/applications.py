"""Whose pods these are, and how many there should be: controllers as the API server knows them, cached and read anew.

How it works. Kubernetes' own controllers are listed and watched; of those whose pods ask for nothing, nothing is kept. Others'
kinds are found when a pod of theirs asks first: by API discovery, and by their `scale`, which says how many pods they want.
Those that have one are watched like the rest from then on, if this process may; the others are read for each pod, since
whoever makes a pod names any kind there is as its owner's.

What must always hold: what a pod or an object says of its owner is believed only where that owner is there and has this UID
(without Kubernetes nobody but the operator writes such objects, and names are believed); the top controller is the object
whose number of pods somebody sets: a Deployment and not its ReplicaSet, a CronJob and not its Job, another kind's object that
has a `scale`, and not what it makes in between. A cache that does not know an object never says that it is gone.
"""

from __future__ import annotations

import contextlib
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from actors.errors import (
    InvalidObject,
    NoSuchResource,
    NotAllowed,
    NotFound,
    OrbweaverError,
    StoreUnavailable,
)
from actors.resources.application import Application
from actors.resources.metadata import Owner
from actors.resources.workload import CRONJOB, DEPLOYMENT, GROUPS, JOB, REPLICASET, Workload
from actors.store.caches.informer import Informer, ObjectKey
from actors.store.contract import Object, Store
from actors.store.kinds import Kind, learn

log = logging.getLogger("orbweaver.subnets")

Identity = tuple[str, str, str, str]
"""Group, kind, namespace and name of an application."""

FRESH = 10.0
"""Seconds for which what was read of an object that is not watched is remembered."""
ABSENT = 60.0
"""Seconds after which a kind that the API server did not have, or that could not be watched, is looked for again."""
MOST_KINDS = 32
"""Kinds of others that are watched."""
_REMEMBERED = 4096
_NO_REPLICAS = re.compile(r"the spec replicas field .+ does not exist")
"""What the API server says of a `scale` without a number (apiextensions-apiserver, registry/customresource/etcd.go)."""
_DEEPEST = 8
"""Owners above one another that are looked at."""


@dataclass(frozen=True, slots=True)
class _Read:
    """What was read of an object of another kind, with its `scale`, and until when that counts where nobody watches it."""

    workload: Workload
    until: float


class Applications:
    """One per process that makes pools for applications. `changed` is told, on any thread, of each application that may have
    changed or gone; it must not block."""

    def __init__(self, store: Store, changed: Callable[[Identity], object], *, proven: bool) -> None:
        self._store = store
        self._changed = changed
        self._proven = proven
        self._informers = {kind: Informer(store, kind, transform=_asking) for kind in GROUPS}
        for kind, group in GROUPS.items():
            self._informers[kind].subscribe(partial(self._tell, group, kind))
        self._lock = threading.Lock()
        self._kinds: dict[tuple[str, str], tuple[Kind | None, float]] = {}
        """Others' kinds by API version and name, None for what can have no pods of its own; and until when that counts."""
        self._unwatched: dict[str, float] = {}
        """Kinds that this process may not watch, and until when that is believed."""
        self._read: dict[Identity, _Read] = {}

    def start(self) -> None:
        """Begin to list and watch; `wait_listed` says when they have listed."""
        for informer in tuple(self._informers.values()):
            informer.start()

    def stop(self) -> None:
        """Watch no more."""
        for informer in tuple(self._informers.values()):
            informer.stop(0)

    def wait_listed(self, timeout: float) -> bool:
        """Whether Kubernetes' own controllers are known within so many seconds."""
        until = time.monotonic() + timeout
        return all(self._informers[kind].wait_synced(max(0.0, until - time.monotonic())) for kind in GROUPS)

    def asking(self) -> Iterator[Identity]:
        """The applications that are known to ask for pools."""
        for informer in tuple(self._informers.values()):
            for workload in informer.items():
                if workload.asks and self.is_top(workload):
                    yield workload.application.identity

    def is_top(self, workload: Workload) -> bool:
        """Whether nobody else sets how many pods it has, as far as that is seen without asking."""
        return not (workload.application.kind in (REPLICASET, JOB) and _goes_on(workload))

    def is_watched(self, identity: Identity) -> bool:
        """Whether its changes are told."""
        return _key(identity[0], identity[1]) in self._informers

    def unread(self, identity: Identity) -> Application | None:
        """An application of another kind that is seen to ask for pools; how many pods it wants has to be read."""
        group, kind, namespace, name = identity
        informer = self._informers.get(_key(group, kind))
        workload: Workload | None = informer.get(name, namespace) if informer is not None else None
        return workload.application if workload is not None and workload.asks else None

    def cached(self, identity: Identity) -> Workload | None:
        """An application as it was last seen, without asking anybody; None where that is not known, or too long ago."""
        group, kind, namespace, name = identity
        informer = self._informers.get(_key(group, kind))
        watched: Workload | None = informer.get(name, namespace) if informer is not None else None
        if GROUPS.get(kind) == group:
            return watched
        read = self._read.get(identity)
        if read is None:
            return None
        if informer is None or not informer.wait_synced(0):
            return read.workload if time.monotonic() < read.until else None
        if watched is None:  # it is gone, or so new that it has to be read anyway
            return None
        same = (watched.application.uid, watched.generation)
        return read.workload if same == (read.workload.application.uid, read.workload.generation) else None

    def cached_top(self, namespace: str, owner: Owner) -> Workload | None:
        """The top controller of a pod with this owner; None where it has to be read. Does not block."""
        workload = self._of_cache(namespace, owner)
        for _ in range(_DEEPEST):
            if workload is None or not _goes_on(workload):
                return workload
            assert workload.owner is not None
            above = self._of_cache(namespace, workload.owner)
            if above is not None and _ends_at(workload, above):
                return workload
            workload = above
        return None

    def read_top(self, namespace: str, owner: Owner) -> Workload | None:
        """The same as the API server has it now; None if there is no such owner. Blocks. Raises what the store raises."""
        workload = self._of_store(namespace, owner)
        for _ in range(_DEEPEST):
            if workload is None or not _goes_on(workload):
                break
            assert workload.owner is not None
            above = self._of_store(namespace, workload.owner)
            if above is None or _ends_at(workload, above):
                break
            workload = above
        return workload

    def read(self, application: Application) -> Workload | None:
        """The application of that name and kind as the API server has it now, whatever its UID; None if there is none. Blocks.
        Raises what the store raises, and `NoSuchResource` where nothing can be known, because the kind is not there."""
        if GROUPS.get(application.kind) == application.group:
            return self._native(application.kind, application.name, application.namespace)
        api_version = (
            f"{application.group}/{application.version}" if application.group else application.version
        )
        kind = self._kind(api_version, application.kind)
        if kind is None:
            raise NoSuchResource(
                f"{application.title} cannot be looked at: the API server has no {application.kind} of {api_version}",
                maybe_written=False,
            )
        return self._another(kind, api_version, application.name, application.namespace)

    def _of_cache(self, namespace: str, owner: Owner) -> Workload | None:
        workload = self.cached((owner.group, owner.kind, namespace, owner.name))
        return workload if workload is not None and self._is_meant(workload, owner) else None

    def _of_store(self, namespace: str, owner: Owner) -> Workload | None:
        if GROUPS.get(owner.kind) == owner.group:
            workload = self._native(owner.kind, owner.name, namespace)
        else:
            kind = self._kind(owner.api_version, owner.kind)
            workload = None if kind is None else self._another(kind, owner.api_version, owner.name, namespace)
        return workload if workload is not None and self._is_meant(workload, owner) else None

    def _is_meant(self, workload: Workload, owner: Owner) -> bool:
        return not self._proven or workload.application.uid == owner.uid

    def _native(self, kind: str, name: str, namespace: str) -> Workload | None:
        with contextlib.suppress(NotFound, InvalidObject):
            return Workload.from_object(self._store.get(kind, name, namespace))
        return None

    def _another(self, kind: Kind, api_version: str, name: str, namespace: str) -> Workload | None:
        try:
            scale = self._scale(kind, name, namespace) if kind.scale else None
            obj = self._whole(kind, name, namespace, scale)
            version = api_version.rpartition("/")[2]
            title = kind.name.partition(".")[0]
            workload = Workload.of_another_kind(obj, kind.group, version, title, scale)
        except (NotFound, InvalidObject):
            return None
        with self._lock:
            self._read[workload.application.identity] = _Read(workload, time.monotonic() + FRESH)
            if len(self._read) > _REMEMBERED:
                del self._read[next(iter(self._read))]
        return workload

    def _scale(self, kind: Kind, name: str, namespace: str) -> Object | None:
        """How many pods it wants; None where it does not say so, which the API server takes for an error of its own: a field
        that its controller has a default for."""
        try:
            return self._store.scale(kind.name, name, namespace)
        except StoreUnavailable as error:
            if _NO_REPLICAS.search(str(error)) is None:
                raise
            return None

    def _whole(self, kind: Kind, name: str, namespace: str, scale: Object | None) -> Object:
        """The object; where this process may not read it, its scale, which has the same name and UID, stands for it."""
        try:
            return self._store.get(kind.name, name, namespace)
        except NotAllowed:
            if scale is None:
                raise
            return {"metadata": scale.get("metadata")}

    def _kind(self, api_version: str, kind: str) -> Kind | None:
        """Somebody else's kind, watched from now on if it has a `scale`; None where the API server has no such kind.
        Blocks."""
        known_kind, until = self._kinds.get((api_version, kind), (None, 0.0))
        if known_kind is None and time.monotonic() > until:
            with contextlib.suppress(NoSuchResource, InvalidObject):
                there = self._store.kinds(api_version)
                known_kind = next(
                    (learn(offered) for offered in there if offered.name == kind and offered.namespaced), None
                )
            with self._lock:
                self._kinds[api_version, kind] = (known_kind, time.monotonic() + ABSENT)
                if len(self._kinds) > _REMEMBERED:
                    del self._kinds[next(iter(self._kinds))]
        if known_kind is not None and known_kind.scale:  # no pod may have all ConfigMaps kept here
            self._watch(known_kind, api_version)
        return known_kind

    def _watch(self, kind: Kind, api_version: str) -> None:
        with self._lock:
            known = kind.name in self._informers or len(self._informers) >= len(GROUPS) + MOST_KINDS
            if known or self._unwatched.get(kind.name, 0.0) > time.monotonic():
                return
            self._unwatched[kind.name] = time.monotonic() + ABSENT
        try:
            self._store.list(kind.name)
        except OrbweaverError as error:
            log.warning(
                "applications of a kind are looked at only when their pods ask, because they cannot be watched",
                extra={"kind": kind.name, "error": str(error)},
            )
            return
        version, title = api_version.rpartition("/")[2], kind.name.partition(".")[0]
        parse = partial(_counted_elsewhere, group=kind.group, version=version, kind=title)
        informer = Informer(self._store, kind.name, transform=parse, optional=True)
        informer.subscribe(partial(self._tell, kind.group, title))
        with self._lock:
            self._informers[kind.name] = informer
        informer.start()

    def _tell(self, group: str, kind: str, key: ObjectKey) -> None:
        self._changed((group, kind, key.namespace, key.name))


def _key(group: str, kind: str) -> str:
    return kind if GROUPS.get(kind) == group else f"{kind}.{group}"


def _goes_on(workload: Workload) -> bool:
    """Whether the owner of this object may be whose pods these are. What Kubernetes' other controllers are made by sets other
    things than their number of pods."""
    kind, owner = workload.application.kind, workload.owner
    if owner is None:
        return False
    if GROUPS.get(kind) != workload.application.group:
        return not workload.counted
    native = GROUPS.get(owner.kind) == owner.group
    if kind == REPLICASET:
        return owner.kind == DEPLOYMENT if native else True
    return kind == JOB and native and owner.kind == CRONJOB


def _ends_at(workload: Workload, above: Workload) -> bool:
    """Whether one of Kubernetes' own is the top controller although it has an owner: whose number nobody can set."""
    return GROUPS.get(workload.application.kind) == workload.application.group and not above.counted


def _asking(obj: Mapping[str, Any]) -> Workload | None:
    workload = Workload.from_object(obj)
    return workload if workload.asks else None


def _counted_elsewhere(obj: Mapping[str, Any], *, group: str, version: str, kind: str) -> Workload:
    return Workload.of_another_kind(obj, group, version, kind, None)
