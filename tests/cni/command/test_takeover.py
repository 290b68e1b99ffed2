"""takeover: what a dry run says of what another IPAM holds, and that it changes nothing."""

from __future__ import annotations

import json

import pytest

from cni.command.takeover import DONE, FORBIDDEN
from tests.support.spiderpool_objects import OURS, install

HELD = {
    "10.6.0.11": {"interface": "", "pod": "default/web-a", "podUid": "u1"},
    "10.6.0.12": {"interface": "", "pod": "default/web-b", "podUid": "u2"},
}


@pytest.fixture
def spiderpool(orbweaver):
    """Spiderpool runs, and ours is installed and stopped."""
    store = orbweaver.store()
    install(store)
    obj = store.get("DaemonSet", "orbweaver-agent", OURS)
    template = obj["spec"]["template"]
    parked = {**template, "spec": {**template["spec"], "nodeSelector": {"orbweaver.io/parked": "true"}}}
    store.update({**obj, "spec": {**obj["spec"], "template": parked}})
    store.close()


def given_out(orbweaver, pool: str, allocated: dict[str, dict[str, str]] | str) -> None:
    """What Spiderpool writes into a pool's status."""
    store = orbweaver.store()
    text = allocated if isinstance(allocated, str) else json.dumps(allocated)
    store.update_status({**store.get("SpiderIPPool", pool), "status": {"allocatedIPs": text}})
    store.close()


def test_a_dry_run_shows_pools_and_who_has_what_and_changes_nothing(orbweaver, spiderpool, make_pool):
    orbweaver.apply(make_pool("blue"))
    given_out(orbweaver, "blue", HELD)
    before = orbweaver("get", "sp,se,sb", "-A", "-o", "json").json

    outcome = orbweaver("takeover", "--from", "spiderpool", "--dry-run")

    assert outcome.status == DONE, outcome
    assert "blue   10.6.0.0/16   2        10.6.0.10-10.6.0.19" in outcome.out
    assert "1 pools, 2 addresses in use by 2 pods." in outcome.out
    assert "Nothing was changed." in outcome.out
    assert orbweaver("get", "sp,se,sb", "-A", "-o", "json").json == before


def test_a_dry_run_can_be_read_by_programs(orbweaver, spiderpool, make_pool):
    orbweaver.apply(make_pool("blue"))
    given_out(orbweaver, "blue", HELD)

    told = orbweaver("takeover", "--from", "spiderpool", "-o", "json").json

    assert told["possible"] is True
    assert [pool["metadata"]["name"] for pool in told["pools"]] == ["blue"]
    assert [(entry["address"], entry["pod"]) for entry in told["allocations"]] == [
        ("10.6.0.11", "default/web-a"),
        ("10.6.0.12", "default/web-b"),
    ]


def test_what_forbids_it_is_told_and_is_the_exit_status(orbweaver, spiderpool, make_pool):
    """An address that two pools gave to two pods, and a status that nobody can read."""
    for number, pool in enumerate(("blue", "red", "torn"), 1):
        orbweaver.apply(make_pool(pool, ips=f"10.6.0.{number}0-10.6.0.{number}9"))
    given_out(orbweaver, "blue", HELD)
    given_out(orbweaver, "red", {"10.6.0.11": {"pod": "default/other", "podUid": "u9"}})
    given_out(orbweaver, "torn", "{")

    outcome = orbweaver("takeover", "--from", "spiderpool", "--yes")

    assert outcome.status == FORBIDDEN
    assert "10.6.0.11 is recorded twice, for pod default/web-a (SpiderIPPool blue" in outcome.out
    assert "pool torn: status.allocatedIPs was written by another IPAM and cannot be read" in outcome.out


def test_what_is_wrongly_asked_is_refused(orbweaver, make_pool):
    orbweaver.apply(make_pool("blue"))

    assert orbweaver("takeover").status == 2
    assert orbweaver("takeover", "--from", "nobody").status == 2
    assert orbweaver("takeover", "--from", "spiderpool", "--yes", "-o", "json").status == 1
    assert "no DaemonSet runs `spiderpool-agent`" in orbweaver("takeover", "--from", "spiderpool").err


def test_what_is_not_as_the_swap_needs_it_is_told_before(orbweaver, make_pool):
    """Ours runs as well, and nothing was taken over that could be given back."""
    orbweaver.apply(make_pool("blue"))
    store = orbweaver.store()
    install(store)
    store.close()

    outcome = orbweaver("takeover", "--from", "spiderpool")

    assert outcome.status == FORBIDDEN
    assert "Orbweaver runs already in namespace orbweaver-system, beside Spiderpool" in outcome.out
    outcome = orbweaver("takeover", "--from", "spiderpool", "--back")
    assert outcome.status == FORBIDDEN
    assert "Spiderpool was not taken over from" in outcome.out
