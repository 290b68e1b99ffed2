"""The audit finds each breach that it is told of, alone, and nothing in what the actors themselves wrote."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from actors.audit import AuditRule, ReleaseRecord, Snapshot, WriteEndpoint, WriteStatus, audit, confirm
from actors.resources.addresses import format_address
from actors.resources.admission import FINALIZER
from actors.resources.blocks.block import block_name
from tests.support.blocks import recorded
from tests.support.checker import eventually, prove_views, told
from tests.support.rig import pod, pool, rig, sandbox, statefulset

POOLS = (pool("v4", "10.6.0.0/16", "10.6.0.10-10.6.0.19"), pool("v6", "fd00::/64", "fd00::10-fd00::19"))


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    """Two running pods of which one is a StatefulSet's, one address kept, and the views that the agent wrote."""
    objects = (*POOLS, statefulset("db", 2), *(pod(name, statefulset="db") for name in ("db-0", "db-1")))
    with rig(tmp_path_factory.mktemp("rig"), *objects, pod("web")) as one:
        for name in ("web", "db-0", "db-1"):
            one.add(
                sandbox(f"c-{name}", pod=name, uid=one.inner.get("Pod", name, "default")["metadata"]["uid"])
            )
        one.delete(sandbox("c-db-1", pod="db-1"))
        eventually(lambda: prove_views(one.inner))
        return Snapshot.read(one.inner, pods=True)


def test_what_the_actors_wrote_is_sound(sound: Snapshot):
    found = audit(sound)

    assert not found.findings, told(found.findings)
    assert len(found.held) == 6
    assert {format_address(one.family, one.value) for one in found.held if one.record.is_retained} == {
        "10.6.0.12",
        "fd00::12",
    }


def edited(obj: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy with the field at `path` replaced, or taken out for None."""
    step, _, rest = path.partition(".")
    inside = edited(obj.get(step, {}), rest, value) if rest else value
    return {key: old for key, old in {**obj, step: inside}.items() if old is not None}


def block(sound: Snapshot, change: Any, family: int = 4, key: str = "records") -> Snapshot:
    """The snapshot with the text of one field of the family's block changed."""
    made = tuple(
        edited(obj, f"spec.{key}", change(as_json(obj) if key == "records" else obj["spec"].get(key, "[]")))
        if obj["spec"]["ipVersion"] == family
        else obj
        for obj in sound.blocks
    )
    return replace(sound, blocks=made)


def as_json(obj: dict[str, Any]) -> str:
    """The records as earlier versions wrote them, which are easier to spoil."""
    return json.dumps(recorded([obj]))


def only(items: tuple[dict[str, Any], ...], name: str, path: str, value: Any) -> tuple[dict[str, Any], ...]:
    assert any(obj["metadata"]["name"] == name for obj in items)
    return tuple(edited(obj, path, value) if obj["metadata"]["name"] == name else obj for obj in items)


def without(items: tuple[dict[str, Any], ...], name: str) -> tuple[dict[str, Any], ...]:
    left = tuple(obj for obj in items if obj["metadata"]["name"] != name)
    assert len(left) == len(items) - 1
    return left


def rules(snapshot: Snapshot) -> dict[str, set[str]]:
    """Rule to subjects."""
    found: dict[str, set[str]] = {}
    for one in audit(snapshot).findings:
        found.setdefault(one.rule.label, set()).add(one.subject)
    return found


def recorded_again(text: str, address: str, other: str) -> str:
    """The record of `address` a second time, under the name `other`."""
    return text[:-1] + f',"{other}":{json.dumps(json.loads(text)[address])}' + "}"


@pytest.mark.parametrize("other", ["10.6.0.10", "10.6.0.64", "10.6.0.010", "fd00::1", "nonsense"])
def test_a_record_too_many(sound: Snapshot, other: str):
    """Twice under one name, outside the block, or in a form that is no address."""
    found = rules(block(sound, lambda text: recorded_again(text, "10.6.0.10", other)))

    assert (
        (found.get("twice") == {"10.6.0.10"}) if other == "10.6.0.10" else (found["block"] == {"v4-0a060000"})
    )


def test_an_address_in_two_spellings(sound: Snapshot):
    found = rules(block(sound, lambda text: recorded_again(text, "fd00::10", "fd00:0::10"), family=6))

    assert found["block"] == {"v6-fd000000000000000000000000000000"}


@pytest.mark.parametrize("text", ["{", "[]", '{"10.6.0.64":7}', '{"nonsense":7}'])
def test_records_that_cannot_be_read(sound: Snapshot, text: str):
    assert rules(block(sound, lambda _: text))["block"] == {"v4-0a060000"}


@pytest.mark.parametrize(
    "text",
    ["7", '{"pool":"v4"}', '{"pool":"v4","pod":"default/a","claim":7}', '{"pool":"v4","pod":"a\\ud800/b"}'],
)
def test_a_record_that_cannot_be_judged_hides_nothing_else(sound: Snapshot, text: str):
    """Neither another record nor what views tell of it, which may be all that is known of its holder."""
    before = audit(sound)
    spoiled = block(sound, lambda found: json.dumps({**json.loads(found), "10.6.0.10": json.loads(text)}))
    found = audit(spoiled)

    assert before.findings == ()
    assert [(one.rule.label, one.subject, one.repair) for one in found.findings] == [
        ("entry", "10.6.0.10", None)
    ]
    assert "cannot be judged" in found.findings[0].what
    assert "ip release ADDRESS --force" in found.findings[0].rule.remedy
    assert len(found.held) == len(before.held) - 1


@pytest.mark.parametrize(
    "again", [" 10:0:web::c9:", " 64:0:web::c9:", " 10:9:web::c9:", " 30:0:web", " 30:0:web::c9:~692"]
)
def test_a_record_too_many_in_the_short_form(sound: Snapshot, again: str):
    """Twice, outside the block, twice and of no known shape, cut off in two places. The others are seen all the same."""
    spoiled = tuple(
        edited(obj, "spec.records", obj["spec"]["records"] + again) if obj["spec"]["ipVersion"] == 4 else obj
        for obj in sound.blocks
    )
    found = audit(replace(sound, blocks=spoiled))

    assert {one.subject for one in found.findings if one.rule.label in ("twice", "block")} == {
        "10.6.0.10" if again.startswith(" 10:0") else "v4-0a060000"
    }
    assert len(found.held) == (7 if again.startswith(" 10:0") else 6)


@pytest.mark.parametrize("text", ['{"10.6.0.10":1.0}', '{"10.7.0.1":1.0}', "#x 30:1"])
def test_releases_that_cannot_be(sound: Snapshot, text: str):
    """Of an address that is recorded, outside, since no time at all."""
    assert rules(block(sound, lambda _: text, key="released")) == {"block": {"v4-0a060000"}}


@pytest.mark.parametrize("text", ['{"10.6.0.30":"now"}', "#1700000000 30:now", "#1700000000 30"])
def test_a_release_without_a_time(sound: Snapshot, text: str):
    assert rules(block(sound, lambda _: text, key="released")) == {"entry": {"10.6.0.30"}}


@pytest.mark.parametrize("text", ['["10.6.0.40"]', '{"10.6.0.40":{}}', '["10.7.0.10"]', "7"])
def test_suspects_that_cannot_be(sound: Snapshot, text: str):
    assert rules(block(sound, lambda _: '["10.6.0.10"]', key="suspect")) == {}
    assert rules(block(sound, lambda _: text, key="suspect")) == {"block": {"v4-0a060000"}}


@pytest.mark.parametrize("field", ["suspect", "quarantine"])
def test_what_is_told_of_one_address_and_cannot_be_read(sound: Snapshot, field: str):
    assert rules(block(sound, lambda _: '{"10.6.0.10":7}', key=field)) == {"entry": {"10.6.0.10"}}


@pytest.mark.parametrize("path, value", [("metadata.name", "v4-0a060001"), ("spec.cidr", "10.6.0.64/26")])
def test_a_block_that_is_not_where_its_name_says(sound: Snapshot, path: str, value: str):
    made = tuple(edited(obj, path, value) if obj["spec"]["ipVersion"] == 4 else obj for obj in sound.blocks)

    assert value in rules(replace(sound, blocks=made))["block"] | {"10.6.0.64/26"}


def test_an_interface_with_two_addresses(sound: Snapshot):
    found = rules(block(sound, lambda text: recorded_again(text, "10.6.0.10", "10.6.0.19")))

    assert found["attachment"] == {"default/web"}
    assert found["status"] == {"v4"}


@pytest.mark.parametrize(
    "path, value",
    [
        (None, None),
        ("metadata.uid", "another"),
        ("status", {"phase": "Failed", "reason": "Evicted"}),
    ],
)
def test_a_pod_that_is_gone_leaks_its_addresses(sound: Snapshot, path: str | None, value: Any):
    assert sound.pods is not None
    pods = without(sound.pods, "web") if path is None else only(sound.pods, "web", path, value)
    found = audit(replace(sound, pods=pods)).findings

    assert [(one.rule, one.subject) for one in found] == [
        (AuditRule.LEAKED, "10.6.0.10"),
        (AuditRule.LEAKED, "fd00::10"),
    ]
    assert all(
        isinstance(one.repair, ReleaseRecord) and one.repair.held.record.pod == "default/web" for one in found
    )
    assert rules(replace(sound, pods=None)) == {}


def test_a_pod_that_is_being_deleted_still_has_its_addresses(sound: Snapshot):
    assert sound.pods is not None
    pods = only(sound.pods, "web", "metadata.deletionTimestamp", "2020-01-31T12:00:00Z")

    assert rules(replace(sound, pods=pods)) == {}


@pytest.mark.parametrize("change", ["deleted", "scaled", "terminating"])
def test_what_is_kept_for_a_statefulset_that_does_not_want_it(sound: Snapshot, change: str):
    """The running pod's addresses are not judged by it."""
    sets = {
        "deleted": (),
        "scaled": only(sound.statefulsets, "db", "spec.replicas", 1),
        "terminating": only(sound.statefulsets, "db", "metadata.deletionTimestamp", "2020-01-31T12:00:00Z"),
    }[change]
    kept = {"10.6.0.12", "fd00::12"}

    assert rules(replace(sound, statefulsets=sets)) == {"kept": kept}


def test_an_endpoint_that_is_missing_too_many_or_wrong(sound: Snapshot):
    missing = audit(replace(sound, endpoints=without(sound.endpoints, "web"))).findings
    assert [(one.rule, one.subject, one.repair) for one in missing] == [
        (AuditRule.ENDPOINT, "default/web", WriteEndpoint("default/web"))
    ]

    more = (*sound.endpoints, {"metadata": {"name": "ghost", "namespace": "default"}, "status": {}})
    assert rules(replace(sound, endpoints=more)) == {"endpoint": {"default/ghost"}}

    (web,) = [obj for obj in sound.endpoints if obj["metadata"]["name"] == "web"]
    current = web["status"]["current"]
    entry = current["ips"][0]
    for wrong in (
        {**current, "node": "other"},
        {**current, "uid": "other"},
        {**current, "ips": []},
        {**current, "ips": [{**entry, "ipv4": "10.6.0.11/16"}]},
        {**current, "ips": [{**entry, "ipv6Pool": "v7"}]},
        {**current, "ips": [{**entry, "interface": "net1"}]},
    ):
        objects = only(sound.endpoints, "web", "status.current", wrong)
        assert rules(replace(sound, endpoints=objects)) == {"endpoint": {"default/web"}}, wrong


@pytest.mark.parametrize(
    "path, value, rule",
    [
        ("status.allocatedIPCount", 7, "status"),
        ("status.totalIPCount", 7, "status"),
        ("status.allocatedIPs", '{"10.6.0.19":{"pod":"default/x","podUid":"u"}}', "foreign"),
        ("metadata.finalizers", None, "finalizer"),
        ("spec.ips", ["10.7.0.1"], "pool"),
    ],
)
def test_a_pool_that_is_not_as_it_should_be(sound: Snapshot, path: str, value: Any, rule: str):
    found = audit(replace(sound, pools=only(sound.pools, "v4", path, value))).findings

    assert {(one.rule.label, one.subject) for one in found} == {(rule, "v4")}
    assert all(one.repair == (None if rule == "pool" else WriteStatus("v4")) for one in found)


def test_addresses_in_use_outside_their_pool_or_without_one(sound: Snapshot):
    smaller = only(sound.pools, "v4", "spec.excludeIPs", ["10.6.0.10"])
    assert rules(replace(sound, pools=smaller)) == {"outside": {"10.6.0.10"}, "status": {"v4"}}

    gone = rules(replace(sound, pools=without(sound.pools, "v4")))
    assert gone == {"no-pool": {"10.6.0.10", "10.6.0.11", "10.6.0.12"}, "kept": {"10.6.0.12"}}


def test_reserved_addresses_count_for_the_total(sound: Snapshot):
    reserved = ({"metadata": {"name": "r"}, "spec": {"ips": ["10.6.0.19"]}},)

    assert rules(replace(sound, reserved=reserved)) == {"status": {"v4"}}


def test_pools_that_overlap_and_pools_that_linger(sound: Snapshot):
    metadata = {"finalizers": [FINALIZER]}
    others = [
        pool("left", "10.6.0.0/16", "10.6.0.1-10.6.0.10"),
        pool("right", "10.6.0.0/16", "10.6.0.20"),
        pool("inner", "10.6.0.0/16", "10.6.0.3", "10.6.0.20"),
    ]
    made = tuple({**obj, "metadata": {**obj["metadata"], **metadata}} for obj in others)
    found = audit(replace(sound, pools=(*sound.pools, *made))).findings
    assert [(one.subject, one.evidence) for one in found if one.rule is AuditRule.OVERLAP] == [
        ("inner", "left"),
        ("inner", "right"),
        ("left", "v4"),
    ]

    going = edited(made[1], "metadata.deletionTimestamp", "2020-01-31T12:00:00Z")
    assert rules(replace(sound, pools=(*sound.pools, going))) == {"lingers": {"right"}}


def test_a_finding_counts_when_both_looks_have_it_with_the_same_evidence(sound: Snapshot):
    """A view that was written between the looks, and is wrong again, is behind and not broken."""
    count = only(sound.pools, "v4", "status.allocatedIPCount", 7)
    first = audit(replace(sound, pools=count, endpoints=without(sound.endpoints, "web"))).findings
    later = audit(replace(sound, pools=only(count, "v4", "metadata.resourceVersion", "999"))).findings
    same = audit(replace(sound, pools=count)).findings

    assert [one.rule for one in first] == [AuditRule.STATUS, AuditRule.ENDPOINT]
    assert confirm(first, later) == ((), 3)
    assert confirm(first, same) == (same, 1)


def test_twenty_thousand_records_are_audited_in_one_pass():
    """Pods, pools and views of all of them are missing; a rule whose cost grew with the square would time out."""
    blocks = []
    for base in range(10 << 24, (10 << 24) + 20_032, 64):
        records = {
            format_address(4, value): {
                "pool": "gone",
                "pod": f"default/p{value}",
                "uid": "u",
                "container": f"c{value}",
            }
            for value in range(base, base + 64)
        }
        spec = {"cidr": f"{format_address(4, base)}/26", "ipVersion": 4, "records": json.dumps(records)}
        blocks.append({"metadata": {"name": block_name(4, base)}, "spec": spec})

    found = audit(Snapshot(blocks=tuple(blocks), pods=()))

    assert len(found.held) == 20_032
    assert Counter(one.rule for one in found.findings) == dict.fromkeys(
        (AuditRule.NO_POOL, AuditRule.ENDPOINT, AuditRule.LEAKED), 20_032
    )


def test_a_pod_whose_node_is_gone_leaks_its_addresses(sound: Snapshot):
    """As garbage collection judges: not while the node is there, nor for a StatefulSet's pod, which keeps it."""
    assert sound.pods is not None
    pods = tuple(edited(obj, "spec.nodeName", "n1") for obj in sound.pods)
    ready = {"conditions": [{"type": "Ready", "status": "True"}]}
    node = {"kind": "Node", "metadata": {"name": "n1"}, "status": ready}

    assert rules(replace(sound, pods=pods, nodes=(node,))) == {}
    assert rules(replace(sound, pods=pods)) == {"leaked": {"10.6.0.10", "fd00::10"}}
