"""Applications that come, scale and go, with pods on two nodes, while a test does what it likes to their leader.

What must always hold: at no moment has one address two automatic pools; nobody is told an address that somebody else was told.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from typing import Any, Self

from actors.errors import Conflict, NotFound, OrbweaverError
from actors.resources.intervals import IntervalSet
from actors.resources.ippool import IPPool
from actors.store.contract import Store
from tests.support.agent_process import AgentProcess
from tests.support.checker import Place
from tests.support.cni_client import add, delete
from tests.support.fleet import Fleet, on_node
from tests.support.processes import PodName
from tests.support.rig import pod

API = "spiderpool.spidernet.io/v2beta1"
FLOOR = '{"ipv4":["floor"]}'
PATIENCE = 240.0
"""Seconds in which a pod of an application gets its address, whatever happens to the leader."""


def subnet(name: str, cidr: str, *ips: str, **spec: Any) -> dict[str, Any]:
    body = {"subnet": cidr, "ips": list(ips), **spec}
    return {"apiVersion": API, "kind": "SpiderSubnet", "metadata": {"name": name}, "spec": body}


def deployment(name: str, replicas: int, **annotations: str) -> dict[str, Any]:
    named = {f"ipam.spidernet.io/{key.replace('_', '-')}": value for key, value in annotations.items()}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"replicas": replicas, "template": {"metadata": {"annotations": named}}},
    }


def automatic(store: Store) -> list[IPPool]:
    """The automatic pools at one moment."""
    return [
        ippool for obj in store.list("SpiderIPPool").items if (ippool := IPPool.from_object(obj)).auto_created
    ]


def prove_disjoint(store: Store) -> None:
    """No address is in two pools."""
    given = IntervalSet()
    for ippool in automatic(store):
        assert not given.intersect(ippool.ips), f"{ippool.name} has addresses of another pool"
        given = given.union(ippool.ips)


def allocated(store: Store, name: str) -> int:
    status: dict[str, int] = store.get("SpiderSubnet", name).get("status") or {}
    return status.get("allocatedIPCount", 0)


class ApplicationChurn:
    """`workers` threads, each with applications of its own, one after the other. As a context manager it stops them and lets
    every pod go at the end."""

    def __init__(self, fleet: Fleet, agents: dict[str, AgentProcess], workers: int, seed: int) -> None:
        self._fleet, self._agents = fleet, agents
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self.applications = 0
        self.pods = 0
        self.failures: list[str] = []
        self.latencies: list[float] = []
        self._threads = [
            threading.Thread(
                target=self._guarded, args=(number, random.Random(seed * 1000 + number)), daemon=True
            )
            for number in range(workers)
        ]
        self._threads.append(threading.Thread(target=self._look, daemon=True))

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _look(self) -> None:
        while not self._stopping.wait(0.5):
            try:
                prove_disjoint(self._fleet.store)
            except AssertionError as error:
                self.failures.append(str(error))
                return
            except OrbweaverError:
                continue

    def _guarded(self, number: int, chance: random.Random) -> None:
        generation = 0
        try:
            while not self._stopping.is_set():
                self._live(f"app-{number}-{generation % 3}", f"{number}-{generation}", chance)
                generation += 1
        except Exception as error:
            self.failures.append(f"{type(error).__name__}: {error}")

    def _live(self, name: str, life: str, chance: random.Random) -> None:
        """One application, from its making to its end."""
        store = self._fleet.store
        more = {"ippool_ip_number": chance.choice(("+0", "+1", "4"))} if chance.random() < 0.7 else {}
        store.create(deployment(name, replicas := chance.randint(1, 3), subnet=FLOOR, **more))
        attached: list[tuple[Place, PodName, str]] = []
        try:
            for turn in range(chance.randint(1, 4)):
                while len(attached) < replicas and not self._stopping.is_set():
                    attached.append(self._start(f"{name}-{life}-{turn}-{len(attached)}", name, chance))
                while len(attached) > replicas:
                    self._end(*attached.pop(chance.randrange(len(attached))))
                if self._stopping.is_set():
                    break
                replicas = chance.randint(1, 4)
                self._scale(name, replicas)
        finally:
            while attached:
                self._end(*attached.pop())
            store.delete("Deployment", name, "default")
            with self._lock:
                self.applications += 1

    def _scale(self, name: str, replicas: int) -> None:
        while True:
            deployed = self._fleet.store.get("Deployment", name, "default")
            with contextlib.suppress(Conflict):
                self._fleet.store.update({**deployed, "spec": {**deployed["spec"], "replicas": replicas}})
                return

    def _start(self, name: str, application: str, chance: random.Random) -> tuple[Place, PodName, str]:
        node = chance.choice(tuple(self._agents))
        wanted = pod(name, owner=f"apps/v1 Deployment {application}", subnet=FLOOR)
        created = self._fleet.store.create(on_node(wanted, node))
        this = PodName(name, created["metadata"]["uid"])
        place = (f"c-{name}", "eth0")
        began = time.monotonic()
        while True:
            answer = add(self._agents[node].socket, self._fleet.journal, place, pod=this.name, uid=this.uid)
            if answer is not None and answer.status == 0:
                with self._lock:
                    self.pods += 1
                    self.latencies.append(time.monotonic() - began)
                return place, this, node
            if time.monotonic() - began > PATIENCE:
                raise AssertionError(f"pod {name} got no address: {answer}")
            time.sleep(0.2)

    def _end(self, place: Place, this: PodName, node: str) -> None:
        while True:
            answer = delete(
                self._agents[node].socket, self._fleet.journal, place, pod=this.name, uid=this.uid
            )
            if answer is not None and answer.status == 0:
                break
            time.sleep(0.2)
        with contextlib.suppress(NotFound):
            path = f"/api/v1/namespaces/default/pods/{this.name}"
            self._fleet.server.ask("DELETE", path, {"gracePeriodSeconds": 0})
