"""One application and its automatic pools: what it wants, what it has, and what is asked of subnets for it.

What must always hold: a pool is found again by its labels, whoever made it; one that another application of the same name and
kind left is taken over if it was to be kept, and never else; a name that somebody else's pool has is not used.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from actors.allocation.application_pools import PoolsRequest
from actors.decisions.annotations import SubnetWish, read_subnets
from actors.decisions.auto_pool import (
    INTERFACE,
    KIND,
    NAME,
    NAMESPACE,
    UID,
    ApplicationPools,
    InterfacePools,
    Size,
    belongs,
    pool_affinity,
    pool_annotations,
    pool_labels,
    pool_names,
)
from actors.decisions.pool_distribution import Outcome, PoolDistribution, Question
from actors.errors import OrbweaverError, PodRefused, PoolNotReady
from actors.resources.application import Application
from actors.resources.ippool import IPPool
from actors.resources.names import label_value
from actors.resources.subnet import OWNER_SUBNET
from actors.resources.workload import GROUPS, IP_NUMBER, RECLAIM, Workload
from actors.runtime import Cancellable, ObjectRef
from actors.subnets.messages import AutoPool

Group = tuple[str, int]
"""An interface and a family."""
GONE, ENDED = "gone", "ended"
"""Why nothing is done for an application any more: it does not exist, or another process does it."""


@dataclass(frozen=True, slots=True)
class OwnPool:
    """One of the application's pools, and how many addresses it has."""

    name: str
    """Of the SpiderIPPool."""
    subnet: str
    """The SpiderSubnet that it is made of."""
    interface: str
    """As its label has it."""
    family: int
    """Of its addresses, 4 or 6."""
    addresses: int
    """How many it lists."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """An ADD that waits for the pools."""

    request: PoolsRequest
    wish: SubnetWish
    reply: ObjectRef[ApplicationPools]
    timer: Cancellable


@dataclass(slots=True)
class Run:
    """The questions to subnets for one interface and family."""

    group: Group
    subnets: tuple[str, ...]
    questions: Generator[Question, Outcome, PoolDistribution]
    refusals: tuple[str, ...]


@dataclass(slots=True)
class PoolsOfApplication:
    """One application, and the negotiation of its pools."""

    workload: Workload
    """As it was last known."""
    from_pods: Mapping[str, str] = field(default_factory=dict)
    """Annotations of its pods, where its template has none."""
    wish: SubnetWish | None = None
    """What it asks for; None where that is nothing."""
    pools: dict[str, OwnPool] = field(default_factory=dict)
    """Those that it has, by name."""
    leaving: set[str] = field(default_factory=set)
    """Pools that go when their last pod has gone."""
    distributions: dict[Group, PoolDistribution] = field(default_factory=dict)
    """What came of each interface and family."""
    refusals: dict[Group, tuple[str, ...]] = field(default_factory=dict)
    """Which subnets were left out there, and why."""
    lacking: dict[tuple[str, str], Group] = field(default_factory=dict)
    """Subnets that had too few addresses, each with the pool that lacked them, and what that is for."""
    aim: object = None
    """What it wanted when the questions of this round began."""
    settled: object = None
    """What it wanted when all were answered."""
    running: int = 0
    """Questions without an answer."""
    again: bool = False
    """What it wants is to be looked at once more behind them."""
    failure: OrbweaverError | None = None
    """What went wrong in this round."""
    failures: int = 0
    """In how many rounds something did."""
    retry: Cancellable | None = None
    """The timer of the next round after one that failed."""
    waiting: list[Waiting] = field(default_factory=list)
    """ADDs that wait for the pools."""
    foreseen: int = 0
    """Pods that nobody starts, of which somebody asks what pools they would get."""
    names: dict[tuple[Group, str], str] = field(default_factory=dict)
    """What the pools are called that are asked for in this round, by interface, family and subnet."""
    fate: str | None = None
    """What becomes of its pools when it goes; None while it is there."""

    def begin(self) -> None:
        """A new round."""
        self.aim, self.settled = self.wants, None
        self.again, self.failure = False, None
        self.wish, self.distributions, self.refusals = None, {}, {}
        self.names = {}
        if self.retry is not None:
            self.retry.cancel()
            self.retry = None

    def forget_pods(self) -> None:
        """Nothing that its pods asked for counts any more, where its template can be read and asks for nothing: they may have
        been the last of an older template. If there are more of them, they ask again."""
        if GROUPS.get(self.application.kind) == self.application.group:
            self.from_pods = {}

    def outside(self, groups: Mapping[Group, tuple[str, ...]]) -> list[OwnPool]:
        """Its pools of other interfaces, families or subnets than these."""
        named = {(label_value(name), family): subnets for (name, family), subnets in groups.items()}
        return [
            own for own in self.pools.values() if own.subnet not in named.get((own.interface, own.family), ())
        ]

    @property
    def application(self) -> Application:
        return self.workload.application

    @property
    def asked(self) -> Mapping[str, str]:
        """The annotations that say what it wants; empty when it asks for nothing, as a ReplicaSet that a Deployment has
        adopted, whose pods have the Deployment's pools from then on."""
        if self.workload.host_network or self.workload.is_part:
            return {}
        return self.workload.annotations if self.workload.asks else self.from_pods

    @property
    def reclaims(self) -> bool:
        """Whether it wants its pools to go with it, by its last word, also where no round began with that."""
        wish = self.wish
        if self.has_news and self.asked:
            with suppress(PodRefused):
                wish = read_subnets(self.application.title, self.asked)
        return wish is None or wish.reclaim

    @property
    def wants(self) -> object:
        """All that its pools depend on; equal as long as nothing has to be done."""
        workload = self.workload
        return workload.application, workload.replicas, workload.counted, tuple(sorted(self.asked.items()))

    @property
    def has_news(self) -> bool:
        """Whether it wants something that no round began with."""
        return self.wants != self.aim

    @property
    def outdated(self) -> bool:
        """Whether it wants something else than it has, or is about to have."""
        return self.wants != (self.aim if self.running else self.settled)

    def pods(self, addresses: int) -> int:
        """How many pods there are, as far as it is seen: those that wait and ask again found so many addresses all in use."""
        again = sum(waiting.request.again for waiting in self.waiting) + self.foreseen
        return max(self.workload.observed, len(self.waiting), addresses + again if again else 0)

    @property
    def short(self) -> bool:
        """Whether it has fewer addresses than it wants."""
        return any(distribution.missing for distribution in self.distributions.values()) or any(
            self.refusals.values()
        )

    @property
    def over(self) -> bool:
        """Whether it has more of them, because pods use them."""
        return any(distribution.over for distribution in self.distributions.values())

    def own(self, group: Group) -> dict[str, OwnPool]:
        """Its pools for an interface and family, by subnet."""
        interface, family = label_value(group[0]), group[1]
        return {
            pool.subnet: pool
            for pool in self.pools.values()
            if (pool.interface, pool.family) == (interface, family)
        }

    def asking(
        self, group: Group, subnet: str, number: int, size: Size, taken: Callable[[str], bool]
    ) -> AutoPool:
        """What a subnet is asked for; `taken`: whether somebody else's pool has a name."""
        interface, family = group
        there = self.own(group).get(subnet)
        name = there.name if there is not None else self.names.get((group, subnet))
        if name is None:
            name = self._new_name(group, subnet, taken)
            self.names[group, subnet] = name
        return AutoPool(
            name=name,
            family=family,
            owner=self.application,
            wanted=number,
            labels=pool_labels(self.application, interface, reclaim=self.reclaims),
            annotations=pool_annotations(self.application, size),
            affinity=pool_affinity(self.application),
        )

    def _new_name(self, group: Group, subnet: str, taken: Callable[[str], bool]) -> str:
        """One that no other pool has, nor one that is being asked for: interfaces may differ in what names cannot have."""
        names = tuple(pool_names(group[1], self.application, group[0], subnet))
        used = {*self.pools, *self.names.values()}
        return next((name for name in names if name not in used and not taken(name)), names[-1])

    def answer(self, wish: SubnetWish, enabled: Callable[[int], bool]) -> ApplicationPools:
        """The pools for a pod that asks for this. Raises `PoolNotReady` where it asks otherwise than its application does by
        now, and nothing of what was made for that is left."""
        answers = []
        for choice in wish.interfaces:
            for family in (4, 6):
                if not choice.names(family) or not enabled(family):
                    continue
                group = choice.interface, family
                own = sorted(self.own(group).values(), key=lambda pool: not pool.addresses)
                if group not in self.distributions and not own:
                    raise PoolNotReady(
                        f"{self.application.title} names no SpiderSubnets for {choice.interface} IPv{family} any more, and"
                        " nothing is left of the pools that were made for this pod; it is of an older template"
                    )
                answers.append(
                    InterfacePools(
                        choice.interface,
                        family,
                        names := tuple(pool.name for pool in own if pool.addresses),
                        self.shortage(group) or ("" if names else self._wants_none),
                    )
                )
        return ApplicationPools(self.application, wish.source, tuple(answers))

    def shortage(self, group: Group) -> str:
        """Why there are fewer addresses than wanted, in words; empty where there are not."""
        distribution = self.distributions.get(group)
        refused = self.refusals.get(group, ())
        if distribution is None or not (distribution.missing or (refused and not distribution.sizes)):
            return ""
        return "; ".join((*distribution.why, *refused)) or self._wants_none

    @property
    def _wants_none(self) -> str:
        return (
            f"{self.application.title} wants no addresses: it has no replicas, or {IP_NUMBER} says 0; scale it, or write"
            " another number"
        )


def own_pools(
    application: Application, pools: Iterable[IPPool], subnets: Iterable[str]
) -> tuple[dict[str, OwnPool], list[OwnPool]]:
    """Of these pools those of the application, and those that are left of one that had its name and kind before and are to
    go. `subnets`: all there are, because a label may have only the beginning of a name."""
    names = {label_value(name): name for name in subnets}
    mine: dict[str, OwnPool] = {}
    left: list[OwnPool] = []
    for pool in pools:
        if pool.terminating or not belongs(pool.labels, application):
            continue
        label = pool.labels.get(OWNER_SUBNET, "")
        own = OwnPool(
            pool.name, names.get(label, label), pool.labels.get(INTERFACE, ""), pool.family, pool.ips.size
        )
        kept = pool.labels.get(RECLAIM) == "false"
        if kept or pool.labels.get(UID) == label_value(application.uid):
            mine[pool.name] = own
        else:
            left.append(own)
    return mine, left


def owner_labels(pool: IPPool) -> tuple[str, str, str] | None:
    """Kind, namespace and name of a pool's application as its labels have them; None for a pool made by hand."""
    labels = pool.labels
    if NAME not in labels:
        return None
    return labels.get(KIND, ""), labels.get(NAMESPACE, ""), labels[NAME]
