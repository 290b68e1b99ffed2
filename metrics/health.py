"""The port for Prometheus and for health probes, served by a process of its own (`health_process.py`).

How it works. The process has its own descriptors, event loop and interpreter, so whatever is done to its port costs CNI
requests nothing but a share of the CPU. It asks over a socket for what it cannot know itself; a thread here answers
whether this process lives and is ready, another one collects metrics. When the process ends, another one takes its
place on the same listening socket.
What must always hold: no peer's bytes reach this process, only one of three questions; the process ends when this one
does, because the socket closes. A port that another program has is no reason not to serve pods: it is taken once it is
free, and meanwhile the log says so.
"""

from __future__ import annotations

import errno
import json
import logging
import queue
import socket
import subprocess
import sys
import threading
from collections.abc import Callable

from actors.errors import StoreUnavailable
from actors.tcp_listener import listen
from metrics import logs
from metrics.prometheus import Metrics

log = logging.getLogger("orbweaver.http")

PAUSE, PAUSE_MOST = 0.1, 10.0
"""Seconds before a process that ended is replaced."""
_STOP_TIMEOUT = 2.0
TAKEN = (errno.EADDRINUSE, errno.EADDRNOTAVAIL)
"""What time may cure: another program has the port, or the host does not have the address yet."""
RETRY = 1.0
"""Seconds between attempts to have such a port."""


class HealthServer:
    """Serves on `host:port`. Port 0 takes a free one, which `port` then tells. `not_ready` says why the process cannot do
    its work now, or None; it must not block. Raises `StoreUnavailable` when the port cannot be had at all."""

    def __init__(self, host: str, port: int, metrics: Metrics, not_ready: Callable[[], str | None]) -> None:
        self._address = (host, port)
        self._listener: socket.socket | None = None
        try:
            self._listener = listen(host, port)
        except OSError as error:
            if error.errno not in TAKEN:
                raise StoreUnavailable(
                    f"cannot serve metrics on {host}:{port}: {error.strerror}; choose another --metrics-port"
                ) from error
            log.error(
                "health and metrics are not served while their port cannot be had; everything else is; free the port, or "
                "choose another --metrics-port",
                extra={"address": f"{host}:{port}", "error": error.strerror},
            )
        self._metrics = metrics
        self._not_ready = not_ready
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self._scrapes: queue.SimpleQueue[tuple[socket.socket, str] | None] = queue.SimpleQueue()
        self._threads = (
            threading.Thread(target=self._run, name="health", daemon=True),
            threading.Thread(target=self._collect, name="metrics", daemon=True),
        )

    def start(self) -> None:
        """Begin to serve."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End; requests in progress are not waited for."""
        self._stopping.set()
        with self._lock:
            if self._channel is not None:
                self._channel.shutdown(socket.SHUT_RDWR)
        self._scrapes.put(None)
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()
        if self._listener is not None:
            self._listener.close()

    @property
    def port(self) -> int | None:
        """The port that is served, None while another program has it."""
        listener = self._listener
        return int(listener.getsockname()[1]) if listener is not None else None

    @property
    def pid(self) -> int | None:
        """The process that serves now, if there is one."""
        process = self._process
        return process.pid if process is not None else None

    def _await_port(self) -> None:
        """Try to have the port until it is had, or this ends."""
        while self._listener is None and not self._stopping.wait(RETRY):
            try:
                self._listener = listen(*self._address)
            except OSError as error:
                log.debug("the port of health and metrics is still taken", extra={"error": str(error)})
            else:
                log.info("health and metrics are served now", extra={"port": self.port})

    def _run(self) -> None:
        self._await_port()
        pause = PAUSE
        while not self._stopping.is_set():
            answered = self._serve_once()
            if self._stopping.is_set():
                return
            pause = PAUSE if answered else min(2 * pause, PAUSE_MOST)
            log.error("the process that serves health and metrics ended, another one takes its place")
            self._stopping.wait(pause)

    def _serve_once(self) -> int:
        """Run one process until it ends; how many questions it asked."""
        assert self._listener is not None
        channel, theirs = socket.socketpair()
        descriptors = (theirs.fileno(), self._listener.fileno())
        command = [sys.executable, "-P", "-m", "metrics.health_process", *map(str, descriptors), logs.level()]
        with theirs:
            try:
                process = subprocess.Popen(command, pass_fds=descriptors, stdin=subprocess.DEVNULL)
            except OSError as error:
                channel.close()
                log.error("cannot start the process that serves health", extra={"error": str(error)})
                return 0
        with self._lock:
            self._process, self._channel = process, channel
        try:
            return 0 if self._stopping.is_set() else self._answer_all(channel)
        finally:
            with self._lock:
                self._process = self._channel = None
                channel.close()
            _end(process)

    def _answer_all(self, channel: socket.socket) -> int:
        answered = 0
        try:
            with channel.makefile("rb") as questions:
                for line in questions:
                    answered += 1
                    question = json.loads(line)["question"]
                    if question.startswith("metrics"):
                        self._scrapes.put((channel, question))
                    else:
                        self._tell(channel, question, *self._state(question))
        except OSError as error:
            log.debug("the channel to the process that serves health broke", extra={"error": str(error)})
        return answered

    def _state(self, question: str) -> tuple[int, str]:
        reason = self._not_ready() if question == "ready" else None
        return (503, f"{reason}\n") if reason else (200, "ok\n")

    def _collect(self) -> None:
        while (scrape := self._scrapes.get()) is not None:
            channel, question = scrape
            try:
                body, content_type = self._metrics.expose(open_metrics=question == "metrics-open")
                self._tell(channel, question, 200, body.decode(), content_type)
            except Exception as error:
                log.exception("metrics could not be collected")
                self._tell(channel, question, 500, f"internal error: {type(error).__name__}\n")

    def _tell(
        self, channel: socket.socket, question: str, status: int, body: str, content_type: str = ""
    ) -> None:
        answer = {"question": question, "status": status, "body": body, "content_type": content_type}
        with self._lock:
            if self._channel is not channel:
                return  # the process that asked is gone
            try:
                channel.sendall(json.dumps(answer).encode() + b"\n")
            except OSError as error:
                log.debug("nobody took an answer", extra={"error": str(error)})


def _end(process: subprocess.Popen[bytes]) -> None:
    """It ends by itself when its channel closes; what does not is killed."""
    try:
        process.wait(_STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
