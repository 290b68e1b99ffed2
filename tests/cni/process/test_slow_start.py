"""A start on a machine that is short of CPU: what is under way is waited for, however long it takes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from actors.store.contract import Listing, Store
from tests.support.rig import pool, rig, sandbox

NO_TIME = 0.2
SLOW = 1.0
"""Seconds: whatever is asked of the store takes several of the times that a start used to have."""


class SlowLists:
    """A store whose lists take a while and succeed."""

    def __init__(self, inner: Store) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def list(self, kind: str, namespace: str | None = None, *, timeout: float = 30.0) -> Listing:
        time.sleep(SLOW)
        return self._inner.list(kind, namespace, timeout=timeout)


def test_an_agent_whose_lists_take_longer_than_its_patience_starts_and_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for place in ("actors.views.views.LEDGER_TIMEOUT", "cni.process.base.START_TIMEOUT"):
        monkeypatch.setattr(place, NO_TIME)
    monkeypatch.setattr("cni.process.agent.START_TIMEOUT", NO_TIME)
    with rig(tmp_path, pool("blue", "10.6.0.0/24", "10.6.0.1-10.6.0.9"), wrap=SlowLists) as one:
        assert one.add(sandbox("web")) == ["10.6.0.1"]
