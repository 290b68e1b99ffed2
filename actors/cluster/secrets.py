"""Keeps the certificates for the leader's connections in two Secrets, and replaces them in time.

One Secret (`AUTHORITY`) holds the authority with its key and is for controllers only; the other (`CLIENT`) holds what an
agent shows and trusts. The leader's own certificate is made in each controller's memory.

What must always hold: every controller may do this at any time, and races settle by compare-and-swap; an authority that
follows another is trusted by both sides before anything that it signed is shown by agents, and the one before stays
trusted until it is over. So nobody is cut off while they change.
"""

from __future__ import annotations

import logging
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from actors.cluster.certificates import (
    Pair,
    age,
    is_due,
    is_issued_by,
    is_over,
    issue,
    make_authority,
    utc_now,
)
from actors.cluster.credentials import Credentials, decoded, encoded
from actors.cluster.leadership import AUTHORITY, CLIENT
from actors.errors import Conflict, InvalidObject, NotFound, OrbweaverError, StoreUnavailable
from actors.store.contract import Object, Store

log = logging.getLogger("orbweaver.certificates")

_ATTEMPTS = 20


@dataclass(frozen=True, slots=True)
class Lives:
    """How long things hold: `grace` is for how long all others can be expected to have read a new authority."""

    authority: timedelta = timedelta(days=3 * 365)
    certificate: timedelta = timedelta(days=90)
    grace: timedelta = timedelta(minutes=10)
    look: timedelta = timedelta(minutes=1)


class SecretsKeeper:
    """One per controller. `context` is the leader's TLS; it is renewed where it is."""

    def __init__(
        self,
        store: Store,
        namespace: str,
        lives: Lives | None = None,
        *,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._store = store
        self._namespace = namespace
        self._lives = lives or Lives()
        self._now = now
        self._server: Pair | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="certificates", daemon=True)
        self.context: ssl.SSLContext | None = None

    def start(self) -> None:
        """Have everything once, then look after it. Raises `StoreUnavailable`."""
        self.look()
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def look(self) -> None:
        """Make what is missing and replace what is due. Raises `StoreUnavailable` or `InvalidObject`."""
        now = self._now()
        authority, trusted = self._authority(now)
        self._client(authority, trusted, now)
        server = self._server
        if (
            server is None
            or is_due(server.certificate, now)
            or not is_issued_by(server.certificate, authority.certificate)
        ):
            server = self._server = issue(authority, "leader", now, self._lives.certificate, server=True)
        credentials = Credentials(trusted, server.certificate, server.key)
        if self.context is None:
            self.context = credentials.server_context()
        else:
            credentials.renew(self.context)

    def _authority(self, now: datetime) -> tuple[Pair, str]:
        """The authority that signs, and the certificates that are trusted."""
        for _ in range(_ATTEMPTS):
            found = self._read(AUTHORITY)
            if found is None:
                made = make_authority(now, self._lives.authority)
                written = self._write(AUTHORITY, None, {"ca.crt": made.certificate, "ca.key": made.key})
                if written:
                    log.info("made the authority for the leader's connections")
                continue
            data = decoded(found)
            if not data.get("ca.crt") or not data.get("ca.key"):
                raise InvalidObject(
                    f"Secret {AUTHORITY} has no ca.crt or ca.key; delete it, and a new one is made"
                )
            current = Pair(data["ca.crt"], data["ca.key"])
            previous = data.get("previous.crt", "")
            if previous and is_over(previous, now):
                previous = ""
            if is_due(current.certificate, now):
                made = make_authority(now, self._lives.authority)
                followed = {
                    "ca.crt": made.certificate,
                    "ca.key": made.key,
                    "previous.crt": current.certificate,
                }
                if self._write(AUTHORITY, found, followed):
                    log.info("a new authority follows the one that is due")
                continue
            return current, current.certificate + previous
        raise StoreUnavailable(
            f"Secret {AUTHORITY} was changed by others {_ATTEMPTS} times in a row", maybe_written=False
        )

    def _client(self, authority: Pair, trusted: str, now: datetime) -> None:
        """What agents show and trust."""
        for _ in range(_ATTEMPTS):
            found = self._read(CLIENT)
            known: Credentials | None = None
            if found is not None:
                try:
                    known = Credentials.from_secret(found)
                except InvalidObject as error:
                    log.warning("a damaged Secret is replaced", extra={"error": str(error)})
            if known is not None and known.trusted == trusted and not self._due(known, authority, now):
                return
            if known is None or self._due(known, authority, now):
                pair = issue(authority, "agents", now, self._lives.certificate, server=False)
            else:
                pair = Pair(known.certificate, known.key)
            if self._write(CLIENT, found, Credentials(trusted, pair.certificate, pair.key)):
                log.info("wrote the agents' certificates")
                return
        raise StoreUnavailable(
            f"Secret {CLIENT} was changed by others {_ATTEMPTS} times in a row", maybe_written=False
        )

    def _due(self, known: Credentials, authority: Pair, now: datetime) -> bool:
        if is_issued_by(known.certificate, authority.certificate):
            return is_due(known.certificate, now)
        # Signed by the authority before: replaced once every controller can be expected to trust the new one.
        return age(authority.certificate, now) >= self._lives.grace or is_over(known.certificate, now)

    def _read(self, name: str) -> Object | None:
        try:
            return self._store.get("Secret", name, self._namespace)
        except NotFound:
            return None

    def _write(self, name: str, found: Object | None, content: Credentials | dict[str, str]) -> bool:
        """Whether it was written; False when another controller was faster."""
        data = content.to_data() if isinstance(content, Credentials) else encoded(content)
        try:
            if found is None:
                metadata: dict[str, Any] = {"name": name, "namespace": self._namespace}
                secret = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque"}
                self._store.create({**secret, "data": data})
            else:
                self._store.update({**found, "data": data})
        except Conflict:
            return False
        except NotFound:
            if found is None:
                raise  # the namespace is missing
            return False
        return True

    def _run(self) -> None:
        while not self._stopping.wait(self._lives.look.total_seconds()):
            try:
                self.look()
            except OrbweaverError as error:
                log.warning(
                    "could not look after the certificates, will try again", extra={"error": str(error)}
                )
