"""Where a process of ours listens for TCP: on one address, or on all that the host has, of both families."""

from __future__ import annotations

import socket

BACKLOG = 1024
"""Connections that the kernel keeps until they are accepted: all agents of a cluster connect at once when their leader
changes."""


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. `host` is an address or a name; an empty one means all addresses of the host, IPv6 and IPv4
    through one socket, and IPv4 alone where the kernel has no IPv6. Port 0 takes a free one. Raises `OSError`."""
    if not host:
        both = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if both else socket.AF_INET
        return socket.create_server(("", port), family=family, backlog=BACKLOG, dualstack_ipv6=both)
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    return socket.create_server(address[:2], family=family, backlog=BACKLOG)
