"""A pod's network namespace, opened for work in it.

What must always hold: the namespace of this process, which is the host's, is never taken for a pod's, whatever the path.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

from actors.errors import CNI_INVALID_ENVIRONMENT, CNI_UNKNOWN_CONTAINER, InvalidRequest, OrbweaverError
from cni.dataplane.netlink.rtnetlink import Netlink

MOST = 8192
"""Things of one kind in a pod's namespace that are looked at."""

_QUICK = ("/proc/", "/run/", "/var/run/")
"""Where a look at a file never waits for a disk or a network."""

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def enter(descriptor: int) -> None:
    """Move this thread into the network namespace of an open file. Raises `OSError`."""
    if _libc.setns(descriptor, _CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


@contextmanager
def inside(descriptor: int) -> Iterator[None]:
    """Be in that network namespace with this thread, and afterwards back in its own."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        enter(descriptor)
        try:
            yield
        finally:
            enter(home)
    finally:
        os.close(home)


def require_foreign(netns: str, pod: str) -> None:
    """Raise `InvalidRequest` (code 4) when the path is that of this process's own namespace; a path that cannot be looked
    at without waiting, or at all, is somebody else's to refuse."""
    if is_own_namespace(netns):
        raise _own(netns, pod)


def is_own_namespace(netns: str) -> bool:
    """Whether the path is that of this process's own namespace, as far as that is seen without waiting."""
    if not os.path.normpath(netns).startswith(_QUICK):
        return False
    try:
        return _is_own(os.stat(netns))  # noqa: PTH116 - every ADD asks, and a Path costs more than the look
    except (OSError, ValueError):
        return False


def _is_own(status: os.stat_result) -> bool:
    own = os.stat("/proc/thread-self/ns/net")  # noqa: PTH116 - as above; this thread is at home here: see `inside`
    return (status.st_dev, status.st_ino) == (own.st_dev, own.st_ino)


def _own(netns: str, pod: str) -> InvalidRequest:
    return InvalidRequest(
        f"CNI_NETNS {netns} of pod {pod} is the agent's own network namespace, the host's: nothing in it is touched; name "
        "the container's own one (a pod with hostNetwork needs no CNI)",
        cni_code=CNI_INVALID_ENVIRONMENT,
    )


@contextmanager
def pod_namespace(netns: str, pod: str) -> Iterator[tuple[int, Netlink]]:
    """The namespace as an open file, and a socket in it. Raises `OrbweaverError` when it is gone or is none, and
    `InvalidRequest` when it is this process's own."""
    try:
        descriptor = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise OrbweaverError(
            f"the network namespace {netns} of pod {pod} cannot be opened: {why}; the pod is gone",
            cni_code=CNI_UNKNOWN_CONTAINER,
        ) from error
    try:
        if _is_own(os.fstat(descriptor)):
            raise _own(netns, pod)
        try:
            with inside(descriptor):
                channel = Netlink(MOST)
        except OSError as error:
            raise OrbweaverError(
                f"{netns} of pod {pod} is not a network namespace: {error.strerror}",
                cni_code=CNI_UNKNOWN_CONTAINER,
            ) from error
        with channel:
            yield descriptor, channel
    finally:
        os.close(descriptor)
