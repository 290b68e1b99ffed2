"""What is done again and again: until it is done, until somebody ends it, and with one line in the log for one error."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

import pytest

from actors.errors import StoreUnavailable
from actors.runtime.periodic import PeriodicThread

LONG = 3600.0
WAIT = 60.0
log = logging.getLogger("orbweaver.test")


def thread(turn: Callable[[], float | None], retry: float = LONG, first: float = 0.0) -> PeriodicThread:
    return PeriodicThread(
        "test", turn, log=log, failing="it fails", retry=retry, first=first, details={"of": "a test"}
    )


def test_it_is_done_again_until_it_is_done() -> None:
    turns: queue.SimpleQueue[int] = queue.SimpleQueue()
    done = threading.Event()

    def turn() -> float | None:
        turns.put(1)
        if turns.qsize() < 3:
            return 0.001
        done.set()
        return None

    running = thread(turn)
    running.start()
    assert done.wait(WAIT)
    running.stop()
    assert turns.qsize() == 3


def test_it_is_woken_and_ended_between_two_turns() -> None:
    turns: queue.SimpleQueue[int] = queue.SimpleQueue()

    def turn() -> float | None:
        turns.put(1)
        return LONG

    running = thread(turn, first=LONG)
    running.start()
    assert turns.empty()
    for _ in range(3):
        running.wake()
        turns.get(timeout=WAIT)
    running.stop()
    assert turns.empty()
    thread(turn).stop()  # it was never started


def test_stop_waits_for_the_turn_that_is_under_way() -> None:
    begun, go_on = threading.Event(), threading.Event()
    ended = []

    def turn() -> float | None:
        begun.set()
        assert go_on.wait(WAIT)
        ended.append(1)
        return LONG

    running = thread(turn)
    running.start()
    assert begun.wait(WAIT)
    stopper = threading.Thread(target=running.stop)
    stopper.start()
    assert not ended
    go_on.set()
    stopper.join(WAIT)
    assert not stopper.is_alive()
    assert ended == [1]


def test_an_error_is_told_once_until_it_is_another_or_all_was_well(caplog: pytest.LogCaptureFixture) -> None:
    results = [OSError("a"), OSError("a"), StoreUnavailable("b", maybe_written=False), None, OSError("a")]
    done = threading.Event()

    def turn() -> float | None:
        if not results:
            done.set()
            return None
        result = results.pop(0)
        if result is not None:
            raise result
        return 0.001

    running = thread(turn, retry=0.001)
    running.start()
    assert done.wait(WAIT)
    running.stop()
    told = [record for record in caplog.records if record.message == "it fails"]
    assert [record.__dict__["error"] for record in told] == ["a", "b", "a"]
    assert {record.__dict__["of"] for record in told} == {"a test"}


def test_a_bug_costs_one_turn_too_and_is_told_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    """Nobody waits for the thread, so nobody would see that it has ended."""
    bugs = [KeyError("a"), KeyError("a"), ValueError("b")]
    done = threading.Event()

    def turn() -> float | None:
        if bugs:
            raise bugs.pop(0)
        done.set()
        return None

    running = thread(turn, retry=0.001)
    running.start()
    assert done.wait(WAIT)
    running.stop()
    told = [record for record in caplog.records if record.message == "it fails"]
    assert [record.__dict__["error"] for record in told] == ["KeyError('a')", "ValueError('b')"]
    assert all(record.exc_info and record.levelno == logging.ERROR for record in told)
