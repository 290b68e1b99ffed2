"""A client of the agent's socket, as the shim is: one request on one connection (see `cni/server/connection.py`)."""

from __future__ import annotations

import json
import socket
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.checker import Journal, Place


class NoAnswer(Exception):
    """The connection ended, or the time was over, before there was an answer."""


@dataclass(frozen=True)
class Answer:
    status: int
    output: bytes

    @property
    def json(self) -> dict[str, Any]:
        return dict(json.loads(self.output)) if self.output else {}

    @property
    def addresses(self) -> list[str]:
        return [ip["address"] for ip in self.json["ips"]]


def encode(
    command: str,
    container: str = "c1",
    interface: str = "eth0",
    *,
    pod: str = "",
    namespace: str = "default",
    uid: str = "",
    arguments: str | None = None,
    netns: str = "/run/netns/x",
    conf: dict[str, Any] | bytes | None = None,
    version: str = "1.1.0",
    environment: dict[str, str] | None = None,
) -> bytes:
    """The bytes of one request. `conf` adds to the network configuration, or is it, as bytes."""
    if arguments is None:
        arguments = f"IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={pod}" if pod else ""
        arguments += f";K8S_POD_UID={uid}" if uid else ""
    pairs = {
        "plugin": "spiderpool",
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": container,
        "CNI_IFNAME": interface,
        "CNI_NETNS": netns,
        "CNI_ARGS": arguments,
        "CNI_PATH": "/opt/cni/bin",
    } | (environment or {})
    if isinstance(conf, bytes):
        stdin = conf
    else:
        whole = {"cniVersion": version, "name": "net", "type": "macvlan", "ipam": {"type": "spiderpool"}}
        stdin = json.dumps(whole | (conf or {})).encode()
    head = "".join(f"{key}={value}\0" for key, value in pairs.items()).encode(errors="surrogateescape")
    body = head + b"\0" + stdin
    return b"OWC1" + struct.pack(">I", len(body)) + body


def connect(path: Path, timeout: float = 120.0) -> socket.socket:
    """Connect as the shim does: one that finds the queue full waits for its turn (without a wait, as under Python's own
    timeout, it would be refused)."""
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", int(timeout), 0))
    try:
        client.connect(str(path))
    except OSError:
        client.close()
        raise
    client.settimeout(timeout)
    return client


def read_answer(client: socket.socket) -> Answer:
    header = _exactly(client, 12)
    assert header[:4] == b"OWR1", header
    status, length = struct.unpack(">II", header[4:])
    return Answer(status, _exactly(client, length))


def ask(path: Path, request: bytes, timeout: float = 120.0) -> Answer:
    """One exchange. Raises `NoAnswer`."""
    try:
        with connect(path, timeout) as client:
            client.sendall(request)
            return read_answer(client)
    except OSError as error:
        raise NoAnswer(str(error)) from error


def add(path: Path, journal: Journal, place: Place, **more: Any) -> Answer | None:
    """ADD, noted in the journal; None without an answer."""
    journal.unsure(place)
    try:
        answer = ask(path, encode("ADD", *place, **more))
    except NoAnswer:
        return None
    if answer.status == 0:
        journal.acknowledged(place, answer.addresses)
    return answer


def delete(path: Path, journal: Journal, place: Place, **more: Any) -> Answer | None:
    """DEL, noted in the journal; None without an answer."""
    journal.releasing(place)
    try:
        answer = ask(path, encode("DEL", *place, **more))
    except NoAnswer:
        return None
    if answer.status == 0:
        journal.released(place)
    return answer


def _exactly(client: socket.socket, length: int) -> bytes:
    received = b""
    while len(received) < length:
        piece = client.recv(length - len(received))
        if not piece:
            raise NoAnswer(f"the connection ended after {len(received)} of {length} bytes")
        received += piece
    return received
