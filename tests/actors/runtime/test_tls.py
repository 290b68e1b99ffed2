"""TLS with a token inside: who may not connect does not, and neither disturbs who may."""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from actors.cluster.certificates import make_certificate, utc_now
from actors.cluster.credentials import SERVER_NAME, client_context, server_context
from actors.errors import OrbweaverError, PeerLost, PeerRefused, ProtocolError
from actors.runtime import ActorSystem, LinkLimits, TcpTransport, TlsDoor, get, wire
from actors.runtime.identity import introduction
from tests.actors.runtime import cast
from tests.actors.runtime.conftest import Served, certificates, connected, eventually

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


def calls(
    port: int, context: ssl.SSLContext | None, token: str | None = cast.TOKEN, name: str = SERVER_NAME
) -> object:
    """The answer of a worker to a system that connects so. Raises what that gets."""
    system = ActorSystem("other")
    shown = None if token is None else lambda: token
    system.connect("worker", TcpTransport("127.0.0.1", port, context, server_name=name, token=shown))
    try:
        return get(system.get_actor("worker/a").echo.remote("hello"), timeout=60)
    finally:
        system.shutdown()


def trusting(tmp_path: Path) -> ssl.SSLContext:
    return client_context((tmp_path / "server.crt").read_text())


def test_who_shows_its_token_is_served(tmp_path: Path, served: Served, client: ActorSystem):
    assert calls(port_of(served), trusting(tmp_path)) == "hello"


@pytest.mark.parametrize("token", ["somebody@node1", "agent@", "x", "x" * 8192])
def test_whose_token_is_nobody_s_is_told_so(tmp_path: Path, served: Served, client: ActorSystem, token: str):
    with pytest.raises(PeerRefused, match="nobody's token"):
        calls(port_of(served), trusting(tmp_path), token)


def test_without_a_token_nobody_is_served(tmp_path: Path, served: Served, client: ActorSystem):
    """Its first frame is taken for a token."""
    with pytest.raises((PeerRefused, PeerLost, ProtocolError)):
        calls(port_of(served), trusting(tmp_path), None)


def test_a_token_that_is_too_long_is_not_sent(tmp_path: Path, served: Served, client: ActorSystem):
    with pytest.raises(ProtocolError, match="limit is 8192"):
        calls(port_of(served), trusting(tmp_path), "x" * 8193)


def test_a_client_leaves_a_server_that_shows_another_certificate(
    tmp_path: Path, served: Served, client: ActorSystem
):
    """Neither another's of the same name, nor the right one under another name; and the token is not shown."""
    other = client_context(make_certificate(utc_now(), DAY).certificate)
    with pytest.raises(PeerLost, match="certificate"):
        calls(port_of(served), other)
    with pytest.raises(PeerLost, match="certificate"):
        calls(port_of(served), trusting(tmp_path), name="somebody.else")


def test_a_certificate_that_is_over_is_refused(tmp_path: Path):
    pair = make_certificate(utc_now() - 3 * DAY, DAY)
    (tmp_path / "server.crt").write_text(pair.certificate)
    (tmp_path / "server.key").write_text(pair.key)
    with (
        Served(f"tls:{tmp_path}:127.0.0.1:0") as served,
        pytest.raises(PeerLost, match="certificate has expired"),
    ):
        calls(port_of(served), trusting(tmp_path))


def test_older_versions_of_tls_are_refused(tmp_path: Path, served: Served, client: ActorSystem):
    context = trusting(tmp_path)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(PeerLost):
        calls(port_of(served), context)


@pytest.mark.parametrize(
    "garbage", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01" + b"\xff" * 300, wire.hello("raw")]
)
def test_garbage_in_place_of_tls_ends_the_connection(served: Served, client: ActorSystem, garbage: bytes):
    with socket.create_connection(("127.0.0.1", port_of(served)), timeout=60) as raw:
        raw.sendall(garbage)
        with contextlib.suppress(ConnectionResetError):
            while raw.recv(1 << 16):  # an alert, perhaps; a timeout would fail the test
                pass


@pytest.mark.parametrize(
    "said",
    [b"\xff" * 64, b"\0\0\0\0", introduction("\x01\x02"), introduction(cast.TOKEN) + b"\xff" * 64],
    ids=["no length", "empty", "no token", "no frame behind a token"],
)
def test_garbage_inside_of_tls_gets_a_typed_error(
    tmp_path: Path, served: Served, client: ActorSystem, said: bytes
):
    context = trusting(tmp_path)
    with (
        socket.create_connection(("127.0.0.1", port_of(served)), timeout=60) as raw,
        context.wrap_socket(raw, server_hostname=SERVER_NAME) as inside,
    ):
        inside.sendall(said)
        incoming = wire.Incoming()
        events: list[wire.PeerEvent] = []
        while data := inside.recv(1 << 16):
            events += incoming.receive(data)
    assert isinstance(events[-1], wire.GoodbyeReceived)
    assert isinstance(events[-1].error, ProtocolError | PeerRefused)


def test_what_listens_without_a_door_serves_no_tls(tmp_path: Path):
    certificates(tmp_path)
    system = ActorSystem("open")
    cast.register(system)
    with pytest.raises(OrbweaverError, match="TlsDoor"):
        system.serve(TcpTransport("127.0.0.1", 0, trusting(tmp_path)))
    system.shutdown()


def test_the_certificate_can_be_replaced_while_a_server_serves(tmp_path: Path):
    """Connections that are there go on until they are sent away; new ones see the new certificate, and who trusts the old
    one is not served any more."""
    old, new = (make_certificate(utc_now(), DAY) for _ in range(2))
    shown = [server_context(old.certificate, old.key)]
    system = ActorSystem("server")
    cast.register(system)
    listener = system.serve(TlsDoor("127.0.0.1", 0, lambda: shown[-1], cast.identify))

    def client_of(trusted: str) -> ActorSystem:
        made = ActorSystem("client")
        transport = TcpTransport(
            "127.0.0.1",
            listener.port,
            client_context(trusted),
            server_name=SERVER_NAME,
            token=lambda: cast.TOKEN,
        )
        made.connect("worker", transport)
        return made

    def echo(system: ActorSystem) -> object:
        return get(system.get_actor("worker/a").echo.remote(1), timeout=60)

    before = client_of(old.certificate)
    assert echo(before) == 1
    shown.append(server_context(new.certificate, new.key))
    assert echo(before) == 1
    late, after = client_of(old.certificate), client_of(new.certificate)
    with pytest.raises(PeerLost, match="certificate"):
        echo(late)
    assert echo(after) == 1
    listener.send_away(PeerLost("replaced"))
    with pytest.raises(PeerLost):
        until = time.monotonic() + 60
        while time.monotonic() < until:  # until it has heard
            echo(before)
    for one in (before, after, late, system):
        one.shutdown()


def _answers(system: ActorSystem) -> bool:
    with contextlib.suppress(PeerLost):
        return bool(get(system.get_actor("worker/a").echo.remote(2), timeout=60) == 2)
    return False


def test_of_one_node_the_oldest_connection_makes_room(tmp_path: Path):
    """A stolen identity holds as many as the limit says, and nobody else's."""
    certificates(tmp_path)
    system = ActorSystem("server")
    cast.register(system)
    door = cast.door_of(f"tls:{tmp_path}:127.0.0.1:0")
    listener = system.serve(door, limits=LinkLimits(of_one_peer=2))
    other = ActorSystem("other")
    where = f"tls:{tmp_path}:127.0.0.1:{listener.port}"
    other.connect("worker", cast.transport_of(where, token="agent@node2"))
    assert get(other.get_actor("worker/a").echo.remote(1), timeout=60) == 1
    mine = []
    for _ in range(5):
        mine.append(ActorSystem("client"))
        mine[-1].connect("worker", cast.transport_of(where))
        assert get(mine[-1].get_actor("worker/a").echo.remote(1), timeout=60) == 1
    for one in mine:  # those that were closed connect anew, as soon as they have heard of it
        eventually(lambda one=one: _answers(one))  # type: ignore[misc]
    assert get(other.get_actor("worker/a").echo.remote(1), timeout=60) == 1
    eventually(lambda: listener.connections <= 3)
    for one in (*mine, other, system):
        one.shutdown()
