"""The socket between the agent and its worker processes: messages with their length before them.

It imports nothing of what workers do, so that the agent need not load it.
"""

from __future__ import annotations

import json
import socket
import struct
from typing import Any

READY = b"R"
"""What a worker says first."""


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
