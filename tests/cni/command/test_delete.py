"""delete: a pool goes at once when nothing is recorded out of it, else with the last address."""

import json
from contextlib import closing

TYPE = "spiderippool.spiderpool.spidernet.io"


def test_a_pool_without_addresses_in_use_goes_at_once(orbweaver, make_pool):
    orbweaver.apply(make_pool("blue") + make_pool("red", "10.6.1.1"))
    orbweaver.record("10.6.1.1", "red")

    done = orbweaver("delete", "sp", "blue")

    assert (done.status, done.out) == (0, f'{TYPE} "blue" deleted\n')
    assert orbweaver("get", "sp", "-o", "name").out == f"{TYPE}/red\n"


def test_a_pool_in_use_stays_until_the_last_address_is_given_back(orbweaver, make_pool):
    orbweaver.apply(make_pool("blue"))
    for last in range(10, 15):
        orbweaver.record(f"10.6.0.{last}", "blue", f"default/web-{last}")

    first = orbweaver("delete", "sp", "blue")

    assert first.status == 0
    assert '"blue" is terminating: 5 addresses are in use (10.6.0.10 by pod default/web-10, ' in first.out
    assert "and 2 more" in first.out
    assert "goes with the last" in first.out
    assert orbweaver("get", "sp", "blue", "-o", "json").json["metadata"]["deletionTimestamp"]
    assert "terminating" in orbweaver("explain", "web-a", "--ipv4-pool", "blue").err
    for last in range(10, 15):
        orbweaver.released(f"10.6.0.{last}", 1.0)
    assert orbweaver("delete", "sp", "blue").out == f'{TYPE} "blue" deleted\n'


def test_a_pool_with_a_finalizer_of_others_waits_for_it(orbweaver, make_pool):
    orbweaver.apply(make_pool("blue").replace('"name": "blue"', '"name": "blue", "finalizers": ["other.io"]'))

    done = orbweaver("delete", "sp", "blue")

    assert done.out == f'{TYPE} "blue" is being deleted; it goes when its finalizers do: other.io\n'
    kept = orbweaver("get", "sp", "blue", "-o", "json").json
    assert kept["metadata"]["finalizers"] == ["other.io"]


def test_a_damaged_block_keeps_pools_from_going(orbweaver, make_pool):
    orbweaver.apply(make_pool("blue"))
    orbweaver.record("10.6.0.10", "blue")
    orbweaver.damage("v4-0a060000")

    done = orbweaver("delete", "sp", "blue")

    assert "whether its addresses are in use is not known, because SpiderIPBlock v4-0a060000" in done.out
    assert orbweaver("get", "sp", "-o", "name").out == f"{TYPE}/blue\n"


def test_files_are_deleted_as_they_were_applied(orbweaver, make_pool):
    text = make_pool("blue") + "---\n{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: shop}}\n"
    path = orbweaver.file(text)
    orbweaver("apply", "-f", path)

    done = orbweaver("delete", "-f", path)

    assert (done.status, done.out) == (0, f'{TYPE} "blue" deleted\npod "web" deleted\n')
    again = orbweaver("delete", "-f", path)
    assert again.status == 1
    assert "SpiderIPPool blue does not exist" in again.err
    assert "Pod shop/web does not exist" in again.err
    assert orbweaver("delete", "-f", path, "--ignore-not-found").status == 0


def test_blocks_and_endpoints_are_not_for_deleting(orbweaver, make_pool):
    orbweaver.apply(make_pool("blue"))
    orbweaver.record("10.6.0.10", "blue")

    done = orbweaver("delete", "sb", "v4-0a060000")

    assert done.status == 1
    assert "written by Orbweaver only" in done.err
    assert json.loads(orbweaver("get", "sb", "-o", "json").out)["items"]


def test_what_to_delete_must_be_said(orbweaver, make_pool):
    path = orbweaver.file(make_pool("blue"))
    orbweaver("apply", "-f", path)

    for arguments in (
        (),
        ("sp",),
        ("sp", "blue", "-f", path),
        ("-f", orbweaver.file("{kind: Pod}", "b.yaml")),
    ):
        done = orbweaver("delete", *arguments)
        assert (done.status, done.out) == (1, "")
    assert orbweaver("get", "sp", "-o", "name").out == f"{TYPE}/blue\n"


def test_a_subnet_says_which_pools_hold_it(orbweaver):
    orbweaver.apply(
        "{apiVersion: spiderpool.spidernet.io/v2beta1, kind: SpiderSubnet, metadata: {name: rack},\n"
        " spec: {subnet: 10.6.0.0/16, ips: [10.6.0.10-10.6.0.19]}}\n"
    )
    status = {"controlledIPPools": '{"a":{"ips":["10.6.0.10"]},"b":{"ips":["10.6.0.12-10.6.0.14"]}}'}
    with closing(orbweaver.store()) as store:
        store.update_status({**store.get("SpiderSubnet", "rack"), "status": status})

    said = orbweaver("delete", "ss", "rack").out

    assert said == (
        'spidersubnet.spiderpool.spidernet.io "rack" is terminating: 2 pools have addresses of it (b with 3, a with 1);'
        " it goes with the last of them, and each of them with its last address\n"
    )
