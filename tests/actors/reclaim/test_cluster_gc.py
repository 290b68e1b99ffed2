"""The GC actor on a real API server: addresses come back when their holder is gone, and tell why; others stay.

No kubelet runs here: pods and nodes are objects whose status the tests set, and records are written as an agent writes
them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from actors.audit.audit import audit
from actors.audit.finding import AuditRule
from actors.audit.snapshot import Snapshot
from actors.decisions.settings import GCSettings, Settings
from actors.errors import Conflict, NotFound, StoreUnavailable
from actors.reclaim.rules import RecordedAddress, Verdict, judge
from actors.resources.addresses import format_address, parse_address
from actors.resources.blocks.block import Block, Claim, Granted, block_name
from actors.resources.blocks.record import Fence, Record
from actors.runtime import get
from actors.store.contract import Listing, Object, Store
from actors.store.kubernetes.store import KubernetesStore
from cni.process.controller import Controller
from tests.support.checker import eventually, records
from tests.support.cluster import Cluster, ClusterStore
from tests.support.leaders import in_process
from tests.support.rig import API, machine, pod, pool, rig, sandbox, statefulset
from tests.tools.apiserver import ApiServer
from tests.tools.kubevirt import install, remove

FAST = GCSettings(
    not_ready_delay=2.0, own_del=0.5, dead_on_ready_delay=0.2, dead_on_not_ready_delay=0.1, agent_away=0.0
)
"""No agent runs here that could be waited for."""
LONG_AGO = "2025-01-31T12:00:00Z"


class World:
    """The cluster's objects, and who holds which address."""

    def __init__(self, store: ClusterStore, plain: KubernetesStore, server: ApiServer) -> None:
        self.store, self.plain, self.server = store, plain, server
        self._addresses = iter(f"10.6.0.{number}" for number in range(1, 60))

    def node(self, name: str, ready: bool = True, *, since: str = LONG_AGO, taint: bool = False) -> None:
        """Make a node, or change the one there is."""
        condition = {"type": "Ready", "status": "True" if ready else "Unknown", "lastTransitionTime": since}
        taints = [{"key": "node.kubernetes.io/out-of-service", "value": "down", "effect": "NoExecute"}]
        body: Object = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "spec": {}}

        def write() -> None:
            try:
                found = self.store.get("Node", name)
            except NotFound:
                found = self.store.create(body)
            spec = {**found["spec"], "taints": taints if taint else []}
            found = self.store.update({**found, "spec": spec})
            self.store.update_status({**found, "status": {**found["status"], "conditions": [condition]}})

        eventually(write)

    def pod(self, name: str, node: str = "n1", namespace: str = "default", **spec: Any) -> Object:
        """A running pod on a node."""
        made = pod(name, namespace=namespace, statefulset=spec.pop("statefulset", ""))
        made["spec"] = {"nodeName": node, **spec}
        return self.status(self.store.create(made), phase="Running")

    def status(self, obj: Object, **status: Any) -> Object:
        return self.store.update_status({**obj, "status": {**obj.get("status", {}), **status}})

    def hold(self, obj: Object, container: str = "", *, address: str = "", owner: str = "") -> str:
        """Record an address for a pod, as its node's agent does; returns it."""
        metadata = obj["metadata"]
        container = container or f"c-{metadata['name']}"
        node = obj["spec"].get("nodeName", "")
        key = f"{metadata['namespace']}/{metadata['name']}"
        return self.claim(
            Record("blue", key, metadata["uid"], container, "eth0", node, owner, LONG_AGO, "net"),
            address or next(self._addresses),
        ).address

    def claim(self, record: Record, address: str, instead_of: Fence | None = None) -> Claimed:
        family, value = parse_address(address)
        name = block_name(family, value)
        while True:
            try:
                block = Block.from_object(self.store.get("SpiderIPBlock", name))
            except NotFound:
                block = Block(family, value & ~63)
            granted = block.claim(Claim(value, record, instead_of))
            assert isinstance(granted, Granted), granted
            try:
                write = self.store.update if block.version else self.store.create
                write(block.to_object())
            except Conflict:
                continue
            return Claimed(address, granted.suspect is not None)

    def delete(self, obj: Object, grace: int = 0) -> None:
        metadata = obj["metadata"]
        path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"
        code, answer = self.server.ask("DELETE", path, {"gracePeriodSeconds": grace})
        assert code == 200, answer

    def delete_namespace(self, name: str) -> None:
        """As a namespace goes: it is marked, its pods go, and then itself."""
        path = f"/api/v1/namespaces/{name}"
        assert self.server.ask("DELETE", path)[0] == 200
        for obj in self.store.list("Pod", name).items:
            self.delete(obj)
        # Its own controller does this, which does not run here.
        found = self.server.call("GET", path)
        self.server.call("PUT", f"{path}/finalize", {**found, "spec": {"finalizers": []}})

    def reasons(self) -> dict[str, tuple[str, str]]:
        """Of each address that an Event tells of: its reason, and on what kind of object it is."""
        told = {}
        for event in self.store.list("Event").items:
            kind = event["involvedObject"]["kind"]
            if event["source"].get("component") == "orbweaver-controller" and kind != "Lease":
                for address in event["message"].partition(" of pool")[0].split(", "):
                    told[address] = (event["reason"], kind)
        return told


class Claimed:
    def __init__(self, address: str, suspect: bool) -> None:
        self.address, self.suspect = address, suspect


@pytest.fixture
def world(api_server: ApiServer, tmp_path: Path) -> Iterator[World]:
    store = Cluster(api_server).open(tmp_path / "store")
    for event in store.list("Event").items:
        store.delete("Event", event["metadata"]["name"], event["metadata"]["namespace"])
    store.create(pool("blue", "10.6.0.0/16", "10.6.0.1-10.6.0.99"))
    plain = KubernetesStore(
        api_server.access()
    )  # the other completes what it writes, up to making a namespace
    yield World(store, plain, api_server)
    plain.close()
    store.close()


@contextmanager
def controller(store: Store, settings: GCSettings = FAST, *, leads: bool = True) -> Iterator[Controller]:
    """Collects garbage as soon as it leads; `leads=False`: although another one does, like one that was paused."""
    made = Controller(store, in_process(settings=Settings(gc=settings)))
    try:
        made.start()
        if not leads:
            made.gc.start()
        eventually(lambda: truth(made.gc.running))
        yield made
        assert made.fatal is None, made.fatal
    finally:
        made.stop()


def holds(world: World, *addresses: str) -> None:
    assert set(records(world.store)) == set(addresses)


def told(world: World, **expected: tuple[str, str]) -> None:
    assert world.reasons() == expected


@pytest.mark.parametrize(
    "status", ['[{"ips":[{}]}]', "[" * 973 + "]" * 973, '[{"ips":["\\ud800"]}]', '[{"ips":1}]']
)
def test_one_pod_whose_status_means_nothing_holds_up_nobody_s_address(world: World, status: str):
    """An address kept for a StatefulSet, a bare pod of the same name with what Multus would never write, the StatefulSet
    deleted: its address comes back all the same, and so do those of all others."""
    world.node("n1")
    world.store.create(statefulset("db", 1))
    kept = Record("blue", "default/db-0", "", "", "eth0", "n1", "StatefulSet/db", LONG_AGO, "net")
    first = world.claim(kept, "10.6.0.41").address
    evil = pod("db-0")
    evil["metadata"]["annotations"] = {"k8s.v1.cni.cncf.io/network-status": status}
    evil["spec"] = {"nodeName": "n1"}
    bare = world.status(world.store.create(evil), phase="Running")
    second = world.hold(bare, "c-bare", address="10.6.0.42")
    others = [world.pod(f"other-{number}") for number in range(3)]
    addresses = [world.hold(other) for other in others]
    with controller(world.store):
        world.store.delete("StatefulSet", "db", "default")
        eventually(lambda: holds(world, second, *addresses))
        for other in others:
            world.delete(other)
        eventually(lambda: holds(world, second))
        assert first not in records(world.store)
    found = audit(Snapshot.read(world.plain, pods=True))
    assert [one for one in found.findings if one.rule is AuditRule.UNJUDGED] == []


def test_a_pod_that_cannot_be_judged_costs_itself(world: World, monkeypatch: pytest.MonkeyPatch):
    """Whatever the bug is that its record meets: the other pods of the slice are judged, and the process lives on."""

    def judged(held: RecordedAddress, *rest: Any) -> Verdict:
        if held.record.pod == "default/evil":
            raise RecursionError("a bug")
        return judge(held, *rest)

    monkeypatch.setattr("actors.reclaim.cluster_gc.judge", judged)
    world.node("n1")
    evil, *others = [world.pod(name) for name in ("evil", "a", "b")]
    stays, *_ = [world.hold(one) for one in (evil, *others)]
    with controller(world.store):
        for one in (evil, *others):
            world.delete(one)
        eventually(lambda: holds(world, stays))


def test_each_way_in_which_a_holder_goes(world: World):
    """With the controller away and while it runs; each address comes back with its reason, and a healthy pod's stays."""
    world.node("n1")
    world.node("down", ready=False, since=now())
    world.node("dead", ready=False)
    world.node("out", ready=False, since=now(+3600), taint=True)
    world.node("going")
    healthy = world.hold(world.pod("healthy"))
    waiting = world.hold(world.pod("waiting", "down"))
    daemon = world.hold(
        world.pod("daemon", "dead", tolerations=[{"operator": "Exists", "effect": "NoExecute"}])
    )
    expected: dict[str, tuple[str, str]] = {}

    def case(suffix: str) -> list[Callable[[], object]]:
        """Pods that are about to go, and what makes each go."""
        gone, job, evicted = (world.pod(f"{name}-{suffix}") for name in ("gone", "job", "evicted"))
        again, slow = (world.pod(f"{name}-{suffix}") for name in ("again", "slow"))
        namespace = f"ns-{suffix}"
        theirs = world.pod("theirs", namespace=namespace)
        stuck = world.pod(f"stuck-{suffix}", "down")
        expected[world.hold(gone)] = ("PodGone", "SpiderIPPool")
        expected[world.hold(job)] = ("PodFinished", "Pod")
        expected[world.hold(evicted)] = ("PodEvicted", "Pod")
        expected[world.hold(again)] = ("PodReplaced", "Pod")
        expected[world.hold(slow)] = ("TerminatingOnReadyNode", "Pod")
        expected[world.hold(stuck)] = ("TerminatingOnNotReadyNode", "Pod")
        expected[world.hold(theirs)] = ("NamespaceGone", "SpiderIPPool")
        return [
            lambda: world.delete(gone),
            lambda: world.status(job, phase="Succeeded"),
            lambda: world.status(evicted, phase="Failed", reason="Evicted"),
            lambda: replace_pod(world, again),
            lambda: world.delete(slow, grace=1),
            lambda: world.delete(stuck, grace=1),
            lambda: world.delete_namespace(namespace),
        ]

    for go in case("before"):
        go()
    later = case("after")
    expected[world.hold(world.pod("lost", "dead"))] = ("NodeNotReady", "Pod")
    expected[world.hold(world.pod("declared", "out"))] = ("NodeOutOfService", "Pod")
    orphan = world.hold(world.pod("orphan", "going"))
    with controller(world.plain, FAST_BUT_PATIENT):
        for go in later:
            go()
        world.store.delete("Node", "going")
        expected[orphan] = ("NodeGone", "Pod")

        eventually(lambda: holds(world, healthy, waiting, daemon))
        eventually(lambda: told(world, **expected))

    assert suspects(world) == set(expected), "whatever sandbox it was, nobody saw its end"


def replace_pod(world: World, obj: Object) -> None:
    world.delete(obj)
    world.pod(obj["metadata"]["name"])


FAST_BUT_PATIENT = replace(FAST, not_ready_delay=3600.0, own_del=6.0)


def now(seconds: float = 0.0) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def test_a_healthy_pod_keeps_its_address_through_everything(world: World):
    """Its node is away for a moment, again and again, the controller restarts, others around it go."""
    world.node("n1")
    world.node("n2")
    mine = world.hold(world.pod("healthy"))
    for round_ in range(3):
        other, neighbour = world.pod(f"other-{round_}", "n2"), world.pod(f"neighbour-{round_}")
        held = [world.hold(other), world.hold(neighbour)]
        with controller(world.plain, replace(FAST, not_ready_delay=600.0, own_del=0.1)) as running:
            world.node("n1", ready=False, since=now())
            world.store.delete("Node", "n2")
            eventually(lambda: holds(world, mine, held[1]))  # noqa: B023
            world.node("n1")
            world.delete(neighbour)
            eventually(lambda: holds(world, mine))
            get(running.local("gc").scan.remote(), 60)
        world.node("n2")
        world.delete(other)
    assert records(world.store)[mine]["container"] == "c-healthy"
    assert mine not in world.reasons()


def test_a_node_is_left_to_its_agent_until_that_says_that_it_sees_nothing(world: World):
    """At first nobody was heard: an agent may be about to connect."""
    world.node("n1")
    web = world.pod("web")
    mine = world.hold(web)
    other = world.hold(world.pod("other"))
    with controller(world.plain, GCSettings(own_del=0.0)) as running:
        watches = running.local("watches")
        world.delete(web)
        eventually(lambda: truth(running._cluster_state.pod("default/web") is None))
        for tell in (None, (True, ())):
            if tell is not None:
                get(watches.watching.remote("n1", *tell), 60)
            get(world_scan(running), 60)
            holds(world, mine, other)
        get(watches.watching.remote("n2", False, ()), 60)
        get(world_scan(running), 60)
        holds(world, mine, other)

        get(watches.watching.remote("n1", False, ()), 60)
        eventually(lambda: holds(world, other))
        assert suspects(world) == {mine}


def test_what_is_recorded_for_a_pod_that_is_gone_already_is_looked_at_at_once(world: World):
    """As by a takeover: no event of the pod is to come, and the next scan is far away."""
    world.node("n1")
    web, other = world.pod("web"), world.pod("other")
    with controller(world.plain, GCSettings(own_del=0.0, agent_away=0.0)) as running:
        world.delete(web)
        eventually(lambda: truth(running._cluster_state.pod("default/web") is None))
        get(world_scan(running), 60)
        mine, others = world.hold(web), world.hold(other)

        eventually(lambda: holds(world, others))
        assert suspects(world) == {mine}


def test_an_agent_is_told_that_a_takeover_recorded_something_for_its_node(world: World):
    world.node("n1")
    web = world.pod("web")
    with controller(world.plain, GCSettings()) as running:
        watches = running.local("watches")
        before = get(watches.watching.remote("n1", True, ()), 60)
        world.hold(web)

        eventually(lambda: truth(get(watches.watching.remote("n1", True, ()), 60) != before))


def test_a_statefulset_pod_on_a_lost_node_keeps_its_address_and_the_next_one_knows(world: World):
    """Who takes it over is told to probe it: the old pod may still run. Scaled down, it goes."""
    world.node("n1")
    world.store.create(statefulset("db", 1))
    old = world.pod("db-0", statefulset="db")
    mine = world.hold(old, owner="StatefulSet/db")
    with controller(world.plain) as running:
        world.node("n1", ready=False)
        eventually(lambda: suspected(world, mine))
        assert records(world.store)[mine]["container"] == "c-db-0"
        world.delete(old)
        eventually(lambda: kept(world, mine))
        # The next pod's ADD goes by what it saw before the old record was set aside.
        world.node("n2")
        new = world.pod("db-0", "n2", statefulset="db")
        uid = new["metadata"]["uid"]
        record = Record("blue", "default/db-0", uid, "c-new", "eth0", "n2", "StatefulSet/db", now(), "net")
        fence = Fence("c-db-0", "default/db-0", old["metadata"]["uid"])
        assert world.claim(record, mine, fence).suspect
        get(world_scan(running), 60)
        assert records(world.store)[mine]["container"] == "c-new"

        world.store.delete("StatefulSet", "db", "default")
        get(world_scan(running), 60)
        assert records(world.store)[mine]["container"] == "c-new", "its pod still runs"
        world.delete(new)
        eventually(lambda: holds(world))


def test_what_is_kept_goes_when_the_statefulset_shrinks(world: World):
    world.store.create(statefulset("db", 2))
    held = []
    for number in (0, 1):
        record = Record("blue", f"default/db-{number}", "", "", "eth0", "n1", "StatefulSet/db", LONG_AGO)
        held.append(world.claim(record, f"10.6.0.{80 + number}").address)
    with controller(world.plain) as running:
        get(world_scan(running), 60)
        holds(world, *held)
        found = world.store.get("StatefulSet", "db", "default")
        world.store.update({**found, "spec": {**found["spec"], "replicas": 1}})
        eventually(lambda: holds(world, held[0]))
        eventually(lambda: told(world, **{held[1]: ("OwnerGone", "SpiderIPPool")}))


def test_a_pod_that_comes_back_under_its_name_while_it_is_judged_loses_nothing(world: World):
    """Its predecessor's address is its own by the time of the release, which then means nobody."""
    world.node("n1")
    old = world.pod("web")
    mine = world.hold(old)
    taken: list[str] = []

    def come_back() -> None:
        if not taken:
            new = world.pod("web")
            taken.append(new["metadata"]["uid"])
            record = Record("blue", "default/web", taken[0], "c-new", "eth0", "n1", "", now(), "net")
            world.claim(record, mine, Fence("c-web", "default/web", old["metadata"]["uid"]))

    store = Interposed(world.plain)
    with controller(store) as running:
        store.before_update = lambda obj: come_back() if obj["kind"] == "SpiderIPBlock" else None
        world.delete(old)
        eventually(lambda: truth(bool(taken)))
        get(world_scan(running), 60)
        assert records(world.store)[mine]["container"] == "c-new"
        assert records(world.store)[mine]["uid"] == taken[0]
    assert mine not in world.reasons()


def test_pods_of_one_name_in_a_row_never_lose_what_they_were_just_given(
    world: World, api_server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """An agent serves them while two controllers collect as eagerly as they can; every other one is lost without DEL."""
    monkeypatch.setattr("tests.support.rig.SQLiteStore", lambda path: ClusterStore(api_server.access()))
    eager = GCSettings(own_del=0.0, dead_on_ready_delay=0.0, agent_away=0.0)
    world.node("n1")
    with (
        rig(tmp_path, has_pods=True, node="n1") as agent,
        controller(world.plain, eager) as first,
        controller(world.plain, eager, leads=False) as second,
    ):
        for number in range(40):
            made = world.pod("web")
            box = sandbox(f"c{number}", pod="web", uid=made["metadata"]["uid"])
            (address,) = agent.add(box)
            for collector in (first, second):
                collector.local("gc").changed.remote((("Pod", "default", "web"),))
            assert records(world.store)[address]["container"] == box.container
            get(world_scan(first), 60)
            assert records(world.store)[address]["container"] == box.container
            world.delete(made)
            if number % 2:
                agent.delete(box)
            else:
                agent.journal.releasing((box.container, box.interface))
                agent.journal.released((box.container, box.interface))
        eventually(lambda: holds(world))


def test_a_cluster_without_leaks_costs_no_requests(world: World):
    """A scan of what is recorded for healthy pods reads nothing from the API server."""
    world.node("n1")
    held = [world.hold(world.pod(f"web-{number}")) for number in range(20)]
    store = Interposed(world.plain)
    with controller(store, GCSettings(own_del=0.1, agent_away=0.0)) as running:
        get(world_scan(running), 60)
        assert [name for name in store.read if name.startswith("Pod/")] == []
        holds(world, *held)


def test_what_cannot_be_read_is_kept_until_it_can(world: World, monkeypatch: pytest.MonkeyPatch):
    """The cache says that the pod is gone; the API server must say so too."""
    monkeypatch.setattr("actors.reclaim.cluster_gc.RETRY", 0.2)
    world.node("n1")
    web = world.pod("web")
    mine = world.hold(web)
    store = Interposed(world.plain)
    with controller(store):
        store.refused = "Pod/web"
        world.delete(web)
        eventually(lambda: truth(store.read.count("Pod/web") > 2))
        holds(world, mine)
        store.refused = ""
        eventually(lambda: holds(world))


def test_a_cache_that_lacks_pods_takes_nothing_from_them(world: World):
    """It only says where to look; what the API server has decides."""
    world.node("n1")
    held = [world.hold(world.pod(f"web-{number}")) for number in range(3)]
    store = Interposed(world.plain)
    store.hidden = "Pod"
    with controller(store) as running:
        eventually(lambda: truth({f"Pod/web-{number}" for number in range(3)} <= set(store.read)))
        get(world_scan(running), 60)
        holds(world, *held)
    assert suspects(world) == set()


def test_a_scan_puts_the_views_right(world: World):
    """A SpiderEndpoint for which nothing is recorded goes."""
    current = {"uid": "u", "node": "n1", "ips": [{"interface": "eth0", "ipv4": "10.6.0.1/16", "vlan": 0}]}
    status = {"current": current, "ownerControllerType": "Pod", "ownerControllerName": "ghost"}
    with controller(world.plain) as running:
        metadata = {"name": "ghost", "namespace": "default"}
        world.store.create(
            {"apiVersion": API, "kind": "SpiderEndpoint", "metadata": metadata, "status": status}
        )
        get(world_scan(running), 60)
        eventually(lambda: truth(not world.store.list("SpiderEndpoint").items))


def test_it_can_be_stopped_and_started_again(world: World):
    """As a leader is: while it is stopped it decides nothing, and when it starts it finds what happened meanwhile."""
    world.node("n1")
    pods = [world.pod(f"web-{number}") for number in range(2)]
    held = [world.hold(one) for one in pods]
    with controller(world.plain) as running:
        world.delete(pods[0])
        eventually(lambda: holds(world, held[1]))
        running.gc.stop()
        world.delete(pods[1])
        get(running.local("gc").scan.remote(), 60)
        holds(world, held[1])
        running.gc.start()
        eventually(lambda: holds(world))


class Interposed:
    """A store that tells what is read, and lets a test act before something is updated."""

    def __init__(self, inner: Store) -> None:
        self._inner = inner
        self.read: list[str] = []
        self.refused = ""
        self.hidden = ""
        self.before_update: Callable[[Object], object] = lambda obj: None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def get(self, kind: str, name: str, namespace: str = "", *, timeout: float = 10.0) -> Object:
        self.read.append(f"{kind}/{name}")
        if f"{kind}/{name}" == self.refused:
            raise StoreUnavailable("the test lets nobody read it", maybe_written=False)
        return self._inner.get(kind, name, namespace, timeout=timeout)

    def list(self, kind: str, namespace: str | None = None, *, timeout: float = 30.0) -> Listing:
        found = self._inner.list(kind, namespace, timeout=timeout)
        return Listing((), found.version) if kind == self.hidden else found

    def update(self, obj: Object, *, timeout: float = 10.0) -> Object:
        self.before_update(obj)
        return self._inner.update(obj, timeout=timeout)


def world_scan(running: Controller) -> Any:
    return running.local("gc").scan.remote()


def truth(value: bool) -> None:
    assert value


def suspects(world: World) -> set[str]:
    blocks = [Block.from_object(obj) for obj in world.store.list("SpiderIPBlock").items]
    return {format_address(block.family, value) for block in blocks for value in block.suspect}


def suspected(world: World, address: str) -> None:
    assert suspects(world) == {address}


def kept(world: World, address: str) -> None:
    record = records(world.store)[address]
    assert (record.get("container"), record.get("uid"), record["pod"]) == (None, None, "default/db-0")


def test_of_two_pods_that_share_a_machine_s_address_each_goes_by_itself(world: World, api_server: ApiServer):
    """While a virtual machine moves: who is lost without DEL is taken out, and the other keeps the address. With the
    machine gone it goes with the last of them."""
    install(api_server)
    try:
        world.node("n1")
        world.store.create(machine("vm"))
        source, target, third = (world.pod(f"virt-launcher-vm-{ending}") for ending in "abc")
        address = world.claim(of_machine(source), "10.6.0.40").address
        world.claim(of_machine(target), address, Fence.of(of_machine(source)))

        def held_by(*containers: str) -> None:
            record = records(world.store)[address]
            found = [record, *record.get("other_sandboxes", ())]
            assert [one.get("container", "") for one in found] == list(containers)

        with controller(world.plain):
            held_by("b", "a")
            world.delete(source)
            eventually(lambda: held_by("b"))

            world.claim(of_machine(third), address, Fence.of(of_machine(target)))
            world.delete(third)
            eventually(lambda: held_by("b"))

            world.delete(target)
            eventually(lambda: held_by(""))
            world.store.delete("VirtualMachine", "vm", "default")
            eventually(lambda: holds(world))
    finally:
        remove(api_server)


def of_machine(obj: Object) -> Record:
    """What the agent records for a pod of the machine `vm`."""
    metadata = obj["metadata"]
    key, container = f"default/{metadata['name']}", metadata["name"][-1]
    owner = "VirtualMachineInstance.kubevirt.io/vm"
    made = Record("blue", key, metadata["uid"], container, "eth0", "n1", owner, LONG_AGO, "net")
    return replace(made, machine="vm")
