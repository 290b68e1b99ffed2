"""The simulation of a cluster that comes back, small: every pod gets an address, and nothing is lost on the way."""

from __future__ import annotations

from dataclasses import replace

import pytest

from actors.runtime import GateLimits
from tests.simulation.power_failure import Cluster, leader, without_a_leader
from tests.simulation.reconnect import Reconnect, reconnect

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


@pytest.mark.parametrize("tokens", [True, False], ids=["tokens", "certificates"])
def test_all_agents_come_to_a_new_leader(tokens: bool):
    """More than fit at the door; each is asked about once."""
    outcome = reconnect(Reconnect(agents=1000, within=0.1, tokens=tokens, limits=GateLimits(visitors=64)))

    assert outcome.reviews == (1000 if tokens else 0)
    assert outcome.seconds_to["all"] < 60


def test_a_slow_api_server_keeps_nobody_out_for_ever():
    outcome = reconnect(Reconnect(agents=300, review=0.2, cpus=1))

    assert outcome.reviews == 300
    assert outcome.timed_out > 0
