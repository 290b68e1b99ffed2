"""The host-side CNI program (`shim.c`) as built binaries, and how they get onto a host.

What must always hold: a program that a container runtime may start at any moment is replaced in one step
(`atomic_file.py`), so no runtime ever starts half a file; a running one keeps its old text.
"""

from __future__ import annotations

import os
import platform
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from actors.errors import CNI_NOT_AVAILABLE, OrbweaverError
from actors.store.atomic_file import replace_file

PLUGINS = ("spiderpool", "coordinator", "ifacer")

_MODE = 0o755
_NAME_IN_TEXT, _LARGEST = b"orbweaver-shim\0", 1 << 18
"""What the program of any version has in its text, and bytes that none is larger than."""
_BIN = Path(__file__).parent / "bin"
_MACHINES = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}


def in_root() -> Path:
    """The program that executes another one in the file system at a directory (`in_root.c`), for this machine. Raises as
    `binary`."""
    return _program("orbweaver-in-root", platform.machine())


def binary(machine: str | None = None) -> Path:
    """The static Linux program for `machine` (as `uname -m` names it; default: this one).

    Raises OrbweaverError when there is none for that machine, or the package was not built as a wheel.
    """
    return _program("orbweaver-shim", machine or platform.machine())


def _program(name: str, machine: str) -> Path:
    known = _MACHINES.get(machine.lower())
    if known is None:
        raise OrbweaverError(
            f"There is no {name} for machine {machine!r}; there is one for x86_64 and for aarch64",
            cni_code=CNI_NOT_AVAILABLE,
        )
    path = _BIN / f"{name}-{known}"
    if not path.is_file():
        raise OrbweaverError(
            f"The program {name} for {known} is missing from this installation ({path}); install the wheel,"
            " whose build makes it",
            cni_code=CNI_NOT_AVAILABLE,
        )
    return path


def install(
    directory: str | os.PathLike[str], names: Iterable[str] = PLUGINS, machine: str | None = None
) -> list[Path]:
    """Put the shim into `directory` (made if missing) under each of `names`, mode 0755; returns the paths.

    Raises OrbweaverError when the directory cannot be written; what was there before is then still whole.
    """
    content = binary(machine).read_bytes()
    target = Path(directory)
    try:
        target.mkdir(parents=True, exist_ok=True)
        return [replace_file(target / name, content, _MODE) for name in names]
    except (FileExistsError, NotADirectoryError) as error:
        raise OrbweaverError(
            f"The CNI plugins cannot be installed in {target}: it is, or lies in, a file; name a directory",
            cni_code=CNI_NOT_AVAILABLE,
        ) from error
    except OSError as error:
        raise OrbweaverError(
            f"The CNI plugins cannot be installed in {target}: {error.strerror}; run as root, or name a"
            " directory that can be written",
            cni_code=CNI_NOT_AVAILABLE,
        ) from error


def differing(
    directory: str | os.PathLike[str], names: Iterable[str] = PLUGINS, machine: str | None = None
) -> tuple[str, ...]:
    """Which of `names` in a directory are not the shim as this version has it, or cannot be executed."""
    content = binary(machine).read_bytes()
    return tuple(name for name in names if not _is(Path(directory) / name, content))


def is_shim(path: Path) -> bool:
    """Whether a file is the shim of some version, and not another program of its name."""
    with _opened(path) as file:
        return file is not None and _NAME_IN_TEXT in file.read(_LARGEST)


def _is(path: Path, content: bytes) -> bool:
    with _opened(path) as file:
        if file is None:
            return False
        right_mode = os.fstat(file.fileno()).st_mode & 0o777 == _MODE
        return right_mode and file.read(len(content) + 1) == content


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO | None]:
    """A regular file that is no link, to be read; None for anything else."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        yield None
        return
    with os.fdopen(descriptor, "rb") as file:
        yield file if stat.S_ISREG(os.fstat(file.fileno()).st_mode) else None
