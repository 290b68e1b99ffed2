"""The simulation of a cluster that comes back, small: every pod gets an address, and nothing is lost on the way."""

from __future__ import annotations

from dataclasses import replace

from tests.simulation.power_failure import Cluster, leader, without_a_leader

SMALL = Cluster(nodes=40, pods=800, pools=4, within=0.2)


def test_all_pods_get_an_address_from_one_leader():
    """`leader` itself checks that the blocks and the Ledger say what the pods were told."""
    outcome = leader(SMALL)

    assert outcome.attempts == SMALL.pods
    assert outcome.refused == {}
    assert outcome.blocks == 4 * 4


def test_who_finds_the_mailbox_full_comes_back():
    outcome = leader(replace(SMALL, bound=20))

    assert outcome.refused["overloaded"] > 0
    assert outcome.attempts == SMALL.pods + sum(outcome.refused.values())


def test_a_leader_that_is_asked_too_much_answers_everybody_in_time():
    """It refuses what has waited for half of its callers' patience, in all pools, so nobody takes it for lost."""
    asked = replace(SMALL, patience=0.6)
    outcome = leader(asked)

    assert set(outcome.refused) == {"overloaded"}
    assert "no answer in time" in leader(replace(asked, start_fraction=1.0)).refused


def test_shards_share_the_work():
    assert leader(replace(SMALL, shards=4)).seconds_to["all"] < leader(SMALL).seconds_to["all"]


def test_agents_alone_get_by():
    outcome = without_a_leader(SMALL)

    assert outcome.refused["conflict"] > 0
    assert outcome.api["requests"] > 2 * SMALL.pods - SMALL.pods
