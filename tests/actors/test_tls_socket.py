"""A peer that resets the connection before the handshake leaves no descriptor behind."""

from __future__ import annotations

import select
import socket
import ssl
import struct
from datetime import timedelta

import pytest

from actors.cluster.certificates import make_certificate, utc_now
from actors.cluster.credentials import server_context
from actors.store.kubernetes.access import access_to


def reset_connections() -> tuple[socket.socket, socket.socket]:
    """Both ends' survivors of two connections that the other end has reset: the one that called, the one that was called."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
        caller = socket.create_connection(address)
        reset(listener.accept()[0], seen_by=caller)
        other = socket.create_connection(address)
        called = listener.accept()[0]
        reset(other, seen_by=called)
    return caller, called


def reset(end: socket.socket, seen_by: socket.socket) -> None:
    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    end.close()
    poll = select.poll()
    poll.register(seen_by, select.POLLHUP)
    assert poll.poll(60_000)


def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The store's, and the leader's."""
    client = access_to("https://127.0.0.1:6443").tls
    assert client is not None
    pair = make_certificate(utc_now(), timedelta(hours=1))
    return client, server_context(pair.certificate, pair.key)


def test_a_connection_that_was_reset_before_the_handshake_is_closed():
    """Without this a ResourceWarning, which fails the test."""
    caller, called = reset_connections()
    client, server = contexts()

    with pytest.raises(ConnectionResetError):
        client.wrap_socket(caller, server_hostname="127.0.0.1")
    with pytest.raises(ConnectionResetError):
        server.wrap_socket(called, server_side=True, do_handshake_on_connect=False)
