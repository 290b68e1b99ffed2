"""The socket front end against real clients: rude, slow, gone, many; what nobody took is given back."""

from __future__ import annotations

import json
import logging
import os
import socket
import stat
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.decisions.brief import LIMIT
from actors.errors import StoreUnavailable
from cni.server import connection as cni_client
from cni.server import connection_table, frontend, protocol
from cni.server.protocol import VERSIONS
from tests.support.checker import eventually, records
from tests.support.cni_client import NoAnswer, add, ask, connect, delete, encode, read_answer
from tests.support.faulty_store import Fault, FaultyStore, How, Write
from tests.support.rig import API, Rig, pod, pool, rig

POOLS = (pool("v4", "10.6.0.0/16", "10.6.0.1-10.6.0.40"), pool("v6", "fd00::/64", "fd00::1-fd00::28"))


@pytest.fixture
def one(tmp_path: Path) -> Iterator[Rig]:
    with rig(tmp_path, *POOLS) as made:
        yield made
        assert ask(made.socket, encode("STATUS")).status == 0, "it still serves"
        made.prove()


class Gate:
    """Holds block writes back while it is closed."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self._open = threading.Event()
        self._open.set()

    def close(self) -> None:
        self.reached.clear()
        self._open.clear()

    def open(self) -> None:
        self._open.set()

    def __call__(self, write: Write) -> Fault | None:
        if write.kind == "SpiderIPBlock" and not self._open.is_set():
            self.reached.set()
            self._open.wait(60)
        return None


def test_the_socket_is_for_root_alone(one: Rig):
    mode = one.socket.stat().st_mode

    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600


def test_add_repeated_add_del_and_del_again(one: Rig):
    place = ("c1", "eth0")
    first = add(one.socket, one.journal, place, pod="web")
    again = add(one.socket, one.journal, place, pod="web")
    assert first is not None
    assert again is not None
    assert first.addresses == again.addresses == ["10.6.0.1/16", "fd00::1/64"]

    for _ in range(2):
        answer = delete(one.socket, one.journal, place, pod="web")
        assert answer is not None
        assert (answer.status, answer.output) == (0, b"")


@pytest.mark.parametrize("more", [{}, {"pod": "web", "netns": ""}, {"netns": ""}, {"pod": "other"}])
def test_a_del_needs_container_and_interface_alone(one: Rig, more: dict[str, str]):
    add(one.socket, one.journal, ("c1", "eth0"), pod="web", uid="u1")

    answer = delete(one.socket, one.journal, ("c1", "eth0"), **more)

    assert answer is not None
    assert answer.status == 0
    one.prove()


@pytest.mark.parametrize(
    "more",
    [
        {"version": "0.3.0"},
        {"version": "9.9"},
        {"conf": b""},
        {"conf": b"{"},
        {"conf": b'{"ipam":{"type":"spiderpool"}}'},
        {"arguments": "IgnoreUnknown"},
        {"arguments": "K8S_POD_NAME=../x"},
        {"environment": {"CNI_ARGS": "K8S_POD_NAME=\udcff"}},
    ],
    ids=[
        "0.3.0",
        "9.9",
        "empty",
        "broken",
        "no version, no name",
        "no value",
        "no name of a pod",
        "no UTF-8",
    ],
)
def test_a_del_that_is_not_understood_whole_releases_all_the_same(
    one: Rig, more: dict[str, Any], caplog: pytest.LogCaptureFixture
):
    add(one.socket, one.journal, ("c1", "eth0"), pod="web", uid="u1")

    answer = delete(one.socket, one.journal, ("c1", "eth0"), **more)

    assert answer is not None
    assert (answer.status, answer.output) == (0, b"")
    assert records(one.inner) == {}
    warned = [record for record in caplog.records if "is done all the same" in record.message]
    assert len(warned) == (0 if more.get("version") == "0.3.0" or "environment" in more else 1)


@pytest.mark.parametrize(
    "defaults, conf",
    [
        ({"podMACPrefix": "zz", "hostRuleTable": 0, "vethMTU": 10, "podRPFilter": 7}, {}),
        ({}, {"mode": "bogus", "hostRuleTable": "x", "detectOptions": 5, "policyRoutes": [5]}),
        ({}, {"prevResult": {"ips": [{"address": "x"}]}}),
        ({}, {"prevResult": {"ips": 5}}),
    ],
)
def test_neither_del_nor_gc_of_the_coordinator_is_refused_for_a_wrong_value(
    tmp_path: Path, defaults: dict[str, Any], conf: dict[str, Any]
):
    spec = {"apiVersion": API, "kind": "SpiderCoordinator", "metadata": {"name": "default"}, "spec": defaults}
    with rig(tmp_path, *POOLS, spec, timeout=110) as one:  # a worker process may take long to start
        plugin = {"plugin": "coordinator"}

        done = ask(one.socket, encode("DEL", "never-seen", conf=conf, environment=plugin))
        collected = ask(
            one.socket, encode("GC", conf={**conf, "cni.dev/valid-attachments": None}, environment=plugin)
        )

    assert (done.status, done.output) == (0, b"")
    assert (collected.status, collected.output) == (0, b"")


def test_gc_with_null_releases_all_of_its_network_on_the_node(one: Rig):
    add(one.socket, one.journal, ("c1", "eth0"), pod="web")
    one.journal.releasing(("c1", "eth0"))

    answer = ask(one.socket, encode("GC", conf={"cni.dev/valid-attachments": None}))

    assert answer.status == 0
    one.journal.released(("c1", "eth0"))
    assert records(one.inner) == {}


def test_an_add_of_version_0_3_0_has_its_form(one: Rig):
    answer = add(one.socket, one.journal, ("c1", "eth0"), version="0.3.0")

    assert answer is not None
    assert answer.json["cniVersion"] == "0.3.0"
    assert [ip["version"] for ip in answer.json["ips"]] == ["4", "6"]


def test_a_del_of_something_unknown_succeeds(one: Rig):
    assert ask(one.socket, encode("DEL", "never-seen")).status == 0
    assert ask(one.socket, encode("DEL", "never-seen", pod="web", netns="")).status == 0


@pytest.mark.parametrize("container", ["A", "a.b-c_d", "0", "x" * 253, "UPPER_case.0-", "a..b"])
def test_odd_container_ids_that_the_specification_allows(one: Rig, container: str):
    answer = add(one.socket, one.journal, (container, "eth0"))

    assert answer is not None
    assert answer.status == 0, answer.output
    one.prove()
    delete(one.socket, one.journal, (container, "eth0"))


@pytest.mark.parametrize("container", ["", " ", "../x", "-a", "a/b", "a b", "ü", "a\nb", "a;b", "_a"])
def test_odd_container_ids_that_it_does_not(one: Rig, container: str):
    for command in ("ADD", "DEL", "CHECK"):
        answer = ask(one.socket, encode(command, container))

        assert (answer.status, answer.json["code"]) == (1, 4)
        assert "CNI_CONTAINERID" in answer.json["msg"]


def test_names_that_could_not_be_recorded_and_told_are_refused_and_change_nothing(one: Rig):
    for container, namespace, name in (("x" * 254, "", ""), ("c1", "Web", "web"), ("c1", "web", "..")):
        answer = ask(one.socket, encode("ADD", container, namespace=namespace, pod=name))

        assert (answer.status, answer.json["code"]) == (1, 4)
        assert ask(one.socket, encode("DEL", container, namespace=namespace, pod=name)).status == 0
    assert records(one.inner) == {}


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\0" * 5000,
        b"OWC",
        b"OWC1",
        b"OWC1\0\0",
        b"OWC2\0\0\0\4abcd",
        b"O",
        b"",
        b"OWC1" + struct.pack(">I", 100) + b"short",
        os.urandom(4096),
    ],
)
def test_garbage_and_half_requests_get_no_answer_and_hurt_nobody(one: Rig, garbage: bytes):
    with connect(one.socket) as client:
        client.sendall(garbage)
        client.shutdown(socket.SHUT_WR)
        with pytest.raises((NoAnswer, OSError)):
            read_answer(client)


@pytest.mark.parametrize("body", [b"", b"\0", b"\0\0", b"plugin=spiderpool", os.urandom(2000), b"=\0=\0\0{}"])
def test_a_complete_request_of_nonsense_is_answered(one: Rig, body: bytes):
    answer = ask(one.socket, b"OWC1" + struct.pack(">I", len(body)) + body)

    assert answer.status == 1
    assert answer.json["code"] in (4, 6, 7)
    assert answer.json["msg"]


def test_a_configuration_nested_too_deeply_is_answered(one: Rig):
    answer = ask(one.socket, encode("ADD", conf=b"[" * 200_000))

    assert (answer.status, answer.json["code"]) == (1, 6)


def test_a_request_that_is_too_long_is_answered_before_it_is_read(one: Rig):
    with connect(one.socket) as client:
        client.sendall(b"OWC1" + struct.pack(">I", cni_client.REQUEST_LIMIT + 1))
        answer = read_answer(client)

    assert answer.json["code"] == 6
    assert "at most" in answer.json["msg"]


def test_another_plugin_is_refused(one: Rig):
    answer = ask(one.socket, encode("ADD", environment={"plugin": "coordinator"}))

    assert answer.json["code"] == 7
    assert "coordinator" in answer.json["msg"]


def test_a_request_in_single_bytes_is_served(one: Rig):
    request = encode("ADD", "c1")
    one.journal.unsure(("c1", "eth0"))
    with connect(one.socket) as client:
        for byte in request:
            client.sendall(bytes([byte]))
        answer = read_answer(client)
    one.journal.acknowledged(("c1", "eth0"), answer.addresses)


def test_a_client_that_closes_its_writing_half_is_answered(one: Rig):
    one.journal.unsure(("c1", "eth0"))
    with connect(one.socket) as client:
        client.sendall(encode("ADD", "c1"))
        client.shutdown(socket.SHUT_WR)
        answer = read_answer(client)
    one.journal.acknowledged(("c1", "eth0"), answer.addresses)


def test_a_client_that_never_finishes_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cni_client, "READ_TIMEOUT", 0.3)
    with rig(tmp_path, *POOLS) as one, connect(one.socket) as client:
        began = time.monotonic()
        client.sendall(b"OWC1\0\0\xff\xff")
        with pytest.raises(OSError):
            while time.monotonic() - began < 60:
                client.sendall(b"x")  # a byte now and then must not win more time
                time.sleep(0.02)
        eventually(lambda: _clients(one, 0))


def test_a_client_beyond_the_limit_takes_the_place_of_one_that_has_said_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(frontend, "CLIENTS", 5)
    with rig(tmp_path, *POOLS) as one:
        idle = [connect(one.socket) for _ in range(5)]
        eventually(lambda: _clients(one, 5))

        for _ in range(3):
            assert ask(one.socket, encode("STATUS")).status == 0
        answer = read_answer(idle[0])

        assert (answer.status, answer.json["code"]) == (1, 11)
        idle[4].sendall(encode("STATUS"))
        assert read_answer(idle[4]).status == 0  # the last of them still has its place
        for client in idle:
            client.close()
        eventually(lambda: _clients(one, 0))


def test_a_client_beyond_the_limit_is_told_to_come_back_when_all_others_are_being_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(frontend, "CLIENTS", 3)
    gate = Gate()
    with rig(tmp_path, *POOLS, plan=gate) as one:
        gate.close()
        busy = [connect(one.socket) for _ in range(3)]
        for number, client in enumerate(busy):
            client.sendall(encode("ADD", f"c{number}"))
        assert gate.reached.wait(60)
        eventually(lambda: _in_flight(one, 3))

        with connect(one.socket) as client:
            answer = read_answer(client)

        assert (answer.status, answer.json["code"]) == (1, 11)
        gate.open()
        assert [read_answer(client).status for client in busy] == [0, 0, 0]
        for client in busy:
            client.close()
        eventually(lambda: _clients(one, 0))
        for number in range(3):
            assert ask(one.socket, encode("DEL", f"c{number}")).status == 0


def test_a_flood_of_connections_and_half_requests_keeps_nobody_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Thousands that say nothing, say it slowly, or announce a megabyte and send all but its end."""
    monkeypatch.setattr(frontend, "CLIENTS", 100)
    with rig(tmp_path, *POOLS) as one:
        announced = b"OWC1" + struct.pack(">I", 1 << 20) + bytes((1 << 20) - 1)
        flood = []
        for number in range(600):
            flood.append(connect(one.socket))
            if number % 5 == 1:
                flood[-1].sendall(b"OWC1\0\0\1\0half")
            if number % 5 == 2:
                _send_as_much_as_is_taken(flood[-1], announced)
            if number % 50 == 0:
                assert ask(one.socket, encode("ADD", f"c{number}")).status == 0
                assert ask(one.socket, encode("DEL", f"c{number}")).status == 0
                assert len(one.agent.front_end.connections) <= 102
                assert sum(len(client._buffer) for client in tuple(one.agent.front_end.connections.open)) < (
                    connection_table.LARGE_TOGETHER << 20
                ) + (100 << 16)
        for client in flood:
            client.close()
        eventually(lambda: _clients(one, 0))


def _send_as_much_as_is_taken(client: socket.socket, data: bytes) -> None:
    try:
        client.sendall(data)
    except OSError:
        return  # it was refused meanwhile


def _in_flight(one: Rig, number: int) -> None:
    assert sum(adds.going for adds in one.agent.front_end.adds._adds.values()) == number


def test_more_large_requests_than_are_read_at_once_are_told_to_come_back(one: Rig):
    """Their places are taken by what is incomplete, of which a small request needs none."""
    head = b"OWC1" + struct.pack(">I", cni_client.LARGE + 1)
    large = [connect(one.socket) for _ in range(connection_table.LARGE_TOGETHER)]
    for client in large:
        client.sendall(head)
    eventually(lambda: _large(one, connection_table.LARGE_TOGETHER))

    with connect(one.socket) as client:
        client.sendall(head)
        answer = read_answer(client)

    assert (answer.status, answer.json["code"]) == (1, 11)
    assert ask(one.socket, encode("ADD", "c1")).status == 0
    assert ask(one.socket, encode("DEL", "c1")).status == 0
    for client in large:
        client.close()
    eventually(lambda: _large(one, 0))
    large_one = encode("ADD", "c1", conf={"x": "a" * 200_000})
    assert ask(one.socket, large_one).status == 0
    assert ask(one.socket, encode("DEL", "c1")).status == 0


def _large(one: Rig, number: int) -> None:
    assert len(one.agent.front_end.connections.large) == number


def test_who_does_not_take_its_answer_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cni_client, "READ_TIMEOUT", 300.0)
    previous = {"cniVersion": "1.1.0", "ips": [], "x": "a" * 900_000}
    request = encode(
        "ADD", "c1", conf={"prevResult": previous, "mode": "disable"}, environment={"plugin": "coordinator"}
    )
    with rig(tmp_path, *POOLS) as one, connect(one.socket) as deaf:
        deaf.sendall(request[:-1])
        eventually(lambda: _clients(one, 1))
        monkeypatch.setattr(cni_client, "READ_TIMEOUT", 0.5)
        deaf.sendall(request[-1:])
        eventually(lambda: _clients(one, 0))  # without having read


@pytest.mark.parametrize(
    "plugin, conf",
    [
        ("ifacer", {"interfaces": ["a", "b"], "bond": {"mode": 1, "options": f"miimon={'9' * 5000}"}}),
        ("ifacer", {"interfaces": ["a", "b"], "bond": {"mode": 1, "options": "miimon=\u0662\u0663"}}),
        ("ifacer", {"interfaces": [f"e{number}" for number in range(30_000)]}),
        ("ifacer", {"interfaces": ["x" * 500_000]}),
        ("coordinator", {"hijackCIDR": ["10.0.0.0/8"] * 40_000, "prevResult": {"ips": []}}),
        ("coordinator", {"serviceCIDR": ["10.0.0.0/8"] * 40_000, "prevResult": {"ips": []}}),
        ("coordinator", {"policyRoutes": [{"dst": "x" * 500_000}], "prevResult": {"ips": []}}),
        ("coordinator", {"prevResult": {"ips": [{"address": "10.0.0.1/8"}] * 20_000}}),
        ("coordinator", {"podMACPrefix": "x" * 500_000, "prevResult": {"ips": []}}),
    ],
)
def test_what_a_networks_author_overdoes_is_refused_in_few_words(one: Rig, plugin: str, conf: dict[str, Any]):
    answer = ask(one.socket, encode("ADD", "c1", conf=conf, environment={"plugin": plugin}))

    assert (answer.status, answer.json["code"]) == (1, 7)
    assert len(answer.output) < 2000


def test_a_bug_is_an_answer_too(one: Rig, monkeypatch: pytest.MonkeyPatch):
    def fails(*_: Any) -> Any:
        raise RuntimeError("what nobody thought of")

    with monkeypatch.context() as patch:
        patch.setattr(one.agent.front_end.chained["ifacer"], "handle", fails)
        answer = ask(one.socket, encode("ADD", "c1", environment={"plugin": "ifacer"}))

    assert answer.status == 1
    assert "what nobody thought of" in answer.json["msg"]


@pytest.mark.parametrize("command", ["ADD", "DEL", "STATUS"])
def test_a_configuration_is_decoded_once(one: Rig, monkeypatch: pytest.MonkeyPatch, command: str):
    decoded: list[str] = []

    def read_json(text: str, **options: Any) -> Any:
        decoded.append(text)
        return json.loads(text)

    with monkeypatch.context() as patch:
        patch.setattr(protocol, "read_json", read_json)
        assert ask(one.socket, encode(command, "c1")).status == 0

    assert len(decoded) == 1
    assert ask(one.socket, encode("DEL", "c1")).status == 0


def test_hundreds_may_wait_to_be_accepted(one: Rig):
    """While the loop is busy, no program waits in its connect()."""
    somaxconn = int(Path("/proc/sys/net/core/somaxconn").read_text())
    busy, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        busy.set()
        go_on.wait(60)

    one.agent.front_end.soon(hold)
    assert busy.wait(60)
    waiting = [socket.socket(socket.AF_UNIX) for _ in range(min(frontend.BACKLOG, somaxconn))]
    try:
        for client in waiting:
            client.setblocking(False)
            client.connect(str(one.socket))  # BlockingIOError where the queue is full
    finally:
        go_on.set()
        for client in waiting:
            client.close()
    eventually(lambda: _clients(one, 0))


def test_an_add_whose_client_hung_up_is_undone(tmp_path: Path):
    gate = Gate()
    with rig(tmp_path, *POOLS, plan=gate) as one:
        gate.close()
        with connect(one.socket) as client:
            client.sendall(encode("ADD", "c1"))
            assert gate.reached.wait(60)
        gate.open()

        eventually(lambda: _recorded(one, 0))
        eventually(lambda: _no_debts(one))
        one.prove()
        assert len(one.store.writes) >= 4, "it had been recorded"


def test_an_add_whose_client_hung_up_before_it_was_whole_does_nothing(one: Rig):
    with connect(one.socket) as client:
        client.sendall(encode("ADD", "c1")[:-1])
    eventually(lambda: _clients(one, 0))

    assert records(one.inner) == {}


def test_a_repeated_add_that_was_answered_is_not_undone_with_the_first(tmp_path: Path):
    """The runtime lost its first call and made it again: both get the same address, and it must stay."""
    gate = Gate()
    with rig(tmp_path, *POOLS, plan=gate) as one:
        for turn in range(5):
            place = (f"c{turn}", "eth0")
            gate.close()
            with connect(one.socket) as first:
                first.sendall(encode("ADD", *place))
                assert gate.reached.wait(60)
            with connect(one.socket) as second:
                second.sendall(encode("ADD", *place))
                eventually(lambda: _clients_at_least(one, 1))
                gate.open()
                answer = read_answer(second)
            one.journal.acknowledged(place, answer.addresses)
        eventually(lambda: _no_debts(one))
        one.prove()


def test_a_repeated_add_whose_client_hung_up_too_is_undone(tmp_path: Path):
    gate = Gate()
    with rig(tmp_path, *POOLS, plan=gate) as one:
        gate.close()
        clients = [connect(one.socket) for _ in range(3)]
        for client in clients:
            client.sendall(encode("ADD", "c1"))
        assert gate.reached.wait(60)
        eventually(lambda: _in_flight(one, 3))
        for client in clients:
            client.close()
        gate.open()

        eventually(lambda: _no_debts(one))
        one.prove()


def test_hanging_up_on_a_repeated_add_leaves_the_first_alone(tmp_path: Path):
    with rig(tmp_path, *POOLS) as one:
        add(one.socket, one.journal, ("c1", "eth0"))
        for _ in range(10):
            with connect(one.socket) as client:
                client.sendall(encode("ADD", "c1"))
        eventually(lambda: _clients(one, 0))
        eventually(lambda: _no_debts(one))
        one.prove()


def test_a_request_that_takes_too_long_is_answered_and_undone(tmp_path: Path):
    gate = Gate()
    with rig(tmp_path, *POOLS, plan=gate, timeout=0.5) as one:
        gate.close()
        began = time.monotonic()
        answer = ask(one.socket, encode("ADD", "c1", pod="web"))
        assert time.monotonic() - began > 0.4
        gate.open()

        assert (answer.status, answer.json["code"]) == (1, 11)
        assert "default/web" in answer.json["msg"]
        eventually(lambda: _no_debts(one))
        one.prove()


def test_what_could_not_be_undone_at_once_is_undone_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The store goes away with the first write that undoes the ADD, for longer than the undoing has time."""
    monkeypatch.setattr("actors.allocation.deallocation.UNDO_TIMEOUT", 0.2)
    gate = Gate()
    gone = threading.Event()
    stores: list[FaultyStore] = []

    def plan(write: Write) -> Fault | None:
        if write.kind != "SpiderIPBlock" or write.among_alike("*", "SpiderIPBlock") <= 2:
            return gate(write)
        if not gone.is_set():
            gone.set()
            stores[0].away = True
            return Fault(How.BEFORE)
        return None

    with rig(tmp_path, *POOLS, plan=plan, timeout=5) as one:
        stores.append(one.store)
        gate.close()
        with connect(one.socket) as client:
            client.sendall(encode("ADD", "c1"))
            assert gate.reached.wait(60)
        gate.open()
        assert gone.wait(60)
        eventually(lambda: _failed_to_undo(one))
        one.store.away = False

        eventually(lambda: _no_debts(one))
        one.prove()


def test_gc_releases_only_what_its_network_and_node_no_longer_have(one: Rig):
    for container, network in (("a", "net"), ("b", "net"), ("c", "other")):
        add(one.socket, one.journal, (container, "eth0"), conf={"name": network})
    add(one.socket, one.journal, ("b", "net1"))
    valid = {"cni.dev/valid-attachments": [{"containerID": "b", "ifname": "eth0"}]}

    answer = ask(one.socket, encode("GC", "", "", conf=valid))

    assert (answer.status, answer.output) == (0, b"")
    for place in (("a", "eth0"), ("b", "net1")):
        one.journal.releasing(place)
        one.journal.released(place)
    one.prove()


def test_gc_of_another_node_is_not_ours(tmp_path: Path):
    with rig(tmp_path, *POOLS) as one:
        add(one.socket, one.journal, ("a", "eth0"))
    journal = one.journal
    with rig(tmp_path, node="node2") as two:
        two.journal = journal
        ask(two.socket, encode("GC", "", "", conf={"cni.dev/valid-attachments": []}))

        two.prove()


def test_gc_without_its_list_is_refused(one: Rig):
    add(one.socket, one.journal, ("a", "eth0"))

    answer = ask(one.socket, encode("GC", "", ""))

    assert (answer.status, answer.json["code"]) == (1, 7)
    assert "cni.dev/valid-attachments" in answer.json["msg"]


def test_check_agrees_and_disagrees(one: Rig):
    answer = add(one.socket, one.journal, ("c1", "eth0"), pod="web")
    assert answer is not None
    shouting = [{"address": "10.6.0.1/16"}, {"address": "FD00:0::1/64"}]

    for ips in (answer.json["ips"], shouting):
        agreed = ask(one.socket, encode("CHECK", "c1", pod="web", conf={"prevResult": {"ips": ips}}))
        assert (agreed.status, agreed.output) == (0, b"")
    wrong = {"prevResult": {"ips": [{"address": "10.6.0.9/16"}]}}
    assert ask(one.socket, encode("CHECK", "c1", conf=wrong)).json["code"] == 103
    assert ask(one.socket, encode("CHECK", "c9", conf=wrong)).json["code"] == 103


def test_version_and_status(one: Rig):
    version = ask(one.socket, encode("VERSION", "", "", conf=b'{"cniVersion":"0.4.0"}')).json
    assert version == {"cniVersion": "0.4.0", "supportedVersions": list(VERSIONS)}

    one.store.away = True
    eventually(lambda: _status(one, 50))
    one.store.away = False
    eventually(lambda: _status(one, 0))


def test_a_refusal_is_a_whole_cni_error(one: Rig):
    conf = {"ipam": {"type": "spiderpool", "default_ipv4_ippool": ["none-such"]}}
    answer = ask(one.socket, encode("ADD", "c1", pod="web", conf=conf, version="1.0.0"))

    assert answer.status == 1
    assert set(answer.json) == {"cniVersion", "code", "msg", "details"}
    assert answer.json["cniVersion"] == "1.0.0"
    assert answer.json["code"] == 101
    assert "default/web" in answer.json["msg"]
    assert "none-such" in answer.json["msg"]


def test_a_refusal_for_want_of_addresses_counts_them_and_stays_short(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    names = [f"{'long-name-' * 6}{number}" for number in range(40)]
    pools = [
        pool(name, f"10.{number}.0.0/16", f"10.{number}.0.1-10.{number}.0.2", default=False)
        for number, name in enumerate(names)
    ]
    reserved = {"ipVersion": 4, "ips": ["10.0.0.2"]}
    nics = [{"interface": f"net{number}", "ipv4": names} for number in range(1, 6)]
    wanted = json.dumps([{"interface": "eth0", "ipv4": [names[0]]}])
    many_nics = pod("many", ippools=json.dumps([{"interface": "eth0", "ipv4": names[:1]}, *nics]))
    many_nics["metadata"]["annotations"]["k8s.v1.cni.cncf.io/networks"] = ",".join(
        f"default/{nic['interface']}@{nic['interface']}" for nic in nics
    )
    with caplog.at_level(logging.DEBUG, "orbweaver.cni"), rig(
        tmp_path,
        *pools,
        {"apiVersion": API, "kind": "SpiderReservedIP", "metadata": {"name": "r"}, "spec": reserved},
        pod("one", ippools=wanted),
        pod("two", ippools=wanted),
        many_nics,
    ) as one:  # fmt: skip
        add(one.socket, one.journal, ("c1", "eth0"), pod="one")

        refused = ask(one.socket, encode("ADD", "c2", pod="two")).json
        assert refused["msg"] == (
            f"no pool can give pod default/two an address: eth0 IPv4: pool {names[0]} 1 in use, 1 reserved, 0 in quarantine. "
            "Add addresses to spec.ips of one of these pools, or name another pool."
        )
        many = ask(one.socket, encode("ADD", "c3", pod="many")).json
        assert many["code"] == 101
        assert len(many["msg"] + many["details"]) <= LIMIT
        assert "pod default/many" in many["msg"]
        assert "name another pool" in many["msg"]
        ask(one.socket, encode("CHECK", "c1", pod="one", conf={"prevResult": {"ips": []}}))

        def logged() -> None:
            lines = [vars(record) for record in caplog.records]
            whole = [line for line in lines if line["message"] == "all that an answer says in brief"]
            assert any("all 1 are in use" in str(line["details"]) for line in whole)
            short = [line for line in lines if line["message"] == "answered" and "error" in line]
            assert all("details" not in line and len(line["error"]) <= LIMIT for line in short)

        eventually(logged)


def test_the_agent_answers_what_it_accepted_before_it_stops(tmp_path: Path):
    gate = Gate()
    with rig(tmp_path, *POOLS, plan=gate) as one:
        gate.close()
        clients = [connect(one.socket) for _ in range(5)]
        idle = connect(one.socket)
        for number, client in enumerate(clients):
            client.sendall(encode("ADD", f"c{number}"))
            one.journal.unsure((f"c{number}", "eth0"))
        assert gate.reached.wait(60)
        eventually(lambda: _in_flight(one, 5))
        stopper = threading.Thread(target=one.agent.front_end.stop, args=(120.0,), daemon=True)
        stopper.start()
        eventually(lambda: _refused(one.socket))
        gate.open()
        for number, client in enumerate(clients):
            one.journal.acknowledged((f"c{number}", "eth0"), read_answer(client).addresses)
            client.close()
        stopper.join(60)
        assert not stopper.is_alive(), "a client that has asked nothing holds up no stop"
        idle.close()
        assert not one.socket.exists()
        one.prove()
        one.agent.serving = False  # its own stop has nothing to stop any more


def test_a_second_agent_does_not_take_the_socket(one: Rig):
    with pytest.raises(StoreUnavailable, match="another agent serves"):
        frontend._listen(one.socket)


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path):
    path = tmp_path / "precious"
    path.write_text("data")

    with pytest.raises(StoreUnavailable, match="not a socket"):
        frontend._listen(path)
    assert path.read_text() == "data"


def test_the_socket_of_a_dead_agent_is_replaced(tmp_path: Path):
    path = tmp_path / "sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))

    listener = frontend._listen(path)

    with connect(path):
        listener.close()


def _clients(one: Rig, number: int) -> None:
    assert len(one.agent.front_end.connections) == number


def _clients_at_least(one: Rig, number: int) -> None:
    assert len(one.agent.front_end.connections) >= number


def _failed_to_undo(one: Rig) -> None:
    (adds,) = one.agent.front_end.adds._adds.values()
    assert adds.owed
    assert not adds.undoing


def _no_debts(one: Rig) -> None:
    assert not one.agent.front_end.adds


def _recorded(one: Rig, number: int) -> None:
    assert len(records(one.inner)) == number


def _status(one: Rig, code: int) -> None:
    answer = ask(one.socket, encode("STATUS"))
    assert answer.json.get("code", 0) == code, json.dumps(answer.json)


def _refused(path: Path) -> None:
    try:
        connect(path).close()
    except OSError:
        return
    raise AssertionError("it still listens")
