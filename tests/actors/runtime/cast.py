"""The actors that the runtime's tests call, and a process that serves them.

`python -m tests.actors.runtime.cast TRANSPORT LIMITS` serves until its standard input closes, then drains.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from actors.cluster.credentials import SERVER_NAME, client_context, server_context
from actors.errors import NoAddress, PeerRefused, StoreUnavailable
from actors.runtime import (
    Actor,
    ActorContext,
    ActorSystem,
    Door,
    GateLimits,
    LinkLimits,
    ObjectRef,
    PeerIdentity,
    TcpTransport,
    TlsDoor,
    Transport,
    UnixTransport,
    current_deadline,
    current_trace,
    message,
    wire_value,
)

SMALL = 4
"""Mailbox of the kind `small`."""

activations: Counter[str] = Counter()
entered_twice: list[str] = []


@wire_value
class Colour(Enum):
    RED = "red"
    BLUE = "blue"


@wire_value
@dataclass(frozen=True, slots=True)
class Point:
    x: int
    y: int
    colour: Colour = Colour.RED


@wire_value
@dataclass(frozen=True, slots=True)
class Shape:
    name: str
    points: tuple[Point, ...]
    tags: frozenset[str] = frozenset()


class Worker(Actor):
    """Does what it is told, and notices when two threads are in it at once."""

    def __init__(self, context: ActorContext) -> None:
        super().__init__(context)
        self.seen: list[Any] = []
        self.inside: int | None = None
        self.held: dict[str, ObjectRef[Any]] = {}

    def on_activate(self) -> None:
        activations[self.context.name] += 1
        marker = self.context.key.removeprefix("unloadable")
        if marker != self.context.key and not Path(marker).exists():
            raise StoreUnavailable("the store is away")

    @message
    def thread(self) -> int:
        return threading.get_ident()

    @message
    def echo(self, value: Any = None) -> Any:
        return value

    @message
    def add(self, value: Any) -> int:
        me = threading.get_ident()
        if self.inside is not None:
            entered_twice.append(self.context.name)
        self.inside = me
        self.seen.append(value)
        if len(self.seen) % 7 == 0:
            time.sleep(0)  # Give the other threads a chance to be caught in here.
        if self.inside != me:
            entered_twice.append(self.context.name)
        self.inside = None
        return len(self.seen)

    @message
    def all_seen(self) -> list[Any]:
        return self.seen

    @message
    def activations(self) -> int:
        return activations[self.context.name]

    @message
    def refuse(self, text: str) -> None:
        raise NoAddress(text, details=("pool blue: exhausted", "pool red: wrong node"))

    @message
    def crash(self, text: str = "a bug") -> None:
        raise KeyError(text)

    @message
    def hold(self, name: str) -> ObjectRef[Any]:
        """Answer when `let_go` says so."""
        self.held[name] = ObjectRef()
        return self.held[name]

    @message
    def let_go(self, name: str, value: Any) -> None:
        self.held.pop(name).complete(value)

    @message
    def later(self, seconds: float, value: Any) -> ObjectRef[Any]:
        answer: ObjectRef[Any] = ObjectRef()
        self.after(seconds, answer.complete, value)
        return answer

    @message
    def gate(self, path: str) -> str:
        """Keep the thread until the file is there, or for a minute."""
        until = time.monotonic() + 60
        while not Path(path).exists() and time.monotonic() < until:
            time.sleep(0.005)
        return "open"

    @message
    def relay(self, name: str, method: str, *args: Any) -> ObjectRef[Any]:
        ref: ObjectRef[Any] = getattr(self.get_actor(name), method).remote(*args)
        return ref

    @message
    def relay_then(self, name: str, method: str, *args: Any) -> ObjectRef[Any]:
        """As `relay`, with a step of our own behind it."""
        answer: ObjectRef[Any] = ObjectRef()
        self.then(getattr(self.get_actor(name), method).remote(*args), self._relayed, answer)
        return answer

    def _relayed(self, ref: ObjectRef[Any], answer: ObjectRef[Any]) -> None:
        error = ref.error()
        if error is not None:
            answer.fail(error)
        else:
            answer.complete(["relayed", ref.result()])

    @message
    def time_left(self) -> float | None:
        deadline = current_deadline()
        return None if deadline is None else deadline - time.monotonic()

    @message
    def request(self) -> list[str] | None:
        trace = current_trace()
        return None if trace is None else [trace.request, trace.pod, trace.container]

    @message
    def unsendable(self) -> object:
        return threading.Lock()

    @message
    def big(self, size: int) -> bytes:
        return b"x" * size

    def not_a_message(self) -> str:
        return "called all the same"


PROMPT = frozenset(Worker.messages) - {"gate"}
"""All that do not wait."""


def register(system: ActorSystem, *, inline: frozenset[str] = frozenset()) -> None:
    urgent = frozenset({"echo"})
    system.register("worker", Worker, mailbox=100_000, idle=30.0, inline=inline)
    system.register("small", Worker, mailbox=SMALL, idle=30.0, inline=inline)
    system.register("brief", Worker, mailbox=100_000, idle=0.002, inline=inline)
    system.register("hasty", Worker, mailbox=SMALL, start_fraction=0.001, urgent=urgent, inline=inline)
    system.register("hidden", Worker)


KINDS = ("worker", "small", "brief", "hasty")


TOKEN = "agent@node1"
"""What a peer shows, in place of a service account's token: who and where."""


def identify(token: str, source: str) -> ObjectRef[PeerIdentity]:
    """Whom a token of these tests names."""
    ref: ObjectRef[PeerIdentity] = ObjectRef()
    account, _, node = token.partition("@")
    if account == "agent" and node:
        ref.complete(PeerIdentity(account, node))
    else:
        ref.fail(PeerRefused(f"{token!r} is nobody's token"))
    return ref


def transport_of(text: str, *, token: str = TOKEN) -> Transport:
    """`unix:PATH`, `tcp:HOST:PORT`, or `tls:DIRECTORY:HOST:PORT` with the certificate of `conftest.certificates`."""
    scheme, host, port, directory = _parts(text)
    if scheme == "tls":
        context = client_context((directory / "server.crt").read_text())
        return TcpTransport(host, port, context, server_name=SERVER_NAME, token=lambda: token)
    return UnixTransport(host) if scheme == "unix" else TcpTransport(host, port)


def door_of(text: str, limits: GateLimits | None = None) -> Door:
    """The same, to listen."""
    scheme, host, port, directory = _parts(text)
    if scheme == "tls":
        context = server_context(
            (directory / "server.crt").read_text(), (directory / "server.key").read_text()
        )
        return TlsDoor(host, port, lambda: context, identify, limits)
    return UnixTransport(host) if scheme == "unix" else TcpTransport(host, port)


def _parts(text: str) -> tuple[str, str, int, Path]:
    scheme, _, place = text.partition(":")
    if scheme == "unix":
        return scheme, place, 0, Path()
    host, _, port = place.rpartition(":")
    directory, _, host = host.rpartition(":")
    return scheme, host, int(port), Path(directory)


def main() -> None:
    system = ActorSystem("cast")
    register(system)
    listener = system.serve(
        door_of(sys.argv[1]),
        kinds=dict.fromkeys(KINDS, Worker),
        limits=LinkLimits(**json.loads(sys.argv[2])),
    )
    print(listener.address, flush=True)
    sys.stdin.read()
    left = system.shutdown(drain=60.0)
    print(json.dumps([row.name for row in left]), flush=True)


if __name__ == "__main__":
    main()
