"""What this controller's webhook shows, and what API servers are told to trust: kept right while the process runs.

How it works. The authority is in a Secret that controllers alone may read. Each controller signs itself a certificate with
it, whose key stays in memory, and looks at the Secret again and again. The leader makes the authority, replaces it in time,
and writes what is to be trusted into the webhook's configuration (`caBundle`), also when somebody else changed that.
What must always hold: an authority is in the configuration before anything is signed with it. Whatever fails here, the
endpoint shows what it had; API servers let objects in that they cannot ask about.
"""

from __future__ import annotations

import base64
import binascii
import logging
import ssl
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from actors.cluster.authority import LIFE, Authority, advance
from actors.cluster.certificates import Pair, sign_server, utc_now
from actors.cluster.credentials import server_context
from actors.errors import Conflict, InvalidObject, NotFound
from actors.runtime.periodic import PeriodicThread
from actors.store.contract import Object, Store

log = logging.getLogger("orbweaver.webhook")

SECRET = "orbweaver-webhook"  # noqa: S105 - the object's name
CONFIGURATION = "orbweaver"
SERVICE = "orbweaver-webhook"
_LOOK, _LOOK_FIRST = timedelta(minutes=1), 1.0
"""Between two looks at the Secret, at most; and, in seconds, while there is no authority yet, or a look has failed."""


def service_name(namespace: str) -> str:
    """The name under which API servers ask a controller, whichever it is."""
    return f"{SERVICE}.{namespace}.svc"


class WebhookCertificates:
    """One per controller. `look` runs in a thread of its own, or in a test's; contexts may be asked for by any."""

    def __init__(
        self,
        store: Store,
        namespace: str,
        *,
        names: Sequence[str] = (),
        leads: Callable[[], bool],
        life: timedelta = LIFE,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        """`names`: under which this controller is reached beside the Service's."""
        self._store = store
        self._namespace = namespace
        self._names = (service_name(namespace), *names)
        self._leads = leads
        self._life = life
        self._now = now
        self._authority: Authority | None = None
        self._shown: Pair | None = None
        self._server: ssl.SSLContext | None = None
        self._client: ssl.SSLContext | None = None
        self._thread = PeriodicThread(
            "webhook-certificates",
            self._look_again,
            log=log,
            failing="the webhook's certificates were not looked at",
            retry=_LOOK_FIRST,
        )

    @property
    def name(self) -> str:
        """What every controller's certificate says."""
        return self._names[0]

    @property
    def shown(self) -> str:
        """The certificate, in PEM, empty while there is none."""
        return self._shown.certificate if self._shown is not None else ""

    def server(self) -> ssl.SSLContext:
        """What the endpoint shows now. Raises `OSError` while that is nothing."""
        return _there(self._server)

    def client(self) -> ssl.SSLContext:
        """What trusts another controller's endpoint. Raises `OSError`."""
        return _there(self._client)

    def start(self) -> None:
        """Look now, and from time to time."""
        self._thread.start()

    def wake(self) -> None:
        """Look soon: this process leads from now on."""
        self._thread.wake()

    def stop(self) -> None:
        """Look no more."""
        self._thread.stop()

    def look(self) -> None:
        """One look at the Secret, and, where this process leads, at the configuration. Raises what the store raises, and
        `InvalidObject` for a Secret that holds something else where this process does not lead."""
        secret = self._get("Secret", SECRET, self._namespace)
        leads = self._leads()
        try:
            stored = Authority.from_data((secret or {}).get("data") or {})
        except InvalidObject as error:
            if not leads:
                raise
            log.error("the webhook's authority is made anew", extra={"error": str(error)})
            stored = None
        if leads:
            configuration = self._get("ValidatingWebhookConfiguration", CONFIGURATION)
            stored = self._kept(secret, stored, _published(configuration or {}))
            if configuration is not None:
                self._publish(configuration, stored)
        if stored is not None and stored != self._authority:
            self._adopt(stored)

    def _kept(self, secret: Object | None, stored: Authority | None, published: Sequence[str]) -> Authority:
        """The authority that should be, written if it was another one."""
        wanted = advance(stored, self._now(), self._life, published)
        if wanted == stored:
            return stored
        data = wanted.to_data()
        if secret is None:
            metadata = {"name": SECRET, "namespace": self._namespace}
            self._store.create({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data})
        else:
            self._store.update({**secret, "data": data})
        log.info("the webhook's authority changed", extra={"signs": wanted.following is None})
        return wanted

    def _publish(self, configuration: Object, authority: Authority) -> None:
        bundle = base64.b64encode(authority.bundle.encode()).decode()
        webhooks = [dict(webhook) for webhook in configuration.get("webhooks") or ()]
        if all((webhook.get("clientConfig") or {}).get("caBundle") == bundle for webhook in webhooks):
            return
        for webhook in webhooks:
            webhook["clientConfig"] = {**(webhook.get("clientConfig") or {}), "caBundle": bundle}
        self._store.update({**configuration, "webhooks": webhooks})
        log.info("API servers are told whom to trust", extra={"configuration": CONFIGURATION})

    def _adopt(self, authority: Authority) -> None:
        """Show what this authority signs, and trust what it says."""
        client = ssl.create_default_context(cadata=authority.bundle)
        client.minimum_version = ssl.TLSVersion.TLSv1_3
        if self._authority is None or self._authority.current != authority.current:
            try:
                shown = sign_server(authority.current, self._names, self._now())
            except (ValueError, TypeError) as error:
                raise InvalidObject(f"the webhook's authority cannot sign: {error}") from error
            self._shown, self._server = shown, server_context(shown.certificate, shown.key)
        self._client, self._authority = client, authority

    def _get(self, kind: str, name: str, namespace: str = "") -> Object | None:
        try:
            return self._store.get(kind, name, namespace)
        except NotFound:
            return None

    def _look_again(self) -> float:
        try:
            self.look()
        except Conflict:
            log.debug("another controller wrote the webhook's certificates")
        return min(_LOOK, self._life / 100).total_seconds() if self._authority is not None else _LOOK_FIRST


def _published(configuration: dict[str, Any]) -> list[str]:
    """What each webhook of a configuration trusts; a text that is none counts for nothing."""
    bundles: list[str] = []
    for webhook in configuration.get("webhooks") or ():
        try:
            bundles.append(
                base64.b64decode((webhook.get("clientConfig") or {}).get("caBundle") or "").decode()
            )
        except (binascii.Error, ValueError):
            bundles.append("")
    return bundles


def _there(context: ssl.SSLContext | None) -> ssl.SSLContext:
    if context is None:
        raise ConnectionRefusedError("the webhook has no certificate yet")
    return context
