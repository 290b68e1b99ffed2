"""The election on a real store: one wins, clocks of others count for nothing, and who lost it knows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.cluster.lease import ADDRESS, Holder, LeaseCandidate, Timing, read_holder
from actors.errors import InvalidObject, OrbweaverError, StoreUnavailable
from actors.store.sqlite.store import SQLiteStore
from tests.support.faulty_store import Fault, FaultyStore, How, Write

TIMING = Timing(lease=15, renew=10, retry=2)


class Replica:
    """A candidate with a clock of its own, which the test moves."""

    def __init__(self, store: Any, name: str, wall: float = 1e9) -> None:
        self.now, self.wall = 0.0, wall
        self.told: list[str] = []
        self.candidate = LeaseCandidate(
            store, "lease", "system", identity=name, address=f"{name}:5722", timing=TIMING,
            on_won=lambda: self.told.append("won"), on_lost=lambda why: self.told.append("lost"),
            clock=lambda: self.now, wall=lambda: self.wall,
        )  # fmt: skip

    def turn(self, seconds: float = 0.0) -> bool:
        """Some time passes, and it does its turn; whether it holds."""
        self.now += seconds
        self.wall += seconds
        self.candidate.turn()
        return self.candidate.holds()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FaultyStore]:
    inner = SQLiteStore(tmp_path / "x.db")
    yield FaultyStore(inner)
    inner.close()


def test_one_wins_and_the_others_wait(store: FaultyStore):
    one, two = Replica(store, "one"), Replica(store, "two")
    assert one.turn()
    for _ in range(10):
        assert one.turn(2)
        assert not two.turn(2)
    assert read_holder(store, "lease", "system") == Holder("one", "one:5722")
    assert (one.told, two.told) == (["won"], [])


def test_a_lease_runs_out_by_the_observer_s_own_clock(store: FaultyStore):
    """The holder's wall clock is a year ahead: it counts for nothing, how long the Lease stands unchanged does."""
    one, two = Replica(store, "one", wall=1e9 + 3e7), Replica(store, "two")
    assert one.turn()
    assert not two.turn(1000)  # it sees the Lease for the first time, however old that is
    assert not two.turn(14)
    assert two.turn(1.5)
    spec = store.get("Lease", "lease", "system")["spec"]
    assert (spec["holderIdentity"], spec["leaseTransitions"]) == ("two", 1)
    assert not one.candidate.holds() or one.now < TIMING.renew
    assert not one.turn(2)
    assert one.told == ["won", "lost"]


def test_a_renewal_starts_the_wait_anew(store: FaultyStore):
    one, two = Replica(store, "one"), Replica(store, "two")
    one.turn()
    two.turn()
    two.turn(14)
    one.turn(2)
    assert not two.turn(14)
    assert not two.turn(14)
    assert two.turn(1.5)


def test_who_was_paused_knows_it_before_it_does_anything(store: FaultyStore):
    one = Replica(store, "one")
    one.turn()
    one.now += 10.1  # nothing of it ran meanwhile
    assert not one.candidate.holds()
    assert one.turn() is False
    assert one.told == ["won", "lost"]


def test_a_holder_that_ends_leaves_the_lease_to_the_next(store: FaultyStore):
    one, two = Replica(store, "one"), Replica(store, "two")
    one.turn()
    two.turn()
    one.candidate.stop()
    assert read_holder(store, "lease", "system") is None
    assert two.turn()
    assert one.told == ["won"]  # it ended by itself; nobody need tell it


def test_a_renewal_whose_answer_is_lost_is_found(tmp_path: Path):
    faults: list[Fault] = []

    def plan(write: Write) -> Fault | None:
        return faults.pop() if faults else None

    inner = SQLiteStore(tmp_path / "x.db")
    one = Replica(FaultyStore(inner, plan), "one")
    one.turn()
    faults.append(Fault(How.AFTER))
    assert one.turn(2)
    assert one.turn(2)
    assert one.told == ["won"]
    inner.close()


def test_a_store_that_is_away_ends_the_leadership_at_the_renew_deadline(store: FaultyStore):
    one = Replica(store, "one")
    one.turn()
    store.away = True
    assert one.turn(4)
    assert one.turn(4)
    assert not one.turn(4)
    assert one.told == ["won", "lost"]
    with pytest.raises(StoreUnavailable):
        one.turn(2)
    store.away = False
    assert one.turn(2)
    assert one.told == ["won", "lost", "won"]


def test_a_lease_that_somebody_deleted_is_lost(store: FaultyStore):
    one = Replica(store, "one")
    one.turn()
    store.inner.delete("Lease", "lease", "system")
    assert not one.turn(2)
    assert one.turn(2)
    assert one.told == ["won", "lost", "won"]


def test_who_cannot_lead_gives_the_lease_up(store: FaultyStore):
    one, two = Replica(store, "one"), Replica(store, "two")

    def refuse() -> None:
        raise OrbweaverError("the blocks cannot be read")

    one.candidate._on_won = refuse
    assert not one.turn()
    assert two.turn()


def test_the_address_is_told_even_by_a_successor(store: FaultyStore):
    Replica(store, "one").turn()
    lease = store.get("Lease", "lease", "system")
    assert lease["metadata"]["annotations"] == {ADDRESS: "one:5722"}
    assert lease["spec"]["leaseDurationSeconds"] == 15


@pytest.mark.parametrize("times", [(10, 15, 2), (15, 10, 11), (15, 10, 0)])
def test_times_out_of_order_are_refused(times: tuple[float, float, float]):
    with pytest.raises(InvalidObject, match="the longest first"):
        Timing(*times)
