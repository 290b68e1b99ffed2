"""A worker process: takes one job after the other from its parent and does it.

What must always hold: it ends when its parent does (the socket closes) or when it is killed, and nothing of it is
needed afterwards: a job half done is done again or undone by the next one. It imports what a job needs before it says
that it is ready.
"""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import sys
from collections.abc import Callable
from typing import Any

from actors.errors import OrbweaverError
from cni.dataplane.coordinator import apply
from cni.dataplane.ifacer import apply as ifacer_apply
from cni.dataplane.netlink.links import link_class
from cni.dataplane.workers.channel import READY, read_frame, write_frame
from cni.dataplane.workers.job import Job
from metrics import logs

log = logging.getLogger("orbweaver.dataplane")

_PERFORM: dict[str, Callable[[Job, list[str]], int]] = {
    "coordinator": apply.perform,
    "ifacer": lambda job, notes: ifacer_apply.perform(job),
}


def serve(channel: socket.socket) -> None:
    """Do jobs until the parent is gone."""
    link_class()
    channel.sendall(READY)
    while request := read_frame(channel):
        answer: dict[str, Any]
        job = Job.from_json(json.loads(request))
        try:
            notes: list[str] = []
            answer = {"changed": _PERFORM[job.plugin](job, notes), "notes": notes}
        except OrbweaverError as error:
            answer = {"error": error.to_wire()}
        except Exception as error:
            # A bug, or what a pod did to its namespace: it costs this job, and not the worker that others wait for.
            log.exception("a job failed in a way that nobody foresaw", extra={"pod": job.pod})
            why = f"internal error: {error!r:.200}; see the agent's log"
            failed = OrbweaverError(f"{job.plugin} {job.command} for pod {job.pod}: {why}")
            # What a DEL leaves goes with the namespace or is swept; one that fails each time would keep the pod for ever.
            answer = {"changed": 0, "notes": [why]} if job.command == "DEL" else {"error": failed.to_wire()}
        write_frame(channel, answer)


def main() -> None:
    """The arguments are the descriptor of the socket and the level of the log."""
    logs.set_up_worker(sys.argv[2])
    with socket.socket(fileno=int(sys.argv[1])) as channel, contextlib.suppress(BrokenPipeError):
        serve(channel)  # a parent that ended first needs no answer


if __name__ == "__main__":
    main()
