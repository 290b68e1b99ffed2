"""The plugin `ifacer` behind the agent's socket: VLANs and bonds of the host for the plugins that come after it.

What must always hold: it stands before the plugin that makes the pod's interface, or behind others, whose result it passes
on to the letter; interfaces stay when pods go, because other pods use them, so DEL does nothing and needs nothing.
What it may be given: `settings.py` and, for bonds, `bond_options.py`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from actors.runtime import ObjectRef
from cni.dataplane.ifacer.settings import read_ifacer_settings
from cni.dataplane.workers.job import Job
from cni.dataplane.workers.pool import Workers, settle
from cni.server.protocol import CniRequest

NAME = "ifacer"


class Ifacer:
    """Requests in, jobs for the workers, results out."""

    executes_others = False

    def __init__(self, workers: Workers) -> None:
        self._workers = workers

    def handle(self, request: CniRequest, gone: ObjectRef[None] | None = None) -> ObjectRef[bytes]:
        """What to print. Raises `InvalidRequest` for a configuration that cannot be understood."""
        answer: ObjectRef[bytes] = ObjectRef(label=f"{NAME} {request.command}")
        if request.command not in ("ADD", "CHECK"):
            answer.complete(b"")
            return answer
        conf: Mapping[str, Any] = request.conf
        settings = read_ifacer_settings(conf)
        output = b""
        if request.command == "ADD":
            previous = conf.get("prevResult")
            if not isinstance(previous, dict):
                # The host's interface and nothing else: the reference ipvlan takes it when it has no "master".
                previous = {"interfaces": [{"name": settings.master}], "ips": [], "routes": [], "dns": {}}
            output = json.dumps({**previous, "cniVersion": request.version}).encode() + b"\n"
        sandbox = request.sandbox
        job = Job(
            request.command,
            settings,
            sandbox.container,
            sandbox.interface,
            sandbox.netns,
            sandbox.key,
            plugin=NAME,
        )
        self._workers.submit(job, lambda job: job).subscribe(lambda done: settle(answer, done, output))
        return answer
