"""Whose token it is: what the API server says of it decides, it is asked once for each, and strangers keep nobody waiting."""

from __future__ import annotations

import base64
import json
import threading
from typing import Any

import pytest

from actors.cluster import token_review
from actors.cluster.token_review import NODE, TokenReviewer, claims_fit, identity_of
from actors.errors import Overloaded, PeerRefused, StoreUnavailable
from actors.runtime import PeerIdentity, get

ACCOUNT, AUDIENCE = "system:serviceaccount:orbweaver-system:orbweaver-agent", "orbweaver-leader"
NOW = 1_800_000_000.0


def token(node: str = "node1", **more: Any) -> str:
    """What looks like a token of the agents, signed by nobody."""
    claims = {"sub": ACCOUNT, "aud": [AUDIENCE], "exp": NOW + 3600, "node": node, **more}
    return ".".join(
        base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")
        for part in ({"alg": "RS256"}, claims, "signature")
    )


def review(node: str | None = "node1", **status: Any) -> dict[str, Any]:
    extra = {} if node is None else {NODE: [node]}
    user = {"username": ACCOUNT, "extra": extra}
    return {"status": {"authenticated": True, "audiences": [AUDIENCE], "user": user, **status}}


class ApiServer:
    """Says of each token what the test has it say, when the test lets it."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.open = threading.Event()
        self.open.set()
        self.away = False
        self.at_once = 0
        self.most_at_once = 0
        self._lock = threading.Lock()

    def create(self, obj: dict[str, Any], *, timeout: float) -> dict[str, Any]:
        with self._lock:
            self.asked.append(obj["spec"]["token"])
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        self.open.wait(60)
        with self._lock:
            self.at_once -= 1
        if self.away:
            raise StoreUnavailable("it is away", maybe_written=False)
        claims = json.loads(base64.urlsafe_b64decode(obj["spec"]["token"].split(".")[1] + "=="))
        return review(claims["node"]) if not claims.get("forged") else review(authenticated=False)


@pytest.fixture
def server() -> ApiServer:
    return ApiServer()


@pytest.fixture
def reviewer(server: ApiServer):
    made = TokenReviewer(server, ACCOUNT, AUDIENCE, wall=lambda: NOW)  # type: ignore[arg-type]
    made.start()
    yield made
    server.open.set()
    made.stop()


@pytest.mark.parametrize(
    "given",
    [
        "",
        "x",
        "a.b.c",
        "..",
        "x" * 8000,
        token() + ".x",
        token(sub="system:serviceaccount:orbweaver-system:other"),
        token(aud=["https://kubernetes.default.svc"]),
        token(aud=None),
        token(exp=NOW - 3600),
        token(exp="soon"),
        "a." + base64.urlsafe_b64encode(b"[" * 5000).decode() + ".c",
        "a." + base64.urlsafe_b64encode(b"[1]").decode() + ".c",
        "a.\u00e9.c",
    ],
)
def test_what_does_not_even_claim_to_be_such_a_token_is_not_asked_about(
    reviewer: TokenReviewer, server: ApiServer, given: str
):
    assert not claims_fit(given, ACCOUNT, AUDIENCE, NOW)
    with pytest.raises(PeerRefused, match="no token of"):
        get(reviewer.identify(given, "10.0.0.1"), timeout=60)
    assert server.asked == []


def test_an_audience_may_stand_alone():
    assert claims_fit(token(aud=AUDIENCE), ACCOUNT, AUDIENCE, NOW)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (review(authenticated=False, error="expired"), "expired"),
        (review(authenticated=False), "not valid any more"),
        (review(audiences=["https://kubernetes.default.svc"]), "not for orbweaver-leader"),
        (review(user={"username": "system:node:node1"}), "system:node:node1's"),
        (review(None), "bound to no pod on a node"),
        (review(""), "bound to no pod on a node"),
        ({}, "does not know the token"),
    ],
)
def test_who_is_no_agent_of_a_node_is_told_why(answer: dict[str, Any], why: str):
    with pytest.raises(PeerRefused, match=why):
        identity_of(answer, ACCOUNT, AUDIENCE)


def test_an_agent_is_known_by_its_node():
    assert identity_of(review("node7"), ACCOUNT, AUDIENCE) == PeerIdentity("orbweaver-agent", "node7")


def test_the_same_token_is_asked_about_once(reviewer: TokenReviewer, server: ApiServer):
    """Also while the answer is on its way, and again a moment later."""
    server.open.clear()
    refs = [reviewer.identify(token(), "10.0.0.1") for _ in range(5)]
    server.open.set()
    assert {get(ref, timeout=60) for ref in refs} == {PeerIdentity("orbweaver-agent", "node1")}
    assert get(reviewer.identify(token(), "10.0.0.9"), timeout=60).node == "node1"
    assert len(server.asked) == 1


def test_an_answer_is_fresh_for_a_while_only(server: ApiServer):
    now = 0.0
    made = TokenReviewer(server, ACCOUNT, AUDIENCE, clock=lambda: now, wall=lambda: NOW)  # type: ignore[arg-type]
    made.start()
    get(made.identify(token(), "10.0.0.1"), timeout=60)
    now += token_review.FRESH + 1
    get(made.identify(token(), "10.0.0.1"), timeout=60)
    assert len(server.asked) == 2
    made.stop()


def test_a_refusal_is_remembered_for_a_moment_only(server: ApiServer):
    """A pod that has just begun may not be in the API server's cache yet."""
    now = 0.0
    made = TokenReviewer(server, ACCOUNT, AUDIENCE, clock=lambda: now, wall=lambda: NOW)  # type: ignore[arg-type]
    made.start()
    shown = token(forged=True)
    for _ in range(2):
        with pytest.raises(PeerRefused):
            get(made.identify(shown, "10.0.0.1"), timeout=60)
    assert len(server.asked) == 1
    now += token_review.REFUSED + 1
    with pytest.raises(PeerRefused):
        get(made.identify(shown, "10.0.0.1"), timeout=60)
    assert len(server.asked) == 2
    made.stop()


def test_an_api_server_that_is_away_says_nothing_about_a_token(reviewer: TokenReviewer, server: ApiServer):
    server.away = True
    with pytest.raises(StoreUnavailable):
        get(reviewer.identify(token(), "10.0.0.1"), timeout=60)
    server.away = False
    assert get(reviewer.identify(token(), "10.0.0.1"), timeout=60).node == "node1"


def test_a_flood_of_false_tokens_keeps_no_agent_waiting(reviewer: TokenReviewer, server: ApiServer):
    """After its first false token a source waits behind all others; the API server gets one question of it at a time."""
    with pytest.raises(PeerRefused):
        get(reviewer.identify(token("0", forged=True), "10.6.6.6"), timeout=60)
    server.open.clear()
    false = {token(str(number + 1), forged=True) for number in range(200)}
    for shown in false:
        reviewer.identify(shown, "10.6.6.6")
    agents = [reviewer.identify(token(f"node{number}"), f"10.0.0.{number}") for number in range(20)]
    server.open.set()

    assert [get(ref, timeout=60).node for ref in agents] == [f"node{number}" for number in range(20)]
    asked = list(server.asked)
    last = max(asked.index(token(f"node{number}")) for number in range(20))
    assert sum(shown in false for shown in asked[:last]) < 100
    assert server.most_at_once <= token_review.WORKERS + 1


def test_what_waits_is_bounded(reviewer: TokenReviewer, server: ApiServer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(token_review, "WAITING", 10)
    server.open.clear()
    refs = [reviewer.identify(token(f"node{number}"), "10.0.0.1") for number in range(100)]
    refused = [ref for ref in refs if ref.done()]
    assert len(refused) >= 100 - token_review.WORKERS - 10
    with pytest.raises(Overloaded, match="come again"):
        get(refused[0], timeout=60)


def test_who_waits_is_told_when_the_controller_ends(server: ApiServer):
    made = TokenReviewer(server, ACCOUNT, AUDIENCE, workers=1, wall=lambda: NOW)  # type: ignore[arg-type]
    made.start()
    server.open.clear()
    refs = [made.identify(token(f"node{number}"), "10.0.0.1") for number in range(3)]
    ending = threading.Thread(target=made.stop, daemon=True)
    ending.start()
    with pytest.raises(Overloaded, match="ending"):
        get(refs[2], timeout=60)
    server.open.set()
    ending.join()
    with pytest.raises(Overloaded, match="ending"):
        get(made.identify(token("late"), "10.0.0.1"), timeout=60)


def test_who_was_an_agent_before_waits_behind_no_false_token(
    reviewer: TokenReviewer, server: ApiServer
) -> None:
    """Strangers in pods behind their node's address share it with the node's agent, which comes again after a minute."""
    get(reviewer.identify(token("node1"), "10.0.0.1"), timeout=60)
    reviewer._known.clear()  # a minute later
    with pytest.raises(PeerRefused):
        get(reviewer.identify(token(forged=0.5), "10.0.0.1"), timeout=60)
    server.open.clear()
    for number in range(1, 300):
        reviewer.identify(token(forged=number), "10.0.0.1")
    before = len(server.asked)
    again = reviewer.identify(token("node1"), "10.0.0.1")
    server.open.set()

    assert get(again, timeout=60).node == "node1"
    assert server.asked.index(token("node1"), before) < 150


def test_nobody_is_asked_about_for_whom_nobody_waits_any_more(server: ApiServer) -> None:
    """The backlog of a flood ended when the API server had been asked about all of it, minutes behind the flood."""
    now = 0.0
    made = TokenReviewer(server, ACCOUNT, AUDIENCE, workers=1, wall=lambda: NOW, clock=lambda: now)  # type: ignore[arg-type]
    server.open.clear()
    made.start()
    refs = [made.identify(token(forged=number), "10.0.0.1") for number in range(1, 101)]
    now = token_review.PATIENCE + 1
    late = made.identify(token("node1"), "10.0.0.2")
    server.open.set()
    try:
        assert get(late, timeout=60).node == "node1"
        for ref in refs[1:]:
            with pytest.raises(Overloaded):
                get(ref, timeout=60)
        assert len(server.asked) <= 2
    finally:
        made.stop()
