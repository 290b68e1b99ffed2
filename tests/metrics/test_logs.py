"""Log lines: what an operator reads is there, whatever fields an event has."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from typing import Any

import pytest

from actors.errors import StoreUnavailable
from actors.store.caches.informer import Informer
from actors.store.sqlite.store import SQLiteStore
from metrics.logs import JsonLines


@pytest.fixture
def lines() -> Any:
    """A function that returns what the project's loggers have written so far, parsed."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    root = logging.getLogger("orbweaver")
    root.addHandler(handler)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    root.removeHandler(handler)


def test_no_field_replaces_the_message_or_the_level(lines: Any) -> None:
    logging.getLogger("orbweaver.test").warning("the %s", "text", extra={"event": "slug", "level": 7})

    (line,) = lines()
    assert (line["event"], line["level"], line["logger"]) == ("the text", "warning", "orbweaver.test")
    assert (line["event_"], line["level_"]) == ("slug", 7)


def test_an_informers_retry_says_why(lines: Any, tmp_path: Any) -> None:
    store = SQLiteStore(tmp_path / "store.db")
    informer = Informer(store, "SpiderIPPool")
    informer._failed(StoreUnavailable("user nobody may not list spiderippools"))
    store.close()

    assert lines()[-1]["event"] == "SpiderIPPool: user nobody may not list spiderippools"
    assert lines()[-1]["what"] == "informer-retry"


SCRIPT = """
import sys, threading, warnings, logging
from metrics import logs
logs.set_up("info") if sys.argv[1] == "process" else logs.set_up_worker("info")
thread = threading.Thread(target=lambda: 1 / 0, name="mine")
thread.start()
thread.join()
class Unraisable:
    def __del__(self):
        raise ValueError("in the end")
Unraisable()
import asyncio
async def forgotten():
    asyncio.get_running_loop().call_soon(lambda: [][0])
    await asyncio.sleep(0)
asyncio.run(forgotten())
warnings.warn("a warning")
logging.getLogger("orbweaver.test").info("takes %d", "no number")
logging.getLogger("orbweaver.test").info("keys", extra={"by": {(1, 2): 3}})
raise RuntimeError("the\\nlast\\x1b[31m")
"""


@pytest.mark.parametrize("kind", ["process", "worker"])
def test_nothing_stands_between_the_lines(kind: str):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, kind], capture_output=True, text=True, check=False, timeout=60
    )

    told = [json.loads(line) for line in done.stderr.splitlines()]
    text = json.dumps(told)
    for expected in (
        "ZeroDivisionError",
        "in the end",
        "IndexError",
        "a warning",
        "takes %d",
        "keys",
        "last",
    ):
        assert expected in text
    assert [line["thread_name"] for line in told if "thread_name" in line][0::2] == ["mine", "main"]
    assert "\x1b" not in done.stderr
    assert done.returncode == 1


def test_a_worker_leaves_it_to_its_parent_to_end():
    script = (
        "import os, signal; from metrics import logs; logs.set_up_worker('info');"
        "[os.kill(os.getpid(), number) for number in (signal.SIGINT, signal.SIGTERM)]; print('goes on')"
    )

    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60
    )

    assert (done.returncode, done.stdout) == (0, "goes on\n")
