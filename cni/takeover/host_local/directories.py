"""host-local's directories: a file for each address that is given out, under the network's name.

The format is host-local's own (containernetworking/plugins, `plugins/ipam/host-local/backend/disk`, version 1.9): the file's
name is the address, its content the container's id and, behind CR LF, the interface, which old versions left out; `lock` is
locked (flock) while one of its processes works; `last_reserved_ip.N` says where the search of a range goes on.
What must always hold: a directory is read and written under its lock, so never while an ADD or DEL of host-local is in it.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from actors.errors import InvalidObject, InvalidRequest
from actors.resources.addresses import Address, parse_address
from actors.resources.blocks.allocation import Allocation
from actors.store.atomic_file import replace_file
from cni.takeover.waiting import wait_until

STANDARD = Path("/var/lib/cni/networks")
"""Where host-local keeps them, unless a network's `dataDir` says otherwise."""
ELSEWHERE = "taken-over-elsewhere"
"""In the place of a container: the way back keeps this node from giving out what a pod of another node has, which host-local
would not know. Nobody asks for it back; a later run of the way back deletes it when no pod has it any more."""
UNREPORTED = 600.0
"""Seconds that a pod may have an address before its status says so: as long as a kubelet may take for all of its networks,
and more."""
LIMIT = 60.0
"""Seconds that a lock is waited for: host-local has it for some milliseconds."""
_LOCK = "lock"
_LONGEST = 4096
_LINE_BREAK = "\r\n"


@dataclass(frozen=True, slots=True)
class AddressFile:
    """An address that is given out."""

    address: Address
    container: str
    interface: str
    """Empty where an old version wrote it."""
    path: Path


def networks_in(directory: Path) -> tuple[str, ...]:
    """The networks that have something given out. Raises `InvalidRequest` when it cannot be listed."""
    try:
        return tuple(sorted(entry.name for entry in directory.iterdir() if entry.is_dir()))
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise InvalidRequest(f"{directory} cannot be read: {error.strerror}; run this as root") from error


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """With the directory for oneself; made, if it is not there, as host-local makes it. Raises `InvalidRequest`, and
    `TakeoverUnfinished` where somebody else does not end with it."""
    try:
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        descriptor = os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise InvalidRequest(f"{directory} cannot be locked: {error.strerror}; run this as root") from error
    try:
        wait_until(
            lambda: "" if _is_locked_now(descriptor) else f"{directory / _LOCK} is locked by another process",
            LIMIT,
            "see by which (lslocks, or /proc/locks), end it if it hangs, and repeat the command",
            lambda _line: None,
        )
        yield
    finally:
        os.close(descriptor)


def _is_locked_now(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def read(directory: Path) -> tuple[tuple[AddressFile, ...], tuple[str, ...]]:
    """What is given out of one network, and a sentence for each file that cannot be read. Raises `InvalidRequest`."""
    files, problems = _read(directory)
    return tuple(file for file in files if file.container != ELSEWHERE), tuple(problems)


def kept_for_others(directory: Path, *, seconds: float = 0.0) -> tuple[AddressFile, ...]:
    """The files that the way back made, at least so many seconds ago, for what pods of other nodes have. Raises
    `InvalidRequest`."""
    return tuple(
        file for file in _read(directory)[0] if file.container == ELSEWHERE and _age(file.path) >= seconds
    )


def _age(path: Path) -> float:
    """Seconds for which a file has been as it is; none for one that is gone."""
    try:
        return max(0.0, time.time() - path.stat().st_mtime)
    except FileNotFoundError:
        return 0.0


def _read(directory: Path) -> tuple[list[AddressFile], list[str]]:
    files: list[AddressFile] = []
    problems: list[str] = []
    try:
        entries = sorted(directory.iterdir())
    except FileNotFoundError:
        return files, problems
    except OSError as error:
        raise InvalidRequest(f"{directory} cannot be read: {error.strerror}; run this as root") from error
    for path in entries:
        try:
            address = parse_address(path.name)
        except InvalidObject:
            continue  # the lock, and where searches go on
        try:
            with path.open("rb") as opened:
                text = opened.read(_LONGEST).decode()
            container, _, interface = text.strip().partition("\n")
            files.append(AddressFile(address, container.strip(), interface.strip(), path))
        except FileNotFoundError:
            continue  # its DEL came meanwhile
        except (OSError, ValueError) as error:
            problems.append(
                f"{path} cannot be read ({error}), so it is not known who has the address; repair it, or delete it if "
                "nothing does"
            )
    return files, problems


def write(
    directory: Path,
    held: Iterable[Allocation],
    elsewhere: Iterable[Allocation],
    former: Iterable[AddressFile],
) -> None:
    """Have files for what is `held` by this node's pods, and by others `elsewhere`, and none of the `former` ones beside.
    Raises `OSError`."""
    wanted = {
        allocation.address.text: f"{allocation.record.container}{_LINE_BREAK}{allocation.record.interface}"
        for allocation in held
    }
    wanted |= {
        allocation.address.text: f"{ELSEWHERE}{_LINE_BREAK}{allocation.record.node}"
        for allocation in elsewhere
    }
    for name, content in wanted.items():
        replace_file(directory / name, content.encode())
    for file in former:
        if file.path.name not in wanted:
            file.path.unlink(missing_ok=True)
