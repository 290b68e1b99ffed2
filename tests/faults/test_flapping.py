"""An application that is scaled between 2 and 50 again and again, on a real API server, with a leader that is killed.

Pods come and go as a ReplicaSet's controller and kubelets have it: each has a name of its own; while the ones of the turn
before still end, those of the next ask already, all at once and before anything has settled.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from actors.errors import Conflict, OrbweaverError
from actors.resources.addresses import parse_address
from tests.bench.cluster_peers import LEASE
from tests.support import leaders
from tests.support.application_churn import (
    FLOOR,
    allocated,
    automatic,
    deployment,
    prove_disjoint,
    subnet,
)
from tests.support.checker import equal, eventually
from tests.support.cni_client import add, delete
from tests.support.fleet import NODES, Fleet, fleet, on_node
from tests.support.leaders import ControllerProcess, leader_of
from tests.support.rig import pod
from tests.tools.apiserver import ApiServer

FEW, MANY, TURNS = 2, 50, 4
SETTLES = 180.0
"""Seconds in which everything is as it should be in the end."""
REQUEST = 110.0
"""Seconds of one request: on a busy machine the next leader may take long, and the ADD waits for it."""


@dataclass(frozen=True)
class Running:
    """A pod that has an address."""

    name: str
    uid: str
    node: str
    address: str


class ReplicaSetPods:
    """Pods of one Deployment's ReplicaSet, as its controller and the kubelets make and end them."""

    def __init__(self, one: Fleet) -> None:
        self.one, self.store = one, one.store
        self.sockets = {node: one.agent(node, timeout=REQUEST).socket for node in NODES}
        self.running: list[Running] = []
        self.refusals: list[str] = []
        self._numbers = itertools.count()
        web = self.store.create(deployment("web", FEW, subnet=FLOOR))
        owner = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": "u", "controller": True}
        metadata = {"name": "web-5d4f", "namespace": "default", "ownerReferences": [owner]}
        spec = {key: web["spec"][key] for key in ("replicas", "selector", "template")}
        self.store.create({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": metadata, "spec": spec})

    def scale(self, replicas: int) -> None:
        """As an autoscaler writes it, and the Deployment's controller after it."""
        for kind, name in (("Deployment", "web"), ("ReplicaSet", "web-5d4f")):
            self._change(kind, name, lambda spec: {**spec, "replicas": replicas})

    def _change(self, kind: str, name: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        while True:
            with suppress(Conflict):
                stored = self.store.get(kind, name, "default")
                self.store.update({**stored, "spec": change(stored["spec"])})
                return

    def start(self) -> Running:
        """A new pod, whose ADD is asked once."""
        number = next(self._numbers)
        name, node = f"web-5d4f-{number:04}", NODES[number % len(NODES)]
        asked = pod(name, owner="apps/v1 ReplicaSet web-5d4f", subnet=FLOOR)
        uid = str(self.store.create(on_node(asked, node))["metadata"]["uid"])
        answer = add(self.sockets[node], self.one.journal, (f"c-{name}", "eth0"), pod=name, uid=uid)
        if answer is None or answer.status:
            self.refusals.append(f"{name}: {answer}")
            raise AssertionError(f"ADD of {name}: {answer}")
        return Running(name, uid, node, answer.addresses[0])

    def end(self, pod: Running) -> None:
        """It is being deleted, its sandbox ends, and it is gone."""
        path = f"/api/v1/namespaces/default/pods/{pod.name}"
        self.one.server.ask("DELETE", path, {"gracePeriodSeconds": 30})
        place = (f"c-{pod.name}", "eth0")
        answer = delete(self.sockets[pod.node], self.one.journal, place, pod=pod.name, uid=pod.uid)
        assert answer is not None, pod
        assert answer.status == 0, answer
        self.one.server.ask("DELETE", path, {"gracePeriodSeconds": 0})


@contextmanager
def watched(one: Fleet) -> Iterator[list[str]]:
    """What was wrong at any look while this lasted: one address in two pools."""
    stopping, faults = threading.Event(), list[str]()

    def look() -> None:
        while not stopping.wait(0.3):
            try:
                prove_disjoint(one.store)
            except AssertionError as error:
                faults.append(str(error))
            except OrbweaverError:
                continue

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield faults
    finally:
        stopping.set()
        thread.join()


def flap(pods: ReplicaSetPods, controllers: Sequence[ControllerProcess]) -> None:
    """Up and down, `TURNS` times; in one of them the leader is killed while pods wait for their addresses."""
    ending: list[Any] = []
    with ThreadPoolExecutor(2 * MANY) as threads:
        for turn in range(TURNS):
            pods.scale(MANY)
            starting = [threads.submit(pods.start) for _ in range(MANY - len(pods.running))]
            if turn == 1:
                leader = leader_of(pods.store, list(controllers))
                leader.kill()
                leader.start()
            pods.running += [started.result() for started in starting]
            addresses = {running.address for running in pods.running}
            assert len(addresses) == MANY
            pods.scale(FEW)
            pods.running, gone = pods.running[:FEW], pods.running[FEW:]
            ending += [threads.submit(pods.end, running) for running in gone]  # the next turn does not wait
        for ended in ending:
            ended.result()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_flapping_between_2_and_50_refuses_no_pod_and_ends_in_the_right_size(
    api_server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leaders, "QUICK", LEASE)
    floor = subnet("floor", "10.6.0.0/16", "10.6.1.0-10.6.1.255", gateway="10.6.0.1")
    # The controllers here are the administrator, whom the policy takes for a person that edits a pool.
    with api_server.without_policy("orbweaver-automatic-pools"), fleet(tmp_path, api_server, floor) as one:
        controllers = [one.controller(name) for name in ("first", "second")]
        leader_of(one.store, controllers)
        pods = ReplicaSetPods(one)
        with watched(one) as faults:
            pods.running = [pods.start() for _ in range(FEW)]
            first = [running.address for running in pods.running]

            flap(pods, controllers)

            assert pods.refusals == []
            assert [running.address for running in pods.running] == first
            eventually(lambda: equal([found.ips.size for found in automatic(one.store)], [FEW + 1]), SETTLES)
            eventually(lambda: equal(allocated(one.store, "floor"), FEW + 1), SETTLES)
            one.prove(SETTLES)
            (left,) = automatic(one.store)
            for running in pods.running:
                assert left.ips.contains(_number(running.address))

            for running in pods.running:
                pods.end(running)
            for kind, name in (("ReplicaSet", "web-5d4f"), ("Deployment", "web")):
                one.store.delete(kind, name, "default")
            eventually(lambda: equal(automatic(one.store), []), SETTLES)
            eventually(lambda: equal(allocated(one.store, "floor"), 0), SETTLES)
            one.prove(SETTLES)
        assert faults == []


def _number(address: str) -> int:
    return parse_address(address.partition("/")[0])[1]
