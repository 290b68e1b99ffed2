"""An ADD that asks for its application's pools and for an address out of them in one question."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from actors.allocation.application_pools import ApplicationPoolsActor, PoolsAndAddresses, PoolsRequest
from actors.allocation.departures import NoDepartures
from actors.allocation.endpoint import EndpointActor
from actors.allocation.messages import Allocate, RecordedElsewhere
from actors.allocation.observer import Silent
from actors.allocation.pool import PoolActor
from actors.allocation.router import Allocator, LocalAllocator
from actors.decisions.auto_pool import ApplicationPools, InterfacePools
from actors.decisions.settings import Settings
from actors.errors import NoAddress, OrbweaverError, PeerLost, PodRefused, PoolNotReady
from actors.resources.application import Application
from actors.resources.blocks.record import Record
from actors.resources.metadata import Owner
from actors.runtime import ActorContext, ObjectRef, get, message, settle
from actors.store.caches.catalog import Catalog
from actors.store.sqlite.store import SQLiteStore
from tests.support.faulty_store import FaultyStore
from tests.support.rig import add_request, pod, pool, sandbox
from tests.support.subnet_rig import SubnetProcess

T = TypeVar("T")
WEB = Application("apps", "v1", "Deployment", "default", "web", "uid-1")
FLOOR = '{"ipv4":["floor"]}'
BOTH = '[{"interface":"eth0","ipv4":["floor"],"ipv6":["six"]},{"interface":"net1","ipv4":["attic"]}]'
FIRST = pool("first", "10.6.0.0/16", "10.6.0.1-10.6.0.3", default=False)


class Told:
    """What is told of the application's pools, and who asked."""

    def __init__(self) -> None:
        self.pools: dict[tuple[str, int], tuple[str, ...]] = {("eth0", 4): ("first",)}
        self.more: dict[tuple[str, int], tuple[str, ...]] = {}
        """What is told to those who ask again."""
        self.refusal: OrbweaverError | None = None
        self.objects: tuple[dict[str, Any], ...] = ()
        self.asked: list[str] = []


class ToldPoolsActor(ApplicationPoolsActor):
    def __init__(self, context: ActorContext, told: Told) -> None:
        super().__init__(context)
        self._told = told

    @message
    def allocate(self, request: PoolsRequest, wanted: tuple[tuple[int, Allocate], ...]) -> Any:
        self._told.asked.append("pools and addresses")
        return super().allocate(request, wanted)

    @message
    def pools_for(self, request: PoolsRequest) -> ObjectRef[ApplicationPools]:
        self._told.asked.append("again" if request.again else "pools")
        reply: ObjectRef[ApplicationPools] = ObjectRef()
        if self._told.refusal is not None:
            raise self._told.refusal
        pools = self._told.more if request.again else self._told.pools
        told = tuple(InterfacePools(*slot, names) for slot, names in pools.items())
        self.after(0.01, reply.complete, ApplicationPools(WEB, "ipam.spidernet.io/subnet", told))
        return reply

    def new_objects(self, pools: ApplicationPools) -> tuple[dict[str, Any], ...]:
        return self._told.objects


class CountedPoolActor(PoolActor):
    """Notes each time that it is asked for an address."""

    def __init__(self, context: ActorContext, asked: list[str], **options: Any) -> None:
        super().__init__(context, **options)
        self._asked = asked

    @message
    def allocate(self, request: Allocate) -> Any:
        self._asked.append(self.context.key)
        return super().allocate(request)


class LostLeader(LocalAllocator):
    """Does what it is asked, and is lost before it says so."""

    def settle(self, refs: Any, *, enough: int | None = None) -> None:
        settle(refs)
        self.failed = True
        raise PeerLost("the leader is gone")


class World:
    """The allocators of one process, which are not the only ones that write."""

    def __init__(self, directory: Path, *objects: dict[str, Any]) -> None:
        self.inner = SQLiteStore(directory / "orbweaver.db")
        self.store = FaultyStore(self.inner)
        for obj in objects:
            self.inner.create(obj)
        self.process = SubnetProcess(self.store)
        self.catalog = self.process.catalog
        """What the Endpoints look into; another one where the leader is in another process."""
        self.told = Told()
        self.pools_asked: list[str] = []
        system = self.process.system
        self.here = LocalAllocator(system, alone=False)
        self.lost: LocalAllocator | None = None
        system.register("auto-pools", lambda context: ToldPoolsActor(context, self.told))
        system.register(
            "pool",
            lambda context: CountedPoolActor(
                context,
                self.pools_asked,
                source=self.process.catalog,
                store=self.store,
                departures=NoDepartures(),
            ),
            inline=frozenset({"allocate"}),
        )
        system.register("endpoint", self._endpoint)

    def _endpoint(self, context: ActorContext) -> EndpointActor:
        return EndpointActor(
            context,
            router=self,
            catalog=self.catalog,
            settings=Settings(),
            node="node1",
            observer=Silent(),
        )

    def work(
        self,
        task: Callable[[Allocator], T],
        on_lost: Callable[[], object] | None = None,
        *,
        waits: float = 0.0,
    ) -> T:
        """See `AllocatorRouter`."""
        leader, self.lost = self.lost, None
        if leader is not None:
            try:
                return task(leader)
            except PeerLost:
                assert on_lost is not None
                on_lost()
        return task(self.here)

    def stop(self) -> None:
        self.process.stop()
        self.inner.close()

    def add(self, name: str, *, container: str = "", exact: tuple[str, ...] = (), **asks: str) -> list[str]:
        """The addresses that a new pod of the application is told for eth0."""
        asks = asks or {"subnet": FLOOR}
        if not any(obj["metadata"]["name"] == name for obj in self.inner.list("Pod", "default").items):
            self.inner.create(pod(name, owner="apps/v1 ReplicaSet web-1", **asks))
        box = sandbox(container or f"c-{name}", pod=name)
        asked = add_request(box, exact=exact)
        endpoint = self.process.system.get_actor("endpoint/" + box.key)
        result = get(endpoint.add.options(timeout=30.0).remote(asked), 60)
        return [assigned.address.partition("/")[0] for assigned in result.addresses]

    def recorded(self) -> dict[str, tuple[str, str, str]]:
        """Address, and for whom: pool, pod and interface."""
        everything = get(self.process.system.get_actor("ledger/local").everything.remote(), 60)
        return {
            held.address.text: (held.record.pool, held.record.pod, held.record.interface)
            for held in everything
        }


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path, FIRST)
    yield made
    made.stop()


def made_of(tmp_path: Path, *objects: dict[str, Any]) -> World:
    return World(tmp_path, *objects)


def test_a_new_pod_asks_one_question(world: World) -> None:
    assert world.add("web-a") == ["10.6.0.1"]
    assert world.told.asked == ["pools and addresses", "pools"]  # the second of itself
    assert world.recorded() == {"10.6.0.1": ("first", "default/web-a", "eth0")}


def test_two_interfaces_and_families_are_granted_together_or_not_at_all(tmp_path: Path) -> None:
    second = pool("second", "10.7.0.0/16", "10.7.0.1", default=False)
    six = pool("six", "fd00::/64", "fd00::1-fd00::9", default=False)
    world = made_of(tmp_path, FIRST, second, six)
    try:
        world.told.pools = {("eth0", 4): ("first",), ("eth0", 6): ("six",), ("net1", 4): ("second",)}
        world.told.more = world.told.pools
        networks = json.dumps([{"name": "attic", "namespace": "default", "interface": "net1"}])
        asks = {"subnets": BOTH}
        world.inner.create(_with(pod("web-a", owner="apps/v1 ReplicaSet web-1", **asks), networks))
        world.inner.create(_with(pod("web-b", owner="apps/v1 ReplicaSet web-1", **asks), networks))

        assert world.add("web-a") == ["10.6.0.1", "fd00::1"]
        assert sorted(world.recorded()) == ["10.6.0.1", "10.7.0.1", "fd00::1"]
        with pytest.raises(NoAddress, match="pool second has no free address"):
            world.add("web-b")
        assert {whose for _, whose, _ in world.recorded().values()} == {"default/web-a"}
    finally:
        world.stop()


def test_the_next_pool_serves_when_the_first_has_nothing(tmp_path: Path) -> None:
    full = pool("full", "10.6.0.0/16", "10.6.1.1", default=False)
    world = made_of(tmp_path, FIRST, full)
    try:
        world.told.pools = {("eth0", 4): ("full", "first")}

        assert [world.add("web-a"), world.add("web-b")] == [["10.6.1.1"], ["10.6.0.1"]]
        assert world.pools_asked == ["full", "full", "first"], "who has answered is not asked again"
    finally:
        world.stop()


def test_pools_that_are_used_up_are_asked_for_again(tmp_path: Path) -> None:
    world = made_of(tmp_path, FIRST, pool("grown", "10.6.0.0/16", "10.6.1.1", default=False))
    try:
        world.told.more = {("eth0", 4): ("first", "grown")}
        for name in "abc":
            world.add(f"web-{name}")
        world.told.asked.clear()

        assert world.add("web-d") == ["10.6.1.1"]
        assert world.told.asked == ["pools and addresses", "pools", "again"]
    finally:
        world.stop()


MISFITS = {
    "of another node": {"nodeName": ["node9"]},
    "for other pods": {"podAffinity": {"matchLabels": {"app": "other"}}},
    "switched off": {"disable": True},
}


@pytest.mark.parametrize("spec", MISFITS.values(), ids=MISFITS)
def test_an_address_of_a_pool_that_may_not_serve_the_pod_goes_back(
    tmp_path: Path, spec: dict[str, Any]
) -> None:
    """Who tells of the pools knows the application alone; node, labels and the rest are the Endpoint's to judge."""
    wrong = pool("wrong", "10.6.0.0/16", "10.6.1.1-10.6.1.9", default=False, **spec)
    world = made_of(tmp_path, FIRST, wrong)
    try:
        world.told.pools = {("eth0", 4): ("wrong", "first")}

        assert world.add("web-a") == ["10.6.0.1"]
        assert world.recorded() == {"10.6.0.1": ("first", "default/web-a", "eth0")}
        world.told.pools = world.told.more = {("eth0", 4): ("wrong",)}
        with pytest.raises(NoAddress, match="wrong refused"):
            world.add("web-b")
        assert list(world.recorded()) == ["10.6.0.1"]
    finally:
        world.stop()


def test_a_pool_that_went_meanwhile_costs_a_refusal_and_nothing_else(world: World) -> None:
    world.told.pools = world.told.more = {("eth0", 4): ("gone",)}

    with pytest.raises(NoAddress, match="gone"):
        world.add("web-a")
    assert world.recorded() == {}
    world.told.pools = {("eth0", 4): ("first",)}
    assert world.add("web-a", container="c-again") == ["10.6.0.1"]


def test_a_sandbox_that_is_made_anew_keeps_the_address(world: World) -> None:
    assert world.add("web-a") == ["10.6.0.1"]
    assert world.add("web-a") == ["10.6.0.1"]
    assert world.add("web-a", container="c-again") == ["10.6.0.1"]
    assert len(world.recorded()) == 1


def test_a_certain_address_is_asked_for_only_when_the_pools_are_known(world: World) -> None:
    assert world.add("web-a", exact=("10.6.0.3",)) == ["10.6.0.3"]
    assert world.told.asked == ["pools"]
    assert list(world.recorded()) == ["10.6.0.3"]


@pytest.mark.parametrize("refusal", [PoolNotReady("not there yet"), PodRefused("nobody's pod")])
def test_without_pools_there_is_no_address(world: World, refusal: OrbweaverError) -> None:
    world.told.refusal = refusal

    with pytest.raises(type(refusal), match=refusal.message):
        world.add("web-a")
    assert world.recorded() == {}


def test_what_a_lost_leader_granted_is_the_pod_s_and_nobody_s_else(world: World) -> None:
    """It granted an address and died before the answer: the ADD runs again in this process, and takes that one."""
    world.lost = LostLeader(world.process.system, alone=False)

    answered = world.add("web-a")

    again = world.told.asked[len(["pools and addresses", "pools"]) :]
    assert again == ["pools"], "the second run takes nobody for new"
    assert world.recorded() == {answered[0]: ("first", "default/web-a", "eth0")}
    assert [world.add(f"web-{name}")[0] for name in "bc"] != answered
    assert len(world.recorded()) == 3


def test_a_lost_leader_that_asks_the_pool_late_is_granted_nothing(world: World) -> None:
    """It had not even asked the pool when it was lost, and does so after the ADD has been answered."""
    late: list[Callable[[], ObjectRef[PoolsAndAddresses]]] = []

    class Slow(LostLeader):
        def get_actor(self, name: str) -> Any:
            if not name.startswith("auto-pools/"):
                return super().get_actor(name)

            class Held:
                """Keeps the question."""

                @staticmethod
                def __send__(
                    method: str, timeout: float | None, question: tuple[Any, ...], named: dict[str, Any]
                ) -> ObjectRef[Any]:
                    actor = world.process.system.get_actor(name)
                    late.append(lambda: actor.allocate.options(timeout=None).remote(*question))
                    ref: ObjectRef[Any] = ObjectRef()
                    ref.fail(PeerLost("the leader is gone"))
                    return ref

            return Held()

    world.lost = Slow(world.process.system, alone=False)
    (answered,) = world.add("web-a")
    (ask,) = late
    (said,) = get(ask(), 60).answers

    assert isinstance(said, RecordedElsewhere), "it finds what the pod has under another claim"
    assert list(world.recorded()) == [answered]
    assert world.add("web-a") == [answered]


def test_a_leader_of_the_version_before_is_asked_for_the_pools_alone(world: World) -> None:
    world.here.speaks = 1

    assert world.add("web-a") == ["10.6.0.1"]
    assert world.told.asked == ["pools"]


def test_a_pool_that_is_new_is_told_and_not_read(world: World) -> None:
    """Neither the leader's watch nor the agent's has heard of it when the leader tells of it."""
    leader, agent = world.process.catalog, Catalog(world.store, has_pods=False)
    agent.start()
    try:
        assert agent.wait_synced(60)
        for catalog in (leader, agent):
            catalog.informer("SpiderIPPool").stop()
        new = world.inner.create(pool("new", "10.6.0.0/16", "10.6.1.1", default=False))
        world.told.pools = {("eth0", 4): ("new",)}
        world.told.objects = (new,)
        world.catalog = agent
        leader.made(new)
        reads: list[str] = []
        get_object = world.store.get

        def counted(kind: str, name: str, *more: Any, **options: Any) -> Any:
            if kind == "SpiderIPPool":
                reads.append(name)
            return get_object(kind, name, *more, **options)

        world.store.get = counted  # type: ignore[method-assign]

        assert world.add("web-a") == ["10.6.1.1"]
        assert reads == []
    finally:
        agent.stop()


@pytest.mark.parametrize("method", ["_ask_first", "new_objects"])
def test_a_bug_in_answering_is_told_at_once(
    world: World, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """Where it happens nobody waits, so that the ADD would hear of it when its time is over."""

    def bug(*_: Any) -> Any:
        raise RuntimeError("a bug")

    monkeypatch.setattr(ToldPoolsActor, method, bug)
    asked = world.process.system.get_actor("auto-pools/local").allocate.options(timeout=None)
    request = PoolsRequest("default/web-a", Owner("apps/v1", "ReplicaSet", "web-1", "u"), (), 60.0)
    record = Record("", "default/web-a", "u", "c1", "eth0", "node1", "", "2025-01-31T12:00:00Z")

    with pytest.raises(PeerLost, match="a bug"):
        get(asked.remote(request, ((4, Allocate(record)),)), 60)


def _with(obj: dict[str, Any], networks: str) -> dict[str, Any]:
    obj["metadata"]["annotations"]["k8s.v1.cni.cncf.io/networks"] = networks
    return obj
