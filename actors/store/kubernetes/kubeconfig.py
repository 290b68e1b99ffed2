"""A kubeconfig, with all its ways to log in. The only module that knows the `kubernetes` package.

What must always hold: the package is imported only for what `plain_kubeconfig` does not understand (it costs 45 MB,
which an agent need not pay), and only its configuration is used; requests are sent by `kubernetes_http`. Credentials of
exec plugins and OIDC are renewed when they expire and when they are refused.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from actors.errors import InvalidRequest
from actors.store.kubernetes.access import Access, access_to
from actors.store.kubernetes.plain_kubeconfig import Plain, read_plain

DEFAULT = "~/.kube/config"
VARIABLE = "KUBECONFIG"


def kubeconfig_files(chosen: str | None = None) -> str:
    """The file or files (joined as in $KUBECONFIG) that a client uses: the chosen, $KUBECONFIG, ~/.kube/config."""
    return chosen or os.environ.get(VARIABLE) or str(Path(DEFAULT).expanduser())


def present() -> bool:
    """Whether there is a kubeconfig that nobody had to name."""
    return bool(_existing(kubeconfig_files()))


def from_kubeconfig(
    chosen: str | None = None,
    context: str | None = None,
    *,
    read: Callable[[Path], Mapping[str, Any]] | None = None,
) -> Access:
    """The access that a kubeconfig's context gives, the current one by default. `read` parses a file, for those that
    need no package. Raises `InvalidRequest`."""
    files = kubeconfig_files(chosen)
    existing = _existing(files)
    if not existing:
        raise InvalidRequest(
            f"there is no kubeconfig at {files}; name one with --kubeconfig or {VARIABLE}, or run in a cluster"
        )
    if read is not None and os.pathsep not in existing:
        path = Path(existing).absolute()
        plain = read_plain(read(path), path.parent, context)
        if plain is not None:
            return _plain_access(plain, existing, context)
    configuration = _load(existing, context)
    certificate = None
    if configuration.cert_file:
        certificate = (str(configuration.cert_file), str(configuration.key_file))
    return access_to(
        str(configuration.host),
        ca_file=configuration.ssl_ca_cert,
        client_cert=certificate,
        verify=bool(configuration.verify_ssl),
        authorize=_Credentials(configuration, existing, context),
    )


def _plain_access(plain: Plain, files: str, context: str | None) -> Access:
    certificate = plain.certificate_files()
    try:
        return access_to(
            plain.url,
            ca_file=plain.ca_file,
            ca_data=plain.ca_data,
            client_cert=certificate,
            verify=plain.verify,
            authorize=_Token(plain.token, files, context),
        )
    finally:
        for name in certificate or ():
            Path(name).unlink()


class _Token:
    """A token, until it is refused; then whatever the kubeconfig says by then. Safe from any thread."""

    def __init__(self, token: str, files: str, context: str | None) -> None:
        self._header = f"Bearer {token}" if token else ""
        self._anew: Callable[[bool], str] | None = None
        self._files = files
        self._context = context

    def __call__(self, renew: bool) -> str:
        if renew and self._anew is None:
            self._anew = _Credentials(_load(self._files, self._context), self._files, self._context)
        return self._header if self._anew is None else self._anew(renew)


class _Credentials:
    """The Authorization header out of a loaded configuration. Safe from any thread."""

    def __init__(self, configuration: Any, files: str, context: str | None) -> None:
        self._configuration = configuration
        self._files = files
        self._context = context
        self._lock = threading.Lock()

    def __call__(self, renew: bool) -> str:
        with self._lock:
            if renew:
                self._configuration = _load(self._files, self._context)
            # This runs the refresh hook, which renews what is about to expire.
            return str(self._configuration.get_api_key_with_prefix("authorization") or "")


def _existing(files: str) -> str:
    return os.pathsep.join(name for name in files.split(os.pathsep) if name and Path(name).exists())


def _load(files: str, context: str | None) -> Any:
    from kubernetes.client import Configuration
    from kubernetes.config import load_kube_config

    configuration = Configuration()
    try:
        load_kube_config(files, context, configuration)
    except (
        Exception
    ) as error:  # what the package raises for a broken file is anything, down to AttributeError
        raise InvalidRequest(f"the kubeconfig {files} cannot be used: {error}") from error
    return configuration
