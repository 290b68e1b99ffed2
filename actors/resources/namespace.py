"""Namespace: its labels (affinity), its annotations (default pools), and whether it is going."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from actors.resources.metadata import open_object

KIND = "Namespace"


@dataclass(frozen=True, slots=True)
class Namespace:
    """As much of a Namespace as anybody here asks."""

    name: str
    """Of the object."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """For the pools' namespace affinities."""
    annotations: Mapping[str, str] = field(default_factory=dict)
    """With its default pools."""
    terminating: bool = False
    """Whether it is being deleted."""
    is_whole: bool = True
    """It has its labels and annotations; a cache leaves out those of one that is too large."""

    @classmethod
    def from_object(cls, obj: Mapping[str, Any]) -> Namespace:
        """Parse the API object. Raises `InvalidObject`."""
        meta, _ = open_object(obj, KIND)
        return cls(meta.name, meta.labels, meta.annotations, meta.deleted_at is not None)
