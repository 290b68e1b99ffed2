"""From Whereabouts to Orbweaver, back and there again, with Whereabouts' real plugin on a real API server."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from actors.resources.addresses import format_address
from cni.command.main import main
from cni.takeover.recording import everything_recorded
from cni.takeover.whereabouts.objects import IP_POOL, RESERVATION, ip_pool_of
from tests.cluster.pages import fences, run_with, shows
from tests.cni.takeover.page_programs import write_programs
from tests.support.agent_process import AgentProcess
from tests.support.checker import eventually
from tests.support.cni_client import ask, encode
from tests.support.fleet import Fleet, fleet
from tests.support.patient import add
from tests.support.processes import PodName
from tests.support.whereabouts import NAMESPACE, Failed, Whereabouts, crds
from tests.tools import whereabouts
from tests.tools.apiserver import ApiServer
from tests.tools.gomodule import ProgramMissing

_ROOT = Path(__file__).parents[3]
PAGE = _ROOT / "docs" / "en" / "takeover-whereabouts.md"
_BLUE = {"type": "whereabouts", "range": "10.44.0.0/24", "exclude": ["10.44.0.8/29"], "gateway": "10.44.0.1"}
_GREEN = {
    "type": "whereabouts",
    "range": "10.44.0.0/24",
    "range_start": "10.44.0.20",
    "range_end": "10.44.0.60",
}
_SIX = {
    "type": "whereabouts",
    "ipRanges": [{"range": "10.45.0.0/28"}, {"range": "fd00:45::/112"}],
    "enable_overlapping_ranges": False,
}
_SLICED = {"type": "whereabouts", "range": "10.46.0.0/24", "node_slice_size": "/26"}
IPAM = {"blue": _BLUE, "green": _GREEN, "six": _SIX, "sliced": _SLICED}
_WIDE = {
    "type": "whereabouts",
    "range": "10.98.0.0/16",
    "range_start": "10.98.100.10",
    "range_end": "10.98.100.59",
}
_SLICES = {
    "apiVersion": "whereabouts.cni.cncf.io/v1alpha1",
    "kind": "NodeSlicePool",
    "metadata": {"name": "net-sliced", "namespace": NAMESPACE},
    "spec": {"range": "10.46.0.0/24", "sliceSize": "/26"},
    "status": {
        "allocations": [
            {"nodeName": "node1", "sliceRange": "10.46.0.0/26"},
            {"nodeName": "node2", "sliceRange": "10.46.0.64/26"},
            {"nodeName": "", "sliceRange": "10.46.0.128/26"},
        ]
    },
}
"""As its controller writes it, which is not here."""


def network(name: str, ipam: dict[str, Any] | None = None) -> dict[str, Any]:
    conf = {
        "cniVersion": "1.0.0",
        "name": f"net-{name}",
        "type": "macvlan",
        "master": "eth1",
        "ipam": ipam or IPAM[name],
    }
    return {
        "apiVersion": "k8s.cni.cncf.io/v1",
        "kind": "NetworkAttachmentDefinition",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"config": json.dumps(conf)},
    }


@dataclass
class Sandbox:
    """A pod's attachment to a network."""

    pod: PodName
    network: str
    container: str
    node: str
    addresses: list[str] = field(default_factory=list)


@dataclass
class Stay:
    """A cluster whose pods are set up by whichever IPAM has the networks at the moment. `held` is what pods were told and not
    asked back: the checker's own memory."""

    fleet: Fleet
    whereabouts: Whereabouts
    agents: dict[str, AgentProcess]
    held: dict[str, Sandbox] = field(default_factory=dict)
    number: int = 0

    def conf(self, name: str) -> dict[str, Any]:
        obj = self.fleet.store.get("NetworkAttachmentDefinition", name, "default")
        return dict(json.loads(obj["spec"]["config"]))

    def sandbox(self, name: str) -> Sandbox:
        self.number += 1
        node = f"node{1 + self.number % 2}"
        pod = self.fleet.pod(f"p{self.number}", node)
        return Sandbox(pod, name, f"c{self.number:04}", node)

    def start(self, name: str) -> Sandbox:
        """Set a new pod up. Raises `Failed`."""
        box = self.sandbox(name)
        self.attach(box)
        return box

    def attach(self, box: Sandbox) -> None:
        conf = self.conf(box.network)
        if conf["ipam"]["type"] == "whereabouts":
            box.addresses = self._plugin(box).add(box.pod.name, box.container, conf)
        else:
            answer = add(self.agents[box.node], self._request("ADD", box, conf))
            if answer.status:
                raise Failed(answer.output.decode())
            box.addresses = answer.addresses
        self.held[box.container] = box

    def end(self, box: Sandbox) -> None:
        """End a pod, as the network's configuration of now says."""
        conf = self.conf(box.network)
        del self.held[box.container]
        if conf["ipam"]["type"] == "whereabouts":
            self._plugin(box).delete(box.pod.name, box.container, conf)
        else:
            answer = ask(self.agents[box.node].socket, self._request("DEL", box, conf))
            assert answer.status == 0, answer.output
        path = f"/api/v1/namespaces/default/pods/{box.pod.name}"
        self.fleet.server.ask("DELETE", path, {"gracePeriodSeconds": 0})

    def vanish(self, box: Sandbox) -> None:
        """End a pod of which no DEL comes to whoever has the networks."""
        del self.held[box.container]
        path = f"/api/v1/namespaces/default/pods/{box.pod.name}"
        self.fleet.server.ask("DELETE", path, {"gracePeriodSeconds": 0})

    def _plugin(self, box: Sandbox) -> Whereabouts:
        return replace(self.whereabouts, node=box.node)

    def _request(self, command: str, box: Sandbox, conf: dict[str, Any]) -> bytes:
        return encode(
            command, box.container, "net1", pod=box.pod.name, uid=box.pod.uid, conf=conf, version="1.0.0"
        )

    def prove(self) -> None:
        """Nobody has an address twice, and whoever has the networks knows of each, and of no other."""
        told = sorted(address.partition("/")[0] for box in self.held.values() for address in box.addresses)
        assert len(set(told)) == len(told)
        assert self.known() == {
            address.partition("/")[0]: (box.container, f"default/{box.pod.name}", "net1")
            for box in self.held.values()
            for address in box.addresses
        }

    def known(self) -> dict[str, tuple[str, str, str]]:
        """By address, who has it, as both IPAMs together know it. Fails where both have an address."""
        ours = {
            format_address(held.family, held.value): (
                held.record.container,
                held.record.pod,
                held.record.interface,
            )
            for held in everything_recorded(self.fleet.store)
        }
        theirs = {
            format_address(pool.subnet.family, entry.value): (entry.container, entry.pod, entry.interface)
            for pool in map(ip_pool_of, self.fleet.store.list(IP_POOL).items)
            for entry in pool.entries
        }
        assert not ours.keys() & theirs.keys()
        return ours | theirs

    def reservations(self) -> dict[str, str]:
        """By address, whom a reservation keeps it for."""
        return {
            obj["metadata"]["name"]: obj["spec"]["podref"] for obj in self.fleet.store.list(RESERVATION).items
        }

    def check(self) -> None:
        """The audit finds nothing wrong."""
        assert main(["check", "--kubeconfig", str(self.fleet.server.kubeconfig)]) == 0

    def takeover(self, *options: str) -> int:
        return main(
            ["takeover", "--from", "whereabouts", "--kubeconfig", str(self.fleet.server.kubeconfig), *options]
        )


@pytest.fixture
def stay(tmp_path: Path, api_server: ApiServer) -> Iterator[Stay]:
    try:
        plugin = whereabouts.plugin()
    except ProgramMissing as missing:
        pytest.skip(str(missing))
    definitions = _ROOT / "deploy" / "networks" / "network-attachment-definitions.yaml"
    api_server.apply(*crds(), *yaml.safe_load_all(definitions.read_text()))
    for kind in ("ippools", "overlappingrangeipreservations", "nodeslicepools"):
        path = f"/apis/whereabouts.cni.cncf.io/v1alpha1/namespaces/{NAMESPACE}/{kind}"
        assert api_server.ask("DELETE", path)[0] == 200
    path = f"/apis/whereabouts.cni.cncf.io/v1alpha1/namespaces/{NAMESPACE}/nodeslicepools"
    assert api_server.ask("POST", path, _SLICES)[0] == 201
    with fleet(tmp_path, api_server, *map(network, IPAM)) as made:
        made.controller()
        agents = {node: made.agent(node, timeout=60) for node in ("node1", "node2")}
        yield Stay(made, Whereabouts(plugin, api_server.kubeconfig, tmp_path), agents)


@pytest.mark.slow
def test_every_pod_keeps_its_address_there_and_back_and_there_again(
    stay: Stay, capsys: pytest.CaptureFixture[str]
) -> None:
    boxes = [stay.start(name) for name in ("blue", "green", "six", "sliced") * 2]
    stay.prove()

    assert stay.takeover() == 0
    told = capsys.readouterr().out
    assert "6 pools, 10 addresses in use by 8 pods." in told
    assert "NetworkAttachmentDefinition default/six: ipam" in told
    stay.prove()
    assert "spiderpool" not in json.dumps(stay.conf("blue"))

    assert stay.takeover("--yes") == 0
    stay.prove()
    assert stay.reservations() == {}
    assert stay.conf("blue")["ipam"]["type"] == "spiderpool"
    new = [stay.start(name) for name in ("blue", "green", "six", "sliced", "sliced")]
    assert {box.node: box.addresses for box in new[3:]}.keys() == {"node1", "node2"}
    for box in new[3:]:
        (address,) = box.addresses
        assert address.endswith("/24")
        assert (int(address.partition("/")[0].rpartition(".")[2]) < 64) is (box.node == "node1")
    stay.end(boxes[0])  # set up by Whereabouts, ended by Orbweaver
    stay.end(boxes[2])
    eventually(stay.prove)
    eventually(stay.check)

    assert stay.takeover("--back", "--yes", "--settle", "0.5") == 0
    stay.prove()
    assert stay.conf("blue")["ipam"] == _BLUE
    assert stay.fleet.store.list("SpiderIPPool").items == ()
    eventually(lambda: require(not stay.fleet.store.list("SpiderEndpoint").items))
    more = [stay.start(name) for name in ("blue", "green", "six", "sliced")]
    stay.end(new[0])  # set up by Orbweaver, ended by Whereabouts
    stay.end(new[2])
    stay.prove()
    assert len(stay.reservations()) == sum(box.network != "six" for box in stay.held.values())

    assert stay.takeover("--yes") == 0
    stay.prove()
    stay.end(more[0])
    stay.end(boxes[4])
    stay.start("green")
    eventually(stay.prove)


@pytest.mark.slow
def test_what_pods_had_that_end_around_the_takeover_comes_back(stay: Stay) -> None:
    """One is gone when its address is recorded, so that no event of it is to come; the other ends later, and its DEL goes to
    Whereabouts' plugin, which does nothing any more: neither is known to an agent by an ADD."""
    before, behind, _ = (stay.start("blue") for _ in range(3))
    stay.vanish(before)
    assert stay.takeover("--yes") == 0

    stay.vanish(behind)
    eventually(stay.prove, 300)


@pytest.mark.slow
def test_the_page_there_and_back(stay: Stay, tmp_path: Path) -> None:
    """Its commands are run from it, as a cluster has them whose network is the page's."""
    try:
        programs = write_programs(tmp_path / "page-bin", stay.fleet.server.kubeconfig, "--settle", "0.5")
    except ProgramMissing as missing:
        pytest.skip(str(missing))
    for name in IPAM:
        stay.fleet.store.delete("NetworkAttachmentDefinition", name, "default")
    stay.fleet.store.create(network("wide", _WIDE))
    for _ in range(7):
        stay.start("wide")
    printed = ""
    for language, text in fences(PAGE):
        if language == "text":
            assert shows(text, printed), printed
        elif language == "sh":
            if "orbweaver check" in text:
                eventually(stay.check)
            printed = run_with(programs, tmp_path, text)
            stay.prove()
    assert stay.conf("wide")["ipam"] == _WIDE


@pytest.mark.slow
def test_a_pod_that_whereabouts_sets_up_during_the_takeover_is_recorded_or_refused(stay: Stay) -> None:
    """Whereabouts goes on with the former configuration, as a main plugin does that has read it already."""
    former = stay.conf("blue")
    began, over = threading.Event(), threading.Event()
    refused = []

    def set_up() -> None:
        while not over.is_set():
            box = stay.sandbox("blue")
            try:
                box.addresses = stay.whereabouts.add(box.pod.name, box.container, former)
            except Failed as error:
                refused.append(str(error))
            else:
                stay.held[box.container] = box
                began.set()

    worker = threading.Thread(target=set_up)
    worker.start()
    try:
        assert began.wait(180)
        assert stay.takeover("--yes") == 0
        eventually(lambda: require(bool(refused)))
    finally:
        over.set()
        worker.join()
    assert all("taken over by Orbweaver" in text for text in refused)
    eventually(stay.prove)


def require(condition: bool) -> None:
    assert condition
