"""What leader and agents show and trust on the connections between them: TLS 1.3.

What must always hold: an agent talks to nobody but the process whose certificate the Lease shows at that moment, whatever
its address; the server is the fixed name `SERVER_NAME`. Agents show no certificate but, inside TLS, a token. Keys stay in
memory: they never touch a disk.
"""

from __future__ import annotations

import os
import ssl

from actors.errors import InvalidObject
from actors.tls_socket import TlsSocket

SERVER_NAME = "leader.orbweaver"
"""What the leader's certificate says, so that it holds on every node and address."""


def server_context(certificate: str, key: str) -> ssl.SSLContext:
    """For the leader. PEM texts."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.sslsocket_class = TlsSocket
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0  # an agent shows its token on each connection, and none resumes another
    descriptor = os.memfd_create("orbweaver-certificate", os.MFD_CLOEXEC)
    try:
        with os.fdopen(os.dup(descriptor), "w") as file:
            file.write(certificate + key)
        # OpenSSL reads certificates with their key from files only; this one is in memory.
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
    return context


def client_context(trusted: str) -> ssl.SSLContext:
    """For an agent: `trusted` is the leader's own certificate, in PEM. Raises `InvalidObject` when it is none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        context.load_verify_locations(cadata=trusted)
    except (ssl.SSLError, ValueError) as error:
        raise InvalidObject(
            f"the leader's certificate in the Lease cannot be read: {error}; the leader writes it anew when its Lease is "
            "deleted"
        ) from error
    return context
