"""What a process shows and trusts on the connections between agents and the leader: mutual TLS 1.3.

What must always hold: both sides show a certificate of our own authority, the server one for the fixed name
`SERVER_NAME`, whatever its address; a certificate for clients cannot stand for the server. Keys stay in memory: they
never touch a disk.
"""

from __future__ import annotations

import base64
import os
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actors.errors import InvalidObject

SERVER_NAME = "leader.orbweaver"
"""What the leader's certificate says, so that it holds on every node and address."""

_TRUSTED, _CERTIFICATE, _KEY = "ca.crt", "tls.crt", "tls.key"


@dataclass(frozen=True, slots=True)
class Credentials:
    """PEM texts; `trusted` holds one authority's certificate or several, while one follows another."""

    trusted: str
    certificate: str
    key: str

    def __repr__(self) -> str:
        return "<Credentials>"  # no log gets the key

    def server_context(self) -> ssl.SSLContext:
        """For the leader: whoever connects must show a certificate for clients."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
        self.renew(context)
        return context

    def client_context(self) -> ssl.SSLContext:
        """For an agent: the server must be the leader. Raises `InvalidObject` when these are no certificates."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        self.renew(context)
        return context

    def renew(self, context: ssl.SSLContext) -> None:
        """Let connections that `context` makes from now on use these; what it trusted before stays trusted."""
        try:
            context.load_verify_locations(cadata=self.trusted)
            descriptor = os.memfd_create("orbweaver-credentials", os.MFD_CLOEXEC)
            try:
                with os.fdopen(os.dup(descriptor), "w") as file:
                    file.write(self.certificate + self.key)
                # OpenSSL reads certificates with their key from files only; this one is in memory.
                context.load_cert_chain(f"/proc/self/fd/{descriptor}")
            finally:
                os.close(descriptor)
        except (ssl.SSLError, ValueError) as error:
            raise InvalidObject(
                f"the certificates for the leader cannot be used: {error}; delete the Secret that holds them, and a "
                "controller makes new ones"
            ) from error

    def to_data(self) -> dict[str, str]:
        """The `data` of a Secret."""
        return encoded({_TRUSTED: self.trusted, _CERTIFICATE: self.certificate, _KEY: self.key})

    @classmethod
    def from_secret(cls, secret: dict[str, Any]) -> Credentials:
        """Inverse of `to_data`. Raises `InvalidObject`."""
        data = decoded(secret)
        missing = sorted({_TRUSTED, _CERTIFICATE, _KEY} - data.keys())
        if missing:
            raise InvalidObject(f"Secret {secret['metadata']['name']} has no {', '.join(missing)}")
        return cls(data[_TRUSTED], data[_CERTIFICATE], data[_KEY])

    def write(self, directory: Path) -> None:
        """Into files, for programs that read them there."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, text in ((_TRUSTED, self.trusted), (_CERTIFICATE, self.certificate), (_KEY, self.key)):
            (directory / name).write_text(text)

    @classmethod
    def read(cls, directory: Path) -> Credentials:
        """Out of the files of `write`."""
        return cls(*((directory / name).read_text() for name in (_TRUSTED, _CERTIFICATE, _KEY)))


def encoded(texts: dict[str, str]) -> dict[str, str]:
    """The `data` of a Secret that holds these texts."""
    return {name: base64.b64encode(text.encode()).decode() for name, text in texts.items()}


def decoded(secret: dict[str, Any]) -> dict[str, str]:
    """The texts in a Secret. Raises `InvalidObject`."""
    try:
        return {
            name: base64.b64decode(text, validate=True).decode()
            for name, text in (secret.get("data") or {}).items()
        }
    except (ValueError, TypeError) as error:
        raise InvalidObject(f"Secret {secret['metadata']['name']} holds no texts: {error}") from error
