"""DELs that came while no agent ran: the shim keeps them in a directory, and the agent does them when it is back.

How it works. The directory `SOCKET.spool` tells the shim that an agent was here (`cni/shim/shim.c`); each file in it is one
request as it would have come through the socket, named `CONTAINER@INTERFACE@PLUGIN`. At its start the agent listens, so that
nothing more is kept, and begins with what was kept before it accepts anybody. What cannot be done yet stays for later.
What must always hold: a DEL that was kept frees nothing newer. It is begun before every request that came after it, and the
shim of an ADD takes back that of its attachment before it sends anything: a runtime adds again only after the DEL was
answered. A file is removed once its DEL is done, so one that is killed in between does it again.
"""

from __future__ import annotations

import asyncio
import logging
import os
import struct
import time
import uuid
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from actors.errors import InvalidRequest, OrbweaverError
from actors.runtime import Trace
from cni.server import protocol
from cni.server.exchange import CniAnswer, Exchange, Fate, Serve
from cni.server.protocol import IPAM, CniRequest, environment_in

log = logging.getLogger("orbweaver.cni")

DIRECTORY = Path("/var/lib/orbweaver/spool")
"""On disk, so that a node's reboot loses none."""
FIRST_PASS = 3.0
"""Seconds, at most, for which clients wait until what was kept is done."""
_LOOK = 5.0
_AT_ONCE = 32
LEFT = ".left"
"""Its time is when an agent ended in order: the shim waits longer for the next one."""
_UNFINISHED, _OLD = ".new-", 60.0
"""How files begin that are being written, and seconds after which nobody writes one any more."""
_LARGEST = 1 << 20
_MAGIC, _HEADER = b"OWC1", 8


def spool_of(socket: Path) -> Path:
    """Where the shim looks for the directory; it knows the socket and nothing else."""
    return socket.with_name(f"{socket.name}.spool")


class DelSpool:
    """One per agent. `directory` is where it is, if that is not where the shim looks: then a link leads there."""

    def __init__(self, socket: Path, directory: Path | None = None) -> None:
        self._seen = spool_of(socket)
        self.directory = directory or self._seen

    def prepare(self) -> None:
        """Make it, and remove what was never finished. Raises `OSError`."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._seen.parent.mkdir(parents=True, exist_ok=True)
        if self.directory != self._seen and not (self._seen.is_dir() and not self._seen.is_symlink()):
            link = self._seen.with_name(f".{self._seen.name}.{os.getpid()}")
            link.unlink(missing_ok=True)
            link.symlink_to(self.directory)
            link.replace(self._seen)
        for path in self.directory.iterdir():
            if path.name.startswith(_UNFINISHED) and path.stat().st_mtime < time.time() - _OLD:
                path.unlink(missing_ok=True)

    def kept(self) -> list[Path]:
        """What is there, the oldest first."""
        with os.scandir(self.directory) as entries:
            waiting = sorted(
                (entry.stat(follow_symlinks=False).st_mtime_ns, entry.path)
                for entry in entries
                if not entry.name.startswith(".")
            )
        return [Path(path) for _, path in waiting]

    def leave(self) -> None:
        """Tell the shim that this agent ends in order, so that the next one is on its way."""
        try:
            (self.directory / LEFT).touch(mode=0o600)
        except OSError as error:
            log.info("plugins do not learn that the agent ends", extra={"error": str(error)})


class SpoolReplay:
    """Does what was kept, on the event loop's thread, from `begin` until it is cancelled. `plugins`: those that there are;
    `timeout`: seconds in which a request is answered."""

    def __init__(self, spool: DelSpool, serve: Serve, plugins: Collection[str], timeout: float) -> None:
        self._spool = spool
        self._serve = serve
        self._plugins = plugins
        self._timeout = timeout
        self._unreadable: frozenset[str] = frozenset()

    async def run(self, first_pass: asyncio.Event) -> None:
        """Pass by pass; sets the event after the first one."""
        while True:
            try:
                await self._pass()
            except OSError as error:
                log.warning("the DELs that were kept cannot be read", extra={"error": str(error)})
            first_pass.set()
            await asyncio.sleep(_LOOK)

    async def _pass(self) -> None:
        waiting: set[asyncio.Future[None]] = set()
        kept = self._spool.kept()
        self._unreadable &= {path.name for path in kept}
        for path in kept:
            begun = self._begin(path)
            if begun is not None:
                waiting.add(begun)
            if len(waiting) >= _AT_ONCE:
                _, waiting = await asyncio.wait(
                    waiting, timeout=self._timeout, return_when=asyncio.FIRST_COMPLETED
                )
        if waiting:
            await asyncio.wait(waiting, timeout=self._timeout)

    def _begin(self, path: Path) -> asyncio.Future[None] | None:
        """Begin one, without giving way to anything else since its file was found; the future is done when it is
        answered."""
        try:
            request = self._read(path)
        except FileNotFoundError:  # an ADD took it back
            return None
        except InvalidRequest as error:
            log.warning(
                "a DEL that was kept cannot be understood", extra={"kept": path.name, "error": str(error)}
            )
            path.unlink(missing_ok=True)
            return None
        except OSError as error:  # it costs itself, and none of those behind it
            if path.name not in self._unreadable:
                self._unreadable |= {path.name}
                details = {"kept": path.name, "error": str(error)}
                log.warning("a DEL that was kept cannot be read: remove it, or mend the disk", extra=details)
            return None
        sandbox = request.sandbox
        trace = Trace(uuid.uuid4().hex[:12], sandbox.key if sandbox.container else "", sandbox.container)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def deliver(outcome: CniAnswer | OrbweaverError) -> Fate:
            if isinstance(outcome, CniAnswer):
                path.unlink(missing_ok=True)
                details = trace.named(
                    interface=sandbox.interface, plugin=request.plugin, released=outcome.released
                )
                log.info("a DEL is done that came while no agent ran", extra=details)
            else:
                details = trace.named(interface=sandbox.interface, error=str(outcome))
                log.warning("a DEL that was kept cannot be done yet", extra=details)
            if not done.done():
                done.set_result(None)
            return Fate.TAKEN

        self._serve(Exchange(request, trace, deliver))
        return done

    def _read(self, path: Path) -> CniRequest:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            data = file.read(_LARGEST + 1)
        if (
            data[:4] != _MAGIC
            or len(data) < _HEADER
            or struct.unpack_from(">I", data, 4)[0] != len(data) - _HEADER
        ):
            raise InvalidRequest("it is no request of the shim's")
        head, _, stdin = data[_HEADER:].partition(b"\0\0")
        environment = environment_in(head)
        plugin = environment.get("plugin", "")
        if environment.get("CNI_COMMAND") != "DEL" or plugin not in (IPAM, *self._plugins):
            raise InvalidRequest(f"it is no DEL of a plugin that there is, but of {plugin!r:.40}")
        return replace(protocol.parse(environment, stdin), plugin=plugin)
