"""The agent's side of probing: inquiries go to one process, all at once, and each is answered in time.

What must always hold: every inquiry is answered by its deadline, whatever its namespace does; one that hangs takes
a thread of the process with it and nobody else. When too many threads hang, a new process takes the new inquiries and
the old one ends with its last answer. No process runs before the first inquiry, unless it is started.
"""

from __future__ import annotations

import json
import logging
import select
import socket
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass
from typing import Any

from actors.decisions.detection import Inquiry, ProbeResult, ProbeResults
from actors.errors import DeadlineExceeded, OrbweaverError, PeerLost, from_wire
from actors.runtime import ObjectRef
from cni.dataplane.workers.channel import read_frame, write_frame
from metrics import logs

log = logging.getLogger("orbweaver.dataplane")

STUCK = 16
"""Threads that hang, after which a process gets no more inquiries."""
_SEND_TIMEOUT = 1.0


@dataclass(frozen=True, slots=True)
class _PendingInquiry:
    inquiry: Inquiry
    ref: ObjectRef[ProbeResults]
    deadline: float
    seconds: float


class WorkerProber:
    """`timeout`: seconds in which every inquiry is answered, at most."""

    def __init__(self, *, timeout: float = 10.0) -> None:
        self._timeout = timeout
        self._lock = threading.Lock()
        self._process: _ProbeProcess | None = None
        self._stopped = False

    def start(self) -> None:
        """Start the process, so that the first inquiry need not wait for it."""
        with self._lock:
            self._current()

    def stop(self) -> None:
        """End the process; what is under way is answered with an error."""
        with self._lock:
            self._stopped = True
            process, self._process = self._process, None
        if process is not None:
            process.end()

    def probe(self, inquiry: Inquiry, within: float | None = None) -> ObjectRef[ProbeResults]:
        """The findings, in the order of the probes, within so many seconds."""
        seconds = self._timeout if within is None else min(self._timeout, within)
        task = _PendingInquiry(
            inquiry, ObjectRef(label=f"probe {inquiry.pod}"), time.monotonic() + seconds, seconds
        )
        with self._lock:
            if self._stopped:
                task.ref.fail(PeerLost("the agent is stopping; try again"))
                return task.ref
            process = self._current()
        process.send(task)
        return task.ref

    def _current(self) -> _ProbeProcess:
        if self._process is None or not self._process.good:
            if self._process is not None:
                self._process.retire()
            self._process = _ProbeProcess()
        return self._process


class _ProbeProcess:
    """One process, the socket to it, and the thread that reads its answers."""

    def __init__(self) -> None:
        self._channel, theirs = socket.socketpair()
        self._channel.settimeout(_SEND_TIMEOUT)
        with theirs:
            command = [
                sys.executable,
                "-P",
                "-m",
                "cni.dataplane.probing.probe_worker",
                str(theirs.fileno()),
                logs.level(),
            ]
            self._process = subprocess.Popen(command, pass_fds=(theirs.fileno(),), stdin=subprocess.DEVNULL)
        self._lock = threading.Lock()
        self._tasks: dict[int, _PendingInquiry] = {}
        self._last = 0
        self._stuck = 0
        self._lost = False
        self._retired = False
        self._nudge, nudged = socket.socketpair()
        self._nudge.setblocking(False)
        self._thread = threading.Thread(target=self._read, args=(nudged,), name="prober", daemon=True)
        self._thread.start()

    @property
    def good(self) -> bool:
        """Whether it may get another inquiry."""
        return not self._lost and self._stuck < STUCK

    def send(self, task: _PendingInquiry) -> None:
        """Pass an inquiry on; it is answered in any case."""
        with self._lock:
            if self._lost:
                task.ref.fail(
                    PeerLost(f"the process that probes for pod {task.inquiry.pod} ended; try again")
                )
                return
            self._last += 1
            number = self._last
            self._tasks[number] = task
            try:
                write_frame(self._channel, encode(number, task.inquiry))
            except OSError:
                self._lost = True
        self._wake()

    def retire(self) -> None:
        """End as soon as what is under way is answered."""
        self._retired = True
        self._wake()

    def end(self) -> None:
        """End now."""
        self._lost = True
        self._wake()
        self._thread.join()

    def _wake(self) -> None:
        try:
            self._nudge.send(b"!")
        except (BlockingIOError, OSError):
            return  # it is awake already, or gone

    def _read(self, nudged: socket.socket) -> None:
        try:
            while not self._lost and not (self._retired and not self._tasks):
                readable, _, _ = select.select([self._channel, nudged], [], [], self._pause())
                if nudged in readable:
                    nudged.recv(4096)
                if self._channel in readable:
                    frame = read_frame(self._channel)
                    if not frame:
                        break
                    self._answered(json.loads(frame))
                self._expire()
        except OSError as error:
            log.error("the process that probes does not answer", extra={"error": str(error)})
        finally:
            with self._lock:
                self._lost = True
                left, self._tasks = list(self._tasks.values()), {}
            self._channel.close()
            nudged.close()
            self._nudge.close()
            self._process.kill()
            self._process.wait()
            for task in left:
                task.ref.fail(
                    PeerLost(f"the process that probes for pod {task.inquiry.pod} ended; try again")
                )

    def _pause(self) -> float | None:
        with self._lock:
            deadlines = [task.deadline for task in self._tasks.values()]
        return max(0.0, min(deadlines) - time.monotonic()) if deadlines else None

    def _answered(self, answer: dict[str, Any]) -> None:
        with self._lock:
            task = self._tasks.pop(int(answer["number"]), None)
            if task is None:
                self._stuck -= 1  # too late, but it does not hang any more
                return
        if "error" in answer:
            task.ref.fail(from_wire(answer["error"]))
        else:
            task.ref.complete(tuple(ProbeResult(**finding) for finding in answer["findings"]))

    def _expire(self) -> None:
        now = time.monotonic()
        with self._lock:
            late = {number: task for number, task in self._tasks.items() if task.deadline <= now}
            for number in late:
                del self._tasks[number]
            self._stuck += len(late)
        for task in late.values():
            inquiry = task.inquiry
            error: OrbweaverError = DeadlineExceeded(
                f"probing the addresses of pod {inquiry.pod} was not finished within {task.seconds:.3g} s: its network "
                f"namespace {inquiry.netns} does not answer; delete the pod, or look at what holds the namespace"
            )
            task.ref.fail(error)
            log.error("a probe did not end in time", extra={"pod": inquiry.pod, "netns": inquiry.netns})


def encode(number: int, inquiry: Inquiry) -> dict[str, Any]:
    """An inquiry as it crosses to the process."""
    return {"number": number, **asdict(inquiry)}
