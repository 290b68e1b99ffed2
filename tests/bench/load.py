"""Plays the container runtime: executes an IPAM plugin as runtimes do, many at a time, and keeps the times.

What must always hold: a figure counts only if the addresses were right. `Load` checks that none is handed out twice.
An ADD that fails is followed by DEL and tried again after a pause with a new container id, as the kubelet does, and is
counted; a DEL that fails ends the bench. It leaves it to the peer to say that nothing stayed behind.
"""

from __future__ import annotations

import json
import os
import select
import signal
import statistics
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_TIMEOUT = 60.0
_ATTEMPTS = 8
_PAUSE, _PAUSE_MOST = 1.0, 8.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What one execution gave: exit status, standard output, seconds."""

    status: int
    output: bytes
    seconds: float


@dataclass(slots=True)
class Pod:
    """A pod, and the sandbox it has now. `agent`: which of the peer's agents has its node; `uid`: empty where pods have
    no objects."""

    name: str
    agent: int
    uid: str = ""
    container: str = ""

    def __post_init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """A new sandbox, with a container id as containerd makes them."""
        self.container = uuid.uuid4().hex + uuid.uuid4().hex


@dataclass(slots=True)
class Tally:
    """What became of the requests of one kind: seconds of those that were answered, and the errors of the others."""

    seconds: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    refused_while_free: int = 0

    def figures(self, took: float) -> dict[str, Any]:
        """Milliseconds, how many a second, and how many attempts failed."""
        return {
            **spread(self.seconds),
            "done": len(self.seconds),
            "per_second": len(self.seconds) / took,
            "failed": len(self.errors),
            "refused_while_free": self.refused_while_free,
            "errors": sorted(set(self.errors))[:3],
        }


def execute(program: Path, environment: dict[str, str], stdin: bytes) -> Answer:
    """Run a program once. `posix_spawn` and raw pipes, because `subprocess` costs more than the shim does."""
    in_read, in_write = os.pipe()
    os.write(in_write, stdin)  # less than 64 KiB: it fits the pipe
    os.close(in_write)
    out_read, out_write = os.pipe()
    started = time.perf_counter()
    pid = os.posix_spawn(
        program,
        [str(program)],
        {"PATH": _PATH, **environment},
        file_actions=[(os.POSIX_SPAWN_DUP2, in_read, 0), (os.POSIX_SPAWN_DUP2, out_write, 1)],
        setsigdef=[signal.SIGPIPE],
    )
    os.close(in_read)
    os.close(out_write)
    poll = select.poll()
    poll.register(out_read, select.POLLIN | select.POLLHUP)
    parts = []
    while True:
        if not poll.poll(_TIMEOUT * 1000):
            os.kill(pid, signal.SIGKILL)
        part = os.read(out_read, 65536)
        if not part:
            break
        parts.append(part)
    os.close(out_read)
    _, status = os.waitpid(pid, 0)
    return Answer(os.waitstatus_to_exitcode(status), b"".join(parts), time.perf_counter() - started)


def spread(seconds: Sequence[float]) -> dict[str, float]:
    """Milliseconds: p50, p99 and the largest; nothing for nothing."""
    if not seconds:
        return {}
    ordered = sorted(seconds)
    p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    return {"p50": statistics.median(ordered) * 1000, "p99": p99 * 1000, "max": ordered[-1] * 1000}


class Load:
    """One plugin, under the network configuration of each agent. `size`: how many addresses there are to give."""

    def __init__(self, program: Path, confs: Sequence[dict[str, Any]], size: int) -> None:
        self._program = program
        self._stdin = [json.dumps(conf).encode() for conf in confs]
        self._size = size
        self._given: dict[str, str] = {}
        self._lock = threading.Lock()

    def add_all(self, pods: Sequence[Pod], width: int) -> dict[str, Any]:
        """ADD for every pod, `width` at a time on each agent. Raises AssertionError when an address is given twice, or
        a pod gets none in the end."""
        tally = Tally()
        took = self._crowd(pods, width, lambda pod: self._add_until_done(pod, tally))
        return tally.figures(took)

    def delete_all(self, pods: Sequence[Pod], width: int) -> dict[str, Any]:
        """DEL for every pod. Raises AssertionError when one fails."""
        tally = Tally()
        took = self._crowd(pods, width, lambda pod: self._delete(pod, tally))
        return tally.figures(took)

    def churn(
        self, pods: Sequence[Pod], width: int, seconds: float, between: Callable[[Pod], object]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """ADD, `between`, DEL of one pod after the other, `width` at a time on each agent, for `seconds` or until the
        pods run out; what became of the ADDs and of the DELs."""
        adds, deletes = Tally(), Tally()
        until = time.perf_counter() + seconds

        def cycle(pod: Pod) -> None:
            if time.perf_counter() < until:
                self._add_until_done(pod, adds)
                between(pod)
                self._delete(pod, deletes)

        took = self._crowd(pods, width, cycle)
        return adds.figures(took), deletes.figures(took)

    def _crowd(self, pods: Sequence[Pod], width: int, work: Callable[[Pod], None]) -> float:
        """`work` on every pod, by `width` threads for each agent; how many seconds it took."""
        faults: list[BaseException] = []

        def worker(waiting: list[Pod]) -> None:
            while not faults:
                try:
                    pod = waiting.pop()
                except IndexError:
                    return
                try:
                    work(pod)
                except BaseException as error:
                    faults.append(error)

        threads = []
        for agent in range(len(self._stdin)):
            waiting = [pod for pod in reversed(pods) if pod.agent == agent]
            threads += [threading.Thread(target=worker, args=(waiting,), daemon=True) for _ in range(width)]
        started = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if faults:
            raise faults[0]
        return time.perf_counter() - started

    def _add_until_done(self, pod: Pod, tally: Tally) -> None:
        pause = _PAUSE
        for _ in range(_ATTEMPTS):
            if self._add(pod, tally):
                return
            self._delete(pod, Tally())
            pod.renew()
            time.sleep(pause)
            pause = min(2 * pause, _PAUSE_MOST)
        raise AssertionError(f"pod {pod.name} got no address in {_ATTEMPTS} attempts: {tally.errors[-1]}")

    def _add(self, pod: Pod, tally: Tally) -> bool:
        answer = self._call("ADD", pod)
        if answer.status != 0:
            text = answer.output.decode(errors="replace")
            with self._lock:
                tally.errors.append(text)
                tally.refused_while_free += "no pool can give" in text and len(self._given) < self._size
            return False
        with self._lock:
            tally.seconds.append(answer.seconds)
            for entry in json.loads(answer.output)["ips"]:
                other = self._given.setdefault(entry["address"], pod.container)
                assert other == pod.container, (
                    f"{entry['address']} was given to {pod.name} while {other} has it"
                )
        return True

    def _delete(self, pod: Pod, tally: Tally) -> None:
        with self._lock:  # from here on the address may be given to somebody else
            for address in [ip for ip, holder in self._given.items() if holder == pod.container]:
                del self._given[address]
        answer = self._call("DEL", pod)
        assert answer.status == 0, f"DEL of {pod.name} failed: {answer.output.decode(errors='replace')}"
        with self._lock:
            tally.seconds.append(answer.seconds)

    def _call(self, command: str, pod: Pod) -> Answer:
        arguments = f"IgnoreUnknown=1;K8S_POD_NAMESPACE=bench;K8S_POD_NAME={pod.name}"
        if pod.uid:
            arguments += f";K8S_POD_UID={pod.uid}"
        environment = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": pod.container,
            "CNI_NETNS": "/run/netns/none",
            "CNI_IFNAME": "eth0",
            "CNI_PATH": str(self._program.parent),
            "CNI_ARGS": arguments,
        }
        return execute(self._program, environment, self._stdin[pod.agent])


def new_pods(count: int, agents: int) -> list[Pod]:
    """Pods with names of their own, spread over the agents."""
    run = uuid.uuid4().hex[:8]
    return [Pod(f"web-{run}-{number}", number % agents) for number in range(count)]
