"""What a stolen agent can do at the leader: a real controller on a real API server, asked over the real wire."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest

from actors.allocation.messages import Allocate
from actors.allocation.registration import SERVED
from actors.allocation.router import ask as ask_at
from actors.cluster.credentials import SERVER_NAME, client_context
from actors.cluster.leader_failover import LeaderFailover
from actors.cluster.leadership import LEASE, NAMESPACE, Leadership
from actors.cluster.lease import read_holder
from actors.decisions.settings import GCSettings, Settings
from actors.errors import Conflict, NotFound, PeerLost, PeerRefused, ProtocolError, StoreUnavailable
from actors.resources.blocks.block import Claim, Granted, Release, Released, block_name
from actors.resources.blocks.record import Fence, Record
from actors.runtime import ActorSystem, TcpTransport, get
from cni.command.certificate import replace_certificate
from cni.process.controller import Controller
from tests.deploy.test_agent import Pods
from tests.support.agent_process import AgentProcess, logged
from tests.support.checker import eventually, records
from tests.support.cluster import ClusterStore
from tests.support.fleet import on_node
from tests.support.identity import agent_token, pod_name
from tests.support.leaders import controllers, in_process, leader_of, linked, wait_linked
from tests.support.rig import pod, pool, statefulset
from tests.tools.apiserver import ApiServer

NO_GC = Settings(gc=GCSettings(enabled=False))
"""Where a pod is gone for a moment, or a record names another UID than the pod has. These clusters have no Node objects, so
garbage collection would not wait for the node's word and takes the address by force, if it is quicker than the test."""


@contextmanager
def leading(store: ClusterStore, settings: Settings) -> Iterator[Controller]:
    """A controller in this process that leads, and a pool."""
    store.create(pool("blue", "10.6.0.0/16", "10.6.0.1-10.6.0.9"))
    made = Controller(store, in_process(settings=settings))
    made.start()
    try:
        eventually(lambda: _true(made.leads()))
        yield made
    finally:
        made.stop()


@pytest.fixture
def leader(store: ClusterStore) -> Iterator[Controller]:
    with leading(store, Settings()) as made:
        yield made


@pytest.fixture
def leader_without_gc(store: ClusterStore) -> Iterator[Controller]:
    with leading(store, NO_GC) as made:
        yield made


def _true(value: object) -> None:
    assert value


def _answered(said: tuple[int, dict[str, Any]]) -> None:
    """A plugin's exit status and answer: it did what was asked."""
    status, answer = said
    assert status == 0, answer


@contextmanager
def peer(store: ClusterStore, token: str) -> Iterator[ActorSystem]:
    """Somebody at the leader with this token."""
    holder = read_holder(store, LEASE, NAMESPACE)
    assert holder is not None
    host, _, port = holder.address.rpartition(":")
    transport = TcpTransport(
        host, int(port), client_context(holder.certificate), server_name=SERVER_NAME, token=lambda: token
    )
    system = ActorSystem("peer")
    system.connect(SERVED, transport)
    try:
        yield system
    finally:
        system.shutdown()


def ask(system: ActorSystem, actor: str, method: str, *args: Any) -> Any:
    return get(getattr(system.get_actor(actor), method).remote(*args), timeout=60)


def record(name: str, node: str = "node1", **more: Any) -> Record:
    usual = Record(
        "", f"default/{name}", "uid", f"c-{name}", "eth0", node, "", "2026-11-27T07:00:00Z", "underlay"
    )
    return replace(usual, claim="abc", **more)


BLOCK = block_name(4, 0x0A060001)

ATTACKS: dict[str, tuple[str, str, tuple[Any, ...]]] = {
    "a version that is no number": ("ledger/local", "reached", (((4, 0x0A060000, "abc"),),)),
    "a version of the far future": ("ledger/local", "block_written", (4, 0x0A060000, "1" + "0" * 18, ())),
    "a block that was read otherwise": ("ledger/local", "block_read", (4, 0x0A060000, "1" + "0" * 18, ())),
    "a block that was seen otherwise": ("ledger/local", "block_watched", (4, 0x0A060000, "1" + "0" * 18, ())),
    "a block that cannot be read": ("ledger/local", "unreadable", (4, 0x0A060000)),
    "all that is recorded": ("ledger/local", "everything", ()),
    "another node's pods": ("ledger/local", "of_node", ("node2",)),
    "an address of another block": (f"block/{BLOCK}", "claim", (Claim(5, record("web-1", pool="blue"), Fence("c")),)),
    "an address that no pool gave": (f"block/{BLOCK}", "claim", (Claim(0x0A060005, record("web-1", pool="blue")),)),
    "another node's name": ("pool/blue", "allocate", (Allocate(record("web-1", "node2")),)),
    "a pod of another node": ("pool/blue", "allocate", (Allocate(record("elsewhere")),)),
    "a pod that there is not": ("pool/blue", "allocate", (Allocate(record("nobody")),)),
    "another's virtual machine": ("pool/blue", "allocate", (Allocate(record("web-1", machine="vm")),)),
    "a pool that there is not": ("pool/red", "allocate", (Allocate(record("web-1")),)),
    "a block that there is not": (
        f"block/{block_name(4, 0x0B000001)}", "release", (Release(0x0B000001, Fence("c"), 0.0),),
    ),
    "an owner of a megabyte": ("pool/blue", "allocate", (Allocate(record("web-1", owner="x" * 900_000)),)),
    "a suspicion": (f"block/{BLOCK}", "mark_suspect", (Release(0x0A060001, Fence("c"), 0.0),)),
    "garbage collection": ("gc/local", "stop", ()),
}  # fmt: skip


def test_a_stolen_agent_harms_nothing(
    api_server: ApiServer, store: ClusterStore, leader_without_gc: Controller, tmp_path: Path
):
    """Each attack gets a typed error; the leader leads on, has no actor more, and records nothing."""
    leader = leader_without_gc
    store.create(on_node(pod("web-1"), "node1"))
    store.create(on_node(pod("elsewhere"), "node2"))
    with peer(store, agent_token(api_server.kubeconfig, "node1")) as thief:
        assert ask(thief, "ledger/local", "reached", ()) is True
        before = {row.name for row in leader.system.describe()}
        for actor, method, args in ATTACKS.values():
            with pytest.raises((PeerRefused, ProtocolError, NotFound)):
                ask(thief, actor, method, *args)
        for number in range(600):
            with pytest.raises(PeerRefused):
                ask(thief, f"ledger/{number}", "reached", ())
        # The leader's own actors come and go as it works.
        named = {actor for actor, _, _ in ATTACKS.values()} | {f"ledger/{number}" for number in range(600)}
        assert not ({row.name for row in leader.system.describe()} - before) & named
        assert leader.leads()
        assert leader.fatal is None
        assert not records(store)

        granted = ask(thief, "pool/blue", "allocate", Allocate(record("web-1")))
        assert isinstance(granted, Granted)
        assert set(records(store)) == {"10.6.0.1"}


def test_a_stolen_agent_touches_nothing_of_other_nodes(
    api_server: ApiServer, store: ClusterStore, leader_without_gc: Controller
):
    store.create(on_node(pod("web-1"), "node1"))
    with (
        peer(store, agent_token(api_server.kubeconfig, "node1")) as owner,
        peer(store, agent_token(api_server.kubeconfig, "node2")) as thief,
    ):
        granted = ask(owner, "pool/blue", "allocate", Allocate(record("web-1")))
        fence = Fence.of(granted.record)
        for release in (
            Release(granted.value, fence, 0.0),
            Release(granted.value, fence, 0.0, by="default/web-1"),
            Release(granted.value, fence.whoever(), 0.0, keep=True),
        ):
            assert ask(thief, f"block/{BLOCK}", "release", release) == Released(granted.value, False, None)
        take = replace(granted.record, node="node2", container="c-thief", claim="def")
        for actor, method, message in (
            ("pool/blue", "allocate", Allocate(replace(take, pool=""), granted.value, fence)),
            (f"block/{BLOCK}", "claim", Claim(granted.value, take, fence)),
        ):
            with pytest.raises(PeerRefused, match="on node node1"):
                ask(thief, actor, method, message)
        assert records(store)["10.6.0.1"]["container"] == "c-web-1"

        assert ask(owner, f"block/{BLOCK}", "release", Release(granted.value, fence, 0.0)).done
        assert not records(store)


def test_a_pod_that_moved_takes_what_it_left_on_another_node(
    api_server: ApiServer, store: ClusterStore, leader_without_gc: Controller
):
    store.create(on_node(pod("db-0", statefulset="db"), "node1"))
    with (
        peer(store, agent_token(api_server.kubeconfig, "node1")) as first,
        peer(store, agent_token(api_server.kubeconfig, "node2")) as second,
    ):
        mine = record("db-0", owner="StatefulSet/db")
        granted = ask(first, "pool/blue", "allocate", Allocate(mine))
        api_server.ask("DELETE", "/api/v1/namespaces/default/pods/db-0", {"gracePeriodSeconds": 0})
        store.create(on_node(pod("db-0", statefulset="db"), "node2"))
        moved = replace(mine, node="node2", container="c-again", claim="def")
        fence = Fence.of(granted.record)
        assert (
            ask(second, "pool/blue", "allocate", Allocate(moved, granted.value, fence)).value == granted.value
        )
        back = Release(granted.value, Fence.of(moved), 0.0)
        assert not ask(first, f"block/{BLOCK}", "release", back).done
        assert ask(second, f"block/{BLOCK}", "release", back).done


def test_the_leader_tells_of_a_pod_that_came_from_another_node(
    api_server: ApiServer, store: ClusterStore, leader_without_gc: Controller, tmp_path: Path
):
    """The SpiderEndpoint names the node before, whose agent alone may write it."""
    store.create(statefulset("db", 1))
    with (
        AgentProcess(tmp_path / "a", kubeconfig=api_server.kubeconfig, node="node1") as first,
        AgentProcess(tmp_path / "b", kubeconfig=api_server.kubeconfig, node="node2") as second,
    ):
        eventually(lambda: _true(all(linked(agent) for agent in (first, second))))

        def told(node: str) -> None:
            current = store.get("SpiderEndpoint", "db-0", "default")["status"]["current"]
            assert (current["node"], current["ips"][0]["ipv4"]) == (node, "10.6.0.1/16")

        before, after = Pods(first, store), Pods(second, store)
        before.make("db-0", statefulset="db")
        _answered(before.answered("ADD", "db-0", "c-before"))
        eventually(lambda: told("node1"))
        api_server.ask("DELETE", "/api/v1/namespaces/default/pods/db-0", {"gracePeriodSeconds": 0})
        after.make("db-0", statefulset="db")
        _answered(after.answered("ADD", "db-0", "c-after"))
        eventually(lambda: told("node2"))
        _answered(before.answered("DEL", "db-0", "c-before"))  # late
        _answered(after.answered("DEL", "db-0", "c-after"))
        store.delete("StatefulSet", "db", "default")
        for agent in (first, second):
            assert "may not write" not in agent.log.read_text()


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"bound": False}, "bound to no pod"),
        ({"audience": "https://kubernetes.default.svc"}, "no token of"),
        ({"account": "somebody"}, "no token of"),
    ],
    ids=["not bound to a pod", "for the API server", "of another account"],
)
def test_another_token_is_none(
    api_server: ApiServer, store: ClusterStore, leader: Controller, wrong: dict[str, Any], why: str
):
    token = agent_token(api_server.kubeconfig, "node1", **wrong)
    with peer(store, token) as stranger, pytest.raises(PeerRefused, match=why):
        ask(stranger, "ledger/local", "reached", ())


def test_a_token_dies_with_its_pod(api_server: ApiServer, store: ClusterStore, leader: Controller):
    token = agent_token(api_server.kubeconfig, "lost")
    path = f"/api/v1/namespaces/{NAMESPACE}/pods/{pod_name('lost')}"
    api_server.ask("DELETE", path, {"gracePeriodSeconds": 0})

    def answered() -> str:
        leader._reviewer._known.clear()
        try:
            with peer(store, token) as thief:
                return str(ask(thief, "ledger/local", "reached", ()))
        except PeerRefused as error:
            return str(error)

    # The API server may not have heard of it yet, and then remembers the token for ten seconds.
    eventually(lambda: _true("does not know the token" in answered()))


def test_a_forged_token_is_none(api_server: ApiServer, store: ClusterStore, leader: Controller):
    header, claims, signature = agent_token(api_server.kubeconfig, "node1").split(".")
    forged = f"{header}.{claims}.{signature[::-1]}"
    with peer(store, forged) as thief, pytest.raises(PeerRefused, match="does not know the token"):
        ask(thief, "ledger/local", "reached", ())


def test_an_agent_shows_anew_who_it_is_and_loses_nothing(
    api_server: ApiServer, store: ClusterStore, leader: Controller, tmp_path: Path
):
    """Work goes on while one connection follows another; a token that is gone for a while ends none of them."""
    token = tmp_path / "token"
    token.write_text(agent_token(api_server.kubeconfig, "node1"))

    def alone(wrote: object) -> NoReturn:
        raise AssertionError("the leader was left")

    made = LeaderFailover("agent", store, Leadership(budget=60.0, renew=0.2, token=token), alone)
    made.start()
    try:
        eventually(lambda: _true(made.leader))
        first = made._link

        def work() -> None:
            assert made.work(lambda at: ask_at(at, at.get_actor("ledger/local").reached.remote(()))[0])

        def renewed() -> None:
            work()
            assert made._link is not first

        eventually(renewed)
        token.write_text("nothing")
        eventually(lambda: _true(made._told))  # it has tried
        work()
        token.write_text(agent_token(api_server.kubeconfig, "node1"))
        first = made._link
        eventually(renewed)
    finally:
        made.stop(1)


def test_a_leader_ends_the_connection_of_who_does_not_show_it_anew(
    api_server: ApiServer, store: ClusterStore
):
    usual = in_process()
    options = replace(usual, leadership=replace(usual.leadership, lasting=0.5))
    store.create(pool("blue", "10.6.0.0/16", "10.6.0.1-10.6.0.9"))
    made = Controller(store, options)
    made.start()
    try:
        eventually(lambda: _true(made.leads()))
        token = agent_token(api_server.kubeconfig, "node1")
        with peer(store, token) as agent:
            assert ask(agent, "ledger/local", "reached", ())
            eventually(lambda: _true(made._listener is not None and made._listener.connections == 0))
            assert ask(agent, "ledger/local", "reached", ())  # on another connection
    finally:
        made.stop()


def test_a_certificate_is_replaced_while_pods_start(
    api_server: ApiServer, store: ClusterStore, tmp_path: Path
):
    """Nobody trusts the one before, and no ADD fails meanwhile."""
    store.create(pool("blue", "10.6.0.0/16", "10.6.0.1-10.6.0.200"))
    with controllers(tmp_path, api_server.kubeconfig, count=1) as (only,):
        leader_of(store, [only])
        with AgentProcess(tmp_path / "agent", "--timeout", "60", kubeconfig=api_server.kubeconfig) as agent:
            wait_linked(agent, only)
            pods = Pods(agent, store)
            over, failed, done = threading.Event(), list[dict[str, Any]](), list[str]()

            def start_pods() -> None:
                while not over.is_set():
                    name = f"web-{len(done)}"
                    pods.make(name)
                    status, answer = pods.call("ADD", name, f"c-{name}")
                    if status:
                        failed.append(answer)
                        return
                    done.append(name)

            before = read_holder(store, LEASE, NAMESPACE)
            assert before is not None
            running = threading.Thread(target=start_pods, daemon=True)
            running.start()
            eventually(lambda: _true(len(done) >= 3))
            assert "shows another certificate" in replace_certificate(store, NAMESPACE, wait=60)
            eventually(lambda: _true(len(logged(agent.log, "allocating at the leader")) >= 2))
            count = len(done)
            eventually(lambda: _true(failed or len(done) >= count + 3))
            over.set()
            running.join()
            assert not failed, failed
            assert linked(agent) == only.identity
        after = read_holder(store, LEASE, NAMESPACE)
        assert after is not None
        host, _, port = after.address.rpartition(":")
        late = ActorSystem("late")
        transport = TcpTransport(
            host, int(port), client_context(before.certificate), server_name=SERVER_NAME, token=lambda: "x"
        )
        late.connect("ledger", transport)
        with pytest.raises(PeerLost, match="certificate"):
            ask(late, "ledger/local", "reached", ())
        late.shutdown()
        assert len(records(store)) == len(done)


def test_with_no_leader_there_is_nothing_to_replace(store: ClusterStore):
    with suppress(NotFound):
        store.delete("Lease", LEASE, NAMESPACE)
    assert "nobody leads" in replace_certificate(store, NAMESPACE)


def test_a_leader_that_is_gone_replaces_nothing(store: ClusterStore):
    lease = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": LEASE, "namespace": NAMESPACE},
        "spec": {"holderIdentity": "gone"},
    }
    try:
        store.create(lease)
    except Conflict:
        found = store.get("Lease", LEASE, NAMESPACE)
        store.update({**found, "spec": {**found["spec"], "holderIdentity": "gone"}})
    with pytest.raises(StoreUnavailable, match="gone did not replace"):
        replace_certificate(store, NAMESPACE, wait=0.5)
    store.delete("Lease", LEASE, NAMESPACE)
