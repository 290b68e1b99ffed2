"""A real agent that is killed, drained, lied to and left without a disk; after each the checker."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from tests.support.agent_process import AgentProcess, logged
from tests.support.checker import Journal, equal, eventually, prove_records, prove_views
from tests.support.cni_client import Answer, add, ask, connect, delete, encode, read_answer
from tests.support.processes import Load, apply, prove, prove_nothing_lost, store_of
from tests.support.rig import pool
from tests.support.seed import fresh_seed

POOLS = (
    pool("v4", "10.6.0.0/16", "10.6.0.40-10.6.0.90"),
    pool("v6", "fd00::/64", "fd00::20-fd00::60"),
)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [fresh_seed()])
def test_killed_at_random_moments(tmp_path: Path, seed: int):
    """The seed is in the test's name. Whatever moment: acknowledged is recorded, and what is in doubt goes by DEL."""
    chance = random.Random(seed)
    apply(tmp_path, *POOLS)
    running = AgentProcess(tmp_path).start()
    try:
        with Load(running.socket, 6, seed) as load:
            for _ in range(16):
                load.wait_succeeded(chance.randrange(1, 40))
                running.kill()
                _nothing_lost(running.data, load.journal)
                running = AgentProcess(tmp_path).start()
        load.settle()
        prove(running.data, load.journal)
        assert load.unanswered > 0
    finally:
        running.kill()


@pytest.mark.parametrize("how", ["kill-before", "kill-after"])
@pytest.mark.parametrize("write", range(1, 7))
def test_killed_at_one_write(tmp_path: Path, how: str, write: int):
    """ADD writes two blocks, DEL two more; the runtime repeats the ADD (odd) or gives up with a DEL (even)."""
    apply(tmp_path, *POOLS)
    journal = Journal()
    lost = None
    with AgentProcess(tmp_path, faults=("--store", f"*/SpiderIPBlock/{write}:{how}")) as running:
        steps = [(add, "a"), (add, "b"), (delete, "a"), (add, "c")]
        for step, container in steps:
            if step(running.socket, journal, (container, "eth0")) is None:
                lost = (container, "eth0")
                break
        assert lost is not None
        assert running.wait() == -signal.SIGKILL
    _nothing_lost(running.data, journal)
    with AgentProcess(tmp_path) as running:
        again = add if write % 2 and lost != ("a", "eth0") else delete
        answer = again(running.socket, journal, lost)
        assert answer is not None
        assert answer.status == 0, answer.output
        with store_of(running.data) as store:
            eventually(lambda: prove_records(store, journal))


@pytest.mark.parametrize("number", range(1, 4))
def test_a_lost_reply_at_each_write_of_a_real_agent(tmp_path: Path, number: int):
    apply(tmp_path, *POOLS)
    journal = Journal()
    with AgentProcess(
        tmp_path, faults=("--store", f"*/SpiderIPBlock/{number}:after *:delay=0.001")
    ) as running:
        for container in ("a", "b"):
            answer = add(running.socket, journal, (container, "eth0"))
            assert answer is not None
            assert answer.status == 0, answer.output
        delete(running.socket, journal, ("a", "eth0"))
        prove(running.data, journal)


def test_garbage_and_clients_that_hang_up_under_load(tmp_path: Path):
    apply(tmp_path, *POOLS)
    over = threading.Event()

    def rubbish(path: Path) -> None:
        chance = random.Random(7)
        whole = encode("ADD", "rubbish")
        while not over.wait(0.002):
            pieces = [
                chance.randbytes(chance.randrange(300)),
                whole[: chance.randrange(8)],
                b"OWC1" + chance.randbytes(40),
            ]
            try:
                with connect(path) as client:
                    client.sendall(chance.choice(pieces))
            except OSError:
                continue

    with AgentProcess(tmp_path) as running:
        noise = threading.Thread(target=rubbish, args=(running.socket,), daemon=True)
        noise.start()
        try:
            with Load(running.socket, 6, 3, hang_up=0.2) as load:
                load.wait(lambda: load.hung_up > 20 and load.answered > 200, "the load stands still")
        finally:
            over.set()
            noise.join()
        load.settle()
        prove(running.data, load.journal)
        assert "Traceback" not in (tmp_path / "agent.log").read_text()


def test_what_hung_up_clients_asked_for_is_given_back_without_a_del(tmp_path: Path):
    apply(tmp_path, *POOLS)
    journal = Journal()
    with AgentProcess(tmp_path, faults=("--store", "*/SpiderIPBlock/*:delay=0.05")) as running:
        for number in range(20):
            with connect(running.socket) as client:
                client.sendall(encode("ADD", f"gone{number}"))
        add(running.socket, journal, ("stays", "eth0"))

        prove(running.data, journal)


def test_sigterm_lets_accepted_requests_finish(tmp_path: Path):
    apply(tmp_path, *POOLS)
    slow = ("--store", "*/SpiderIPBlock/*:delay=0.2")
    with AgentProcess(tmp_path, "--log-level", "debug", faults=slow) as running:
        journal = Journal()
        clients = {(f"c{number}", "eth0"): connect(running.socket) for number in range(8)}
        for place, client in clients.items():
            client.sendall(encode("ADD", *place))
            journal.unsure(place)
        # All are read: what is not complete at SIGTERM may be dropped.
        eventually(lambda: equal(len({one["request"] for one in logged(running.log, "decision")}), 8))
        running.signal(signal.SIGTERM)
        for place, client in clients.items():
            answer = read_answer(client)
            assert answer.status == 0, answer.output
            journal.acknowledged(place, answer.addresses)
            client.close()
        assert running.wait() == 0, running.said()
        assert not running.socket.exists()
    with AgentProcess(tmp_path) as running:
        prove(running.data, journal)


def test_sigterm_under_load(tmp_path: Path):
    apply(tmp_path, *POOLS)
    running = AgentProcess(tmp_path).start()
    try:
        with Load(running.socket, 6, 5) as load:
            for _ in range(3):
                load.wait_succeeded(20)
                assert running.stop() == 0, running.said()
                _nothing_lost(running.data, load.journal)
                running = AgentProcess(tmp_path).start()
        load.settle()
        prove(running.data, load.journal)
    finally:
        running.kill()


def _nothing_lost(path: Path, journal: Journal) -> None:
    with store_of(path) as store:
        prove_nothing_lost(store, journal)


def _can_unshare() -> bool:
    tried = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "mount", "-t", "tmpfs", "tmpfs", "/mnt"],
        capture_output=True,
        check=False,
    )
    return tried.returncode == 0


@pytest.mark.root
def test_a_full_disk_loses_nothing_and_heals(tmp_path: Path):
    """A tmpfs of 2 MiB in a mount namespace of its own, which is seen from here through /proc/PID/root."""
    if shutil.which("unshare") is None or not _can_unshare():
        pytest.skip("the full disk needs root, or rights to make a mount namespace with a tmpfs in it")
    apply(tmp_path, *POOLS)
    data, seed, copy = tmp_path / "data", tmp_path / "seed", tmp_path / "copy"
    data.rename(seed)
    data.mkdir()
    mount = f'mount -t tmpfs -o size=2m tmpfs "{data}" && cp "{seed}"/* "{data}" && exec "$@"'
    wrapper = ("unshare", "--mount", "--propagation", "private", "sh", "-c", mount, "sh")
    with AgentProcess(tmp_path, "--timeout", "1", wrapper=wrapper) as running:
        inside = Path(f"/proc/{running.pid}/root") / data.relative_to("/")

        def copied() -> Path:
            # SQLite resolves links, and this one leads back to our own mounts. No write is under way meanwhile.
            shutil.rmtree(copy, ignore_errors=True)
            copy.mkdir()
            for name in ("orbweaver.db", "orbweaver.db-wal"):
                if (inside / name).exists():
                    shutil.copy(inside / name, copy)
            return copy / "orbweaver.db"

        journal = Journal()
        for number in range(5):
            _added(running, journal, f"before{number}")
        with (
            (inside / "ballast").open("wb", buffering=0) as file,
            pytest.raises(OSError, match="No space left"),
        ):
            while file.write(b"\0" * 4096):
                pass
        assert os.statvfs(inside).f_bavail == 0

        refused = 0
        for number in range(60):
            place = (f"full{number}", "eth0")
            answer = add(running.socket, journal, place)  # what the file still has room for goes on
            if _status(answer):
                assert answer is not None
                assert answer.json["code"] == 11, answer.json
                refused += 1
            elif number % 2:
                delete(running.socket, journal, place)
            if refused == 3:
                break
        assert refused, "the disk was full, and nobody was refused"
        eventually(lambda: equal(_unready(running), 50))
        # A view may be written while the files are copied.
        eventually(lambda: _nothing_lost(copied(), journal))
        (inside / "ballast").unlink()
        eventually(lambda: equal(_unready(running), 0))  # it finds out without a write

        def healed() -> None:
            for place in list(journal.doubtful):
                delete(running.socket, journal, place)
            assert not journal.doubtful

        eventually(healed)
        _added(running, journal, "after")

        def proved() -> None:
            with store_of(copied()) as store:
                prove_records(store, journal)
                prove_views(store)

        eventually(proved)


@pytest.mark.parametrize("lost", ["orbweaver.db", "."])
def test_a_store_that_is_removed_takes_no_more_addresses(tmp_path: Path, lost: str):
    """An ADD that was recorded in a file without a name would be forgotten with the process."""
    apply(tmp_path, *POOLS)
    journal = Journal()
    with AgentProcess(tmp_path, "--timeout", "5") as running:
        _added(running, journal, "before")
        gone, aside = running.data.parent / lost, tmp_path / "aside"
        gone.rename(aside)

        def told() -> None:
            """Before its time is over, in which it is tried again; a busy agent may say no more than that it is."""
            refused = ask(running.socket, encode("ADD", "lost"))
            assert (refused.status, refused.json["code"]) == (1, 11)
            assert "was removed while it was in use" in json.dumps(refused.json)

        eventually(told)
        eventually(lambda: equal(_unready(running), 50))
        aside.rename(gone)
        eventually(lambda: equal(_unready(running), 0))
        _added(running, journal, "after")
        prove(running.data, journal)


def _added(running: AgentProcess, journal: Journal, container: str) -> None:
    """ADD, until it is answered within the time that an agent here has, as a runtime repeats it."""
    eventually(lambda: equal(_status(add(running.socket, journal, (container, "eth0"))), 0))


def _unready(running: AgentProcess) -> int:
    """The code of STATUS, 0 when ADDs can be served."""
    answer = ask(running.socket, encode("STATUS"))
    return int(answer.json["code"]) if answer.status else 0


def _status(answer: Answer | None) -> int:
    return -1 if answer is None else answer.status
