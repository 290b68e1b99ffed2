"""A worker process: takes one job after the other from its parent and does it.

What must always hold: it ends when its parent does (the socket closes) or when it is killed, and nothing of it is
needed afterwards: a job half done is done again or undone by the next one. It imports what a job needs before it says
that it is ready.
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import sys
from typing import Any

from actors.errors import OrbweaverError
from cni.dataplane import apply, ifacer_apply
from cni.dataplane.apply import Job

READY = b"R"
_PERFORM = {"coordinator": apply.perform, "ifacer": ifacer_apply.perform}


def read_frame(channel: socket.socket) -> bytes:
    """One message: four bytes of length, big endian, and as many bytes. Empty at the end. Raises `OSError`."""
    try:
        head = channel.recv(4, socket.MSG_WAITALL)
    except ConnectionResetError:  # the other side ended with something unread
        return b""
    if len(head) < 4:
        return b""
    return channel.recv(struct.unpack(">I", head)[0], socket.MSG_WAITALL)


def write_frame(channel: socket.socket, message: dict[str, Any]) -> None:
    """Send one message."""
    body = json.dumps(message).encode()
    channel.sendall(struct.pack(">I", len(body)) + body)


def serve(channel: socket.socket) -> None:
    """Do jobs until the parent is gone."""
    channel.sendall(READY)
    while request := read_frame(channel):
        answer: dict[str, Any]
        try:
            job = Job(**json.loads(request))
            answer = {"changed": _PERFORM[job.plugin](job)}
        except OrbweaverError as error:
            answer = {"error": error.to_wire()}
        write_frame(channel, answer)


def main() -> None:
    """The descriptor of the socket is the only argument."""
    with socket.socket(fileno=int(sys.argv[1])) as channel, contextlib.suppress(BrokenPipeError):
        serve(channel)  # a parent that ended first needs no answer


if __name__ == "__main__":
    main()
