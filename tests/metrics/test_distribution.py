"""Proves that what is counted here shows as the library's own histogram would show it, and that no value is lost."""

from __future__ import annotations

import threading

from prometheus_client import CollectorRegistry, Histogram, generate_latest

from metrics.distribution import Distribution
from metrics.prometheus import Metrics

BOUNDS = (0.5, 1.0, 2.5)


def test_a_value_counts_for_every_bound_that_it_does_not_exceed() -> None:
    distribution = Distribution(BOUNDS)
    for value in (0.0, 0.5, 0.6, 2.5, 9.0):
        distribution.observe(value)

    counted = distribution.counted()
    assert counted.up_to == ((0.5, 2), (1.0, 3), (2.5, 4), (float("inf"), 5))
    assert counted.total == 12.6


def test_no_value_of_several_threads_is_lost() -> None:
    distribution = Distribution(BOUNDS)

    def observe() -> None:
        for _ in range(5000):
            distribution.observe(1.0)

    threads = [threading.Thread(target=observe) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert distribution.counted().up_to[-1] == (float("inf"), 20_000)


def test_a_scrape_shows_what_the_library_would_show() -> None:
    registry = CollectorRegistry()
    about = "Claims and releases that one block write carried"
    theirs = Histogram(
        "orbweaver_commit_batch_size", about, buckets=(1, 2, 4, 8, 16, 32, 64, 128), registry=registry
    )
    ours = Metrics()
    for batch in (1, 3, 200):
        theirs.observe(batch)
        ours.committed(batch, 0.1)
    ours.stage("allocation", "decided", 0.001)

    text = ours.expose()[0].decode()
    for line in generate_latest(registry).decode().splitlines():
        assert "_created" in line or line in text.splitlines(), line
    assert (
        'orbweaver_stage_duration_seconds_bucket{le="0.001",operation="allocation",stage="decided"} 1.0'
        in text
    )
