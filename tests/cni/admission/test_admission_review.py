"""The AdmissionReview protocol: what an API server asks, read, and its answer, written."""

from __future__ import annotations

import json
from typing import Any

import pytest

from actors.errors import InvalidRequest
from actors.review.messages import ReviewVerdict, together
from cni.admission.admission_review import AdmissionQuestion, ReviewedObject, read_question, write_answer
from cni.admission.reviews import Review, overlap_review, placement_review
from tests.support.rig import pool


def body(obj: Any, operation: str = "CREATE", kind: Any = None, **more: Any) -> bytes:
    request = {
        "uid": "u-1",
        "kind": {"group": "spiderpool.spidernet.io", "version": "v2beta1", "kind": "SpiderIPPool"}
        if kind is None
        else kind,
        "operation": operation,
        "object": obj,
        **more,
    }
    return json.dumps(
        {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}
    ).encode()


OVERLAPS = overlap_review(lambda request: None)
A = pool("a", "10.6.0.0/16", "10.6.0.1-10.6.0.9")


def test_a_pool_is_read_with_what_it_replaces() -> None:
    old = pool("a", "10.6.0.0/16", "10.6.0.1-10.6.0.5")
    reviewed = read_question(body(A, "UPDATE", oldObject=old, dryRun=True)).reviewed
    assert reviewed == ReviewedObject("SpiderIPPool", A, old, kept=False)
    assert reviewed.title == "SpiderIPPool a"

    asked = OVERLAPS.question(reviewed)
    assert asked is not None
    assert (asked.kind, asked.name, asked.kept, asked.is_update) == ("SpiderIPPool", "a", False, True)
    assert asked.added.addresses.ranges_text(4) == ("10.6.0.6-10.6.0.9",)


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"[]", b"null", b"[" * 100_000, b'{"request":{}}', b'{"request":{"uid":1}}',
     b'{"apiVersion":"admission.k8s.io/v1beta1","request":{"uid":"u"}}'],
)  # fmt: skip
def test_what_is_no_review_is_refused(text: bytes) -> None:
    with pytest.raises(InvalidRequest):
        read_question(text)


@pytest.mark.parametrize(
    "text",
    [
        body(None),
        body("pool"),
        body(A, "DELETE"),
        body(A, kind="SpiderIPPool"),
        body(A, kind=[]),
    ],
)
def test_where_nothing_is_stored_there_is_nothing_to_judge(text: bytes) -> None:
    assert read_question(text) == AdmissionQuestion("u-1", None)


@pytest.mark.parametrize(
    "text",
    [
        body({}),
        body({"metadata": {"name": "a"}, "spec": {"subnet": "x"}}),
        body({"metadata": [], "spec": 1}),
        body(A, kind={"kind": "Pod"}),
    ],
)
def test_what_is_not_for_this_webhook_to_judge_is_let_in(text: bytes) -> None:
    """The form of an object is judged by its CRD and the policies."""
    reviewed = read_question(text).reviewed
    assert reviewed is not None
    assert OVERLAPS.question(reviewed) is None
    assert reviewed.title


def test_of_several_verdicts_the_first_refusal_counts_and_every_warning() -> None:
    one, two = ReviewVerdict("no", ("a",)), ReviewVerdict("never", ("b",))
    assert together([ReviewVerdict(), one, two]) == ReviewVerdict("no", ("a", "b"))
    assert together([]) == ReviewVerdict()


def test_an_answer_names_the_request() -> None:
    def answered(verdict: ReviewVerdict) -> Any:
        return json.loads(write_answer(AdmissionQuestion("u-1", None), verdict))["response"]

    assert answered(ReviewVerdict()) == {"uid": "u-1", "allowed": True}
    assert answered(ReviewVerdict(warnings=("w" * 300,)))["warnings"] == ["w" * 256]
    refused = answered(ReviewVerdict("no"))
    assert (refused["allowed"], refused["status"]["message"], refused["status"]["code"]) == (False, "no", 422)


@pytest.mark.parametrize("review", [OVERLAPS, placement_review(lambda request: None)])
@pytest.mark.parametrize("name", ["a" * 3_000_000, "\x1b[2J", "\ud800", "Ä", ["a"], {}, None])
def test_an_object_that_no_api_server_would_name_so_is_not_asked_about(
    review: Review[Any], name: object
) -> None:
    """What is let in is remembered by its name, and whoever reaches the port can ask: thousands, of megabytes each."""
    obj = {**A, "metadata": {"name": name}}
    reviewed = read_question(body(obj, oldObject=obj)).reviewed
    assert reviewed is not None
    assert review.question(reviewed) is None
    assert len(reviewed.title) < 400
