"""A worker outlives whatever becomes of a job."""

from __future__ import annotations

import json
import socket
import threading
from typing import NoReturn

import pytest

from cni.dataplane.coordinator.settings import CoordinatorSettings
from cni.dataplane.workers import worker
from cni.dataplane.workers.channel import READY, read_frame, write_frame
from cni.dataplane.workers.job import Job


def test_what_nobody_foresaw_costs_the_job_and_a_del_is_not_refused_for_it(monkeypatch: pytest.MonkeyPatch):
    def fail(job: Job, notes: list[str]) -> NoReturn:
        raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "an interface that a pod named so")

    monkeypatch.setitem(worker._PERFORM, "coordinator", fail)
    here, there = socket.socketpair()
    running = threading.Thread(target=worker.serve, args=(there,), daemon=True)
    running.start()
    try:
        assert here.recv(1) == READY
        answers = []
        for command in ("ADD", "CHECK", "DEL", "ADD"):
            job = Job(command, CoordinatorSettings(), "c1", "eth0", "", "default/web")
            write_frame(here, job.to_json())
            answers.append(json.loads(read_frame(here)))
    finally:
        here.close()
        running.join()
        there.close()

    refused = [answer["error"]["message"] for answer in answers if "error" in answer]
    assert [text.partition(":")[0] for text in refused] == [
        "coordinator ADD for pod default/web",
        "coordinator CHECK for pod default/web",
        "coordinator ADD for pod default/web",
    ]
    assert answers[2]["changed"] == 0
    assert "internal error" in answers[2]["notes"][0]
