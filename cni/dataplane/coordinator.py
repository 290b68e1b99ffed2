"""The chained plugin `coordinator` behind the agent's socket: requests in, jobs for the workers, results out.

What must always hold: the result of ADD is the previous plugin's result, to the letter; a DEL is not refused for what
its configuration lacks, because a runtime repeats it until it succeeds.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from actors.errors import InvalidRequest
from actors.runtime import ObjectRef
from cni.dataplane.apply import Job
from cni.dataplane.settings import read_settings
from cni.dataplane.workers import Workers, settle
from cni.protocol import CniRequest

NAME = "coordinator"


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a pod's object says: the interface chosen for its default route, empty for none, and all interfaces that it
    will have, empty where nothing tells."""

    default_nic: str = ""
    interfaces: tuple[str, ...] = ()


class Coordinator:
    """`wishes`: what the pod of a request says; it may wait for the store."""

    def __init__(self, workers: Workers, wishes: Callable[[CniRequest], Wishes]) -> None:
        self._workers = workers
        self._wishes = wishes

    def handle(self, request: CniRequest, stdin: bytes) -> ObjectRef[bytes]:
        """What to print. Raises `InvalidRequest` for a configuration that cannot be understood."""
        answer: ObjectRef[bytes] = ObjectRef(label=f"{NAME} {request.command}")
        conf: dict[str, Any] = json.loads(stdin)
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
        valid = tuple((one.container, one.interface) for one in request.valid)
        place = (
            sandbox.container,
            sandbox.interface,
            sandbox.netns,
            sandbox.key if sandbox.container else "",
        )
        job = Job(request.command, conf, *place, valid=valid)
        self._workers.submit(job, lambda job: self._complete(request, job)).subscribe(
            lambda done: settle(answer, done, output)
        )
        return answer

    def _complete(self, request: CniRequest, job: Job) -> Job:
        if request.command in ("DEL", "GC"):
            return job
        wishes = self._wishes(request)
        return replace(job, default_nic=wishes.default_nic, interfaces=wishes.interfaces)
