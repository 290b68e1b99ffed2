"""A pod's network namespace, opened for work in it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from actors.errors import CNI_UNKNOWN_CONTAINER, OrbweaverError
from cni.dataplane.netlink import netlink
from cni.dataplane.netlink.netlink import Netlink


@contextmanager
def pod_namespace(netns: str, pod: str) -> Iterator[tuple[int, Netlink]]:
    """The namespace as an open file, and a socket in it. Raises `OrbweaverError` when it is gone or is none."""
    try:
        descriptor = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise OrbweaverError(
            f"the network namespace {netns} of pod {pod} cannot be opened: {error.strerror}; the pod is gone",
            cni_code=CNI_UNKNOWN_CONTAINER,
        ) from error
    try:
        try:
            with netlink.inside(descriptor):
                channel = Netlink()
        except OSError as error:
            raise OrbweaverError(
                f"{netns} of pod {pod} is not a network namespace: {error.strerror}",
                cni_code=CNI_UNKNOWN_CONTAINER,
            ) from error
        with channel:
            yield descriptor, channel
    finally:
        os.close(descriptor)
