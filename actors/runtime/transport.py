"""How bytes get to another process. A transport only makes asyncio connections; what they carry is
`wire.py`'s.

What must always hold: nothing above this file knows what kind of socket it is. So liveness is found by pings
and not by what one kernel tells, and who may connect is settled here: by file mode on a Unix socket, behind a
`Gate` on TCP with TLS.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import socket
import ssl
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol, cast

from actors.errors import OrbweaverError
from actors.runtime.gate import Gate, GateLimits
from actors.runtime.identity import Identify, PeerIdentity, introduction
from actors.runtime.tls_connection import TlsConnection
from actors.tcp_listener import BACKLOG, listen

Factory = Callable[[], asyncio.Protocol]
ServerFactory = Callable[["PeerIdentity | None"], asyncio.Protocol]
"""Makes the protocol of a connection that came in; None where the transport does not ask who that is."""


class Listening(Protocol):
    """A transport that accepts connections."""

    @property
    def address(self) -> str:
        """Where, for logs; for TCP with the port that was given."""

    def close(self) -> None:
        """Accept no more. Connections that exist go on."""


class Door(Protocol):
    """A place where others can connect."""

    async def listen(self, factory: ServerFactory) -> Listening:
        """In the IO thread's loop: accept connections, each with a protocol made by `factory`. Raises OrbweaverError
        when it cannot."""

    def describe(self) -> str:
        """The place, for logs and errors."""


class Transport(Protocol):
    """One way to one place."""

    async def connect(self, factory: Factory) -> None:
        """In the IO thread's loop: connect, with a protocol made by `factory`. May raise OSError."""

    def describe(self) -> str:
        """The place, for logs and errors."""


class UnixTransport:
    """A Unix stream socket. The file's mode decides who may connect."""

    def __init__(self, path: str | Path, mode: int = 0o600) -> None:
        self.path = Path(path)
        self.mode = mode

    def describe(self) -> str:
        return f"unix:{self.path}"

    async def connect(self, factory: Factory) -> None:
        await asyncio.get_running_loop().create_unix_connection(factory, str(self.path))

    async def listen(self, factory: ServerFactory) -> Listening:
        """Bind, in the place of a socket that nobody serves any more.

        Raises OrbweaverError when a live process serves it, when something else has that name, or when the
        directory is missing or closed to us.
        """
        try:
            with _sole_starter(self.path.parent):
                sock = self._bind()
        except OSError as error:
            raise OrbweaverError(f"cannot listen on {self.path}: {error.strerror or error}") from error
        server = await asyncio.get_running_loop().create_unix_server(
            lambda: factory(None), sock=sock, backlog=BACKLOG
        )
        return _UnixListening(server, self.path)

    def _bind(self) -> socket.socket:
        with contextlib.suppress(FileNotFoundError):
            self._remove_stale()
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            # On Linux the mode of an unbound socket becomes that of the file (unix(7) leaves it to the umask
            # otherwise), so there is no moment at which others could connect.
            os.fchmod(sock.fileno(), self.mode)
            sock.bind(str(self.path))
            self.path.chmod(self.mode)
            sock.listen(BACKLOG)
            sock.setblocking(False)
        except BaseException:
            sock.close()
            raise
        return sock

    def _remove_stale(self) -> None:
        if not stat.S_ISSOCK(self.path.lstat().st_mode):
            raise OrbweaverError(f"{self.path} exists and is no socket; move it away or choose another path")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)
            # EAGAIN is a live process whose backlog is full; only a refusal says that nobody is there.
            refused = probe.connect_ex(str(self.path)) == errno.ECONNREFUSED
        if not refused:
            raise OrbweaverError(f"{self.path} is served by a live process; stop that one first")
        self.path.unlink()


@contextlib.contextmanager
def _sole_starter(directory: Path) -> Iterator[None]:
    """Between looking for a live server and binding, nobody else on this directory does the same."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


class _UnixListening:
    def __init__(self, server: asyncio.Server, path: Path) -> None:
        self._server = server
        self._path = path
        self._inode = path.stat().st_ino

    @property
    def address(self) -> str:
        return f"unix:{self._path}"

    def close(self) -> None:
        self._server.close()
        with contextlib.suppress(FileNotFoundError):
            if self._path.stat().st_ino == self._inode:
                self._path.unlink()


class TcpTransport:
    """TCP, and TLS when a context is given. What listens here does so without: for that there is `TlsDoor`.

    Port 0 listens on a free port, which `Listening.address` tells. `server_name` is what the server's certificate must
    say, in place of `host`, which may change. `token` is asked, for each connection, for what shows who this is.
    """

    def __init__(
        self,
        host: str,
        port: int,
        context: ssl.SSLContext | None = None,
        *,
        server_name: str | None = None,
        token: Callable[[], str] | None = None,
    ) -> None:
        self.host = host
        self.port = port
        self.context = context
        self.server_name = server_name
        self._token = token

    def describe(self) -> str:
        return _describe("tls" if self.context else "tcp", self.host, self.port)

    async def connect(self, factory: Factory) -> None:
        shown = b"" if self._token is None else introduction(self._token())
        await asyncio.get_running_loop().create_connection(
            (lambda: _Introducing(shown, factory())) if shown else factory,
            self.host,
            self.port,
            ssl=self.context,
            server_hostname=self.server_name if self.context is not None else None,
        )

    async def listen(self, factory: ServerFactory) -> Listening:
        """Bind. Raises OrbweaverError when the address is not to be had."""
        if self.context is not None:
            raise OrbweaverError(f"{self.describe()} cannot be listened on so: TLS is served by a TlsDoor")
        try:
            server = await asyncio.get_running_loop().create_server(
                lambda: factory(None), self.host, self.port, backlog=BACKLOG
            )
        except OSError as error:
            raise OrbweaverError(f"cannot listen on {self.describe()}: {error.strerror or error}") from error
        return _TcpListening(server, self)


class _Introducing(asyncio.Protocol):
    """Shows who this is, and leaves the connection to the protocol that uses it."""

    def __init__(self, shown: bytes, user: asyncio.Protocol) -> None:
        self._shown = shown
        self._user = user

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        plain = cast(asyncio.Transport, transport)
        plain.write(self._shown)
        plain.set_protocol(self._user)
        self._user.connection_made(plain)


class _TcpListening:
    def __init__(self, server: asyncio.Server, transport: TcpTransport) -> None:
        self._server = server
        self.port: int = server.sockets[0].getsockname()[1]
        self._host = transport.host

    @property
    def address(self) -> str:
        return f"{self._host}:{self.port}"

    def close(self) -> None:
        self._server.close()


class TlsDoor:
    """Listens with TLS 1.3 for peers who then show a token; see `Gate`. `context` gives the certificate of the moment,
    `identify` whose token it is. An empty `host` means all addresses of this machine, port 0 a free one."""

    def __init__(
        self,
        host: str,
        port: int,
        context: Callable[[], ssl.SSLContext],
        identify: Identify,
        limits: GateLimits | None = None,
    ) -> None:
        self.host = host
        self.port = port
        self._context = context
        self._identify = identify
        self._limits = limits or GateLimits()
        self.gate: Gate | None = None
        """While it is open."""

    def describe(self) -> str:
        return _describe("tls", self.host or "*", self.port)

    async def listen(self, factory: ServerFactory) -> Listening:
        """Bind. Raises OrbweaverError when the address is not to be had."""
        loop = asyncio.get_running_loop()
        try:
            sock = listen(self.host, self.port)
        except OSError as error:
            raise OrbweaverError(f"cannot listen on {self.describe()}: {error.strerror or error}") from error

        def welcome(tls: ssl.SSLSocket, identity: PeerIdentity) -> None:
            TlsConnection(loop, tls, factory(identity)).start()

        def admit(tls: ssl.SSLSocket, identity: PeerIdentity) -> None:
            try:
                loop.call_soon_threadsafe(welcome, tls, identity)
            except RuntimeError:  # the loop is closed: the process ends
                tls.close()

        self.gate = Gate([sock], self._context, self._identify, admit, self._limits)
        listening = _DoorListening(self.host, sock.getsockname()[1], self.gate)
        self.gate.start()
        return listening


class _DoorListening:
    def __init__(self, host: str, port: int, gate: Gate) -> None:
        self._host, self.port = host, port
        self._gate = gate

    @property
    def address(self) -> str:
        return f"{self._host}:{self.port}"

    def close(self) -> None:
        self._gate.close()


def _describe(scheme: str, host: str, port: int) -> str:
    return f"{scheme}:[{host}]:{port}" if ":" in host else f"{scheme}:{host}:{port}"
