"""The AdmissionReview protocol (admission.k8s.io/v1), as pure functions: what an API server asks, and what it is answered.

What must always hold: an object that cannot be understood is let in, because the CRDs and policies judge its form, not this
webhook; the answer names the request's own UID, without which the API server takes none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from actors.errors import InvalidRequest
from actors.review.messages import ReviewVerdict

API_VERSION = "admission.k8s.io/v1"
_WARNING_LONGEST = 256
"""Characters of a warning, which API servers cut."""


@dataclass(frozen=True, slots=True)
class ReviewedObject:
    """An object that is about to be stored. `before`: what it replaces, None where it is new. `kept`: whether the API server
    will store it, which it does not for a dry run. Whatever is in either is as it was sent."""

    kind: str
    obj: Mapping[str, Any]
    before: Mapping[str, Any] | None = None
    kept: bool = True

    @property
    def name(self) -> str:
        """Of the object, empty where it has none."""
        metadata = self.obj.get("metadata")
        name = metadata.get("name") if isinstance(metadata, Mapping) else None
        return name if isinstance(name, str) else ""

    @property
    def title(self) -> str:
        """Kind and name, for a log line."""
        return f"{self.kind} {self.name:.300}"


@dataclass(frozen=True, slots=True)
class AdmissionQuestion:
    """One AdmissionReview. `reviewed` is None where nothing is about to be stored."""

    uid: str
    reviewed: ReviewedObject | None


def read_question(body: bytes) -> AdmissionQuestion:
    """Raises `InvalidRequest` for what is no AdmissionReview."""
    try:
        review = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"this is not JSON: {error}") from error
    request = review.get("request") if isinstance(review, dict) else None
    uid = request.get("uid") if isinstance(request, dict) else None
    if not isinstance(request, dict) or not isinstance(uid, str) or review.get("apiVersion") != API_VERSION:
        raise InvalidRequest(f"this is no AdmissionReview of {API_VERSION}: it has no request with a uid")
    kind, obj, before = (request.get(name) for name in ("kind", "object", "oldObject"))
    named = kind.get("kind") if isinstance(kind, dict) else None
    if not isinstance(named, str) or not isinstance(obj, dict):
        return AdmissionQuestion(uid, None)
    if request.get("operation") not in ("CREATE", "UPDATE"):
        return AdmissionQuestion(uid, None)
    replaced = before if isinstance(before, dict) else None
    return AdmissionQuestion(uid, ReviewedObject(named, obj, replaced, request.get("dryRun") is not True))


def write_answer(question: AdmissionQuestion, verdict: ReviewVerdict) -> bytes:
    """The AdmissionReview that goes back."""
    response: dict[str, Any] = {"uid": question.uid, "allowed": verdict.allowed}
    if verdict.why:
        response["status"] = {"code": 422, "reason": "Invalid", "message": verdict.why}
    if verdict.warnings:
        response["warnings"] = [text[:_WARNING_LONGEST] for text in verdict.warnings]
    answer = {"apiVersion": API_VERSION, "kind": "AdmissionReview", "response": response}
    return json.dumps(answer).encode()
