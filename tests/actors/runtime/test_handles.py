"""The contract of handles: the same wherever the actor lives."""

from __future__ import annotations

import random
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from actors.errors import (
    DeadlineExceeded,
    MessageDropped,
    NoAddress,
    Overloaded,
    PeerLost,
    ProtocolError,
    StoreUnavailable,
)
from actors.runtime import ObjectRef, Trace, get, request_scope, wait
from tests.actors.runtime.cast import SMALL, Colour, Point, Shape
from tests.actors.runtime.conftest import Place


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        -1,
        1 << 127,
        -(1 << 200),
        1.5,
        "pool",
        b"\x00\xff",
        [1, [2]],
        (1, (2, [3])),
        {"a": (1,), "7": "seven"},
        frozenset({"a", "b"}),
        Colour.BLUE,
        Point(1, 2),
        Shape("line", (Point(0, 0), Point(1 << 100, 5, Colour.BLUE)), frozenset({"thin"})),
    ],
)
def test_a_value_arrives_as_what_it_was(place: Place, value: Any) -> None:
    back = get(place.actor("worker/a").echo.remote(value), timeout=60)

    assert value == back
    assert type(value) is type(back)


def test_keyword_arguments_arrive(place: Place) -> None:
    assert get(place.actor("worker/a").echo.remote(value=3), timeout=60) == 3


def test_one_sender_s_messages_are_handled_in_order(place: Place) -> None:
    worker = place.actor("worker/ordered")
    refs = [worker.add.remote(number) for number in range(2000)]

    assert get(refs, timeout=60) == list(range(1, 2001))
    assert get(worker.all_seen.remote(), timeout=60) == list(range(2000))


def test_a_deferred_reply_lets_the_next_message_pass(place: Place) -> None:
    worker = place.actor("worker/a")
    held = worker.hold.remote("x")

    assert get(worker.echo.remote("passed"), timeout=60) == "passed"
    assert not held.done()

    get(worker.let_go.remote("x", "answer"), timeout=60)
    assert get(held, timeout=60) == "answer"


def test_a_refusal_arrives_as_the_error_it_was_and_the_actor_lives(place: Place) -> None:
    worker = place.actor("worker/a")
    get(worker.add.remote(1), timeout=60)
    with pytest.raises(NoAddress) as caught:
        get(worker.refuse.remote("no address for pod default/web-0"), timeout=60)

    assert caught.value.message == "no address for pod default/web-0"
    assert caught.value.details == ("pool blue: exhausted", "pool red: wrong node")
    assert get(worker.all_seen.remote(), timeout=60) == [1]


def test_a_crash_loses_its_caller_and_everyone_waiting_and_the_next_call_finds_it_restarted(
    place: Place, tmp_path: Path
) -> None:
    worker = place.actor("worker/crasher")
    get(worker.add.remote(1), timeout=60)
    deferred = worker.hold.remote("never")
    gate = worker.gate.remote(str(tmp_path / "go"))
    crashing = worker.crash.remote("the bug")
    waiting = worker.add.remote(2)
    get(place.actor("worker/other").echo.remote(), timeout=60)  # so they have all arrived before the crash
    (tmp_path / "go").touch()

    assert get(gate, timeout=60) == "open"
    for ref in (crashing, waiting, deferred):
        with pytest.raises(PeerLost, match="worker/crasher crashed in crash"):
            get(ref, timeout=60)
    assert get(worker.all_seen.remote(), timeout=60) == []
    assert get(worker.activations.remote(), timeout=60) == 2


def test_a_message_that_crashed_the_actor_twice_is_dropped_wherever_it_lives(place: Place) -> None:
    worker = place.actor("worker/repeated")
    for _ in range(2):
        with pytest.raises(PeerLost, match="worker/repeated crashed in crash"):
            get(worker.crash.remote("the bug"), timeout=60)
    get(worker.add.remote(1), timeout=60)
    for _ in range(3):
        with pytest.raises(MessageDropped, match="crashed on this very crash"):
            get(worker.crash.remote("the bug"), timeout=60)

    assert get(worker.all_seen.remote(), timeout=60) == [1]
    with pytest.raises(PeerLost):
        get(place.actor("worker/other").crash.remote("the bug"), timeout=60)  # another actor, another message


def test_an_actor_that_cannot_load_refuses_with_the_reason_and_tries_again(
    place: Place, tmp_path: Path
) -> None:
    marker = tmp_path / "there"
    worker = place.actor(f"worker/unloadable{marker}")
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="the store is away"):
            get(worker.echo.remote(1), timeout=60)
    marker.touch()

    assert get(worker.echo.remote(1), timeout=60) == 1


@pytest.mark.parametrize("method", ["not_a_message", "no_such", "on_activate", "post"])
def test_only_messages_can_be_called(place: Place, method: str) -> None:
    with pytest.raises(ProtocolError, match=f"no message '{method}'"):
        get(getattr(place.actor("worker/a"), method).remote(), timeout=60)


def test_arguments_that_do_not_fit_are_refused_and_the_actor_lives(place: Place) -> None:
    worker = place.actor("worker/a")
    get(worker.add.remote(1), timeout=60)
    with pytest.raises(ProtocolError, match="argument"):
        get(worker.add.remote(1, 2, 3), timeout=60)

    assert get(worker.all_seen.remote(), timeout=60) == [1]


def test_an_unknown_kind_is_an_error_of_the_call(place: Place) -> None:
    with pytest.raises(ProtocolError, match="nobody"):
        get(place.actor("nobody/x").echo.remote(), timeout=60)


def test_a_full_mailbox_answers_overloaded_at_once(place: Place, tmp_path: Path) -> None:
    small = place.actor("small/full")
    gate = small.gate.remote(str(tmp_path / "go"))
    # The gate may not have left the mailbox yet: fill until it says so, then it holds exactly SMALL.
    refs = [small.add.remote(number) for number in range(SMALL + 2)]
    overloaded, _ = wait(refs, num_returns=1, timeout=60)

    with pytest.raises(Overloaded, match="mailbox of small/full is full"):
        get(overloaded[0])
    assert not gate.done()
    (tmp_path / "go").touch()
    outcomes = wait(refs, num_returns=len(refs), timeout=60)[0]
    assert len(outcomes) == len(refs)
    assert sum(ref.error() is None for ref in refs) in (SMALL - 1, SMALL)


def test_what_waited_too_much_of_its_caller_s_time_is_refused_unhandled(place: Place, tmp_path: Path) -> None:
    """`start_fraction` is a thousandth here: 30 ms of 30 s, and hours of what has a year."""
    hasty = place.actor("hasty/a")
    gate = hasty.gate.options(timeout=1e7).remote(str(tmp_path / "go"))
    waiting = hasty.add.options(timeout=30).remote("brief")
    patient = hasty.add.options(timeout=1e7).remote("patient")
    get(place.actor("worker/other").later.remote(0.1, None), timeout=60)
    (tmp_path / "go").touch()

    with pytest.raises(Overloaded, match="nothing was done"):
        get(waiting, timeout=60)
    get([gate, patient], timeout=60)
    assert get(hasty.all_seen.remote(), timeout=60) == ["patient"]


def test_an_urgent_message_passes_all_that_wait_also_in_a_full_mailbox(place: Place, tmp_path: Path) -> None:
    hasty = place.actor("hasty/b")
    gate = hasty.gate.remote(str(tmp_path / "go"))
    waiting = [hasty.later.remote(0.0, number) for number in range(SMALL + 2)]
    overloaded, _ = wait(waiting, num_returns=1, timeout=60)
    assert isinstance(overloaded[0].error(), Overloaded)
    urgent = hasty.echo.options(timeout=60).remote("alive")
    before: list[bool] = []
    urgent.subscribe(lambda _: before.extend(ref.done() for ref in waiting))
    get(place.actor("worker/other").echo.remote(), timeout=60)  # so it has arrived
    assert not gate.done()
    (tmp_path / "go").touch()

    assert get(urgent, timeout=60) == "alive"
    get(gate, timeout=60)
    wait(waiting, num_returns=len(waiting), timeout=60)
    assert before.count(False) >= SMALL - 1


def test_the_caller_hears_at_the_deadline_and_the_message_is_dropped_unhandled(
    place: Place, tmp_path: Path
) -> None:
    worker = place.actor("worker/late")
    gate = worker.gate.remote(str(tmp_path / "go"))
    began = time.monotonic()
    late = worker.add.options(timeout=0.1).remote("late")
    with pytest.raises(DeadlineExceeded):
        get(late)
    assert time.monotonic() - began >= 0.1
    assert not gate.done(), "its actor was busy all the while"
    # The time a message has left is told to the other process, whose clock goes on when it arrives: surely
    # before this answer.
    get(place.actor("worker/other").echo.remote(), timeout=60)
    time.sleep(0.1)
    (tmp_path / "go").touch()

    assert get(gate, timeout=60) == "open"
    assert get(worker.all_seen.remote(), timeout=60) == []


def test_a_deferred_reply_s_caller_hears_at_the_deadline(place: Place) -> None:
    worker = place.actor("worker/silent")
    first, rest = wait([worker.hold.options(timeout=0.1).remote("waited")], timeout=60)
    with pytest.raises(DeadlineExceeded):
        get(worker.hold.options(timeout=0.05).remote("got"))

    assert rest == []
    assert isinstance(first[0].error(), DeadlineExceeded)


def test_a_timeout_of_get_leaves_the_call_alone(place: Place) -> None:
    worker = place.actor("worker/a")
    held = worker.hold.remote("x")
    with pytest.raises(DeadlineExceeded):
        get(held, timeout=0.01)
    worker.let_go.remote("x", 1)

    assert get(held, timeout=60) == 1


def test_the_deadline_travels_with_calls_made_on_behalf(place: Place) -> None:
    worker = place.actor("worker/a")
    left = get(worker.relay.options(timeout=60.0).remote("worker/b", "relay", "worker/c", "time_left"))

    assert 0 < left <= 60.0
    assert get(worker.relay.remote("worker/b", "time_left"), timeout=60) is None


def test_the_front_end_s_scope_gives_deadline_and_trace(place: Place) -> None:
    trace = Trace("req-1", "default/web-0", "c0ffee")
    with request_scope(trace, timeout=60.0):
        asked = place.actor("worker/a").relay_then.remote("worker/b", "request")
        left = place.actor("worker/a").time_left.remote()
        free = place.actor("worker/a").time_left.options(timeout=None).remote()

    assert get(asked, timeout=60) == ["relayed", ["req-1", "default/web-0", "c0ffee"]]
    assert 0 < get(left) <= 60.0
    assert get(free, timeout=60) is None
    assert get(place.actor("worker/a").request.remote(), timeout=60) is None


def test_wait_gives_the_first_ready(place: Place) -> None:
    worker = place.actor("worker/a")
    held = [worker.hold.remote(str(number)) for number in range(3)]
    get(worker.let_go.remote("1", "one"), timeout=60)
    ready, rest = wait(held, timeout=60)

    assert (ready, rest) == ([held[1]], [held[0], held[2]])
    assert wait(rest, num_returns=2, timeout=0.01) == ([], rest)
    with pytest.raises(ValueError):
        wait(rest, num_returns=3)


def test_many_threads_and_many_actors_lose_and_double_nothing(place: Place) -> None:
    """N threads x M actors, at random, with actors that are passivated whenever they have nothing to do."""
    threads, each = 8, 250
    answers: list[list[tuple[str, int, ObjectRef[Any]]]] = [[] for _ in range(threads)]
    doubled: list[str] = []

    def work(number: int) -> None:
        choice = random.Random(number)
        for serial in range(each):
            actor = f"{choice.choice(['brief', 'worker'])}/{choice.randrange(5)}"
            ref = place.actor(actor).echo.remote([number, serial])
            calls: list[int] = []

            def count(_ref: object, calls: list[int] = calls, actor: str = actor) -> None:
                calls.append(1)
                if len(calls) > 1:
                    doubled.append(actor)

            ref.subscribe(count)
            answers[number].append((actor, serial, ref))
            if choice.random() < 0.1:
                get(ref, timeout=60)
            if choice.random() < 0.02:
                time.sleep(0.003)  # Longer than the idle time of `brief`: actors come and go meanwhile.

    workers = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(threads)]
    for thread in workers:
        thread.start()
    for thread in workers:
        thread.join()

    for number, sent in enumerate(answers):
        for _actor, serial, ref in sent:
            assert get(ref, timeout=60) == [number, serial]
    assert doubled == []


def test_a_thousand_callers_of_a_cold_actor_activate_it_once(place: Place) -> None:
    worker = place.actor("worker/cold")
    start = threading.Barrier(16)

    def call() -> None:
        start.wait()
        refs.extend(worker.add.remote(number) for number in range(64))

    refs: list[ObjectRef[int]] = []
    callers = [threading.Thread(target=call, daemon=True) for _ in range(16)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()

    assert sorted(get(refs, timeout=60)) == list(range(1, 1025))
    assert get(worker.activations.remote(), timeout=60) == 1


def test_after_a_shutdown_calls_are_refused_at_once(place: Place) -> None:
    worker = place.actor("worker/a")
    get(worker.echo.remote(1), timeout=60)
    held = worker.hold.remote("x")
    get(worker.echo.remote(1), timeout=60)
    place.system.shutdown()

    with pytest.raises(PeerLost):
        get(held, timeout=60)
    with pytest.raises(PeerLost, match="shutting down"):
        get(worker.echo.remote(1), timeout=60)
