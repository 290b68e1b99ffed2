"""Log lines: what an operator reads is there, whatever fields an event has."""

from __future__ import annotations

import io
import json
import logging
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
