"""Strangers at the door: bounded in number, time and memory, and nobody who may come in is kept out by them."""

from __future__ import annotations

import contextlib
import resource
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.cluster.credentials import SERVER_NAME, client_context, server_context
from actors.errors import PeerLost
from actors.runtime import ActorSystem, GateLimits, ObjectRef, TlsDoor, get
from actors.runtime.gate import source_of
from actors.runtime.identity import Introduction, PeerIdentity, introduction
from tests.actors.runtime import cast
from tests.actors.runtime.conftest import QUICK, Served, certificates, connected, eventually

SMALL = GateLimits(visitors=16, per_source=8, introduce=1.0, identify=2.0)


class Server:
    """The cast behind a door in this process."""

    def __init__(self, directory: Path, limits: GateLimits) -> None:
        self.system = ActorSystem("server")
        cast.register(self.system)
        door = cast.door_of(certificates(directory), limits)
        assert isinstance(door, TlsDoor)
        self.listener = self.system.serve(door)
        assert door.gate is not None
        self.gate = door.gate
        self.where = f"tls:{directory}:127.0.0.1:{self.listener.port}"
        self.trusted = (directory / "server.crt").read_text()

    def connect(self, host: str = "127.0.0.1") -> socket.socket:
        return socket.create_connection(
            ("127.0.0.1", self.listener.port), timeout=60, source_address=(host, 0)
        )

    def served(self, token: str = cast.TOKEN) -> bool:
        """Whether somebody who may comes in, after as many tries as it takes."""
        client = ActorSystem("client")
        client.connect("worker", cast.transport_of(self.where, token=token))
        try:
            return eventually(lambda: self._asked(client)) == "hello"
        finally:
            client.shutdown()

    @staticmethod
    def _asked(client: ActorSystem) -> object:
        try:
            return get(client.get_actor("worker/a").echo.remote("hello"), timeout=60)
        except PeerLost:
            time.sleep(0.05)
            return None


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path, SMALL)
    yield made
    made.system.shutdown()


def is_open(sock: socket.socket) -> bool:
    """Whether the other side has not closed it yet."""
    sock.setblocking(False)
    try:
        return sock.recv(1) != b""
    except BlockingIOError:
        return True
    except ConnectionError:
        return False


@pytest.mark.parametrize(
    "said",
    [b"", b"\x16", b"\x16\x03\x01\x40\x00" + b"\x01" * 9000],
    ids=["nothing", "a byte", "half a hello"],
)
def test_silent_visitors_are_bounded_and_make_room(server: Server, said: bytes):
    """Hundreds from one address: as many stay as the bound says, for as long as the time says, and who may comes in."""
    with contextlib.ExitStack() as stack:
        many = [stack.enter_context(server.connect()) for _ in range(300)]
        for sock in many:
            with contextlib.suppress(ConnectionError):
                sock.sendall(said)
        assert server.served()
        eventually(lambda: sum(map(is_open, many)) <= SMALL.per_source)
        assert server.gate.visitors <= SMALL.per_source
        eventually(lambda: not any(map(is_open, many)))
    eventually(lambda: server.gate.visitors == 0)
    assert server.gate.counts.dropped >= 299


def test_one_source_leaves_room_for_the_others(tmp_path: Path):
    server = Server(tmp_path, GateLimits(visitors=16, per_source=8, introduce=60.0))
    with contextlib.ExitStack() as stack:
        for number in range(40):
            stack.enter_context(server.connect("127.0.0.2"))
            if number % 4 == 0:
                stack.enter_context(server.connect("127.0.0.3"))
        eventually(lambda: server.gate.visitors == 16)
        assert server.served()
        assert server.gate.visitors <= 16
    server.system.shutdown()


def test_where_each_source_has_one_the_next_ones_wait(tmp_path: Path):
    """So it is when all agents come to a new leader: nobody is sent away who is about to be served."""
    server = Server(tmp_path, GateLimits(visitors=4, introduce=60.0))
    with contextlib.ExitStack() as stack:
        first = [stack.enter_context(server.connect(f"127.0.0.{20 + number}")) for number in range(4)]
        eventually(lambda: server.gate.visitors == 4)
        late = [stack.enter_context(server.connect(f"127.0.0.{30 + number}")) for number in range(4)]
        assert server.gate.counts.dropped == 0
        assert all(map(is_open, (*first, *late)))
        for sock in first:
            sock.close()
        eventually(lambda: server.gate.counts.dropped == 4 and server.gate.visitors == 4)
        assert all(map(is_open, late))
        assert server.served()  # in the place of one that has said nothing for a while
    server.system.shutdown()


def test_who_comes_in_while_strangers_rush_to_the_door(server: Server):
    """They connect as fast as they can, from several addresses, for as long as it takes."""
    over = threading.Event()

    def rush(host: str) -> None:
        kept: list[socket.socket] = []
        while not over.is_set():
            with contextlib.suppress(OSError):
                kept.append(server.connect(host))
            for sock in kept[:-20]:
                sock.close()
            kept = kept[-20:]
        for sock in kept:
            sock.close()

    rushing = [
        threading.Thread(target=rush, args=(f"127.0.0.{10 + number}",), daemon=True) for number in range(3)
    ]
    for thread in rushing:
        thread.start()
    try:
        for _ in range(3):
            assert server.served()
    finally:
        over.set()
        for thread in rushing:
            thread.join()


def test_one_who_shows_its_token_bit_by_bit_is_too_slow(server: Server, tmp_path: Path):
    with (
        server.connect() as raw,
        client_context(server.trusted).wrap_socket(raw, server_hostname=SERVER_NAME) as inside,
        pytest.raises((ConnectionError, ssl.SSLError)),
    ):
        for octet in introduction(cast.TOKEN + "x" * 8000):
            inside.send(bytes([octet]))
            time.sleep(0.02)
    eventually(lambda: server.gate.visitors == 0)


def test_nothing_is_read_while_it_is_found_out_who_that_is(tmp_path: Path):
    """A visitor may send what it likes: the bytes stay in the kernel, and the answer comes to who waits for it."""
    asked: list[ObjectRef[PeerIdentity]] = []

    def identify(token: str, source: str) -> ObjectRef[PeerIdentity]:
        asked.append(ObjectRef())
        return asked[-1]

    certificates(tmp_path)
    system = ActorSystem("server")
    cast.register(system)
    context = server_context((tmp_path / "server.crt").read_text(), (tmp_path / "server.key").read_text())
    listener = system.serve(TlsDoor("127.0.0.1", 0, lambda: context, identify))
    client = ActorSystem("client")
    client.connect("worker", cast.transport_of(f"tls:{tmp_path}:127.0.0.1:{listener.port}"))
    ref = client.get_actor("worker/a").echo.remote("early")
    eventually(lambda: asked)
    assert not ref.done()
    asked[0].complete(PeerIdentity("agent", "node1"))
    assert get(ref, timeout=60) == "early"
    client.shutdown()
    system.shutdown()


FLOOD = """
import resource, socket, sys
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
kept = []
for number in range(int(sys.argv[2])):
    try:
        sock = socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=60,
                                        source_address=(f"127.0.1.{1 + number % 200}", 0))
        sock.sendall(bytes.fromhex(sys.argv[3]))
        kept.append(sock)
    except OSError:
        pass
print(len(kept), flush=True)
sys.stdin.read()
"""


def test_memory_stays_bounded_whatever_number_of_connections_there_were(tmp_path: Path):
    """Two thousand from two hundred addresses, each with the beginning of a TLS hello: what is kept is what the bound says."""
    server = Server(tmp_path, GateLimits(visitors=64, introduce=60.0))
    assert server.served()
    before = resident()
    hello = client_hello()
    process = subprocess.Popen(
        [sys.executable, "-c", FLOOD, str(server.listener.port), "2000", hello.hex()],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        assert process.stdout is not None
        made = int(process.stdout.readline())
        eventually(lambda: server.gate.counts.dropped >= made - 64)
        grown = resident() - before
        assert server.gate.visitors <= 64
        assert server.served()
        process.communicate()
    server.system.shutdown()
    assert made > 1500
    assert grown < 32 << 20, f"{grown >> 10} KiB for {made} connections, 64 at a time"


def test_without_descriptors_strangers_make_room(tmp_path: Path):
    """A process that may open 64 files, and more strangers than that, from one address."""
    where = certificates(tmp_path)
    limited = ["sh", "-c", 'ulimit -n 64; exec "$@"', "sh"]
    with Served(where, QUICK, wrapper=limited) as served, contextlib.ExitStack() as stack:
        port = int(served.address.rpartition(":")[2])
        for _ in range(100):
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=60))
        client = connected(served, **QUICK)
        assert eventually(lambda: Server._asked(client)) == "hello"
        client.shutdown()
        left, log = served.stop()
        assert left == []
        assert "connections cannot be accepted" in log
        assert "Traceback" not in log


def client_hello() -> bytes:
    """What a client says first."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    side = context.wrap_bio(incoming, outgoing, server_hostname=SERVER_NAME)
    with contextlib.suppress(ssl.SSLWantReadError):
        side.do_handshake()
    return outgoing.read()


def resident() -> int:
    """Bytes of this process in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


@pytest.mark.parametrize(
    ("address", "source"),
    [
        ("10.6.0.7", "10.6.0.7"),
        ("::ffff:10.6.0.7", "10.6.0.7"),
        ("fd00:1:2:3:4:5:6:7", "fd00:1:2:3::"),
        ("fe80::1%eth0", "fe80::"),
        ("what", "what"),
    ],
)
def test_a_source_is_an_address_or_what_a_host_of_ipv6_chooses_from(address: str, source: str):
    assert source_of(address) == source


def test_what_is_shown_is_read_to_its_last_byte_and_no_further():
    data = introduction("a token") + b"what follows"
    reading = Introduction()
    at = 0
    while reading.wanted:
        piece = data[at : at + min(3, reading.wanted)]
        reading.feed(piece)
        at += len(piece)
    assert reading.token() == "a token"
    assert data[at:] == b"what follows"
    assert struct.unpack(">I", data[:4]) == (7,)
