"""What the leader believes of agents that watch over their nodes: as long as they are there, and of what they can see."""

from __future__ import annotations

import pytest

from actors.allocation.messages import NodeSandbox
from actors.allocation.node_watches import CNI_LASTS, CNI_TOLD, NodeWatches
from actors.decisions.node_cni import NodeCniTypes
from actors.decisions.node_watch import NOBODY, NodeWatch

NOW = 1_700_000_000.0
AWAY = 120.0


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_an_agent_is_believed_for_a_while_after_its_last_word():
    clock = Clock()
    watches = NodeWatches(clock)
    clock.now += 50
    assert watches.watch("n1", "c1", AWAY, NOW) == NodeWatch(NOW + 70), "it may be about to connect"

    watches.heard("n1", True, ())
    clock.now += 10
    assert watches.watch("n1", "c1", AWAY, NOW) == NodeWatch(NOW + 110, heard=True)
    clock.now += 200
    assert watches.watch("n1", "c1", AWAY, NOW).until < NOW


def test_a_leader_that_begins_gives_everybody_time_anew():
    clock = Clock()
    watches = NodeWatches(clock)
    watches.heard("n1", True, ())
    watches.heard("n2", False, ())
    clock.now += 500
    watches.begin()

    assert (
        watches.watch("n1", "c1", AWAY, NOW) == watches.watch("n2", "c1", AWAY, NOW) == NodeWatch(NOW + AWAY)
    )


def test_what_an_agent_cannot_see_nobody_watches():
    watches = NodeWatches(Clock())
    one, two = NodeSandbox("c1", "default/a"), NodeSandbox("c2", "default/b")

    assert watches.heard("n1", True, (one,)) == (False, (one,))
    assert watches.heard("n1", True, (one, two)) == (False, (two,)), "the first is known"
    assert watches.watch("n1", "c1", AWAY, NOW) == NOBODY
    assert watches.watch("n1", "c9", AWAY, NOW).heard
    assert watches.heard("n1", False, ()) == (True, ())
    assert watches.heard("n1", False, ()) == (False, ()), "that is known too"
    assert watches.watch("n1", "c9", AWAY, NOW) == NOBODY
    assert watches.heard("n1", True, ()) == (False, ())
    assert watches.watch("n1", "c1", AWAY, NOW).heard


def test_an_agent_learns_that_somebody_else_recorded_something_for_its_node():
    watches = NodeWatches(Clock())
    at_first = {node: watches.foreign_version(node) for node in ("n1", "n2")}
    watches.recorded(["n1"])
    once = watches.foreign_version("n1")
    watches.recorded(["n1"])

    assert len({at_first["n1"], once, watches.foreign_version("n1")}) == 3
    assert watches.foreign_version("n2") == at_first["n2"]


def test_every_agent_asks_a_leader_that_begins_what_is_recorded():
    """What a takeover recorded while nobody led was told to none of them."""
    watches, other = NodeWatches(Clock()), NodeWatches(Clock())
    watches.recorded(["n1"])
    before = {node: watches.foreign_version(node) for node in ("n1", "n2")}
    watches.begin()

    for leader in (watches, other):
        assert all(leader.foreign_version(node) != number for node, number in before.items())


def test_of_more_nodes_than_there_can_be_each_is_told_once_too_often(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("actors.allocation.node_watches._MANY", 2)
    watches = NodeWatches(Clock())
    before = watches.foreign_version("n9")
    watches.recorded(["n1", "n2", "n3"])

    assert watches.foreign_version("n9") == watches.foreign_version("n3") != before


def test_nobody_watches_a_record_that_names_no_sandbox():
    """As one that was taken over from another IPAM; else it would stay for as long as the agent is there."""
    watches = NodeWatches(Clock())
    assert watches.watch("n1", "", AWAY, NOW) == NOBODY

    watches.heard("n1", True, ())
    assert watches.watch("n1", "", AWAY, NOW) == NOBODY


def test_nodes_that_are_long_gone_are_forgotten():
    clock = Clock()
    watches = NodeWatches(clock)
    for number in range(5000):
        clock.now += 100
        watches.heard(f"n{number}", True, ())

    assert not watches.watch("n0", "c1", AWAY, NOW).heard
    assert watches.watch("n4999", "c1", AWAY, NOW).heard


def test_which_networks_nodes_have_is_known_while_they_tell_of_it():
    clock = Clock()
    watches = NodeWatches(clock)
    assert watches.heard_cni("n1", "calico")
    assert watches.heard_cni("n2", "cilium")
    clock.now += CNI_TOLD + 1
    assert not watches.heard_cni("n1", "calico")
    assert watches.cni_types() == NodeCniTypes({"calico": ["n1"], "cilium": ["n2"]})

    clock.now += CNI_LASTS - 1
    assert watches.cni_types() == NodeCniTypes({"calico": ["n1"]})
    assert watches.heard_cni("n1", "none"), "that is news"
    watches.begin()
    assert watches.cni_types() == NodeCniTypes({}, early=True)
