"""A cable between two peers on TCP that counts its connections, and that a test cuts, or clogs in one direction: bytes wait
in it and arrive later."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType
from typing import Self


class Valve:
    """One direction. What it holds up waits, and arrives when it is opened, also after the sender has closed."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._left: float = float("inf")

    def close(self, after: int = 0) -> None:
        """Let so many more pieces pass, each of which one peer wrote at once, and hold up the rest."""
        with self._changed:
            self._left = after

    def open(self) -> None:
        """Let everything pass."""
        with self._changed:
            self._left = float("inf")
            self._changed.notify_all()

    def wait(self) -> None:
        """Wait for one piece's turn."""
        with self._changed:
            self._changed.wait_for(lambda: self._left > 0)
            self._left -= 1


class Cable:
    """Passes bytes from its own address to `target`, a port on loopback (`there`), and `back`. `accepted` counts the
    connections."""

    def __init__(self, target: int = 0, at: tuple[str, int] = ("127.0.0.1", 0)) -> None:
        self.accepted = 0
        self.target = target
        self.there = Valve()
        self.back = Valve()
        self._cut = False
        self._ends: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listener = socket.create_server(at)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Every connection breaks, and each new one at once."""
        with self._lock:
            self._cut = True
            ends = list(self._ends)
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        """New connections pass again."""
        with self._lock:
            self._cut = False

    def clog(self) -> None:
        """Nothing passes any more, and nobody is told: bytes wait, as for a peer whose machine is gone."""
        self.there.close()
        self.back.close()

    def unclog(self) -> None:
        """What waited passes on."""
        self.there.open()
        self.back.open()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        self.unclog()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            threading.Thread(target=self._pass, args=(client,), daemon=True).start()

    def _pass(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            if self._cut:
                return
            with socket.create_connection(("127.0.0.1", self.target)) as server:
                if not self._takes(client, server):
                    return
                returning = threading.Thread(target=_pump, args=(server, client, self.back), daemon=True)
                returning.start()
                _pump(client, server, self.there)
                returning.join()
                with self._lock:
                    self._ends -= {client, server}

    def _takes(self, *ends: socket.socket) -> bool:
        """Whether it was not cut meanwhile; from now on a cut breaks these."""
        with self._lock:
            if not self._cut:
                self._ends.update(ends)
            return not self._cut


def _pump(source: socket.socket, target: socket.socket, valve: Valve) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(1 << 16):
            valve.wait()
            target.sendall(piece)
    valve.wait()
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
