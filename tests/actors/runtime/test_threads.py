"""Threads that are used again."""

from __future__ import annotations

import threading
from functools import partial

from actors.runtime.threads import Threads
from tests.actors.runtime.conftest import eventually


def test_a_thread_is_used_again() -> None:
    threads, names = Threads("t"), list[str]()

    def note() -> None:
        names.append(threading.current_thread().name)

    def used_again(times: int) -> bool:
        return names == ["t-0"] * times and len(threads._idle) == 1

    for times in (1, 2, 3):
        threads.run(note)
        eventually(partial(used_again, times))


def test_work_never_waits_for_other_work() -> None:
    threads, gate, begun = Threads("t"), threading.Event(), threading.Barrier(4, timeout=60)

    def work() -> None:
        begun.wait()
        gate.wait(60)

    for _ in range(2):  # the second time in the same threads
        for _ in range(3):
            threads.run(work)
        begun.wait()
        gate.set()
        eventually(lambda: len(threads._idle) == 3)
        gate.clear()


def test_a_thread_without_work_ends() -> None:
    threads = Threads("t", linger=0.05)
    found = list[threading.Thread]()
    threads.run(lambda: found.append(threading.current_thread()))
    eventually(lambda: bool(found) and not found[0].is_alive())
    assert threads._idle == []
    threads.run(lambda: found.append(threading.current_thread()))
    eventually(lambda: len(found) == 2)
