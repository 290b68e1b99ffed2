"""takeover: there, back and there again on a real API server, with pods that come and go all the time."""

from __future__ import annotations

import json
import random
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from actors.store.contract import Object
from cni.command.main import main
from cni.takeover.spiderpool.installation import (
    GRACE,
    Installation,
    Side,
    find_orbweaver,
    find_spiderpool,
)
from tests.deploy.test_refused_writes import BINDINGS, POLICIES
from tests.support.agent_process import PROGRAM
from tests.support.checker import equal, eventually, records
from tests.support.cluster import ClusterStore
from tests.support.rig import pool, statefulset
from tests.support.spiderpool_objects import install
from tests.support.takeover_stage import THEIRS, Stage, stage
from tests.tools.apiserver import ApiServer

POOLS = (
    pool("blue", "10.6.0.0/16", "10.6.0.10-10.6.0.69", gateway="10.6.0.1"),
    pool("red", "10.7.0.0/16", "10.7.0.10-10.7.0.69"),
)
APPLICATION = (
    {
        "apiVersion": "spiderpool.spidernet.io/v2beta1",
        "kind": "SpiderSubnet",
        "metadata": {"name": "floor"},
        "spec": {"subnet": "10.8.0.0/16", "ips": ["10.8.0.10-10.8.0.19"]},
    },
    {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "app", "namespace": "default"},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": "app"}},
            "template": {
                "metadata": {
                    "labels": {"app": "app"},
                    "annotations": {"ipam.spidernet.io/subnet": '{"ipv4": ["floor"]}'},
                },
                "spec": {"containers": [{"name": "main", "image": "none"}]},
            },
        },
    },
)
PODS = "/api/v1/namespaces/default/pods"
WORKLOADS = (("DaemonSet", "spiderpool-agent"), ("Deployment", "spiderpool-controller"))


@pytest.fixture
def on_stage(store: ClusterStore, api_server: ApiServer, tmp_path: Path) -> Iterator[Stage]:
    with stage(store, api_server, tmp_path / "stage", *POOLS, statefulset("web", 1)) as made:
        yield made


def takeover(made: Stage, *options: str) -> int:
    return main(["takeover", "--from", "spiderpool", *options, "--kubeconfig", str(made.server.kubeconfig)])


def held(made: Stage) -> dict[str, str]:
    """Address to UID of the pods that run."""
    return {address: place[0] for place, addresses in made.journal.held.items() for address in addresses}


def prove_ours(made: Stage) -> None:
    """What runs is recorded for its pod, and nothing else is."""
    recorded, running = records(made.store), held(made)
    assert {address: record for address, record in recorded.items() if address not in running} == {}
    assert {address: record.get("uid", "") for address, record in recorded.items()} == running


def allocated(store: ClusterStore) -> dict[str, str]:
    """Address to UID, by the pools' status."""
    entries: dict[str, str] = {}
    for obj in store.list("SpiderIPPool").items:
        for address, entry in json.loads((obj.get("status") or {}).get("allocatedIPs") or "{}").items():
            entries[address] = entry["podUid"]
    return entries


def prove_theirs(made: Stage) -> None:
    """What runs stands in the pools and in SpiderEndpoints of Spiderpool's form; what a pod that is gone still has there is
    for its controller to free."""
    entries, running = allocated(made.store), held(made)
    assert running.items() <= entries.items()
    pods = {obj["metadata"]["uid"] for obj in made.store.list("Pod").items}
    assert not {uid for address, uid in entries.items() if address not in running} & pods
    shown: dict[str, str] = {}
    for obj in made.store.list("SpiderEndpoint").items:
        current = obj["status"]["current"]
        for entry in current["ips"]:
            shown[entry["ipv4"].partition("/")[0]] = current["uid"]
        if current["uid"] in pods:
            assert obj["metadata"]["finalizers"] == ["spiderpool.spidernet.io"], obj
            owners = [owner["uid"] for owner in obj["metadata"].get("ownerReferences") or ()]
            kept = obj["status"]["ownerControllerType"] == "StatefulSet"
            assert owners == ([] if kept else [current["uid"]]), obj
    assert running.items() <= shown.items()


def objects(store: ClusterStore) -> list[Object]:
    """All that a dry run could change."""
    kinds = ("SpiderIPPool", "SpiderEndpoint", "SpiderIPBlock", "DaemonSet", "Deployment", "ConfigMap")
    return [obj for kind in kinds for obj in store.list(kind).items]


def test_a_dry_run_tells_what_there_is_and_what_will_differ(
    on_stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    on_stage.start_pod("a", "n1")
    before = objects(on_stage.store)

    assert takeover(on_stage, "-o", "json") == 0
    told = json.loads(capsys.readouterr().out)

    assert objects(on_stage.store) == before
    assert "Spiderpool 1.2.2 in namespace kube-system" in told["source"]
    assert [entry["pod"] for entry in told["allocations"]] == ["default/a"]
    assert told["allocations"][0]["node"] == "n1"
    assert told["allocations"][0]["interface"] == "eth0"
    assert any(line.startswith("tuneSysctlConfig has no counterpart") for line in told["differences"])
    assert told["problems"] == []


@pytest.mark.slow
def test_there_and_back_and_there_again_no_pod_loses_its_address(
    on_stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before, during and after: no two pods have one address, whoever gave it, and each keeps the one that it has."""
    made = on_stage
    web = made.start_pod("web-0", "n1", owner="web")
    with made.churn(seed=10):
        made.wait_added(8)
        assert takeover(made, "--yes") == 0
        made.wait_added(8)
    prove_told(made, capsys.readouterr().out)
    assert made.brought == len(made.machines), "the image came to each node before anything was stopped"
    assert {machine.serving for machine in made.machines.values()} == {"orbweaver-agent"}
    eventually(lambda: prove_ours(made))
    assert web_again(made, web)["got"] == web["got"]
    for obj in APPLICATION:
        made.store.create(obj)
    eventually(lambda: prove_pool_made(made.store))
    pools = pools_of_subnet(made.store)

    with made.churn(seed=20):
        made.wait_added(8)
        assert takeover(made, "--back", "--yes") == 0
        made.wait_added(8)
    prove_told(made, capsys.readouterr().out)
    assert {machine.serving for machine in made.machines.values()} == {"spiderpool-agent"}
    eventually(lambda: prove_theirs(made))
    assert made.store.list("SpiderIPBlock").items == ()
    assert pools_of_subnet(made.store) == pools

    ended = made.left[::2]
    for each in ended:
        made.end_pod(each)
    del made.left[::2]
    eventually(lambda: prove_gone(made, ended))

    with made.churn(seed=30):
        made.wait_added(8)
        assert takeover(made, "--yes") == 0
        made.wait_added(8)
    eventually(lambda: prove_ours(made))
    assert pools_of_subnet(made.store) == pools
    assert not made.overlap


def prove_told(made: Stage, printed: str) -> None:
    """It said of each node how long it had no agent."""
    told = re.findall(r"^node (\w+): served again, after [\d.]+ s without an agent$", printed, re.MULTILINE)
    assert sorted(told) == sorted(made.machines)
    assert "nodes were without an agent for" in printed


@contextmanager
def stopped_slowly(store: ClusterStore, found: Installation) -> Iterator[list[str]]:
    """A side that is stopped while a pod of its agents is being deleted, which says that it may take 30 s; yields what the
    command tells."""
    name = found.agents
    metadata = {"name": "slow", "namespace": found.namespace, "labels": {"app": name}}
    spec = {"nodeName": "n1", "containers": [{"name": "agent", "image": "none"}]}
    store.create({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    store.delete("Pod", "slow", found.namespace)  # as the DaemonSet's controller does
    lines: list[str] = []
    side = Side(store, found, lines.append)
    stopping = threading.Thread(target=side.stop)
    stopping.start()
    try:
        yield lines
        assert stopping.is_alive()
    finally:
        store.delete("Pod", "slow", found.namespace, grace=0)
        stopping.join(120)
    assert side.is_stopped()


def grace_of(store: ClusterStore, found: Installation) -> int:
    return int(store.get("Pod", "slow", found.namespace)["metadata"]["deletionGracePeriodSeconds"])


def prove_told_to_wait(lines: list[str]) -> None:
    assert [line for line in lines if "1 pods" in line and "still run (slow)" in line]


def test_what_is_told_to_end_is_given_little_time(store: ClusterStore) -> None:
    """A pod says how long it may take, which is as long as nobody gives out an address. It is waited for all the same."""
    install(store)
    found = find_spiderpool(store, None)

    with stopped_slowly(store, found):
        eventually(lambda: equal(grace_of(store, found), GRACE))


def test_our_agents_end_in_their_own_time(store: ClusterStore) -> None:
    """They answer what they were asked before."""
    install(store)
    found = find_orbweaver(store)

    with stopped_slowly(store, found) as lines:
        eventually(lambda: prove_told_to_wait(lines))
        assert grace_of(store, found) == 30


def test_where_nobody_may_be_hurried_they_are_waited_for(store: ClusterStore, api_server: ApiServer) -> None:
    install(store)
    found = find_spiderpool(store, None)

    with no_haste(api_server), stopped_slowly(store, found) as lines:
        eventually(lambda: prove_told_to_wait(lines))
        assert [line for line in lines if "pod slow is waited for" in line and "no haste here" in line]
        assert grace_of(store, found) == 30


@contextmanager
def no_haste(server: ApiServer) -> Iterator[None]:
    """A policy against giving pods as little as a takeover does."""
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["DELETE"], "resources": ["pods"]}
    hasty = f"has(request.options.gracePeriodSeconds) && request.options.gracePeriodSeconds == {GRACE}"
    spec = {
        "matchConstraints": {"resourceRules": [rule]},
        "validations": [{"expression": f"!({hasty})", "message": "no haste here"}],
    }
    bound = {"policyName": "no-haste", "validationActions": ["Deny"]}
    probe = {"nodeName": "n1", "containers": [{"name": "main", "image": "none"}]}
    server.call("POST", POLICIES, {"metadata": {"name": "no-haste"}, "spec": spec})
    server.call("POST", BINDINGS, {"metadata": {"name": "no-haste"}, "spec": bound})
    server.call("POST", PODS, {"metadata": {"name": "probe"}, "spec": probe})
    try:
        eventually(lambda: equal(_hastily(server), 422))
        yield
    finally:
        server.call("DELETE", f"{BINDINGS}/no-haste")
        server.call("DELETE", f"{POLICIES}/no-haste")
        eventually(lambda: equal(_hastily(server), 200))
        server.call("DELETE", f"{PODS}/probe?gracePeriodSeconds=0")


def _hastily(server: ApiServer) -> int:
    """The answer to a deletion, which is not done."""
    return server.ask("DELETE", f"{PODS}/probe?dryRun=All&gracePeriodSeconds={GRACE}")[0]


def prove_pool_made(store: ClusterStore) -> None:
    assert pools_of_subnet(store)


def pools_of_subnet(store: ClusterStore) -> tuple[Any, ...]:
    """What a subnet says of its pools, and the one that was made from it: both as Spiderpool reads them."""
    status = store.get("SpiderSubnet", "floor")["status"]
    controlled = json.loads(status["controlledIPPools"])
    (name,) = controlled
    made = store.get("SpiderIPPool", name)
    assert len(made["spec"]["ips"]) == 1
    return controlled, status["allocatedIPCount"], made["spec"], made["metadata"]["labels"]


@pytest.mark.slow
def test_killed_anywhere_it_goes_on_from_there(on_stage: Stage) -> None:
    """kill -9 of the command, as often as it takes until it is done by itself, on both ways."""
    made, chance = on_stage, random.Random(1)
    before = [made.store.get(kind, name, THEIRS)["spec"] for kind, name in WORKLOADS]
    with made.churn(seed=10):
        made.wait_added(4)
        there = killed(made, chance)
        made.wait_added(4)
        assert {machine.serving for machine in made.machines.values()} == {"orbweaver-agent"}
        back = killed(made, chance, "--back")
        made.wait_added(4)

    assert there + back > 2
    assert {machine.serving for machine in made.machines.values()} == {"spiderpool-agent"}
    eventually(lambda: prove_theirs(made))
    assert made.store.list("SpiderIPBlock").items == ()
    assert not made.overlap
    workloads = [made.store.get(kind, name, THEIRS) for kind, name in WORKLOADS]
    assert [obj["spec"] for obj in workloads] == before
    assert not [obj for obj in workloads if "orbweaver.io" in json.dumps(obj["metadata"].get("annotations"))]


def killed(made: Stage, chance: random.Random, *options: str) -> int:
    """How often the command was killed before it was done."""
    arguments = ["takeover", "--from", "spiderpool", "--yes", *options]
    for times in count():
        process = subprocess.Popen([*PROGRAM, *arguments, "--kubeconfig", str(made.server.kubeconfig)])
        # Later each time, so that it comes to an end.
        with suppress(subprocess.TimeoutExpired):
            assert process.wait(chance.uniform(0.5, 3.0) + 1.5 * times) == 0
            return times
        process.kill()
        process.wait(30)
    raise AssertionError


def web_again(made: Stage, before: Object) -> Object:
    """The next pod of the StatefulSet's."""
    made.end_pod(
        made.store.get("Pod", "web-0", "default") | {key: before[key] for key in ("container", "got")}
    )
    return made.start_pod("web-0", "n2", owner="web")


def prove_gone(made: Stage, ended: list[Object]) -> None:
    """The SpiderEndpoints of pods that Spiderpool was told the end of are gone with them."""
    endpoints = {obj["metadata"]["name"] for obj in made.store.list("SpiderEndpoint").items}
    assert not endpoints & {obj["metadata"]["name"] for obj in ended}
