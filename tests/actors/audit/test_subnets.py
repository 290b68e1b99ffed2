"""The audit finds what is wrong with a subnet's division among its pools, and nothing in what the actor wrote."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from actors.audit import AuditRule, Snapshot, WriteSubnet, audit
from actors.decisions.settings import Settings
from tests.support.checker import equal, eventually, told
from tests.support.rig import pool
from tests.support.subnet_rig import application, auto_pool, prove_division, subnet, subnet_rig

AUTO = "auto4-web-eth0-1a2b3"


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    """A pool of an application and one that somebody made by hand."""
    blue = pool("blue", "10.6.0.0/16", "10.6.0.8", default=False)
    with subnet_rig(tmp_path_factory.mktemp("rig"), subnet(), blue) as one:
        one.ensure(auto_pool(application(), 3))
        eventually(lambda: prove_division(one.inner))
        eventually(lambda: equal(_found(Snapshot.read(one.inner, pods=False)), []))
        return Snapshot.read(one.inner, pods=False)


def _found(snapshot: Snapshot) -> list[tuple[AuditRule, str]]:
    return [(one.rule, one.subject) for one in audit(snapshot).findings]


def with_status(sound: Snapshot, **status: Any) -> Snapshot:
    (rack,) = sound.subnets
    return replace(sound, subnets=({**rack, "status": {**rack["status"], **status}},))


def test_what_the_actor_wrote_is_sound(sound: Snapshot) -> None:
    assert told(audit(sound).findings) == told(())


@pytest.mark.parametrize(
    ("pools", "says"),
    [
        ({AUTO: ["10.6.0.1-10.6.0.3"], "blue": ["10.6.0.3", "10.6.0.8"]}, "has 10.6.0.3 for pool auto4-web"),
        ({AUTO: ["10.6.0.1-10.6.0.2"], "blue": ["10.6.0.8"]}, "has 10.6.0.1-10.6.0.2 for pool auto4-web"),
        ({"blue": ["10.6.0.8"]}, f"does not name pool {AUTO}"),
        ({AUTO: ["10.6.0.1-10.6.0.3"], "blue": ["10.6.0.8"], "ghost": ["10.6.0.9"]}, "names pool ghost, which is not"),
    ],
)  # fmt: skip
def test_a_status_that_differs_is_found_and_can_be_repaired(
    sound: Snapshot, pools: dict[str, list[str]], says: str
) -> None:
    text = json.dumps({name: {"ips": ips} for name, ips in pools.items()})
    number = sum(
        1 if "-" not in one else 3 if one.endswith("3") else 2 for ips in pools.values() for one in ips
    )

    found = audit(with_status(sound, controlledIPPools=text, allocatedIPCount=number)).findings

    assert {one.rule for one in found} == {AuditRule.SHARES}
    assert any(says in one.what for one in found), told(found)
    assert all(one.repair == WriteSubnet("rack") for one in found)


def test_a_count_that_differs_is_found(sound: Snapshot) -> None:
    (found,) = audit(with_status(sound, allocatedIPCount=9)).findings

    assert (found.rule, found.what) == (AuditRule.SHARES, "status.allocatedIPCount is 9, but pools have 4")


def test_a_pool_that_has_what_its_subnet_has_not_is_found(sound: Snapshot) -> None:
    (rack,) = sound.subnets
    smaller = {**rack, "spec": {**rack["spec"], "ips": ["10.6.0.1-10.6.0.7"]}}

    found = audit(replace(sound, subnets=(smaller,))).findings

    assert (AuditRule.BEYOND, "blue") in [(one.rule, one.subject) for one in found]
    assert "subnet rack, which it lies in, does not have 10.6.0.8" in told(found)


def test_a_subnet_that_cannot_be_read_is_found_and_none_where_they_are_switched_off(sound: Snapshot) -> None:
    (rack,) = sound.subnets
    bad = replace(sound, subnets=({**rack, "spec": {"subnet": 7}},))

    assert [one.rule for one in audit(bad).findings] == [AuditRule.SUBNET]
    off = Settings(enable_subnets=False)
    assert audit(with_status(sound, controlledIPPools=None), off).findings == ()


def test_a_repair_divides_the_subnet_anew(tmp_path: Path) -> None:
    from cni.command.check import look
    from cni.command.repairs import repairs

    with subnet_rig(tmp_path, subnet(), pool("blue", "10.6.0.0/16", "10.6.0.8", default=False)) as one:
        one.ensure(auto_pool(application(), 3))
        eventually(lambda: prove_division(one.inner))
        eventually(lambda: equal(_found(Snapshot.read(one.inner, pods=False)), []))  # the views have followed
        one.process.stop()
        rack = one.inner.get("SpiderSubnet", "rack")
        text = '{"ghost":{"ips":["10.6.0.8-10.6.0.9"]}}'
        one.inner.update_status({**rack, "status": {**rack["status"], "controlledIPPools": text}})
        before = look(one.inner, 0.0, Settings(), tmp_path / "none")
        assert before.findings

        with repairs(one.inner, Settings()) as at_work:
            assert list(at_work.do(before.findings)) == ["dividing subnet rack among its pools"]
            eventually(lambda: prove_division(one.inner))

        assert look(one.inner, 0.0, Settings(), tmp_path / "none").findings == ()
