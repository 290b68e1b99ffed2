"""Events on simulated time: one write a minute for an object and a reason, everything counted, memory bounded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from actors.decisions.brief import LIMIT
from actors.runtime import Actor, ActorContext
from actors.store.sqlite.store import SQLiteStore
from actors.views.events import PAUSE, REMEMBERED, EventsActor
from tests.simulation.kernel import Kernel, Process
from tests.support.faulty_store import FaultyStore, Write


class Desk:
    """The actor in a process that begins at some time, and the store with a count of its writes."""

    def __init__(self, path: Path) -> None:
        self.kernel = Kernel()
        self.writes: list[Write] = []
        self.store = FaultyStore(SQLiteStore(path), self._note)
        self.start()

    def _note(self, write: Write) -> None:
        self.writes.append(write)

    def start(self) -> None:
        self.process = Process(self.kernel, self._make, cost=0.0, bound=10**6, at_once=frozenset())

    def _make(self, context: ActorContext) -> Actor:
        return EventsActor(context, store=self.store, component="agent", host="n1", clock=self._clock)

    def _clock(self) -> float:
        return 1_700_000_000 + self.kernel.now

    def refuse(self, pod: str = "web", reason: str = "NoAddress", text: str = "full") -> None:
        self.process.get_actor("events/local").refused.remote("prod", pod, f"uid-{pod}", reason, text)

    def run(self, seconds: float) -> None:
        until = self.kernel.now + seconds
        self.kernel.run(until)
        self.kernel.now = until

    @property
    def events(self) -> list[dict[str, Any]]:
        return list(self.store.list("Event").items)

    @property
    def remembered(self) -> int:
        return len(self.process.cells["events/local"].actor._series)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path / "events.db")


def test_the_first_is_written_at_once_and_the_rest_of_a_minute_at_its_end(desk: Desk):
    desk.refuse(text="first")
    desk.run(1)
    assert [event["count"] for event in desk.events] == [1]

    for number in range(100):
        desk.refuse(text=f"again {number}")
    desk.run(PAUSE / 2)
    assert len(desk.writes) == 1

    desk.run(PAUSE)
    (event,) = desk.events
    assert (event["count"], event["message"]) == (101, "again 99")
    assert event["lastTimestamp"] > event["firstTimestamp"]
    assert len(desk.writes) == 3, "it is tried to make it, and then counted"


def test_a_storm_of_an_hour_costs_a_write_a_minute(desk: Desk):
    for _ in range(360):
        desk.refuse()
        desk.run(10)
    desk.run(PAUSE)

    (event,) = desk.events
    assert event["count"] == 360
    assert len(desk.writes) <= 2 * 62


def test_pods_and_reasons_are_told_apart(desk: Desk):
    for pod, reason in (("a", "NoAddress"), ("a", "PodRefused"), ("b", "NoAddress")):
        for _ in range(3):
            desk.refuse(pod, reason)
    desk.run(2 * PAUSE)

    told = {(event["involvedObject"]["name"], event["reason"]): event["count"] for event in desk.events}
    assert told == {("a", "NoAddress"): 3, ("a", "PodRefused"): 3, ("b", "NoAddress"): 3}


def test_pods_that_are_gone_are_told_apart_on_their_pool(desk: Desk):
    for pod in ("prod/a", "prod/b"):
        reclaimed = desk.process.get_actor("events/local").reclaimed
        reclaimed.remote(pod, "", "blue", "PodGone", f"from {pod}")
    desk.run(1)

    assert sorted(event["message"] for event in desk.events) == ["from prod/a", "from prod/b"]
    assert {event["involvedObject"]["kind"] for event in desk.events} == {"SpiderIPPool"}


def test_a_process_that_starts_anew_counts_on(desk: Desk):
    desk.refuse()
    desk.run(1)
    desk.start()
    desk.refuse(text="later")
    desk.run(1)

    (event,) = desk.events
    assert (event["count"], event["message"]) == (2, "later")


def test_what_is_quiet_is_forgotten_and_what_is_remembered_is_bounded(desk: Desk):
    for number in range(REMEMBERED + 100):
        desk.refuse(f"web-{number}")
    desk.run(1)
    assert desk.remembered == REMEMBERED
    assert len(desk.events) == REMEMBERED + 100

    desk.run(2 * PAUSE)
    assert desk.remembered == 0


def test_an_event_is_never_longer_than_a_cni_error(desk: Desk):
    desk.refuse(text="x" * 5000)
    desk.run(1)

    assert len(desk.events[0]["message"]) == LIMIT


def test_an_event_that_cannot_be_written_is_forgotten(desk: Desk):
    desk.store.away = True
    desk.refuse()
    desk.run(1)
    desk.store.away = False
    desk.refuse()
    desk.run(2 * PAUSE)

    assert [event["count"] for event in desk.events] == [1]
