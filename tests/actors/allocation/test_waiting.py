"""An ADD waits for an address that is on its way back: first come, first served, and nobody for nothing."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from actors.allocation.messages import AddResult, Sandbox
from actors.errors import NoAddress, OrbweaverError, PoolsExhausted, Withdrawn
from actors.runtime import ObjectRef, get
from tests.support.checker import equal, eventually
from tests.support.cni_client import ask, connect, encode, read_answer
from tests.support.faulty_store import Fault, Write
from tests.support.rig import Rig, add_request, pod, pool, rig, sandbox, statefulset

ONE = pool("blue", "10.6.0.0/16", "10.6.0.1")


def running(name: str, **more: Any) -> dict[str, Any]:
    """A pod that stays for a while when it is deleted, as one does whose containers have to end."""
    obj = pod(name, **more)
    obj["metadata"]["finalizers"] = ["test/containers"]
    return obj


def make_database(agent: Rig) -> None:
    """StatefulSet `db` with its pod, which names its UID, as only the cluster's own controller can."""
    uid = agent.apply(statefulset("db", 1))["metadata"]["uid"]
    member = running("db-0", statefulset="db")
    member["metadata"]["ownerReferences"][0]["uid"] = uid
    agent.apply(member)


def terminate(agent: Rig, name: str) -> None:
    """Delete the pod, and wait until the agent's cache has heard of it."""
    agent.inner.delete("Pod", name, "default")
    eventually(lambda: equal(f"default/{name}" in agent.agent._departures.pods(), True))


def box(name: str) -> Sandbox:
    return sandbox(name, uid="")


class Client:
    """One ADD on its way."""

    def __init__(self, agent: Rig, name: str, *, timeout: float = 60.0, **asks: Any) -> None:
        self.agent, self.box = agent, box(name)
        self.gone: ObjectRef[None] = ObjectRef()
        agent.journal.unsure((name, "eth0"))
        endpoint = agent.system.get_actor("endpoint/" + self.box.key)
        self.ref: ObjectRef[AddResult] = endpoint.add.options(timeout=timeout).remote(
            add_request(self.box, **asks), self.gone
        )

    def addresses(self) -> list[str]:
        got = [one.address.partition("/")[0] for one in get(self.ref, 90).addresses]
        self.agent.journal.acknowledged((self.box.container, "eth0"), got)
        return got

    def refusal(self) -> OrbweaverError:
        with pytest.raises(OrbweaverError) as refused:
            get(self.ref, 90)
        self.agent.journal.released((self.box.container, "eth0"))
        return refused.value


def waiting(agent: Rig, name: str, number: int) -> None:
    """Wait until so many wait at a pool."""
    actor = agent.system.get_actor("pool/" + name)
    eventually(lambda: equal(get(actor.waiting.options(timeout=60.0).remote()), number))


def test_an_add_waits_for_the_address_of_a_pod_that_is_terminating(tmp_path: Path):
    with rig(tmp_path, ONE, running("old"), pod("new"), has_pods=True) as agent:
        assert agent.add(box("old")) == ["10.6.0.1"]
        terminate(agent, "old")
        new = Client(agent, "new")
        waiting(agent, "blue", 1)

        agent.delete(box("old"))

        assert new.addresses() == ["10.6.0.1"]
        agent.prove(views=False)


def test_nobody_waits_for_a_pod_that_stays(tmp_path: Path):
    with rig(tmp_path, ONE, pod("old"), pod("new"), has_pods=True) as agent:
        agent.add(box("old"))

        refused = Client(agent, "new", timeout=600.0).refusal()

        assert type(refused) is PoolsExhausted
        assert "wait" not in str(refused)


def test_who_came_first_is_served_first_and_newcomers_go_behind(tmp_path: Path):
    names = [f"old{number}" for number in range(3)]
    pods = [*(running(name) for name in names), *(pod(f"new{number}") for number in range(4))]
    with rig(tmp_path, pool("blue", "10.6.0.0/16", "10.6.0.1-10.6.0.3"), *pods, has_pods=True) as agent:
        for name in names:
            agent.add(box(name))
            terminate(agent, name)
        clients = []
        for number in range(3):
            clients.append(Client(agent, f"new{number}", timeout=600.0))
            waiting(agent, "blue", number + 1)

        fourth = Client(agent, "new3", timeout=600.0).refusal()

        assert isinstance(fourth, NoAddress), "no more wait than addresses are on their way"
        for number in (2, 0, 1):
            agent.delete(box(names[number]))
        got = [client.addresses()[0] for client in clients]
        assert got == ["10.6.0.3", "10.6.0.1", "10.6.0.2"], "in the order in which they came"
        agent.prove(views=False)


def test_its_time_is_half_of_the_requests_and_the_refusal_says_for_whom_it_waited(tmp_path: Path):
    with rig(tmp_path, ONE, running("old"), pod("new"), has_pods=True) as agent:
        agent.add(box("old"))
        terminate(agent, "old")

        refused = Client(agent, "new", timeout=20.0).refusal()

        assert type(refused) is PoolsExhausted
        assert "waited" in str(refused)
        assert "for 10.6.0.1 (pod default/old is Terminating)" in str(refused)
        agent.prove(views=False)


def test_what_is_withdrawn_gets_nothing_and_leaves_the_address_to_the_next(tmp_path: Path):
    pods = [running("old"), running("old2"), pod("new1"), pod("new2"), pod("new3")]
    with rig(tmp_path, pool("blue", "10.6.0.0/16", "10.6.0.1-10.6.0.2"), *pods, has_pods=True) as agent:
        for name in ("old", "old2"):
            agent.add(box(name))
            terminate(agent, name)
        first = Client(agent, "new1")
        waiting(agent, "blue", 1)
        second = Client(agent, "new2")
        waiting(agent, "blue", 2)

        first.gone.complete(None)

        assert isinstance(first.refusal(), Withdrawn)
        agent.delete(box("old"))
        assert second.addresses() == ["10.6.0.1"]
        agent.delete(box("old2"))
        assert Client(agent, "new3").addresses() == ["10.6.0.2"], "nobody else has it"
        agent.prove(views=False)


def test_requests_for_a_named_or_own_address_pass_the_line(tmp_path: Path):
    blue = pool("blue", "10.6.0.0/16", "10.6.0.1-10.6.0.2")
    with rig(tmp_path, blue, running("old"), pod("new"), has_pods=True) as agent:
        make_database(agent)
        agent.add(box("old"))
        assert agent.add(sandbox("c1", pod="db-0")) == ["10.6.0.2"]
        agent.delete(sandbox("c1", pod="db-0"))
        agent.journal.kept["10.6.0.2"] = "default/db-0"
        terminate(agent, "old")
        new = Client(agent, "new")
        waiting(agent, "blue", 1)

        assert agent.add(sandbox("c2", pod="db-0")) == ["10.6.0.2"]

        agent.journal.kept.clear()
        waiting(agent, "blue", 1)
        agent.delete(box("old"))
        assert new.addresses() == ["10.6.0.1"]
        agent.prove(views=False)


def test_the_other_pools_are_tried_first_and_then_all_that_have_something_coming_are_waited_for(
    tmp_path: Path,
):
    pools = [pool(name, f"10.{number}.0.0/16", f"10.{number}.0.1") for number, name in enumerate("abc", 1)]
    pods = [running("a"), pod("b"), running("c"), pod("new1"), pod("new2")]
    with rig(tmp_path, *pools, *pods, has_pods=True) as agent:
        assert [agent.add(box(name), v4=[name])[0] for name in "abc"] == ["10.1.0.1", "10.2.0.1", "10.3.0.1"]
        agent.delete(box("b"))
        for name in "ac":
            terminate(agent, name)
        assert agent.add(box("new1"), v4=["a", "b", "c"]) == ["10.2.0.1"]
        new = Client(agent, "new2", v4=["a", "b", "c"])
        waiting(agent, "a", 1)
        waiting(agent, "c", 1)

        agent.delete(box("c"))

        assert new.addresses() == ["10.3.0.1"]
        waiting(agent, "a", 0)
        agent.delete(box("a"))
        agent.prove(views=False)


def test_two_pods_that_need_two_addresses_each_do_not_wait_for_each_other(tmp_path: Path):
    """Each pool has one address for the two of them, and whoever got one of two would keep the other from both."""
    pools = [pool("v4", "10.6.0.0/16", "10.6.0.1"), pool("v6", "fd00::/64", "fd00::1")]
    pods = [running("old4"), running("old6"), pod("new1"), pod("new2")]
    with rig(tmp_path, *pools, *pods, has_pods=True) as agent:
        agent.add(box("old4"), v4=["v4"], v6=[])
        agent.delete(box("old4"))
        agent.add(box("old4"))
        terminate(agent, "old4")
        first = Client(agent, "new1", timeout=600.0)
        waiting(agent, "v4", 1)

        agent.delete(box("old4"))

        assert sorted(first.addresses()) == ["10.6.0.1", "fd00::1"]
        agent.prove(views=False)


def test_an_interface_and_its_pair_wait_together(tmp_path: Path):
    """Two interfaces out of one pool: while they wait they hold none, and both go at once."""
    both = pod("new", ippools='[{"interface":"eth0","ipv4":["blue"]},{"interface":"net1","ipv4":["blue"]}]')
    both["metadata"]["annotations"]["k8s.v1.cni.cncf.io/networks"] = "kube-system/macvlan@net1"
    pods = [running("old1"), running("old2"), both, pod("late")]
    with rig(tmp_path, pool("blue", "10.6.0.0/16", "10.6.0.1-10.6.0.2"), *pods, has_pods=True) as agent:
        for name in ("old1", "old2"):
            agent.add(box(name))
            terminate(agent, name)
        endpoint = agent.system.get_actor("endpoint/default/new")
        ref = endpoint.add.options(timeout=600.0).remote(add_request(box("new")), None)
        waiting(agent, "blue", 2)

        agent.delete(box("old1"))
        refused = Client(agent, "late", timeout=60.0).refusal()
        waiting(agent, "blue", 2)
        agent.delete(box("old2"))

        assert isinstance(refused, NoAddress)
        assert len(get(ref, 60).addresses) == 1
        held = get(agent.system.get_actor("ledger/local").of_pod.remote("default/new"))
        assert len(held) == 2


def test_a_pool_that_grows_serves_who_waits(tmp_path: Path):
    with rig(tmp_path, ONE, running("old"), pod("new"), has_pods=True) as agent:
        agent.add(box("old"))
        terminate(agent, "old")
        new = Client(agent, "new", timeout=600.0)
        waiting(agent, "blue", 1)

        agent.edit_pool("blue", ips=["10.6.0.1-10.6.0.2"])

        assert new.addresses() == ["10.6.0.2"]
        agent.delete(box("old"))
        agent.prove(views=False)


def test_what_a_statefulset_keeps_is_not_on_its_way_back(tmp_path: Path):
    with rig(tmp_path, ONE, pod("new"), has_pods=True) as agent:
        make_database(agent)
        agent.add(sandbox("c1", pod="db-0"))
        terminate(agent, "db-0")

        refused = Client(agent, "new", timeout=600.0).refusal()

        assert "wait" not in str(refused)


def test_without_kubernetes_an_add_waits_for_a_del_that_is_being_written(tmp_path: Path):
    begun, go_on = threading.Event(), threading.Event()
    hold = threading.Event()

    def plan(write: Write) -> Fault | None:
        if hold.is_set() and write.kind == "SpiderIPBlock":
            hold.clear()
            begun.set()
            assert go_on.wait(60)
        return None

    with rig(tmp_path, ONE, plan=plan) as agent:
        agent.add(box("old"))
        hold.set()
        agent.journal.releasing(("old", "eth0"))
        deleted = (
            agent.system.get_actor("endpoint/default/old").release.options(timeout=60.0).remote(box("old"))
        )
        assert begun.wait(60)
        new = Client(agent, "new")
        waiting(agent, "blue", 1)

        go_on.set()

        assert get(deleted, 60) == 1
        agent.journal.released(("old", "eth0"))
        assert new.addresses() == ["10.6.0.1"]
        agent.prove()


@pytest.mark.parametrize("how", ["hangs up", "is deleted"])
def test_a_client_that_is_not_there_any_more_leaves_the_line(tmp_path: Path, how: str):
    """Through the socket: the address stays for the next one."""
    with rig(tmp_path, ONE, running("old"), pod("new"), pod("next"), has_pods=True) as agent:
        agent.add(box("old"))
        terminate(agent, "old")
        client = connect(agent.socket, 60.0)
        client.sendall(encode("ADD", "new", pod="new"))
        waiting(agent, "blue", 1)

        if how == "hangs up":
            client.close()
        else:
            assert ask(agent.socket, encode("DEL", "new", pod="new"), 60.0).status == 0
            assert read_answer(client).status == 1
            client.close()

        waiting(agent, "blue", 0)
        agent.delete(box("old"))
        assert agent.add(box("next")) == ["10.6.0.1"]
        agent.prove(views=False)


def test_a_client_that_closed_its_writing_half_still_waits(tmp_path: Path):
    with rig(tmp_path, ONE, running("old"), pod("new"), has_pods=True) as agent:
        agent.add(box("old"))
        terminate(agent, "old")
        with connect(agent.socket, 60.0) as client:
            client.sendall(encode("ADD", "new", pod="new"))
            client.shutdown(socket.SHUT_WR)
            waiting(agent, "blue", 1)

            agent.delete(box("old"))

            answer = read_answer(client)
            assert answer.status == 0
            agent.journal.acknowledged(("new", "eth0"), answer.addresses)
        agent.prove(views=False)


def test_an_agent_that_ends_lets_nobody_wait(tmp_path: Path):
    with rig(tmp_path, ONE, running("old"), pod("new"), has_pods=True, timeout=600.0) as agent:
        agent.add(box("old"))
        terminate(agent, "old")
        with connect(agent.socket, 60.0) as client:
            client.sendall(encode("ADD", "new", pod="new"))
            waiting(agent, "blue", 1)

            agent.agent.stop()

            answer = read_answer(client)
            assert (answer.status, answer.json["code"]) == (1, 11)
