"""Under Multus, thick and thin, with real plugins and libcni in real network namespaces:

    python tests/cni/multus_stories.py DIRECTORY CNI_BIN CNITOOL thick|thin

Each line of the output is one case, as JSON: its name, and what was wrong. `test_multus.py` starts them.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[2]))

import pytest

from actors.errors import OrbweaverError
from actors.resources.pod import NETWORK_STATUS, Pod
from actors.store.sqlite.store import SQLiteStore
from cni.command.sandbox import lay_cable, run
from tests.support.agent_process import AgentProcess, pool
from tests.support.blocks import recorded
from tests.support.checker import eventually
from tests.support.multus import NETWORKS, Delegate, Multus

UPLINK = "uplink0"
MAC = "02:23:45:67:89:01"
POOLS = (
    pool("blue-v4", "10.6.0.0/16", "10.6.1.10-10.6.1.99", "10.6.0.1"),
    pool("red-v4", "10.7.0.0/16", "10.7.1.10-10.7.1.99", default=False),
    pool("tiny-v4", "10.8.0.0/16", "10.8.1.10", default=False),
)
POOLS_OF_ALL = json.dumps(
    [
        {"interface": "eth0", "ipv4": ["blue-v4"]},
        {"interface": "net1", "ipv4": ["red-v4"]},
        {"interface": "net2", "ipv4": ["red-v4"]},
    ]
)


@dataclass(frozen=True)
class World:
    multus: Multus
    store: SQLiteStore
    agent: AgentProcess

    def pod(self, name: str, networks: list[dict[str, Any]], **annotations: str) -> dict[str, Any]:
        """A pod object, applied, and its namespace."""
        found = {NETWORKS: json.dumps(networks)}
        found |= {f"ipam.spidernet.io/{key}": value for key, value in annotations.items()}
        metadata = {"name": name, "namespace": "default", "annotations": found}
        run("ip", "netns", "add", name)
        return self.store.create({"apiVersion": "v1", "kind": "Pod", "metadata": metadata})

    def records(self) -> dict[str, dict[str, str]]:
        return recorded(self.store.list("SpiderIPBlock").items)

    def of(self, name: str) -> dict[str, str]:
        """Interface to address, of what is recorded for a pod."""
        return {
            held["interface"]: address
            for address, held in self.records().items()
            if held["pod"] == f"default/{name}"
        }


Case = Callable[[World], None]
CASES: dict[str, Case] = {}


def case(function: Case) -> Case:
    CASES[function.__name__.replace("_", " ")] = function
    return function


def addresses(pod: str) -> dict[str, str]:
    found = json.loads(run("nsenter", f"--net=/run/netns/{pod}", "ip", "-j", "-4", "addr", "show"))
    return {
        one["ifname"]: one["addr_info"][0]["local"]
        for one in found
        if one["ifname"] != "lo" and one["addr_info"]
    }


@case
def the_first_delegate_reserves_for_the_rest(world: World) -> None:
    """`ippools` names pools for interfaces whose ADDs are still to come: all are recorded with the first."""
    pod = world.pod("rest", [{"name": "red"}, {"name": "broken"}], ippools=POOLS_OF_ALL)
    seen: list[dict[str, str]] = []

    class Watching(Multus):
        def _call(
            self, command: str, one: Delegate, interface: str, pod: Mapping[str, Any], netns: str
        ) -> str:
            said = super()._call(command, one, interface, pod, netns)
            if command == "add":
                seen.append(world.of("rest"))
            return said

    multus = Watching(**vars(world.multus))
    with pytest.raises(OrbweaverError, match="broken net2"):
        multus.add(pod, "/run/netns/rest")
    assert [sorted(one) for one in seen] == [["eth0", "net1", "net2"]] * 2, seen
    assert seen[0] == seen[1], "the second delegate got what the first one reserved for it"
    assert world.of("rest") == {}, "a delegate that fails undoes all of them"
    assert addresses("rest") == {}


@case
def pods_with_several_networks_live_and_end(world: World) -> None:
    pod = world.pod("lives", [{"name": "red"}, {"name": "red", "interface": "storage"}])
    status = world.multus.add(pod, "/run/netns/lives")
    assert [one["interface"] for one in status] == ["eth0", "net1", "storage"]
    assert addresses("lives") == world.of("lives") == {one["interface"]: one["ips"][0] for one in status}
    annotations = {**pod["metadata"]["annotations"], NETWORK_STATUS: json.dumps(status)}
    told = Pod.from_object({**pod, "metadata": {**pod["metadata"], "annotations": annotations}})
    assert told.reported == frozenset(world.of("lives").values()), "its status is a witness"
    world.multus.check(pod, "/run/netns/lives")
    assert world.multus.delete(pod, "/run/netns/lives") == []
    assert world.of("lives") == {}


@case
def addresses_and_macs_are_asked_for_in_both_ways(world: World) -> None:
    element = {"name": "capable", "ips": ["10.7.1.77/16"], "mac": MAC}
    pod = world.pod("asks", [element])
    status = world.multus.add(pod, "/run/netns/asks")
    assert (status[1]["ips"], status[1]["mac"]) == (["10.7.1.77"], MAC)
    assert world.records()["10.7.1.77"]["mac"] == MAC
    assert world.multus.delete(pod, "/run/netns/asks") == []


@case
def all_interfaces_or_none(world: World) -> None:
    """The first ADD is refused when there is no address for the last interface."""
    pools = POOLS_OF_ALL.replace('"net2", "ipv4": ["red-v4"]', '"net2", "ipv4": ["tiny-v4"]')
    first = world.pod("one", [{"name": "red"}, {"name": "red"}], ippools=pools)
    second = world.pod("two", [{"name": "red"}, {"name": "red"}], ippools=pools)
    world.multus.add(first, "/run/netns/one")
    with pytest.raises(OrbweaverError, match="tiny-v4"):
        world.multus.add(second, "/run/netns/two")
    assert world.of("two") == {}
    assert world.multus.delete(first, "/run/netns/one") == []


@case
def the_end_of_a_sandbox_without_pod_and_namespace(world: World) -> None:
    """Multus has its cache; the pod's object, the network and the namespace are gone."""
    pod = world.pod("gone", [{"name": "red"}])
    world.multus.add(pod, "/run/netns/gone")
    world.store.delete("Pod", "gone", "default")
    run("ip", "netns", "del", "gone")
    assert world.multus.delete(pod, "/run/netns/gone") == []
    assert world.of("gone") == {}


@case
def a_new_sandbox_of_a_pod_passes_the_old_ones_del(world: World) -> None:
    """The kubelet was restarted in the middle: the old sandbox is deleted after the new one has begun."""
    pod = world.pod("again", [{"name": "red"}], ippools=POOLS_OF_ALL.replace("net2", "net9"))
    world.multus.add(pod, "/run/netns/again")
    run("ip", "netns", "add", "anew")
    world.multus.add(pod, "/run/netns/anew")
    assert world.multus.delete(pod, "/run/netns/again") == []
    mine = addresses("anew")
    assert mine.items() <= world.of("again").items(), "the late DEL took nothing of the new sandbox"
    assert world.multus.delete(pod, "/run/netns/anew") == []
    eventually(lambda: _none(world, "again"))


@case
def a_claim_keeps_its_address(world: World) -> None:
    """The network selection element is in the pod's annotation, whoever attaches the pod."""
    element = [{"name": "kept", "ipam-claim-reference": "vm.kept"}]
    first, second = world.pod("vm-1", element), world.pod("vm-2", element)
    world.multus.add(first, "/run/netns/vm-1")
    claimed = world.of("vm-1")["net1"]
    assert world.store.get("IPAMClaim", "vm.kept", "default")["status"]["ips"] == [f"{claimed}/16"]
    world.multus.delete(first, "/run/netns/vm-1")
    assert list(world.records()) == [claimed]
    world.multus.add(second, "/run/netns/vm-2")
    assert addresses("vm-2")["net1"] == claimed
    world.multus.delete(second, "/run/netns/vm-2")
    world.store.delete("IPAMClaim", "vm.kept", "default")
    eventually(lambda: _none(world, "vm-2"))


def _none(world: World, name: str) -> None:
    assert world.of(name) == {}


def main() -> None:
    directory, plugins, tool, mode = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]
    lay_cable(UPLINK)
    agent = AgentProcess(directory, "--timeout", "120")

    def network(name: str, pools: str, **more: Any) -> dict[str, Any]:
        ipam = {**agent.ipam, "default_ipv4_ippool": [pools]}
        macvlan = {"type": "macvlan", "master": UPLINK, "mode": "bridge", "ipam": ipam, **more}
        return {"cniVersion": "1.0.0", "name": name, "plugins": [macvlan]}

    networks = {
        "default/red": network("red", "red-v4"),
        "default/capable": network("capable", "red-v4", capabilities={"ips": True, "mac": True}),
        "default/broken": network("broken", "red-v4", master="no-such-card"),
        "default/kept": {**network("kept", "red-v4"), "allowPersistentIPs": True},
    }
    store = SQLiteStore(agent.data)
    for obj in POOLS:
        store.create(dict(obj))
    for key, conf in networks.items():
        metadata = {"name": key.partition("/")[2], "namespace": "default"}
        spec = {"config": json.dumps(conf)}
        kind = {"apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition"}
        store.create({**kind, "metadata": metadata, "spec": spec})
    claim = {"apiVersion": "k8s.cni.cncf.io/v1alpha1", "kind": "IPAMClaim"}
    spec = {"network": "kept", "interface": "net1"}
    store.create({**claim, "metadata": {"name": "vm.kept", "namespace": "default"}, "spec": spec})
    cluster = Delegate("blue", network("blue", "blue-v4"))
    multus = Multus(directory, tool, (plugins, agent.plugins), cluster, networks, thick=mode == "thick")
    with agent:
        world = World(multus, store, agent)
        for name, play in CASES.items():
            wrong = ""
            try:
                play(world)
            except BaseException:
                wrong = traceback.format_exc()
            print(json.dumps({"case": name, "wrong": wrong}), flush=True)


if __name__ == "__main__":
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    main()
