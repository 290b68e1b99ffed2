"""Namespace: its labels (affinity), its annotations (default pools), and whether it is going."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from actors.resources.metadata import open_object

KIND = "Namespace"


@dataclass(frozen=True, slots=True)
class Namespace:
    """`is_whole`: it has its labels and annotations; a cache leaves out those of one that is too large."""

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    terminating: bool = False
    is_whole: bool = True

    @classmethod
    def from_object(cls, obj: Mapping[str, Any]) -> Namespace:
        """Parse the API object. Raises `InvalidObject`."""
        meta, _ = open_object(obj, KIND)
        return cls(meta.name, meta.labels, meta.annotations, meta.deleted_at is not None)
