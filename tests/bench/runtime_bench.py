"""Figures of the actor runtime beside its peers: pykka alone, and a bare msgpack round trip over a Unix socket.

`measure` returns them; run as a script it prints a table. Everything is timed in one run, because the machines that
run this differ more from each other than what is compared does. Peers and ours take turns, and the best of the
rounds counts for throughput, so that a neighbour on the machine hurts both alike.
"""

from __future__ import annotations

import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import pykka

from actors.runtime import Actor, ActorSystem, ObjectRef, UnixTransport, get, message

CALLS = 5000
CALLERS = 32
IN_FLIGHT = 256
ROUNDS = 3


class Echo(Actor):
    @message
    def echo(self, value: Any) -> Any:
        return value


class PykkaEcho(pykka.ThreadingActor):
    use_daemon_thread = True

    def on_receive(self, message: Any) -> Any:
        return message


Times = list[float]


def _sequential(call: Callable[[int], object], calls: int = CALLS) -> Times:
    """Seconds of each call, one after the other."""
    times = []
    clock = time.perf_counter
    for number in range(calls):
        began = clock()
        call(number)
        times.append(clock() - began)
    return times


def _callers(
    call: Callable[[int], object], callers: int = CALLERS, calls: int = CALLS
) -> tuple[Times, float]:
    """The same from many threads: seconds of each call, and of all."""
    times: list[Times] = []
    began = time.perf_counter()
    threads = [
        threading.Thread(target=lambda: times.append(_sequential(call, calls // callers)), daemon=True)
        for _ in range(callers)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [one for part in times for one in part], time.perf_counter() - began


def _pipelined(
    send: Callable[[int], ObjectRef[Any]], window: int, calls: int = 4 * CALLS
) -> tuple[Times, float]:
    """One thread that keeps `window` calls in flight."""
    times: Times = []
    clock = time.perf_counter
    space = threading.Semaphore(window)
    last = threading.Event()

    def sent_at(began: float) -> Callable[[ObjectRef[Any]], None]:
        def done(_ref: ObjectRef[Any]) -> None:
            times.append(clock() - began)
            space.release()
            if len(times) == calls:
                last.set()

        return done

    started = clock()
    for number in range(calls):
        space.acquire()
        send(number).subscribe(sent_at(clock()))
    if not last.wait(60):
        raise RuntimeError(f"only {len(times)} of {calls} calls were answered")
    return times, clock() - started


def _figures(times: Times, seconds: float | None = None) -> dict[str, float]:
    cuts = statistics.quantiles(times, n=100)
    return {
        "calls_per_second": round(len(times) / (sum(times) if seconds is None else seconds)),
        "p50_us": round(cuts[49] * 1e6, 1),
        "p99_us": round(cuts[98] * 1e6, 1),
    }


def _bare_server(path: str) -> None:
    """Answers each frame with itself: what any protocol over this socket has to pay at least."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        print("ready", flush=True)
        connection, _ = listener.accept()
        while frame := _read(connection):
            _write(connection, frame)


def _write(connection: socket.socket, value: Any) -> None:
    body = msgpack.packb(value)
    connection.sendall(struct.pack(">I", len(body)) + body)


def _read(connection: socket.socket) -> Any:
    head = connection.recv(4)
    return msgpack.unpackb(connection.recv(*struct.unpack(">I", head))) if head else None


def _actor_server(path: str) -> None:
    system = ActorSystem("bench-server")
    system.register("echo", Echo, mailbox=100_000)
    system.serve(UnixTransport(path))
    print("ready", flush=True)
    sys.stdin.read()
    system.shutdown()


def _serve(what: str, path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, __file__, what, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    if process.stdout is None or process.stdout.readline().strip() != "ready":
        raise RuntimeError(f"the {what} process did not start")
    return process


def _round(handle: Any, remote: Any, bare: socket.socket, asked: Any) -> dict[str, dict[str, float]]:
    def bare_call(number: int) -> None:
        _write(bare, [2, number, "echo/a", "echo", [number], {}, None, None])
        _read(bare)

    return {
        "in process, 1 caller": _figures(_sequential(lambda number: get(handle.echo.remote(number)))),
        "pykka ask, 1 caller": _figures(_sequential(asked.ask)),
        f"in process, {CALLERS} callers": _figures(*_callers(lambda number: get(handle.echo.remote(number)))),
        f"pykka ask, {CALLERS} callers": _figures(*_callers(asked.ask)),
        f"in process, {CALLERS} in flight": _figures(*_pipelined(handle.echo.remote, CALLERS)),
        "Unix socket, 1 caller": _figures(
            _sequential(lambda number: get(remote.echo.remote(number)), CALLS // 2)
        ),
        "bare msgpack socket, 1 caller": _figures(_sequential(bare_call)),
        f"Unix socket, {IN_FLIGHT} in flight": _figures(*_pipelined(remote.echo.remote, IN_FLIGHT)),
    }


def measure(rounds: int = ROUNDS) -> dict[str, dict[str, float]]:
    """Calls per second and latency (microseconds) by what was called how; the best round of each."""
    best: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        processes = [_serve("--bare", place / "bare"), _serve("--actors", place / "actors")]
        system = ActorSystem("bench")
        asked = PykkaEcho.start()
        bare = socket.socket(socket.AF_UNIX)
        try:
            bare.connect(str(place / "bare"))
            system.register("local", Echo, mailbox=100_000)
            system.connect("echo", UnixTransport(place / "actors"))
            handle, remote = system.get_actor("local/a"), system.get_actor("echo/a")
            get(handle.echo.remote(0)), get(remote.echo.remote(0), timeout=10)
            for _ in range(rounds):
                for name, figures in _round(handle, remote, bare, asked).items():
                    if name not in best or figures["calls_per_second"] > best[name]["calls_per_second"]:
                        best[name] = figures
        finally:
            bare.close()
            asked.stop()
            system.shutdown()
            for process in processes:
                process.communicate(timeout=10)
    return best


def table(figures: dict[str, dict[str, float]]) -> str:
    """For people."""
    lines = [f"{'actor runtime':34}{'calls/s':>10}{'p50 µs':>10}{'p99 µs':>10}"]
    lines += [
        f"{name:34}{row['calls_per_second']:>10,.0f}{row['p50_us']:>10,.1f}{row['p99_us']:>10,.1f}"
        for name, row in figures.items()
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    if len(sys.argv) == 3:
        {"--bare": _bare_server, "--actors": _actor_server}[sys.argv[1]](sys.argv[2])
    else:
        print(table(measure()))
