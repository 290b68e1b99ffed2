"""The leader's word on pools and subnets that are about to be stored: whether they fit each other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.decisions.settings import Settings
from actors.resources.subnet import SpiderSubnet
from actors.review.subnet_review import PlacementRequest, SubnetReviewActor
from actors.store.sqlite.store import SQLiteStore
from tests.support.review_rig import ReviewRig
from tests.support.rig import pool
from tests.support.subnet_rig import subnet

BLUE = pool("blue", "10.6.0.0/16", "10.6.0.2-10.6.0.3")


class Reviewer(ReviewRig):
    """A SubnetReview whose cache of pools is empty until `follow`."""

    def __init__(self, store: SQLiteStore) -> None:
        self.cached: dict[str, SpiderSubnet] = {}
        super().__init__(
            store,
            "subnet-review",
            lambda context, catalog: SubnetReviewActor(
                context,
                store=store,
                catalog=catalog,
                subnets=lambda: self.cached,
                settings=Settings(enable_ipv6=False),
            ),
        )

    def review(self, obj: dict[str, Any], before: dict[str, Any] | None = None) -> str:
        return self.why(PlacementRequest.of(obj["kind"], obj, before))


@pytest.fixture
def reviewer(tmp_path: Path) -> Iterator[Reviewer]:
    store = SQLiteStore(tmp_path / "orbweaver.db")
    made = Reviewer(store)
    yield made
    made.stop()
    store.close()


def test_a_pool_lists_addresses_of_its_subnet_only(reviewer: Reviewer) -> None:
    beyond = pool("blue", "10.6.0.0/16", "10.6.0.9-10.6.0.11")
    assert reviewer.review(beyond) == ""
    rack = reviewer.store.create(subnet())
    reviewer.cached = {"rack": SpiderSubnet.from_object(rack)}

    assert "spec.ips has 10.6.0.10-10.6.0.11, which SpiderSubnet rack" in reviewer.review(beyond)
    assert reviewer.review(BLUE) == ""
    # What it had before is not held against it, nor is a subnet that cannot be read.
    assert reviewer.review({**beyond, "spec": {**beyond["spec"], "disable": True}}, beyond) == ""
    reviewer.store.create({**subnet("bad"), "spec": {"subnet": 7}})
    assert reviewer.review(BLUE) == ""
    # Nor what the cache has not seen yet: the subnet has the addresses by now.
    reviewer.store.update({**rack, "spec": {**rack["spec"], "ips": ["10.6.0.1-10.6.0.11"]}})
    assert reviewer.review(beyond) == ""


def test_a_new_subnet_fits_the_pools_that_are_there(reviewer: Reviewer) -> None:
    made = reviewer.store.create(pool("blue", "10.6.0.0/16", "10.6.0.9-10.6.0.11"))
    reviewer.follow()
    assert "spec.ips lacks 10.6.0.10-10.6.0.11, which SpiderIPPool blue" in reviewer.review(subnet())

    reviewer.catalog.stop()  # what the cache does not know yet refuses nobody
    reviewer.store.update({**made, "spec": {**made["spec"], "ips": ["10.6.0.9"]}})
    assert reviewer.review(subnet()) == ""


def test_a_family_that_is_switched_off_has_no_new_subnets(reviewer: Reviewer) -> None:
    six = subnet("six", "fd00::1-fd00::9", cidr="fd00::/64")

    assert (
        "spec.subnet fd00::/64 is IPv6, which is disabled in the settings; set enableIPv6"
        in reviewer.review(six)
    )
    assert reviewer.review(six, six) == ""


def test_a_subnet_keeps_what_pools_have_of_it(reviewer: Reviewer) -> None:
    """Also in the middle of a range, which the policy does not see."""
    before = {**subnet(), "status": {"controlledIPPools": '{"blue":{"ips":["10.6.0.2-10.6.0.6"]}}'}}
    gap = subnet("rack", "10.6.0.1-10.6.0.3", "10.6.0.5-10.6.0.9")

    assert "take away 10.6.0.4 while SpiderIPPool blue has them" in reviewer.review(gap, before)
    assert reviewer.review(subnet("rack", "10.6.0.2-10.6.0.6"), before) == ""
