"""The worker processes of an agent: jobs go to whoever is free, and no job waits for one that hangs.

How it works: a thread for each worker takes jobs from one queue. A job that has no answer within its time gets an
error, its worker is killed and a new one takes its place. When a job has waited in the queue while every worker was
busy for longer than a job takes, one more worker starts, up to a limit; spare ones end when they are idle.
What must always hold: every job is answered once, by its deadline; a worker that is not known to be well gets no job.
"""

from __future__ import annotations

import json
import logging
import queue
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from actors.errors import (
    DeadlineExceeded,
    OrbweaverError,
    Overloaded,
    PeerLost,
    from_wire,
)
from actors.runtime import ObjectRef
from cni.dataplane.workers.channel import READY, read_frame, write_frame
from cni.dataplane.workers.job import Job
from metrics import logs

log = logging.getLogger("orbweaver.dataplane")

IMPATIENCE = 0.25
"""Seconds that a job waits for a free worker before another one starts."""
SPARE = 30.0
"""Seconds without a job after which a worker beyond the first ones ends."""
BACKLOG = 4096
_SUSPECTS = {
    "coordinator": "its network namespace {netns} does not answer; delete the pod, or look at what holds the namespace",
    "ifacer": "the host's interfaces are being changed, or the kernel does not answer; try again",
}
"""What a job that does not end waits for, and the remedy."""


@dataclass(slots=True)
class _PendingJob:
    """One job that waits for a worker, or is with it."""

    job: Job
    """As it was sent."""
    complete: Callable[[Job], Job]
    """What the worker's job is made of just before: it fills in what the host has then."""
    ref: ObjectRef[int]
    """Completed with how many things were changed."""
    deadline: float
    """Monotonic seconds."""
    queued: float = field(default_factory=time.monotonic)
    """When it came, in monotonic seconds."""


class Workers:
    """`count` processes, and up to `most` when some hang. `timeout`: seconds for one job, waiting included."""

    def __init__(self, *, count: int = 2, most: int = 16, timeout: float = 10.0) -> None:
        self.timeout = timeout
        self._count, self._most = count, most
        self._tasks: queue.Queue[_PendingJob | None] = queue.Queue(BACKLOG)
        self._lock = threading.Lock()
        self._threads: set[threading.Thread] = set()
        self._busy = 0
        self._started = False
        self._stopping = False
        self._watch = threading.Thread(target=self._start_more, name="dataplane-watch", daemon=True)
        self._wake = threading.Event()

    def start(self) -> None:
        """Start the processes; jobs that come before they are ready wait. The first job does it too: a node without
        chained plugins needs none of them, and each is 10 MB."""
        with self._lock:
            if self._started or self._stopping:
                return
            self._started = True
        for _ in range(self._count):
            self._add(spare=False)
        self._watch.start()

    def stop(self) -> None:
        """Finish what is queued, and end the processes."""
        with self._lock:
            self._stopping = True
            threads = tuple(self._threads)
        self._wake.set()
        for _ in threads:
            self._tasks.put(None)
        for thread in threads:
            thread.join(self.timeout + 1)

    def submit(self, job: Job, complete: Callable[[Job], Job]) -> ObjectRef[int]:
        """Do the job in a worker; the reference completes with the number of changes. `complete`, which may wait for
        the store, is called in the worker's thread."""
        self.start()
        ref: ObjectRef[int] = ObjectRef(label=f"{job.plugin} {job.command}")
        try:
            self._tasks.put_nowait(_PendingJob(job, complete, ref, time.monotonic() + self.timeout))
        except queue.Full:
            ref.fail(Overloaded(f"{BACKLOG} requests wait for the data plane's workers already; try again"))
        return ref

    def _add(self, *, spare: bool) -> None:
        thread = threading.Thread(target=self._drive, args=(spare,), name="dataplane", daemon=True)
        with self._lock:
            if self._stopping:
                return
            self._threads.add(thread)
        thread.start()

    def _start_more(self) -> None:
        waited_since: float | None = None
        while not self._stopping:
            stuck = self._tasks.qsize() > 0 and self._busy >= len(self._threads)
            if not stuck:
                waited_since = None
            elif waited_since is None:
                waited_since = self._taken = time.monotonic()
            elif self._taken > waited_since:
                waited_since = self._taken  # the queue is long, but it moves
            elif time.monotonic() - waited_since >= IMPATIENCE and len(self._threads) < self._most:
                log.warning(
                    "every data plane worker is busy, starting one more",
                    extra={"workers": len(self._threads)},
                )
                self._add(spare=True)
                waited_since = None
            self._wake.wait(IMPATIENCE / 2)

    _taken = 0.0

    def _drive(self, spare: bool) -> None:
        worker: _WorkerProcess | None = None
        try:
            while True:
                if worker is None:
                    worker = _WorkerProcess()
                try:
                    task = self._tasks.get(timeout=SPARE if spare else None)
                except queue.Empty:
                    return
                if task is None:
                    return
                with self._lock:
                    self._busy += 1
                    self._taken = time.monotonic()
                try:
                    worker = self._do(worker, task)
                finally:
                    with self._lock:
                        self._busy -= 1
        finally:
            if worker is not None:
                worker.end()
            with self._lock:
                self._threads.discard(threading.current_thread())

    def _do(self, worker: _WorkerProcess, task: _PendingJob) -> _WorkerProcess | None:
        """Returns the worker if it can go on."""
        job = task.job
        left = task.deadline - time.monotonic()
        try:
            if left <= 0:
                raise TimeoutError
            job = task.complete(job)
            answer = worker.ask(job.to_json(), left)
        except OrbweaverError as error:
            task.ref.fail(error)
            return worker
        except TimeoutError:
            task.ref.fail(
                DeadlineExceeded(
                    f"{job.plugin} {job.command} of {job.interface} for pod {job.pod} was not finished within "
                    f"{self.timeout:g} s: {_SUSPECTS[job.plugin].format(netns=job.netns)}"
                )
            )
            log.error("killed a worker that did not answer", extra={"pod": job.pod, "netns": job.netns})
            worker.kill()
            return None
        except OSError as error:
            worker.kill()
            lost = PeerLost(
                f"the worker of {job.plugin} {job.command} for pod {job.pod} ended: {error}; try again"
            )
            task.ref.fail(lost)
            log.error(
                "a worker ended, another one takes its place", extra={"pod": job.pod, "error": str(error)}
            )
            return None
        except Exception as error:  # a bug, or a job that cannot cross to a process; the thread goes on
            log.exception("a job could not be done", extra={"pod": job.pod, "job": job.plugin})
            worker.kill()
            task.ref.fail(OrbweaverError(f"internal error in {job.plugin} {job.command}: {error!r:.200}"))
            return None
        if "error" in answer:
            task.ref.fail(from_wire(answer["error"]))
        else:
            for note in answer["notes"]:
                about = {"pod": job.pod, "container": job.container, "interface": job.interface}
                log.warning(f"{job.plugin} {job.command}: {note}", extra=about)
            task.ref.complete(int(answer["changed"]))
        return worker


class _WorkerProcess:
    """One worker process and the socket to it."""

    def __init__(self) -> None:
        self._channel, theirs = socket.socketpair()
        with theirs:
            command = [
                sys.executable,
                "-P",
                "-m",
                "cni.dataplane.workers.worker",
                str(theirs.fileno()),
                logs.level(),
            ]
            self._process = subprocess.Popen(command, pass_fds=(theirs.fileno(),), stdin=subprocess.DEVNULL)
        self._ready = False

    def ask(self, job: dict[str, Any], timeout: float) -> dict[str, Any]:
        """Raises `TimeoutError`, or `OSError` when the process has ended."""
        if not self._ready:
            self._channel.settimeout(timeout)
            if self._channel.recv(1) != READY:
                raise ConnectionResetError("it could not start")
            self._ready = True
        self._channel.settimeout(timeout)
        write_frame(self._channel, job)
        answer = read_frame(self._channel)
        if not answer:
            raise ConnectionResetError(f"exit status {self._process.wait()}")
        decoded: dict[str, Any] = json.loads(answer)
        return decoded

    def kill(self) -> None:
        """End it at once. A process that waits in the kernel ends when the kernel lets go of it: nobody waits here."""
        self._process.kill()
        self._channel.close()
        threading.Thread(target=self._process.wait, name="dataplane-reaper", daemon=True).start()

    def end(self) -> None:
        """Let it end by itself."""
        self._channel.close()
        self._process.wait()


def settle(answer: ObjectRef[bytes], done: ObjectRef[int], output: bytes) -> None:
    """Complete `answer` with what a plugin prints when its job is done, or with the job's error."""
    error = done.error()
    if error is None:
        answer.complete(output)
    else:
        answer.fail(
            error if isinstance(error, OrbweaverError) else OrbweaverError(f"internal error: {error!r}")
        )
