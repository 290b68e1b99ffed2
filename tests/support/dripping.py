"""A peer on bare TCP that answers drop by drop."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType
from typing import Self


class Dripping:
    """Answers every connection with `text`, one byte each `pause` seconds."""

    def __init__(
        self, text: bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{       }", *, pause: float = 0.1
    ) -> None:
        self._text = text
        self._pause = pause
        self._ended = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._drip, args=(client,), daemon=True).start()

    def _drip(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            client.recv(1 << 16)
            for byte in self._text:
                client.sendall(bytes([byte]))
                if self._ended.wait(self._pause):
                    return
