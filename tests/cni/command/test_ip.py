"""ip show: who has an address, or since when it is free, and where it belongs."""

import re
import time

import pytest

from actors.resources.blocks.block import Block, Release
from actors.resources.blocks.record import Fence


def test_an_address_tells_who_has_it(orbweaver, make_pool):
    orbweaver.apply(make_pool("blue", excludeIPs=["10.6.0.19"]))
    orbweaver.record("10.6.0.10", "blue", uid="u1")

    used = orbweaver("ip", "show", "10.6.0.10")
    as_json = orbweaver("ip", "show", "10.6.0.10", "-o", "json").json

    assert "in use by pod default/web-a" in used.out
    for told in ("blue", "u1", "c1", "eth0", "n1", "2025-01-31T12:00:00Z"):
        assert told in used.out
    assert as_json["state"] == "used"
    assert as_json["record"]["pod"] == "default/web-a"
    assert orbweaver("ip", "show", "10.6.0.19", "-o", "json").json["excludedBy"] == ["blue"]


def test_an_address_tells_for_whom_it_is_kept(orbweaver, make_pool):
    orbweaver.apply(make_pool("blue"))
    orbweaver.record("10.6.0.10", "blue", "default/db-0", container="", owner="StatefulSet/db")

    kept = orbweaver("ip", "show", "10.6.0.10")

    assert "kept for the next pod default/db-0 of StatefulSet/db" in kept.out
    assert orbweaver("ip", "show", "10.6.0.10", "-o", "json").json["state"] == "kept"


def test_an_address_tells_since_when_it_is_free_and_where_it_belongs(orbweaver, make_pool):
    orbweaver.apply(
        make_pool("blue") + "---\n{apiVersion: spiderpool.spidernet.io/v2beta1, kind: SpiderReservedIP,"
        " metadata: {name: printers}, spec: {ips: [10.6.0.12]}}\n"
    )
    orbweaver.released("10.6.0.10", time.time() - 30)

    free = orbweaver("ip", "show", "10.6.0.10", "-o", "json").json
    never = orbweaver("ip", "show", "10.6.0.12", "-o", "json").json
    stranger = orbweaver("ip", "show", "FD00::0:1")

    assert (free["state"], free["record"], free["pools"]) == ("free", None, ["blue"])
    assert free["released"].startswith("20")
    assert (never["released"], never["reservedBy"]) == (None, ["printers"])
    assert "fd00::1" in stranger.out
    assert "no earlier use is remembered" in stranger.out
    assert "none" in stranger.out


@pytest.mark.parametrize("text", ["10.6.0", "10.6.0.1/16", "010.6.0.1", "::ffff:10.0.0.1", "web", ""])
def test_a_bad_address_is_refused(orbweaver, make_pool, text):
    orbweaver.apply(make_pool("blue"))

    done = orbweaver("ip", "show", text)

    assert (done.status, done.out) == (1, "")
    assert repr(text) in done.err


def test_an_address_of_a_damaged_block_is_unknown_and_tells_who_is_shown_with_it(orbweaver, make_pool):
    orbweaver.apply(make_pool("blue"))
    orbweaver.record("10.6.0.10", "blue")
    orbweaver.damage("v4-0a060000")
    store = orbweaver.store()
    status = {"current": {"ips": [{"interface": "eth0", "ipv4": "10.6.0.10/16", "ipv4Pool": "blue"}]}}
    api = "spiderpool.spidernet.io/v2beta1"
    metadata = {"name": "web-a", "namespace": "default"}
    store.create({"apiVersion": api, "kind": "SpiderEndpoint", "metadata": metadata, "status": status})
    store.close()

    shown = orbweaver("ip", "show", "10.6.0.10")
    other = orbweaver("ip", "show", "10.6.0.11", "-o", "json")

    assert shown.status == other.status == 1
    assert "not known, because its block cannot be read" in shown.out
    assert re.search("shown by +default/web-a", shown.out)
    assert "SpiderIPBlock v4-0a060000 is damaged" in shown.out
    assert (other.json["state"], other.json["shownBy"], other.json["pools"]) == ("unknown", [], ["blue"])


def test_an_address_whose_record_cannot_be_judged_is_freed_by_force_alone(orbweaver, make_pool):
    orbweaver.apply(make_pool("blue"))
    orbweaver.record("10.6.0.10", "blue")
    orbweaver.spoil("10.6.0.10")

    shown, other = orbweaver("ip", "show", "10.6.0.10"), orbweaver("ip", "show", "10.6.0.11")
    assert (shown.status, other.status) == (1, 0)
    assert "not known, because its record cannot be judged: '99' is not a number below 1" in shown.out
    assert "`orbweaver ip release 10.6.0.10 --force` frees it" in shown.out
    assert re.search("record +# 10:99:web-a", shown.out)
    assert "free" in other.out
    told = orbweaver("ip", "show", "10.6.0.10", "-o", "json").json
    assert (told["state"], told["shownBy"], told["damaged"]) == ("unknown", [], [])
    assert told["unjudged"]["text"].startswith("# 10:99:web-a")

    left = orbweaver("ip", "release", "10.6.0.10")
    assert left.status == 1
    assert "cannot be judged" in left.err
    assert "use --force when nothing does" in left.err
    assert orbweaver("ip", "show", "10.6.0.10").status == 1

    done = orbweaver("ip", "release", "10.6.0.10", "--force")
    assert done.status == 0
    assert "released 10.6.0.10: by hand" in done.out
    assert "if that runs, two will use the address" in done.err
    free = orbweaver("ip", "show", "10.6.0.10", "-o", "json").json
    assert (free["state"], free["suspect"]) == ("free", {}), "whoever gets it probes it first"
    assert "nothing to release" in orbweaver("ip", "release", "10.6.0.10", "--force").out


def test_an_address_of_nobody_needs_no_release(orbweaver, make_pool):
    orbweaver.apply(make_pool("blue"))

    done = orbweaver("ip", "release", "10.6.0.10")

    assert (done.status, done.out) == (0, "10.6.0.10 is recorded for nobody; there is nothing to release\n")


def test_without_kubernetes_what_a_container_has_is_released_by_force_alone(orbweaver, make_pool):
    orbweaver.apply(make_pool("blue"))
    orbweaver.record("10.6.0.10", "blue")

    left = orbweaver("ip", "release", "10.6.0.10")
    assert left.status == 1
    assert "recorded for container c1 of pod default/web-a" in left.err
    assert "--force" in left.err
    assert orbweaver("ip", "show", "10.6.0.10", "-o", "json").json["state"] == "used"

    done = orbweaver("ip", "release", "10.6.0.10", "--force")
    assert done.status == 0
    assert "released 10.6.0.10: by hand" in done.out
    assert "warning: 10.6.0.10 is taken from pod default/web-a (container c1, node n1)" in done.err
    assert orbweaver("ip", "show", "10.6.0.10", "-o", "json").json["state"] == "free"


def test_what_is_kept_for_nobody_any_more_is_released(orbweaver, make_pool):
    orbweaver.apply(make_pool("blue"))
    owned = {"container": "", "owner": "StatefulSet/db"}
    orbweaver.record("10.6.0.10", "blue", "default/db-0", **owned)
    orbweaver.apply(
        '{"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "db", "namespace": "default"}, '
        '"spec": {"replicas": 1}}'
    )

    left = orbweaver("ip", "release", "10.6.0.10")
    assert (left.status, left.out) == (1, "left 10.6.0.10 alone: pod default/db-0 may have it\n")
    orbweaver("delete", "statefulset", "db")

    assert orbweaver("ip", "release", "10.6.0.10").status == 0
    assert orbweaver("ip", "show", "10.6.0.10", "-o", "json").json["state"] == "free"


def test_a_damaged_block_is_not_released_from(orbweaver, make_pool):
    orbweaver.apply(make_pool("blue"))
    orbweaver.record("10.6.0.10", "blue")
    orbweaver.damage("v4-0a060000")

    assert orbweaver("ip", "release", "10.6.0.10", "--force").status != 0


def test_a_suspect_address_tells_whose_it_was(orbweaver, make_pool):
    orbweaver.apply(make_pool("blue"))
    orbweaver.record("10.6.0.10", "blue", container="c1", node="n1")
    store = orbweaver.store()
    (obj,) = store.list("SpiderIPBlock").items
    block = Block.from_object(obj)
    ((value, record),) = block.records.items()
    assert block.release(Release(value, Fence.of(record), 1.0, forced=True)).done
    block.suspect[value] = block.suspect[value].heard()
    store.update(block.to_object())
    store.close()

    out = orbweaver("ip", "show", "10.6.0.10").out
    assert (
        "taken by force from pod default/web-a (container c1) on node n1, who answered 1 probes since" in out
    )
    assert orbweaver("ip", "show", "10.6.0.10", "-o", "json").json["suspect"]["container"] == "c1"
