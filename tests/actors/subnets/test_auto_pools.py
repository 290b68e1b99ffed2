"""Pools follow their applications: on the embedded store, with subnets that answer at once."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.allocation.application_pools import PoolsRequest
from actors.decisions.auto_pool import ApplicationPools
from actors.decisions.settings import Settings
from actors.errors import Conflict, NotFound, PeerLost, PodRefused, PoolNotReady, StoreUnavailable
from actors.resources.application import Application
from actors.resources.metadata import Owner
from actors.resources.workload import IP_NUMBER, RECLAIM, SUBNET, SUBNETS, Workload
from actors.runtime import ActorSystem, ObjectRef, get
from actors.store.caches.catalog import Catalog
from actors.store.sqlite.store import SQLiteStore
from actors.subnets.applications import Applications, Identity
from actors.subnets.auto_pools import AutoPoolsActor
from actors.subnets.pool_rounds import PoolRounds
from actors.subnets.reading_threads import ReadingThreads
from tests.support.checker import eventually
from tests.support.model_subnets import ModelSubnets, subnet

FLOOR = {SUBNET: '{"ipv4":["floor"]}'}


class World:
    """Everything but pods: a store, its caches, subnets, and the actor."""

    def __init__(self, directory: Path) -> None:
        self.store = SQLiteStore(directory / "orbweaver.db")
        self.catalog = Catalog(self.store, has_pods=False)
        self.subnets = ModelSubnets(
            self.store,
            subnet("floor", "10.6.0.0/16", "10.6.1.1-10.6.1.9"),
            subnet("attic", "10.7.0.0/16", "10.7.1.1-10.7.1.9"),
            subnet("floor-v6", "fd00:6::/64", "fd00:6::1:1-fd00:6::1:9"),
        )
        self.leads = False
        self.told: list[tuple[str, str, str]] = []
        self.system = ActorSystem("test")
        self.applications = Applications(self.store, self._changed, proven=True)
        self._threads = ReadingThreads()
        self.system.register("auto-pools", self._actor, mailbox=4096, idle=None)
        self.actor: Any = self.system.get_actor("auto-pools/local")

    def _actor(self, context: Any) -> AutoPoolsActor:
        return AutoPoolsActor(
            context,
            applications=self.applications,
            subnets=self.subnets,
            catalog=self.catalog,
            store=self.store,
            settings=Settings(),
            threads=self._threads,
            tell=self._tell,
            leads=lambda: self.leads,
        )

    def _tell(self, application: Application, reason: str, text: str) -> None:
        self.told.append((application.title, reason, text))

    def _changed(self, identity: Identity) -> None:
        if self.leads:
            self.actor.changed.options(timeout=None).remote((identity,))

    def start(self) -> None:
        self.catalog.start()
        self.applications.start()
        assert self.catalog.wait_synced(60)
        assert self.applications.wait_listed(60)
        self.catalog.informer("SpiderIPPool").subscribe(
            lambda key: self.actor.pools_changed.options(timeout=None).remote((key.name,))
        )
        self.begin()

    def begin(self) -> None:
        self.leads = True
        get(self.actor.begin.options(timeout=60).remote())

    def everything_heard(self) -> None:
        """What was said to the actor until now has been done."""
        get(self.actor.changed.options(timeout=60).remote(()))

    def stop(self) -> None:
        self.system.shutdown()
        self.applications.stop()
        self.catalog.stop()
        self._threads.stop()
        self.store.close()

    def apply(self, kind: str, name: str, replicas: int, annotations: dict[str, str], **spec: Any) -> Owner:
        """Create it, or change it; returns it as its pods name it."""
        template: dict[str, Any] = {
            "metadata": {"annotations": annotations},
            "spec": {},
            **spec.pop("template", {}),
        }
        body: dict[str, Any] = {
            "apiVersion": "batch/v1" if kind == "Job" else "apps/v1",
            "kind": kind,
            "metadata": {"name": name, "namespace": "shop"},
            "spec": {"replicas": replicas, "template": template, **spec},
            "status": {},
        }
        try:
            made = self.store.create(body)
        except Conflict:
            there = self.store.get(kind, name, "shop")
            made = self.store.update({**there, "spec": body["spec"]})
        return Owner(body["apiVersion"], kind, name, made["metadata"]["uid"])

    def seen(self, kind: str, name: str, **status: int) -> None:
        """What its controller says of its pods."""
        there = self.store.get(kind, name, "shop")
        self.store.update_status({**there, "status": status})

    def leaves(self, pool: str, used: int) -> None:
        """Pods have gone, and the pool's status says so, as the views write it."""
        self.subnets.used[pool] = used

        def told() -> None:
            with contextlib.suppress(NotFound):  # it is empty, and gone already
                there = self.store.get("SpiderIPPool", pool)
                self.store.update_status({**there, "status": {"allocatedIPCount": used}})

        eventually(told)

    def ask(
        self,
        owner: Owner,
        annotations: dict[str, str] | None = None,
        *,
        wait: float = 30.0,
        again: bool = False,
    ) -> ObjectRef[ApplicationPools]:
        asked = tuple(sorted((FLOOR if annotations is None else annotations).items()))
        request = PoolsRequest("shop/pod-1", owner, asked, wait, again)
        answer: ObjectRef[ApplicationPools] = self.actor.pools_for.options(timeout=60).remote(request)
        return answer

    def pools(
        self, owner: Owner, annotations: dict[str, str] | None = None, *, again: bool = False
    ) -> tuple[str, ...]:
        """What an ADD is told for IPv4 on eth0."""
        return get(self.ask(owner, annotations, again=again)).names("eth0", 4)

    def settles(self, **sizes: int) -> None:
        """Pools by what their names begin with, and how many addresses each comes to have."""

        def look() -> None:
            found = {
                name.rpartition("-")[0].replace("-", "_"): count for name, count in self.subnets.sizes.items()
            }
            assert found == sizes

        eventually(look)
        self.subnets.prove()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    made.start()
    yield made
    made.stop()


def test_the_pool_is_there_before_any_pod_asks_and_follows_the_replicas(world: World) -> None:
    owner = world.apply("Deployment", "web", 2, FLOOR)
    world.settles(auto4_web_eth0=3)
    asked = len(world.subnets.asked)
    (name,) = world.pools(owner)

    assert len(world.subnets.asked) == asked, "an ADD that finds the pool asks no subnet"
    assert name in world.subnets.sizes
    world.apply("Deployment", "web", 5, FLOOR)
    world.settles(auto4_web_eth0=6)
    world.apply("Deployment", "web", 1, FLOOR)
    world.settles(auto4_web_eth0=2)
    world.apply("Deployment", "web", 1, {**FLOOR, IP_NUMBER: "4"})
    world.settles(auto4_web_eth0=4)
    assert world.pools(owner) == (name,), "of an older template, it has the pool of the present one"
    world.store.delete("Deployment", "web", "shop")
    world.settles()


@pytest.mark.parametrize(
    ("kind", "spec", "status", "size"),
    [
        ("StatefulSet", {}, {}, 3),
        ("ReplicaSet", {}, {}, 3),
        ("DaemonSet", {}, {"desiredNumberScheduled": 5}, 6),
        ("Job", {"completions": 4}, {}, 5),
    ],
)
def test_every_kind_has_its_pool(
    world: World, kind: str, spec: dict[str, Any], status: dict[str, int], size: int
) -> None:
    world.apply(kind, "it", 2, FLOOR, **spec)
    if status:
        world.seen(kind, "it", **status)
    world.settles(auto4_it_eth0=size)
    world.store.delete(kind, "it", "shop")
    world.settles()


def test_several_interfaces_and_families(world: World) -> None:
    asked = {
        SUBNETS: '[{"interface":"eth0","ipv4":["floor"],"ipv6":["floor-v6"]},{"interface":"net1","ipv4":["att*"]}]'
    }
    owner = world.apply("Deployment", "web", 2, asked)
    world.settles(auto4_web_eth0=3, auto6_web_eth0=3, auto4_web_net1=3)

    found = get(world.ask(owner, asked))
    assert [(one.interface, one.family, len(one.pools), one.short) for one in found.interfaces] == [
        ("eth0", 4, 1, ""),
        ("eth0", 6, 1, ""),
        ("net1", 4, 1, ""),
    ]
    assert found.application.title == "Deployment shop/web"


def test_pods_with_the_node_s_addresses_get_no_pool(world: World) -> None:
    world.apply("DaemonSet", "host", 1, FLOOR, template={"spec": {"hostNetwork": True}})
    world.apply("Deployment", "web", 2, FLOOR)

    world.settles(auto4_web_eth0=3)


def test_an_add_that_comes_before_the_pool_is_answered_when_it_is_there(world: World) -> None:
    world.subnets.held = []
    owner = world.apply("Deployment", "web", 2, FLOOR)
    first, second = world.ask(owner), world.ask(owner)
    eventually(lambda: _is(len(world.subnets.held or ()) == 1))
    assert not first.done()

    world.subnets.held[0]()

    assert get(first).names("eth0", 4) == get(second).names("eth0", 4) != ()
    assert len(world.subnets.asked) == 1


def test_an_add_is_answered_in_its_time_even_without_a_pool(world: World) -> None:
    world.subnets.held = []
    owner = world.apply("Deployment", "web", 2, FLOOR)

    with pytest.raises(PoolNotReady, match="are not there yet"):
        get(world.ask(owner, wait=0.2))
    eventually(lambda: _is(len(world.subnets.held or ()) == 1))
    world.subnets.held.pop()()
    world.settles(auto4_web_eth0=3)


def test_what_fails_is_tried_again_and_who_waits_goes_on_waiting(world: World) -> None:
    world.subnets.failing = [StoreUnavailable("it is away", maybe_written=False)] * 2
    owner = world.apply("Deployment", "web", 2, FLOOR)

    assert world.pools(owner)
    assert len(world.subnets.asked) == 3


def test_who_comes_while_an_application_is_to_be_read_again_is_answered_then(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cache has lost sight of it, and the API server is away for a moment."""
    owner = world.apply("Deployment", "web", 2, FLOOR)
    world.settles(auto4_web_eth0=3)
    monkeypatch.setattr("actors.subnets.pool_rounds.RETRY_FIRST", 2.0)
    waits = threading.Event()
    read, cached, try_again = world.applications.read, world.applications.cached, PoolRounds.try_again

    def away(application: Application) -> Workload | None:
        if waits.is_set():
            return read(application)
        raise StoreUnavailable("it is away", maybe_written=False)

    def waits_to_try_again(*arguments: Any) -> None:
        try_again(*arguments)
        waits.set()

    monkeypatch.setattr(world.applications, "read", away)
    monkeypatch.setattr(
        world.applications, "cached", lambda identity: cached(identity) if waits.is_set() else None
    )
    monkeypatch.setattr(PoolRounds, "try_again", waits_to_try_again)
    world.actor.changed.remote((("apps", "Deployment", "shop", "web"),))
    assert waits.wait(60)

    assert world.pools(owner)


def test_a_pool_that_could_not_be_taken_away_is_taken_away_later(world: World) -> None:
    world.apply("Deployment", "web", 2, FLOOR)
    world.settles(auto4_web_eth0=3)
    world.subnets.failing = [StoreUnavailable("it is away", maybe_written=False)] * 2
    world.store.delete("Deployment", "web", "shop")

    world.settles()


def test_a_pool_that_another_leader_made_last_goes_with_its_application(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is heard of only when this leader has looked at all pools."""
    monkeypatch.setattr("actors.subnets.auto_pools.RETRY_MOST", 0.1)
    _left_behind(world, Application("apps", "v1", "Deployment", "shop", "gone", "0-abc"))

    world.settles()


def test_the_next_subnet_is_tried_and_wildcards_are_expanded(world: World) -> None:
    world.apply("Deployment", "big", 7, {SUBNET: '{"ipv4":["floor","attic"]}'})
    world.settles(auto4_big_eth0=8)
    owner = world.apply("Deployment", "web", 2, {SUBNET: '{"ipv4":["fl*","attic"]}'})

    world.settles(auto4_big_eth0=8, auto4_web_eth0=3)
    (name,) = world.pools(owner, {SUBNET: '{"ipv4":["fl*","attic"]}'})
    assert world.subnets.pools[name][0] == "attic"


def test_exhaustion_is_told_and_ends_when_addresses_come_back(world: World) -> None:
    world.apply("Deployment", "big", 6, FLOOR)
    world.settles(auto4_big_eth0=7)
    owner = world.apply("Deployment", "web", 4, FLOOR)

    (one,) = get(world.ask(owner)).interfaces
    assert one.short.startswith("SpiderSubnet floor has too few free addresses: required 5, left 2")
    eventually(lambda: _is(("Deployment shop/web", "SubnetExhausted") in [one[:2] for one in world.told]))
    world.seen("Deployment", "web", replicas=4)
    assert world.pools(owner, again=True), "pods that are there have what is left"
    world.settles(auto4_big_eth0=7, auto4_web_eth0=2)

    world.store.delete("Deployment", "big", "shop")
    world.settles(auto4_web_eth0=2)
    world.actor.subnets_changed.remote()
    world.settles(auto4_web_eth0=5)


def test_a_used_address_is_never_given_back_and_an_unused_one_goes_when_pods_have_gone(world: World) -> None:
    owner = world.apply("Deployment", "web", 6, FLOOR)
    world.settles(auto4_web_eth0=7)
    (name,) = world.pools(owner)
    world.subnets.used[name] = 6

    world.apply("Deployment", "web", 1, FLOOR)
    world.settles(auto4_web_eth0=6)
    world.leaves(name, 1)
    world.settles(auto4_web_eth0=2)


def test_a_kept_pool_is_for_the_next_of_the_same_name_and_kind(world: World) -> None:
    keep = {**FLOOR, RECLAIM: "false"}
    owner = world.apply("Deployment", "web", 2, keep)
    world.settles(auto4_web_eth0=3)
    (name,) = world.pools(owner, keep)
    world.store.delete("Deployment", "web", "shop")
    world.apply("StatefulSet", "web", 1, FLOOR)
    world.apply("Deployment", "other", 1, FLOOR)
    eventually(lambda: _is(len(world.subnets.sizes) == 3))
    assert world.subnets.sizes[name] == 3, "it stays, and is nobody else's"

    again = world.apply("Deployment", "web", 3, keep)
    eventually(lambda: _is(world.subnets.sizes[name] == 4))
    assert world.pools(again, keep) == (name,)
    assert (
        world.store.get("SpiderIPPool", name)["metadata"]["labels"]["ipam.spidernet.io/owner-application-uid"]
        == again.uid
    )
    world.apply("Deployment", "web", 3, FLOOR)
    eventually(lambda: _is(_label(world, name) == "true"))
    world.store.delete("Deployment", "web", "shop")
    eventually(lambda: _is(name not in world.subnets.sizes))


def test_a_pool_stays_although_its_application_goes_while_it_is_asked_for(world: World) -> None:
    keep = {**FLOOR, RECLAIM: "false"}
    owner = world.apply("Deployment", "web", 2, keep)
    world.settles(auto4_web_eth0=3)
    world.everything_heard()
    world.subnets.held = []
    world.apply("Deployment", "web", 4, keep)
    eventually(lambda: _is(len(world.subnets.held or ()) == 1))
    waiting = world.ask(owner, keep)
    world.everything_heard()
    world.store.delete("Deployment", "web", "shop")
    with pytest.raises(PodRefused, match="does not exist any more"):
        get(waiting)

    world.subnets.held.pop()()

    world.everything_heard()
    world.settles(auto4_web_eth0=5)
    assert world.subnets.dropped == []


def test_a_kept_pool_goes_whose_application_said_so_in_its_last_moment(world: World) -> None:
    """Its last word came while what it had said before was being answered, and no round began with it."""
    keep = {**FLOOR, RECLAIM: "false"}
    world.apply("Deployment", "web", 2, keep)
    world.settles(auto4_web_eth0=3)
    world.everything_heard()
    world.subnets.held = []
    world.apply("Deployment", "web", 4, keep)
    eventually(lambda: _is(len(world.subnets.held or ()) == 1))
    world.apply("Deployment", "web", 4, FLOOR)
    world.everything_heard()
    world.store.delete("Deployment", "web", "shop")
    eventually(lambda: _is(world.applications.cached(("apps", "Deployment", "shop", "web")) is None))
    world.everything_heard()

    world.subnets.held.pop()()

    world.settles()


def test_a_kept_pool_goes_when_a_person_says_so(world: World) -> None:
    keep = {**FLOOR, RECLAIM: "false"}
    (name,) = world.pools(world.apply("Deployment", "web", 2, keep), keep)
    world.store.delete("Deployment", "web", "shop")
    eventually(lambda: _is(world.applications.cached(("apps", "Deployment", "shop", "web")) is None))
    world.apply("Deployment", "other", 1, FLOOR)
    world.settles(auto4_web_eth0=3, auto4_other_eth0=2)

    def told() -> None:
        there = world.store.get("SpiderIPPool", name)
        labels = {**there["metadata"]["labels"], RECLAIM: "true"}
        world.store.update({**there, "metadata": {**there["metadata"], "labels": labels}})

    eventually(told)
    world.settles(auto4_other_eth0=2)


def test_made_anew_with_another_uid_it_has_a_pool_of_its_own(world: World) -> None:
    owner = world.apply("Deployment", "web", 2, FLOOR)
    world.settles(auto4_web_eth0=3)
    (name,) = world.pools(owner)
    world.store.delete("Deployment", "web", "shop")
    again = world.apply("Deployment", "web", 2, FLOOR)

    eventually(lambda: _is(world.subnets.dropped == [name]))
    world.settles(auto4_web_eth0=3)
    assert world.pools(again) != (name,)
    with pytest.raises(PodRefused, match="is not there, or is another one by now"):
        world.pools(owner)


def test_a_pool_that_somebody_deletes_is_made_again(world: World) -> None:
    owner = world.apply("Deployment", "web", 2, FLOOR)
    world.settles(auto4_web_eth0=3)
    (name,) = world.pools(owner)
    del world.subnets.pools[name]
    world.store.delete("SpiderIPPool", name)

    world.settles(auto4_web_eth0=3)


@pytest.mark.parametrize("in_use", [False, True])
def test_a_pool_that_somebody_deletes_is_followed_by_one_although_the_cache_has_not_heard_of_it(
    world: World, in_use: bool
) -> None:
    """A pod found no address there, because its agent has heard of it."""
    owner = world.apply("Deployment", "web", 2, FLOOR)
    world.settles(auto4_web_eth0=3)
    (name,) = world.pools(owner)
    world.catalog.informer("SpiderIPPool").stop(60)
    if in_use:
        there = world.store.get("SpiderIPPool", name)
        world.store.update({**there, "metadata": {**there["metadata"], "finalizers": ["a/b"]}})
    world.store.delete("SpiderIPPool", name)

    (next_one,) = world.pools(owner, again=True)

    assert next_one != name
    assert world.subnets.sizes[next_one] == 3


def test_an_application_that_changes_its_subnet_keeps_the_old_pool_while_pods_use_it(world: World) -> None:
    owner = world.apply("Deployment", "web", 2, FLOOR)
    world.settles(auto4_web_eth0=3)
    (old,) = world.pools(owner)
    world.subnets.used[old] = 2
    world.apply("Deployment", "web", 2, {SUBNET: '{"ipv4":["attic"]}'})
    eventually(lambda: _is(sorted(world.subnets.sizes.values()) == [2, 3]))
    assert old not in world.subnets.dropped
    assert world.subnets.pools[world.pools(owner, {SUBNET: '{"ipv4":["attic"]}'})[0]]

    world.leaves(old, 0)
    eventually(lambda: _is(old in world.subnets.dropped))


def test_a_pool_that_was_to_go_stays_when_the_application_wants_it_again(world: World) -> None:
    """A rolling update that changed the subnet was rolled back."""
    owner = world.apply("Deployment", "web", 2, FLOOR)
    world.settles(auto4_web_eth0=3)
    (old,) = world.pools(owner)
    world.subnets.used[old] = 1
    world.apply("Deployment", "web", 2, {SUBNET: '{"ipv4":["attic"]}'})
    eventually(lambda: _is(sorted(world.subnets.sizes.values()) == [1, 3]))
    world.apply("Deployment", "web", 2, FLOOR)
    world.settles(auto4_web_eth0=3)

    for used in (2, 1):  # each time its status changes
        world.leaves(old, used)
        get(world.actor.pools_changed.options(timeout=60).remote((old,)))

    world.everything_heard()
    world.settles(auto4_web_eth0=3)
    assert world.pools(owner) == (old,)


def test_a_pod_of_a_newer_template_than_is_known_waits_for_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A watch may be behind the one of the controller that made the pod."""
    owner = world.apply("Deployment", "web", 2, FLOOR)
    world.settles(auto4_web_eth0=3)
    known = world.applications.cached(("apps", "Deployment", "shop", "web"))
    monkeypatch.setattr(world.applications, "cached", lambda identity: known)
    both = {SUBNET: '{"ipv4":["floor"],"ipv6":["floor-v6"]}'}
    world.apply("Deployment", "web", 2, both)

    assert get(world.ask(owner, both)).names("eth0", 6)


def test_a_late_pod_of_a_template_that_asked_leaves_no_pool_behind(world: World) -> None:
    """Once the template asks for nothing any more; also where it brought the pool back after all."""
    owner = world.apply("Deployment", "web", 2, FLOOR)
    world.settles(auto4_web_eth0=3)
    (name,) = world.pools(owner)
    world.subnets.used[name] = 1
    world.apply("Deployment", "web", 2, {})
    world.settles(auto4_web_eth0=1)
    assert world.pools(owner) == (name,)
    world.settles(auto4_web_eth0=3)
    world.leaves(name, 0)

    world.begin()  # looks at everything again, as it does from time to time

    world.settles()


def test_a_replicaset_that_a_deployment_adopts_gives_its_pool_back(world: World) -> None:
    """As when a Deployment is deleted without its pods, and made again."""
    replicaset = world.apply("ReplicaSet", "web-1", 2, FLOOR)
    world.settles(auto4_web_1_eth0=3)
    (name,) = world.pools(replicaset)
    world.subnets.used[name] = 2
    owner = world.apply("Deployment", "web", 2, FLOOR)
    there = world.store.get("ReplicaSet", "web-1", "shop")
    reference = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": owner.uid}
    metadata = {**there["metadata"], "ownerReferences": [{**reference, "controller": True}]}
    world.store.update({**there, "metadata": metadata})

    world.settles(auto4_web_eth0=3, auto4_web_1_eth0=2)
    world.leaves(name, 0)
    world.settles(auto4_web_eth0=3)


def test_interfaces_that_differ_in_what_names_cannot_have_get_pools_of_their_own(world: World) -> None:
    entries = [
        {"interface": "net_1", "ipv4": ["floor"]},
        {"interface": "net-1", "ipv4": ["attic"]},
        {"interface": "NET-1", "ipv4": ["fl*"]},
    ]
    asked = {SUBNETS: json.dumps(entries)}
    owner = world.apply("Deployment", "web", 2, asked)

    answers = get(world.ask(owner, asked)).interfaces

    assert [len(answer.pools) for answer in answers] == [1, 1, 1]
    assert len({name for answer in answers for name in answer.pools}) == 3


def test_a_subnet_hears_when_nobody_lacks_addresses_any_more(world: World) -> None:
    exhausted = "SubnetExhausted"
    world.apply("Deployment", "web", 20, FLOOR)
    eventually(lambda: _is(("Deployment shop/web", exhausted) in [told[:2] for told in world.told]))
    assert world.subnets.relieved == []
    world.apply("Deployment", "web", 2, FLOOR)
    world.settles(auto4_web_eth0=3)
    eventually(lambda: _is([told[0] for told in world.subnets.relieved] == ["floor"]))

    world.apply("Deployment", "gone", 20, FLOOR)
    eventually(lambda: _is(("Deployment shop/gone", exhausted) in [told[:2] for told in world.told]))
    world.store.delete("Deployment", "gone", "shop")
    eventually(lambda: _is(len(world.subnets.relieved) == 2))


def test_annotations_that_cannot_be_read_refuse_that_application_s_pods(world: World) -> None:
    owner = world.apply("Deployment", "bad", 2, {SUBNET: "[", IP_NUMBER: "+1"})
    world.apply("Deployment", "web", 2, FLOOR)
    world.settles(auto4_web_eth0=3)

    with pytest.raises(PodRefused, match="it is not JSON"):
        get(world.ask(owner, {SUBNET: "["}))
    eventually(lambda: _is(("Deployment shop/bad", "PodRefused") in [one[:2] for one in world.told]))


def test_a_subnet_that_is_not_there_is_told(world: World) -> None:
    asked = {SUBNET: '{"ipv4":["flor"]}'}
    owner = world.apply("Deployment", "web", 2, asked)

    (one,) = get(world.ask(owner, asked)).interfaces
    assert (one.pools, one.short) == ((), "there is no SpiderSubnet flor; did you mean floor?")


def test_who_begins_anew_finds_everything_and_takes_away_what_is_left(world: World) -> None:
    """As the next leader does, after the one before died at any moment."""
    owner = world.apply("Deployment", "web", 2, FLOOR)
    keep = {**FLOOR, RECLAIM: "false"}
    world.apply("Deployment", "kept", 1, keep)
    world.settles(auto4_web_eth0=3, auto4_kept_eth0=2)
    (name,) = world.pools(owner)
    world.leads = False
    get(world.actor.end.options(timeout=60).remote())
    gone = world.apply("Deployment", "gone", 1, FLOOR)
    world.apply("Deployment", "web", 3, FLOOR)
    _left_behind(world, Application("apps", "v1", "Deployment", "shop", "gone", gone.uid))
    _left_behind(world, Application("apps", "v1", "Deployment", "shop", "b" * 100, "0-abc"))
    world.store.delete("Deployment", "gone", "shop")
    world.store.delete("Deployment", "kept", "shop")
    eventually(lambda: _is(world.applications.cached(("apps", "Deployment", "shop", "kept")) is None))

    world.begin()

    world.settles(auto4_web_eth0=4, auto4_kept_eth0=2)
    assert world.pools(owner) == (name,)


def test_after_a_crash_it_begins_by_itself(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = world.apply("Deployment", "web", 2, FLOOR)
    world.settles(auto4_web_eth0=3)
    monkeypatch.setattr(world.applications, "cached_top", lambda *_: 1 // 0)
    with pytest.raises(PeerLost):
        world.pools(owner)
    monkeypatch.undo()

    world.apply("Deployment", "web", 4, FLOOR)
    world.settles(auto4_web_eth0=5)


def test_who_asks_before_it_has_begun_is_answered_when_it_has(tmp_path: Path) -> None:
    """As when a leader is new: what it does not know yet is not missing."""
    world = World(tmp_path)
    owner = world.apply("Deployment", "web", 2, FLOOR)
    early = world.ask(owner)
    world.start()
    try:
        assert get(early).names("eth0", 4) == world.pools(owner) != ()
        world.leads = False
        get(world.actor.end.options(timeout=60).remote())
        late = world.ask(owner)
        get(world.actor.end.options(timeout=60).remote())
        with pytest.raises(PeerLost, match="makes no pools any more"):
            get(late)
    finally:
        world.stop()


def test_flapping_between_few_and_many_ends_in_the_right_size(world: World) -> None:
    owner = world.apply("Deployment", "web", 1, FLOOR)
    world.settles(auto4_web_eth0=2)
    for turn in range(60):
        world.apply("Deployment", "web", (8, 1)[turn % 2], FLOOR)
    world.apply("Deployment", "web", 7, FLOOR)

    assert world.pools(owner)
    world.settles(auto4_web_eth0=8)


def test_a_kind_that_is_not_counted_needs_a_number(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from actors.resources.workload import Workload

    owner = Owner("fleets.example/v1", "Harbour", "bay", "u")
    obj = {"metadata": {"name": "bay", "namespace": "shop", "uid": "u", "resourceVersion": "1"}}
    bay = Workload.of_another_kind(obj, "fleets.example", "v1", "Harbour", None)
    monkeypatch.setattr(world.applications, "cached_top", lambda namespace, owner: bay)

    with pytest.raises(PodRefused, match=r"has no `scale` that says how many pods it wants"):
        world.pools(owner)
    fixed = {**FLOOR, IP_NUMBER: "5"}
    assert world.pools(owner, fixed)
    world.settles(auto4_bay_eth0=5)


def _left_behind(world: World, application: Application) -> None:
    """A pool that a leader made last."""
    from actors.decisions.auto_pool import Size, pool_affinity, pool_annotations, pool_labels
    from actors.subnets.messages import AutoPool

    labels = pool_labels(application, "eth0", reclaim=True)
    beside = pool_annotations(application, Size(1, True))
    name = f"auto4-{application.name[:9]}-eth0-left"
    world.subnets.ensure(
        "floor", AutoPool(name, 4, application, 1, labels, beside, pool_affinity(application))
    )
    eventually(lambda: _is(name in world.catalog.pools().pools))


def _label(world: World, name: str) -> str:
    found: str = world.store.get("SpiderIPPool", name)["metadata"]["labels"][
        "ipam.spidernet.io/ippool-reclaim"
    ]
    return found


def _is(so: bool) -> None:
    assert so
