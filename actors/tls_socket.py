"""A TLS socket that is closed at once when its peer has left before the handshake.

`SSLContext.wrap_socket` takes the descriptor over and only then asks who the peer is (CPython's `ssl.SSLSocket._create`).
When the peer has reset the connection by then, it raises, and nobody has the object to close: the descriptor stays open
until the garbage collector finds it. Each context of this project makes sockets of this class instead.
"""

from __future__ import annotations

import errno
import socket
import ssl
from typing import Any


class TlsSocket(ssl.SSLSocket):
    """Set as `sslsocket_class` of a context."""

    def getpeername(self) -> Any:
        """The peer's address. Closes the socket and raises `ConnectionResetError` when there is no peer any more."""
        try:
            return super().getpeername()
        except OSError as error:
            if error.errno == errno.ENOTCONN:
                socket.socket.close(self)
                raise ConnectionResetError(errno.ECONNRESET, "the peer left before the handshake") from error
            raise
