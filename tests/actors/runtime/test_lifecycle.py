"""Crashes against the supervision table, the end of the process, observers and timers, in one process."""

from __future__ import annotations

import contextlib
import logging
import re
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from actors.errors import (
    MessageDropped,
    PeerLost,
    StoreUnavailable,
)
from actors.runtime import (
    Actor,
    ActorContext,
    ActorSystem,
    Child,
    ObjectRef,
    Restart,
    get,
    message,
)
from tests.actors.runtime import cast
from tests.actors.runtime.conftest import eventually
from tests.actors.runtime.watched import Counts, Watched, watched


def test_one_crash_too_many_is_fatal_once() -> None:
    fatal: list[str] = []
    system = ActorSystem(
        "x", supervision=[Child("watched", max_crashes=2, period=60.0)], on_fatal=fatal.append
    )
    watched(system)
    outcomes = []
    for name in "abcde":
        with pytest.raises(PeerLost):
            get(system.get_actor(f"watched/{name}").crash.remote(), timeout=60)
        outcomes.append(len(fatal))
    system.shutdown()

    assert outcomes == [0, 0, 1, 1, 1]
    assert "3 different crashes of 'watched' actors within 60 s" in fatal[0]
    assert "watched/c" in fatal[0]


def test_what_an_actor_tells_itself_may_crash_as_often_as_it_likes() -> None:
    """A record that its timer meets each time ends no process, as long as the actor is the same, and the place."""
    fatal: list[str] = []
    supervision = [Child("watched", max_crashes=2, period=60.0)]
    system = ActorSystem("x", supervision=supervision, on_fatal=fatal.append)
    journal = watched(system)

    def work(actor: Actor) -> None:
        actor.post(crash)

    def crash() -> None:
        raise RuntimeError("nobody is there")

    for _ in range(6):
        with contextlib.suppress(PeerLost, MessageDropped):
            get(system.get_actor("watched/a").call.remote(work), timeout=60)
        eventually(lambda: not system.activations)
    system.shutdown()

    assert fatal == []
    assert journal.count("+watched/a") >= 2


def test_an_actor_that_cannot_begin_ends_the_process() -> None:
    fatal: list[str] = []
    system = ActorSystem("x", supervision=[Child("broken", max_crashes=2)], on_fatal=fatal.append)

    def broken(context: ActorContext) -> Actor:
        raise RuntimeError("it cannot begin")

    system.register("broken", broken)
    for _ in range(3):
        with pytest.raises(PeerLost):
            get(system.get_actor("broken/a").call.remote(), timeout=60)
    system.shutdown()

    assert len(fatal) == 1


def test_actors_of_single_tenants_never_end_the_process() -> None:
    fatal: list[str] = []
    system = ActorSystem("x", supervision=[Child("watched", max_crashes=None)], on_fatal=fatal.append)
    watched(system)
    for number in range(20):
        with pytest.raises(PeerLost):
            get(system.get_actor(f"watched/{number}").crash.remote(), timeout=60)
    system.shutdown()

    assert fatal == []


def test_crashes_are_forgotten_after_the_period() -> None:
    fatal: list[str] = []
    system = ActorSystem(
        "x", supervision=[Child("watched", max_crashes=1, period=0.01)], on_fatal=fatal.append
    )
    watched(system)
    for name in "abc":
        with pytest.raises(PeerLost):
            get(system.get_actor(f"watched/{name}").crash.remote(), timeout=60)
        time.sleep(0.02)  # The period itself.
    system.shutdown()

    assert fatal == []


def test_an_actor_that_works_unasked_comes_back_by_itself() -> None:
    system = ActorSystem("x", supervision=[Child("watched", restart=Restart.AT_ONCE)])
    journal = watched(system)
    with pytest.raises(PeerLost):
        get(system.get_actor("watched/a").crash.remote(), timeout=60)
    eventually(lambda: journal == ["+watched/a", "+watched/a"])
    system.shutdown()


def test_one_that_cannot_load_yet_comes_back_by_itself(tmp_path: Path) -> None:
    system = ActorSystem("x", supervision=[Child("worker", restart=Restart.AT_ONCE)])
    cast.register(system)
    name = f"worker/unloadable{tmp_path / 'there'}"
    with pytest.raises(StoreUnavailable):
        get(system.get_actor(name).echo.remote(), timeout=60)
    (tmp_path / "there").touch()
    eventually(lambda: [row.name for row in system.describe() if row.state == "idle"] == [name])
    system.shutdown()


def test_the_end_lets_what_has_begun_finish_in_the_order_of_the_table() -> None:
    table = [Child("upper", order=1), Child("lower", order=2)]
    system = ActorSystem("x", supervision=table)
    upper, lower = watched(system, "upper"), watched(system, "lower")
    finished: list[str] = []

    def last_words(actor: Watched) -> None:
        finished.append(actor.context.name)

    def work(actor: Watched) -> ObjectRef[str]:
        answer: ObjectRef[str] = ObjectRef()

        def below(ref: ObjectRef[Any]) -> None:
            # A call made while the system drains, on behalf of one that was accepted before.
            actor.then(actor.get_actor("lower/b").call.remote(last_words), answer.follow)

        actor.after(0.1, lambda: actor.then(actor.get_actor("lower/b").call.remote(id), below))
        return answer

    answers = [system.get_actor(f"upper/{number}").call.remote(work) for number in range(5)]
    left = system.shutdown(drain=60.0)

    assert left == ()
    assert get(answers, timeout=0) == [None] * 5
    assert finished == ["lower/b"] * 5
    assert len([entry for entry in upper if entry.startswith("-")]) == 5
    assert lower == ["+lower/b", "-lower/b"]


def test_the_end_says_what_it_left_and_fails_its_callers(tmp_path: Path) -> None:
    system = ActorSystem("x")
    cast.register(system)
    worker = system.get_actor("worker/stuck")
    gate = worker.gate.remote(str(tmp_path / "go"))
    behind = worker.echo.remote(1)
    held = system.get_actor("worker/held").hold.remote("x")
    left = system.shutdown(drain=0.1)
    assert not gate.done(), "it did not wait for what is stuck"
    (tmp_path / "go").touch()

    assert [row.name for row in left] == ["worker/held", "worker/stuck"]
    for ref in (behind, held):
        with pytest.raises(PeerLost, match="shutting down"):
            get(ref, timeout=60)
    assert get(gate, timeout=60) == "open"


def test_what_on_passivate_begins_at_the_end_is_finished() -> None:
    written: list[str] = []

    class Flushes(Actor):
        flushed = False

        def on_passivate(self) -> bool:
            if not self.flushed:
                self.flushed = True
                self.post(written.append, "flushed")
            return False

        @message
        def dirty(self) -> None:
            pass

    system = ActorSystem("x")
    system.register("flushes", Flushes)
    get(system.get_actor("flushes/a").dirty.remote())

    assert system.shutdown(drain=60.0) == ()
    assert written == ["flushed"]


def test_after_the_end_no_thread_is_left() -> None:
    before = set(threading.enumerate())
    system = ActorSystem("x")
    cast.register(system)
    get([system.get_actor(f"worker/{number}").echo.remote() for number in range(20)], timeout=60)
    get(system.get_actor("worker/0").later.remote(0.0, 1), timeout=60)
    system.shutdown(drain=60.0)

    def left() -> list[str]:
        # Those that wait for another system's actors, or end, belong to nobody.
        names = [thread.name for thread in set(threading.enumerate()) - before]
        return [name for name in names if not re.fullmatch(r"actor-\d+", name)]

    eventually(lambda: not left())


def test_an_observer_hears_what_happens() -> None:
    counts = Counts()
    system = ActorSystem("x", counts)
    watched(system, mailbox=0)
    cast.register(system)
    worker = system.get_actor("worker/a")
    get(worker.echo.remote())
    for ref in (
        worker.echo.options(timeout=0).remote(),
        worker.crash.remote(),
        system.get_actor("watched/a").crash.remote(),
    ):
        assert ref is not None
        eventually(ref.done)
    system.shutdown()

    # Two actors are at work, so the order among them is open.
    assert sorted(counts.events) == [
        "activated worker",
        "crashed worker KeyError",
        "dropped worker echo",
        "handled worker echo",
        "overloaded watched crash",
    ]


def test_a_broken_observer_is_switched_off_and_breaks_nothing(caplog: pytest.LogCaptureFixture) -> None:
    counts = Counts()
    counts.broken = True
    system = ActorSystem("x", counts)
    cast.register(system)
    with caplog.at_level(logging.ERROR, "orbweaver.runtime"):
        answers = [get(system.get_actor("worker/a").echo.remote(number)) for number in range(3)]
    system.shutdown()

    assert answers == [0, 1, 2]
    assert [record.message for record in caplog.records if "switched off" in record.message] == [
        f"the runtime's observer {counts!r} failed and is switched off"
    ]


def test_a_broken_callback_of_a_reference_breaks_nobody_else(caplog: pytest.LogCaptureFixture) -> None:
    ref: ObjectRef[int] = ObjectRef()
    seen: list[int] = []
    ref.subscribe(lambda done: 1 / 0)
    ref.subscribe(lambda done: seen.append(done.result()))
    with caplog.at_level(logging.ERROR, "orbweaver.runtime"):
        assert ref.complete(1)

    assert seen == [1]
    assert not ref.complete(2)
    assert not ref.fail(KeyError())
    assert get(ref) == 1
    assert "ZeroDivisionError" in caplog.text


def test_timers_that_are_cancelled_do_not_stay_in_memory(local: ActorSystem) -> None:
    for _ in range(5000):
        local.timers.at(time.monotonic() + 3600, lambda: None).cancel()

    assert len(local.timers._heap) < 1000
