"""Random lives of applications on a whole agent: whatever happens, in the end every subnet has all its addresses again."""

from __future__ import annotations

import contextlib
import json
import random
from pathlib import Path
from typing import Any

import pytest

from actors.errors import Conflict, NotFound, OrbweaverError
from actors.resources.intervals import IntervalSet
from actors.resources.ippool import IPPool
from actors.resources.subnet import SpiderSubnet
from actors.resources.workload import IP_NUMBER, RECLAIM, SUBNET
from tests.actors.subnets.test_standalone import subnet
from tests.support.checker import equal, eventually
from tests.support.rig import Rig, pod, rig, sandbox
from tests.support.seed import fresh_seed

FLOOR = subnet("floor", "10.6.0.0/16", "10.6.1.1-10.6.1.80", gateway="10.6.0.1")
ATTIC = subnet("attic", "10.7.0.0/16", "10.7.1.1-10.7.1.80")
SIX = subnet("six", "fd00:6::/64", "fd00:6::1-fd00:6::40")
WISHES: tuple[dict[str, list[str]], ...] = (
    {"ipv4": ["floor"]},
    {"ipv4": ["attic", "floor"]},
    {"ipv4": ["fl*"], "ipv6": ["six"]},
    {"ipv4": ["attic"]},
)


class RandomLives:
    """Some applications of two kinds, their pods, and a person who deletes pools. Not more pods than an application wants."""

    def __init__(self, found: Rig, chance: random.Random) -> None:
        self.found, self.chance = found, chance
        self.there: dict[tuple[str, str], tuple[int, dict[str, str]]] = {}
        """What each application wants, by kind and name: replicas, and its template's annotations."""
        self.pods: dict[str, tuple[str, str]] = {}
        """The application of each pod that has an address."""
        self.number = 0

    def step(self) -> None:
        key = self.chance.choice(("Deployment", "ReplicaSet")), self.chance.choice(("web", "db"))
        if key not in self.there:
            self.apply(key, self.chance.randrange(6), self.wish())
            return
        replicas, annotations = self.there[key]
        match self.chance.choice(("scale", "scale", "pod", "pod", "end", "end", "wish", "go", "pool")):
            case "scale":
                self.apply(key, self.chance.randrange(6), annotations)
            case "wish":
                self.apply(key, replicas, self.wish())
            case "pod" if sum(owner == key for owner in self.pods.values()) < replicas and annotations:
                self.start(key)
            case "end" if self.pods:
                self.end(self.chance.choice(sorted(self.pods)))
            case "go":
                self.found.inner.delete(*key, "default")
                del self.there[key]
            case "pool":
                names = [obj["metadata"]["name"] for obj in self.found.inner.list("SpiderIPPool").items]
                if names:
                    self.delete_pool(self.chance.choice(sorted(names)))

    def wish(self) -> dict[str, str]:
        if self.chance.random() < 0.15:
            return {}
        annotations = {SUBNET: json.dumps(self.chance.choice(WISHES))}
        if self.chance.random() < 0.5:
            annotations[IP_NUMBER] = self.chance.choice(("+0", "+2", "3"))
        if self.chance.random() < 0.3:
            annotations[RECLAIM] = "false"
        return annotations

    def apply(self, key: tuple[str, str], replicas: int, annotations: dict[str, str]) -> None:
        kind, name = key
        spec = {"replicas": replicas, "template": {"metadata": {"annotations": annotations}}}
        metadata = {"name": name, "namespace": "default"}
        try:
            self.found.inner.create(
                {"apiVersion": "apps/v1", "kind": kind, "metadata": metadata, "spec": spec}
            )
        except Conflict:
            there = self.found.inner.get(kind, name, "default")
            self.found.inner.update({**there, "spec": spec})
        self.there[key] = replicas, annotations

    def start(self, key: tuple[str, str]) -> None:
        """A pod of the present template; there are always addresses for it."""
        kind, name = key
        _, annotations = self.there[key]
        if annotations.get(IP_NUMBER) == "3" and sum(owner == key for owner in self.pods.values()) >= 3:
            return
        self.number += 1
        called = f"{name}-{self.number}"
        asked = {text.rpartition("/")[2]: value for text, value in annotations.items()}
        self.found.apply(pod(called, owner=f"apps/v1 {kind} {name}", **asked))
        eventually(lambda: self._add(called))
        self.pods[called] = key

    def _add(self, name: str) -> None:
        """As a runtime does it, which tries again where a person has just deleted the pool."""
        try:
            assert self.found.add(sandbox(name))
        except OrbweaverError as error:
            raise AssertionError(str(error)) from error

    def end(self, name: str) -> None:
        self.found.delete(sandbox(name))
        del self.pods[name]

    def delete_pool(self, name: str) -> None:
        with contextlib.suppress(NotFound):
            self.found.inner.delete("SpiderIPPool", name)

    def prove(self) -> None:
        """No address is in two pools, and what the subnets say is what the pools have."""
        pools = [IPPool.from_object(obj) for obj in self.found.inner.list("SpiderIPPool").items]
        for name in ("floor", "attic", "six"):
            read = SpiderSubnet.from_object(self.found.inner.get("SpiderSubnet", name))
            mine = {made.name: made.ips for made in pools if made.subnet == read.subnet}
            taken = IntervalSet()
            for ips in mine.values():
                assert not ips.intersect(taken)
                taken = taken.union(ips)
            assert {made: entry.ips for made, entry in read.controlled.items()} == mine
            assert read.allocated == taken.size


@pytest.mark.slow
@pytest.mark.parametrize("seed", [fresh_seed()])
def test_applications_that_live_at_random_leave_nothing_behind(tmp_path: Path, seed: int) -> None:
    """The seed is in the name."""
    with rig(tmp_path, FLOOR, ATTIC, SIX) as found:
        lives = RandomLives(found, random.Random(seed))
        for turn in range(80):
            lives.step()
            if turn % 8 == 0:
                eventually(lives.prove)
        for name in sorted(lives.pods):
            lives.end(name)
        for key in sorted(lives.there):
            lives.apply(key, 1, {SUBNET: json.dumps(WISHES[0])})
        for key in sorted(lives.there):
            found.inner.delete(*key, "default")
        eventually(lambda: _only_kept(found))

        def ended() -> None:
            """A kept pool may come late: its application was scaled in its last moment."""
            for obj in found.inner.list("SpiderIPPool").items:
                lives.delete_pool(obj["metadata"]["name"])
            equal(_statuses(found), [0, 0, 0])
            equal(found.inner.list("SpiderIPPool").items, ())

        eventually(ended)
        found.prove()


def _only_kept(found: Rig) -> None:
    labels = [obj["metadata"]["labels"] for obj in found.inner.list("SpiderIPPool").items]
    assert all(here[RECLAIM] == "false" for here in labels)


def _statuses(found: Rig) -> list[Any]:
    names = ("floor", "attic", "six")
    return [found.inner.get("SpiderSubnet", name)["status"]["allocatedIPCount"] for name in names]
