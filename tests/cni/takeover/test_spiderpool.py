"""Spiderpool's sides, settings, networks and records, each by itself; tests/deploy/test_takeover.py has the whole swap."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.errors import InvalidObject, InvalidRequest, TakeoverUnfinished
from actors.resources.addresses import parse_address
from actors.resources.blocks.block import Block, base_of
from actors.resources.blocks.record import Record
from actors.resources.pool_status import DIGEST, digest_of
from actors.store.contract import Object
from actors.store.sqlite.store import SQLiteStore
from cni.command.manifest import read_text
from cni.takeover.spiderpool.differences import compare
from cni.takeover.spiderpool.gap import Gap
from cni.takeover.spiderpool.giving_back import (
    Holdings,
    delete_blocks,
    free_coordinators,
    give_back_endpoints,
    give_back_pools,
    make_foreign,
)
from cni.takeover.spiderpool.image import bring_image
from cni.takeover.spiderpool.installation import BEFORE, Side, find_orbweaver, find_spiderpool
from cni.takeover.spiderpool.source import Spiderpool
from cni.takeover.spiderpool.swap import PHASE, Phase, Swap
from cni.takeover.spiderpool.webhooks import Webhooks
from tests.support.rig import pod, pool
from tests.support.spiderpool_objects import AGENT, MULTUS, OURS, SPIDER, install


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLiteStore]:
    opened = SQLiteStore(tmp_path / "orbweaver.db")
    yield opened
    opened.close()


def swap(store: SQLiteStore, lines: list[str]) -> Swap:
    return Swap.between(store, find_spiderpool(store, None), find_orbweaver(store), lines.append)


def daemonset(store: SQLiteStore) -> Object:
    return store.get("DaemonSet", "my-agent", SPIDER)


def runs(store: SQLiteStore, name: str, app: str, namespace: str, *containers: str, **spec: Any) -> None:
    """One of a workload's pods."""
    metadata = {"name": name, "namespace": namespace, "labels": {"app": app}}
    body = {"containers": [{"name": each} for each in containers], **spec}
    store.create({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": body})


def test_sides_are_found_by_what_they_run_not_by_their_names(store):
    with pytest.raises(InvalidObject, match=r"no DaemonSet runs `spiderpool-agent`.*--spiderpool-namespace"):
        find_spiderpool(store, None)
    with pytest.raises(InvalidObject, match=r"orbweaver agent.*helm install"):
        find_orbweaver(store)

    install(store)

    found = find_spiderpool(store, None)
    assert (found.namespace, found.agents, found.controllers) == (SPIDER, "my-agent", ("my-controller",))
    assert found.configuration == "spiderpool-conf"
    assert find_orbweaver(store).agents == "orbweaver-agent"
    with pytest.raises(InvalidObject, match="no DaemonSet"):
        find_spiderpool(store, "elsewhere")


def test_a_side_is_stopped_and_is_afterwards_as_it_was(store):
    install(store)
    before = daemonset(store)["spec"]
    side = Side(store, find_spiderpool(store, None), lambda line: None)

    side.stop()

    assert side.is_stopped()
    assert daemonset(store)["spec"]["template"]["spec"]["nodeSelector"] == {"orbweaver.io/parked": "true"}
    assert store.get("Deployment", "my-controller", SPIDER)["spec"]["replicas"] == 0
    side.stop()  # again, as after an interruption
    for obj in side.controllers():
        store.update_status({**obj, "status": {"readyReplicas": 3, "observedGeneration": 99}})
    counts = {"desiredNumberScheduled": 1, "numberReady": 1, "updatedNumberScheduled": 1}
    store.update_status({**daemonset(store), "status": {"observedGeneration": 99, **counts}})

    side.start_controllers(1)
    gap = Gap(lambda line: None)
    side.start_agents(gap, "n1")
    assert daemonset(store)["spec"]["template"]["spec"]["nodeSelector"] == {"kubernetes.io/hostname": "n1"}
    side.start_agents(gap)
    side.settle()

    assert store.get("Deployment", "my-controller", SPIDER)["spec"]["replicas"] == 3
    after = daemonset(store)
    assert after["spec"]["template"]["spec"].pop("nodeSelector") == {}
    assert after["spec"] == before
    assert BEFORE not in after["metadata"].get("annotations", {})


def test_multus_stays_where_it_is_in_the_agents_pods(store):
    """Its token ends with its pod."""
    install(store, AGENT, MULTUS)
    before = daemonset(store)["spec"] | {"updateStrategy": {}}
    side = Side(store, find_spiderpool(store, None), lambda line: None)
    runs(store, "new", "my-agent", SPIDER, "multus-cni")

    side.stop()

    parked = daemonset(store)["spec"]
    assert [each["name"] for each in parked["template"]["spec"]["containers"]] == ["multus-cni"]
    assert parked["updateStrategy"]["rollingUpdate"] == {"maxUnavailable": "100%"}
    assert side.is_stopped()
    assert find_spiderpool(store, None).agents == "my-agent"  # although no container of it runs the agent

    store.update_status({**daemonset(store), "status": {"observedGeneration": 99}})
    side.start_agents(Gap(lambda line: None))
    assert daemonset(store)["spec"] == before


def test_a_pod_that_only_is_being_deleted_counts(store, monkeypatch):
    """It may still give out an address, on a node that nobody reaches for the moment."""
    monkeypatch.setattr("cni.takeover.spiderpool.installation.LIMIT", 0.1)
    monkeypatch.setattr("cni.takeover.waiting.LOOK", 0.02)
    install(store)
    park(store, "orbweaver-agent", OURS)
    runs(store, "left", "my-agent", SPIDER, "agent-of-mine")
    made = swap(store, [])

    with pytest.raises(TakeoverUnfinished, match=r"1 pods of Spiderpool still run \(left\).*delete its Node"):
        made.there(None)

    assert made.phase is Phase.STOPPING
    store.delete("Pod", "left", SPIDER)
    assert made.spiderpool.is_stopped()


def test_nothing_is_stopped_while_ours_runs(store):
    install(store)
    deployment = store.get("Deployment", "orbweaver-controller", OURS)
    store.update({**deployment, "spec": {**deployment["spec"], "replicas": 1}})
    made = swap(store, [])

    with pytest.raises(TakeoverUnfinished, match=r"Orbweaver in namespace orbweaver-system runs"):
        made.there(None)

    assert made.phase is Phase.NONE
    assert store.get("Deployment", "my-controller", SPIDER)["spec"]["replicas"] == 3


def test_a_way_that_is_not_finished_is_finished_before_the_other_one(store):
    install(store)
    made = swap(store, [])
    with pytest.raises(InvalidRequest, match="was not taken over"):
        made.back()

    made.spiderpool.change(daemonset(store), lambda obj: _in_phase(obj, Phase.RETURNED))

    with pytest.raises(InvalidRequest, match="--back --yes first"):
        made.there(None)


def test_a_spiderpool_that_somebody_started_again_is_told(store):
    """As `helm upgrade` does."""
    install(store)
    park(store, "orbweaver-agent", OURS)
    made = swap(store, [])
    made.spiderpool.change(daemonset(store), lambda obj: _in_phase(obj, Phase.TAKEN))

    with pytest.raises(TakeoverUnfinished, match=r"Spiderpool in namespace kube-system runs"):
        made.there(None)


def test_ours_is_started_again_where_it_had_taken_over_and_is_parked(store, monkeypatch):
    """Taken off and installed anew: without that nothing would serve."""
    install(store)
    park(store, "orbweaver-agent", OURS)
    lines: list[str] = []
    made = swap(store, lines)
    made.spiderpool.stop()
    made.spiderpool.change(daemonset(store), lambda obj: _in_phase(obj, Phase.TAKEN))
    monkeypatch.setattr("cni.takeover.spiderpool.installation.LIMIT", 0.05)
    monkeypatch.setattr("cni.takeover.waiting.LOOK", 0.02)
    assert any("it is started again" in line for line in Spiderpool(store, read_text).read().differences)

    with pytest.raises(TakeoverUnfinished, match="no controller of Orbweaver is ready"):
        made.there(None)

    assert made.phase is Phase.STARTING
    assert not any("serves every node" in line for line in lines)


def test_the_first_node_is_one_that_agents_may_run_on(store, monkeypatch):
    """On another, no agent at all would count as all being ready."""
    install(store)
    ready = {"conditions": [{"type": "Ready", "status": "True"}]}
    for name, labels in (("n1", {}), ("n2", {"pods": "yes"}), ("n3", {"pods": "yes"})):
        metadata = {"name": name, "labels": labels}
        node = store.create({"apiVersion": "v1", "kind": "Node", "metadata": metadata})
        store.update_status({**node, "status": ready})
    obj = json.loads(json.dumps(store.get("DaemonSet", "orbweaver-agent", OURS)))
    obj["spec"]["template"]["spec"]["nodeSelector"] = {"orbweaver.io/parked": "true", "pods": "yes"}
    store.update(obj)
    chosen: list[str | None] = []
    monkeypatch.setattr(Swap, "there", lambda _swap, first: chosen.append(first))
    monkeypatch.setattr("cni.takeover.spiderpool.source.bring_image", lambda _ours: None)
    source = Spiderpool(store, read_text)

    source.take(source.read(), lambda line: None)

    assert chosen == ["n2"]


def test_a_first_node_without_an_agent_is_no_trial(store, monkeypatch):
    monkeypatch.setattr("cni.takeover.spiderpool.installation.LIMIT", 0.05)
    monkeypatch.setattr("cni.takeover.waiting.LOOK", 0.02)
    install(store)
    store.update_status({**daemonset(store), "status": {"observedGeneration": 99}})
    side = Side(store, find_spiderpool(store, None), lambda line: None)

    with pytest.raises(TakeoverUnfinished, match="no agent of Spiderpool may run on node n1"):
        side.start_agents(Gap(lambda line: None), "n1")


def test_each_start_of_an_agent_has_the_whole_limit(store, monkeypatch):
    """The first one is replaced when the others are ready; what is said meanwhile differs, as each line begins the limit."""
    monkeypatch.setattr("cni.takeover.spiderpool.installation.LIMIT", 120.0)
    monkeypatch.setattr("cni.takeover.waiting.LOOK", 0.02)
    install(store)
    states = iter(((1, 1), (2, 1), (1, 1), (1, 2), (2, 2)))

    def go_on(line: str = "") -> None:
        ready, updated = next(states)
        counts = {"desiredNumberScheduled": 2, "numberReady": ready, "updatedNumberScheduled": updated}
        store.update_status({**daemonset(store), "status": {"observedGeneration": 99, **counts}})

    go_on()

    Side(store, find_spiderpool(store, None), go_on).start_agents(Gap(lambda line: None))

    assert list(states) == []


def test_each_node_is_told_how_long_it_had_no_agent():
    lines: list[str] = []
    times = iter((10.0, 12.0, 13.5, 14.0))
    gap = Gap(lines.append, lambda: next(times))
    gap.begins(["n1", "n2"])

    gap.ends(["n2"])
    gap.ends(["n1", "n2", "seen-by-nobody"])
    gap.ends(["n1"])

    assert lines == [
        "node n2: served again, after 2.0 s without an agent",
        "node n1: served again, after 3.5 s without an agent",
    ]
    assert gap.summary().startswith("2 nodes were without an agent for 3.5 s at most (node n1)")


def test_a_time_that_nobody_saw_the_beginning_of_is_not_told():
    lines: list[str] = []
    gap = Gap(lines.append)

    gap.ends(["n1"])

    assert lines == []
    assert "is not known" in gap.summary()


def test_an_image_that_does_not_come_stops_nothing(store, monkeypatch):
    monkeypatch.setattr("cni.takeover.spiderpool.image.LIMIT", 0.05)
    monkeypatch.setattr("cni.takeover.waiting.LOOK", 0.02)
    install(store)
    before = [obj["spec"] for kind in ("DaemonSet", "Deployment") for obj in store.list(kind).items]

    with pytest.raises(TakeoverUnfinished, match=r"image are not begun.*Nothing has been stopped"):
        bring_image(swap(store, []).ours)

    assert [obj["spec"] for kind in ("DaemonSet", "Deployment") for obj in store.list(kind).items] == before


def test_the_image_is_brought_wherever_agents_may_run_by_pods_that_need_no_address(store, monkeypatch):
    install(store)
    park(store, "orbweaver-agent", OURS)
    seen: list[Object] = []
    side = swap(store, []).ours

    def play(missing, *_):
        assert missing()
        obj = store.get("DaemonSet", "orbweaver-agent-image", OURS)
        seen.append(obj)
        store.update_status({**obj, "status": {"observedGeneration": 99, "desiredNumberScheduled": 1}})
        assert missing() == "Orbweaver's image is on 0 of 1 nodes"
        labels = obj["spec"]["template"]["metadata"]["labels"]
        metadata = {"name": "brings", "namespace": OURS, "labels": labels}
        pod = store.create({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {}})
        store.update_status({**pod, "status": {"containerStatuses": [{"name": "c", "imageID": "sha256:1"}]}})
        assert not missing()

    monkeypatch.setattr("cni.takeover.spiderpool.image.wait_until", play)

    bring_image(side)

    spec = seen[0]["spec"]["template"]["spec"]
    assert spec["hostNetwork"]
    assert spec["nodeSelector"] == {}
    assert [container["command"] for container in spec["containers"]] == [["orbweaver", "--version"]]
    assert not any(obj["metadata"]["name"].endswith("-image") for obj in store.list("DaemonSet").items)
    assert side.is_stopped(), "what brings it is no agent"


def test_a_newer_versions_word_of_how_far_it_is_is_no_bug(store):
    install(store)
    made = swap(store, [])
    obj = daemonset(store)
    store.update({**obj, "metadata": {**obj["metadata"], "annotations": {PHASE: "half-way"}}})

    for way in (made.back, lambda: made.there(None)):
        with pytest.raises(InvalidObject, match=r"my-agent says .*half-way.*newer.*with that version"):
            way()


def test_stale_blocks_are_never_deleted_once_ours_may_have_written_them(store, monkeypatch):
    """Interrupted between the first of our processes and the last: what they recorded stays."""
    monkeypatch.setattr("cni.takeover.spiderpool.swap.LIMIT", 0.05)
    monkeypatch.setattr("cni.takeover.spiderpool.installation.LIMIT", 0.05)
    monkeypatch.setattr("cni.takeover.waiting.LOOK", 0.02)
    install(store)
    park(store, "orbweaver-agent", OURS)
    record(store, "10.6.0.9", "stale")
    made = swap(store, [])

    with pytest.raises(TakeoverUnfinished, match="no controller of Orbweaver is ready"):
        made.there(None)

    assert made.phase is Phase.STARTING
    assert store.list("SpiderIPBlock").items == (), "an earlier stay's"
    record(store, "10.6.0.10", "fresh")
    with pytest.raises(TakeoverUnfinished, match="no controller of Orbweaver is ready"):
        made.there(None)
    assert len(store.list("SpiderIPBlock").items) == 1


def test_webhooks_are_off_and_on_again(store):
    install(store)
    side = Side(store, find_spiderpool(store, None), lambda line: None)
    service = {"name": "spiderpool-controller", "namespace": SPIDER}
    mine = {"name": "spiderippool.spiderpool.spidernet.io", "clientConfig": {"service": service}}
    other = {
        "name": "other.spiderpool.spidernet.io",
        "clientConfig": {"service": service | {"namespace": OURS}},
    }
    for kind in ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"):
        for name, webhook in (("spider", mine), ("other", other)):
            obj = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": name}}
            store.create({**obj, "webhooks": [webhook]})
    webhooks = Webhooks(side)

    webhooks.switch_off()
    webhooks.switch_off()

    kind = "MutatingWebhookConfiguration"
    assert store.get(kind, "spider")["webhooks"] == []
    assert store.get(kind, "other")["webhooks"] == [other]
    webhooks.switch_on()
    assert store.get(kind, "spider")["webhooks"] == [mine]
    assert BEFORE not in store.get(kind, "spider")["metadata"]["annotations"]


def test_what_is_given_back_is_in_spiderpools_own_form(store):
    store.create(pool("blue", "10.6.0.0/16", "10.6.0.1-10.6.0.99", gateway="10.6.0.1", routes=[route()]))
    allocated(store, {"10.6.0.9": {"pod": "default/web", "podUid": "u"}}, ours=True)
    clean = '[{"interface": "eth0", "ipv4": ["blue"]}, {"interface": "net1", "ipv4": ["blue"], "cleangateway": true}]'
    web = store.create(pod("web", owner="apps/v1 ReplicaSet web", ippools=clean))["metadata"]["uid"]
    record(store, "10.6.0.9", "web", uid=web, owner="ReplicaSet/web")
    record(store, "10.6.0.70", "web", uid=web, owner="ReplicaSet/web", interface="net1")
    record(store, "10.6.0.11", "db-0", uid="", container="", owner="StatefulSet/db")
    record(
        store, "10.6.0.12", "virt-launcher-vm-1", owner="VirtualMachineInstance.kubevirt.io/vm", machine="vm"
    )

    holdings = Holdings.read(store)
    give_back_endpoints(store, holdings, lambda line: None)
    give_back_pools(store, holdings, lambda line: None)
    delete_blocks(store, lambda line: None)

    status = store.get("SpiderIPPool", "blue")["status"]
    assert json.loads(status["allocatedIPs"]) == {
        "10.6.0.9": {"pod": "default/web", "podUid": web},
        "10.6.0.70": {"pod": "default/web", "podUid": web},
        "10.6.0.11": {"pod": "default/db-0", "podUid": ""},
        "10.6.0.12": {"pod": "default/vm", "podUid": "u"},
    }
    assert status["allocatedIPCount"] == 4
    assert DIGEST not in status
    endpoint = store.get("SpiderEndpoint", "web", "default")
    assert endpoint["metadata"]["finalizers"] == ["spiderpool.spidernet.io"]
    assert endpoint["metadata"]["ownerReferences"] == [
        {"apiVersion": "v1", "kind": "Pod", "name": "web", "uid": web}
    ]
    assert [
        (entry["interface"], entry["ipv4"], entry["vlan"], entry["cleanGateway"], entry["routes"])
        for entry in endpoint["status"]["current"]["ips"]
    ] == [
        ("eth0", "10.6.0.9/16", 0, False, [route()]),
        ("net1", "10.6.0.70/16", 0, True, [route()]),
    ]
    kept = store.get("SpiderEndpoint", "db-0", "default")
    assert "ownerReferences" not in kept["metadata"], "it outlives the pod"
    assert kept["status"]["ownerControllerType"] == "StatefulSet"
    assert "ownerReferences" not in store.get("SpiderEndpoint", "vm", "default")["metadata"]
    assert store.list("SpiderIPBlock").items == ()


def test_what_nobody_of_ours_has_taken_over_yet_is_given_back_with_it(store):
    store.create(pool("blue", "10.6.0.0/16", "10.6.0.1-10.6.0.99"))
    allocated(store, {"10.6.0.20": {"pod": "default/theirs", "podUid": "u2"}})
    record(store, "10.6.0.9", "web")

    give_back_pools(store, Holdings.read(store), lambda line: None)
    give_back_pools(store, Holdings.read(store), lambda line: None)

    assert set(json.loads(store.get("SpiderIPPool", "blue")["status"]["allocatedIPs"])) == {
        "10.6.0.9",
        "10.6.0.20",
    }


def test_a_status_of_our_own_counts_as_anothers_word_when_we_come_again(store):
    """Were it ours, its addresses would count as free: the blocks that recorded them are gone."""
    store.create(pool("blue", "10.6.0.0/16", "10.6.0.1-10.6.0.99"))
    text = allocated(store, {"10.6.0.20": {"pod": "default/web", "podUid": "u2"}}, ours=True)

    make_foreign(store)

    status = store.get("SpiderIPPool", "blue")["status"]
    assert status == {"allocatedIPs": text}


def test_a_coordinator_can_be_deleted_when_spiderpool_is_gone(store):
    """Its finalizer waits for Spiderpool."""
    metadata = {"name": "default", "finalizers": ["spiderpool.spidernet.io", "of.somebody/else"]}
    api = "spiderpool.spidernet.io/v2beta1"
    store.create({"apiVersion": api, "kind": "SpiderCoordinator", "metadata": metadata, "spec": {}})

    free_coordinators(store)

    assert store.get("SpiderCoordinator", "default")["metadata"]["finalizers"] == ["of.somebody/else"]


def test_static_pods_are_known_by_their_runtimes_uid_here_and_by_their_objects_there(store):
    store.create(pool("blue", "10.6.0.0/16", "10.6.0.1-10.6.0.99"))
    obj = pod("static-n1")
    obj["metadata"]["annotations"]["kubernetes.io/config.mirror"] = "abcdef0123456789"
    uid = store.create(obj)["metadata"]["uid"]
    allocated(store, {"10.6.0.20": {"pod": "default/static-n1", "podUid": uid}})

    make_foreign(store)

    entry = json.loads(store.get("SpiderIPPool", "blue")["status"]["allocatedIPs"])["10.6.0.20"]
    assert entry == {"pod": "default/static-n1", "podUid": "abcdef0123456789"}
    record(store, "10.6.0.20", "static-n1", uid="abcdef0123456789")
    assert [held.record.uid for held in Holdings.read(store).allocations] == [uid]


def test_a_static_pod_that_nobody_of_ours_took_over_is_given_back_by_its_objects_uid(store):
    """Spiderpool takes another UID for that of an earlier pod, and frees the running one's address."""
    store.create(pool("blue", "10.6.0.0/16", "10.6.0.1-10.6.0.99"))
    obj = pod("static-n1")
    obj["metadata"]["annotations"]["kubernetes.io/config.mirror"] = "abcdef0123456789"
    uid = store.create(obj)["metadata"]["uid"]
    allocated(store, {"10.6.0.20": {"pod": "default/static-n1", "podUid": uid}})
    make_foreign(store)

    give_back_pools(store, Holdings.read(store), lambda line: None)

    entry = json.loads(store.get("SpiderIPPool", "blue")["status"]["allocatedIPs"])["10.6.0.20"]
    assert entry == {"pod": "default/static-n1", "podUid": uid}


def test_the_way_back_before_ours_began_leaves_no_uid_of_a_runtime(store, monkeypatch):
    """Ended between the writing of the pools and the note that it is done."""
    install(store)
    park(store, "orbweaver-agent", OURS)
    store.create(pool("blue", "10.6.0.0/16", "10.6.0.1-10.6.0.99"))
    obj = pod("static-n1")
    obj["metadata"]["annotations"]["kubernetes.io/config.mirror"] = "abcdef0123456789"
    uid = store.create(obj)["metadata"]["uid"]
    allocated(store, {"10.6.0.20": {"pod": "default/static-n1", "podUid": uid}})
    made = swap(store, [])
    made.spiderpool.change(daemonset(store), lambda obj: _in_phase(obj, Phase.STOPPING))
    make_foreign(store)
    unread = store.create(pool("red", "10.7.0.0/16", "10.7.0.1-10.7.0.99"))
    store.update_status({**unread, "status": {"allocatedIPs": "{"}})
    monkeypatch.setattr(Side, "start_controllers", lambda *_: None)  # nobody plays the programs here
    monkeypatch.setattr(Side, "start_agents", lambda *_: None)

    made.back()

    assert made.phase is Phase.NONE
    entry = json.loads(store.get("SpiderIPPool", "blue")["status"]["allocatedIPs"])["10.6.0.20"]
    assert entry == {"pod": "default/static-n1", "podUid": uid}


def test_a_block_that_cannot_be_read_forbids_the_way_back(store):
    store.create(pool("blue", "10.6.0.0/16", "10.6.0.1-10.6.0.99"))
    record(store, "10.6.0.9", "web")
    block = store.list("SpiderIPBlock").items[0]
    store.update({**block, "spec": {**block["spec"], "records": "{"}})

    assert len(Holdings.read(store).problems) == 1


def test_settings_and_networks_that_differ_are_told(store):
    install(store)
    conf = {
        "enableIPv6": False,
        "enableStatefulSet": True,
        "iaasNetworkProvider": {"serverUrl": "https://cloud"},
        "podResourceInject": {"enabled": True, "namespacesExclude": ["kube-system"]},
        "somethingNew": 7,
    }
    metadata = {"name": "spiderpool-conf", "namespace": SPIDER}
    text = json.dumps(conf)
    store.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"conf.yml": text}})
    spec = {"cniType": "macvlan", "enableCoordinator": False, "macvlan": {"master": ["eth0"], "mtu": 0}}
    network = {"cniVersion": "0.3.1", "name": "net", "plugins": [{"type": "macvlan", "master": "eth9"}]}
    for kind, api, body in (
        ("SpiderMultusConfig", "spiderpool.spidernet.io/v2beta1", spec),
        ("NetworkAttachmentDefinition", "k8s.cni.cncf.io/v1", {"config": json.dumps(network)}),
    ):
        store.create(
            {
                "apiVersion": api,
                "kind": kind,
                "metadata": {"name": "net", "namespace": "default"},
                "spec": body,
            }
        )

    noticed = compare(store, find_spiderpool(store, None), find_orbweaver(store), read_text)

    told = "\n".join(noticed.differences)
    assert "enableIPv6 is false there and true here" in told
    assert "podResourceInject.enabled has no counterpart" in told
    assert "somethingNew is 7 there" in told
    assert "enableStatefulSet" not in told
    assert "namespacesExclude" not in told
    assert 'plugins[macvlan].master: "eth9" becomes "eth0"' in told
    assert len(noticed.problems) == 1
    assert "iaasNetworkProvider.serverUrl" in noticed.problems[0]


def _in_phase(obj: Object, phase: Phase) -> Object:
    return {**obj, "metadata": {**obj["metadata"], "annotations": {PHASE: phase.value}}}


def park(store: SQLiteStore, name: str, namespace: str) -> None:
    obj = store.get("DaemonSet", name, namespace)
    obj = json.loads(json.dumps(obj))
    obj["spec"]["template"]["spec"]["nodeSelector"] = {"orbweaver.io/parked": "true"}
    store.update(obj)


def route() -> dict[str, str]:
    return {"dst": "10.9.0.0/16", "gw": "10.6.0.2"}


def record(store: SQLiteStore, address: str, name: str, **fields: Any) -> None:
    family, value = parse_address(address)
    told = {"uid": "u", "container": f"c-{name}", "interface": "eth0", "node": "n1", "owner": ""} | fields
    objects = {obj["metadata"]["name"]: obj for obj in store.list("SpiderIPBlock").items}
    block = Block(family, base_of(value))
    if block.name in objects:
        block = Block.from_object(objects[block.name])
    block.records[value] = Record(pool="blue", pod=f"default/{name}", since="2025-01-31T12:00:00Z", **told)
    (store.update if block.version else store.create)(block.to_object())


def allocated(store: SQLiteStore, entries: dict[str, dict[str, str]], *, ours: bool = False) -> str:
    text = json.dumps(entries)
    obj = store.get("SpiderIPPool", "blue")
    status = {"allocatedIPs": text, **({DIGEST: digest_of(text)} if ours else {})}
    store.update_status({**obj, "status": status})
    return text
