"""Node: its labels (affinity), annotations, and what the cluster says of its health.

What must always hold: `ready` is true only when the cluster says so; a node that nobody has spoken of is not ready,
and not lost either (`not_ready_since` is None).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from actors.resources.fields import Fields
from actors.resources.metadata import moment, open_object

KIND = "Node"
OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"
"""Taint by which an operator declares that nothing runs on the node any more (KEP-2268)."""


@dataclass(frozen=True, slots=True)
class Node:
    """As much of a Node as anybody here asks."""

    name: str
    """Of the object."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """For the pools' node affinities."""
    annotations: Mapping[str, str] = field(default_factory=dict)
    """As the object has them."""
    ready: bool = False
    """Whether its Ready condition is "True"."""
    not_ready_since: float | None = None
    """When that condition left "True", in seconds since the epoch; None while it is so, and where nothing says it."""
    out_of_service: bool = False
    """Whether it has the taint by which a person says that it is shut down (`node.kubernetes.io/out-of-service`)."""

    @classmethod
    def from_object(cls, obj: Mapping[str, Any]) -> Node:
        """Parse the API object. Raises `InvalidObject`."""
        meta, top = open_object(obj, KIND)
        condition = _ready(top.inner("status"))
        ready = condition is not None and condition.text("status") == "True"
        since = None if condition is None or ready else moment(condition, "lastTransitionTime")
        tainted = any(taint.text("key") == OUT_OF_SERVICE for taint in top.inner("spec").items("taints"))
        return cls(meta.name, meta.labels, meta.annotations, ready, since, tainted)


def _ready(status: Fields) -> Fields | None:
    return next(
        (condition for condition in status.items("conditions") if condition.text("type") == "Ready"), None
    )
