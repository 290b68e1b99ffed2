"""A pool follows its subnet's gateway and routes until somebody writes others into the pool."""

from __future__ import annotations

from typing import Any

from actors.resources.inheritance import INHERITED, inherit, with_inherited
from actors.resources.subnet import OWNER_SUBNET

ROUTES = [{"dst": "10.7.0.0/16", "gw": "10.6.0.2"}]
SUBNET = {"subnet": "10.6.0.0/16", "gateway": "10.6.0.1", "routes": ROUTES}
SPEC = {"subnet": "10.6.0.0/16", "ips": ["10.6.0.9"]}


def metadata(note: str | None = None, *, adopted: bool = False) -> dict[str, Any]:
    made: dict[str, Any] = {"name": "blue"}
    if note is not None:
        made["annotations"] = {INHERITED: note}
    if adopted:
        made["labels"] = {OWNER_SUBNET: "rack"}
    return made


def test_what_a_pool_leaves_out_it_takes_and_follows() -> None:
    spec, note = inherit(SPEC, metadata(), SUBNET)
    assert spec == {**SPEC, "gateway": "10.6.0.1", "routes": ROUTES}
    assert inherit(spec, metadata(note), SUBNET) == (spec, note)

    changed, note = inherit(spec, metadata(note), {"gateway": "10.6.0.3"})
    assert changed == {**SPEC, "gateway": "10.6.0.3"}
    assert inherit(changed, metadata(note), {}) == (SPEC, "{}")


def test_what_somebody_chose_stays() -> None:
    choices: list[dict[str, Any]] = [
        {"gateway": "10.6.0.8"},
        {"gateway": "10.6.0.1"},
        {"gateway": ""},
        {"routes": []},
    ]
    for own in choices:
        spec, note = inherit({**SPEC, **own}, metadata(), SUBNET)
        after, _ = inherit(spec, metadata(note), {"gateway": "10.6.0.3", "routes": []})
        assert {key: after[key] for key in own} == own

    spec, note = inherit(SPEC, metadata(), SUBNET)
    after, note = inherit({**spec, "gateway": "10.6.0.8"}, metadata(note), {**SUBNET, "gateway": "10.6.0.3"})
    assert after["gateway"] == "10.6.0.8"
    assert after["routes"] == ROUTES
    # Taken back, it follows again.
    without = {key: value for key, value in after.items() if key != "gateway"}
    assert inherit(without, metadata(note), SUBNET)[0]["gateway"] == "10.6.0.1"


def test_pools_that_spiderpool_adopted_follow_where_they_agree() -> None:
    spec = {**SPEC, "gateway": "10.6.0.1", "routes": [{"dst": "10.8.0.0/16", "gw": "10.6.0.2"}]}
    _, note = inherit(spec, metadata(adopted=True), SUBNET)

    assert note == '{"gateway":"10.6.0.1"}'
    assert inherit(spec, metadata("no note", adopted=True), SUBNET)[1] == note


def test_a_manifest_that_leaves_it_out_does_not_take_it_away() -> None:
    spec, note = inherit(SPEC, metadata(), SUBNET)
    stored = {"metadata": metadata(note), "spec": spec}

    assert with_inherited(SPEC, stored) == spec
    assert with_inherited({**SPEC, "gateway": "10.6.0.8"}, stored)["gateway"] == "10.6.0.8"
    assert with_inherited({**SPEC, "routes": []}, stored)["routes"] == []
    own = {**stored, "spec": {**spec, "gateway": "10.6.0.8"}}
    assert "gateway" not in with_inherited(SPEC, own)
