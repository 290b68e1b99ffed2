"""Judging takes a bounded part of the leader's time: a burst at once, and what goes on and on a fifth of a thread."""

from __future__ import annotations

import time

import pytest

from actors.errors import Overloaded
from actors.review.time_share import TimeShare
from actors.runtime import within


def judge(share: TimeShare, seconds: float) -> float:
    """Judge for so long; how much of the thread's time it took."""
    with share.turn():
        began = time.thread_time()
        while time.thread_time() < began + seconds:
            pass
        return time.thread_time() - began


def test_a_burst_is_judged_at_once() -> None:
    share = TimeShare(share=0.001, burst=10.0, clock=lambda: 0.0)
    with within(0.0):  # nobody could wait
        for _ in range(5):
            judge(share, 0.01)


def test_a_flood_is_judged_in_its_share_of_time() -> None:
    share = TimeShare(share=0.05, burst=0.02)
    began, took = time.monotonic(), [judge(share, 0.01) for _ in range(10)]

    assert sum(took[:-1]) <= 0.02 + 0.05 * (time.monotonic() - began) + 0.001


def test_who_would_wait_beyond_his_time_is_not_judged() -> None:
    now = time.monotonic()
    share = TimeShare(share=0.0005, burst=0.0, clock=lambda: now)  # of 50 ms it rests for 100 s
    judge(share, 0.05)
    with within(0.01), pytest.raises(Overloaded, match="too many"):
        judge(share, 0.0)


def test_what_was_taken_is_made_up_for_with_time() -> None:
    now = 0.0
    share = TimeShare(share=0.2, burst=0.0, clock=lambda: now)
    judge(share, 0.05)
    now = 60.0
    with within(0.0):  # it need not wait at all
        judge(share, 0.0)
