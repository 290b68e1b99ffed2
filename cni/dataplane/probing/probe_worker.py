"""The process that probes: takes inquiries from its parent and answers each when it is done, many at once.

How it works: a thread for each inquiry, because nearly all of its time is waiting for answers of the network. What must
always hold: a thread that hangs in a namespace takes nobody else with it; the process ends when its parent does (the
socket closes) or when it is killed.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import sys
import threading
from dataclasses import asdict
from typing import Any

from actors.decisions.detection import Detection, Inquiry, Probe
from actors.errors import OrbweaverError
from cni.dataplane.netlink.links import link_class
from cni.dataplane.probing.probe import ask
from cni.dataplane.workers.channel import read_frame, write_frame
from metrics import logs

log = logging.getLogger("orbweaver.dataplane")


def decode(message: dict[str, Any]) -> tuple[int, Inquiry]:
    """Inverse of `prober.encode`."""
    number = int(message.pop("number"))
    message["probes"] = tuple(Probe(**probe) for probe in message["probes"])
    message["detection"] = Detection(**message["detection"])
    return number, Inquiry(**message)


def serve(channel: socket.socket) -> None:
    """Answer inquiries until the parent is gone."""
    link_class()  # before the first inquiry, whose time is counted
    lock = threading.Lock()
    while request := read_frame(channel):
        number, inquiry = decode(json.loads(request))
        threading.Thread(target=_answer, args=(channel, lock, number, inquiry), daemon=True).start()


def _answer(channel: socket.socket, lock: threading.Lock, number: int, inquiry: Inquiry) -> None:
    sockets: list[socket.socket] = []
    answer: dict[str, Any]
    try:
        findings, sockets = ask(inquiry)
        answer = {"findings": [asdict(finding) for finding in findings]}
    except OrbweaverError as error:
        answer = {"error": error.to_wire()}
    except Exception as error:  # a bug; whoever waits is told, and the others go on
        log.exception("a probe failed")
        answer = {
            "error": OrbweaverError(f"internal error in a probe of pod {inquiry.pod}: {error!r}").to_wire()
        }
    with lock, contextlib.suppress(BrokenPipeError, ConnectionResetError):
        write_frame(channel, {"number": number, **answer})
    for opened in sockets:
        opened.close()


def main() -> None:
    """The arguments are the descriptor of the socket and the level of the log."""
    logs.set_up_worker(sys.argv[2])
    channel = socket.socket(fileno=int(sys.argv[1]))
    serve(channel)
    os._exit(0)  # threads that hang in a namespace do not hold it up


if __name__ == "__main__":
    main()
