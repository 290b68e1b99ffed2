"""What the webhook has judged, and by whom: a list to which each part of the project adds its own.

How it works. `read` makes a question out of an object where the part has one, and `ask` puts it to an actor of the leader; a
controller that does not lead passes the whole request on, so questions never leave the process.
What must always hold: `read` is pure and quick, and what it cannot understand is let in, because the CRDs and policies judge
an object's form; `ask` does not block. Whoever reaches the webhook can ask, so an object whose name no API server takes is
asked about nowhere: names are remembered, and told.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from actors.decisions.overlaps import Extent, extent_of
from actors.errors import InvalidObject
from actors.resources.names import is_subdomain
from actors.review.messages import ReviewRequest, ReviewVerdict
from actors.review.network_review import NetworkRequest
from actors.review.subnet_review import PlacementRequest
from actors.runtime import ObjectRef
from cni.admission.admission_review import ReviewedObject

Q = TypeVar("Q")


@dataclass(frozen=True, slots=True)
class Review(Generic[Q]):
    """One rule that only a server can judge. `kinds`: of which objects. `ask` returns None where this process does not
    lead."""

    kinds: frozenset[str]
    read: Callable[[ReviewedObject], Q | None]
    ask: Callable[[Q], ObjectRef[ReviewVerdict] | None]

    def question(self, reviewed: ReviewedObject) -> Q | None:
        """What is to be asked about an object, None for nothing."""
        if reviewed.kind not in self.kinds or not is_subdomain(reviewed.name):
            return None
        try:
            return self.read(reviewed)
        except (InvalidObject, RecursionError):
            return None


def overlap_review(ask: Callable[[ReviewRequest], ObjectRef[ReviewVerdict] | None]) -> Review[ReviewRequest]:
    """Whether another pool or subnet has addresses of it."""
    return Review(frozenset({"SpiderIPPool", "SpiderSubnet"}), _overlap_question, ask)


def _overlap_question(reviewed: ReviewedObject) -> ReviewRequest:
    wanted = _extent(reviewed.kind, reviewed.obj)
    try:
        before = None if reviewed.before is None else _extent(reviewed.kind, reviewed.before)
    except InvalidObject:
        before = None
    return ReviewRequest.of(wanted, before, kept=reviewed.kept)


def _extent(kind: str, obj: Mapping[str, object]) -> Extent:
    return extent_of({**obj, "kind": kind})


def placement_review(
    ask: Callable[[PlacementRequest], ObjectRef[ReviewVerdict] | None],
) -> Review[PlacementRequest]:
    """Whether a pool lies in the subnet of its CIDR, and a subnet fits the pools that are there."""
    return Review(frozenset({"SpiderIPPool", "SpiderSubnet"}), _placement_question, ask)


def _placement_question(reviewed: ReviewedObject) -> PlacementRequest | None:
    metadata = reviewed.obj.get("metadata")
    if isinstance(metadata, Mapping) and metadata.get("deletionTimestamp"):
        return None
    before = None if reviewed.before is None else dict(reviewed.before)
    return PlacementRequest.of(reviewed.kind, dict(reviewed.obj), before)


def network_review(
    ask: Callable[[NetworkRequest], ObjectRef[ReviewVerdict] | None],
) -> Review[NetworkRequest]:
    """Whether the network that a SpiderMultusConfig names is somebody else's."""
    return Review(frozenset({"SpiderMultusConfig"}), _network_question, ask)


def _network_question(reviewed: ReviewedObject) -> NetworkRequest | None:
    return NetworkRequest.of(reviewed.obj, reviewed.before)
