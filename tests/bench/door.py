"""What the leader's door costs: an agent that comes in, a token that is reviewed, and strangers that rush to it.

`python -m tests.bench.door` prints one line for each figure. Calls of an agent that is connected are timed with and without
strangers in turn, in one run, so that only the ratio says something; CPU is that of the serving process. With an API
server's programs at hand, TokenReviews are asked of a real one.
"""

from __future__ import annotations

import contextlib
import json
import os
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from actors.cluster.certificates import make_certificate, utc_now
from actors.cluster.credentials import SERVER_NAME
from actors.cluster.leader_certificate import LIFE
from actors.cluster.leadership import AGENT, AUDIENCE, NAMESPACE
from actors.cluster.token_review import WORKERS, TokenReviewer
from actors.errors import OrbweaverError
from actors.runtime import ActorSystem, get
from actors.store.kubernetes.store import KubernetesStore
from cni.command.serving import raise_descriptor_limit
from tests.actors.runtime import cast
from tests.support.identity import agent_token
from tests.tools import kubernetes
from tests.tools.apiserver import ApiServer

AGENTS = 300
REVIEWS = 400
SECONDS = 6.0
STRANGERS = 9000

_SERVE = """
import sys
from actors.runtime import ActorSystem
from tests.actors.runtime import cast
from cni.command.serving import raise_descriptor_limit
raise_descriptor_limit()
system = ActorSystem("leader")
cast.register(system)
print(system.serve(cast.door_of(sys.argv[1])).address, flush=True)
sys.stdin.read()
"""

_RUSH = """
import resource, socket, sys, time
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
port, how, keep = int(sys.argv[1]), bytes.fromhex(sys.argv[2]), int(sys.argv[3])
kept, count = [], 0
print("ready", flush=True)
while True:
    source = f"127.0.1.{1 + count % 200}" if keep else "127.0.0.1"
    try:
        sock = socket.create_connection(("127.0.0.1", port), timeout=5, source_address=(source, 0))
        if how:
            sock.sendall(how)
        kept.append(sock)
    except OSError:
        pass
    count += 1
    if keep and count >= keep:
        print(count, flush=True)
        sys.stdin.read()
        break
    if not keep and len(kept) > 200:
        kept.pop(0).close()
"""


class Leader:
    """A process with a door and actors that echo."""

    def __init__(self, directory: Path) -> None:
        pair = make_certificate(utc_now(), LIFE)
        (directory / "server.crt").write_text(pair.certificate)
        (directory / "server.key").write_text(pair.key)
        self.directory = directory
        self.process = subprocess.Popen(
            [sys.executable, "-c", _SERVE, f"tls:{directory}:127.0.0.1:0"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )  # fmt: skip
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline().rpartition(":")[2])

    def agent(self, node: str) -> ActorSystem:
        system = ActorSystem(node)
        where = f"tls:{self.directory}:127.0.0.1:{self.port}"
        system.connect("worker", cast.transport_of(where, token=f"agent@{node}"))
        return system

    def cpu(self) -> float:
        return cpu_of(self.process.pid)

    def resident(self) -> int:
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1]) << 10
        raise AssertionError("the kernel does not tell")

    def stop(self) -> None:
        self.process.communicate()


def cpu_of(process: int) -> float:
    """Seconds of CPU that a process has used."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def calls(system: ActorSystem, seconds: float) -> list[float]:
    """Seconds of each call, one after the other."""
    worker = system.get_actor("worker/a")
    times, until = [], time.monotonic() + seconds
    while time.monotonic() < until:
        began = time.perf_counter()
        get(worker.echo.remote("x"), timeout=60)
        times.append(time.perf_counter() - began)
    return times


def coming_in(leader: Leader) -> dict[str, Any]:
    """One agent after the other: TLS, token, hello and a call."""
    before, began = leader.cpu(), time.monotonic()
    for number in range(AGENTS):
        system = leader.agent(f"node{number}")
        get(system.get_actor("worker/a").echo.remote("x"), timeout=60)
        system.shutdown()
    took = time.monotonic() - began
    return {
        "agents": AGENTS,
        "ms_cpu_of_leader_each": 1000 * (leader.cpu() - before) / AGENTS,
        "seconds": took,
    }


def rushed(leader: Leader, how: bytes, rushers: int) -> dict[str, Any]:
    """A connected agent's calls, in turns without strangers and with them."""
    agent = leader.agent("node1")
    calls(agent, 0.5)
    times: dict[bool, list[float]] = {True: [], False: []}
    came_in: list[float] = []
    for _ in range(2):
        times[False] += calls(agent, SECONDS / 2)
        with contextlib.ExitStack() as stack:
            for _ in range(rushers):
                process = subprocess.Popen(
                    [sys.executable, "-c", _RUSH, str(leader.port), how.hex(), "0"],
                    stdout=subprocess.PIPE, text=True,
                )  # fmt: skip
                stack.callback(process.wait)
                stack.callback(process.kill)
                assert process.stdout is not None
                process.stdout.readline()
            times[True] += calls(agent, SECONDS / 2)
            came_in.append(coming_in_after(leader))
    agent.shutdown()
    middle = {with_strangers: statistics.median(found) for with_strangers, found in times.items()}
    high = {with_strangers: _high(found) for with_strangers, found in times.items()}
    return {
        "p50_ms": [1000 * middle[False], 1000 * middle[True]],
        "p99_ms": [1000 * high[False], 1000 * high[True]],
        "p50_ratio": middle[True] / middle[False],
        "another_agent_comes_in_after_s": came_in,
    }


def coming_in_after(leader: Leader) -> float:
    """Seconds until an agent that tries again as often as it takes is served."""
    began = time.monotonic()
    while True:
        late = leader.agent("late")
        try:
            get(late.get_actor("worker/a").echo.remote("x"), timeout=10)
            return time.monotonic() - began
        except OrbweaverError:
            if time.monotonic() > began + 120:
                raise
        finally:
            late.shutdown()


def _high(times: Sequence[float]) -> float:
    return sorted(times)[int(len(times) * 0.99)]


def kept(leader: Leader, how: bytes) -> dict[str, Any]:
    """Memory that many connections from 200 addresses leave behind."""
    before = leader.resident()
    process = subprocess.Popen(
        [sys.executable, "-c", _RUSH, str(leader.port), how.hex(), str(STRANGERS)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.readline()
        grown = leader.resident() - before
        after = coming_in_after(leader)
        process.communicate()
    return {"connections": STRANGERS, "MiB_more": grown / 2**20, "an_agent_comes_in_after_s": after}


def client_hello() -> bytes:
    """What a client says first."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    side = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).wrap_bio(incoming, outgoing, server_hostname=SERVER_NAME)
    with contextlib.suppress(ssl.SSLWantReadError):
        side.do_handshake()
    return outgoing.read()


def reviews() -> dict[str, Any]:
    """TokenReviews of different tokens on a real API server, one at a time and as many as a leader asks at once."""
    server = ApiServer(kubernetes.assets())
    try:
        server.start()
        tokens = [agent_token(server.kubeconfig, f"node{number % 20}") for number in range(2 * REVIEWS)]
        store = KubernetesStore(server.access())
        assert server._server is not None
        reviewer = TokenReviewer(store, f"system:serviceaccount:{NAMESPACE}:{AGENT}", AUDIENCE)
        reviewer.start()

        def ask(token: str) -> float:
            began = time.perf_counter()
            get(reviewer.identify(token, "10.0.0.1"), timeout=60)
            return time.perf_counter() - began

        ask(tokens[0])
        before, mine = cpu_of(server._server.pid), time.process_time()
        singly = [ask(token) for token in tokens[1:REVIEWS]]
        used, own = cpu_of(server._server.pid) - before, time.process_time() - mine
        began = time.monotonic()
        with ThreadPoolExecutor(2 * WORKERS) as workers:
            list(workers.map(ask, tokens[REVIEWS:]))
        together = time.monotonic() - began
        reviewer.stop()
        store.close()
        return {
            "p50_ms": 1000 * statistics.median(singly),
            "ms_cpu_of_api_server_each": 1000 * used / (REVIEWS - 1),
            "ms_cpu_of_leader_each": 1000 * own / (REVIEWS - 1),
            "a_second_at_once": REVIEWS / together,
        }
    finally:
        server.stop()


def main() -> None:
    raise_descriptor_limit()
    hello = client_hello()
    with tempfile.TemporaryDirectory() as directory:
        cases: dict[str, Callable[[], dict[str, Any]]] = {"TokenReview": reviews}
        leader = Leader(Path(directory))
        cases |= {
            "an agent comes in": lambda: coming_in(leader),
            "2 strangers connect as fast as they can": lambda: rushed(leader, b"", 2),
            "2 strangers begin TLS as fast as they can": lambda: rushed(leader, hello, 2),
            "silent connections": lambda: kept(leader, b""),
            "connections with a TLS hello": lambda: kept(leader, hello),
        }
        print(json.dumps({"load": os.getloadavg()}), flush=True)
        wanted = sys.argv[1:] or list(cases)
        for name, case in cases.items():
            if name in wanted:
                print(json.dumps({"case": name, **case()}), flush=True)
        leader.stop()


if __name__ == "__main__":
    main()
