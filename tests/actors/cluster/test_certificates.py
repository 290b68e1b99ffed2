"""The leader's certificate: known by the Lease alone, made anew with each leader, replaced when it is due or asked for."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from actors.cluster.certificates import make_certificate, utc_now
from actors.cluster.credentials import SERVER_NAME, client_context, server_context
from actors.cluster.leader_certificate import LeaderCertificate
from actors.cluster.lease import CERTIFICATE, REPLACE, LeaseCandidate, Timing, read_holder
from actors.errors import InvalidObject
from actors.store.sqlite.store import SQLiteStore

HOUR = timedelta(hours=1)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLiteStore]:
    opened = SQLiteStore(tmp_path / "x.db")
    yield opened
    opened.close()


class Controller:
    """A candidate with its certificate and clocks of its own."""

    def __init__(self, store: SQLiteStore, name: str) -> None:
        self.boot = 0.0
        self.now: datetime = utc_now() - 2 * HOUR  # OpenSSL knows the true time only
        self.sent_away = 0
        self.shown = LeaderCertificate(life=3 * HOUR, now=lambda: self.now, on_replaced=self._replaced)
        self.candidate = LeaseCandidate(
            store, "lease", "system", identity=name, address=f"{name}:5722", timing=Timing(15, 10, 2),
            on_won=lambda: None, on_lost=lambda why: None, shown=self.shown, clock=lambda: self.boot,
        )  # fmt: skip

    def turn(self, seconds: float = 2.0) -> None:
        self.boot += seconds
        self.candidate.turn()

    def _replaced(self) -> None:
        self.sent_away += 1


def published(store: SQLiteStore) -> str:
    holder = read_holder(store, "lease", "system")
    assert holder is not None
    return holder.certificate


def ask(store: SQLiteStore) -> None:
    lease = store.get("Lease", "lease", "system")
    metadata: dict[str, Any] = lease["metadata"]
    annotations = {**metadata["annotations"], REPLACE: "now"}
    store.update({**lease, "metadata": {**metadata, "annotations": annotations}})


def shake_hands(server: ssl.SSLContext, trusted: str) -> None:
    """A whole TLS handshake in memory. Raises ssl.SSLError."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client_side = client_context(trusted).wrap_bio(to_client, to_server, server_hostname=SERVER_NAME)
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


def test_the_lease_shows_what_the_leader_shows(store: SQLiteStore):
    one = Controller(store, "one")
    one.turn()
    shake_hands(one.shown.context(), published(store))
    assert "PRIVATE" not in str(store.get("Lease", "lease", "system"))


def test_each_leader_has_a_key_of_its_own_and_another_each_time(store: SQLiteStore):
    one, two = Controller(store, "one"), Controller(store, "two")
    one.turn()
    two.turn()
    first = published(store)
    two.turn(16)
    second = published(store)
    one.turn(16)  # it could not renew
    one.turn()
    one.turn(16)
    third = published(store)
    assert len({first, second, third}) == 3
    shake_hands(one.shown.context(), third)
    for before in (first, second):
        with pytest.raises(ssl.SSLError, match="CERTIFICATE_VERIFY_FAILED"):
            shake_hands(one.shown.context(), before)


def test_one_that_is_due_is_replaced_and_connections_go_on(store: SQLiteStore):
    one = Controller(store, "one")
    one.turn()
    first = published(store)
    one.now += HOUR
    one.turn()
    assert published(store) == first
    one.now += HOUR
    one.turn()
    assert published(store) != first
    shake_hands(one.shown.context(), published(store))
    assert one.sent_away == 0


def test_one_that_somebody_asks_to_replace_is_trusted_no_more(store: SQLiteStore):
    """The leader comes upon the wish when it renews; connections made with the one before end, once the Lease shows the
    new one, and it does so once."""
    one = Controller(store, "one")
    one.turn()
    first = published(store)
    ask(store)
    one.turn()
    annotations = store.get("Lease", "lease", "system")["metadata"]["annotations"]
    assert REPLACE not in annotations
    assert annotations[CERTIFICATE] != first
    assert one.sent_away == 1
    with pytest.raises(ssl.SSLError, match="CERTIFICATE_VERIFY_FAILED"):
        shake_hands(one.shown.context(), first)
    one.turn()
    assert one.sent_away == 1


def test_a_wish_that_a_lost_leader_left_is_the_next_one_s(store: SQLiteStore):
    one, two = Controller(store, "one"), Controller(store, "two")
    one.turn()
    ask(store)
    two.turn()
    two.turn(16)
    assert REPLACE not in store.get("Lease", "lease", "system")["metadata"]["annotations"]
    assert two.sent_away == 0


def test_what_is_no_certificate_is_told(store: SQLiteStore):
    with pytest.raises(InvalidObject, match="Lease"):
        client_context("what somebody wrote")


def test_the_key_is_in_no_text():
    pair = make_certificate(utc_now(), HOUR)
    assert pair.key not in repr(pair)
    server_context(pair.certificate, pair.key)
