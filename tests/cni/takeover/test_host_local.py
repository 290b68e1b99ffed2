"""From host-local to Orbweaver, back and there again, on two nodes with directories of their own, with the real host-local and
a real API server."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from actors.resources.addresses import format_address
from cni.command.main import main
from cni.takeover.host_local import directories
from cni.takeover.recording import everything_recorded
from tests.cluster.pages import fences, run_with, shows
from tests.cni.takeover.page_programs import write_programs
from tests.support.agent_process import AgentProcess
from tests.support.checker import eventually
from tests.support.cni_client import ask, encode
from tests.support.fleet import Fleet, fleet
from tests.support.patient import add
from tests.support.processes import PodName
from tests.tools.apiserver import ApiServer
from tests.tools.gomodule import ProgramMissing

_ROOT = Path(__file__).parents[3]
PAGE = _ROOT / "docs" / "en" / "takeover-host-local.md"
NODES = ("node1", "node2")
CIDRS = {"node1": "10.61.1.0/24", "node2": "10.61.2.0/24"}
_SHARED = {
    "type": "host-local",
    "ranges": [[{"subnet": "10.60.0.0/24", "rangeStart": "10.60.0.10"}], [{"subnet": "fd00:60::/112"}]],
    "routes": [{"dst": "10.9.0.0/16"}],
}
PARTS = {"node1": ("10.62.0.10", "10.62.0.29"), "node2": ("10.62.0.30", "10.62.0.59")}
STATUS = "k8s.v1.cni.cncf.io/network-status"


class Refused(Exception):
    """An ADD got an error."""


@dataclass
class Box:
    """A pod's attachment to a network."""

    pod: PodName
    network: str
    container: str
    node: str
    addresses: list[str] = field(default_factory=list)


@dataclass
class Nodes:
    """Two nodes, whose pods are set up by whichever IPAM their networks name. `shared` is a NetworkAttachmentDefinition with
    the same range on both; `cbr0` is a file on each, with the node's own range. `held` is what pods were told."""

    fleet: Fleet
    plugin: Path
    directory: Path
    agents: dict[str, AgentProcess]
    held: dict[str, Box] = field(default_factory=dict)
    number: int = 0

    def networks_of(self, node: str) -> Path:
        return self.directory / node / "networks"

    def conf_dir(self, node: str) -> Path:
        return self.directory / node / "net.d"

    def conf(self, network: str, node: str) -> dict[str, Any]:
        if network == "shared":
            obj = self.fleet.store.get("NetworkAttachmentDefinition", "shared", "default")
            return dict(json.loads(obj["spec"]["config"]))
        conf = json.loads((self.conf_dir(node) / f"10-{network}.conflist").read_text())
        return {"cniVersion": conf["cniVersion"], "name": conf["name"], **conf["plugins"][0]}

    def start(self, network: str, node: str) -> Box:
        """Set a new pod up. Raises `Refused`."""
        self.number += 1
        pod = self.fleet.pod(f"p{self.number}", node)
        box = Box(pod, network, f"c{self.number:04}", node)
        conf = self.conf(network, node)
        if conf["ipam"]["type"] == "host-local":
            box.addresses = [ip["address"] for ip in json.loads(self._host_local("ADD", box, conf))["ips"]]
        else:
            answer = add(self.agents[node], self._request("ADD", box, conf))
            if answer.status:
                raise Refused(answer.output.decode())
            box.addresses = answer.addresses
        self.held[box.container] = box
        self._report(box)
        return box

    def end(self, box: Box) -> None:
        """End a pod, as the network's configuration of now says."""
        conf = self.conf(box.network, box.node)
        del self.held[box.container]
        if conf["ipam"]["type"] == "host-local":
            self._host_local("DEL", box, conf)
        else:
            answer = ask(self.agents[box.node].socket, self._request("DEL", box, conf))
            assert answer.status == 0, answer.output
        self._note(box).unlink()
        path = f"/api/v1/namespaces/default/pods/{box.pod.name}"
        self.fleet.server.ask("DELETE", path, {"gracePeriodSeconds": 0})

    def _note(self, box: Box) -> Path:
        return self.directory / box.node / "results" / f"{box.network}-{box.container}-eth0"

    def _report(self, box: Box) -> None:
        """The runtime's note of a node's own network; what Multus tells of the others."""
        note = {
            "kind": "cniCacheV1",
            "containerId": box.container,
            "ifName": "eth0",
            "networkName": box.network,
            "netns": "/somewhere/else",  # it cannot be told whether that is there
            "cniArgs": [["IgnoreUnknown", "1"], ["K8S_POD_NAMESPACE", "default"], ["K8S_POD_NAME", box.pod.name]],
        }  # fmt: skip
        self._note(box).parent.mkdir(parents=True, exist_ok=True)
        self._note(box).write_text(json.dumps(note))
        if box.network == "shared":
            ips = [address.partition("/")[0] for address in box.addresses]
            status = json.dumps([{"name": "default/shared", "interface": "eth0", "ips": ips}])
            pod = self.fleet.store.get("Pod", box.pod.name, "default")
            annotations = {**(pod["metadata"].get("annotations") or {}), STATUS: status}
            self.fleet.store.update({**pod, "metadata": {**pod["metadata"], "annotations": annotations}})

    def tell_kubernetes(self, box: Box) -> None:
        """Have the pod's status say its addresses, as the kubelet does for the node's own network."""
        pod = self.fleet.store.get("Pod", box.pod.name, "default")
        ips = [{"ip": address.partition("/")[0]} for address in box.addresses]
        status = {**(pod.get("status") or {}), "podIP": ips[0]["ip"], "podIPs": ips}
        self.fleet.store.update_status({**pod, "status": status})

    def _host_local(self, command: str, box: Box, conf: dict[str, Any]) -> bytes:
        ipam = {**conf["ipam"], "dataDir": str(self.networks_of(box.node))}
        done = subprocess.run(
            [str(self.plugin)],
            input=json.dumps({**conf, "ipam": ipam}).encode(),
            env={
                "CNI_COMMAND": command,
                "CNI_CONTAINERID": box.container,
                "CNI_IFNAME": "eth0",
                "CNI_NETNS": "/run/netns/none",
                "CNI_PATH": str(self.plugin.parent),
            },
            capture_output=True,
            timeout=60,
            check=False,
        )
        if done.returncode:
            raise Refused(done.stdout.decode())
        return done.stdout

    def _request(self, command: str, box: Box, conf: dict[str, Any]) -> bytes:
        return encode(
            command, box.container, "eth0", pod=box.pod.name, uid=box.pod.uid, conf=conf, version="1.0.0"
        )

    def takeover(self, node: str, *options: str) -> int:
        """The command on a node."""
        return main(
            [
                *("takeover", "--from", "host-local", "--kubeconfig", str(self.fleet.server.kubeconfig)),
                *("--node", node, "--conf-dir", str(self.conf_dir(node)), "--write-conf", "--settle", "0.2"),
                *("--results", str(self.directory / node / "results")),
                *(() if "--directory" in options else ("--directory", str(self.networks_of(node)))),
                *options,
            ]
        )

    def told(self) -> dict[str, tuple[str, str, str]]:
        """By address, whose it is."""
        addresses = [address for box in self.held.values() for address in box.addresses]
        assert len(set(addresses)) == len(addresses)
        return {
            address.partition("/")[0]: (box.container, "eth0", box.node)
            for box in self.held.values()
            for address in box.addresses
        }

    def recorded(self) -> dict[str, tuple[str, str, str]]:
        return {
            format_address(held.family, held.value): (
                held.record.container,
                held.record.interface,
                held.record.node,
            )
            for held in everything_recorded(self.fleet.store)
        }

    def in_files(self) -> dict[str, tuple[str, str, str]]:
        return {
            file.address.text: (file.container, file.interface, node)
            for node in NODES
            for network in directories.networks_in(self.networks_of(node))
            for file in directories.read(self.networks_of(node) / network)[0]
        }

    def kept_for_others(self, node: str, network: str) -> set[str]:
        """What a node does not give out because pods of others had it."""
        files = directories.kept_for_others(self.networks_of(node) / network)
        return {file.address.text for file in files}

    def age(self, node: str, network: str) -> None:
        """Have its files be of long ago."""
        for file in directories.kept_for_others(self.networks_of(node) / network):
            os.utime(file.path, (0, 0))

    def prove_recorded(self) -> None:
        assert self.recorded() == self.told()

    def prove_in_files(self) -> None:
        assert self.in_files() == self.told()
        assert self.recorded() == {}


def plain(box: Box) -> set[str]:
    """Its addresses without their prefixes."""
    return {address.partition("/")[0] for address in box.addresses}


def part(node: str) -> dict[str, Any]:
    """A network of several nodes, out of which each gives its own part."""
    ends = dict(zip(("rangeStart", "rangeEnd"), PARTS[node], strict=True))
    ipam = {"type": "host-local", "ranges": [[{"subnet": "10.62.0.0/24", **ends}]]}
    return {
        "cniVersion": "1.0.0",
        "name": "part",
        "plugins": [{"type": "macvlan", "master": "eth1", "ipam": ipam}],
    }


@pytest.fixture
def nodes(tmp_path: Path, api_server: ApiServer, cni_bin: Path) -> Iterator[Nodes]:
    definitions = _ROOT / "deploy" / "networks" / "network-attachment-definitions.yaml"
    api_server.apply(*yaml.safe_load_all(definitions.read_text()))
    shared = {"cniVersion": "1.0.0", "name": "shared", "type": "macvlan", "ipam": _SHARED}
    obj = {
        "apiVersion": "k8s.cni.cncf.io/v1",
        "kind": "NetworkAttachmentDefinition",
        "metadata": {"name": "shared", "namespace": "default"},
        "spec": {"config": json.dumps(shared)},
    }
    for node, cidr in CIDRS.items():
        bridge = {"type": "bridge", "ipam": {"type": "host-local", "subnet": cidr}}
        conf = {"cniVersion": "1.0.0", "name": "cbr0", "plugins": [bridge, {"type": "portmap"}]}
        file = tmp_path / node / "net.d" / "10-cbr0.conflist"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps(conf))
        (file.parent / "10-part.conflist").write_text(json.dumps(part(node)))
    with fleet(tmp_path, api_server, obj) as made:
        for node, cidr in CIDRS.items():
            there = made.store.get("Node", node)
            spec = {**(there.get("spec") or {}), "podCIDR": cidr, "podCIDRs": [cidr]}
            made.store.update({**there, "spec": spec})
        made.controller()
        agents = {node: made.agent(node, timeout=60) for node in NODES}
        yield Nodes(made, cni_bin / "host-local", tmp_path, agents)


@pytest.mark.slow
def test_every_pod_keeps_its_address_there_and_back_and_there_again(
    nodes: Nodes, capsys: pytest.CaptureFixture[str]
) -> None:
    one = [nodes.start(network, "node1") for network in ("shared", "cbr0", "shared", "cbr0", "part")]
    # host-local of each node begins with the same addresses.
    (nodes.networks_of("node2") / "shared").mkdir(parents=True)
    for number, last in enumerate(("10.60.0.99", "fd00:60::99")):
        (nodes.networks_of("node2") / "shared" / f"last_reserved_ip.{number}").write_text(last)
    two = [nodes.start(network, "node2") for network in ("shared", "cbr0", "part")]
    nodes.prove_in_files()

    assert nodes.takeover("node1") == 0
    assert "still to come: node2" in capsys.readouterr().out
    nodes.prove_in_files()

    assert nodes.takeover("node1", "--yes") == 0
    with pytest.raises(Refused, match="disable"):
        nodes.start("shared", "node1")  # the other node's addresses are not known yet
    assert nodes.takeover("node2", "--yes") == 0
    nodes.prove_recorded()
    with pytest.raises(Refused, match="disable"):
        nodes.start("part", "node2")  # the first node has not been asked about this part
    assert nodes.takeover("node1", "--yes") == 0
    new = [nodes.start(network, node) for network in ("shared", "cbr0", "part") for node in NODES]
    for box in new[4:]:
        assert box.addresses[0].startswith("10.62.0.")
    nodes.end(one[0])  # set up by host-local, ended by Orbweaver
    nodes.end(two[1])
    eventually(nodes.prove_recorded)
    assert nodes.takeover("node1", "--yes") == 0  # what host-local's files say is of the past
    nodes.prove_recorded()

    assert nodes.takeover("node1", "--back", "--yes") == 0
    assert nodes.conf("shared", "node1")["ipam"]["type"] == "spiderpool"
    assert nodes.takeover("node1", "--back", "--yes") == 0  # its files are left alone
    assert nodes.takeover("node2", "--back", "--yes") == 0
    nodes.prove_in_files()
    assert nodes.conf("shared", "node1")["ipam"] == _SHARED
    assert nodes.fleet.store.list("SpiderIPPool").items == ()
    assert sorted(path.name for path in nodes.conf_dir("node1").iterdir()) == [
        "10-cbr0.conflist",
        "10-part.conflist",
    ]
    more = [nodes.start(network, node) for network in ("shared", "cbr0", "part") for node in NODES]
    nodes.end(new[0])  # set up by Orbweaver, ended by host-local
    nodes.end(new[3])
    nodes.prove_in_files()
    theirs, gone = plain(two[0]), plain(new[1])
    assert nodes.kept_for_others("node1", "shared") == theirs | gone
    nodes.end(new[1])
    assert nodes.takeover("node1", "--back", "--yes") == 0
    assert nodes.kept_for_others("node1", "shared") == theirs | gone, "whose pod may not have reported it yet"
    nodes.age("node1", "shared")
    capsys.readouterr()
    assert nodes.takeover("node1", "--back") == 0
    assert f"{len(gone)} files that the way back made for pods of other nodes" in capsys.readouterr().out
    assert nodes.takeover("node1", "--back", "--yes") == 0
    assert nodes.kept_for_others("node1", "shared") == theirs, "what nobody reports any more is free again"
    nodes.prove_in_files()

    for node in (*NODES, "node1"):
        assert nodes.takeover(node, "--yes") == 0
    nodes.prove_recorded()
    nodes.end(more[0])
    nodes.end(one[1])
    nodes.start("shared", "node2")
    eventually(nodes.prove_recorded)


def programs_of(nodes: Nodes, node: str) -> Path:
    """As they are on a node, where its own directories are the standard ones."""
    return write_programs(
        nodes.directory / node / "page-bin",
        nodes.fleet.server.kubeconfig,
        *("--node", node, "--settle", "0.2", "--conf-dir", nodes.conf_dir(node)),
        *("--results", nodes.directory / node / "results"),
        networks=nodes.networks_of(node),
    )


@pytest.mark.slow
def test_the_page_there_and_back(nodes: Nodes) -> None:
    """Its commands are run from it: what changes something on one node after the other, the rest on the first."""
    try:
        programs = {node: programs_of(nodes, node) for node in NODES}
    except ProgramMissing as missing:
        pytest.skip(str(missing))
    for node in NODES:
        (nodes.conf_dir(node) / "10-part.conflist").unlink()
    (nodes.networks_of("node2") / "shared").mkdir(parents=True)
    for number, last in enumerate(("10.60.0.99", "fd00:60::99")):
        (nodes.networks_of("node2") / "shared" / f"last_reserved_ip.{number}").write_text(last)
    for node in NODES:
        nodes.start("shared", node)
        nodes.tell_kubernetes(nodes.start("cbr0", node))
    copied = nodes.directory / "copied"
    shutil.copytree(nodes.networks_of("node2") / "shared", copied / "shared")
    standard = {
        str(directories.STANDARD): str(nodes.networks_of("node1")),
        "/tmp/node2/networks": str(copied),
    }
    printed = ""
    for language, text in fences(PAGE):
        if language == "text":
            assert shows(text, printed), printed
        elif language == "sh":
            commands = text
            for path, there in standard.items():
                commands = commands.replace(path, there)
            for node in NODES if "--yes" in commands else NODES[:1]:
                printed = run_with(programs[node], nodes.directory, commands)
                printed = printed.replace(str(nodes.conf_dir(node)), "/etc/cni/net.d")
            if "--yes" in commands:
                (nodes.prove_in_files if "--back" in commands else nodes.prove_recorded)()


@pytest.mark.slow
def test_an_address_that_two_nodes_gave_out_is_found_before_anything_is_changed(
    nodes: Nodes, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each node's host-local begins with the first address of the range: its usual fault."""
    first, second = nodes.start("shared", "node1"), nodes.start("shared", "node2")
    assert first.addresses == second.addresses

    assert nodes.takeover("node1", "--yes") == 1

    told = capsys.readouterr().out
    assert f"10.60.0.10 is used on two nodes, by pod default/{first.pod.name} on node1" in told
    assert nodes.recorded() == {}

    both = [argument for node in NODES for argument in ("--directory", f"{node}={nodes.networks_of(node)}")]
    assert nodes.takeover("node1", *both) == 1
    told = capsys.readouterr().out
    assert "10.60.0.10 is recorded twice, for pod default/p1" in told
    assert str(nodes.networks_of("node2") / "shared" / "10.60.0.10") in told
