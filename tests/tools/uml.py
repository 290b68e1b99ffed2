"""A Linux kernel of its own for tests that need what this machine's kernel lacks: User-Mode Linux as a process.

How it works. Debian's `linux.uml` boots in some seconds with this machine's file system as its root, so the same Python
and the same installed wheel run inside. The root is read-only; a directory that is shared, and places in memory for
what programs write (/run, TMPDIR), are not. A kernel in a process is ten times slower than the machine wherever it
starts processes.
What must always hold: nothing of the machine is changed outside the shared directory; a guest ends when its time is over
or its owner asks, and leaves no process; what it said is kept.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tests.tools.gomodule import ProgramMissing

MODULES = Path("/usr/lib/uml/modules")
MEMORY = 1024
"""MiB; the machine gives it as it is used."""
INSIDE = "ORBWEAVER_UML_SHARED"
"""The variable that is set inside a guest: the directory that it shares."""
WANTED = ("8021q", "bonding", "dummy", "ipv6", "ipvlan", "macvlan", "veth")
"""Kernel modules that are loaded at the start, which is quicker than one by one on demand."""

_REGISTERS = "ptrace set fp regs failed"
_INIT = """#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/netns /run/lock
mount -t devtmpfs dev /dev 2>/dev/null
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t hostfs none {home}/shared -o {home}/shared
mount -t tmpfs -o mode=1777 tmpfs {home}/tmp
echo {home}/modprobe > /proc/sys/kernel/modprobe
{home}/modprobe -a {modules}
ip link set lo up
ulimit -n 4096
{home}/command > {home}/shared/output 2>&1 < /dev/null
echo $? > {home}/shared/unfinished
mv {home}/shared/unfinished {home}/shared/status
exec {python} -ISc 'import ctypes, os; os.sync(); ctypes.CDLL(None).reboot(0x4321FEDC)'
"""


@dataclass(frozen=True, slots=True)
class Kernel:
    """The program, and the directory of its modules."""

    program: Path
    modules: Path


def find() -> Kernel:
    """Raises ProgramMissing, which says what to install."""
    program, modprobe = shutil.which("linux.uml"), shutil.which("modprobe", path=_path())
    versions = sorted(MODULES.glob("*/modules.dep"))
    missing = [
        package
        for package, there in (("user-mode-linux", program and versions), ("kmod", modprobe))
        if not there
    ]
    if missing:
        raise ProgramMissing(
            f"User-Mode Linux needs {' and '.join(missing)}: run ./try tests as root, or apt-get install "
            f"{' '.join(missing)} (Debian; x86 only)"
        )
    return Kernel(Path(str(program)), versions[-1].parent)


class Guest:
    """One booted kernel that runs one command in `directory` and ends. `shared` is the directory that both see; it is
    below a temporary one of the guest's own, which `close` removes."""

    def __init__(
        self, kernel: Kernel, command: Sequence[str], directory: Path, environment: Mapping[str, str]
    ) -> None:
        self._home = Path(tempfile.mkdtemp(prefix="orbweaver-uml-"))
        self.shared = self._home / "shared"
        for name in ("shared", "tmp"):
            (self._home / name).mkdir()
        modules = self._home / "modules" / "lib" / "modules"
        modules.mkdir(parents=True)
        (modules / kernel.modules.name).symlink_to(kernel.modules)
        self._script("modprobe", f'exec modprobe -d {self._home}/modules "$@"')
        variables = {**environment, INSIDE: str(self.shared), "TMPDIR": f"{self._home}/tmp", "PATH": _path()}
        exports = "\n".join(f"export {name}={shlex.quote(value)}" for name, value in variables.items())
        self._script("command", f"{exports}\ncd {shlex.quote(str(directory))}\nexec {shlex.join(command)}")
        init = self._home / "init"
        init.write_text(
            _INIT.format(
                home=self._home,
                modules=" ".join(WANTED),
                python=shlex.quote(os.path.realpath(sys.executable)),
            )
        )
        init.chmod(0o755)
        self._console: IO[bytes] = (self._home / "console").open("wb")
        self._process = subprocess.Popen(
            [
                str(kernel.program),
                f"mem={MEMORY}M",
                f"umid={self.name}",
                f"uml_dir={self._home}/",
                "rootfstype=hostfs",
                "rootflags=/",
                "ro",
                f"init={init}",
                "con=null",
                "con0=null,fd:1",
                "ssl=null",
                "quiet",
                "panic=-1",  # it ends then, so that nobody waits for it
            ],
            stdin=subprocess.DEVNULL,
            stdout=self._console,
            stderr=subprocess.STDOUT,
            env=self._room(),
            start_new_session=True,
        )

    @property
    def name(self) -> str:
        """Unlike any other's; its processes have it in their command line."""
        return self._home.name

    def status(self) -> int | None:
        """The command's exit status; None while it runs. Raises ProgramMissing when the kernel does not work on this
        processor, AssertionError when it ended without a status for another reason."""
        ended = self._process.poll() is not None
        file = self.shared / "status"
        if file.exists():
            return int(file.read_text())
        if ended and _REGISTERS in self.said():
            raise ProgramMissing(
                "User-Mode Linux of this version cannot keep the registers of this processor, which has AMX or the like; "
                "a newer one or another machine is needed"
            )
        assert not ended, f"User-Mode Linux ended before its command did; {self.said()}"
        return None

    def said(self) -> str:
        """The end of what the command and the kernel wrote."""
        parts = []
        for name, path in (("output", self.shared / "output"), ("console", self._home / "console")):
            text = path.read_text(errors="replace") if path.exists() else ""
            parts.append(f"its {name}:\n{text[-4000:]}")
        return "\n".join(parts)

    def close(self) -> None:
        """End it, and remove its directory; when this returns none of its processes is there."""
        # Its processes are processes of this machine. They are each other's children and end one after the other, also
        # when the kernel ended by itself.
        while running := self._running():
            for process in running:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            time.sleep(0.01)
        self._process.wait()
        self._console.close()
        shutil.rmtree(self._home, ignore_errors=True)

    def _running(self) -> list[int]:
        """The processes of its session that have not ended."""
        running = []
        for path in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                # After the name, which may have blanks: state, parent, group, session.
                state, _, _, session = path.read_text().rpartition(")")[2].split()[:4]
                if int(session) == self._process.pid and state not in "ZX":
                    running.append(int(path.parent.name))
        return running

    def _script(self, name: str, text: str) -> None:
        path = self._home / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def _room(self) -> dict[str, str]:
        """Its memory is a file in /dev/shm, which containers often have small, else in TMPDIR."""
        environment = {
            name: value for name, value in os.environ.items() if name not in ("TMP", "TEMP", "TMPDIR")
        }
        try:
            there = os.statvfs("/dev/shm")
            small = there.f_bavail * there.f_frsize < MEMORY << 20
        except OSError:
            small = True
        return {**environment, "TMPDIR": str(self._home)} if small else environment


def _path() -> str:
    return os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
