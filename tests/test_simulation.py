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

    assert outcome.refused["full mailbox"] > 0
    assert outcome.attempts == SMALL.pods + sum(outcome.refused.values())


def test_who_is_not_answered_in_time_comes_back():
    """A message whose deadline passed is dropped unhandled, so the time goes to those that still wait."""
    outcome = leader(replace(SMALL, patience=0.1))

    assert outcome.refused["no answer in time"] > 0


def test_shards_share_the_work():
    assert leader(replace(SMALL, shards=4)).seconds_to["all"] < leader(SMALL).seconds_to["all"]


def test_agents_alone_get_by():
    outcome = without_a_leader(SMALL)

    assert outcome.refused["conflict"] > 0
    assert outcome.api["requests"] > 2 * SMALL.pods - SMALL.pods
