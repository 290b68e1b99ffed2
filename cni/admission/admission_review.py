"""The AdmissionReview protocol (admission.k8s.io/v1), as pure functions: what an API server asks, and what it is answered.

What must always hold: an object that cannot be understood is let in, because the CRDs and policies judge its form, not this
webhook; the answer names the request's own UID, without which the API server takes none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from actors.decisions.overlaps import Extent, extent_of
from actors.errors import InvalidObject, InvalidRequest
from actors.review.messages import ReviewRequest, ReviewVerdict

API_VERSION = "admission.k8s.io/v1"
KINDS = ("SpiderIPPool", "SpiderSubnet")
_WARNING_LONGEST = 256
"""Characters of a warning, which API servers cut."""


@dataclass(frozen=True, slots=True)
class AdmissionQuestion:
    """One AdmissionReview. `review` is None where nothing of the object is for this webhook to judge."""

    uid: str
    review: ReviewRequest | None


def read_question(body: bytes) -> AdmissionQuestion:
    """Raises `InvalidRequest` for what is no AdmissionReview."""
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"this is not JSON: {error}") from error
    request = asked.get("request") if isinstance(asked, dict) else None
    uid = request.get("uid") if isinstance(request, dict) else None
    if not isinstance(request, dict) or not isinstance(uid, str) or asked.get("apiVersion") != API_VERSION:
        raise InvalidRequest(f"this is no AdmissionReview of {API_VERSION}: it has no request with a uid")
    kind = request.get("kind")
    named = kind.get("kind") if isinstance(kind, dict) else None
    if named not in KINDS or request.get("operation") not in ("CREATE", "UPDATE"):
        return AdmissionQuestion(uid, None)
    wanted = _extent(named, request.get("object"))
    if wanted is None:
        return AdmissionQuestion(uid, None)
    before = _extent(named, request.get("oldObject"))
    return AdmissionQuestion(uid, ReviewRequest.of(wanted, before, kept=request.get("dryRun") is not True))


def write_answer(question: AdmissionQuestion, verdict: ReviewVerdict) -> bytes:
    """The AdmissionReview that goes back."""
    response: dict[str, Any] = {"uid": question.uid, "allowed": verdict.allowed}
    if verdict.why:
        response["status"] = {"code": 422, "reason": "Invalid", "message": verdict.why}
    if verdict.warnings:
        response["warnings"] = [text[:_WARNING_LONGEST] for text in verdict.warnings]
    answer = {"apiVersion": API_VERSION, "kind": "AdmissionReview", "response": response}
    return json.dumps(answer).encode()


def _extent(kind: str, obj: object) -> Extent | None:
    if not isinstance(obj, Mapping):
        return None
    try:
        return extent_of({**obj, "kind": kind})
    except (InvalidObject, RecursionError):
        return None
