"""The leader's word on pools that are about to be stored: one after the other, with what it let in a moment ago in mind."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from actors.decisions.overlaps import extent_of
from actors.review.messages import ReviewRequest
from actors.review.overlap_review import MEMORY, MOST_RANGES, OverlapReviewActor
from actors.store.sqlite.store import SQLiteStore
from tests.support.checker import eventually
from tests.support.review_rig import ReviewRig
from tests.support.rig import pool


def asks(obj: dict[str, Any], old: dict[str, Any] | None = None) -> ReviewRequest:
    return ReviewRequest.of(extent_of(obj), None if old is None else extent_of(old))


def subnet(name: str, *ips: str) -> dict[str, Any]:
    return {**pool(name, "10.6.0.0/16", *ips), "kind": "SpiderSubnet"}


A = pool("a", "10.6.0.0/16", "10.6.0.1-10.6.0.9")
B = pool("b", "10.6.0.0/16", "10.6.0.9-10.6.0.20")


class Leader(ReviewRig):
    """`now`: its clock."""

    def __init__(self, store: SQLiteStore) -> None:
        self.now = 0.0
        super().__init__(
            store,
            "overlap-review",
            lambda context, catalog: OverlapReviewActor(
                context, store=store, catalog=catalog, clock=lambda: self.now
            ),
        )


@pytest.fixture
def leader(tmp_path: Path) -> Iterator[Leader]:
    store = SQLiteStore(tmp_path / "orbweaver.db")
    made = Leader(store)
    yield made
    made.stop()
    store.close()


def test_a_pool_that_shares_an_address_is_refused_naming_both(leader: Leader) -> None:
    leader.store.create(A)
    leader.follow()

    assert leader.why(asks(B)) == (
        "SpiderIPPool b: spec.ips overlaps with SpiderIPPool a in 10.6.0.9; an address may be in one SpiderIPPool only, so "
        "take it out of spec.ips or add it to spec.excludeIPs of one of them"
    )
    assert leader.why(asks(pool("b", "10.6.0.0/16", "10.6.0.9-10.6.0.20", excludeIPs=["10.6.0.9"]))) == ""
    assert leader.why(asks(pool("six", "fd00::/64", "fd00::1"))) == ""


def test_what_was_let_in_counts_before_anybody_sees_it_stored(leader: Leader) -> None:
    """The cache shows nothing here: as when a hundred come at once."""
    verdicts = [leader.why(asks({**A, "metadata": {"name": f"alike-{number}"}})) for number in range(100)]

    assert [why == "" for why in verdicts] == [True] + [False] * 99
    assert all("overlaps with SpiderIPPool alike-0 in 10.6.0.1-10.6.0.9" in why for why in verdicts[1:])


def test_what_was_let_in_and_never_stored_is_forgotten(leader: Leader) -> None:
    assert leader.why(asks(A)) == ""
    assert "SpiderIPPool a" in leader.why(asks(B))
    leader.now += MEMORY

    assert leader.why(asks(B)) == ""


def test_what_was_let_in_and_stored_counts_for_good(leader: Leader) -> None:
    assert leader.why(asks(A)) == ""
    leader.store.create(A)
    leader.follow()
    leader.now += MEMORY

    assert "SpiderIPPool a" in leader.why(asks(B))


def test_what_was_stored_counts_again_and_again_before_the_cache_sees_it(leader: Leader) -> None:
    assert leader.why(asks(A)) == ""
    leader.store.create(A)

    for _ in range(3):
        assert "SpiderIPPool a in 10.6.0.9" in leader.why(asks(B))


def test_a_dry_run_is_judged_and_not_remembered(leader: Leader) -> None:
    assert leader.why(replace(asks(A), kept=False)) == ""
    assert leader.why(asks(B)) == ""
    assert "SpiderIPPool b" in leader.why(replace(asks(A), kept=False))


def test_an_object_that_somebody_else_made_under_the_name_counts_as_it_is(leader: Leader) -> None:
    assert leader.why(asks(A)) == ""
    leader.store.create(pool("a", "10.6.0.0/16", "10.6.0.1"))

    assert leader.why(asks(B)) == ""


def test_nobody_is_refused_for_what_the_cache_has_not_seen_go(leader: Leader) -> None:
    leader.store.create(A)
    leader.follow()
    leader.catalog.stop()
    leader.store.update({**leader.store.get("SpiderIPPool", "a"), "spec": {**A["spec"], "ips": ["10.6.0.1"]}})

    assert leader.why(asks(B)) == ""


def test_an_edit_is_judged_by_what_it_adds(leader: Leader) -> None:
    """Pools that overlap since a time without a controller may be edited, and mended."""
    leader.store.create(A)
    leader.store.create(B)
    leader.follow()
    grown = pool("b", "10.6.0.0/16", "10.6.0.9-10.6.0.30")

    assert leader.why(asks(grown, B)) == ""
    assert leader.why(asks(pool("b", "10.6.0.0/16", "10.6.0.20"), B)) == ""
    assert "in 10.6.0.8" in leader.why(asks(pool("b", "10.6.0.0/16", "10.6.0.8-10.6.0.20"), B))
    # The growth is remembered until it is seen.
    assert "SpiderIPPool b in 10.6.0.25" in leader.why(asks(pool("c", "10.6.0.0/16", "10.6.0.25")))
    leader.store.update({**leader.store.get("SpiderIPPool", "b"), "spec": grown["spec"]})

    def seen() -> None:
        leader.now += MEMORY
        assert "SpiderIPPool b in 10.6.0.25" in leader.why(asks(pool("c", "10.6.0.0/16", "10.6.0.25")))

    eventually(seen)


def test_subnets_are_compared_with_subnets_alone(leader: Leader) -> None:
    leader.store.create(A)
    leader.follow()

    assert leader.why(asks(subnet("s", "10.6.0.1-10.6.0.9"))) == ""
    leader.store.create(subnet("s", "10.6.0.1-10.6.0.9"))
    assert "SpiderSubnet s in 10.6.0.9" in leader.why(asks(subnet("t", "10.6.0.9-10.6.0.12")))
    assert leader.why(asks(pool("in-s", "10.6.0.0/16", "10.6.0.10"))) == ""


def test_what_is_remembered_is_bounded_in_ranges(leader: Leader) -> None:
    """Whoever reaches the webhook can ask about pools that nobody will store."""
    many = tuple((number * 4, number * 4 + 1) for number in range(MOST_RANGES))
    assert leader.why(ReviewRequest("SpiderIPPool", "first", 4, ((2, 2),))) == ""
    assert "SpiderIPPool first" in leader.why(ReviewRequest("SpiderIPPool", "second", 4, ((2, 2),)))

    assert leader.why(ReviewRequest("SpiderIPPool", "huge", 4, many)) == ""
    assert leader.why(ReviewRequest("SpiderIPPool", "second", 4, ((2, 2),))) == ""
