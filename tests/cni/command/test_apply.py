"""apply: all is validated before anything is written, and a write takes away only what the manifest owns."""

import json
import threading
from contextlib import closing
from pathlib import Path

import pytest

import cni.command.apply as module
from cni.command.manifest import Document

EXAMPLES = Path(__file__).parents[3] / "deploy" / "examples"
BLUE = "spiderippool.spiderpool.spidernet.io/blue"


def test_it_says_created_then_unchanged_then_configured(orbweaver, make_pool):
    said = [
        orbweaver.apply(make_pool("blue")),
        orbweaver.apply(make_pool("blue")),
        orbweaver.apply(make_pool("blue", gateway="10.6.0.1")),
    ]

    assert [one.out for one in said] == [f"{BLUE} created\n", f"{BLUE} unchanged\n", f"{BLUE} configured\n"]


def test_a_refused_document_leaves_all_unwritten_and_every_refusal_is_told(orbweaver, make_pool):
    done = orbweaver.apply(
        make_pool("good")
        + make_pool("gateway", ips="10.6.1.1-10.6.1.9", gateway="10.9.0.1")
        + make_pool("order", ips="10.6.2.9-10.6.2.1")
        + "---\n{kind: Ingress, apiVersion: networking.k8s.io/v1, metadata: {name: web}}\n---\nkind: [\n"
    )

    assert (done.status, done.out) == (1, "")
    assert orbweaver("get", "sp").out == ""
    for told in (
        "nothing was applied, because of 4 refusals",
        "document 2, line 4: SpiderIPPool gateway: spec.gateway",
        "document 3, line 6: SpiderIPPool order: spec.ips[0]: '10.6.2.9-10.6.2.1' ends before it starts",
        "document 4, line 8: ",
        "document 5, line 11: is not YAML",
    ):
        assert told in done.err


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({"subnet": "10.6.0.0/33"}, "prefix length over 32"),
        ({"ips": "10.7.0.1"}, "not inside spec.subnet"),
        ({"gateway": "10.6.0.12"}, "also one of the addresses to give out"),
        ({"ipVersion": 6}, "spec.ipVersion"),
        ({"gatway": "10.6.0.1"}, "did you mean gateway?"),
        ({"vlan": 5000}, "VLAN"),
    ],
)
def test_what_the_crds_refuse_is_refused(orbweaver, make_pool, spec, told):
    done = orbweaver.apply(make_pool("blue", **spec))

    assert done.status == 1
    assert told in done.err


def test_an_immutable_field_stays(orbweaver, make_pool):
    orbweaver.apply(make_pool("blue"))

    done = orbweaver.apply(make_pool("blue", subnet="10.6.0.0/17"))

    assert done.status == 1
    assert "cannot change" in done.err


def test_pools_of_one_command_are_checked_against_each_other(orbweaver, make_pool):
    done = orbweaver.apply(make_pool("blue") + make_pool("red"))

    assert done.status == 1
    assert "overlaps with SpiderIPPool red" in done.err
    assert "overlaps with SpiderIPPool blue" in done.err


def test_a_range_moves_from_one_pool_to_another_in_one_command(orbweaver, make_pool):
    orbweaver.apply(make_pool("blue", "10.6.0.10-10.6.0.19") + make_pool("red", "10.6.0.30"))

    done = orbweaver.apply(make_pool("red", "10.6.0.15-10.6.0.30") + make_pool("blue", "10.6.0.10-10.6.0.14"))

    assert (done.status, done.err) == (0, "")


def test_an_address_in_use_cannot_be_taken_out(orbweaver, make_pool):
    orbweaver.apply(make_pool("blue"))
    orbweaver.record("10.6.0.19", "blue")

    done = orbweaver.apply(make_pool("blue", "10.6.0.10-10.6.0.18"))

    assert done.status == 1
    assert "takes away 10.6.0.19 while pod default/web-a uses it" in done.err


def test_what_the_manifest_drops_goes_and_what_is_the_systems_stays(orbweaver, make_pool):
    orbweaver.apply(make_pool("blue", gateway="10.6.0.1"))
    store = orbweaver.store()
    stored = store.get("SpiderIPPool", "blue")
    stored["metadata"] |= {
        "annotations": {"mine": "old", "ipam.spidernet.io/made": "by the system"},
        "finalizers": [*stored["metadata"]["finalizers"], "other.io"],
    }
    stored = store.update(stored)
    store.update_status({**stored, "status": {"allocatedIPCount": 7}})
    store.close()

    done = orbweaver.apply(make_pool("blue"))

    pool = orbweaver("get", "sp", "blue", "-o", "json").json
    assert done.status == 0
    assert "gateway" not in pool["spec"]
    assert pool["metadata"]["annotations"] == {"ipam.spidernet.io/made": "by the system"}
    assert pool["metadata"]["finalizers"] == ["spiderpool.spidernet.io", "other.io"]
    assert pool["status"] == {"allocatedIPCount": 7}


def test_a_pods_annotations_are_the_manifests(orbweaver):
    pod = "{{apiVersion: v1, kind: Pod, metadata: {{name: web, annotations: {0}}}}}"
    orbweaver.apply(pod.format("{ipam.spidernet.io/ippool: '{}', other: a}"))
    store = orbweaver.store()
    store.update_status({**store.get("Pod", "web", "default"), "status": {"phase": "Running"}})
    store.close()

    orbweaver.apply(pod.format("{other: b}"))

    stored = orbweaver("get", "pod", "web", "-o", "json").json
    assert stored["metadata"]["annotations"] == {"other": "b"}
    assert stored["status"] == {"phase": "Running"}


def test_what_get_prints_can_be_applied(orbweaver, make_pool):
    orbweaver.apply(make_pool("blue"))
    printed = orbweaver("get", "sp,po", "-o", "yaml").out

    assert orbweaver.apply(printed).out == f"{BLUE} unchanged\n"


def test_namespaces_default_and_are_refused_where_there_is_none(orbweaver, make_pool):
    path = orbweaver.file("{apiVersion: v1, kind: Pod, metadata: {name: web}}")
    orbweaver("apply", "-f", path, "-n", "shop")

    assert orbweaver("get", "pods", "-n", "shop", "-o", "name").out == "pod/web\n"
    done = orbweaver.apply(make_pool("blue").replace('"name": "blue"', '"name": "blue", "namespace": "shop"'))
    assert done.status == 1
    assert "cluster scoped" in done.err


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "{kind: Pod}",
        "{kind: Pod, apiVersion: v1, metadata: []}",
        "{kind: Pod, apiVersion: v1, metadata: {name: 7}}",
        "{kind: 7, apiVersion: v1, metadata: {name: a}}",
        "{kind: Pod, apiVersion: v2, metadata: {name: a}}",
        "{kind: Pod, apiVersion: v1, metadata: {name: a, labels: {b: 1}}}",
        "{kind: SpiderIPBlock, apiVersion: spiderpool.spidernet.io/v2beta1, metadata: {name: v4-00000000}}",
        "{kind: Pod, apiVersion: v1, metadata: {name: A_B}}",
        "{kind: Pod, apiVersion: v1, metadata: {name: a}, spec: {x: .inf}}",
    ],
)
def test_odd_objects_are_refused_in_one_message(orbweaver, text):
    done = orbweaver.apply(text)

    if ".inf" in text:  # Kubernetes has no infinity: it is a text there, and here
        assert done.status == 0
        return
    assert (done.status, done.out) == (1, "")
    assert "objects.yaml: document 1, line 1: " in done.err
    assert "Traceback" not in done.err


def test_an_edit_made_meanwhile_is_not_overwritten(orbweaver, make_pool, monkeypatch):
    """Between validation and write somebody else turns the pool off; the write is made anew on that."""
    orbweaver.apply(make_pool("blue"))
    write, edited = module.Batch.write, []

    def edit_then_write(batch, step):
        store = orbweaver.store()
        pool = store.get("SpiderIPPool", "blue")
        pool["metadata"]["finalizers"].append("other.io")
        edited.append(store.update(pool))
        store.close()
        return write(batch, step)

    monkeypatch.setattr(module.Batch, "write", edit_then_write)
    done = orbweaver.apply(make_pool("blue", gateway="10.6.0.1"))

    pool = orbweaver("get", "sp", "blue", "-o", "json").json
    assert (done.out, len(edited)) == (f"{BLUE} configured\n", 1)
    assert pool["metadata"]["finalizers"] == ["spiderpool.spidernet.io", "other.io"]
    assert pool["spec"]["gateway"] == "10.6.0.1"


def test_many_at_once_all_succeed(orbweaver, make_pool):
    """Compare-and-swap with retries: of eight that apply the same new pool, one creates it."""
    orbweaver("apply", "-f", orbweaver.file("{apiVersion: v1, kind: Namespace, metadata: {name: a}}"))
    document = Document("x", 1, 1, json.loads(make_pool("blue").removeprefix("---")))
    said: list[str] = []

    def apply() -> None:
        store = orbweaver.store()
        batch = module.Batch(store, [document], "default")
        said.append(batch.write(batch.prepare(document)))
        store.close()

    threads = [threading.Thread(target=apply, daemon=True) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(said) == ["created", *["unchanged"] * 7]


def test_the_examples_apply(orbweaver):
    done = orbweaver("apply", "-f", str(EXAMPLES))

    assert done.status == 0, done.err
    assert "spiderippool.spiderpool.spidernet.io/underlay-v4 created" in done.out
    assert "statefulset.apps/db created" in done.out


def test_a_missing_file_is_told_and_nothing_is_applied(orbweaver, make_pool):
    done = orbweaver("apply", "-f", orbweaver.file(make_pool("blue")), "-f", "nowhere.yaml")

    assert done.status == 1
    assert "nowhere.yaml: cannot be read: No such file or directory" in done.err
    assert orbweaver("get", "sp").out == ""


def test_a_pool_that_is_being_deleted_is_said_to_be(orbweaver, make_pool):
    orbweaver.apply(make_pool("blue"))
    orbweaver.record("10.6.0.10", "blue")
    orbweaver("delete", "sp", "blue")

    done = orbweaver.apply(make_pool("blue"))

    assert done.status == 0
    assert "unchanged, but it is being deleted; apply it again when it is gone" in done.out


def test_addresses_that_no_pod_may_have_are_told(orbweaver, make_pool):
    done = orbweaver.apply(make_pool("blue", "10.6.0.0-10.6.255.255"))

    assert done.status == 0
    assert (
        "10.6.0.0, 10.6.255.255 (network and broadcast address of 10.6.0.0/16) cannot be a pod's" in done.err
    )
    assert "withheld by" in orbweaver("ip", "show", "10.6.255.255").out
    assert orbweaver.apply(make_pool("blue", "10.6.0.1-10.6.255.254")).err == ""


RACK = (
    "{apiVersion: spiderpool.spidernet.io/v2beta1, kind: SpiderSubnet, metadata: {name: rack},\n"
    " spec: {subnet: 10.6.0.0/16, ips: [10.6.0.10-10.6.0.19], gateway: 10.6.0.1}}\n"
)


def test_a_subnet_is_applied_listed_and_deleted(orbweaver):
    name = "spidersubnet.spiderpool.spidernet.io/rack"

    assert orbweaver.apply(RACK).out == f"{name} created\n"
    assert orbweaver.apply(RACK).out == f"{name} unchanged\n"
    assert orbweaver("get", "ss").out == (
        "NAME   VERSION   SUBNET        ALLOCATED-IP-COUNT   TOTAL-IP-COUNT\n"
        "rack   4         10.6.0.0/16   <none>               <none>\n"
    )
    other = RACK.replace("name: rack", "name: other")
    assert "overlaps with SpiderSubnet rack in 10.6.0.10-10.6.0.19" in orbweaver.apply(other).err
    assert "also one of the addresses" in orbweaver.apply(RACK.replace("6.0.1}", "6.0.12}")).err


def test_a_pool_and_its_subnet_fit_whichever_comes_first(orbweaver, make_pool):
    beyond = make_pool("blue", "10.6.0.12-10.6.0.25")
    orbweaver.apply(RACK)

    said = orbweaver.apply(beyond).err
    assert (
        "spec.ips has 10.6.0.20-10.6.0.25, which SpiderSubnet rack of the same CIDR 10.6.0.0/16 does not have"
        in said
    )
    assert orbweaver.apply(make_pool("blue", "10.6.0.12-10.6.0.15")).status == 0

    wider = RACK.replace("rack", "wide").replace("10.6.0.10-10.6.0.19", "10.6.1.0-10.6.1.9")
    assert orbweaver.apply(wider).status == 0
    inside = make_pool("red", "10.7.0.3", subnet="10.7.0.0/24")
    assert orbweaver.apply(inside).status == 0
    around = (
        "{apiVersion: spiderpool.spidernet.io/v2beta1, kind: SpiderSubnet, metadata: {name: around},\n"
        " spec: {subnet: 10.7.0.0/16, ips: [10.7.0.1-10.7.0.9]}}\n"
    )
    said = orbweaver.apply(around)
    assert "spec.ips has 10.7.0.3, which SpiderIPPool red has with another CIDR 10.7.0.0/24" in said.err
    assert orbweaver.apply(around.replace("10.7.0.1-", "10.7.0.4-")).status == 0


def test_what_a_pool_has_from_its_subnet_is_not_taken_away(orbweaver, make_pool):
    """By the controller, which does it when the pool is there."""
    orbweaver.apply(make_pool("blue"))
    with closing(orbweaver.store()) as store:
        found = store.get("SpiderIPPool", "blue")
        owner = {
            "apiVersion": "spiderpool.spidernet.io/v2beta1",
            "kind": "SpiderSubnet",
            "name": "rack",
            "uid": "u",
        }
        noted = {"ipam.spidernet.io/inherited-from-subnet": '{"gateway":"10.6.0.1"}'}
        metadata = {**found["metadata"], "ownerReferences": [owner], "annotations": noted}
        store.update({**found, "metadata": metadata, "spec": {**found["spec"], "gateway": "10.6.0.1"}})

    assert orbweaver.apply(make_pool("blue")).out == f"{BLUE} unchanged\n"
    assert orbweaver.apply(make_pool("blue", gateway="10.6.0.2")).out == f"{BLUE} configured\n"


NETWORK = """---
apiVersion: spiderpool.spidernet.io/v2beta1
kind: SpiderMultusConfig
metadata: {name: %s, namespace: shop, annotations: {multus.spidernet.io/cr-name: %s}}
spec: {cniType: macvlan, macvlan: {master: [eth0, eth1], bond: {name: bond0, mode: 1, options: "%s"}}}
"""


def test_networks_are_created_listed_and_deleted(orbweaver):
    kind = "spidermultusconfig.spiderpool.spidernet.io"
    assert orbweaver.apply(NETWORK % ("a", "blue", "miimon=100")).out == f"{kind}/a created\n"
    assert orbweaver.apply(NETWORK % ("a", "blue", "miimon=100")).out == f"{kind}/a unchanged\n"
    assert orbweaver.apply(NETWORK % ("a", "blue", "miimon=200")).out == f"{kind}/a configured\n"

    listed = orbweaver("get", "smc", "-n", "shop").out.splitlines()
    assert [line.split() for line in listed] == [
        ["NAME", "TYPE", "MASTER", "NETWORK", "READY", "AGE"],
        ["a", "macvlan", "<none>", "<none>", "<none>", listed[1].split()[-1]],
    ]
    assert orbweaver("delete", "smc", "a", "-n", "shop").status == 0
    assert orbweaver("get", "smc", "-n", "shop").out == ""


def test_two_objects_cannot_have_one_network_whether_stored_or_in_the_file(orbweaver):
    both = orbweaver.apply(NETWORK % ("a", "blue", "") + NETWORK % ("b", "blue", ""))
    assert both.status == 1
    assert "its network would be named blue, as that of SpiderMultusConfig shop/b" in both.err

    assert orbweaver.apply(NETWORK % ("a", "blue", "")).status == 0
    second = orbweaver.apply(NETWORK % ("b", "blue", ""))
    assert "its network would be named blue, as that of SpiderMultusConfig shop/a" in second.err
    renamed = orbweaver.apply(NETWORK % ("a", "green", ""))
    assert 'is "green", but it was "blue" and cannot change' in renamed.err


def test_a_network_that_our_plugins_would_refuse_is_refused(orbweaver):
    done = orbweaver.apply(NETWORK % ("a", "blue", "mimon=100"))

    assert done.status == 1
    assert "SpiderMultusConfig shop/a: its network cannot be used" in done.err
    assert "mimon" in done.err


def test_a_network_attachment_is_kept_like_other_objects(orbweaver):
    document = """
apiVersion: k8s.cni.cncf.io/v1
kind: NetworkAttachmentDefinition
metadata: {name: blue, namespace: shop}
spec: {config: '%s'}
"""
    assert "spec.config is no CNI configuration" in orbweaver.apply(document % "{").err
    assert orbweaver.apply(document % '{"type": "macvlan"}').status == 0
    assert "blue" in orbweaver("get", "net-attach-def", "-n", "shop").out
    assert orbweaver("delete", "net-attach-def", "blue", "-n", "shop").status == 0
