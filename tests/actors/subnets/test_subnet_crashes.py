"""A leader that dies at any write: the next one finds in the status what each pool is to have, and nothing is lost or given
twice. Random work with deaths, against a model."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from actors.errors import OrbweaverError, PeerLost
from actors.resources.addresses import format_address
from actors.resources.ippool import IPPool
from actors.store.contract import Store
from actors.subnets.messages import Ensured, Exhausted
from tests.support.checker import equal, eventually
from tests.support.faulty_store import Fault, FaultyStore, How, Write
from tests.support.rig import pool
from tests.support.seed import fresh_seed
from tests.support.subnet_rig import SubnetRig, application, auto_pool, prove_division, subnet, subnet_rig

WEB = application()
POOL = "auto4-web-eth0-1a2b3"
_WORK = ("ensure", "drop", "claim", "claim", "release")
WATCHED = ("SpiderSubnet", "SpiderIPPool")


class Death:
    """A process that dies at its `number`-th write of subnets and pools, before it or after: nothing that it writes later is
    written."""

    def __init__(self, number: int, how: How) -> None:
        self._number, self._how = number, how
        self.dead = False

    def plan(self, write: Write) -> Fault | None:
        if self.dead:
            return Fault(How.BEFORE)
        self._number -= write.kind in WATCHED
        if not self._number:
            self.dead = True
            return Fault(self._how)
        return None

    def store(self, inner: Store) -> FaultyStore:
        return FaultyStore(inner, self.plan)


def tried(work: Callable[[], object]) -> None:
    with suppress(OrbweaverError, TimeoutError):  # its process is dead
        work()


@pytest.mark.parametrize("how", [How.BEFORE, How.AFTER])
@pytest.mark.parametrize("number", range(1, 12))
def test_a_death_at_any_write_is_repaired_from_the_status(tmp_path: Path, number: int, how: How) -> None:
    """Made, grown, shrunk, adopted by: about ten writes."""
    death = Death(number, how)
    with subnet_rig(tmp_path, subnet(gateway="10.6.0.254"), wrap=lambda inner: inner, grace=0.05) as one:
        one.restart(death.store(one.inner))
        for wanted in (3, 6, 2):
            tried(lambda wanted=wanted: one.ensure(auto_pool(WEB, wanted)))  # type: ignore[misc]
        tried(lambda: one.inner.create(pool("by-hand", "10.6.0.0/16", "10.6.0.8", default=False)))
        one.restart(one.inner)

        assert one.ensure(auto_pool(WEB, 4)) == Ensured(POOL, 4)
        asked = auto_pool(application("other", "77777"), 9)
        left = Exhausted("rack", 9, 4, ((POOL, 4), ("by-hand", 1)))
        # The watch may still have to tell of what the pool gave back before its leader died.
        eventually(lambda: equal(one.ensure(asked), left))
        eventually(lambda: prove_division(one.inner))
        assert one.pool("by-hand").gateway is not None
        one.drop(POOL)
        eventually(lambda: _shares(one, {"by-hand": 1}))


def _shares(one: SubnetRig, expected: dict[str, int]) -> None:
    assert {name: entry.ips.size for name, entry in one.subnet().controlled.items()} == expected


@pytest.mark.slow
@pytest.mark.parametrize("seed", [fresh_seed()])
def test_random_work_with_deaths_keeps_every_address_in_one_place(tmp_path: Path, seed: int) -> None:
    """Applications come, are scaled, and go; pods come and go; leaders die at random writes. The seed is in the name."""
    chance = random.Random(seed)
    applications = [application(f"app-{number}", f"{number:05}") for number in range(6)]
    wanted: dict[str, int] = {}
    had: dict[str, set[str]] = {}
    with subnet_rig(tmp_path, subnet("rack", "10.6.0.1-10.6.0.40"), grace=0.05) as one:
        one.inner.create(pool("by-hand", "10.6.0.0/16", "10.6.0.35-10.6.0.36", default=False))
        eventually(lambda: _shares(one, {"by-hand": 2}))
        for _ in range(60):
            death = Death(chance.randrange(1, 4), chance.choice([How.BEFORE, How.AFTER]))
            dies = chance.random() < 0.25
            if dies:
                one.restart(death.store(one.inner))
            owner = chance.choice(applications)
            asked = auto_pool(owner, chance.randrange(12))
            work = ["ensure", "ensure", "drop"] if dies else [*_WORK, "late claim", "delete"]
            match chance.choice(work):
                case "ensure":
                    wanted[asked.name] = asked.wanted
                    tried(lambda asked=asked: one.ensure(asked))  # type: ignore[misc]
                case "drop":
                    wanted.pop(asked.name, None)
                    tried(lambda asked=asked: one.drop(asked.name))  # type: ignore[misc]
                case "claim":
                    _claim(one, chance)
                case "late claim":
                    _claim_late(one, chance, had)
                case "delete" if asked.name in one.pools():
                    tried(lambda asked=asked: one.inner.delete("SpiderIPPool", asked.name))  # type: ignore[misc]
                case "release" if one.used():
                    address = chance.choice(sorted(one.used()))
                    one.release(address)
            if dies:
                one.restart(one.inner)
                for other in applications:
                    again = auto_pool(other, 0)
                    if again.name in wanted:
                        one.ensure(auto_pool(other, wanted[again.name]))
                    else:
                        one.drop(again.name)
            _prove(one)
            for name, obj in one.pools().items():
                had.setdefault(name, set()).update(_texts(IPPool.from_object(obj).ips))
        for address in one.used():
            one.release(address)
        for owner in applications:
            one.drop(auto_pool(owner, 0).name)
        eventually(lambda: _shares(one, {"by-hand": 2}))
        status = one.inner.get("SpiderSubnet", "rack")["status"]
        assert (status["allocatedIPCount"], status["totalIPCount"]) == (2, 40)


def _claim(one: SubnetRig, chance: random.Random) -> None:
    """A pod starts with an address of a pool that is there."""
    pools = [IPPool.from_object(obj) for obj in one.inner.list("SpiderIPPool").items]
    used = one.used()
    free = [
        (format_address(4, value), found.name)
        for found in pools
        if not found.terminating and found.name != "by-hand"
        for low, high in found.ips
        for value in range(low, high + 1)
        if format_address(4, value) not in used
    ]
    if free:
        one.claim(*chance.choice(free))


def _claim_late(one: SubnetRig, chance: random.Random, had: dict[str, set[str]]) -> None:
    """A pod starts with an address that its pool had before, by what an agent knows that has not heard of it. Where the subnet
    has none to exchange for it, it stays with the pool that has it now, and so it does with one that is being deleted."""
    rack, used, pools = one.subnet(), one.used(), one.pools()
    if rack.total - rack.allocated < 2 + len(used):
        return
    ending = {
        address
        for obj in pools.values()
        if obj["metadata"].get("deletionTimestamp")
        for address in _texts(IPPool.from_object(obj).ips)
    }
    late = [
        (address, name)
        for name in sorted(rack.controlled.keys() & had.keys())
        if name in pools and not pools[name]["metadata"].get("deletionTimestamp")
        for address in sorted(had[name] - used.keys() - ending)
    ]
    if late:
        one.claim(*chance.choice(late))


def _prove(one: SubnetRig) -> None:
    """Once things have settled: the pools and the status agree, and pods' addresses are in the pools they came from."""

    def settled() -> None:
        prove_division(one.inner)
        controlled = one.subnet().controlled
        for address, name in one.used().items():
            assert name in controlled, (address, name)
            assert address in _texts(controlled[name].ips), (address, name)

    eventually(settled)


def _texts(ips: object) -> set[str]:
    return {format_address(4, value) for low, high in ips for value in range(low, high + 1)}  # type: ignore[attr-defined]


@pytest.mark.parametrize("before", [0, 3], ids=["a new pool", "a pool that grows"])
def test_who_does_not_lead_any_more_behind_the_status_writes_no_pool(tmp_path: Path, before: int) -> None:
    """It may have stood still for minutes there, while another leader has divided the subnet otherwise."""
    leading, armed = threading.Event(), threading.Event()
    leading.set()

    def plan(write: Write) -> None:
        if armed.is_set() and (write.verb, write.kind) == ("update_status", "SpiderSubnet"):
            leading.clear()

    with subnet_rig(
        tmp_path, subnet(), wrap=lambda inner: FaultyStore(inner, plan), leads=leading.is_set
    ) as one:
        if before:
            one.ensure(auto_pool(WEB, before))
        eventually(lambda: equal((one.subnet().total, one.subnet().allocated), (9, before)))
        armed.set()
        with pytest.raises(PeerLost, match="does not lead"):
            one.ensure(auto_pool(WEB, 5))

        assert one.share(POOL) == ["10.6.0.1-10.6.0.5"]
        assert [IPPool.from_object(obj).ips.size for obj in one.pools().values()] == [before] * bool(before)
