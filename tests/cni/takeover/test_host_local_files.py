"""host-local's directories, ranges and files on a node: what is read of them and what is written."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path

import pytest

from actors.errors import TakeoverUnfinished
from actors.resources.addresses import parse_address
from actors.resources.blocks.allocation import Allocation
from actors.resources.blocks.record import Record
from cni.command.takeover import DONE, FORBIDDEN
from cni.server.libcni_cache import visible_processes
from cni.takeover.host_local import directories
from cni.takeover.host_local.node_files import FORMER, NodeConfs
from cni.takeover.host_local.ranges import ranges_of
from cni.takeover.host_local.source import HostLocalSource
from cni.takeover.networks import network_of, ours
from tests.cni.takeover.test_networks import attachment

IPAM = {"type": "host-local", "subnet": "10.61.1.0/24"}


def conflist(ipam=IPAM, name="cbr0"):
    return {
        "cniVersion": "1.0.0",
        "name": name,
        "plugins": [{"type": "bridge", "ipam": ipam}, {"type": "portmap"}],
    }


def read(**ipam):
    network = network_of("network a", json.dumps(conflist({"type": "host-local", **ipam})), "host-local")
    assert network is not None
    return ranges_of(network)


@pytest.mark.parametrize(
    ("ipam", "expected"),
    [
        ({"subnet": "10.1.0.0/29"}, ["10.1.0.2-10.1.0.6"]),
        ({"subnet": "10.1.0.0/29", "gateway": "10.1.0.4"}, ["10.1.0.1-10.1.0.3", "10.1.0.5-10.1.0.6"]),
        ({"subnet": "10.1.0.0/29", "rangeStart": "10.1.0.3", "rangeEnd": "10.1.0.5"}, ["10.1.0.3-10.1.0.5"]),
        ({"ranges": [[{"subnet": "fd00::/124"}]]}, ["fd00::2-fd00::f"]),
        ({"subnet": "10.1.0.0/29", "ranges": [[{"subnet": "fd00::/124"}]]}, ["10.1.0.2-10.1.0.6", "fd00::2-fd00::f"]),
        ({"ranges": [[{"subnet": "10.1.0.0/29"}, {"subnet": "10.2.0.0/29"}]]}, ["10.1.0.2-10.1.0.6", "10.2.0.2-10.2.0.6"]),
    ],
)  # fmt: skip
def test_a_range_gives_out_what_host_local_would(ipam, expected):
    ranges, _, problems = read(**ipam)

    spans = [
        text for local in ranges for text in local.window.addresses.ranges_text(local.window.subnet.family)
    ]
    assert (spans, problems) == (expected, ())


@pytest.mark.parametrize(
    ("ipam", "part"),
    [
        ({}, "names no range"),
        ({"subnet": "rubbish"}, "not a subnet"),
        ({"subnet": "10.1.0.0/31"}, "no address that can be given out"),
        ({"subnet": "10.1.0.0/24", "rangeStart": "10.2.0.1"}, "from rangeStart to rangeEnd"),
        ({"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.9", "rangeEnd": "10.1.0.8"}, "from rangeStart to rangeEnd"),
        ({"ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "10.2.0.0/24"}]]}, "several addresses of one family"),
        ({"ranges": {}}, "names no range"),
        ({"ranges": [7]}, "must be a list"),
    ],
)  # fmt: skip
def test_what_cannot_be_taken_over_is_a_problem_that_names_the_network(ipam, part):
    problems = read(**ipam)[2]

    assert any(part in problem and problem.startswith("network a") for problem in problems), problems


def held(address, container="c1", node="n1"):
    family, value = parse_address(address)
    return Allocation(family, value, Record("p", "default/a", "u", container, "eth0", node, "", ""))


def test_files_are_written_as_host_local_writes_them_and_read_again(tmp_path: Path):
    (tmp_path / "10.1.0.9").write_text("gone\r\neth0")
    (tmp_path / "last_reserved_ip.0").write_text("10.1.0.9")
    (tmp_path / "10.1.0.3").write_text("an-old-version")
    former = [file for file in directories.read(tmp_path)[0] if file.container == "gone"]

    directories.write(tmp_path, [held("10.1.0.4"), held("fd00::4")], [held("10.1.0.5", "c2", "n2")], former)

    assert (tmp_path / "10.1.0.4").read_bytes() == b"c1\r\neth0"
    assert (tmp_path / "10.1.0.5").read_bytes() == b"taken-over-elsewhere\r\nn2"
    files, problems = directories.read(tmp_path)
    assert [(file.address.text, file.container, file.interface) for file in files] == [
        ("10.1.0.3", "an-old-version", ""),
        ("10.1.0.4", "c1", "eth0"),
        ("fd00::4", "c1", "eth0"),
    ]
    assert problems == ()
    assert [file.address.text for file in directories.kept_for_others(tmp_path)] == ["10.1.0.5"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "10.1.0.3",
        "10.1.0.4",
        "10.1.0.5",
        "fd00::4",
        "last_reserved_ip.0",
    ]


def test_a_file_that_cannot_be_read_is_a_problem(tmp_path: Path):
    (tmp_path / "10.1.0.3").write_bytes(b"\xff\xfe")
    (tmp_path / "10.1.0.4").mkdir()

    files, problems = directories.read(tmp_path)

    assert files == ()
    assert [problem.partition(" cannot be read")[0] for problem in problems] == [
        str(tmp_path / "10.1.0.3"),
        str(tmp_path / "10.1.0.4"),
    ]


def test_a_directory_is_locked_against_others(tmp_path: Path):
    inside, order = threading.Event(), []

    def other() -> None:
        inside.set()
        with directories.locked(tmp_path / "net"):
            order.append("other")

    worker = threading.Thread(target=other)
    with directories.locked(tmp_path / "net"):
        worker.start()
        assert inside.wait(60)
        worker.join(0.2)  # it would have come in by then
        order.append("first")
    worker.join(60)

    assert order == ["first", "other"]


def test_a_lock_that_nobody_gives_back_is_not_waited_for_without_end(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(directories, "LIMIT", 0.05)
    monkeypatch.setattr("cni.takeover.waiting.LOOK", 0.02)

    with (
        directories.locked(tmp_path),
        pytest.raises(TakeoverUnfinished, match=r"lock is locked by another process.*lslocks"),
        directories.locked(tmp_path),
    ):
        pass

    with directories.locked(tmp_path):
        pass


def test_a_node_s_file_keeps_what_stood_there_and_its_mode(tmp_path: Path):
    file = tmp_path / "10-cbr0.conflist"
    file.write_text(json.dumps(conflist()))
    file.chmod(0o644)
    (tmp_path / "20-other.conf").write_text(json.dumps({"type": "ptp", "ipam": {"type": "dhcp"}}))
    (tmp_path / "99.txt").write_text("{")
    confs = NodeConfs(tmp_path)
    ((network,), problems) = confs.networks()
    assert (network.name, problems) == ("cbr0", ())

    confs.take(network, {0: ours({4: ["p"]})})

    assert json.loads(file.read_text())["plugins"][0]["ipam"] == {
        "type": "spiderpool",
        "default_ipv4_ippool": ["p"],
    }
    assert file.stat().st_mode & 0o777 == 0o644
    ((taken,), _) = confs.networks()
    assert taken.is_ours
    assert dict(taken.sections[0].ipam.data) == IPAM
    confs.give_back(taken)
    assert json.loads(file.read_text()) == conflist()
    assert not file.with_name(file.name + FORMER).exists()


def test_files_that_cannot_be_read_are_problems(tmp_path: Path):
    (tmp_path / "a.conf").write_text("{")
    (tmp_path / "b.conflist").write_text(json.dumps(conflist(ours({}))))
    (tmp_path / f"b.conflist{FORMER}").write_text("[]")

    networks, problems = NodeConfs(tmp_path).networks()

    assert networks == ()
    assert [problem.partition(" ")[0] for problem in problems] == [
        str(tmp_path / "a.conf"),
        str(tmp_path / f"b.conflist{FORMER}"),
    ]


def test_the_agent_s_copy_is_no_network_of_its_own_and_follows(tmp_path: Path):
    """Were it changed, the agent would write it anew over that, and what stood there would be left beside it."""
    for name in ("04-orbweaver.conflist", "10-cbr0.conflist"):
        (tmp_path / name).write_text(json.dumps(conflist()))
    confs = NodeConfs(tmp_path)

    (network,), problems = confs.networks()

    assert (network.title, problems) == (str(tmp_path / "10-cbr0.conflist"), ())
    confs.take(network, {0: ours({4: ["p"]})})
    assert "04-orbweaver.conflist names host-local" in confs.lagging()
    (tmp_path / "04-orbweaver.conflist").write_text((tmp_path / "10-cbr0.conflist").read_text())
    assert confs.lagging() == ""


def test_an_agent_s_file_of_its_own_that_names_host_local_is_a_problem(tmp_path: Path):
    (tmp_path / "04-orbweaver.conflist").write_text(json.dumps(conflist(name="own")))

    networks, (problem,) = NodeConfs(tmp_path).networks()

    assert networks == ()
    assert "04-orbweaver.conflist names host-local" in problem
    assert "--cni-conf" in problem


class Node:
    """A node of the embedded store, with a directory of addresses and the runtime's notes."""

    def __init__(self, orbweaver, directory: Path, network=None) -> None:
        self.orbweaver, self.directory = orbweaver, directory
        (directory / "networks" / "blue").mkdir(parents=True)
        (directory / "results").mkdir()
        (directory / "net.d").mkdir()
        store = orbweaver.store()
        store.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}})
        if network is None:
            network = attachment({"name": "blue", "type": "macvlan", "ipam": IPAM})
        store.create(network)
        store.close()

    def give(self, address: str, container: str, network="blue") -> None:
        folder = self.directory / "networks" / network
        folder.mkdir(exist_ok=True)
        (folder / address).write_text(f"{container}\r\nnet1")

    def note(self, container: str, pod: str = "", netns: str = "/elsewhere/x") -> None:
        arguments = [["K8S_POD_NAMESPACE", "default"], ["K8S_POD_NAME", pod]] if pod else []
        note = {"containerId": container, "netns": netns, "cniArgs": arguments}
        (self.directory / "results" / f"blue-{container}-net1").write_text(json.dumps(note))

    def pod(self, name: str, node: str = "n1", address: str = "") -> None:
        status = json.dumps([{"interface": "net1", "ips": [address]}])
        annotations = {"k8s.v1.cni.cncf.io/network-status": status} if address else {}
        metadata = {"name": name, "namespace": "default", "annotations": annotations}
        store = self.orbweaver.store()
        store.create({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"nodeName": node}})
        store.close()

    def look(self, *options: str):
        return self.orbweaver(
            *("takeover", "--from", "host-local", "--node", "n1", "-o", "json"),
            *("--directory", str(self.directory / "networks"), "--conf-dir", str(self.directory / "net.d")),
            *("--results", str(self.directory / "results"), *options),
        )

    def take(self, *options: str):
        return self.orbweaver(
            *("takeover", "--from", "host-local", "--node", "n1", "--settle", "0", "--yes"),
            *("--directory", str(self.directory / "networks"), "--conf-dir", str(self.directory / "net.d")),
            *("--results", str(self.directory / "results"), *options),
        )


@pytest.fixture
def node(orbweaver, tmp_path):
    return Node(orbweaver, tmp_path / "n1")


def test_the_runtime_s_notes_and_the_pods_say_whose_a_container_is(node):
    node.give("10.61.1.5", "noted")
    node.note("noted", "a")
    node.give("10.61.1.6", "reported")
    node.pod("b", address="10.61.1.6")
    node.give("10.61.1.7", "left")

    told = node.look()

    assert told.status == DONE, told
    assert [(each["address"], each["pod"], each["container"]) for each in told.json["allocations"]] == [
        ("10.61.1.5", "default/a", "noted"),
        ("10.61.1.6", "default/b", "reported"),
    ]
    assert any("10.61.1.7 of container left" in line for line in told.json["differences"])


def test_a_sandbox_whose_namespace_is_gone_has_no_address(node):
    if visible_processes() is None:
        pytest.skip("this process does not see the machine's processes")
    node.give("10.61.1.8", "ended")
    node.note("ended", "c", netns=f"/proc/{2**22 + 1}/ns/net")  # more than the kernel has

    told = node.look()

    assert told.json["allocations"] == []
    assert any("10.61.1.8 of container ended" in line for line in told.json["differences"])


def test_a_container_that_is_no_pod_s_and_an_unknown_directory_forbid_it(node):
    node.give("10.61.1.5", "podman")
    node.note("podman")
    node.give("10.61.1.6", "whose", network="former")

    told = node.look()

    assert told.status == FORBIDDEN
    assert any("container podman, which is no pod's" in line for line in told.json["problems"])
    assert any("former has 1 addresses of a range that comes over" in line for line in told.json["problems"])


def test_an_address_that_a_pod_of_another_node_reports_forbids_it(node):
    node.give("10.61.1.5", "c1")
    node.note("c1", "a")
    node.pod("a")
    node.pod("z", node="n2", address="10.61.1.5")

    (problem,) = node.look().json["problems"]

    assert "10.61.1.5 is used on two nodes, by pod default/a on n1 and by pod default/z on n2" in problem


def test_the_copy_of_another_node_s_directory_is_read_by_what_its_pods_report(node, tmp_path):
    other = tmp_path / "copy" / "blue"
    other.mkdir(parents=True)
    (other / "10.61.1.9").write_text("c9\r\nnet1")
    (other / "10.61.1.10").write_text("c10\r\nnet1")
    node.pod("z", node="n2", address="10.61.1.9")

    told = node.look("--directory", f"n2={tmp_path / 'copy'}")

    assert [(each["address"], each["pod"], each["node"]) for each in told.json["allocations"]] == [
        ("10.61.1.9", "default/z", "n2")
    ]
    (problem,) = told.json["problems"]
    assert "10.61.1.10" in problem
    assert "look at it on that node" in problem


def test_what_another_node_s_own_file_says_forbids_nothing_here(node, tmp_path):
    """Each node's own file gives out of its own range under one name, as a bridge's does; another has a network of its own."""
    copy = tmp_path / "copy"
    for network, address in (("blue", "10.61.2.5"), ("own", "10.61.1.7")):
        (copy / network).mkdir(parents=True)
        (copy / network / address).write_text("c9\r\nnet1")
    node.pod("y", node="n2", address="10.61.2.5")
    node.pod("z", node="n2", address="10.61.1.7")

    told = node.look("--directory", f"n2={copy}")

    assert (told.status, told.json["problems"]) == (DONE, [])
    assert told.json["allocations"] == []
    for said in ("1 addresses of node n2, such as 10.61.2.5", "no configuration is called own"):
        assert any(said in line and "repeat this on that node" in line for line in told.json["differences"])


def test_a_file_of_the_node_is_changed_only_when_that_was_said(orbweaver, tmp_path):
    node = Node(orbweaver, tmp_path / "n1", network=attachment({"name": "x", "type": "macvlan"}))
    file = node.directory / "net.d" / "10-cbr0.conflist"
    file.write_text(json.dumps(conflist()))

    told = node.look()

    assert told.status == FORBIDDEN
    assert any("--write-conf" in line for line in told.json["problems"])
    assert node.look("--write-conf").status == DONE
    assert json.loads(file.read_text()) == conflist()


def test_a_node_that_the_cluster_does_not_have_is_told(node):
    outcome = node.look("--node", "n9")

    assert any("there is no Node n9" in line for line in outcome.json["problems"])


def test_nothing_is_recorded_while_the_agent_s_copy_names_host_local(orbweaver, tmp_path, monkeypatch):
    """Pods would get addresses of host-local behind the recording."""
    monkeypatch.setattr("cni.takeover.host_local.source.COPIED", 0.05)
    monkeypatch.setattr("cni.takeover.waiting.LOOK", 0.02)
    node = Node(orbweaver, tmp_path / "n1", network=attachment({"name": "x", "type": "macvlan"}))
    confs = node.directory / "net.d"
    for name in ("04-orbweaver.conflist", "10-cbr0.conflist"):
        (confs / name).write_text(json.dumps(conflist()))
    command = (
        *("takeover", "--from", "host-local", "--node", "n1", "--settle", "0", "--write-conf", "--yes"),
        *("--directory", str(node.directory / "networks"), "--conf-dir", str(confs)),
    )

    stopped = orbweaver(*command)

    assert stopped.status == FORBIDDEN
    assert "04-orbweaver.conflist names host-local" in stopped.err
    assert orbweaver("get", "sp", "-o", "json").json["items"][0]["spec"]["disable"]
    assert json.loads((confs / "04-orbweaver.conflist").read_text()) == conflist()
    (confs / "04-orbweaver.conflist").write_text((confs / "10-cbr0.conflist").read_text())  # as an agent does
    assert orbweaver(*command).status == DONE
    assert not orbweaver("get", "sp", "-o", "json").json["items"][0]["spec"]["disable"]


def test_what_came_before_the_recording_and_cannot_be_taken_over_stops_it(node, monkeypatch):
    switch = HostLocalSource._switch

    def meanwhile(source, network, sections):
        node.give("10.61.1.6", "podman")
        node.note("podman")
        switch(source, network, sections)

    monkeypatch.setattr(HostLocalSource, "_switch", meanwhile)

    stopped = node.take()

    assert stopped.status == FORBIDDEN
    assert "container podman, which is no pod's" in stopped.err
    assert node.orbweaver("get", "sp", "-o", "json").json["items"][0]["spec"]["disable"]
    (node.directory / "networks" / "blue" / "10.61.1.6").unlink()
    assert node.take().status == DONE
    assert not node.orbweaver("get", "sp", "-o", "json").json["items"][0]["spec"]["disable"]


def test_what_would_be_given_back_is_told(node):
    node.give("10.61.1.5", "c1")
    node.pod("a", address="10.61.1.5")
    options = ("--directory", str(node.directory / "networks"), "--conf-dir", str(node.directory / "net.d"))
    command = ("takeover", "--from", "host-local", "--node", "n1", "--settle", "0", *options)
    assert node.orbweaver(*command, "--yes").status == DONE

    told = node.look("--back")

    assert told.status == DONE, told
    (allocation,) = told.json["allocations"]
    assert (allocation["address"], allocation["pod"], allocation["node"]) == ("10.61.1.5", "default/a", "n1")


def test_what_was_kept_for_a_pod_goes_when_it_is_old_and_no_pod_reports_it(node):
    """A pod that is being started has its address before its status says so."""
    for number in (5, 6, 7):
        node.give(f"10.61.1.{number}", directories.ELSEWHERE)
    node.pod("a", node="n2", address="10.61.1.6")
    long_ago = time.time() - 3600
    for number in (6, 7):
        os.utime(node.directory / "networks" / "blue" / f"10.61.1.{number}", (long_ago, long_ago))

    told = node.look("--back")
    assert "1 files that the way back made for pods of other nodes" in told.json["differences"][0]
    assert node.take("--back").status == DONE

    left = directories.kept_for_others(node.directory / "networks" / "blue")
    assert [file.address.text for file in left] == ["10.61.1.5", "10.61.1.6"]
