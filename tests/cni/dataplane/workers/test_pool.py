"""Worker processes: a job that cannot be done costs itself."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest

from actors.errors import OrbweaverError
from actors.runtime import get
from cni.dataplane.coordinator.settings import read_settings
from cni.dataplane.workers.job import Job
from cni.dataplane.workers.pool import Workers


def job(previous: dict[str, Any]) -> Job:
    return Job("ADD", read_settings({"name": "blue"}), "c1", "eth0", "", "default/web", previous)


def nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("previous", [{"x": nested(100_000)}, {"x": object()}, {"x": "\ud800"}])
def test_a_job_that_cannot_cross_to_a_process_is_refused_and_the_next_one_is_done(previous: dict[str, Any]):
    workers = Workers(count=1, most=1, timeout=60)
    try:
        refs = [workers.submit(job(previous), lambda job: job) for _ in range(3)]
        for ref in refs:
            with suppress(OrbweaverError):  # half of a surrogate pair crosses, and is not looked at
                get(ref, timeout=60)

        assert get(workers.submit(job({}), lambda job: job), timeout=60) == 0
    finally:
        workers.stop()
