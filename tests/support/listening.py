"""What passes an interface in a network namespace, heard beside the test by a packet socket."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from cni.dataplane.netlink.namespaces import inside

_EVERY_PROTOCOL = 3
"""ETH_P_ALL."""


@contextmanager
def listening(
    netns: str, interface: str, kind: socket.SocketKind, take: Callable[[bytes, Any], object]
) -> Iterator[None]:
    """Have `take` hear of each packet meanwhile, and of its origin (packet(7)), in a thread of its own. `kind`: SOCK_RAW for
    whole frames, SOCK_DGRAM for what is in them."""
    descriptor = os.open(netns, os.O_RDONLY)
    with inside(descriptor):
        channel = socket.socket(socket.AF_PACKET, kind, socket.htons(_EVERY_PROTOCOL))
        channel.bind((interface, _EVERY_PROTOCOL))
    os.close(descriptor)
    channel.settimeout(0.05)
    done = threading.Event()

    def read() -> None:
        while True:
            try:
                take(*channel.recvfrom(2048))
            except TimeoutError:
                if done.is_set():
                    return

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        channel.close()
