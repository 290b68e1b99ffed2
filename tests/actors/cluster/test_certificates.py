"""The certificates of the leader's connections: made once however many controllers begin at a time, and replaced one
after the other without a moment in which an agent and a controller do not trust each other."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from actors.cluster.certificates import Pair, is_due, is_issued_by, issue, make_authority, utc_now
from actors.cluster.credentials import SERVER_NAME, Credentials, decoded
from actors.cluster.leadership import AUTHORITY, CLIENT
from actors.cluster.secrets import Lives, SecretsKeeper
from actors.errors import InvalidObject
from actors.store.contract import Object
from actors.store.sqlite.store import SQLiteStore

HOUR = timedelta(hours=1)
LIVES = Lives(authority=9 * HOUR, certificate=8 * HOUR, grace=timedelta(minutes=10))
MADE = -5 * HOUR
"""Relative to now. OpenSSL knows the true time only, so all that these tests do is done in the past or near future."""
DUE = 0.8 * HOUR
"""By then two thirds of the authority's life are over."""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLiteStore]:
    opened = SQLiteStore(tmp_path / "x.db")
    yield opened
    opened.close()


class Controllers:
    """Two controllers' keepers, and the moment that they take for now."""

    def __init__(self, store: SQLiteStore) -> None:
        self.now: datetime = utc_now() + MADE
        self.store = store
        self.keepers = [SecretsKeeper(store, "system", LIVES, now=lambda: self.now) for _ in range(2)]

    def secret(self, name: str) -> Object:
        return self.store.get("Secret", name, "system")

    def agent(self) -> Credentials:
        return Credentials.from_secret(self.secret(CLIENT))

    def authority(self) -> str:
        return decoded(self.secret(AUTHORITY))["ca.crt"]

    def at(self, moment: timedelta, *looking: int) -> None:
        """These keepers look, in this order; after each, an agent reaches both."""
        self.now = utc_now() + moment
        for number in looking:
            self.keepers[number].look()
            for keeper in self.keepers:
                if keeper.context is not None:
                    shake_hands(keeper.context, self.agent())


def shake_hands(server: ssl.SSLContext, agent: Credentials) -> None:
    """A whole TLS handshake in memory. Raises ssl.SSLError."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client_side = agent.client_context().wrap_bio(to_client, to_server, server_hostname=SERVER_NAME)
    server_side = server.wrap_bio(to_server, to_client, server_side=True)
    waiting = [client_side, server_side]
    for _ in range(10):
        for side in list(waiting):
            try:
                side.do_handshake()
                waiting.remove(side)
            except ssl.SSLWantReadError:
                continue
    assert not waiting


def test_controllers_that_begin_at_once_agree(store: SQLiteStore):
    now = utc_now()
    keepers = [SecretsKeeper(store, "system", now=lambda: now) for _ in range(8)]
    with ThreadPoolExecutor(8) as workers:
        list(workers.map(SecretsKeeper.look, keepers))
    agent = Credentials.from_secret(store.get("Secret", CLIENT, "system"))
    for keeper in keepers:
        assert keeper.context is not None
        shake_hands(keeper.context, agent)


def test_nothing_is_written_while_nothing_is_due(store: SQLiteStore):
    both = Controllers(store)
    both.at(MADE, 0, 1)
    secrets = [both.secret(name) for name in (AUTHORITY, CLIENT)]
    both.at(MADE + HOUR, 0, 1)
    assert secrets == [both.secret(name) for name in (AUTHORITY, CLIENT)]


def test_an_authority_is_followed_by_another_and_nobody_is_cut_off(store: SQLiteStore):
    """One controller replaces it; the other has not looked yet, and agents reach both at each step."""
    both = Controllers(store)
    both.at(MADE, 0, 1)
    first, shown = both.authority(), both.agent().certificate
    both.at(DUE, 0)
    second = both.authority()
    assert second != first
    assert both.agent().trusted == second + first
    assert is_issued_by(both.agent().certificate, first)  # the other controller may not trust the second yet
    both.at(DUE + timedelta(minutes=5), 1)
    both.at(DUE + timedelta(minutes=11), 0, 1)
    assert is_issued_by(both.agent().certificate, second)
    assert both.agent().certificate != shown
    both.at(4.5 * HOUR, 1)  # the first is over
    assert both.agent().trusted == second


def test_an_agent_that_read_before_a_change_reads_again_and_connects(store: SQLiteStore):
    both = Controllers(store)
    both.at(MADE, 0)
    early = both.agent()
    both.at(DUE, 0)
    both.at(DUE + timedelta(minutes=11), 0)
    assert both.keepers[0].context is not None
    with pytest.raises(ssl.SSLError, match="CERTIFICATE_VERIFY_FAILED"):
        shake_hands(both.keepers[0].context, early)
    shake_hands(both.keepers[0].context, both.agent())


def test_an_agent_s_certificate_is_replaced_in_time(store: SQLiteStore):
    both = Controllers(store)
    both.at(MADE, 0)
    before = both.agent()
    both.at(0.5 * HOUR, 1)
    assert is_due(before.certificate, both.now)
    assert both.agent().certificate != before.certificate
    assert both.agent().trusted == before.trusted


def test_damaged_secrets_are_made_anew_or_told_of(store: SQLiteStore):
    both = Controllers(store)
    both.at(MADE, 0)
    store.update({**both.secret(CLIENT), "data": {"tls.crt": "%"}})
    both.at(MADE + HOUR, 0)
    store.update({**both.secret(AUTHORITY), "data": {}})
    with pytest.raises(InvalidObject, match="delete it"):
        both.keepers[1].look()


def test_an_agent_cannot_pose_as_the_leader():
    now = utc_now()
    authority = make_authority(now, HOUR)
    pair: Pair = issue(authority, "agents", now, HOUR, server=False)
    agent = Credentials(authority.certificate, pair.certificate, pair.key)
    with pytest.raises(ssl.SSLError, match="CERTIFICATE_VERIFY_FAILED"):
        shake_hands(agent.server_context(), agent)
    assert pair.key not in repr(agent) + repr(pair)
