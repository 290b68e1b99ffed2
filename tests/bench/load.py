"""Plays the container runtime: executes an IPAM plugin as runtimes do, many at a time, and keeps the times.

What must always hold: a figure counts only if the addresses were right. `Load` checks that none is handed out
twice, that every ADD and DEL succeeded, and leaves it to the peer to say that nothing stayed behind.
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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_TIMEOUT = 60.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What one execution gave: exit status, standard output, seconds."""

    status: int
    output: bytes
    seconds: float


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
    """Milliseconds: p50, p99 and the largest."""
    ordered = sorted(seconds)
    p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    return {"p50": statistics.median(ordered) * 1000, "p99": p99 * 1000, "max": ordered[-1] * 1000}


def cpu_seconds(pid: int) -> float:
    """CPU time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Load:
    """One plugin under one network configuration. `uids`: the UID of each container's pod, where pods have one."""

    def __init__(self, program: Path, conf: dict[str, Any], uids: Mapping[str, str] | None = None) -> None:
        self._program = program
        self._uids = uids or {}
        self._stdin = json.dumps(conf).encode()
        self._given: dict[str, str] = {}
        self._lock = threading.Lock()

    def phase(self, command: str, containers: Sequence[str], width: int) -> dict[str, float]:
        """`command` for every container, `width` at a time: milliseconds, and how many a second.

        Raises AssertionError when one fails, or when an address is given to two containers.
        """
        waiting = list(reversed(containers))
        times: list[float] = []
        faults: list[str] = []

        def work() -> None:
            while not faults:
                try:
                    container = waiting.pop()
                except IndexError:
                    return
                answer = execute(self._program, self._environment(command, container), self._stdin)
                times.append(answer.seconds)
                fault = self._judge(command, container, answer)
                if fault:
                    faults.append(fault)

        threads = [threading.Thread(target=work) for _ in range(width)]
        started = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        took = time.perf_counter() - started
        assert not faults, faults[0]
        return {**spread(times), "per_second": len(containers) / took}

    def _environment(self, command: str, container: str) -> dict[str, str]:
        arguments = f"IgnoreUnknown=1;K8S_POD_NAMESPACE=bench;K8S_POD_NAME={pod_name(container)}"
        if container in self._uids:
            arguments += f";K8S_POD_UID={self._uids[container]}"
        return {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": container,
            "CNI_NETNS": "/run/netns/none",
            "CNI_IFNAME": "eth0",
            "CNI_PATH": str(self._program.parent),
            "CNI_ARGS": arguments,
        }

    def _judge(self, command: str, container: str, answer: Answer) -> str | None:
        if answer.status != 0:
            return f"{command} of {container} failed: {answer.output.decode(errors='replace')}"
        with self._lock:
            if command == "DEL":
                self._given = {ip: holder for ip, holder in self._given.items() if holder != container}
                return None
            for entry in json.loads(answer.output)["ips"]:
                other = self._given.setdefault(entry["address"], container)
                if other != container:
                    return f"{entry['address']} was given to {container} while {other} has it"
        return None


def pod_name(container: str) -> str:
    """The pod of a container."""
    return f"pod-{container[:16]}"


def new_containers(count: int) -> list[str]:
    """Container ids as containerd makes them."""
    return [uuid.uuid4().hex + uuid.uuid4().hex for _ in range(count)]
