"""The webhook's certificates on a real API server, on a clock of the test's; and what happens where they are wrong, or
the webhook is slow or away."""

from __future__ import annotations

import base64
import socket
import threading
from collections.abc import Container, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from actors.cluster.certificates import make_authority
from actors.cluster.leadership import NAMESPACE
from actors.cluster.webhook_certificates import SECRET, WebhookCertificates, service_name
from actors.errors import InvalidObject
from actors.store.kubernetes.store import KubernetesStore
from cni.process.controller import Controller
from tests.actors.cluster.test_authority import trusts
from tests.deploy.test_overlap_webhook import (
    CONFIGURATIONS,
    await_webhook,
    configuration,
    configured,
    controllers,
    created,
    dry_run,
)
from tests.support.checker import eventually
from tests.support.cluster import ClusterStore
from tests.support.rig import pod, pool
from tests.tools.apiserver import ApiServer, free_ports

SECRETS = f"/api/v1/namespaces/{NAMESPACE}/secrets"
LIFE = timedelta(minutes=10)
SAME = pool("same", "10.99.0.0/16", "10.99.0.1")
WRONG = pool("wrong", "10.98.0.0/16", "10.97.0.1")


class Clock:
    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture(autouse=True)
def secret(api_server: ApiServer, store: ClusterStore) -> Iterator[None]:
    """The empty one that deploy/ makes."""
    api_server.ask("DELETE", f"{SECRETS}/{SECRET}")
    api_server.call("POST", SECRETS, {"metadata": {"name": SECRET}})
    yield
    api_server.ask("DELETE", f"{SECRETS}/{SECRET}")


def bundle(api_server: ApiServer) -> str:
    """What API servers are told to trust."""
    found = api_server.call("GET", f"{CONFIGURATIONS}/orbweaver")
    return base64.b64decode(found["webhooks"][0]["clientConfig"].get("caBundle", "")).decode()


@contextmanager
def installed(api_server: ApiServer, **client: Any) -> Iterator[None]:
    """The configuration, with nobody that it leads to unless `client` says so."""
    api_server.call("POST", CONFIGURATIONS, configuration(client or {"url": "https://127.0.0.1:1/review"}))
    try:
        yield
    finally:
        api_server.call("DELETE", f"{CONFIGURATIONS}/orbweaver")


def test_an_hour_of_certificates_that_live_for_ten_minutes(
    api_server: ApiServer, store: ClusterStore
) -> None:
    clock, leading = Clock(), [True, False]
    both = [
        WebhookCertificates(
            store, NAMESPACE, leads=partial(leading.__getitem__, number), life=LIFE, now=clock
        )
        for number in range(2)
    ]
    with installed(api_server):
        seen = set()
        for number in range(360):
            clock.now += timedelta(seconds=10)
            if number % 100 == 99:
                leading.reverse()
            for one in both:
                one.look()
            for one in both:
                assert trusts(bundle(api_server), one.shown, clock.now)
                one.server()
                one.client()
            seen.add(both[0].shown)
        assert 8 <= len(seen) <= 13
        assert both[0].name == service_name(NAMESPACE)


def test_what_somebody_else_wrote_is_put_right(api_server: ApiServer, store: ClusterStore) -> None:
    one = WebhookCertificates(store, NAMESPACE, leads=lambda: True)
    with installed(api_server):
        one.look()
        right = bundle(api_server)
        other = make_authority(datetime.now(UTC), LIFE)
        for wrong in (other.certificate, ""):
            found = api_server.call("GET", f"{CONFIGURATIONS}/orbweaver")
            found["webhooks"][0]["clientConfig"]["caBundle"] = base64.b64encode(wrong.encode()).decode()
            api_server.call("PUT", f"{CONFIGURATIONS}/orbweaver", found)
            assert bundle(api_server) == wrong
            one.look()
            assert bundle(api_server) == right

        standby = WebhookCertificates(store, NAMESPACE, leads=lambda: False)
        found = api_server.call("GET", f"{SECRETS}/{SECRET}")
        api_server.call("PUT", f"{SECRETS}/{SECRET}", found | {"data": {"ca.crt": "bm9uZQ=="}})
        with pytest.raises(InvalidObject, match="no authority of ours"):
            standby.look()
        with pytest.raises(ConnectionRefusedError):
            standby.server()
        one.look()
        standby.look()
        assert bundle(api_server) != right
        assert trusts(bundle(api_server), standby.shown, datetime.now(UTC))
        assert trusts(bundle(api_server), one.shown, datetime.now(UTC))


def test_without_a_configuration_there_is_an_authority_all_the_same(
    api_server: ApiServer, store: ClusterStore
) -> None:
    """And without a Secret it is made, where that is allowed."""
    api_server.ask("DELETE", f"{SECRETS}/{SECRET}")
    one = WebhookCertificates(store, NAMESPACE, leads=lambda: True)
    one.look()
    assert one.shown
    assert api_server.call("GET", f"{SECRETS}/{SECRET}")["data"]["ca.key"]


def told(store: KubernetesStore, name: str, *others: str) -> None:
    assert store.get("SpiderIPPool", name).get("status", {}).get("overlaps") == list(others)


def test_with_a_wrong_certificate_pools_are_let_in_until_the_leader_has_put_it_right(
    api_server: ApiServer, store: ClusterStore
) -> None:
    with (
        controllers(store, "127.0.0.1") as (port, (leader,)),
        configured(api_server, "127.0.0.1", port, leader),
    ):
        await_webhook(api_server, store)
        found = api_server.call("GET", f"{CONFIGURATIONS}/orbweaver")
        other = make_authority(datetime.now(UTC), LIFE).certificate
        found["webhooks"][0]["clientConfig"]["caBundle"] = base64.b64encode(other.encode()).decode()
        api_server.call("PUT", f"{CONFIGURATIONS}/orbweaver", found)

        def let_in() -> None:
            assert dry_run(api_server, SAME)[0] == 201

        def refused() -> None:
            assert "overlaps with" in dry_run(api_server, SAME)[1]["message"]

        eventually(let_in)
        assert created(store, pool("same", "10.99.0.0/16", "10.99.0.1")) == ""
        assert "10.97.0.1" in created(store, WRONG)
        eventually(lambda: told(store, "same", "sign"))
        store.create(pod("web"))
        store.delete("SpiderIPPool", "same")
        _wake(leader)
        eventually(refused)


def _wake(leader: Controller) -> None:
    assert leader.webhook_certificates is not None
    leader.webhook_certificates.wake()


class Silent:
    """Takes connections and never says a word."""

    def __init__(self) -> None:
        (self.port,) = free_ports(1)
        self.listener = socket.create_server(("127.0.0.1", self.port))
        self.taken: dict[tuple[str, int], socket.socket] = {}
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, peer = self.listener.accept()
            except OSError:
                return
            self.taken[peer] = connection

    def asked(self) -> int:
        """How often it was asked by now: who came before this connection was taken before it."""
        with socket.create_connection(("127.0.0.1", self.port)) as own:
            eventually(lambda: _in(own.getsockname(), self.taken))
            self.taken.pop(own.getsockname()).close()
        return len(self.taken)

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        for one in (self.listener, *self.taken.values()):
            one.close()


def _in(one: object, found: Container[object]) -> None:
    assert one in found


@pytest.mark.parametrize("silent", [True, False], ids=["slow", "down"])
def test_where_the_webhook_is_slow_or_down_pods_start_and_wrong_pools_are_refused(
    api_server: ApiServer, store: ClusterStore, silent: bool
) -> None:
    """It does not answer at all, so what is let in is let in because of the time that it has."""
    server = Silent() if silent else None
    (free,) = free_ports(1)
    port = server.port if server is not None else free
    with (
        controllers(store, "127.0.0.1") as (_, (leader,)),
        installed(api_server, url=f"https://127.0.0.1:{port}/review"),
    ):
        _wake(leader)

        def asked() -> None:
            assert dry_run(api_server, pool("any", "10.1.0.0/16", "10.1.0.1"))[0] == 201
            assert server is None or server.asked()

        eventually(asked)
        before = server.asked() if server is not None else 0
        for number in range(5):
            store.create(pod(f"web-{number}"))
        assert (server.asked() if server is not None else 0) == before, "a pod waited for a webhook"
        assert "10.97.0.1" in created(store, WRONG)
        for name in ("one", "two"):
            assert created(store, pool(name, "10.6.0.0/16", "10.6.0.1")) == ""
        eventually(lambda: told(store, "two", "one"))
    if server is not None:
        server.close()
