"""The CNI socket front end: takes requests from the shim, hands them to the actors, answers in bounded time.

What must always hold: one event loop thread serves every client (`client.py`), so none holds up another; an ADD whose
answer could not be delivered, or came after the deadline, is undone, because the runtime does not know what it was
given. It is undone once no other ADD of the same interface is in progress, and only if none of those was answered: a
repeated ADD gives out the same addresses.
"""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import socket
import stat
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actors.allocation.observer import AllocationObserver
from actors.errors import OrbweaverError, StoreUnavailable
from actors.runtime import ActorSystem, ObjectRef, Trace, new_event_loop, request_scope
from cni.server import connection
from cni.server.connection import LARGE_TOGETHER, ChainedPlugin, Connection, log_request
from cni.server.protocol import CniRequest

log = logging.getLogger("orbweaver.cni")

BACKLOG = 512
"""Connections that wait to be accepted; the kernel's own limit is net.core.somaxconn. A program that comes when it is
full waits in its connect(), and its pod with it."""

SPARE = 256
"""Descriptors that are left to everything else of the process."""

UNDO_PAUSE, UNDO_PAUSE_MOST = 0.5, 10.0
"""Seconds between attempts to release what nobody took."""


class FrontEnd:
    """Listens on `path` (mode 0600). `not_ready` says why ADD cannot be served, or None; `on_refused` hears of ADDs
    that were answered with an error that no retry alone will cure; `timeout` is the time, in seconds, in which every request
    is answered; `chained` are the plugins besides the IPAM one, by name."""

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
    ) -> None:
        self.chained = dict(chained or {})
        self.system = system
        self.observer = observer
        self.not_ready = not_ready
        self.on_refused = on_refused
        self.timeout = timeout
        self.clients = 0
        self.most = connection.CLIENTS
        self._path = path
        self._loop = new_event_loop()
        self._thread = threading.Thread(target=self._run, name="cni-front-end", daemon=True)
        self._server: asyncio.Server | None = None
        self._connections: set[Connection] = set()
        self._reading: dict[Connection, None] = {}
        self._large: set[Connection] = set()
        self._in_flight: dict[str, list[str]] = {}
        self._wanted: dict[str, list[ObjectRef[None]]] = {}
        self._adds: dict[tuple[str, str], _Adds] = {}

    def start(self) -> None:
        """Bind and serve. Raises `StoreUnavailable` when another agent serves the socket or it cannot be made."""
        descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.most = min(connection.CLIENTS, max(descriptors - SPARE, descriptors // 2))
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

    def soon(self, callback: Callable[..., object], *args: Any) -> None:
        """Run `callback` on the event loop's thread; after the loop has stopped, nowhere."""
        try:
            self._loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:
            log.debug("an answer came after the front end had stopped")

    def route(self, request: CniRequest) -> ObjectRef[str]:
        """The key of the pod whose Endpoint serves the request.

        CNI_ARGS names the pod; a DEL or CHECK without them is served by the pod for which the container is recorded.
        """
        ref: ObjectRef[str] = ObjectRef(label="route")
        sandbox = request.sandbox
        running = self._in_flight.get(sandbox.container)
        if request.named or request.command == "ADD" or running:
            ref.complete(running[0] if running else sandbox.key)
            return ref
        found = self.system.get_actor("endpoint/" + sandbox.key).holder.remote(sandbox.container)
        found.subscribe(lambda held: _complete_route(ref, held, sandbox.key))
        return ref

    def arrived(self, client: Connection) -> None:
        """A client connected."""
        self.clients += 1
        self._connections.add(client)
        self._reading[client] = None

    def displace(self, client: Connection) -> bool:
        """Make room for `client`, which has come last, by ending the connection that has been sending its request for
        longest; whether there was one. A runtime's request is complete as it comes."""
        oldest = next(iter(self._reading))
        if oldest is client:
            return False
        oldest.displaced()
        return True

    def large(self, client: Connection) -> bool:
        """Whether a large request of it may be read now."""
        if client not in self._large and len(self._large) >= LARGE_TOGETHER:
            return False
        self._large.add(client)
        return True

    def read(self, client: Connection) -> None:
        """Its request is complete, or it is not read any more."""
        self._reading.pop(client, None)
        self._large.discard(client)

    def left(self, client: Connection) -> None:
        """Its connection is gone."""
        self.clients -= 1
        self._connections.discard(client)
        self.read(client)

    def started(self, request: CniRequest) -> ObjectRef[None]:
        """An ADD begins; what it returns is completed when nobody wants its answer any more."""
        sandbox = request.sandbox
        gone: ObjectRef[None] = ObjectRef(label="the client")
        self._wanted.setdefault(sandbox.container, []).append(gone)
        self._in_flight.setdefault(sandbox.container, []).append(sandbox.key)
        self._adds.setdefault((sandbox.container, sandbox.interface), _Adds()).going += 1
        return gone

    def unwanted(self, container: str) -> None:
        """The sandbox is being deleted: no ADD of it is to wait for an address any more."""
        for gone in self._wanted.get(container, ()):
            gone.complete(None)

    def finished(self, request: CniRequest, trace: Trace, *, delivered: bool, fresh: bool) -> None:
        """An ADD ended. `delivered`: its result was taken; `fresh`: it recorded addresses that it did not release."""
        sandbox = request.sandbox
        running = self._in_flight[sandbox.container]
        running.remove(sandbox.key)
        if not running:
            del self._in_flight[sandbox.container]
            del self._wanted[sandbox.container]
        adds = self._adds[sandbox.container, sandbox.interface]
        adds.going -= 1
        adds.owed = not delivered and (adds.owed or fresh)
        self._settle(request, trace, UNDO_PAUSE)

    def _settle(self, request: CniRequest, trace: Trace, pause: float) -> None:
        sandbox = request.sandbox
        place = (sandbox.container, sandbox.interface)
        adds = self._adds.get(place)
        if adds is None or adds.going or adds.undoing:
            return
        if not adds.owed:
            del self._adds[place]
            return
        log_request(logging.WARNING, "nobody took the answer of an ADD, releasing its addresses", trace)
        adds.undoing = True
        with request_scope(trace, self.timeout):
            ref = self.system.get_actor("endpoint/" + sandbox.key).release.remote(sandbox)
        ref.subscribe(lambda done: self.soon(self._undone, request, trace, done, pause))

    def _undone(self, request: CniRequest, trace: Trace, ref: ObjectRef[int], pause: float) -> None:
        adds = self._adds[request.sandbox.container, request.sandbox.interface]
        adds.undoing = False
        error = ref.error()
        if error is None:
            # An ADD that began meanwhile waited in the Endpoint behind the release, so nothing of it is gone.
            adds.owed = False
            self._settle(request, trace, UNDO_PAUSE)
        else:
            log_request(logging.ERROR, "could not release them yet, will try again", trace, error=str(error))
            self._loop.call_later(pause, self._settle, request, trace, min(2 * pause, UNDO_PAUSE_MOST))

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    async def _serve(self, listener: socket.socket) -> None:
        # asyncio listens anew, with its own backlog of 100, unless told.
        self._server = await self._loop.create_unix_server(
            lambda: Connection(self, self._loop), sock=listener, backlog=BACKLOG
        )

    async def _close(self, drain: float) -> None:
        if self._server is not None:
            # asyncio forgets, and leaves open, a connection that it is accepting when its server is closed.
            for listener in self._server.sockets:
                self._loop.remove_reader(listener)
            accepting = asyncio.all_tasks() - {asyncio.current_task()}
            if accepting:
                await asyncio.wait(accepting, timeout=1.0)
            self._server.close()
            self._path.unlink(missing_ok=True)
        deadline = self._loop.time() + drain
        for container in tuple(self._wanted):
            self.unwanted(container)  # nobody waits for an address while the agent ends
        while True:
            await asyncio.sleep(0.01)  # what the kernel had received arrives meanwhile
            for client in tuple(self._connections):
                client.stop_reading()
            if not (self.clients or self._adds) or self._loop.time() > deadline:
                break
        for client in tuple(self._connections):
            client.give_up()
        while self._connections and self._loop.time() < deadline + 1.0:
            await asyncio.sleep(0)  # lets the transports close


@dataclass(slots=True)
class _Adds:
    """The ADDs of one (container, interface): how many are `going`; whether a release is `owed`, because addresses were
    recorded that nobody was told of; whether that is being done (`undoing`)."""

    going: int = 0
    owed: bool = False
    undoing: bool = False


def _complete_route(ref: ObjectRef[str], found: ObjectRef[Any], default: str) -> None:
    error = found.error()
    if error is not None:
        ref.fail(error)
    else:
        ref.complete(found.result() or default)


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
