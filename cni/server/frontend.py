"""The CNI socket front end: listens, and has one event loop thread serve every client, so that none holds up another.

What must always hold: what was accepted is answered before the thread ends, for a bounded time; what is owed
(`pending_adds.py`) is settled in that time too.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import resource
import socket
import stat
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from actors.allocation.observer import AllocationObserver
from actors.errors import OrbweaverError, StoreUnavailable
from actors.runtime import ActorSystem, new_event_loop
from cni.server.connection import Connection, Limits
from cni.server.connection_table import ConnectionTable
from cni.server.del_spool import FIRST_PASS, DelSpool, SpoolReplay
from cni.server.dispatcher import ChainedPlugin, Dispatcher, run_on
from cni.server.pending_adds import PendingAdds
from cni.server.protocol import CniRequest
from cni.server.reserved_addresses import ReservedAddresses

log = logging.getLogger("orbweaver.cni")

BACKLOG = 512
"""Connections that wait to be accepted; the kernel's own limit is net.core.somaxconn. A program that comes when it is
full waits in its connect(), and its pod with it."""

SPARE = 256
"""Descriptors that are left to everything else of the process."""

CLIENTS = 1024
"""Connections at once."""


class FrontEnd:
    """Listens on `path` (mode 0600). `not_ready` says why ADD cannot be served, or None; `on_refused` hears of ADDs
    that were answered with an error that no retry alone will cure; `timeout` is the time, in seconds, in which every request
    is answered; `chained` are the plugins besides the IPAM one, by name; `longer`: the seconds of those among them that need
    more; `reserved`: addresses that were recorded for an interface already; `spool`: where DELs are that came while nobody
    listened."""

    def __init__(
        self,
        system: ActorSystem,
        path: Path,
        *,
        observer: AllocationObserver,
        not_ready: Callable[[], str | None],
        on_refused: Callable[[CniRequest, OrbweaverError], object] = lambda request, error: None,
        timeout: float = 20.0,
        chained: Mapping[str, ChainedPlugin] | None = None,
        longer: Mapping[str, float] | None = None,
        reserved: ReservedAddresses | None = None,
        spool: DelSpool | None = None,
    ) -> None:
        self.connections: ConnectionTable[Connection] = ConnectionTable(CLIENTS)
        self._path = path
        self._loop = new_event_loop()
        self._thread = threading.Thread(target=self._run, name="cni-front-end", daemon=True)
        self._server: asyncio.Server | None = None
        self._spool = spool
        self._replaying: asyncio.Task[None] | None = None
        self._observer = observer
        self.chained = dict(chained or {})
        self._limits = Limits(timeout, tuple(self.chained), dict(longer or {}))
        self.soon = functools.partial(run_on, self._loop)
        self.adds = PendingAdds(system, timeout, self.soon, self._loop.call_later)
        self._dispatcher = Dispatcher(
            system,
            self.adds,
            not_ready=not_ready,
            on_refused=on_refused,
            timeout=timeout,
            chained=self.chained,
            reserved=reserved or ReservedAddresses(),
            soon=self.soon,
        )

    def start(self) -> None:
        """Bind and serve. Raises `StoreUnavailable` when another agent serves the socket or it cannot be made."""
        descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.connections.most = min(CLIENTS, max(descriptors - SPARE, descriptors // 2))
        listener = _listen(self._path)
        self._thread.start()
        future = asyncio.run_coroutine_threadsafe(self._serve(listener), self._loop)
        future.result()

    def stop(self, drain: float = 5.0) -> None:
        """Stop listening, let requests in progress be answered for up to `drain` seconds, and end the thread."""
        asyncio.run_coroutine_threadsafe(self._close(drain), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    async def _serve(self, listener: socket.socket) -> None:
        if self._spool is not None:
            await self._replay(self._spool)
        # asyncio listens anew, with its own backlog of 100, unless told.
        self._server = await self._loop.create_unix_server(self._connection, sock=listener, backlog=BACKLOG)

    def _connection(self) -> Connection:
        return Connection(self._dispatcher.serve, self._limits, self.connections, self._observer, self._loop)

    async def _replay(self, spool: DelSpool) -> None:
        """Begin with what came while nobody listened, and wait a little for it, before anybody is accepted."""
        try:
            spool.prepare()
        except OSError as error:
            log.warning(
                "DELs that come while no agent runs will not be kept",
                extra={"directory": str(spool.directory), "error": str(error)},
            )
            self._spool = None
            return
        replay = SpoolReplay(spool, self._dispatcher.serve, tuple(self.chained), self._limits.timeout)
        passed = asyncio.Event()
        self._replaying = self._loop.create_task(replay.run(passed))
        try:
            await asyncio.wait_for(passed.wait(), FIRST_PASS)
        except TimeoutError:
            log.warning("what was kept is still being done", extra={"seconds": FIRST_PASS})

    async def _close(self, drain: float) -> None:
        if self._replaying is not None:
            self._replaying.cancel()
        if self._server is not None:
            # asyncio forgets, and leaves open, a connection that it is accepting when its server is closed.
            for listener in self._server.sockets:
                self._loop.remove_reader(listener)
            accepting = asyncio.all_tasks() - {asyncio.current_task(), self._replaying}
            if accepting:
                await asyncio.wait(accepting, timeout=1.0)
            self._server.close()
            if self._spool is not None:
                self._spool.leave()
            self._path.unlink(missing_ok=True)
        deadline = self._loop.time() + drain
        self.adds.all_unwanted()
        while True:
            await asyncio.sleep(0.01)  # what the kernel had received arrives meanwhile
            for connection in tuple(self.connections.open):
                connection.stop_reading()
            if not (self.connections.open or self.adds) or self._loop.time() > deadline:
                break
        for connection in tuple(self.connections.open):
            connection.give_up()
        while self.connections.open and self._loop.time() < deadline + 1.0:
            await asyncio.sleep(0)  # lets the transports close


def _listen(path: Path) -> socket.socket:
    """A listening socket with mode 0600 from its first moment; a dead agent's socket file is replaced."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            if not stat.S_ISSOCK(path.stat().st_mode):
                raise StoreUnavailable(
                    f"{path} exists and is not a socket; remove it or choose another --socket"
                )
            _refuse_live(path)
            path.unlink(missing_ok=True)
        before = os.umask(0o177)
        try:
            listener.bind(str(path))
        finally:
            os.umask(before)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise StoreUnavailable(
            f"cannot listen on {path}: {error.strerror or error}; choose another --socket"
        ) from error
    except StoreUnavailable:
        listener.close()
        raise
    return listener


def _refuse_live(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return
    raise StoreUnavailable(f"another agent serves {path}; stop it first, or choose another --socket")
