"""StatefulSet: which of its pods are still wanted, so which fixed addresses to keep.

What must always hold: `keeps` speaks of ordinals only, in the range from `spec.ordinals.start` (KEP-3335)
over `spec.replicas` pods. A pod that is away for a moment (restart, eviction, move) is still kept. Replicas are a wish,
which costs nothing: a set that wants two thousand million pods, and is let have ten of them by its quota, keeps the
addresses of as many as it was seen to have (`seen`), of `BELIEVED` without that.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from actors.resources.metadata import open_object

KIND = "StatefulSet"
BELIEVED = 16
"""Pods that a set may keep addresses for before it was ever seen to have so many."""
_ORDINAL = re.compile(r"(?P<name>.+)-(?P<ordinal>0|[1-9][0-9]*)", re.ASCII)


@dataclass(frozen=True, slots=True)
class StatefulSet:
    """What decides whether a StatefulSet's pod will be started again."""

    namespace: str
    """Of the object."""
    name: str
    """Of the object, which its pods' names begin with."""
    uid: str = ""
    """Of the object."""
    replicas: int = 1
    """How many pods it wants."""
    start: int = 0
    """The ordinal of the first one (`spec.ordinals.start`)."""
    terminating: bool = False
    """Whether it is being deleted."""
    seen: int | None = None
    """The most pods that its controller was seen to have made of it; None where nobody looks after that."""

    @classmethod
    def from_object(cls, obj: Mapping[str, Any]) -> StatefulSet:
        """Parse the API object. Raises `InvalidObject`."""
        meta, top = open_object(obj, KIND)
        spec = top.inner("spec")
        replicas = spec.number("replicas", 1)
        if replicas < 0:
            raise spec.refuse("replicas", "but must be 0 or more")
        start = spec.inner("ordinals").number("start", 0)
        if start < 0:
            raise spec.inner("ordinals").refuse("start", "but must be 0 or more")
        return cls(
            namespace=meta.namespace or "default",
            name=meta.name,
            uid=meta.uid,
            replicas=replicas,
            start=start,
            terminating=meta.deleted_at is not None,
        )

    @classmethod
    def watched(cls, obj: Mapping[str, Any], before: StatefulSet | None) -> StatefulSet:
        """The same with how many pods it has, or had when it was seen `before`. Raises `InvalidObject`."""
        current = cls.from_object(obj)
        status = open_object(obj, KIND)[1].inner("status")
        if not status.has("replicas"):
            return current  # nothing makes its pods but whoever runs this host
        had = before.seen or 0 if before is not None and before.uid == current.uid else 0
        return replace(current, seen=max(had, status.number("replicas", 0)))

    def keeps(self, pod_name: str, *, scaled_down: bool = False) -> bool:
        """Whether the pod of that name has one of the ordinals that the set wants, or, with `scaled_down`, one that it
        may want again."""
        match = _ORDINAL.fullmatch(pod_name)
        if match is None or match["name"] != self.name:
            return False
        number = int(match["ordinal"]) - self.start
        if self.seen is not None and number >= max(self.seen, BELIEVED):
            return False
        return scaled_down or 0 <= number < self.replicas
