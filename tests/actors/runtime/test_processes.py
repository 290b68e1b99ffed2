"""Two processes, and everything that can go wrong between them."""

from __future__ import annotations

import contextlib
import random
import signal
import socket
import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.errors import OrbweaverError, Overloaded, PeerLost, ProtocolError
from actors.runtime import ActorSystem, LinkLimits, UnixTransport, get, wait, wire
from tests.actors.runtime import cast
from tests.actors.runtime.conftest import PATIENT, QUICK, Served, connected, eventually


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with Served(f"unix:{tmp_path}/s") as served:
        yield served


@pytest.fixture
def hasty(tmp_path: Path) -> Iterator[Served]:
    """One that does not wait long for a sign of life."""
    with Served(f"unix:{tmp_path}/s", QUICK) as served:
        yield served


@pytest.fixture
def client(served: Served) -> Iterator[ActorSystem]:
    system = connected(served)
    yield system
    system.shutdown()


class Raw:
    """A peer that speaks as a test wants it to."""

    def __init__(self, served: Served) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(120)
        self.socket.connect(served.address.removeprefix("unix:"))
        self.incoming = wire.Incoming()
        self.events: list[Any] = []

    def send(self, data: bytes) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # It was cut off already.
            self.socket.sendall(data)

    def until_closed(self) -> list[Any]:
        """Everything it says until it closes."""
        while True:
            try:
                data = self.socket.recv(65536)
            except ConnectionResetError:
                data = b""
            if not data:
                self.socket.close()
                return self.events
            self.events += self.incoming.receive(data)

    def next(self) -> Any:
        while not self.events:
            data = self.socket.recv(65536)
            assert data, "the peer closed the connection"
            self.events += self.incoming.receive(data)
        return self.events.pop(0)

    def greet(self) -> None:
        self.send(wire.hello("raw"))
        assert isinstance(self.next(), wire.Hello)


def test_a_killed_peer_loses_its_calls_and_is_reached_again_when_it_is_back(tmp_path: Path) -> None:
    where = f"unix:{tmp_path}/s"
    with Served(where) as first:
        client = connected(first)
        worker = client.get_actor("worker/a")
        get(worker.add.remote(1), timeout=60)
        held = [worker.hold.remote(str(number)) for number in range(100)]
        get(worker.echo.remote(), timeout=60)
        first.signal(signal.SIGKILL)
        for ref in held:
            with pytest.raises(PeerLost, match="unknown"):
                get(ref, timeout=60)
        first.process.wait()
        with pytest.raises(PeerLost, match=r"cannot be reached.*nothing was done"):
            get(worker.echo.remote(), timeout=60)
        eventually(lambda: _is_away(worker))
    # Its socket is still there, and nobody serves it: the next server takes its place.
    assert (tmp_path / "s").is_socket()
    with Served(where):

        def back() -> bool:
            with contextlib.suppress(PeerLost):
                return get(worker.all_seen.remote(), timeout=60) == []
            return False

        eventually(back)
        client.shutdown()


def _is_away(worker: Any) -> bool:
    """Whether it is told so at once, which it is for a moment after each attempt to reach it."""
    with pytest.raises(PeerLost) as lost:
        get(worker.echo.remote(), timeout=60)
    return "is away" in str(lost.value)


def test_a_stopped_peer_is_lost_within_the_bound_of_the_pings(served: Served) -> None:
    client = connected(served, **QUICK)
    worker = client.get_actor("worker/a")
    get(worker.echo.remote(), timeout=60)
    served.stand_still()
    with pytest.raises(PeerLost, match="has not answered for"):
        get(worker.echo.remote(), timeout=60)  # without pings: never
    served.signal(signal.SIGCONT)
    eventually(lambda: _answers(worker))
    client.shutdown()


def test_a_call_while_the_connection_ends_is_lost_and_not_overloaded(client: ActorSystem) -> None:
    """Only what is lost is asked elsewhere. The connection has ended here, and its peer is told so next."""
    worker = client.get_actor("worker/a")
    get(worker.echo.remote(), timeout=60)

    async def end_and_call() -> Any:
        (peer,) = client._peers
        assert peer._link is not None
        peer._link.abort(PeerLost("ended by the test"))
        return worker.echo.remote()

    ref = client._io.run(end_and_call(), timeout=60)
    with pytest.raises(PeerLost, match="is ending; nothing was done"):
        get(ref, timeout=60)
    eventually(lambda: _answers(worker))


def _answers(worker: Any) -> bool:
    with contextlib.suppress(PeerLost):
        return bool(get(worker.echo.remote("yes"), timeout=60) == "yes")
    return False


def test_a_silent_connection_stays_when_both_are_alive(hasty: Served) -> None:
    """Pings keep an idle connection: a deferred reply far beyond the ping timeout still arrives."""
    client = connected(hasty, **QUICK)
    seconds = 2 * QUICK["ping_timeout"]
    assert get(client.get_actor("worker/a").later.remote(seconds, "late"), timeout=60) == "late"
    client.shutdown()


def test_a_client_that_goes_away_costs_the_server_nothing(served: Served, client: ActorSystem) -> None:
    worker = client.get_actor("worker/a")
    other = connected(served)
    held = other.get_actor("worker/a").hold.remote("x")
    get(other.get_actor("worker/a").echo.remote(), timeout=60)
    other.shutdown()
    with pytest.raises(PeerLost):
        get(held, timeout=60)

    get(worker.let_go.remote("x", 1), timeout=60)
    assert get(worker.echo.remote(2), timeout=60) == 2


def test_a_server_drains_what_it_accepted_and_refuses_the_rest(served: Served, client: ActorSystem) -> None:
    worker = client.get_actor("worker/a")
    get(worker.echo.remote(), timeout=60)
    refs = [worker.later.remote(0.3, number) for number in range(50)]
    get(worker.echo.remote(), timeout=60)  # All of them are there.
    assert served.process.stdin is not None
    left, log = served.stop()

    assert get(refs, timeout=60) == list(range(50))
    assert left == []
    assert "Traceback" not in log
    with pytest.raises(PeerLost):
        get(worker.echo.remote(), timeout=60)


def test_kinds_that_the_listener_does_not_name_cannot_be_called(client: ActorSystem) -> None:
    with pytest.raises(ProtocolError, match="no actors of kind 'hidden' for its peers"):
        get(client.get_actor("hidden/a").echo.remote(), timeout=60)


def test_what_cannot_be_sent_fails_its_own_call_only(client: ActorSystem) -> None:
    worker = client.get_actor("worker/a")
    held = worker.hold.remote("x")
    for ref in (worker.echo.remote(object()), worker.unsendable.remote()):
        with pytest.raises(ProtocolError, match="wire_value"):
            get(ref, timeout=60)
    for ref in (worker.echo.remote(b"x" * (1 << 20)), worker.big.remote(1 << 20)):
        with pytest.raises(ProtocolError, match="the limit is 1048576"):
            get(ref, timeout=60)
    get(worker.let_go.remote("x", "still there"), timeout=60)

    assert get(held, timeout=60) == "still there"


def test_too_many_calls_in_flight_are_overloaded_at_once(served: Served) -> None:
    client = connected(served, in_flight=10)
    worker = client.get_actor("worker/a")
    refs = [worker.hold.remote(str(number)) for number in range(11)]
    ready, rest = wait(refs, timeout=60)

    assert isinstance(ready[0].error(), Overloaded)
    assert len(rest) == 10
    client.shutdown()


def test_a_peer_of_another_version_is_told_so(served: Served) -> None:
    raw = Raw(served)
    raw.send(wire.hello("future", lowest=7, highest=9))
    *_, last = raw.until_closed()

    assert isinstance(last, wire.GoodbyeReceived)
    assert isinstance(last.error, ProtocolError)
    assert "upgrade" in last.error.message


def test_a_server_of_another_version_fails_the_calls_with_the_reason(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{tmp_path}/s")
        listener.listen()
        client = ActorSystem("client")
        client.connect("worker", UnixTransport(tmp_path / "s"))
        ref = client.get_actor("worker/a").echo.remote()
        connection, _ = listener.accept()
        with connection:
            connection.sendall(wire.hello("future", lowest=7, highest=9))
            with pytest.raises(ProtocolError, match="upgrade"):
                get(ref, timeout=60)
        client.shutdown()


@pytest.mark.parametrize("highest", [1, wire.HIGHEST_VERSION, 9])
def test_a_client_knows_which_version_is_spoken_with_the_server(tmp_path: Path, highest: int) -> None:
    """What a server of a version before does not know is not asked of it."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{tmp_path}/s")
        listener.listen()
        client = ActorSystem("client")
        client.connect("worker", UnixTransport(tmp_path / "s"))
        assert client.speaks("worker") == 1, "nobody knows before it is connected"
        ref = client.get_actor("worker/a").echo.remote()
        connection, _ = listener.accept()
        with connection:
            connection.sendall(wire.hello("other", highest=highest) + wire.reply(1, "here"))
            assert get(ref, timeout=60) == "here"
        assert client.speaks("worker") == min(highest, wire.HIGHEST_VERSION)
        assert client.speaks("an actor of its own") == wire.HIGHEST_VERSION
        client.shutdown()


def test_a_server_that_never_says_hello_is_given_up(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{tmp_path}/s")
        listener.listen()
        client = ActorSystem("client")
        client.connect("worker", UnixTransport(tmp_path / "s"), LinkLimits(connect=0.2))
        with pytest.raises(PeerLost, match="did not say hello"):
            get(client.get_actor("worker/a").echo.remote(), timeout=60)
        client.shutdown()


def test_a_server_that_answers_what_was_not_asked_is_cut_off(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{tmp_path}/s")
        listener.listen()
        client = ActorSystem("client")
        client.connect("worker", UnixTransport(tmp_path / "s"))
        ref = client.get_actor("worker/a").echo.remote()
        connection, _ = listener.accept()
        with connection:
            connection.sendall(wire.hello("odd") + wire.reply(999, None))
            with pytest.raises(PeerLost, match="no call 999"):
                get(ref, timeout=60)
        client.shutdown()


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x00" * 64,
        b"\xff" * 64,
        struct.pack(">I", 1 << 30),
        wire.ping(1),
        wire.hello("raw") + struct.pack(">I", 5) + b"\xc1" * 5,
        wire.hello("raw") + wire.reply(1, None),
        wire.hello("raw") + wire.hello("raw"),
        wire.hello("raw") + wire._LENGTH.pack(100_001) + b"\x91" * 100_001,
        wire.hello("raw") + wire.call(1, "worker/a", "hold", ("q",), {}, None, None) * 2,
    ],
)
def test_garbage_gets_a_typed_error_and_a_closed_connection(
    served: Served, client: ActorSystem, garbage: bytes
) -> None:
    held = client.get_actor("worker/other").hold.remote("x")
    raw = Raw(served)
    raw.send(garbage)
    *_, last = raw.until_closed()

    assert isinstance(last, wire.GoodbyeReceived)
    assert isinstance(last.error, ProtocolError)
    get(client.get_actor("worker/other").let_go.remote("x", "undisturbed"), timeout=60)
    assert get(held, timeout=60) == "undisturbed"


def test_random_bytes_never_disturb_the_others_or_leave_a_traceback(
    served: Served, client: ActorSystem
) -> None:
    choice = random.Random(20)
    worker = client.get_actor("worker/a")
    for _ in range(60):
        raw = Raw(served)
        if choice.random() < 0.7:
            raw.send(wire.hello("raw"))
        frame = bytearray(wire.call(1, "worker/a", "echo", (cast.Point(1, 2), [1, (2,)]), {}, 1.0, None))
        for _ in range(choice.randrange(1, 5)):
            frame[choice.randrange(len(frame))] = choice.randrange(256)
        raw.send(bytes(frame) if choice.random() < 0.7 else choice.randbytes(choice.randrange(1, 500)))
        with contextlib.suppress(OSError):
            raw.socket.shutdown(socket.SHUT_WR)
        raw.until_closed()

        assert get(worker.echo.remote("alive"), timeout=60) == "alive"
    _, log = served.stop()
    assert "Traceback" not in log


def test_a_client_that_never_says_hello_is_told_and_closed(hasty: Served) -> None:
    *_, last = Raw(hasty).until_closed()

    assert isinstance(last, wire.GoodbyeReceived)
    assert isinstance(last.error, PeerLost)


def test_a_client_that_does_not_answer_pings_is_cut_off(hasty: Served) -> None:
    raw = Raw(hasty)
    raw.greet()
    events = raw.until_closed()

    assert any(isinstance(event, wire.PingReceived) for event in events)


def test_a_reader_that_does_not_read_is_cut_off_and_memory_stays_bounded(tmp_path: Path) -> None:
    with Served(f"unix:{tmp_path}/s", {**PATIENT, "output": 2 << 20}) as served:
        client = connected(served)
        raw = Raw(served)
        raw.greet()
        number = 0
        before = _resident(served)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError, TimeoutError):
            for number in range(200):
                raw.socket.sendall(wire.call(number, "worker/big", "big", (900_000,), {}, None, None))
                get(client.get_actor("worker/big").echo.remote(), timeout=60)
        with pytest.raises(OSError):
            # Cut off: what it was sent before may be read, and then the connection is gone.
            raw.until_closed()
            raw.socket.sendall(wire.ping(1))

        assert number < 199
        assert _resident(served) - before < 64 << 20
        assert get(client.get_actor("worker/big").echo.remote("alive"), timeout=60) == "alive"
        client.shutdown()


def _resident(served: Served) -> int:
    pages = int(Path(f"/proc/{served.process.pid}/statm").read_text().split()[1])
    return pages * 4096


def test_the_socket_is_for_its_owner_only(served: Served) -> None:
    assert stat.S_IMODE(Path(served.address.removeprefix("unix:")).stat().st_mode) == 0o600


def test_a_live_server_is_not_replaced(served: Served, client: ActorSystem) -> None:
    second = ActorSystem("second")
    with pytest.raises(OrbweaverError, match="served by a live process"):
        second.serve(cast.door_of(served.address))
    second.shutdown()

    assert get(client.get_actor("worker/a").echo.remote(1), timeout=60) == 1


def test_a_file_that_is_no_socket_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("precious")
    system = ActorSystem("x")
    with pytest.raises(OrbweaverError, match="is no socket"):
        system.serve(UnixTransport(tmp_path / "s"))
    with pytest.raises(OrbweaverError, match="cannot listen"):
        system.serve(UnixTransport(tmp_path / "missing" / "s"))
    with pytest.raises(OrbweaverError, match="too long"):
        system.serve(UnixTransport(tmp_path / ("x" * 120)))
    system.shutdown()

    assert (tmp_path / "s").read_text() == "precious"


def test_a_server_that_ends_takes_its_socket_with_it(tmp_path: Path) -> None:
    system = ActorSystem("x")
    cast.register(system)
    system.serve(UnixTransport(tmp_path / "s", mode=0o660))
    assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o660
    system.shutdown()

    assert list(tmp_path.iterdir()) == []
