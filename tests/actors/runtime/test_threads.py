"""Threads that serve one activation after the other."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from actors.runtime.threads import Mailbox, Threads
from tests.actors.runtime.conftest import eventually


class Lodger:
    """What has a thread: it runs the functions that come, until it is told to close."""

    def __init__(self, name: str = "lodger") -> None:
        self.name = name
        self.closed = False
        self.seen: list[str] = []

    def begin(self) -> None:
        self.seen.append(f"begins in {threading.current_thread().name}")

    def handle(self, item: Any) -> None:
        item(self)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def threads() -> Iterator[Threads]:
    threads = Threads(most_idle=3)
    yield threads
    threads.end_idle()


def served(threads: Threads, *items: Callable[[Lodger], object], name: str = "lodger") -> Lodger:
    lodger = Lodger(name)
    mailbox = Mailbox(lodger, threads)
    for item in (*items, Lodger.close):
        mailbox.put(item)
    mailbox.wait_stopped(60)
    assert mailbox.left
    return lodger


def test_a_thread_is_used_again_and_is_named_after_whom_it_serves(threads: Threads) -> None:
    found: list[threading.Thread] = []

    for name in ("web/a", "web/b", "web/c"):
        lodger = served(threads, lambda _: found.append(threading.current_thread()), name=name)
        assert lodger.seen == [f"begins in {name}"]
        assert threads.idle == 1

    assert len(set(found)) == 1
    assert found[0].name not in ("web/a", "web/b", "web/c")


def test_an_activation_never_waits_for_another_one(threads: Threads) -> None:
    for _ in range(2):  # the second time in the same threads
        begun, gate = threading.Barrier(4, timeout=60), threading.Event()

        def hold(_: Lodger, begun: threading.Barrier = begun, gate: threading.Event = gate) -> None:
            begun.wait()
            gate.wait(60)

        mailboxes = [Mailbox(Lodger(), threads) for _ in range(3)]
        for mailbox in mailboxes:
            mailbox.put(hold)
            mailbox.put(Lodger.close)
        begun.wait()
        gate.set()
        for mailbox in mailboxes:
            mailbox.wait_stopped(60)
        assert threads.idle == 3


def test_no_more_threads_wait_than_are_kept(threads: Threads) -> None:
    gate, found = threading.Event(), list[threading.Thread]()

    def hold(_: Lodger) -> None:
        found.append(threading.current_thread())
        gate.wait(60)

    mailboxes = [Mailbox(Lodger(), threads) for _ in range(5)]
    for mailbox in mailboxes:
        mailbox.put(hold)
        mailbox.put(Lodger.close)
    eventually(lambda: len(found) == 5)
    gate.set()

    eventually(lambda: sum(thread.is_alive() for thread in found) == 3)
    assert threads.idle == 3
    threads.end_idle()
    eventually(lambda: not any(thread.is_alive() for thread in found))
    served(threads)


def test_what_is_asked_to_leave_late_disturbs_nobody(threads: Threads) -> None:
    entered, gate = threading.Event(), threading.Event()

    def close_and_stay(lodger: Lodger) -> None:
        lodger.close()
        entered.set()
        gate.wait(60)

    first = Mailbox(Lodger(), threads)
    first.put(close_and_stay)
    assert entered.wait(60)
    first.stop()  # behind what is handled, after which the thread leaves by itself
    gate.set()
    first.wait_stopped(60)
    first.stop()

    for _ in range(3):
        assert served(threads, name="next").seen == ["begins in next"]
    assert threads.idle == 1


def test_one_that_was_closed_before_it_began_leaves_without_beginning(threads: Threads) -> None:
    lodger = Lodger()
    lodger.close()
    mailbox = Mailbox(lodger, threads)
    mailbox.drain()  # as closing does, perhaps before the thread has seen anything
    mailbox.stop()
    mailbox.wait_stopped(60)

    assert mailbox.left
    assert lodger.seen == []
    assert served(threads).seen
