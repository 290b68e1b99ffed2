"""One CNI plugin, executed: a program of the node, with its request on standard input, in bounded time and memory.

What must always hold: only a file directly in a directory of CNI_PATH is executed, under its bare name; a plugin that
hangs is killed with all that it started, and whoever waits for it gets an error that says what to look at; what it prints
costs a bounded amount of memory. It sees the variables of the protocol and a PATH, and nothing else of the agent's.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from actors.errors import DeadlineExceeded, InvalidRequest, OrbweaverError, Withdrawn
from actors.resources.fields import shown
from actors.resources.json_text import UnreadableText, read_json, showable
from cni.networks.results import LONGEST_RESULT
from cni.shim import in_root

log = logging.getLogger("orbweaver.networks")

PROGRAMS = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where plugins find the programs that they start themselves, such as nft."""
MOST_DIRECTORIES = 32
"""Directories of CNI_PATH that are searched."""
_LONGEST_MESSAGE, _LONGEST_COMPLAINT = 600, 4096
"""Characters of a plugin's error that are told; bytes that are kept of what it says on standard error."""
_REAP = 2.0
"""Seconds that a killed program may take to end; one that the kernel does not let go of ends later, by itself."""


class Stop:
    """Ends what runs for a request that nobody wants any more; safe to call from any thread, and more than once."""

    def __init__(self) -> None:
        self._fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._lock = threading.Lock()
        self.why = ""

    def set(self, why: str) -> None:
        """Ask for the end."""
        with self._lock:
            if not self.why and self._fd >= 0:
                self.why = why
                os.eventfd_write(self._fd, 1)

    def fileno(self) -> int:
        return self._fd

    def close(self) -> None:
        """The request is over."""
        with self._lock:
            fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class NodePlugins:
    """Where plugins are and run. `path`: CNI_PATH as the runtime says it; `root`: where the node's own file system is
    mounted here, `/` where this process sees it as it is."""

    path: str
    root: Path = Path("/")

    def find(self, name: str) -> str:
        """The program of a plugin, in the node's own terms. Raises `InvalidRequest`."""
        directories = [part for part in self.path.split(":") if part.startswith("/")][:MOST_DIRECTORIES]
        for directory in directories:
            inside = self.root / directory.lstrip("/") / name
            # In another root a link may lead to where only the node itself can follow it.
            there = os.path.lexists(inside) if self.root != Path("/") else os.access(inside, os.X_OK)
            if there and not inside.is_dir():
                return f"{directory.rstrip('/')}/{name}"
        raise InvalidRequest(
            f"there is no plugin {name} in {', '.join(directories) or 'CNI_PATH, which is empty'}; install it on this node, or "
            "correct the type in the network"
        )

    def command(self, program: str) -> list[str]:
        """What is executed so that the program runs in the node's own file system."""
        return [program] if self.root == Path("/") else [str(in_root()), str(self.root), program]


@dataclass(frozen=True, slots=True)
class PluginParameters:
    """For whom a plugin is executed; the fields are the protocol's parameters."""

    container: str = ""
    netns: str = ""
    interface: str = ""
    arguments: str = ""

    def environment(self, command: str, path: str) -> dict[str, str]:
        """The variables of one execution (specification, section 2)."""
        named = {
            "CNI_CONTAINERID": self.container,
            "CNI_NETNS": self.netns,
            "CNI_IFNAME": self.interface,
            "CNI_ARGS": self.arguments,
        }
        given = {key: value for key, value in named.items() if value}
        return {"PATH": PROGRAMS, "CNI_COMMAND": command, "CNI_PATH": path, **given}


@dataclass(slots=True)
class _Output:
    printed: bytearray = field(default_factory=bytearray)
    complained: bytearray = field(default_factory=bytearray)

    def take(self, printed: IO[bytes], complained: IO[bytes]) -> bool:
        """Read what is there; returns whether it is within bounds."""
        self.printed += _read(printed, LONGEST_RESULT + 1 - len(self.printed))
        self.complained = (self.complained + _read(complained, 1 << 16))[-_LONGEST_COMPLAINT:]
        return len(self.printed) <= LONGEST_RESULT


def execute(
    name: str,
    command: str,
    conf: Mapping[str, Any],
    attachment: PluginParameters,
    node: NodePlugins,
    deadline: float,
    stop: Stop,
) -> bytes:
    """What the plugin prints. `deadline`: of the monotonic clock. Raises `DeadlineExceeded`, `Withdrawn`, `InvalidRequest`
    where there is no such plugin, and `OrbweaverError` with the plugin's own code for its refusal."""
    program = node.find(name)
    what = f"plugin {name} {command}" + (f" of {attachment.interface}" if attachment.interface else "")
    if stop.why:
        raise Withdrawn(f"{what} was not begun: {stop.why}")
    left = deadline - time.monotonic()
    if left <= 0:
        raise DeadlineExceeded(f"there was no time left for {what}; it will be tried again")
    with open(os.memfd_create("cni-conf", os.MFD_CLOEXEC), "w+b") as stdin:  # noqa: PTH123 - a descriptor
        stdin.write(json.dumps(conf, separators=(",", ":")).encode())
        stdin.seek(0)
        try:
            process = subprocess.Popen(
                node.command(program),
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=attachment.environment(command, node.path),
                cwd="/",
                start_new_session=True,  # so that what it starts can be ended with it
            )
        except OSError as error:
            raise OrbweaverError(f"{what} cannot be executed: {program}: {error.strerror}") from error
    return _attend(process, what, deadline, left, stop)


def _attend(process: subprocess.Popen[bytes], what: str, deadline: float, left: float, stop: Stop) -> bytes:
    assert process.stdout is not None
    assert process.stderr is not None
    output = _Output()
    with process.stdout as printed, process.stderr as complained:
        for pipe in (printed, complained):
            fcntl.fcntl(pipe, fcntl.F_SETFL, os.O_NONBLOCK)
        try:
            ended = _wait(process, output, printed, complained, deadline, stop)
        except BaseException:
            _kill(process)
            raise
        if ended is not None:
            _kill(process)
            complaint = showable(output.complained.decode(errors="replace").strip())
            log.error("ended a plugin", extra={"plugin": what, "why": ended, "stderr": complaint})
            if ended == "stopped":
                raise Withdrawn(f"{what} was ended: {stop.why}")
            if ended == "too much":
                raise OrbweaverError(f"{what} printed more than {LONGEST_RESULT} bytes and was ended")
            raise DeadlineExceeded(
                f"{what} did not answer within {left:.1f} s and was ended; look on the node at what it waits for"
            )
    if process.returncode != 0:
        raise read_refusal(what, process.returncode, bytes(output.printed), bytes(output.complained))
    return bytes(output.printed)


def _wait(
    process: subprocess.Popen[bytes],
    output: _Output,
    printed: IO[bytes],
    complained: IO[bytes],
    deadline: float,
    stop: Stop,
) -> str | None:
    """Wait for the end of the program itself, not of what it left running; returns why it is to be killed, or None."""
    ended = os.pidfd_open(process.pid)
    try:
        poll = select.poll()
        open_pipes = {pipe.fileno() for pipe in (printed, complained)}
        for descriptor in (*open_pipes, ended, stop.fileno()):
            poll.register(descriptor, select.POLLIN)
        while True:
            left = deadline - time.monotonic()
            events = dict(poll.poll(max(0.0, left) * 1000)) if left > 0 else {}
            if not output.take(printed, complained):
                return "too much"
            if ended in events:
                process.wait()
                return None if output.take(printed, complained) else "too much"
            if stop.fileno() in events:
                return "stopped"
            if not events:
                return "too late"
            for pipe in open_pipes & {fd for fd, what in events.items() if what & select.POLLHUP}:
                poll.unregister(pipe)  # closed before its end
                open_pipes.discard(pipe)
    finally:
        os.close(ended)


def _read(pipe: IO[bytes], most: int) -> bytes:
    output = b""
    while most > 0:
        try:
            piece = os.read(pipe.fileno(), min(most, 1 << 16))
        except BlockingIOError:
            break
        if not piece:
            break
        output += piece
        most -= len(piece)
    return output


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End the program and what it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    try:
        process.wait(_REAP)
    except subprocess.TimeoutExpired:
        threading.Thread(target=process.wait, name="plugin-reaper", daemon=True).start()


def read_refusal(what: str, status: int, printed: bytes, complained: bytes) -> OrbweaverError:
    """The plugin's own error (specification, section 5, "Error"), or what it said otherwise."""
    with contextlib.suppress(UnreadableText, UnicodeDecodeError):
        answer = read_json(printed.decode(), longest=LONGEST_RESULT, only_showable=False)
        if isinstance(answer, dict) and isinstance(answer.get("msg"), str):
            code = answer.get("code")
            details = answer.get("details")
            said = showable(answer["msg"])[:_LONGEST_MESSAGE]
            if isinstance(details, str) and details.strip():
                said += f" ({showable(' '.join(details.split()))[:_LONGEST_MESSAGE]})"
            known = isinstance(code, int) and not isinstance(code, bool) and 0 < code < 1 << 31
            return OrbweaverError(f"{what}: {said}", cni_code=code if known else None)
    said = shown((complained or printed).decode(errors="replace").strip()[:_LONGEST_MESSAGE])
    why = f"it was ended by signal {-status}" if status < 0 else f"its exit status is {status}"
    return OrbweaverError(f"{what} failed without a CNI error: {why}, and it said {said}")
