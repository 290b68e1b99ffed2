"""A TLS connection whose handshake is done, as a transport of an event loop.

Why not the loop's own: that shakes hands in the loop, with everybody who connects. Here a `Gate` does it in a thread of its
own, and the loop gets connections of peers that have shown who they are.

What must always hold: after `start` all methods run in the loop's thread; what the peer sends never raises into the loop;
`connection_lost` is called once, with the socket closed. Writing never blocks: what does not leave at once waits here, and
the protocol is told above `HIGH_WATER`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections import deque

log = logging.getLogger("orbweaver.runtime")

HIGH_WATER, LOW_WATER = 1 << 16, 1 << 14
"""Bytes waiting to be sent at which the protocol is asked to pause, and to go on."""
_PIECE = 1 << 16
_ROUNDS = 8
"""Records read in one turn; then others have theirs."""


class TlsConnection(asyncio.Transport):
    """The half of `asyncio.Transport` that a `Link` needs."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, sock: ssl.SSLSocket, protocol: asyncio.Protocol
    ) -> None:
        super().__init__()
        self._loop = loop
        self._sock = sock
        self._descriptor = sock.fileno()
        self._protocol = protocol
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._paused = False
        self._writing = False
        self._said_end = False
        self._closing = False
        self._lost = False

    def start(self) -> None:
        """Begin to read and write."""
        self._protocol.connection_made(self)
        if not self._lost:
            self._loop.add_reader(self._descriptor, self._readable)
            # What came together with the end of the handshake may be in OpenSSL's hands already.
            self._loop.call_soon(self._readable)

    def is_closing(self) -> bool:
        return self._closing

    def get_write_buffer_size(self) -> int:
        return self._size

    def write(self, data: bytes | bytearray | memoryview[int]) -> None:
        if self._closing or self._lost:
            return
        self._waiting.append(bytes(data))
        self._size += len(data)
        if not self._writing:
            self._send()
        if self._size > HIGH_WATER and not self._paused and not self._lost:
            self._paused = True
            self._protocol.pause_writing()

    def close(self) -> None:
        """Say what waits, then goodbye; what the peer still sends is dropped, so that it can read both."""
        if not self._closing:
            self._closing = True
            if not self._waiting:
                self._say_end()

    def abort(self) -> None:
        self._end(None)

    def _readable(self) -> None:
        for _ in range(_ROUNDS):
            if self._lost:
                return
            try:
                data = self._sock.recv(_PIECE)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            except (OSError, ValueError) as error:
                self._end(error if isinstance(error, OSError) else None)
                return
            if not data:
                self._end(None)
                return
            if not self._closing:
                self._give(data)
        if not self._lost and self._sock.pending():
            self._loop.call_soon(self._readable)  # the kernel does not tell of what OpenSSL has read

    def _give(self, data: bytes) -> None:
        try:
            self._protocol.data_received(data)
        except Exception:
            log.exception("a connection is closed because of an error in this process")
            self._end(None)

    def _send(self) -> None:
        try:
            while self._waiting:
                head = self._waiting[0]
                sent = self._sock.send(head)
                self._size -= sent
                if sent == len(head):
                    self._waiting.popleft()
                else:
                    self._waiting[0] = head[sent:]
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            self._await_room(True)
            return
        except (OSError, ValueError) as error:
            self._end(error if isinstance(error, OSError) else None)
            return
        self._await_room(False)
        if self._closing:
            self._say_end()

    def _writable(self) -> None:
        self._send()
        if self._paused and self._size <= LOW_WATER and not self._lost:
            self._paused = False
            self._protocol.resume_writing()

    def _await_room(self, wanted: bool) -> None:
        if wanted is not self._writing and not self._lost:
            self._writing = wanted
            if wanted:
                self._loop.add_writer(self._descriptor, self._writable)
            else:
                self._loop.remove_writer(self._descriptor)

    def _say_end(self) -> None:
        if not self._said_end and not self._lost:
            self._said_end = True
            say_end(self._sock)

    def _end(self, error: OSError | None) -> None:
        if self._lost:
            return
        self._lost = self._closing = True
        self._loop.remove_reader(self._descriptor)
        if self._writing:
            self._loop.remove_writer(self._descriptor)
        self._waiting.clear()
        self._size = 0
        self._sock.close()
        self._loop.call_soon(self._protocol.connection_lost, error)


def say_end(sock: ssl.SSLSocket) -> None:
    """Tell the peer that nothing more comes, and go on reading: a socket that is closed with unread bytes takes what it
    sent last away from the peer."""
    with contextlib.suppress(OSError, ValueError):
        sock.unwrap()
    with contextlib.suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_WR)  # not SSLSocket's own, which forgets the TLS state
