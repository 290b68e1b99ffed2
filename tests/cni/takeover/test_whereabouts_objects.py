"""What Whereabouts' objects say, and what a dry run makes of them. The objects are in its public format; the store is the
embedded one."""

from __future__ import annotations

import json
from contextlib import closing

import pytest

from actors.errors import InvalidObject, TakeoverUnfinished
from actors.resources.addresses import parse_address
from actors.resources.blocks.block import Block
from actors.resources.blocks.unjudged import Unjudged
from cni.command.takeover import DONE, FORBIDDEN
from cni.takeover.whereabouts import objects
from cni.takeover.whereabouts.source import WhereaboutsSource
from tests.cni.takeover.test_networks import attachment


def ip_pool(range_text="10.1.0.0/24", name="", **allocations):
    return {
        "apiVersion": objects.API_VERSION,
        "kind": objects.IP_POOL,
        "metadata": {"name": name or range_text.replace("/", "-").replace(":", "-"), "namespace": "kube-system"},
        "spec": {"range": range_text, "allocations": allocations},
    }  # fmt: skip


def entry(pod="default/a", container="c1", interface="net1"):
    return {"id": container, "podref": pod, "ifname": interface}


def pod(name, node="n1", **annotations):
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "annotations": annotations},
        "spec": {"nodeName": node},
    }


def network(name="blue", **ipam):
    ipam = {"type": "whereabouts", **(ipam or {"range": "10.1.0.0/24"})}
    return attachment({"name": name, "type": "macvlan", "ipam": ipam}, name)


@pytest.fixture
def look(orbweaver):
    """What a dry run says of objects."""

    def dry_run(*objs):
        store = orbweaver.store()
        for obj in objs:
            store.create(obj)
        store.close()
        return orbweaver("takeover", "--from", "whereabouts", "-o", "json")

    return dry_run


def test_offsets_are_counted_from_the_first_address_of_the_range():
    pool = objects.ip_pool_of(
        ip_pool("fd00::/64", **{"18446744073709551615": entry(), "7": entry(container="c2")})
    )

    assert [each.value for each in pool.entries] == [
        parse_address("fd00::7")[1],
        parse_address("fd00::ffff:ffff:ffff:ffff")[1],
    ]


@pytest.mark.parametrize("offset", ["256", "-1", "x", "0x7", "¹"])
def test_an_offset_that_is_no_address_of_the_range_is_refused(offset):
    with pytest.raises(InvalidObject, match="is no address of"):
        objects.ip_pool_of(ip_pool(**{offset: entry()}))


def test_a_frozen_pool_remembers_its_range_until_it_is_given_back():
    before = ip_pool(**{"5": entry()})
    frozen = objects.frozen(objects.ip_pool_of(before), empty=False)
    pool = objects.ip_pool_of(frozen)
    again = objects.frozen(pool, empty=True)

    assert (pool.is_frozen, str(pool.subnet), len(pool.entries)) == (True, "10.1.0.0/24", 1)
    assert again["spec"]["allocations"] == {}
    assert objects.given_back(objects.ip_pool_of(again), pool.entries)["spec"] == before["spec"]


def test_a_pod_says_its_uid_node_and_interface(look):
    status = json.dumps([{"name": "x", "interface": "net7", "ips": ["10.1.0.5"]}])
    old = {"id": "c1", "podref": "default/a"}
    told = look(
        network(),
        ip_pool(**{"5": old, "6": entry("default/gone", "c2")}),
        pod("a", **{"k8s.v1.cni.cncf.io/network-status": status}),
    )

    assert told.status == DONE, told
    first, second = told.json["allocations"]
    assert (first["address"], first["node"], first["interface"], first["container"]) == (
        "10.1.0.5",
        "n1",
        "net7",
        "c1",
    )
    assert first["uid"]
    assert (second["pod"], second["uid"], second["pool"]) == (
        "default/gone",
        "",
        "whereabouts-10.1.0.0-24",
    )
    assert any("gone" in line and "10.1.0.6 of default/gone" in line for line in told.json["differences"])


def test_a_reservation_alone_counts_where_its_pod_reports_the_address(look):
    status = json.dumps([{"interface": "net1", "ips": ["10.1.0.9"]}])
    told = look(
        network(),
        ip_pool(),
        objects.reservation("10.1.0.9", "kube-system", objects.GivenAddress(0, "", "default/a", "net1")),
        objects.reservation("10.1.0.10", "kube-system", objects.GivenAddress(0, "", "default/b", "net1")),
        pod("a", **{"k8s.v1.cni.cncf.io/network-status": status}),
    )

    assert [each["address"] for each in told.json["allocations"]] == ["10.1.0.9"]
    assert any("10.1.0.10 of pod default/b is left out" in line for line in told.json["differences"])


@pytest.mark.parametrize(
    ("objs", "part"),
    [
        (
            (network(range="10.1.0.0/24", network_name="x"), network("red"), ip_pool()),
            "use the same addresses beside each other",
        ),
        ((ip_pool(**{"5": entry()}),), "no NetworkAttachmentDefinition names its range"),
        ((network(), ip_pool(**{"999": entry()})), "names offset '999'"),
        ((network(), ip_pool(**{"5": entry("rubbish")})), "names no pod"),
        (
            (
                network(),
                ip_pool(**{"5": entry()}),
                objects.reservation("10.1.0.5", "kube-system", objects.GivenAddress(0, "", "default/z", "")),
            ),
            "is of pod default/z, and the IPPool gives that address to pod default/a",
        ),
    ],
)  # fmt: skip
def test_what_forbids_the_takeover_is_told(look, objs, part):
    told = look(*objs)

    assert told.status == FORBIDDEN
    assert any(part in line for line in told.json["problems"]), told.json["problems"]


def test_a_pool_that_is_there_already_and_an_address_that_is_recorded_forbid_it(orbweaver, look, make_pool):
    orbweaver.apply(make_pool("mine", subnet="10.1.0.0/24", ips="10.1.0.200-10.1.0.210"))
    orbweaver.record("10.1.0.5", "mine", "default/other", container="c9")

    problems = look(network(), ip_pool(**{"5": entry()})).json["problems"]

    assert any("mine" in line and "10.1.0.200" in line for line in problems), problems
    assert any("10.1.0.5 of pod default/a" in line and "pod default/other" in line for line in problems)


def test_what_would_be_given_back_is_told_and_nothing_is_changed(orbweaver, look):
    look(network(), ip_pool(**{"5": entry()}), pod("a"))
    options = ("takeover", "--from", "whereabouts")
    assert orbweaver(*options, "--yes").status == DONE
    before = orbweaver("get", "sp,sb,net-attach-def", "-A", "-o", "json").json

    told = orbweaver(*options, "--back", "-o", "json")

    assert told.status == DONE, told
    (allocation,) = told.json["allocations"]
    assert (allocation["address"], allocation["pod"]) == ("10.1.0.5", "default/a")
    assert any("NetworkAttachmentDefinition default/blue" in line for line in told.json["differences"])
    assert orbweaver("get", "sp,sb,net-attach-def", "-A", "-o", "json").json == before


def test_an_address_whose_record_cannot_be_judged_forbids_the_way_back(orbweaver, look):
    """Whereabouts would take it for free, while somebody may use it."""
    look(network(), ip_pool(**{"5": entry()}), pod("a"))
    options = ("takeover", "--from", "whereabouts")
    assert orbweaver(*options, "--yes").status == DONE
    _family, value = parse_address("10.1.0.6")
    with closing(orbweaver.store()) as store:
        (obj,) = store.list("SpiderIPBlock").items
        block = Block.from_object(obj)
        block.unjudged[value] = Unjudged.of("#a/:blue 0:9:web", "there is no form 9")
        store.update(block.to_object())

    told = orbweaver(*options, "--back", "-o", "json")

    assert told.status == FORBIDDEN
    (problem,) = told.json["problems"]
    assert "nobody can tell who has 10.1.0.6: " in problem
    assert "ip release --force" in problem
    with closing(orbweaver.store()) as store:
        with pytest.raises(TakeoverUnfinished) as raised:
            WhereaboutsSource(store, settle=0.0).give_back(lambda line: None)
        assert raised.value.details == (problem,)
        assert Block.from_object(store.list("SpiderIPBlock").items[0]).unjudged.keys() == {value}


def test_what_came_before_the_freezing_and_cannot_be_taken_over_stops_it(orbweaver, look, monkeypatch):
    look(network(), ip_pool(**{"5": entry()}), pod("a"))
    complete = WhereaboutsSource._complete

    def meanwhile(source, holding):
        complete(source, holding)
        (obj,) = source.store.list(objects.IP_POOL).items
        allocations = {**obj["spec"]["allocations"], "6": entry("rubbish")}
        source.store.update({**obj, "spec": {**obj["spec"], "allocations": allocations}})

    monkeypatch.setattr(WhereaboutsSource, "_complete", meanwhile)

    with closing(orbweaver.store()) as store:
        source = WhereaboutsSource(store, settle=0.0)
        with pytest.raises(TakeoverUnfinished) as raised:
            source.take(source.read(), lambda line: None)
        (pool,) = store.list("SpiderIPPool").items
        (attached,) = store.list("NetworkAttachmentDefinition").items
        source.give_back(lambda line: None)
        (back,) = store.list(objects.IP_POOL).items

    assert any("names no pod" in line for line in raised.value.details)
    assert pool["spec"]["disable"]
    assert json.loads(attached["spec"]["config"])["ipam"]["type"] == "whereabouts"
    assert back["spec"]["allocations"] == {"5": entry(), "6": entry("rubbish")}
