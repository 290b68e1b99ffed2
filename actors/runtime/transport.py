"""How bytes get to another process. A transport only makes asyncio connections; what they carry is
`wire.py`'s.

What must always hold: nothing above this file knows what kind of socket it is. So liveness is found by pings
and not by what one kernel tells, and who may connect is settled here: by file mode on a Unix socket, by
certificates on TCP.
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
from typing import Protocol

from actors.errors import OrbweaverError

Factory = Callable[[], asyncio.Protocol]

_BACKLOG = 1024
"""All agents of a cluster connect at once when their leader changes."""
_HANDSHAKE = 10.0
"""Seconds that whoever connects has to show a certificate."""


class Listening(Protocol):
    """A transport that accepts connections."""

    @property
    def address(self) -> str:
        """Where, for logs; for TCP with the port that was given."""

    def close(self) -> None:
        """Accept no more. Connections that exist go on."""


class Transport(Protocol):
    """One way to one place. Both methods run in the IO thread's loop and may raise OSError."""

    async def connect(self, factory: Factory) -> None:
        """Connect, with a protocol made by `factory`."""

    async def listen(self, factory: Factory) -> Listening:
        """Accept connections, each with a protocol made by `factory`. Raises OrbweaverError when it
        cannot."""

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

    async def listen(self, factory: Factory) -> Listening:
        """Bind, in the place of a socket that nobody serves any more.

        Raises OrbweaverError when a live process serves it, when something else has that name, or when the
        directory is missing or closed to us.
        """
        try:
            with _sole_starter(self.path.parent):
                sock = self._bind()
        except OSError as error:
            raise OrbweaverError(f"cannot listen on {self.path}: {error.strerror or error}") from error
        server = await asyncio.get_running_loop().create_unix_server(factory, sock=sock, backlog=_BACKLOG)
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
            sock.listen(_BACKLOG)
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
    """TCP, with mutual TLS when a context is given: a server's context must ask for client certificates.

    Port 0 listens on a free port, which `Listening.address` tells. `server_name` is what the server's certificate must
    say, in place of `host`, which may change.
    """

    def __init__(
        self, host: str, port: int, context: ssl.SSLContext | None = None, *, server_name: str | None = None
    ) -> None:
        self.host = host
        self.port = port
        self.context = context
        self.server_name = server_name

    def describe(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'tls' if self.context else 'tcp'}:{host}:{self.port}"

    async def connect(self, factory: Factory) -> None:
        await asyncio.get_running_loop().create_connection(
            factory,
            self.host,
            self.port,
            ssl=self.context,
            server_hostname=self.server_name if self.context is not None else None,
        )

    async def listen(self, factory: Factory) -> Listening:
        """Bind. Raises OrbweaverError when the address is not to be had, or the context would accept
        anybody."""
        if self.context is not None and self.context.verify_mode is not ssl.CERT_REQUIRED:
            raise OrbweaverError(f"{self.describe()} must require client certificates: set verify_mode")
        try:
            server = await asyncio.get_running_loop().create_server(
                factory,
                self.host,
                self.port,
                ssl=self.context,
                ssl_handshake_timeout=_HANDSHAKE if self.context is not None else None,
                backlog=_BACKLOG,
            )
        except OSError as error:
            raise OrbweaverError(f"cannot listen on {self.describe()}: {error.strerror or error}") from error
        return _TcpListening(server, self)


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
