"""Mutual TLS: who may not connect does not, and neither disturbs who may."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from actors.cluster.certificates import issue, make_authority, utc_now
from actors.cluster.credentials import SERVER_NAME, Credentials
from actors.errors import OrbweaverError, PeerLost, ProtocolError
from actors.runtime import ActorSystem, TcpTransport, get, wire
from tests.actors.runtime import cast
from tests.actors.runtime.conftest import Served, certificates, connected

DAY = timedelta(days=1)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with Served(certificates(tmp_path)) as served:
        yield served
        left, log = served.stop()
        assert left == []
        assert "Traceback" not in log


@pytest.fixture
def client(served: Served) -> Iterator[ActorSystem]:
    """Somebody who may, and who must notice nothing of the others."""
    system = connected(served)
    assert get(system.get_actor("worker/a").echo.remote("before"), timeout=60) == "before"
    yield system
    assert get(system.get_actor("worker/a").echo.remote("after"), timeout=60) == "after"
    system.shutdown()


def port_of(served: Served) -> int:
    return int(served.address.rpartition(":")[2])


def calls(served: Served, context: ssl.SSLContext | None, name: str | None = SERVER_NAME) -> object:
    """The answer of a worker to a system with this context. Raises what that gets."""
    system = ActorSystem("other")
    system.connect("worker", TcpTransport("127.0.0.1", port_of(served), context, server_name=name))
    try:
        return get(system.get_actor("worker/a").echo.remote("hello"), timeout=60)
    finally:
        system.shutdown()


def trusting(tmp_path: Path) -> ssl.SSLContext:
    """A context that accepts the server and shows nothing."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=Credentials.read(tmp_path / "client").trusted)
    return context


def test_who_shows_a_certificate_is_served(tmp_path: Path, served: Served, client: ActorSystem):
    assert calls(served, Credentials.read(tmp_path / "client").client_context()) == "hello"


def test_without_a_certificate_nobody_is_served(tmp_path: Path, served: Served, client: ActorSystem):
    with pytest.raises(PeerLost):
        calls(served, trusting(tmp_path))


def test_a_certificate_of_another_authority_is_refused(tmp_path: Path, served: Served, client: ActorSystem):
    now = utc_now()
    other = make_authority(now, DAY)
    pair = issue(other, "client", now, DAY, server=False)
    context = trusting(tmp_path)
    Credentials(other.certificate, pair.certificate, pair.key).renew(context)
    with pytest.raises(PeerLost):
        calls(served, context)


def test_a_certificate_that_is_over_is_refused(tmp_path: Path):
    now = utc_now()
    authority = make_authority(now - 3 * DAY, 9 * DAY)
    server = issue(authority, "server", now, DAY, server=True)
    Credentials(authority.certificate, server.certificate, server.key).write(tmp_path / "server")
    old = issue(authority, "client", now - 2 * DAY, DAY, server=False)
    new = issue(authority, "client", now, DAY, server=False)
    with Served(f"tls:{tmp_path}:127.0.0.1:0") as served:
        with pytest.raises(PeerLost):
            calls(served, Credentials(authority.certificate, old.certificate, old.key).client_context())
        assert (
            calls(served, Credentials(authority.certificate, new.certificate, new.key).client_context())
            == "hello"
        )


def test_a_server_of_another_name_or_without_a_right_to_serve_is_left(tmp_path: Path, served: Served):
    mine = Credentials.read(tmp_path / "client")
    with pytest.raises(PeerLost, match="certificate"):
        calls(served, mine.client_context(), "somebody.else")
    mine.write(tmp_path / "false" / "server")  # a client's certificate, shown by a server
    with Served(f"tls:{tmp_path}/false:127.0.0.1:0") as false, pytest.raises(PeerLost, match="certificate"):
        calls(false, mine.client_context())


def test_older_versions_of_tls_are_refused(tmp_path: Path, served: Served, client: ActorSystem):
    context = Credentials.read(tmp_path / "client").client_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(PeerLost):
        calls(served, context)


@pytest.mark.parametrize(
    "garbage", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01" + b"\xff" * 300, wire.hello("raw")]
)
def test_garbage_in_place_of_tls_ends_the_connection(served: Served, client: ActorSystem, garbage: bytes):
    with socket.create_connection(("127.0.0.1", port_of(served)), timeout=20) as raw:
        raw.sendall(garbage)
        with contextlib.suppress(ConnectionResetError):
            while raw.recv(1 << 16):  # an alert, perhaps; a timeout would fail the test
                pass


def test_garbage_inside_of_tls_gets_a_typed_error(tmp_path: Path, served: Served, client: ActorSystem):
    context = Credentials.read(tmp_path / "client").client_context()
    with (
        socket.create_connection(("127.0.0.1", port_of(served)), timeout=20) as raw,
        context.wrap_socket(raw, server_hostname=SERVER_NAME) as inside,
    ):
        inside.sendall(b"\xff" * 64)
        incoming = wire.Incoming()
        events: list[wire.Event] = []
        while data := inside.recv(1 << 16):
            events += incoming.receive(data)
    assert isinstance(events[-1], wire.GoodbyeReceived)
    assert isinstance(events[-1].error, ProtocolError)


def test_a_server_must_ask_for_certificates(tmp_path: Path):
    certificates(tmp_path)
    context = Credentials.read(tmp_path / "server").server_context()
    context.verify_mode = ssl.CERT_NONE
    system = ActorSystem("open")
    cast.register(system)
    with pytest.raises(OrbweaverError, match="must require client certificates"):
        system.serve(TcpTransport("127.0.0.1", 0, context))
    system.shutdown()


def test_credentials_can_be_replaced_while_a_server_serves(tmp_path: Path):
    """Connections that are there go on; new ones see the new certificate, and both authorities are trusted."""
    now = utc_now()
    first, second = (make_authority(now, DAY) for _ in range(2))
    old, new = (issue(one, "server", now, DAY, server=True) for one in (first, second))
    context = Credentials(first.certificate, old.certificate, old.key).server_context()
    system = ActorSystem("server")
    cast.register(system)
    listener = system.serve(TcpTransport("127.0.0.1", 0, context))

    def client_of(shown: object, *trusted: object) -> ActorSystem:
        made = ActorSystem("client")
        pair = issue(shown, "client", now, DAY, server=False)  # type: ignore[arg-type]
        bundle = "".join(one.certificate for one in trusted)  # type: ignore[attr-defined]
        tls = Credentials(bundle, pair.certificate, pair.key).client_context()
        made.connect("worker", TcpTransport("127.0.0.1", listener.port, tls, server_name=SERVER_NAME))
        return made

    before, after = client_of(first, first), client_of(first, second)
    late = client_of(second, second)
    assert get(before.get_actor("worker/a").echo.remote(1), timeout=60) == 1
    with pytest.raises(PeerLost):
        get(late.get_actor("worker/a").echo.remote(1), timeout=60)
    Credentials(first.certificate + second.certificate, new.certificate, new.key).renew(context)
    again = client_of(second, second)
    for one in (before, after, again):
        assert get(one.get_actor("worker/a").echo.remote(2), timeout=60) == 2
    for one in (before, after, late, again, system):
        one.shutdown()
