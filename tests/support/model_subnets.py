"""Subnets that make pools at once and without thinking: for tests of who asks them. They keep what a subnet must keep: no
address twice, and none taken from a pool that uses it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from actors.errors import Conflict, NotFound, OrbweaverError
from actors.resources.addresses import format_address
from actors.resources.intervals import IntervalSet
from actors.resources.subnet import OWNER_SUBNET, SpiderSubnet
from actors.runtime import ObjectRef
from actors.store.contract import Store
from actors.subnets.messages import AutoPool, EnsureAnswer, Ensured, Exhausted

API = "spiderpool.spidernet.io/v2beta1"


def subnet(name: str, cidr: str, *ips: str) -> SpiderSubnet:
    return SpiderSubnet.from_object(
        {
            "apiVersion": API,
            "kind": "SpiderSubnet",
            "metadata": {"name": name},
            "spec": {"subnet": cidr, "ips": list(ips)},
        }
    )


class ModelSubnets:
    """`used`: of each pool how many addresses pods use. `failing`: what the next questions are answered."""

    def __init__(self, store: Store, *subnets: SpiderSubnet) -> None:
        self.subnets = {subnet.name: subnet for subnet in subnets}
        self.store = store
        self.pools: dict[str, tuple[str, list[int]]] = {}
        self.used: dict[str, int] = {}
        self.asked: list[tuple[str, AutoPool]] = []
        self.dropped: list[str] = []
        self.relieved: list[tuple[str, str]] = []
        self.failing: list[OrbweaverError] = []
        self.held: list[Callable[[], object]] | None = None
        """Where answers wait while the test holds them back."""

    def table(self) -> Mapping[str, SpiderSubnet]:
        return self.subnets

    def damaged(self) -> Mapping[str, str]:
        return {}

    def free(self, name: str) -> list[int]:
        taken = {value for _, values in self.pools.values() for value in values}
        return [
            value
            for first, last in self.subnets[name].available
            for value in range(first, last + 1)
            if value not in taken
        ]

    def ensure(self, name: str, pool: AutoPool) -> ObjectRef[EnsureAnswer]:
        self.asked.append((name, pool))
        ref: ObjectRef[EnsureAnswer] = ObjectRef()
        if self.failing:
            ref.fail(self.failing.pop(0))
            return ref
        answer = self._ensure(name, pool)
        if self.held is not None:
            self.held.append(lambda: ref.complete(answer))
        else:
            ref.complete(answer)
        return ref

    def _ensure(self, name: str, pool: AutoPool) -> EnsureAnswer:
        _, mine = self.pools.get(pool.name, (name, []))
        wanted = max(pool.wanted, self.used.get(pool.name, 0))
        more = wanted - len(mine)
        free = self.free(name)
        if more > len(free):
            return Exhausted(name, more, len(free), ())
        mine = [*mine, *free[:more]] if more > 0 else mine[:wanted]
        self.pools[pool.name] = (name, mine)
        self._write(name, pool, mine)
        return Ensured(pool.name, len(mine))

    def _write(self, name: str, pool: AutoPool, mine: list[int]) -> None:
        family = self.subnets[name].family
        spec = {
            "subnet": str(self.subnets[name].subnet),
            "ips": [format_address(family, value) for value in mine],
            "podAffinity": {"matchLabels": dict(pool.affinity)},
        }
        labels = {**dict(pool.labels), OWNER_SUBNET: name}
        metadata: dict[str, Any] = {
            "name": pool.name,
            "labels": labels,
            "annotations": dict(pool.annotations),
        }
        while True:  # a test may write the pool's status meanwhile
            try:
                there = self.store.get("SpiderIPPool", pool.name)
                self.store.update({**there, "metadata": {**there["metadata"], **metadata}, "spec": spec})
            except NotFound:
                body = {"apiVersion": API, "kind": "SpiderIPPool", "metadata": metadata, "spec": spec}
                self.store.create(body)
            except Conflict:
                continue
            return

    def drop(self, name: str, pool: str) -> ObjectRef[Any]:
        ref: ObjectRef[Any] = ObjectRef()
        if self.failing:
            ref.fail(self.failing.pop(0))
            return ref
        self.dropped.append(pool)
        self.pools.pop(pool, None)
        try:
            self.store.delete("SpiderIPPool", pool)
            ref.complete(None)
        except NotFound as error:
            ref.fail(error)
        return ref

    def content(self, name: str, pool: str) -> ObjectRef[Any]:
        self.relieved.append((name, pool))
        ref: ObjectRef[Any] = ObjectRef()
        ref.complete(None)
        return ref

    @property
    def sizes(self) -> dict[str, int]:
        return {name: len(values) for name, (_, values) in sorted(self.pools.items())}

    def prove(self) -> None:
        """No address is in two pools."""
        every = [value for _, values in self.pools.values() for value in values]
        assert len(every) == len(set(every))
        assert all(
            IntervalSet((value, value) for value in values).size == len(values)
            for _, values in self.pools.values()
        )
