"""A kubeconfig that says who asks by a token or a certificate, read without the `kubernetes` package.

The package costs 45 MB and half a second, which an agent on every node need not pay for four fields. What must always
hold: a kubeconfig with anything that is not understood here is left to the package, so this changes nothing but cost.
"""

from __future__ import annotations

import base64
import binascii
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_CLUSTER = frozenset(
    {
        "server",
        "certificate-authority",
        "certificate-authority-data",
        "insecure-skip-tls-verify",
        "extensions",
    }
)
_USER = frozenset(
    {"token", "client-certificate", "client-key", "client-certificate-data", "client-key-data", "extensions"}
)


@dataclass(frozen=True, slots=True)
class Plain:
    """What `access_to` takes. The CA's file and data are alternatives."""

    url: str
    """Of the API server."""
    ca_file: str | None
    """Path of the CA's certificates."""
    ca_data: str | None
    """The same as PEM text."""
    pair: tuple[bytes, bytes] | None
    """The client's certificate and key as PEM text; None where a token says who asks."""
    verify: bool
    """False where the kubeconfig says not to check the server's certificate."""
    token: str
    """The bearer's; empty where there is none."""

    def certificate_files(self) -> tuple[str, str] | None:
        """The pair in files of its own, which only this user can read; the caller removes them."""
        if self.pair is None:
            return None
        names = []
        for text in self.pair:
            handle, name = tempfile.mkstemp(prefix="orbweaver-")
            with os.fdopen(handle, "wb") as file:
                file.write(text)
            names.append(name)
        return names[0], names[1]


def read_plain(kubeconfig: Mapping[str, Any], directory: Path, context: str | None) -> Plain | None:
    """What a kubeconfig in `directory` says under its context; None when it takes the package to understand it."""
    try:
        chosen = _named(kubeconfig, "contexts", context or str(kubeconfig["current-context"]))["context"]
        cluster = _named(kubeconfig, "clusters", chosen["cluster"])["cluster"]
        user = _named(kubeconfig, "users", chosen["user"])["user"]
        if not (cluster.keys() <= _CLUSTER and user.keys() <= _USER):
            return None
        certificate, key = (_content(user, name, directory) for name in ("client-certificate", "client-key"))
        if (certificate is None) != (key is None):
            return None
        authority = cluster.get("certificate-authority")
        data = cluster.get("certificate-authority-data")
        return Plain(
            url=str(cluster["server"]),
            ca_file=str(directory / authority) if authority and not data else None,
            ca_data=base64.b64decode(data, validate=True).decode() if data else None,
            pair=(certificate, key) if certificate is not None and key is not None else None,
            verify=cluster.get("insecure-skip-tls-verify") is not True,
            token=str(user.get("token") or ""),
        )
    except (KeyError, TypeError, AttributeError, OSError, binascii.Error, UnicodeDecodeError):
        return None  # the package says what is wrong with it


def _named(kubeconfig: Mapping[str, Any], part: str, name: str) -> Mapping[str, Any]:
    [entry] = [member for member in kubeconfig[part] if member["name"] == name] or [None]
    if not isinstance(entry, Mapping):
        raise KeyError(name)
    return entry


def _content(user: Mapping[str, Any], name: str, directory: Path) -> bytes | None:
    data = user.get(f"{name}-data")
    if data:
        return base64.b64decode(data, validate=True)
    return (directory / user[name]).read_bytes() if user.get(name) else None
