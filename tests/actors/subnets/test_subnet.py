"""The SubnetActor on a real store: pools that follow applications grow, shrink and go, and no address is in two of them."""

from __future__ import annotations

import json
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from actors.resources.intervals import IntervalSet
from actors.resources.ippool import IPPool
from actors.resources.subnet import SpiderSubnet
from actors.runtime import get
from actors.store.contract import Store
from actors.store.sqlite.store import SQLiteStore
from actors.subnets.messages import Ensured, Exhausted, SubnetRefused
from actors.subnets.pool_writer import PoolWriter
from tests.support.checker import equal, eventually
from tests.support.faulty_store import FaultyStore, Write
from tests.support.rig import pool
from tests.support.subnet_rig import application, auto_pool, prove_division, subnet, subnet_rig

WEB = application()
POOL = "auto4-web-eth0-1a2b3"
ROUTES = [{"dst": "10.7.0.0/16", "gw": "10.6.0.254"}]


def test_a_pool_of_an_application_has_spiderpools_form(tmp_path: Path) -> None:
    with subnet_rig(tmp_path, subnet(gateway="10.6.0.254", routes=ROUTES)) as one:
        assert one.ensure(auto_pool(WEB, 3)) == Ensured(POOL, 3)

        found = one.inner.get("SpiderIPPool", POOL)
        rack = one.inner.get("SpiderSubnet", "rack")
        assert found["metadata"]["labels"] == {
            "ipam.spidernet.io/owner-spider-subnet": "rack",
            "ipam.spidernet.io/owner-application-gv": "apps_v1",
            "ipam.spidernet.io/owner-application-kind": "Deployment",
            "ipam.spidernet.io/owner-application-namespace": "shop",
            "ipam.spidernet.io/owner-application-name": "web",
            "ipam.spidernet.io/owner-application-uid": "1a2b3",
            "ipam.spidernet.io/interface": "eth0",
            "ipam.spidernet.io/ippool-reclaim": "true",
            "ipam.spidernet.io/ip-version": "IPv4",
            "ipam.spidernet.io/ippool-cidr": "10-6-0-0-16",
        }
        assert found["metadata"]["annotations"]["ipam.spidernet.io/ippool-ip-number"] == "+1"
        (owner,) = found["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["name"], owner["uid"]) == (
            "SpiderSubnet",
            "rack",
            rack["metadata"]["uid"],
        )
        assert owner["controller"] is True
        assert found["metadata"]["finalizers"] == ["spiderpool.spidernet.io"]
        assert found["spec"] == {
            "ipVersion": 4,
            "subnet": "10.6.0.0/16",
            "ips": ["10.6.0.1-10.6.0.3"],
            "gateway": "10.6.0.254",
            "routes": ROUTES,
            "podAffinity": {
                "matchLabels": {
                    "ipam.spidernet.io/app-api-group": "apps",
                    "ipam.spidernet.io/app-api-version": "v1",
                    "ipam.spidernet.io/app-kind": "Deployment",
                    "ipam.spidernet.io/app-namespace": "shop",
                    "ipam.spidernet.io/app-name": "web",
                }
            },
            "default": False,
            "disable": False,
            "vlan": 0,
        }
        status = rack["status"]
        assert json.loads(status["controlledIPPools"]) == {
            POOL: {"ips": ["10.6.0.1-10.6.0.3"], "application": "apps_v1_Deployment_shop_web"}
        }
        assert (status["allocatedIPCount"], status["totalIPCount"]) == (3, 9)
        assert rack["metadata"]["finalizers"] == ["spiderpool.spidernet.io"]


def test_asking_again_changes_nothing(tmp_path: Path) -> None:
    with subnet_rig(tmp_path, subnet()) as one:
        one.ensure(auto_pool(WEB, 3))
        before = one.inner.get("SpiderIPPool", POOL)["metadata"]["generation"], one.subnet().version

        assert one.ensure(auto_pool(WEB, 3)) == Ensured(POOL, 3)

        assert (one.inner.get("SpiderIPPool", POOL)["metadata"]["generation"], one.subnet().version) == before


def test_a_pool_grows_and_shrinks_and_gets_its_own_addresses_again(tmp_path: Path) -> None:
    with subnet_rig(tmp_path, subnet()) as one:
        one.ensure(auto_pool(WEB, 6))
        assert one.ensure(auto_pool(WEB, 2)) == Ensured(POOL, 2)
        assert one.share(POOL) == ["10.6.0.1-10.6.0.2"]
        other = application("other", "77777")
        one.ensure(auto_pool(other, 3))
        assert one.share("auto4-other-eth0-77777") == ["10.6.0.7-10.6.0.9"]  # not what web would have again

        assert one.ensure(auto_pool(WEB, 6)) == Ensured(POOL, 6)

        assert one.share(POOL) == ["10.6.0.1-10.6.0.6"]
        assert one.pool(POOL).ips == one.subnet().controlled[POOL].ips
        prove_division(one.inner)


def test_shrinking_drops_no_used_address_and_goes_on_when_the_pod_has_gone(tmp_path: Path) -> None:
    with subnet_rig(tmp_path, subnet()) as one:
        one.ensure(auto_pool(WEB, 4))
        one.claim("10.6.0.4", POOL)
        one.claim("10.6.0.3", POOL, "shop/web-1")

        assert one.ensure(auto_pool(WEB, 1)) == Ensured(POOL, 2)
        assert one.share(POOL) == ["10.6.0.3-10.6.0.4"]
        one.release("10.6.0.4")

        eventually(lambda: equal(one.share(POOL), ["10.6.0.3"]))
        eventually(lambda: prove_division(one.inner))


def test_an_exhausted_subnet_answers_with_who_has_most_and_says_it_in_its_status(tmp_path: Path) -> None:
    with subnet_rig(tmp_path, subnet()) as one:
        one.ensure(auto_pool(WEB, 6))
        other = application("other", "77777")
        before = one.subnet().controlled

        answer = one.ensure(auto_pool(other, 5))

        assert answer == Exhausted("rack", 5, 3, ((POOL, 6),))
        assert one.subnet().controlled == before
        assert one.subnet().exhausted
        (condition,) = one.inner.get("SpiderSubnet", "rack")["status"]["conditions"]
        assert condition["reason"] == "TooFewAddresses"
        assert f"required 5, left 3; most are in the pools {POOL} (6)" in condition["message"]

        def told() -> None:
            (event,) = [one for one in one.inner.list("Event").items if one["reason"] == "SubnetExhausted"]
            assert event["involvedObject"]["name"] == "rack"
            assert "required 5, left 3" in event["message"]

        eventually(told)
        one.ensure(auto_pool(WEB, 2))
        assert one.ensure(auto_pool(other, 5)) == Ensured("auto4-other-eth0-77777", 5)
        eventually(lambda: equal(one.subnet().exhausted, False))


def test_a_subnet_says_no_more_that_it_is_exhausted_when_nobody_lacks_addresses(tmp_path: Path) -> None:
    with subnet_rig(tmp_path, subnet()) as one:
        one.ensure(auto_pool(WEB, 6))
        assert isinstance(one.ensure(auto_pool(WEB, 12)), Exhausted)
        other = one.ensure(auto_pool(application("other", "77777"), 5))
        assert isinstance(other, Exhausted)
        get(one.process.subnets.content("rack", POOL))
        assert one.subnet().exhausted, "the other still does"
        get(one.process.subnets.content("rack", "auto4-other-eth0-77777"))

        eventually(lambda: equal(one.subnet().exhausted, False))


def test_an_address_that_a_pod_got_in_the_moment_in_which_its_pool_lost_it_is_exchanged(
    tmp_path: Path,
) -> None:
    """Whoever gives out a pool's addresses may have heard later of its shrinking than the subnet, which has promised them to
    another pool; that one would be too small for as long as the pod lives."""
    with subnet_rig(tmp_path, subnet()) as one:
        one.ensure(auto_pool(WEB, 4))
        one.ensure(auto_pool(WEB, 1))
        other = auto_pool(application("other", "77777"), 8)
        one.ensure(other)
        assert one.ensure(replace(other, wanted=3)) == Ensured(other.name, 3)
        assert one.share(other.name) == ["10.6.0.2-10.6.0.4"]

        one.claim("10.6.0.2", POOL)

        eventually(lambda: equal(one.share(other.name), ["10.6.0.3-10.6.0.5"]))
        eventually(lambda: equal(one.share(POOL), ["10.6.0.2"]))
        eventually(lambda: prove_division(one.inner))


def test_what_the_subnet_excludes_reserves_or_lists_elsewhere_is_not_given(tmp_path: Path) -> None:
    reserved = {
        "apiVersion": "spiderpool.spidernet.io/v2beta1",
        "kind": "SpiderReservedIP",
        "metadata": {"name": "r"},
        "spec": {"ips": ["10.6.0.3"]},
    }
    stranger = pool("stranger", "10.6.0.0/24", "10.6.0.5", default=False)
    with subnet_rig(tmp_path, subnet(excludeIPs=["10.6.0.1"]), reserved, stranger) as one:
        one.claim("10.6.0.7", "long-gone")

        assert one.ensure(auto_pool(WEB, 9)) == Exhausted("rack", 9, 5, ())
        assert one.ensure(auto_pool(WEB, 5)) == Ensured(POOL, 5)
        assert one.share(POOL) == ["10.6.0.2", "10.6.0.4", "10.6.0.6", "10.6.0.8-10.6.0.9"]


def test_a_dropped_pool_goes_with_its_last_address_and_the_subnet_has_all_again(tmp_path: Path) -> None:
    with subnet_rig(tmp_path, subnet()) as one:
        one.ensure(auto_pool(WEB, 4))
        one.claim("10.6.0.2", POOL)

        one.drop(POOL)

        eventually(lambda: equal(bool(one.pool(POOL).terminating), True))
        # Asked for on the way to its end, as by a question that was on its way already, it is not made again by itself.
        assert isinstance(one.ensure(auto_pool(WEB, 4)), SubnetRefused)
        assert one.share(POOL)
        one.release("10.6.0.2")
        eventually(lambda: equal(one.pools(), {}))
        eventually(lambda: equal(one.share(POOL), []))
        rack = one.inner.get("SpiderSubnet", "rack")["status"]
        assert (rack["allocatedIPCount"], rack["totalIPCount"]) == (0, 9)
        assert "controlledIPPools" not in rack


def test_a_pool_that_somebody_deleted_is_made_again_with_what_its_pods_have(tmp_path: Path) -> None:
    """As soon as its application asks for it."""
    with subnet_rig(tmp_path, subnet()) as one:
        one.ensure(auto_pool(WEB, 3))
        one.claim("10.6.0.3", POOL)

        def let_go() -> None:
            """The pool's status is written meanwhile."""
            found = one.inner.get("SpiderIPPool", POOL)
            one.inner.update({**found, "metadata": {**found["metadata"], "finalizers": []}})

        eventually(let_go)
        one.inner.delete("SpiderIPPool", POOL)
        eventually(lambda: equal(one.share(POOL), []))

        one.ensure(auto_pool(WEB, 3))

        assert one.share(POOL) == ["10.6.0.1-10.6.0.3"]
        eventually(lambda: prove_division(one.inner))


def test_a_pool_that_somebody_deleted_is_not_made_again_by_itself(tmp_path: Path) -> None:
    """Its application has asked for one of another name by then, and nobody would have it taken away."""
    with subnet_rig(tmp_path, subnet()) as one:
        one.ensure(auto_pool(WEB, 3))
        one.claim("10.6.0.2", POOL)
        one.inner.delete("SpiderIPPool", POOL)
        eventually(lambda: equal(bool(one.pool(POOL).terminating), True))
        second = replace(auto_pool(WEB, 3), name="auto4-web-eth0-second")
        assert one.ensure(second) == Ensured(second.name, 3)

        one.release("10.6.0.2")

        eventually(lambda: equal(list(one.pools()), [second.name]))
        eventually(lambda: equal(one.share(POOL), []))
        assert one.ensure(second) == Ensured(second.name, 3)
        assert list(one.pools()) == [second.name]


def test_a_pool_that_is_deleted_while_it_grows_keeps_no_addresses_that_it_does_not_list(
    tmp_path: Path,
) -> None:
    """The status is written before the pool, which then cannot be; it may stay for as long as its pods run."""
    stores: list[FaultyStore] = []
    armed = threading.Event()

    def plan(write: Write) -> None:
        if armed.is_set() and (write.verb, write.kind) == ("update", "SpiderIPPool"):
            armed.clear()
            stores[0].inner.delete("SpiderIPPool", POOL)

    def wrap(inner: Store) -> FaultyStore:
        stores.append(FaultyStore(inner, plan))
        return stores[0]

    with subnet_rig(tmp_path, subnet(), wrap=wrap) as one:
        one.ensure(auto_pool(WEB, 3))
        one.claim("10.6.0.2", POOL)
        eventually(lambda: equal(one.inner.get("SpiderIPPool", POOL)["status"].get("allocatedIPCount"), 1))
        armed.set()

        assert isinstance(one.ensure(auto_pool(WEB, 7)), SubnetRefused)

        eventually(lambda: equal(one.share(POOL), ["10.6.0.1-10.6.0.3"]))
        eventually(lambda: prove_division(one.inner))
        assert one.ensure(auto_pool(application("other", "77777"), 6)) == Ensured("auto4-other-eth0-77777", 6)


def test_a_pool_that_was_being_deleted_when_the_leader_began_is_missed_when_it_goes(tmp_path: Path) -> None:
    with subnet_rig(tmp_path, subnet(), grace=3600.0) as one:
        one.ensure(auto_pool(WEB, 3))
        one.process.stop()
        one.inner.delete("SpiderIPPool", POOL)

        one.restart()

        eventually(lambda: equal(one.share(POOL), []))


def test_a_hundred_applications_that_come_at_once_cost_two_writes_of_the_subnet(tmp_path: Path) -> None:
    """And one of each pool, without reading any: what waits for a write is decided together."""
    asked = threading.Event()
    stores: list[FaultyStore] = []

    def plan(write: Write) -> None:
        if (write.verb, write.kind) == ("update_status", "SpiderSubnet"):
            asked.wait(60)

    def wrap(inner: Store) -> FaultyStore:
        stores.append(FaultyStore(inner, plan))
        return stores[0]

    with subnet_rig(tmp_path, subnet("rack", "10.6.0.1-10.6.3.250"), wrap=wrap) as one:
        store = stores[0]
        wanted = [auto_pool(application(f"app-{number}", f"{number:05}"), 5) for number in range(100)]
        answers = [one.process.subnets.ensure("rack", pool) for pool in wanted]
        asked.set()

        assert [get(answer, 60) for answer in answers] == [Ensured(pool.name, 5) for pool in wanted]

        written = Counter((write.verb, write.kind) for write in store.writes)
        assert (
            written["update_status", "SpiderSubnet"] <= 3
        )  # its first status, the first who came, and all others
        assert written["create", "SpiderIPPool"] == 100
        assert written["update", "SpiderIPPool"] == 0
        prove_division(one.inner)


def test_why_a_subnet_cannot_make_a_pool_at_all(tmp_path: Path) -> None:
    by_hand = pool(POOL, "10.6.0.0/16", "10.6.0.8", default=False)
    with subnet_rig(
        tmp_path,
        subnet(),
        subnet("six", "fd00::1-fd00::9", cidr="fd00::/64"),
        by_hand,
        is_enabled=lambda family: family == 4,
    ) as one:
        for subnet_name, asked, says in (
            ("rack", auto_pool(WEB, 1), "that somebody made by hand"),
            ("none", auto_pool(WEB, 1), "there is no SpiderSubnet none"),
            ("six", auto_pool(WEB, 1), "is IPv6; name it where IPv6 ones go"),
            ("six", auto_pool(WEB, 1, family=6), "which is disabled in the settings"),
        ):
            answer = one.ensure(asked, subnet_name)
            assert isinstance(answer, SubnetRefused)
            assert says in answer.reason


def test_pools_that_are_asked_for_together_are_written_at_the_same_time(tmp_path: Path) -> None:
    """Else the last of a hundred applications waits for the API server's answers about all others."""
    others = [auto_pool(application(name, f"uid-{name}"), 1) for name in ("blue", "red", "green")]
    asked, together = threading.Event(), threading.Barrier(len(others), timeout=60)

    def plan(write: Write) -> None:
        if (write.kind, write.verb) == ("SpiderIPPool", "create"):
            if write.name == POOL:
                assert asked.wait(60)
            else:
                together.wait()

    with subnet_rig(tmp_path, subnet(), wrap=lambda inner: FaultyStore(inner, plan)) as one:
        first = one.process.subnets.ensure("rack", auto_pool(WEB, 1))
        refs = [one.process.subnets.ensure("rack", other) for other in others]
        asked.set()

        assert get([first, *refs], 90) == [Ensured(POOL, 1), *(Ensured(other.name, 1) for other in others)]
        assert not together.broken
        prove_division(one.inner)


def test_who_asks_for_a_pool_does_not_wait_for_the_pools_of_others(tmp_path: Path) -> None:
    """Pools of one look are answered as they are stored, not when the last of them is."""
    slow = auto_pool(application("slow", "uid-slow"), 1)
    quick = auto_pool(application("quick", "uid-quick"), 1)
    asked, answered = threading.Event(), threading.Event()

    def plan(write: Write) -> None:
        if (write.kind, write.verb) == ("SpiderIPPool", "create"):
            assert {POOL: asked, slow.name: answered}.get(write.name, asked).wait(60)

    with subnet_rig(tmp_path, subnet(), wrap=lambda inner: FaultyStore(inner, plan)) as one:
        first = one.process.subnets.ensure("rack", auto_pool(WEB, 1))
        last, ref = (one.process.subnets.ensure("rack", other) for other in (slow, quick))
        asked.set()

        assert get(ref, 60) == Ensured(quick.name, 1)
        assert not last.done()

        answered.set()
        assert get([first, last], 60) == [Ensured(POOL, 1), Ensured(slow.name, 1)]
        prove_division(one.inner)


def test_what_is_known_of_the_status_is_what_stands_in_it(tmp_path: Path) -> None:
    """The actor does not parse what it wrote itself; a person who writes another status is seen all the same."""
    with subnet_rig(tmp_path, subnet()) as one:
        one.ensure(auto_pool(WEB, 5))
        one.ensure(auto_pool(WEB, 2))
        other = application("other", "77777")
        assert one.ensure(auto_pool(other, 3)) == Ensured("auto4-other-eth0-77777", 3)

        def wreck() -> None:
            found = one.inner.get("SpiderSubnet", "rack")
            one.inner.update_status({**found, "status": {**found["status"], "controlledIPPools": "{}"}})

        eventually(wreck)
        one.ensure(auto_pool(application("third", "33333"), 2))

        eventually(lambda: prove_division(one.inner))
        assert one.share(POOL) == ["10.6.0.1-10.6.0.2"]


def test_a_pool_whose_pods_come_and_go_is_known_and_one_that_was_edited_is_not(tmp_path: Path) -> None:
    """So a thousand pods that start cost few looks, and an edit is looked at soon."""
    store = SQLiteStore(tmp_path / "pools.db")
    rack = store.create(subnet())
    writer = PoolWriter(store)
    parsed = SpiderSubnet.from_object(rack)
    writer.write(POOL, None, auto_pool(WEB, 2), parsed, rack, IntervalSet([(0x0A060001, 0x0A060002)]))
    stored = store.get("SpiderIPPool", POOL)

    used = store.update_status({**stored, "status": {"allocatedIPCount": 1}})
    edited = store.update({**used, "spec": {**used["spec"], "gateway": "10.6.0.254"}})

    assert writer.is_known(IPPool.from_object(stored))
    assert writer.is_known(IPPool.from_object(used))
    assert not writer.is_known(IPPool.from_object(edited))
    assert not writer.is_known(replace(IPPool.from_object(used), name="another"))
    store.close()


def test_the_first_status_of_a_pool_that_this_process_made_is_written_without_reading_it(
    tmp_path: Path,
) -> None:
    reads: list[str] = []

    class Noting(FaultyStore):
        def get(self, kind: str, name: str, *more: Any, **options: Any) -> Any:
            reads.append(f"{kind}/{name}")
            return super().get(kind, name, *more, **options)

    with subnet_rig(tmp_path, subnet(), wrap=Noting) as one:
        one.ensure(auto_pool(WEB, 3))
        one.claim("10.6.0.2", POOL)

        def shown() -> None:
            status = one.inner.get("SpiderIPPool", POOL).get("status") or {}
            assert (status.get("allocatedIPCount"), status.get("totalIPCount")) == (1, 3)

        eventually(shown)
        assert f"SpiderIPPool/{POOL}" not in reads


def test_one_namespace_has_a_bounded_number_of_pools_and_costs_no_other_one_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deployments of no replicas cost nothing else, and a status of so many pools would be one that nobody can write."""
    monkeypatch.setattr("actors.subnets.subnet.MOST_POOLS", 2)
    mine = [auto_pool(application(name, f"uid-{name}"), 1) for name in ("a", "b", "c")]
    theirs = auto_pool(replace(application("web", "99999"), namespace="other"), 1)
    with subnet_rig(tmp_path, subnet()) as one:
        assert [one.ensure(pool) for pool in mine[:2]] == [Ensured(pool.name, 1) for pool in mine[:2]]

        refused = one.ensure(mine[2])
        assert isinstance(refused, SubnetRefused)
        assert refused.reason == (
            "the applications of namespace shop have 2 pools of SpiderSubnet rack, which is the most that one namespace may"
            " have; delete applications that nobody needs, or name another subnet"
        )
        assert one.ensure(theirs) == Ensured(theirs.name, 1)
        assert one.ensure(replace(mine[0], wanted=3)) == Ensured(mine[0].name, 3)  # what is there grows
        one.restart()
        assert isinstance(one.ensure(mine[2]), SubnetRefused)
        one.drop(mine[1].name)

        eventually(lambda: equal(one.ensure(mine[2]), Ensured(mine[2].name, 1)))
        eventually(lambda: prove_division(one.inner))
