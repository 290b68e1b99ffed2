"""`orbweaver explain`: the pools of a pod's application, those that are there and those that would be made for it now.

What must always hold: it asks by the same decisions as the leader does, and writes nothing; a pool that is not there yet is
told as such. Which addresses it would have is foretold without what the leader knows of former use.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from actors.decisions.annotations import SubnetWish
from actors.decisions.auto_pool import ApplicationPools
from actors.decisions.candidates import wish_of
from actors.decisions.pool_distribution import Outcome
from actors.decisions.settings import Settings
from actors.decisions.subnet_share import KnownUse, grow
from actors.errors import InvalidObject, PodRefused
from actors.resources.intervals import IntervalSet
from actors.resources.ippool import IPPool
from actors.resources.names import label_value
from actors.resources.pod import Pod
from actors.resources.subnet import KIND, SpiderSubnet
from actors.store.caches.catalog import PoolTable
from actors.store.contract import Store
from actors.subnets.applications import Applications
from actors.subnets.pool_rounds import runs_of, size_of
from actors.subnets.pools_of_application import OwnPool, PoolsOfApplication, Run, own_pools


@dataclass(frozen=True, slots=True)
class Foreseen:
    """`pools`: those of the application, None where the pod asks for none; `table`: all pools, with those that would be made;
    `notes`: what would be made of what, for people."""

    pools: ApplicationPools | None
    table: PoolTable
    notes: tuple[str, ...] = ()


def foresee(
    store: Store, table: PoolTable, reserved: Mapping[int, IntervalSet], pod: Pod, settings: Settings
) -> Foreseen:
    """What the leader would do before this pod gets an address. Raises `PodRefused`, and what the store raises."""
    wish = wish_of(pod, settings)
    if wish is None:
        return Foreseen(None, table)
    assert pod.owner is not None
    applications = Applications(store, lambda identity: None, proven=settings.networks_annotated)
    top = applications.read_top(pod.namespace, pod.owner)
    if top is None:
        raise PodRefused(
            f"pod {pod.key} names {pod.owner.kind} {pod.owner.name} as its controller, which is not there, or is another one; a"
            " pool is made for pods of controllers that exist"
        )
    subnets, damaged = _subnets(store)
    state = PoolsOfApplication(top, dict(pod.annotations), wish, foreseen=1)
    state.pools, _ = own_pools(top.application, table.pools.values(), subnets)
    return _Foresight(state, subnets, damaged, table, reserved, settings).answer(wish)


def _subnets(store: Store) -> tuple[dict[str, SpiderSubnet], dict[str, str]]:
    subnets, damaged = {}, {}
    for obj in store.list(KIND).items:
        try:
            subnets[obj["metadata"]["name"]] = SpiderSubnet.from_object(obj)
        except InvalidObject as error:
            damaged[obj["metadata"]["name"]] = str(error)
    return subnets, damaged


class _Foresight:
    """One look."""

    def __init__(
        self,
        state: PoolsOfApplication,
        subnets: Mapping[str, SpiderSubnet],
        damaged: Mapping[str, str],
        table: PoolTable,
        reserved: Mapping[int, IntervalSet],
        settings: Settings,
    ) -> None:
        self._state, self._subnets, self._damaged, self._settings = state, subnets, damaged, settings
        self._pools = dict(table.pools)
        self._broken = table.damaged
        self._reserved = reserved
        self._notes: list[str] = []

    def answer(self, wish: SubnetWish) -> Foreseen:
        for run in runs_of(self._state, self._subnets, self._damaged, self._settings):
            outcome: Outcome | None = None
            while True:
                try:
                    question = next(run.questions) if outcome is None else run.questions.send(outcome)
                except StopIteration as end:
                    self._state.distributions[run.group] = end.value
                    self._state.refusals[run.group] = run.refusals
                    break
                outcome = self._ask(run, *question)
        answer = self._state.answer(wish, self._settings.enabled)
        return Foreseen(answer, PoolTable(self._pools, self._broken), tuple(self._notes))

    def _ask(self, run: Run, name: str, number: int) -> Outcome:
        """As the subnet would answer."""
        state, subnet = self._state, self._subnets[name]
        interface, family = run.group
        wanted = state.asking(
            run.group, name, number, size_of(state, self._settings), self._pools.__contains__
        )
        there = self._pools.get(wanted.name)
        present = there.ips if there is not None else IntervalSet()
        more = number - present.size
        if more > 0:
            free = self._free(subnet)
            added = grow(free, more, KnownUse())
            if added is None:
                why = f"SpiderSubnet {name} has too few free addresses: required {more}, left {free.size}"
                return Outcome(None, free.size, why)
            present = present.union(added)
        title = f"{interface} IPv{family}"
        if there is None:
            self._notes.append(
                f"{title}: pool {wanted.name} is not there yet; it would be made with {number}"
                f" {'address' if number == 1 else 'addresses'} of SpiderSubnet {name}"
                f" for {state.application.title}"
            )
        elif more:
            self._notes.append(
                f"{title}: pool {wanted.name} has {there.ips.size} addresses of SpiderSubnet {name} and would have {number}"
            )
        state.pools[wanted.name] = OwnPool(wanted.name, name, label_value(interface), family, present.size)
        if there is None or more > 0:
            labels, affinity = dict(wanted.labels), dict(wanted.affinity)
            self._pools[wanted.name] = _foretold(there, wanted.name, subnet, present, labels, affinity)
        return Outcome(present.size)

    def _free(self, subnet: SpiderSubnet) -> IntervalSet:
        given = IntervalSet(interval for entry in subnet.controlled.values() for interval in entry.ips)
        reserved = self._reserved.get(subnet.family, IntervalSet())
        listed = IntervalSet(
            interval
            for pool in self._pools.values()
            if pool.family == subnet.family
            for interval in pool.listed
        )
        return subnet.available.minus(given).minus(reserved).minus(listed)


def _foretold(
    there: IPPool | None,
    name: str,
    subnet: SpiderSubnet,
    ips: IntervalSet,
    labels: Mapping[str, str],
    affinity: Mapping[str, str],
) -> IPPool:
    """The pool as it would be."""
    text = ips.ranges_text(subnet.family)
    return IPPool.from_object(
        {
            "metadata": {"name": name, "labels": dict(there.labels if there is not None else labels)},
            "spec": {
                "subnet": str(subnet.subnet),
                "ips": list(text),
                "podAffinity": {"matchLabels": dict(affinity)},
            },
        }
    )
