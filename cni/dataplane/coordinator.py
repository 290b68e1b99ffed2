"""The chained plugin `coordinator` behind the agent's socket: requests in, jobs for the workers, results out.

What must always hold: the result of ADD is the previous plugin's result, to the letter; a DEL is not refused for what
its configuration lacks, because a runtime repeats it until it succeeds.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from actors.errors import InvalidRequest, OrbweaverError
from actors.runtime import ObjectRef
from cni.dataplane.apply import Job
from cni.dataplane.settings import read_settings
from cni.dataplane.workers import Workers
from cni.protocol import CniRequest

NAME = "coordinator"


class Coordinator:
    """`default_nic`: what the pod's annotation says, empty for nothing; it may wait for the store."""

    def __init__(self, workers: Workers, default_nic: Callable[[CniRequest], str]) -> None:
        self._workers = workers
        self._default_nic = default_nic

    def handle(self, request: CniRequest, stdin: bytes) -> ObjectRef[bytes]:
        """What to print. Raises `InvalidRequest` for a configuration that cannot be understood."""
        answer: ObjectRef[bytes] = ObjectRef(label=f"{NAME} {request.command}")
        conf: dict[str, Any] = json.loads(stdin)
        if request.command not in ("ADD", "CHECK", "DEL"):
            answer.complete(b"")
            return answer
        settings = read_settings(conf)
        previous = conf.get("prevResult")
        if not isinstance(previous, dict):
            previous = {}
        if request.command == "ADD" and not previous:
            raise InvalidRequest(
                f'ADD of network {request.network} has no "prevResult"; the coordinator must stand after the plugin that '
                'makes the interface in the list "plugins"'
            )
        output = b""
        if request.command == "ADD":
            output = json.dumps({"cniVersion": request.version, **previous}).encode() + b"\n"
        if settings.mode == "disable":
            answer.complete(output)
            return answer
        sandbox = request.sandbox
        job = Job(request.command, conf, sandbox.container, sandbox.interface, sandbox.netns, sandbox.key)
        self._workers.submit(job, lambda job: self._complete(request, job)).subscribe(
            lambda done: _settle(answer, done, output)
        )
        return answer

    def _complete(self, request: CniRequest, job: Job) -> Job:
        if request.command == "DEL":
            return job
        return replace(job, default_nic=self._default_nic(request))


def _settle(answer: ObjectRef[bytes], done: ObjectRef[int], output: bytes) -> None:
    error = done.error()
    if error is None:
        answer.complete(output)
    else:
        answer.fail(
            error if isinstance(error, OrbweaverError) else OrbweaverError(f"internal error: {error!r}")
        )
