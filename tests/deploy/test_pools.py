"""Pools in a cluster: refusals are told to the pod's owner, deletion waits, two agents share, and a crash loses nothing."""

from __future__ import annotations

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.test_agent import Pods, agent, controller
from tests.support.agent_process import AgentProcess
from tests.support.checker import eventually, records
from tests.support.cluster import ClusterStore
from tests.support.rig import pod, pool
from tests.tools.apiserver import ADMIN_TOKEN, ApiServer


@pytest.fixture
def config(api_server: ApiServer, tmp_path: Path) -> Path:
    return api_server.write_kubeconfig(tmp_path / "config", ADMIN_TOKEN)


def test_a_refused_pod_has_an_event_that_says_why(config: Path, store: ClusterStore, tmp_path: Path) -> None:
    """Each pool considered is named, with the rule that refused it; a second refusal counts up."""
    store.create(pool("tiny", "10.6.0.0/16", "10.6.0.1"))
    store.create(pool("other", "10.7.0.0/16", "10.7.0.1", nodeName=["elsewhere"]))
    with agent(config, tmp_path / "agent") as running:
        pods = Pods(running, store)
        pods.add("first")
        store.create(pod("late"))
        for attempt in ("c-1", "c-2"):
            status, answer = pods.answered("ADD", "late", attempt)
            assert status != 0
            assert answer["code"] == 101

        def told() -> None:
            found = [
                event
                for event in store.list("Event", "default").items
                if event["involvedObject"]["name"] == "late"
            ]
            assert len(found) == 1
            event = found[0]
            assert event["type"] == "Warning"
            # The second one is counted a minute later.
            assert event["count"] in (1, 2)
            assert "pool tiny 1 in use, 0 reserved, 0 in quarantine" in event["message"]
            assert "pool other refused: node name" in event["message"]

        eventually(told)


def test_the_networks_own_addresses_are_given_to_nobody_and_told(
    config: Path, store: ClusterStore, tmp_path: Path
) -> None:
    store.create(pool("whole", "10.6.0.0/30", "10.6.0.0-10.6.0.3"))
    with controller(store), agent(config, tmp_path / "agent") as running:
        pods = Pods(running, store)
        assert {pods.add("one"), pods.add("two")} == {"10.6.0.1", "10.6.0.2"}
        pods.make("three")
        assert pods.answered("ADD", "three", "c-three")[1]["code"] == 101

        def told() -> None:
            assert store.get("SpiderIPPool", "whole")["status"]["totalIPCount"] == 2
            (event,) = [one for one in store.list("Event").items if one["reason"] == "AddressesWithheld"]
            assert "10.6.0.0, 10.6.0.3 (network and broadcast address of 10.6.0.0/30)" in event["message"]

        eventually(told)


def test_a_pool_made_with_kubectl_is_completed_and_goes_with_its_last_address(
    config: Path, store: ClusterStore, tmp_path: Path
) -> None:
    made = pool("blue", "10.6.0.0/16", "10.6.0.1-10.6.0.9")
    made["metadata"].pop("finalizers", None)
    made["spec"].pop("ipVersion", None)
    store.create(made)
    with controller(store), agent(config, tmp_path / "agent") as running:
        pods = Pods(running, store)
        pods.add("web")

        def completed() -> None:
            found = store.get("SpiderIPPool", "blue")
            assert found["spec"].get("ipVersion") == 4
            assert found["metadata"].get("finalizers") == ["spiderpool.spidernet.io"]
            assert found.get("status", {}).get("allocatedIPCount") == 1
            assert json.loads(found["status"]["allocatedIPs"])["10.6.0.1"]["pod"] == "default/web"

        eventually(completed)
        store.delete("SpiderIPPool", "blue")
        assert store.get("SpiderIPPool", "blue")["metadata"]["deletionTimestamp"]
        store.create(pod("late"))

        def refused() -> None:
            status, answer = pods.call("ADD", "late", "c-late")
            if status == 0:  # the caches learn of the deletion a moment later
                pods.call("DEL", "late", "c-late")
            assert status != 0
            assert "terminating" in answer["msg"]

        eventually(refused)
        assert pods.answered("DEL", "web", "c-web")[0] == 0
        eventually(lambda: _gone(store, "blue"))


def _gone(store: ClusterStore, name: str) -> None:
    assert name not in {obj["metadata"]["name"] for obj in store.list("SpiderIPPool").items}


def test_two_agents_empty_one_pool_and_share_what_comes_back(
    config: Path, store: ClusterStore, tmp_path: Path
) -> None:
    """As many addresses as pods, half of them on each node: all get one, none twice, and a release on one node serves
    a pod on the other."""
    store.create(pool("blue", "10.6.0.0/16", "10.6.0.1-10.6.0.40"))
    names = [f"web-{number}" for number in range(40)]
    for name in (*names, "late"):
        store.create(pod(name))
    second = AgentProcess(tmp_path / "b", kubeconfig=config, node="node2")
    with agent(config, tmp_path / "a") as first, second:
        nodes = [Pods(first, store), Pods(second, store)]

        def add(number: int) -> str:
            status, answer = nodes[number % 2].answered("ADD", names[number], f"c-{names[number]}")
            assert status == 0, answer
            return str(answer["ips"][0]["address"]).partition("/")[0]

        with ThreadPoolExecutor(8) as workers:
            held = list(workers.map(add, range(40)))
        assert Counter(held).most_common(1)[0][1] == 1
        assert set(records(store)) == set(held)

        assert nodes[0].call("ADD", "late", "c-late")[0] != 0
        assert nodes[1].answered("DEL", names[1], f"c-{names[1]}")[0] == 0

        def served() -> None:
            status, answer = nodes[0].call("ADD", "late", "c-late-2")
            assert status == 0, answer
            assert str(answer["ips"][0]["address"]).partition("/")[0] == held[1]

        eventually(served)


def test_an_agent_that_is_killed_loses_nothing(config: Path, store: ClusterStore, tmp_path: Path) -> None:
    """kill -9 while ADDs are under way, five times: what was acknowledged is recorded, and a repeated ADD gets the same."""
    store.create(pool("blue", "10.6.0.0/16", "10.6.0.1-10.6.0.99"))
    held: dict[str, str] = {}
    running = agent(config, tmp_path / "agent")
    for life in range(5):
        running.start()
        pods = Pods(running, store)
        names = [f"web-{life}-{number}" for number in range(8)]
        for name in names:
            store.create(pod(name))
        with ThreadPoolExecutor(8) as workers:
            answers = [workers.submit(pods.call, "ADD", name, f"c-{name}") for name in names]
            if life < 4:
                next(answer for answer in answers if answer.result() is not None)
                running.kill()
            for name, answer in zip(names, answers, strict=True):
                status, result = answer.result()
                if status == 0:
                    held[name] = str(result["ips"][0]["address"]).partition("/")[0]
    try:
        assert len(set(held.values())) == len(held)
        found = records(store)
        assert {name: found[ip]["pod"] for name, ip in held.items()} == {
            name: f"default/{name}" for name in held
        }
        for name, ip in held.items():
            status, result = pods.answered("ADD", name, f"c-{name}")
            assert (status, str(result["ips"][0]["address"]).partition("/")[0]) == (0, ip)
        for life in range(5):
            for number in range(8):
                assert pods.answered("DEL", f"web-{life}-{number}", f"c-web-{life}-{number}")[0] == 0
        assert records(store) == {}
    finally:
        running.stop()


def test_a_hundred_pools_alike_made_at_once_never_give_one_address_twice(
    api_server: ApiServer, config: Path, store: ClusterStore, tmp_path: Path
) -> None:
    """By 20 clients, while two agents give out addresses: each pool says which ones it overlaps, and no more once those
    are gone; 30 addresses in all of them together serve 30 pods, and not one more."""
    names = [f"alike-{number:02}" for number in range(100)]
    clients = [ClusterStore(api_server.access()) for _ in range(20)]

    def make(client: int) -> None:
        for name in names[client::20]:
            clients[client].create(pool(name, "10.6.0.0/16", "10.6.0.50-10.6.0.79"))
        clients[client].close()

    with (
        controller(store),
        agent(config, tmp_path / "one") as one,
        agent(config, tmp_path / "two") as two,
        ThreadPoolExecutor(20) as executor,
    ):
        list(executor.map(make, range(20)))
        runtimes = [Pods(one, store), Pods(two, store)]

        def add(number: int) -> str:
            return runtimes[number % 2].add(f"pod-{number}")

        with ThreadPoolExecutor(8) as runtime:
            found = list(runtime.map(add, range(30)))
        assert sorted(found) == sorted(f"10.6.0.{last}" for last in range(50, 80))
        assert set(records(store)) == set(found)
        runtimes[0].make("late")

        status, answer = runtimes[0].answered("ADD", "late", "c-late")
        assert (status != 0, answer["code"]) == (True, 101)

        def all_tell() -> None:
            for name, obj in statuses(store).items():
                others = [other for other in names if other != name]
                assert (obj.get("overlaps"), obj.get("overlapCount")) == (others, 99), name

        eventually(all_tell)

        def told() -> None:
            reasons = {(event["reason"], event["type"]) for event in store.list("Event").items}
            assert ("PoolsOverlap", "Warning") in reasons

        eventually(told)

        # Those that are still in use would stay until their last address is back: edited, they overlap no more.
        for number, name in enumerate(names):
            move_apart(store, name, number)

        def none_tells() -> None:
            assert not any("overlaps" in status for status in statuses(store).values())

        eventually(none_tells)


def statuses(store: ClusterStore) -> dict[str, dict[str, Any]]:
    found = {obj["metadata"]["name"]: obj.get("status") or {} for obj in store.list("SpiderIPPool").items}
    return {name: status for name, status in found.items() if name.startswith("alike-")}


def move_apart(store: ClusterStore, name: str, number: int) -> None:
    """The pool keeps what is in use of it, and otherwise has one address that no other pool has."""

    def edit() -> None:
        found = store.get("SpiderIPPool", name)
        used = [address for address, record in records(store).items() if record["pool"] == name]
        store.update({**found, "spec": {**found["spec"], "ips": [*used, f"10.6.9.{number}"]}})

    eventually(edit)
