"""get: tables like kubectl's, JSON and YAML that other tools can read."""

import json

import pytest

from actors.cluster.lease import ADDRESS
from actors.store.kinds import KINDS
from cni.command.manifest import dump
from cni.command.table import duration, rows


def test_pools_have_spiderpools_columns(orbweaver, make_pool):
    orbweaver.apply(make_pool("blue", default=True) + make_pool("red", "10.6.1.1", nodeName=["n1"]))
    store = orbweaver.store()
    status = {"allocatedIPCount": 0, "totalIPCount": 10}
    store.update_status({**store.get("SpiderIPPool", "blue"), "status": status})
    store.close()

    assert orbweaver("get", "sp").out == (
        "NAME   VERSION   SUBNET        ALLOCATED-IP-COUNT   TOTAL-IP-COUNT   DEFAULT   DISABLE\n"
        "blue   4         10.6.0.0/16   0                    10               true      false\n"
        "red    4         10.6.0.0/16   <none>               <none>           false     false\n"
    )
    wide = orbweaver("get", "SpiderIPPool", "red", "-o", "wide", "--no-headers").out.split()
    assert wide[-5:] == ["false", '["n1"]', "<none>", "<none>", "<none>"]


def test_endpoints_show_their_addresses(orbweaver, make_pool):
    orbweaver.apply(make_pool("blue"))
    store = orbweaver.store()
    ips = [{"interface": "eth0", "ipv4": "10.6.0.10/16", "ipv4Pool": "blue"}]
    store.create(
        {
            "apiVersion": "spiderpool.spidernet.io/v2beta1",
            "kind": "SpiderEndpoint",
            "metadata": {"name": "web", "namespace": "default"},
            "status": {"current": {"node": "n1", "ips": ips}},
        }
    )
    store.close()

    assert orbweaver("get", "se", "-A").out == (
        "NAMESPACE   NAME   INTERFACE   IPV4POOL   IPV4           IPV6POOL   IPV6     NODE\n"
        "default     web    eth0        blue       10.6.0.10/16   <none>     <none>   n1\n"
    )


def test_blocks_show_how_many_addresses_are_used(orbweaver, make_pool):
    orbweaver.apply(make_pool("blue"))
    orbweaver.record("10.6.0.10", "blue")
    orbweaver.record("10.6.0.11", "blue")

    cells = orbweaver("get", "spideripblocks", "--no-headers").out.split()

    assert cells[:3] == ["v4-0a060000", "10.6.0.0/26", "2"]


def test_json_and_yaml_say_the_same(orbweaver, make_pool):
    orbweaver.apply(make_pool("blue"))

    one = orbweaver("get", "sp", "blue", "-o", "json").json
    several = orbweaver("get", "sp", "-o", "json").json

    assert one["metadata"]["name"] == "blue"
    assert (several["kind"], several["items"]) == ("List", [one])
    assert orbweaver("get", "sp", "blue", "-o", "yaml").out == dump(one)


def test_nothing_is_told_on_standard_error_and_as_an_empty_list(orbweaver, make_pool):
    orbweaver.apply(make_pool("blue"))

    table, namespaced, listed = (
        orbweaver("get", "sr"),
        orbweaver("get", "pods", "-n", "shop"),
        orbweaver("get", "sr", "-o", "json"),
    )

    assert (table.status, table.out, table.err) == (0, "", "No resources found\n")
    assert (namespaced.out, namespaced.err) == ("", "No resources found in shop namespace.\n")
    assert (listed.json["items"], listed.err) == ([], "")


def test_several_kinds_and_names(orbweaver, make_pool):
    orbweaver.apply(make_pool("blue") + "---\n{apiVersion: v1, kind: Node, metadata: {name: n1}}\n")

    both = orbweaver("get", "no,sp").out
    named = orbweaver("get", "sp", "blue", "green", "-o", "name")

    assert "node/n1" in both
    assert "spiderippool.spiderpool.spidernet.io/blue" in both
    assert (named.status, named.out) == (1, "spiderippool.spiderpool.spidernet.io/blue\n")
    assert "SpiderIPPool green does not exist" in named.err


def test_a_store_that_is_not_there_is_not_made(orbweaver):
    done = orbweaver("get", "sp")

    assert done.status == 1
    assert "there is no store at" in done.err
    assert not orbweaver.data.exists()


def test_an_unknown_kind_is_told_with_the_known_ones(orbweaver, make_pool):
    orbweaver.apply(make_pool("blue"))

    done = orbweaver("get", "ingresses")

    assert (done.status, done.out) == (1, "")
    assert "spiderippools (sp)" in done.err


def test_pods_and_statefulsets(orbweaver):
    owner = [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "db", "uid": "u", "controller": True}]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "db-0", "ownerReferences": owner}}
    orbweaver.apply(
        json.dumps(pod)
        + "\n---\n{apiVersion: apps/v1, kind: StatefulSet, metadata: {name: db}, spec: {replicas: 2}}\n"
    )

    assert orbweaver("get", "po", "-o", "wide", "--no-headers").out.split()[-1] == "StatefulSet/db"
    assert orbweaver("get", "sts", "--no-headers").out.split()[:2] == ["db", "0/2"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "0s"), (119, "119s"), (120, "2m"), (200, "3m20s"), (3600, "60m"), (3 * 3600, "3h"),
     (9 * 3600, "9h"), (3 * 86400, "3d"), (3 * 3600 + 300, "3h5m")],
)  # fmt: skip
def test_durations_read_like_kubectls(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize("kind", KINDS.values(), ids=str)
def test_every_kind_has_a_table(kind):
    assert rows(kind, [])[0][0] == "NAME"


def test_the_lease_tells_who_leads():
    lease = {
        "metadata": {"name": "orbweaver-controller", "annotations": {ADDRESS: "10.0.0.7:5722"}},
        "spec": {"holderIdentity": "node-7_1a2b3c4d"},
    }
    titles, line = rows(KINDS["Lease"], [lease])
    assert dict(zip(titles, line, strict=True))["HOLDER"] == "node-7_1a2b3c4d"
    assert "10.0.0.7:5722" in line
