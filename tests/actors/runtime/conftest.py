"""A place where the cast lives: this process, or another one behind a Unix socket or TCP."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Self

import pytest

from actors.cluster.certificates import make_certificate, utc_now
from actors.runtime import ActorHandle, ActorSystem, LinkLimits
from tests.actors.runtime import cast
from tests.support.standstill import stand_still

ROOT = Path(__file__).resolve().parents[3]
QUICK = {"ping_every": 0.5, "ping_timeout": 2.0, "backoff": 0.01, "backoff_most": 0.05, "connect": 2.0}
"""Where a peer is to be found silent."""
PATIENT = {**QUICK, "ping_timeout": 120.0, "connect": 120.0}
"""Everywhere else: a machine with much else to do may keep a process waiting for longer than that."""


def eventually(condition: Callable[[], Any], within: float = 120.0) -> Any:
    """Poll until `condition` holds; fails when it does not in time."""
    until = time.monotonic() + within
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > until:
            raise AssertionError(f"{condition} did not come true within {within} s")
        time.sleep(0.002)


class Served:
    """The cast in another process."""

    def __init__(
        self, where: str, limits: dict[str, Any] | None = None, *, wrapper: Sequence[str] = ()
    ) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*filter(None, sys.path), str(ROOT)])}
        self.process = subprocess.Popen(
            [
                *wrapper,
                sys.executable,
                "-P",
                "-m",
                "tests.actors.runtime.cast",
                where,
                json.dumps(limits or PATIENT),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().strip()
        if not self.address:
            raise RuntimeError(self.process.communicate()[1])
        if not where.startswith("unix:"):
            self.address = where.removesuffix("127.0.0.1:0") + self.address

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def stand_still(self) -> None:
        stand_still(self.process.pid)

    def stop(self) -> tuple[list[str], str]:
        """End it as a parent does: what was left undone, and what it logged."""
        out, err = self.process.communicate(timeout=60)
        return json.loads(out.splitlines()[-1]), err

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()
        self.process.wait()


class Place:
    """A system whose handles reach the cast, wherever that is."""

    def __init__(self, system: ActorSystem, served: Served | None) -> None:
        self.system = system
        self.served = served

    def actor(self, name: str) -> ActorHandle:
        return self.system.get_actor(name)


def connected(served: Served, **limits: Any) -> ActorSystem:
    """A client of a served cast."""
    system = ActorSystem("client")
    system.connect(
        [*cast.KINDS, "hidden"], cast.transport_of(served.address), LinkLimits(**{**PATIENT, **limits})
    )
    return system


def certificates(directory: Path, life: timedelta = timedelta(hours=1)) -> str:
    """Makes a server's certificate; returns the address of a server on a free port, for `cast.transport_of`."""
    pair = make_certificate(utc_now(), life)
    (directory / "server.crt").write_text(pair.certificate)
    (directory / "server.key").write_text(pair.key)
    return f"tls:{directory}:127.0.0.1:0"


@pytest.fixture(params=["in process", "by the sender", "unix", "tcp", "tls"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    if request.param in {"in process", "by the sender"}:
        system = ActorSystem("local")
        cast.activations.clear()
        cast.register(system, inline=cast.PROMPT if request.param == "by the sender" else frozenset())
        yield Place(system, None)
        system.shutdown()
        return
    where = {"unix": f"unix:{tmp_path}/s", "tcp": "tcp:127.0.0.1:0"}.get(request.param) or certificates(
        tmp_path
    )
    with Served(where) as served:
        system = connected(served)
        yield Place(system, served)
        system.shutdown()


@pytest.fixture
def local() -> Iterator[ActorSystem]:
    system = ActorSystem("local")
    yield system
    system.shutdown()
