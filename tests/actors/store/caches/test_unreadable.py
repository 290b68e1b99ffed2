"""Objects that cannot be parsed are known by name, with the reason, beside those that can."""

from __future__ import annotations

import pytest

from actors.resources.ippool import IPPool
from actors.store.caches.unreadable import Unreadable, parsed, sorted_out
from tests.support.rig import pool


def test_what_cannot_be_parsed_is_told_and_kept_by_name(caplog: pytest.LogCaptureFixture) -> None:
    broken = pool("broken", "10.6.0.0/16", "10.7.0.1")
    items = [parsed(IPPool.from_object, obj, "pool") for obj in (pool("blue", "10.6.0.0/16"), broken)]
    readable, unreadable = sorted_out(items)

    assert list(readable) == ["blue"]
    assert list(unreadable) == ["broken"]
    assert "10.7.0.1" in unreadable["broken"]
    assert items[1] == Unreadable("broken", unreadable["broken"])
    told = [record for record in caplog.records if record.message == "a pool cannot be used"]
    assert [record.__dict__["pool"] for record in told] == ["broken"]
