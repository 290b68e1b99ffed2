"""Whose turn it is."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from actors.errors import Overloaded
from cni.networks import turns as module
from cni.networks.turns import Turns

LIMIT = 60.0


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> Iterator[Turns]:
    monkeypatch.setattr(module, "AT_ONCE", 2)
    monkeypatch.setattr(module, "LINE", 4)
    made = Turns()
    yield made
    made.stop()


def test_requests_of_one_container_run_in_their_order(turns: Turns) -> None:
    order: list[int] = []
    hold, done = threading.Event(), threading.Event()
    turns.submit("shop", "c1", lambda: hold.wait(LIMIT))
    turns.submit("shop", "c1", lambda: order.append(1))
    turns.submit("shop", "c1", lambda: order.append(2))
    turns.submit("shop", "c1", done.set)

    other = threading.Event()
    turns.submit("shop", "c2", other.set)
    assert other.wait(LIMIT), "another container passes them"
    assert order == []
    hold.set()
    assert done.wait(LIMIT)
    assert order == [1, 2]


def test_a_namespace_that_hangs_holds_up_itself_alone(turns: Turns) -> None:
    hold = threading.Event()
    for number in range(2):
        turns.submit("hanging", f"c{number}", lambda: hold.wait(LIMIT))
    waits, other = threading.Event(), threading.Event()
    turns.submit("hanging", "c3", waits.set)

    turns.submit("shop", "c4", other.set)

    assert other.wait(LIMIT)
    assert not waits.is_set()
    hold.set()
    assert waits.wait(LIMIT)


def test_a_line_is_bounded(turns: Turns) -> None:
    hold = threading.Event()
    for number in range(2):
        turns.submit("hanging", f"c{number}", lambda: hold.wait(LIMIT))
    for number in range(4):
        turns.submit("hanging", f"d{number}", lambda: None)
    with pytest.raises(Overloaded, match="hanging"):
        turns.submit("hanging", "late", lambda: None)
    hold.set()


def test_who_stops_takes_no_more(turns: Turns) -> None:
    turns.stop()

    with pytest.raises(Overloaded, match="stopping"):
        turns.submit("shop", "c1", lambda: None)


def test_what_fails_frees_its_place(turns: Turns) -> None:
    def fail() -> None:
        raise ValueError("a bug")

    done = threading.Event()
    for _ in range(3):
        turns.submit("shop", "c1", fail)
    turns.submit("shop", "c1", done.set)

    assert done.wait(LIMIT)
