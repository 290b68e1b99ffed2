"""The embedded store under the contract, and its own: the file, processes, crashes, a full disk."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.errors import InvalidObject, NotFound, StoreUnavailable, WatchExpired
from actors.store.sqlite import file as sqlite_file
from actors.store.sqlite import writer as sqlite_writer
from actors.store.sqlite.store import SQLiteStore
from tests.actors.store.contract_suite import (
    Follower,
    StoreContract,
    follow,
    fresh,
    pool,
    version_of,
    with_meta,
)

__all__ = ["follow"]

ROOT = Path(__file__).resolve().parents[4]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLiteStore]:
    opened = SQLiteStore(tmp_path / "state" / "store.db")
    yield opened
    opened.close()


def child(code: str, *arguments: object, wrap: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    """Another process with the store imported; it talks on its pipes."""
    head = "import sys, json, time, os\nfrom pathlib import Path\nfrom actors.store.sqlite.store import SQLiteStore\n"
    head += "from tests.actors.store.contract_suite import pool, with_meta\n"
    return subprocess.Popen(
        [*wrap, sys.executable, "-P", "-c", head + textwrap.dedent(code), *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([*filter(None, sys.path), str(ROOT)])},
    )


def finished(process: subprocess.Popen[str], timeout: float = 240.0) -> str:
    out, _ = process.communicate(timeout=timeout)
    assert process.returncode == 0, out
    return out


class TestContract(StoreContract):
    pass


# -- the file
# ---------------------------------------------------------------------------------------------------


def test_file_and_directory_are_the_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "new" / "store.db"
    store = SQLiteStore(path)
    store.create(pool(fresh("mode")))

    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    modes = {entry.name: stat.S_IMODE(entry.stat().st_mode) for entry in path.parent.iterdir()}
    assert modes == {"store.db": 0o600, "store.db-wal": 0o600, "store.db-shm": 0o600}
    store.close()


def test_everything_is_there_after_reopening(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    first = SQLiteStore(path)
    made = first.create(pool("kept"))
    version = first.list("SpiderIPPool").version
    first.close()
    second = SQLiteStore(path)

    assert second.get("SpiderIPPool", "kept") == made
    assert second.list("SpiderIPPool").version == version
    assert int(version_of(second.create(pool("next")))) == int(version) + 1
    second.close()


def open_and_list(path: Path) -> None:
    store = SQLiteStore(path)
    try:
        store.list("SpiderIPPool")
    finally:
        store.close()


@pytest.mark.parametrize("mode", [0o666, 0o640, 0o604])
def test_an_existing_file_is_closed_to_others(tmp_path: Path, mode: int, caplog: pytest.LogCaptureFixture):
    path = tmp_path / "store.db"
    first = SQLiteStore(path)
    first.create(pool("p"))
    path.chmod(mode)
    path.with_name("store.db-wal").chmod(mode)

    second = SQLiteStore(path)

    assert {stat.S_IMODE(entry.stat().st_mode) for entry in tmp_path.iterdir()} == {0o600}
    assert "others could read or write" in caplog.text
    second.close()
    first.close()


def test_a_link_that_leads_nowhere_is_not_followed(tmp_path: Path):
    path, target = tmp_path / "store.db", tmp_path / "elsewhere"
    path.symlink_to(target)

    with pytest.raises(StoreUnavailable, match=f"a link to {target}"):
        SQLiteStore(path)
    assert not target.exists()

    SQLiteStore(target).close()
    open_and_list(path)  # one that leads to a store does


def test_a_file_of_no_bytes_is_a_loss_and_not_a_new_store(tmp_path: Path):
    path = tmp_path / "store.db"
    path.touch()

    with pytest.raises(StoreUnavailable, match=r"empty, which a store never is.*restore a copy, or remove"):
        SQLiteStore(path)
    assert path.stat().st_size == 0


def test_a_log_without_its_file_is_a_loss_and_not_a_new_store(tmp_path: Path):
    path, log = tmp_path / "store.db", tmp_path / "store.db-wal"
    log.write_bytes(b"what was committed")

    with pytest.raises(StoreUnavailable, match="was lost"):
        SQLiteStore(path)
    assert log.read_bytes() == b"what was committed"
    assert not path.exists()


@pytest.mark.parametrize("how", ["unlinked", "directory", "replaced"])
def test_a_file_that_is_taken_away_takes_no_more_writes_until_it_is_back(tmp_path: Path, how: str):
    directory, aside = tmp_path / "data", tmp_path / "aside"
    path = directory / "store.db"
    store = SQLiteStore(path)
    store.create(pool("before"))
    assert store.trouble() is None
    if how == "unlinked":
        os.link(path, aside)
        path.unlink()
    elif how == "directory":
        directory.rename(aside)
    else:
        other = tmp_path / "other.db"
        SQLiteStore(other).close()
        path.rename(aside)
        other.rename(path)

    with pytest.raises(StoreUnavailable, match=f"{path} was (removed|replaced)") as caught:
        store.create(pool("lost"))

    assert not caught.value.maybe_written
    assert str(path) in (store.trouble() or "")
    if how == "directory":
        aside.rename(directory)
    else:
        aside.rename(path)
    assert store.trouble() is None
    store.create(pool("after"))
    store.close()


@pytest.mark.parametrize("damage", ["garbage", "torn"])
def test_a_damaged_file_is_named_with_a_remedy(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "store.db"
    store = SQLiteStore(path)
    for number in range(50):
        store.create(pool(f"p-{number}"))
    store.close()
    with path.open("r+b") as file:
        if damage == "garbage":
            file.write(b"\x00not a database\xff" * 40)
        else:  # all but the header's page is lost
            file.seek(4096)
            file.write(os.urandom(path.stat().st_size - 4096))

    with pytest.raises(StoreUnavailable, match="aside") as caught:
        open_and_list(path)

    assert str(path) in str(caught.value)
    assert not caught.value.maybe_written


def test_a_newer_schema_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    SQLiteStore(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version=99")
    connection.close()
    before = path.read_bytes()

    with pytest.raises(StoreUnavailable, match=r"newer Orbweaver \(schema 99"):
        SQLiteStore(path)

    assert path.read_bytes() == before


def test_somebody_elses_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "theirs.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE theirs (a)")
    connection.close()
    before = path.read_bytes()

    with pytest.raises(StoreUnavailable, match="not one of Orbweaver's"):
        SQLiteStore(path)

    assert path.read_bytes() == before


def test_a_path_that_cannot_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(StoreUnavailable, match="check the path"):
        SQLiteStore(tmp_path / "file" / "store.db")


def test_an_object_beyond_the_limit_is_refused_with_its_size(store: SQLiteStore) -> None:
    with pytest.raises(InvalidObject, match=r"is 16\d{5} bytes.*1\.5 MiB"):
        store.create(with_meta(pool(fresh("big")), annotations={"a": "x" * 1_600_000}))


def test_after_close_every_call_is_unavailable(store: SQLiteStore, tmp_path: Path) -> None:
    made = store.create(pool(fresh("closed")))
    follower = Follower(store, "SpiderIPPool", version_of(made))

    store.close()

    assert follower.ended()
    for call in (
        lambda: store.get("SpiderIPPool", "a"),
        lambda: store.create(pool("a")),
        lambda: store.watch("SpiderIPPool", "0"),
    ):
        with pytest.raises(StoreUnavailable, match="closed"):
            call()


# -- the group commit
# -------------------------------------------------------------------------------------------


def test_many_threads_share_commits(store: SQLiteStore) -> None:
    """32 threads, each updating an object of its own: far fewer transactions than updates."""
    objects = [store.create(pool(fresh("group"))) for _ in range(32)]
    before = store.commits
    barrier = threading.Barrier(32)

    def work(obj: dict[str, Any]) -> None:
        barrier.wait()
        for number in range(20):
            obj = store.update(with_meta(obj, labels={"n": str(number)}))

    threads = [threading.Thread(target=work, args=(obj,), daemon=True) for obj in objects]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    for obj in objects:
        assert store.get("SpiderIPPool", obj["metadata"]["name"])["metadata"]["labels"] == {"n": "19"}
    assert store.commits - before < 32 * 20 / 3


def test_writes_of_one_batch_see_each_other(store: SQLiteStore, tmp_path: Path) -> None:
    """Held up by another process's lock, eight writes of one object gather; one of them wins the swap."""
    made = store.create(pool(fresh("batch")))
    results: list[str] = []
    blocker = sqlite3.connect(store.path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    before = store.commits

    def swap(number: int) -> None:
        try:
            store.update(with_meta(made, labels={"by": str(number)}))
            results.append("won")
        except Exception as exc:
            results.append(type(exc).__name__)

    threads = [threading.Thread(target=swap, args=(number,), daemon=True) for number in range(8)]
    for thread in threads:
        thread.start()
    until(lambda: len(store._writer._queue) == 8)
    blocker.execute("ROLLBACK")
    blocker.close()
    for thread in threads:
        thread.join()

    assert sorted(results) == ["Conflict"] * 7 + ["won"]
    assert store.commits == before + 1


def test_a_write_gives_up_in_time_while_another_process_holds_the_lock(store: SQLiteStore) -> None:
    made = store.create(pool(fresh("locked")))
    blocker = sqlite3.connect(store.path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")

    began = time.monotonic()
    with pytest.raises(StoreUnavailable, match="write lock") as caught:
        store.update(with_meta(made, labels={"a": "b"}), timeout=0.7)
    # Ten seconds are what a write has if nothing else is said.
    assert 0.6 < time.monotonic() - began < 9
    assert not caught.value.maybe_written

    assert store.get("SpiderIPPool", made["metadata"]["name"]) == made  # readers do not wait
    blocker.execute("ROLLBACK")
    blocker.close()
    changed = store.update(with_meta(made, labels={"c": "d"}))
    assert changed["metadata"]["labels"] == {"c": "d"}


def test_threads_that_end_leave_no_connections(store: SQLiteStore) -> None:
    made = store.create(pool(fresh("threads")))

    def read() -> None:
        store.get("SpiderIPPool", made["metadata"]["name"])

    for _ in range(30):
        threads = [threading.Thread(target=read, daemon=True) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    links = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    assert 1 <= [str(link.readlink()) for link in links].count(str(store.path)) <= 8 + 3


# -- the change log
# ---------------------------------------------------------------------------------------------


def test_a_watch_from_before_the_log_is_expired(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "store.db", keep=40)
    obj = store.create(pool("trimmed"))
    first = version_of(obj)
    for number in range(100):
        obj = store.update(with_meta(obj, labels={"n": str(number)}))

    with pytest.raises(WatchExpired, match="list again"):
        next(iter(store.watch("SpiderIPPool", first)))
    recent = store.watch("SpiderIPPool", str(int(version_of(obj)) - 20))
    assert next(iter(recent)).object["metadata"]["labels"] == {"n": "80"}
    store.close()


def test_the_log_is_bounded_in_bytes_too(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    store = SQLiteStore(path, keep_bytes=1_000_000)
    obj = store.create(pool("large"))
    for number in range(40):
        obj = store.update(with_meta(obj, annotations={"a": f"{number}" * 50_000}))
    store.close()

    connection = sqlite3.connect(path)
    (logged,) = connection.execute("SELECT sum(length(object)) FROM changes").fetchone()
    connection.close()
    assert 100_000 <= logged <= 1_200_000


@pytest.mark.parametrize("since", ["", "x", "-1", "999999999"])
def test_a_version_of_no_such_file_is_expired(store: SQLiteStore, since: str) -> None:
    with pytest.raises(WatchExpired):
        next(iter(store.watch("SpiderIPPool", since)))


def test_a_quiet_watch_outlives_trimming_and_gives_bookmarks(tmp_path: Path) -> None:
    """Another kind fills the log over and over; the watch of a quiet kind neither expires nor misses."""
    store = SQLiteStore(tmp_path / "store.db", keep=40, bookmark=0.05)
    follower = Follower(store, "SpiderReservedIP", store.list("SpiderReservedIP").version)
    obj = store.create(pool("noisy"))
    for number in range(200):
        obj = store.update(with_meta(obj, labels={"n": str(number)}))
        if number % 20 == 19:  # half of what the log keeps: a watch that nobody reads would rightly expire
            newest = version_of(obj)
            follower.until(
                lambda newest=newest: (
                    bool(follower.events)  # type: ignore[misc]
                    and version_of(follower.events[-1].object) == newest
                )
            )
    assert {event.type for event in follower.events} == {"BOOKMARK"}
    store.close()
    assert follower.ended()


# -- several processes
# ------------------------------------------------------------------------------------------


def test_two_processes_lose_no_swap(store: SQLiteStore) -> None:
    store.create(with_meta(pool("shared"), labels={"n": "0"}))
    code = """
        from actors.errors import Conflict
        store, done = SQLiteStore(Path(sys.argv[1])), 0
        while done < 100:
            held = store.get("SpiderIPPool", "shared")
            try:
                store.update(with_meta(held, labels={"n": str(int(held["metadata"]["labels"]["n"]) + 1)}))
                done += 1
            except Conflict:
                pass
        store.close()
    """
    others = [child(code, store.path) for _ in range(2)]
    for other in others:
        finished(other)

    assert store.get("SpiderIPPool", "shared")["metadata"]["labels"] == {"n": "200"}


def test_a_watch_sees_another_processes_write_soon(store: SQLiteStore) -> None:
    follower = Follower(store, "SpiderIPPool", store.list("SpiderIPPool").version)
    other = child(
        """
        store = SQLiteStore(Path(sys.argv[1]))
        store.create(pool("from-afar"))
        """,
        store.path,
    )
    finished(other)
    follower.until(lambda: bool(follower.of("from-afar")))

    assert follower.of("from-afar")[0].type == "ADDED"
    follower.watch.close()


def test_many_processes_may_open_a_new_file_at_once(tmp_path: Path) -> None:
    code = """
        store = SQLiteStore(Path(sys.argv[1]))
        store.create(pool(sys.argv[2]))
        store.close()
    """
    others = [child(code, tmp_path / "store.db", f"p-{number}") for number in range(6)]
    for other in others:
        finished(other)
    store = SQLiteStore(tmp_path / "store.db")

    assert [item["metadata"]["name"] for item in store.list("SpiderIPPool").items] == [
        f"p-{n}" for n in range(6)
    ]
    store.close()


# -- crashes
# ----------------------------------------------------------------------------------------------------

WRITER = """
    import threading
    store = SQLiteStore(Path(sys.argv[1]))
    lock = threading.Lock()
    def work(name):
        try:
            obj = store.get("SpiderIPPool", name)
        except Exception:
            obj = store.create(with_meta(pool(name), labels={"n": "0"}))
        while True:
            obj = store.update(with_meta(obj, labels={"n": str(int(obj["metadata"]["labels"]["n"]) + 1)}))
            with lock:
                os.write(1, (json.dumps([name, int(obj["metadata"]["labels"]["n"])]) + "\\n").encode())
    for number in range(3):
        threading.Thread(target=work, args=(f"p-{number}",)).start()
"""


def test_an_acknowledged_write_survives_kill_9(tmp_path: Path) -> None:
    """A process writes with three threads, says what was acknowledged, and is killed; twenty times."""
    path = tmp_path / "store.db"
    moments = random.Random(20)
    acknowledged: dict[str, int] = {}
    for _ in range(20):
        with child(WRITER, path) as process:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(moments.randrange(1, 30))]
            killer = threading.Timer(moments.uniform(0.0, 0.02), process.kill)
            killer.start()
            lines += process.stdout.read().splitlines()
            killer.join()
        assert process.returncode == -signal.SIGKILL
        for line in filter(str.strip, lines):
            name, number = json.loads(line)
            acknowledged[name] = max(number, acknowledged.get(name, 0))

        store = SQLiteStore(path)
        for name, number in acknowledged.items():
            found = int(store.get("SpiderIPPool", name)["metadata"]["labels"]["n"])
            assert number <= found <= number + 1  # one more may have been written and not yet told
            acknowledged[name] = found
        store.close()
    assert sum(acknowledged.values()) > 100


# The first failures may come late: the log's file keeps the space that it once had.
FULL = """
    from actors.errors import StoreUnavailable
    disk = Path(sys.argv[1])
    store = SQLiteStore(disk / "store.db")
    text = "x" * 3000
    held = {}
    def write(name):
        made = store.create(with_meta(pool(name), annotations={"a": text}))
        held[name] = made
    write("first")
    filler = (disk / "filler").open("wb", buffering=0)
    try:
        while True:
            filler.write(b"x" * 65536)
    except OSError:
        pass
    refused = 0
    for number in range(3000):
        try:
            write(f"p-{number}")
        except StoreUnavailable as exc:
            assert "full" in str(exc) and "free space" in str(exc), str(exc)
            assert not exc.maybe_written
            refused += 1
            if refused == 20:
                break
    assert refused == 20, f"the disk did not fill: {refused}"
    assert "full" in store.trouble(), store.trouble()
    assert {item["metadata"]["name"]: item for item in store.list("SpiderIPPool").items} == held
    filler.close()
    os.unlink(disk / "filler")
    until = time.monotonic() + 60
    while store.trouble() is not None:  # it finds out without a write
        assert time.monotonic() < until
        time.sleep(0.05)
    for number in range(50):
        write(f"again-{number}")
    store.close()
    store = SQLiteStore(disk / "store.db")
    assert {item["metadata"]["name"]: item for item in store.list("SpiderIPPool").items} == held
    store.close()
    print("ok", len(held))
"""


def test_a_full_disk_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    """On a tmpfs of 8 MiB in a mount namespace of its own, filled up while the store is open."""
    if shutil.which("unshare") is None:
        pytest.skip("NOT TESTED: a full disk needs `unshare` (util-linux)")
    user = () if os.geteuid() == 0 else ("--map-root-user",)
    mount = 'mount -t tmpfs -o size=8m none "$0" && exec "$@"'
    wrap = ("unshare", "-m", *user, "sh", "-c", mount, str(tmp_path))
    if subprocess.run([*wrap, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("NOT TESTED: a full disk needs a mount namespace (root, or user namespaces)")

    assert finished(child(FULL, tmp_path, wrap=wrap)).startswith("ok")


# -- timing
# -----------------------------------------------------------------------------------------------------


def test_a_missing_object_is_found_missing_again(store: SQLiteStore) -> None:
    """A failed read gives its connection back: more of them than the pool has leave the store working."""
    for _ in range(20):
        with pytest.raises(NotFound):
            store.get("SpiderIPPool", "missing")
    assert store.list("SpiderIPPool").items == ()


def until(true: Any, timeout: float = 60.0) -> None:
    deadline = time.monotonic() + timeout
    while not true():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


def test_a_batch_reads_its_objects_by_index() -> None:
    """SQLite's own account of the query, because a scan shows only when the store has grown large."""
    connection = sqlite3.connect(":memory:")
    for statement in sqlite_file._TABLES.split(";"):
        connection.execute(statement)
    rows = connection.execute(f"EXPLAIN QUERY PLAN {sqlite_writer._select(3)}", ["a"] * 9).fetchall()
    connection.close()

    steps = [row[3] for row in rows]
    assert any(step.startswith("SEARCH objects USING INDEX") for step in steps), steps
    assert not any(step.startswith("SCAN objects") for step in steps), steps
