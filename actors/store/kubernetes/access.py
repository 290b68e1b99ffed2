"""How to reach an API server and as whom: its address, its certificate authority, and the token.

What must always hold: a token is read again before it expires (the kubelet replaces the file of a pod's token
at 80 % of its life) and whenever the API server refused it; no message and no `repr` holds a token.
"""

from __future__ import annotations

import os
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from actors.errors import InvalidRequest, StoreUnavailable
from actors.tls_socket import TlsSocket

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
TOKEN_AGE = 60.0
"""Seconds after which a token's file is read again, as client-go does."""

Authorize = Callable[[bool], str]
"""Gives the Authorization header's value, "" for none; True asks for a new one after a refusal."""


@dataclass(frozen=True, slots=True)
class Access:
    """Where an API server is, and how it is told who asks."""

    host: str
    """A name or an address."""
    port: int
    """TCP."""
    prefix: str
    """The path under which the API lies, "" at the root."""
    tls: ssl.SSLContext | None
    """None for plain HTTP."""
    authorize: Authorize = field(repr=False, default=lambda _: "")
    """Gives the value of the Authorization header for each request; its argument says whether the last one was refused."""

    def __str__(self) -> str:
        scheme = "http" if self.tls is None else "https"
        return f"{scheme}://{self.authority}{self.prefix}"

    @property
    def authority(self) -> str:
        """What the Host header says."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def access_to(
    url: str,
    *,
    ca_file: str | None = None,
    ca_data: str | None = None,
    client_cert: tuple[str, str] | None = None,
    verify: bool = True,
    authorize: Authorize = lambda _: "",
) -> Access:
    """The access for a server's URL. Raises `InvalidRequest` for a URL or certificate that cannot be used."""
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise InvalidRequest(f"{url!r} is not the URL of an API server; it looks like https://10.0.0.1:6443")
    tls = None
    if parts.scheme == "https":
        try:
            tls = ssl.create_default_context(cafile=ca_file, cadata=ca_data)
            tls.sslsocket_class = TlsSocket
            if client_cert is not None:
                tls.load_cert_chain(*client_cert)
        except (OSError, ssl.SSLError) as error:
            raise InvalidRequest(f"the certificates for {url} cannot be read: {error}") from error
        if not verify:
            tls.check_hostname = False
            tls.verify_mode = ssl.CERT_NONE
    port = parts.port or (443 if tls is not None else 80)
    return Access(parts.hostname, port, parts.path.rstrip("/"), tls, authorize)


def in_cluster(
    environment: Mapping[str, str] = os.environ, directory: Path = SERVICE_ACCOUNT
) -> Access | None:
    """The access of a pod's service account, None where there is none because this is no pod."""
    host, port = environment.get("KUBERNETES_SERVICE_HOST"), environment.get("KUBERNETES_SERVICE_PORT", "443")
    if not host or not (directory / "token").exists():
        return None
    address = f"[{host}]" if ":" in host else host
    authority = str(directory / "ca.crt")
    return access_to(f"https://{address}:{port}", ca_file=authority, authorize=TokenFile(directory / "token"))


class TokenFile:
    """The bearer token in a file that somebody else replaces now and then. Safe from any thread."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._lock = threading.Lock()
        self._header = ""
        self._read_at = float("-inf")

    def __call__(self, renew: bool) -> str:
        with self._lock:
            if renew or self._clock() - self._read_at > TOKEN_AGE:
                self._read()
            return self._header

    def _read(self) -> None:
        try:
            self._header = f"Bearer {self._path.read_text().strip()}"
        except (OSError, UnicodeDecodeError) as error:
            if not self._header:
                raise StoreUnavailable(
                    f"the service account's token {self._path} cannot be read: {error}; is it mounted?",
                    maybe_written=False,
                ) from error
            # The one at hand may be good for a while; the API server says when it is not.
        self._read_at = self._clock()
