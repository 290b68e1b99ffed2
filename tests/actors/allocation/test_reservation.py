"""The search for the addresses of one ADD: all of its slots or none, its own address first, and nobody waits in a circle.

On simulated time, with the real Pools, Blocks and Ledger.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest

from actors.allocation import reservation
from actors.allocation.block_writer import BlockActor
from actors.allocation.deallocation import Deallocation
from actors.allocation.ledger import LedgerActor
from actors.allocation.messages import AddRequest, Allocate, Sandbox
from actors.allocation.observer import Silent
from actors.allocation.pool import PoolActor
from actors.allocation.reservation import (
    AddContext,
    AlreadyRecorded,
    Decision,
    Refused,
    Reservation,
    Reserved,
)
from actors.allocation.router import Allocator
from actors.decisions.candidates import AddressRequest
from actors.decisions.inherit import Inheritance
from actors.decisions.plan import Plan, Slot
from actors.decisions.settings import Settings
from actors.errors import (
    AddressesReturning,
    AddressTaken,
    DeadlineExceeded,
    PodRefused,
    PoolsExhausted,
    Withdrawn,
)
from actors.reclaim.leaving_pods import LeavingPods
from actors.resources.addresses import parse_address
from actors.resources.blocks.block import Granted, Release, block_name
from actors.resources.blocks.record import Fence, Record
from actors.resources.intervals import IntervalSet
from actors.resources.ippool import IPPool
from actors.resources.pod import Pod
from actors.runtime import HIGHEST_VERSION, Actor, ActorContext, ObjectRef, Trace, message, request_scope
from actors.store.caches.informer import ObjectKey
from tests.simulation.kernel import Kernel, Process, Servers
from tests.simulation.power_failure import Costs, SimulatedStore
from tests.support.blocks import recorded

T = TypeVar("T")

EPOCH = 1000.0
STEP = 0.01
PATIENCE = 60.0
"""Simulated seconds in which every question has an answer."""


def pool(name: str, *ranges: str, subnet: str = "10.6.0.0/16") -> IPPool:
    spec = {"subnet": subnet, "ipVersion": 6 if ":" in subnet else 4, "ips": list(ranges)}
    return IPPool.from_object({"metadata": {"name": name}, "spec": spec})


A_POOL = pool("amber", "10.6.1.1-10.6.1.1")
B_POOL = pool("blue", "10.6.2.1-10.6.2.2")
C_POOL = pool("cyan", "fd00::3:1-fd00::3:1", subnet="fd00::/64")
POOLS = {each.name: each for each in (A_POOL, B_POOL, C_POOL)}

WEB = Sandbox("c-web", "eth0", "shop", "web", "uid-web", "")
ETH0 = Slot("eth0", 4, "the test", ("blue",))
ETH0_V6 = Slot("eth0", 6, "the test", ("cyan",))
NET1 = Slot("net1", 4, "the test", ("amber",))


class NoViews(Actor):
    @message
    def changed(self, pods: tuple[str, ...], pools: tuple[str, ...]) -> None:
        """Nobody looks at them here."""


class Place:
    """An allocator on simulated time, and the router that has no other."""

    failed = False
    speaks = HIGHEST_VERSION

    def __init__(self, world: World, *, alone: bool) -> None:
        self.alone = alone
        self.meanwhile: list[Callable[[], object]] = []
        """Done, one after the other, while somebody waits for answers."""
        self._world = world

    def get_actor(self, name: str) -> Any:
        return self._world.process.get_actor(name)

    def settle(self, refs: Sequence[ObjectRef[Any]], *, enough: int | None = None) -> None:
        enough = len(refs) if enough is None else enough
        ends = self._world.kernel.now + PATIENCE
        while sum(ref.done() for ref in refs) < enough:
            assert self._world.kernel.now < ends, [str(ref) for ref in refs if not ref.done()]
            self._world.pass_time(1.0 if self.meanwhile else STEP)
            if self.meanwhile and sum(ref.done() for ref in refs) < enough:
                self.meanwhile.pop(0)()

    def work(
        self,
        task: Callable[[Allocator], T],
        on_lost: Callable[[], object] | None = None,
        *,
        waits: float = 0.0,
    ) -> T:
        return task(self)  # its handles are the simulation's


class World:
    """Three pools, and who has their addresses."""

    def __init__(self, *, alone: bool = False) -> None:
        self.kernel = Kernel()
        self.store: Any = SimulatedStore(self.kernel, Servers(self.kernel, 1), Costs())
        self.pods: dict[str, Pod] = {}
        cache: Any = SimpleNamespace(pod=self.pods.get, node=lambda name: None)
        self.leaving = LeavingPods(
            cache, stays=lambda record: False, complete=lambda record: True, clock=lambda: self.kernel.now
        )
        self.process = Process(
            self.kernel, self._make, cost=0.0001, bound=1000, at_once=frozenset({"ledger", "views"})
        )
        self.place = Place(self, alone=alone)
        catalog: Any = SimpleNamespace(statefulset=lambda namespace, name: None)
        place: Any = self.place
        self.settings = Settings()
        deallocation = Deallocation(
            WEB.key, "node1", place, catalog, self.settings, lambda: EPOCH + self.kernel.now, place
        )
        self.reservation = Reservation("node1", self.settings, lambda: EPOCH + self.kernel.now, deallocation)

    def _make(self, context: ActorContext) -> Actor:
        if context.kind == "pool":
            source: Any = SimpleNamespace(
                pool=POOLS.__getitem__,
                fresh_pool=POOLS.__getitem__,
                is_own=lambda _: False,
                reserved=lambda _: IntervalSet(),
                follow_pool=lambda name, changed: lambda: None,
            )
            return PoolActor(
                context,
                source=source,
                store=self.store,
                departures=self.leaving,
                clock=lambda: EPOCH + self.kernel.now,
                monotonic=lambda: self.kernel.now,
            )
        if context.kind == "block":
            return BlockActor(
                context, store=self.store, observer=Silent(), clock=lambda: EPOCH + self.kernel.now
            )
        return NoViews(context) if context.kind == "views" else LedgerActor(context, store=self.store)

    def pass_time(self, seconds: float) -> None:
        moment = self.kernel.now + seconds
        self.kernel.run(moment)
        self.kernel.now = self.kernel.effects = moment  # also when nothing happened

    def take(self, pool: str, name: str, **more: str) -> Granted:
        """Somebody else's pod gets an address of a pool."""
        self.pods[f"shop/{name}"] = Pod.bare("shop", name)
        record = Record("", f"shop/{name}", "", f"c-{name}", "eth0", "node1", "", "", **more)  # type: ignore[arg-type]
        ref = self.process.call(f"pool/{pool}", "allocate", (Allocate(record),), None)
        self.place.settle([ref])
        granted: Granted = ref.result()
        return granted

    def is_ending(self, name: str) -> None:
        """A pod is told to end; its address is on its way back."""
        self.pods[f"shop/{name}"] = Pod("shop", name, deleted_at=EPOCH)
        self.leaving.changed(ObjectKey("Pod", "shop", name))

    def release(self, family: int, granted: Granted) -> None:
        release = Release(granted.value, Fence.of(granted.record), EPOCH + self.kernel.now)
        self.process.call("block/" + block_name(family, granted.value), "release", (release,), None)

    def holders(self) -> dict[str, str]:
        """Of each address that is recorded in the store, the pod."""
        self.pass_time(1.0)
        return {address: record["pod"] for address, record in recorded(self.store.blocks.values()).items()}

    def context(self, *, waits: float | None = None, gone: ObjectRef[None] | None = None) -> AddContext:
        pod = replace(Pod.bare("shop", "web"), uid="uid-web")
        until = None if waits is None else time.monotonic() + waits
        return AddContext(
            pod, AddRequest(WEB, "underlay", AddressRequest()), 0.0, claim="now", waits_until=until, gone=gone
        )

    def reserve(
        self,
        *slots: Slot,
        context: AddContext | None = None,
        inheritances: dict[str, Inheritance] | None = None,
        unless: tuple[str, ...] = (),
    ) -> Reserved | Refused | AlreadyRecorded:
        place: Any = self.place
        return self.reservation.reserve(
            place, Decision(Plan(WEB.key, slots), inheritances or {}), context or self.context(), unless
        )


def texts(outcome: Reserved | Refused | AlreadyRecorded) -> dict[str, str]:
    """By slot, the address that was granted."""
    grants = outcome.grants if isinstance(outcome, Reserved) else outcome.granted
    return {grant.slot.label: grant.address.text for grant in grants}


def test_every_slot_gets_an_address_and_its_record_says_for_whom():
    world = World()

    outcome = world.reserve(ETH0, ETH0_V6)

    assert texts(outcome) == {"eth0 IPv4": "10.6.2.1", "eth0 IPv6": "fd00::3:1"}
    assert isinstance(outcome, Reserved)
    record = outcome.grants[0].record
    assert (record.pool, record.pod, record.uid, record.container) == ("blue", "shop/web", "uid-web", "c-web")
    assert (record.node, record.network, record.claim) == ("node1", "underlay", "now")
    assert all(grant.fresh and not grant.inherited for grant in outcome.grants)
    assert world.holders() == {"10.6.2.1": "shop/web", "fd00::3:1": "shop/web"}


def test_an_interface_beside_the_one_that_asks_is_recorded_as_taken_along():
    """The DEL of the interface whose ADD reserved it releases it too."""
    outcome = World().reserve(ETH0, NET1)

    assert isinstance(outcome, Reserved)
    assert [(grant.record.interface, grant.record.request) for grant in outcome.grants] == [
        ("eth0", ""),
        ("net1", "eth0"),
    ]


def test_the_next_candidate_is_asked_when_a_pool_is_used_up():
    world = World()
    world.take("amber", "other")

    outcome = world.reserve(replace(NET1, candidates=("amber", "blue")))

    assert texts(outcome) == {"net1 IPv4": "10.6.2.1"}


def test_one_slot_without_an_address_refuses_all_and_says_what_the_others_hold():
    """Who called gives that back; nothing else is left."""
    world = World()
    world.take("cyan", "other")

    outcome = world.reserve(ETH0, ETH0_V6)

    assert isinstance(outcome, Refused)
    assert isinstance(outcome.error, PoolsExhausted)
    assert "eth0 IPv6: " in str(outcome.error)
    assert "cyan" in str(outcome.error)
    assert texts(outcome) == {"eth0 IPv4": "10.6.2.1"}


def test_an_address_that_another_pod_has_is_refused_as_taken():
    world = World()
    theirs = world.take("blue", "other")

    outcome = world.reserve(replace(ETH0, exact=theirs.value))

    assert isinstance(outcome, Refused)
    assert isinstance(outcome.error, AddressTaken)
    assert "10.6.2.1" in str(outcome.error)


def test_what_is_kept_for_the_pod_goes_before_its_pools():
    world = World()
    before = world.take("blue", "other")
    kept = replace(before.record, pod="shop/web", container="")
    held = parse_address("10.6.2.2").value
    inheritance = Inheritance(taken=(held, kept), pools=("blue",))

    outcome = world.reserve(replace(ETH0, candidates=("amber",)), inheritances={"eth0 IPv4": inheritance})

    assert texts(outcome) == {"eth0 IPv4": "10.6.2.2"}
    assert isinstance(outcome, Reserved)
    assert outcome.grants[0].inherited


def test_what_the_pod_has_no_use_for_any_more_goes_back():
    world = World()
    before = world.take("amber", "web")

    outcome = world.reserve(
        ETH0, inheritances={"eth0 IPv4": Inheritance(given_back=((before.value, before.record),))}
    )

    assert texts(outcome) == {"eth0 IPv4": "10.6.2.1"}
    assert world.holders() == {"10.6.2.1": "shop/web"}


@pytest.mark.parametrize("alone", [True, False])
def test_a_repeated_add_is_given_what_is_recorded_for_it(alone: bool):
    """Beside other processes under its own claim, because one of them may still undo the claim that stands there."""
    world = World(alone=alone)
    first = world.reserve(ETH0)
    assert isinstance(first, Reserved)
    (grant,) = first.grants
    confirms = Inheritance(taken=(grant.value, grant.record), confirms=True)
    again = replace(world.context(), claim="again", before=frozenset({grant.address}))

    outcome = world.reserve(ETH0, context=again, inheritances={"eth0 IPv4": confirms})

    assert texts(outcome) == {"eth0 IPv4": "10.6.2.1"}
    assert isinstance(outcome, Reserved)
    assert not outcome.grants[0].fresh, "it would be released when this ADD fails"
    assert outcome.grants[0].record.claim == ("now" if alone else "again")


def test_a_repeated_add_whose_address_went_to_another_pod_gets_a_new_one():
    world = World()
    theirs = world.take("blue", "other")
    mine = replace(theirs.record, pod="shop/web", container="c-web", uid="uid-web")
    confirms = Inheritance(taken=(theirs.value, mine), confirms=True)

    outcome = world.reserve(ETH0, inheritances={"eth0 IPv4": confirms})

    assert texts(outcome) == {"eth0 IPv4": "10.6.2.2"}
    assert world.holders()["10.6.2.1"] == "shop/other"


def test_a_pod_that_only_looked_new_is_told_what_is_recorded_for_it():
    world = World()
    before = world.take("blue", "web")

    outcome = world.reserve(ETH0, unless=("c-web", "shop/web"))

    assert isinstance(outcome, AlreadyRecorded)
    assert [(held.address.text, held.record) for held in outcome.allocations] == [("10.6.2.1", before.record)]
    assert outcome.granted == ()


def test_what_was_recorded_too_late_is_refused_and_named_so_that_it_can_be_undone(monkeypatch: Any):
    """The Pool was in time, and the answer is not."""
    world = World()
    late = SimpleNamespace(monotonic=lambda: time.monotonic() + 2 * PATIENCE)
    monkeypatch.setattr(reservation, "time", late)

    with request_scope(Trace("r1", "shop/web", "c-web"), PATIENCE):
        outcome = world.reserve(ETH0)

    assert isinstance(outcome, Refused)
    assert isinstance(outcome.error, DeadlineExceeded)
    assert texts(outcome) == {"eth0 IPv4": "10.6.2.1"}


def test_who_cannot_be_recorded_asks_nobody():
    world = World()
    context = replace(world.context(), pod=Pod.bare("shop", "web", "u" * 300))

    with pytest.raises(PodRefused, match="shop/web cannot be recorded"):
        world.reserve(ETH0, context=context)

    assert not world.process.cells


# -- waiting -------------------------------------------------------------------------------------------------


def test_an_address_on_its_way_back_is_told_apart_and_waited_for():
    world = World()
    other = world.take("amber", "other")
    world.is_ending("other")

    refused = world.reserve(NET1)

    assert isinstance(refused, Refused)
    assert isinstance(refused.error, AddressesReturning)

    world.place.meanwhile = [lambda: world.release(4, other)]
    outcome = world.reserve(NET1, context=world.context(waits=30.0))

    assert texts(outcome) == {"net1 IPv4": "10.6.1.1"}
    assert world.holders() == {"10.6.1.1": "shop/web"}


def test_nobody_waits_with_an_address_of_a_pool_that_comes_later_by_name():
    """Else two pods that each hold what the other one needs would wait for each other."""
    world = World()
    other = world.take("amber", "other")
    world.is_ending("other")
    seen: list[dict[str, str]] = []
    world.place.meanwhile = [
        lambda: None,
        lambda: seen.append(world.holders()),
        lambda: world.release(4, other),
    ]

    outcome = world.reserve(ETH0, NET1, context=world.context(waits=30.0))

    assert seen == [{"10.6.1.1": "shop/other"}]
    assert set(texts(outcome)) == {"eth0 IPv4", "net1 IPv4"}
    assert set(world.holders().values()) == {"shop/web"}


def test_of_two_pools_that_are_waited_for_only_one_gives_an_address():
    world = World()
    amber, first, second = (
        world.take(name, f"other-{number}") for number, name in enumerate(("amber", "blue", "blue"))
    )
    for number in range(3):
        world.is_ending(f"other-{number}")

    def all_end() -> None:
        for granted in (amber, first, second):
            world.release(4, granted)

    world.place.meanwhile = [all_end]

    outcome = world.reserve(replace(NET1, candidates=("amber", "blue")), context=world.context(waits=30.0))

    assert len(texts(outcome)) == 1
    assert list(world.holders()) == list(texts(outcome).values())


def test_who_is_not_wanted_any_more_stops_to_wait_and_holds_nothing():
    world = World()
    other = world.take("amber", "other")
    world.is_ending("other")
    gone: ObjectRef[None] = ObjectRef()
    world.place.meanwhile = [lambda: gone.complete(None)]

    outcome = world.reserve(NET1, context=world.context(waits=30.0, gone=gone))

    assert world.kernel.now < 15.0, "the pool let it wait on"
    world.release(4, other)

    assert isinstance(outcome, Refused)
    assert isinstance(outcome.error, Withdrawn)
    assert world.holders() == {}
