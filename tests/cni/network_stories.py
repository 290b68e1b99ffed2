"""The specification of networks, case by case, with real plugins in real network namespaces:

    python tests/cni/network_stories.py DIRECTORY CNI_BIN [SECTION]

All cases, or those of a section, share one agent in a sandbox of its own. Each line of the output is one case, as JSON:
its name, and what was wrong, empty when all that it says came true. `test_networks.py` starts them and reports each under
its own name.
Sections are those of the "Kubernetes Network Custom Resource Definition De-facto Standard", version 1.3.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[2]))

import pytest

from actors.errors import OrbweaverError
from actors.store.sqlite.store import SQLiteStore
from cni import shim
from cni.command.sandbox import CniNetwork, SandboxPod, lay_cable, run
from cni.networks.attaching import FORGOTTEN
from cni.networks.network_list import NAME
from tests.support.agent_process import AgentProcess, pool
from tests.support.blocks import recorded
from tests.support.checker import eventually

UPLINK, SECOND_UPLINK = "uplink0", "uplink1"
STATUS = "k8s.v1.cni.cncf.io/network-status"
NETWORKS = "k8s.v1.cni.cncf.io/networks"
DEFAULT = "v1.multus-cni.io/default-network"
MAC = "02:23:45:67:89:01"
POOLS = (
    pool("blue-v4", "10.6.0.0/16", "10.6.1.10-10.6.1.200", "10.6.0.1"),
    pool("red-v4", "10.7.0.0/16", "10.7.1.10-10.7.1.200", "10.7.0.1", default=False),
    pool("empty-v4", "10.8.0.0/16", "10.8.1.1", default=False, excludeIPs=["10.8.1.1"]),
)


@dataclass
class Node:
    """A node without Kubernetes: objects are applied before its agent starts, pods are made by their case."""

    directory: Path
    agent: AgentProcess
    plugins: Path
    store: SQLiteStore

    @property
    def path(self) -> tuple[Path, ...]:
        return (self.plugins, self.agent.plugins)

    def macvlan(self, pools: str = "blue-v4", **more: Any) -> dict[str, Any]:
        """The main plugin on the node's card, with addresses from Orbweaver."""
        ipam = {**self.agent.ipam, "default_ipv4_ippool": [pools]}
        return {"type": "macvlan", "master": UPLINK, "mode": "bridge", "ipam": ipam, **more}

    def bridge(self, name: str, subnet: str, **more: Any) -> dict[str, Any]:
        """The bridge plugin with addresses that are not Orbweaver's."""
        leases = str(self.directory / "leases")
        ipam = {"type": "host-local", "ranges": [[{"subnet": subnet}]], "dataDir": leases}
        return {"type": "bridge", "bridge": name, "ipam": ipam, **more}

    def conf(self, **conf: Any) -> CniNetwork:
        """The node's own configuration; its first network is macvlan unless it says otherwise."""
        if not {"clusterNetwork", "delegates"} & conf.keys():
            conf["delegates"] = [{"cniVersion": "1.0.0", "name": "blue", "plugins": [self.macvlan()]}]
        files = str(self.directory / "net.d")
        base = {"cniVersion": "1.0.0", "name": "node", "type": NAME, "confDir": files}
        return CniNetwork({**base, "ipam_unix_socket_path": str(self.agent.socket), **conf}, self.path)

    def pod(self, name: str, **conf: Any) -> SandboxPod:
        """A pod whose object has been applied."""
        namespace, _, short = name.rpartition("/")
        return SandboxPod(short, self.conf(**conf), namespace or "default")

    def status(self, pod: SandboxPod) -> list[dict[str, Any]]:
        """What the pod's annotation tells of its networks."""
        annotations = self.store.get("Pod", pod.name, pod.namespace)["metadata"]["annotations"]
        found: list[dict[str, Any]] = json.loads(annotations[STATUS])
        return found

    def records(self) -> dict[str, dict[str, str]]:
        """Every recorded address and its record."""
        return recorded(self.store.list("SpiderIPBlock").items)

    def notes(self) -> list[str]:
        """The containers of which the agent has noted something."""
        kept = self.directory / "notes"
        return sorted(file.stem for file in kept.glob("*.json")) if kept.is_dir() else []


Case = Callable[[Node], None]
CASES: dict[str, Case] = {}
OBJECTS: list[Callable[[Node], list[Mapping[str, Any]]]] = []


def case(section: str, *objects: Callable[[Node], Mapping[str, Any]]) -> Callable[[Case], Case]:
    """Register a case, with the objects that it needs."""

    def register(function: Case) -> Case:
        CASES[f"{section} {function.__name__}".replace("_", " ")] = function
        OBJECTS.append(lambda node: [make(node) for make in objects])
        return function

    return register


def nad(
    name: str, config: Callable[[Node], Mapping[str, Any] | str] | None = None, **metadata: Any
) -> Callable[[Node], Mapping[str, Any]]:
    """A NetworkAttachmentDefinition, `namespace/name`."""
    namespace, _, short = name.rpartition("/")

    def make(node: Node) -> Mapping[str, Any]:
        written = config(node) if config is not None else None
        text = written if isinstance(written, str) or written is None else json.dumps(written)
        return {
            "apiVersion": "k8s.cni.cncf.io/v1",
            "kind": "NetworkAttachmentDefinition",
            "metadata": {"name": short, "namespace": namespace or "default", **metadata},
            "spec": {} if text is None else {"config": text},
        }

    return make


def pod(name: str, networks: Any = None, **annotations: str) -> Callable[[Node], Mapping[str, Any]]:
    """A pod that asks for networks: the annotation's text, or what is its JSON."""
    namespace, _, short = name.rpartition("/")
    if networks is not None:
        annotations[NETWORKS] = networks if isinstance(networks, str) else json.dumps(networks)
    metadata = {"name": short, "namespace": namespace or "default", "annotations": annotations}
    return lambda _: {"apiVersion": "v1", "kind": "Pod", "metadata": metadata}


def listed(*plugins: Mapping[str, Any], name: str = "", version: str = "1.0.0") -> dict[str, Any]:
    """A configuration list."""
    return {"cniVersion": version, **({"name": name} if name else {}), "plugins": list(plugins)}


RED = nad("red", lambda node: listed(node.macvlan("red-v4"), name="red"))
GREEN = nad(
    "green", lambda node: {"cniVersion": "0.4.0", "name": "green", **node.bridge("br-green", "10.9.0.0/24")}
)
SHOP = nad("shop/red", lambda node: listed(node.macvlan("red-v4"), name="shop-red"))
OBJECTS.append(lambda node: [make(node) for make in (RED, GREEN, SHOP)])


def inside(pod: SandboxPod, *command: str) -> str:
    return run("nsenter", f"--net={pod.netns}", *command)


def interfaces(pod: SandboxPod) -> dict[str, list[str]]:
    """The pod's interfaces with their IPv4 addresses."""
    found = json.loads(inside(pod, "ip", "-j", "-4", "addr", "show"))
    return {
        one["ifname"]: [f"{a['local']}/{a['prefixlen']}" for a in one["addr_info"]]
        for one in found
        if one["ifname"] != "lo"
    }


def refused(node: Node, pod: SandboxPod, *words: str) -> str:
    """The pod is not attached, for a reason with these words, and nothing of it is left; its error."""
    try:
        pod.start()
    except OrbweaverError as error:
        said = str(error)
        for word in words:
            assert word in said, said
        assert interfaces(pod) == {}, "an interface is left"
        assert not [held for held in node.records().values() if held["pod"].endswith(f"/{pod.name}")]
        assert pod.container not in node.notes(), "a note is left"
        pod.stop()
        return said
    raise AssertionError(f"it was attached: {interfaces(pod)}")


def attached(node: Node, pod: SandboxPod, *names: str) -> dict[str, list[str]]:
    """Start the pod; its interfaces, which have these names in this order. CHECK is content."""
    pod.start()
    found = interfaces(pod)
    assert sorted(found) == sorted(names), found
    told = node.status(pod)
    assert [one["interface"] for one in told] == list(names), told
    assert [one.get("ips", []) for one in told] == [
        [ip.partition("/")[0] for ip in found[name]] for name in names
    ]
    pod.check()
    return found


def leaves(node: Node, pod: SandboxPod) -> None:
    """DEL: all that the pod had is given back, and nothing is left; a second one succeeds."""
    pod.stop()
    assert not [held for held in node.records().values() if held["container"] == pod.container]
    assert pod.container not in node.notes()
    pod.network.call("DEL", pod.environment())


# ---- 3.4: what a NetworkAttachmentDefinition means ------------------------------------------------------------


@case("3.4.1", pod("single", "green"))
def a_configuration_in_the_object_is_executed(node: Node) -> None:
    one = node.pod("single")
    found = attached(node, one, "eth0", "net1")
    assert found["net1"][0].startswith("10.9.0."), found
    leaves(node, one)


@case(
    "3.4.1",
    pod("list", "tuned"),
    nad(
        "tuned",
        lambda node: listed(
            node.bridge("br-tuned", "10.10.0.0/24"),
            {"type": "tuning", "sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1"}},
        ),
    ),
)
def a_list_is_executed_in_its_order(node: Node) -> None:
    one = node.pod("list")
    attached(node, one, "eth0", "net1")
    assert inside(one, "cat", "/proc/sys/net/ipv4/conf/net1/arp_filter").strip() == "1"
    leaves(node, one)


@case("3.4.1", pod("filed", "on-disk"), nad("on-disk"))
def a_list_on_disk_has_the_name_of_the_object(node: Node) -> None:
    one = node.pod("filed")
    found = attached(node, one, "eth0", "net1")
    assert found["net1"][0].startswith("10.11.0."), found
    leaves(node, one)


@case("3.4.1", pod("single-file", "one-on-disk"), nad("one-on-disk"))
def a_configuration_on_disk_has_the_name_of_the_object(node: Node) -> None:
    one = node.pod("single-file")
    found = attached(node, one, "eth0", "net1")
    assert found["net1"][0].startswith("10.12.0."), found
    leaves(node, one)


@case("3.4.1", pod("nowhere", "nothing-on-disk"), nad("nothing-on-disk"))
def otherwise_the_request_fails(node: Node) -> None:
    refused(node, node.pod("nowhere"), "default/nothing-on-disk", "no spec.config")


@case(
    "3.4.2",
    pod("unnamed", "nameless"),
    nad("nameless", lambda node: {"cniVersion": "1.0.0", **node.macvlan("red-v4")}),
)
def a_configuration_without_a_name_gets_the_objects(node: Node) -> None:
    one = node.pod("unnamed")
    found = attached(node, one, "eth0", "net1")
    held = node.records()[found["net1"][0].partition("/")[0]]
    assert held["network"] == "nameless", held
    leaves(node, one)


# ---- 4.1: the selection annotation ----------------------------------------------------------------------------


@case("4.1.1", pod("short", "red, shop/red ,green@lan0"))
def the_short_form_names_networks_namespaces_and_interfaces(node: Node) -> None:
    one = node.pod("short")
    found = attached(node, one, "eth0", "net1", "net2", "lan0")
    assert [status["name"] for status in node.status(one)] == [
        "blue",
        "default/red",
        "shop/red",
        "default/green",
    ]
    assert found["net1"][0].startswith("10.7."), found
    leaves(node, one)


@case("4.1.2", pod("pretty", json.dumps([{"name": "red"}, {"name": "red", "namespace": "shop"}], indent=4)))
def the_json_form_is_read_however_it_is_printed(node: Node) -> None:
    one = node.pod("pretty")
    attached(node, one, "eth0", "net1", "net2")
    leaves(node, one)


@case("4.1.2.1.1", pod("anonymous", [{"namespace": "shop"}]))
def a_name_is_required(node: Node) -> None:
    refused(node, node.pod("anonymous"), "has no name")


@case("4.1.2.1.2", pod("absent", [{"name": "red", "namespace": "elsewhere"}]))
def a_network_is_looked_for_in_its_namespace(node: Node) -> None:
    refused(node, node.pod("absent"), "no NetworkAttachmentDefinition elsewhere/red", "net1")


@case("4.1.2.1.3", pod("addressed", [{"name": "red", "ips": ["10.7.1.77"]}]))
def ips_are_asked_of_orbweaver_for_this_interface(node: Node) -> None:
    one = node.pod("addressed")
    assert attached(node, one, "eth0", "net1")["net1"] == ["10.7.1.77/16"]
    leaves(node, one)


CAPABLE = nad(
    "capable",
    lambda node: listed(
        node.bridge("br-cap", "10.13.0.0/24", capabilities={"ips": True, "mac": True}), name="capable"
    ),
)


@case("4.1.2.1.3", CAPABLE, pod("capable", [{"name": "capable", "ips": ["10.13.0.44/24"]}]))
def ips_go_to_plugins_that_can(node: Node) -> None:
    one = node.pod("capable")
    assert attached(node, one, "eth0", "net1")["net1"] == ["10.13.0.44/24"]
    leaves(node, one)


@case("4.1.2.1.3", pod("incapable", [{"name": "green", "ips": ["10.9.0.44"]}]))
def ips_that_no_plugin_can_give_fail(node: Node) -> None:
    refused(node, node.pod("incapable"), "default/green", "ips", "capabilities")


@case("4.1.2.1.3", pod("misaddressed", [{"name": "red", "ips": ["10.7.1"]}]))
def ips_that_are_none_are_refused(node: Node) -> None:
    refused(node, node.pod("misaddressed"), NETWORKS, "ips")


@case("4.1.2.1.4", pod("hardware", [{"name": "capable", "mac": MAC}]))
def a_mac_goes_to_plugins_that_can(node: Node) -> None:
    one = node.pod("hardware")
    attached(node, one, "eth0", "net1")
    assert MAC in inside(one, "ip", "link", "show", "net1")
    assert node.status(one)[1]["mac"] == MAC
    leaves(node, one)


@case(
    "4.1.2.1.4",
    pod("no-hardware", [{"name": "red", "mac": MAC}]),
    pod("bad-hardware", [{"name": "red", "mac": "02:23"}]),
)
def a_mac_that_no_plugin_can_give_or_that_is_none_fails(node: Node) -> None:
    refused(node, node.pod("no-hardware"), "mac", "capabilities")
    refused(node, node.pod("bad-hardware"), "mac", "Ethernet address")


@case(
    "4.1.2.1.5",
    pod("named", [{"name": "red", "interface": "storage"}]),
    pod("clash", [{"name": "red", "interface": "x"}, {"name": "green", "interface": "x"}]),
    pod("clash-first", [{"name": "red", "interface": "eth0"}]),
    pod("bad-name", [{"name": "red", "interface": "a/b"}]),
)
def an_interface_has_the_name_that_is_asked_for_once(node: Node) -> None:
    one = node.pod("named")
    attached(node, one, "eth0", "storage")
    leaves(node, one)
    refused(node, node.pod("clash"), "interface x")
    refused(node, node.pod("clash-first"), "interface eth0")
    refused(node, node.pod("bad-name"), "not the name of an interface")


@case(
    "4.1.2.1.6",
    pod("argued", [{"name": "argued", "cni-args": {"ips": ["10.7.1.88"]}}]),
    nad(
        "argued",
        lambda node: listed(node.macvlan("red-v4", args={"cni": {"ips": ["10.7.1.89"], "other": "kept"}})),
    ),
)
def cni_args_outrank_the_networks_own(node: Node) -> None:
    one = node.pod("argued")
    assert attached(node, one, "eth0", "net1")["net1"] == ["10.7.1.88/16"]
    leaves(node, one)


PORTS = nad(
    "ports",
    lambda node: listed(
        node.bridge("br-ports", "10.14.0.0/24", isGateway=True),
        {"type": "portmap", "backend": "nftables", "snat": False, "capabilities": {"portMappings": True}},
    ),
)


@case(
    "4.1.2.1.7",
    PORTS,
    pod("mapped", [{"name": "ports", "portMappings": [{"hostPort": 8080, "containerPort": 80}]}]),
    pod("unmapped", [{"name": "green", "portMappings": [{"hostPort": 8080, "containerPort": 80}]}]),
    pod("mismapped", [{"name": "ports", "portMappings": [{"hostPort": 0, "containerPort": 80}]}]),
)
def port_mappings_are_made_by_the_plugin_that_can(node: Node) -> None:
    one = node.pod("mapped")
    address = attached(node, one, "eth0", "net1")["net1"][0].partition("/")[0]
    rules = run("nft", "list", "ruleset")
    assert "8080" in rules and f"{address}:80" in rules, rules
    leaves(node, one)
    assert "8080" not in run("nft", "list", "ruleset")
    refused(node, node.pod("unmapped"), "portMappings", "capabilities")
    refused(node, node.pod("mismapped"), "hostPort")


SHAPED = nad(
    "shaped",
    lambda node: listed(
        node.bridge("br-shaped", "10.15.0.0/24"), {"type": "bandwidth", "capabilities": {"bandwidth": True}}
    ),
)


@case(
    "4.1.2.1.8",
    SHAPED,
    pod("shaped", [{"name": "shaped", "bandwidth": {"ingressRate": 8_000_000, "egressRate": 8_000_000}}]),
    pod("unshaped", [{"name": "green", "bandwidth": {"ingressRate": 1}}]),
    pod("misshaped", [{"name": "shaped", "bandwidth": {"ingressBurst": 5}}]),
)
def bandwidth_is_limited_by_the_plugin_that_can(node: Node) -> None:
    one = node.pod("shaped")
    attached(node, one, "eth0", "net1")
    assert run("tc", "qdisc", "show").count("tbf") == 2
    leaves(node, one)
    assert "tbf" not in run("tc", "qdisc", "show")
    refused(node, node.pod("unshaped"), "bandwidth", "capabilities")
    refused(node, node.pod("misshaped"), "ingressBurst", "ingressRate")


def written(file: Path) -> int:
    """The process id that a plugin has written."""
    assert file.exists()
    return int(file.read_text())


def is_written(file: Path) -> None:
    assert written(file)


def default_routes(pod: SandboxPod) -> list[str]:
    return [" ".join(line.split()[:5]) for line in inside(pod, "ip", "route", "show", "default").splitlines()]


@case(
    "4.1.2.1.9",
    pod("routed", [{"name": "green"}, {"name": "red", "default-route": ["10.7.0.9"]}]),
    pod("own-route", [{"name": "red", "default-route": []}]),
    pod(
        "two-routes",
        [{"name": "red", "default-route": ["10.7.0.1"]}, {"name": "green", "default-route": ["10.9.0.1"]}],
    ),
)
def the_default_route_is_on_the_network_that_is_chosen(node: Node) -> None:
    one = node.pod("routed")
    attached(node, one, "eth0", "net1", "net2")
    assert default_routes(one) == ["default via 10.7.0.9 dev net2"]
    assert [status.get("gateway") for status in node.status(one)] == [None, None, ["10.7.0.9"]]
    leaves(node, one)
    own = node.pod("own-route")
    attached(node, own, "eth0", "net1")
    assert default_routes(own) == ["default via 10.7.0.1 dev net1"]
    leaves(node, own)
    refused(node, node.pod("two-routes"), "default-route", "one network may have it")


@case(
    "4.1.2.1.10",
    pod("infiniband", [{"name": "red", "infiniband-guid": "24:8a:07:03:00:8d:ae:2f"}]),
    pod("misguided", [{"name": "red", "infiniband-guid": "24:8a"}]),
)
def a_guid_that_no_plugin_can_give_or_that_is_none_fails(node: Node) -> None:
    refused(node, node.pod("infiniband"), "infinibandGUID", "capabilities")
    refused(node, node.pod("misguided"), "GUID of 8 bytes")


@case("4.1.2.1.11", pod("claimed", [{"name": "red", "ips": ["10.7.1.9"], "ipam-claim-reference": "vm.red"}]))
def a_claim_and_addresses_exclude_each_other(node: Node) -> None:
    refused(node, node.pod("claimed"), "ipam-claim-reference", "ips")


# ---- 4.2, 5 and 6 ---------------------------------------------------------------------------------------------


@case("4.2", pod("twice", "red,red"))
def one_network_may_be_attached_twice(node: Node) -> None:
    one = node.pod("twice")
    found = attached(node, one, "eth0", "net1", "net2")
    assert found["net1"] != found["net2"]
    leaves(node, one)


@case("5", pod("told", "red"))
def the_status_tells_each_attachment(node: Node) -> None:
    one = node.pod("told")
    found = attached(node, one, "eth0", "net1")
    macs = {link["ifname"]: link["address"] for link in json.loads(inside(one, "ip", "-j", "link", "show"))}
    expected = [
        {"name": "blue", "interface": "eth0", "mac": macs["eth0"], "default": True, "gateway": ["10.6.0.1"]},
        {"name": "default/red", "interface": "net1", "mac": macs["net1"], "gateway": ["10.7.0.1"]},
    ]
    told = node.status(one)
    for entry, ips in zip(expected, (found["eth0"], found["net1"]), strict=True):
        entry |= {"ips": [ips[0].partition("/")[0]], "dns": {}}
    assert [
        {key: one.get(key) for key in entry} for one, entry in zip(told, expected, strict=True)
    ] == expected
    leaves(node, one)


@case("6", pod("chosen", None, **{DEFAULT: "default/green"}), pod("ruled"))
def the_first_network_is_the_pods_choice_else_the_clusters(node: Node) -> None:
    one = node.pod("chosen")
    found = attached(node, one, "eth0")
    assert found["eth0"][0].startswith("10.9."), found
    assert node.status(one)[0]["name"] == "default/green"
    leaves(node, one)
    other = node.pod("ruled", clusterNetwork="default/red")
    assert attached(node, other, "eth0")["eth0"][0].startswith("10.7.")
    leaves(node, other)


@case("6.2", pod("ordered", "red,green"))
def the_first_network_is_attached_before_the_others(node: Node) -> None:
    one = node.pod("ordered")
    attached(node, one, "eth0", "net1", "net2")
    links = json.loads(inside(one, "ip", "-j", "link", "show"))
    indexes = {link["ifname"]: link["ifindex"] for link in links}
    assert indexes["eth0"] < indexes["net1"] < indexes["net2"], indexes
    leaves(node, one)


# ---- 7: failures, restrictions, runtimeConfig -----------------------------------------------------------------


@case(
    "7.2",
    pod("broken", "red,green,broken,red"),
    nad(
        "broken",
        lambda node: {
            "cniVersion": "1.0.0",
            "name": "broken",
            "type": "macvlan",
            "master": "no-such-card",
            "ipam": node.agent.ipam,
        },
    ),
)
def a_network_that_fails_undoes_all_of_them(node: Node) -> None:
    leases = node.directory / "leases" / "green"
    before = {file.name for file in leases.glob("10.*")}
    refused(node, node.pod("broken"), "default/broken", "net3", "macvlan")
    assert {file.name for file in leases.glob("10.*")} == before, "host-local was not told"


@case(
    "7.2", pod("short-of", "red,exhausted"), nad("exhausted", lambda node: listed(node.macvlan("empty-v4")))
)
def nothing_is_executed_when_one_interface_gets_no_address(node: Node) -> None:
    """All addresses are recorded before the first plugin runs."""
    said = refused(node, node.pod("short-of"), "net2", "empty-v4")
    assert "plugin" not in said, said


@case("7.2", pod("gone", "red,green"))
def a_pod_is_detached_without_its_objects_and_its_namespace(node: Node) -> None:
    one = node.pod("gone")
    attached(node, one, "eth0", "net1", "net2")
    node.store.delete("Pod", "gone", "default")
    one.vanish()
    one.network.call("DEL", one.environment())
    assert one.container not in node.notes()
    assert not [held for held in node.records().values() if held["container"] == one.container]


@case("7.2", pod("stale", "red"))
def the_nodes_own_namespace_is_not_touched(node: Node) -> None:
    """DEL names a process's namespace, and that process is one of the node's by now."""
    one = node.pod("stale")
    attached(node, one, "eth0", "net1")
    run(
        "ip", "link", "add", "net1", "type", "veth", "peer", "name", "far1"
    )  # the node may have one of that name
    one.network.call("DEL", {**one.environment(), "CNI_NETNS": f"/proc/{os.getpid()}/ns/net"})
    assert "net1" in run("ip", "-br", "link", "show")
    run("ip", "link", "del", "net1")
    leaves(node, one)


@case("7.2", pod("half", "red,moody"), nad("moody", lambda node: listed({"type": "moody"}, version="0.4.0")))
def a_network_that_cannot_be_detached_is_left_to_the_next_attempt(node: Node) -> None:
    one = node.pod("half")
    moody = node.agent.plugins / "moody"
    moody.write_text(
        f"#!/bin/sh\n[ $CNI_COMMAND != DEL ] || [ -e {node.directory}/calm ] || exit 1\necho '{{}}'\n"
    )
    moody.chmod(0o755)
    one.start()
    with pytest.raises(OrbweaverError, match="1 of 3 networks"):
        one.network.call("DEL", one.environment())
    assert sorted(interfaces(one)) == [], "the others were not detached"
    (node.directory / "calm").touch()
    leaves(node, one)


@case(
    "7.4",
    pod("shop/guest", "default/red"),
    pod("shop/at-home", "red"),
    pod("shop/borrower", "common/red"),
    nad("common/red", lambda node: listed(node.macvlan("red-v4"), name="common")),
)
def namespaces_are_isolated_where_that_is_switched_on(node: Node) -> None:
    refused(node, node.pod("shop/guest"), "default/red", "namespaces are isolated")
    for name in ("shop/at-home", "shop/borrower"):
        one = node.pod(name, clusterNetwork="default/green")
        attached(node, one, "eth0", "net1")
        leaves(node, one)


@case("7.5", CAPABLE, pod("runtime", "capable"))
def what_the_runtime_asks_for_is_for_the_first_network_alone(node: Node) -> None:
    first = {
        "cniVersion": "1.0.0",
        "name": "first",
        "plugins": [node.bridge("br-first", "10.16.0.0/24", capabilities={"ips": True})],
    }
    one = node.pod("runtime", delegates=[first], runtimeConfig={"ips": ["10.16.0.33/24"]})
    found = attached(node, one, "eth0", "net1")
    assert found["eth0"] == ["10.16.0.33/24"]
    assert found["net1"][0].startswith("10.13.0."), found
    leaves(node, one)


# ---- beyond the standard: who writes networks is a tenant ------------------------------------------------------


@case(
    "bounds",
    pod("pathed", "pathed"),
    pod("ipam-pathed", "ipam-pathed"),
    pod("looping", "looping"),
    pod("missing", "missing"),
    nad("pathed", lambda node: {"cniVersion": "1.0.0", "type": "../../../bin/sh"}),
    nad("ipam-pathed", lambda node: {"cniVersion": "1.0.0", "type": "macvlan", "ipam": {"type": "/bin/sh"}}),
    nad("looping", lambda node: {"cniVersion": "1.0.0", "type": NAME}),
    nad("missing", lambda node: {"cniVersion": "1.0.0", "type": "not-installed"}),
)
def only_programs_of_the_nodes_own_directories_are_executed(node: Node) -> None:
    refused(node, node.pod("pathed"), "bare name")
    refused(node, node.pod("ipam-pathed"), "ipam.type", "bare name")
    refused(node, node.pod("looping"), "cannot be attached by the plugin that attaches")
    refused(node, node.pod("missing"), "no plugin not-installed", "install it")


@case(
    "bounds",
    pod("resourced", "resourced"),
    nad(
        "resourced",
        lambda node: listed(node.macvlan()),
        annotations={"k8s.v1.cni.cncf.io/resourceName": "intel.com/vf"},
    ),
)
def a_network_of_a_device_plugin_is_refused_with_the_remedy(node: Node) -> None:
    refused(node, node.pod("resourced"), "intel.com/vf", "Multus")


@case("commands", pod("chained", "red"))
def it_stands_behind_other_plugins_too(node: Node) -> None:
    """The first interface is another plugin's; its result goes through."""
    one = node.pod("chained")
    run("ip", "netns", "add", "chained")
    main = CniNetwork({"cniVersion": "1.0.0", "name": "node", **node.macvlan()}, node.path)
    result = main.call("ADD", one.environment())
    chained = node.conf(delegates=[])
    assert chained.call("ADD", one.environment(), {"prevResult": result}) == result
    assert sorted(interfaces(one)) == ["eth0", "net1"]
    assert [(entry["name"], entry.get("default")) for entry in node.status(one)] == [
        ("node", True),
        ("default/red", None),
    ]
    for network in (chained, main):
        network.call("DEL", one.environment(), {"prevResult": result})
    assert interfaces(one) == {}
    one.vanish()


@case("commands", pod("collected", "red,green"), pod("kept", "red"))
def gc_detaches_what_the_runtime_does_not_know(node: Node) -> None:
    lost, kept = node.pod("collected"), node.pod("kept")
    attached(node, lost, "eth0", "net1", "net2")
    attached(node, kept, "eth0", "net1")
    lost.vanish()
    valid = [{"containerID": kept.container, "ifname": "eth0"}]
    node.conf(cniVersion="1.1.0").call("GC", {}, {"cni.dev/valid-attachments": valid})
    assert {held["container"] for held in node.records().values()} == {kept.container}
    assert node.notes() == [kept.container]
    leaves(node, kept)


@case("commands", pod("inspected", "red"))
def check_and_status_are_passed_on(node: Node) -> None:
    one = node.pod("inspected")
    attached(node, one, "eth0", "net1")
    inside(one, "ip", "link", "set", "net1", "down")
    inside(one, "ip", "addr", "flush", "dev", "net1")
    with pytest.raises(OrbweaverError, match="net1"):
        one.check()
    leaves(node, one)
    ready = listed(node.macvlan(), name="blue", version="1.1.0")
    node.conf(cniVersion="1.1.0", delegates=[ready]).call("STATUS", {})
    away = {**node.agent.ipam, "ipam_unix_socket_path": str(node.directory / "nobody.sock")}
    unready = listed({**node.macvlan(), "ipam": away}, name="blue", version="1.1.0")
    with pytest.raises(OrbweaverError) as told:
        node.conf(cniVersion="1.1.0", delegates=[unready]).call("STATUS", {})
    assert told.value.cni_code == 50, "the first network's IPAM is away"


OTHER = os.environ.get("ORBWEAVER_MAIN_PLUGIN", "macvlan")
"""A main plugin that not every kernel has the interfaces for: `tests/uml` has another one."""


@case(
    "kinds",
    pod("four", "moved,green,other,red"),
    nad(
        "moved",
        lambda node: listed({"type": "host-device", "device": "vf0", "ipam": node.macvlan("red-v4")["ipam"]}),
    ),
    nad(
        "other",
        lambda node: listed(
            {
                **node.macvlan("red-v4"),
                "type": OTHER,
                "master": SECOND_UPLINK,
                "mode": "l2" if OTHER == "ipvlan" else "bridge",
            }
        ),
    ),
)
def a_pod_has_interfaces_of_every_kind(node: Node) -> None:
    run("ip", "link", "add", "vf0", "type", "veth", "peer", "name", "vf0p")
    run("ip", "link", "set", "vf0p", "up")
    one = node.pod("four")
    attached(node, one, "eth0", "net1", "net2", "net3", "net4")
    kinds = {
        link["ifname"]: link.get("linkinfo", {}).get("info_kind")
        for link in json.loads(inside(one, "ip", "-d", "-j", "link", "show"))
    }
    assert [kinds[f"net{number}"] for number in range(1, 5)] == ["veth", "veth", OTHER, "macvlan"], kinds
    leaves(node, one)
    assert "vf0" in run("ip", "-br", "link", "show"), "the node's own interface came back"


@case("time", pod("forgotten", "red,green"))
def a_sandbox_that_was_forgotten_is_detached_when_an_agent_starts(node: Node) -> None:
    """After a reboot, when the runtime remembers nothing: only what is old, and whose namespace is gone."""
    one = node.pod("forgotten")
    attached(node, one, "eth0", "net1", "net2")
    note = node.directory / "notes" / f"{one.container}.json"
    long_ago = time.time() - 2 * FORGOTTEN
    os.utime(note, (long_ago, long_ago))
    leases = node.directory / "leases" / "green"
    lease = leases / interfaces(one)["net2"][0].partition("/")[0]
    assert lease.exists()
    node.agent.stop()
    node.agent.start()
    node.conf(cniVersion="1.1.0").call("STATUS", {})
    assert one.container in node.notes(), "its namespace is there"
    node.agent.stop()
    one.vanish()
    node.agent.start()
    eventually(lambda: is_gone(note))
    eventually(lambda: is_gone(lease))
    assert not [held for held in node.records().values() if held["container"] == one.container]


def is_gone(file: Path) -> None:
    assert not file.exists()


def has_ended(pid: int) -> None:
    """A process that was killed; it may take a moment, and wait to be reaped."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return
    assert not command, "what the plugin started still runs"


ISOLATED = tuple(name for name in CASES if name.startswith("7.4"))
"""Cases of a node with isolated namespaces."""


# ---- time: what hangs, what nobody wants any more -----------------------------------------------------------


@case(
    "time",
    pod("hanging", "red,hanging"),
    nad("hanging", lambda node: listed({"type": "hanging"}, version="0.4.0")),
)
def a_plugin_that_hangs_is_ended_by_the_del(node: Node) -> None:
    """The runtime gave up; its DEL ends the ADD that is under way, with all that the plugin started."""
    hanging = node.agent.plugins / "hanging"
    begun = node.directory / "begun"
    hanging.write_text(f"#!/bin/sh\n[ $CNI_COMMAND = ADD ] || exit 0\nsleep 1234 & echo $! > {begun}\nwait\n")
    hanging.chmod(0o755)
    one = node.pod("hanging")
    run("ip", "netns", "add", "hanging")
    with ThreadPoolExecutor(1) as executor:
        adding = executor.submit(one.network.call, "ADD", one.environment())
        eventually(lambda: is_written(begun))
        one.network.call("DEL", one.environment())
        error = adding.exception(180)
    assert isinstance(error, OrbweaverError) and error.cni_code == 11, error
    assert "its sandbox is being deleted" in str(error), error
    assert interfaces(one) == {}
    eventually(lambda: has_ended(written(begun)))
    assert one.container not in node.notes()
    assert not [held for held in node.records().values() if held["container"] == one.container]
    one.vanish()


@case(
    "time",
    pod("killed", "red,stopping"),
    nad("stopping", lambda node: listed({"type": "stopping"}, version="0.4.0")),
)
def an_agent_that_is_killed_in_between_undoes_it_with_the_next_del(node: Node) -> None:
    stopping = node.agent.plugins / "stopping"
    begun = node.directory / "stopping"
    stopping.write_text(f"#!/bin/sh\n[ $CNI_COMMAND = ADD ] || exit 0\necho $$ > {begun}; exec sleep 1234\n")
    stopping.chmod(0o755)
    one = node.pod("killed")
    run("ip", "netns", "add", "killed")
    with ThreadPoolExecutor(1) as executor:
        adding = executor.submit(one.network.call, "ADD", one.environment())
        eventually(lambda: is_written(begun))
        node.agent.kill()
        assert isinstance(adding.exception(180), OrbweaverError)
    os.kill(written(begun), signal.SIGKILL)
    assert sorted(interfaces(one)) == ["eth0", "net1"], "nobody has undone it yet"
    node.agent.start()
    assert one.container in node.notes()
    leaves(node, one)


def main() -> None:
    directory, plugins, section = Path(sys.argv[1]), Path(sys.argv[2]), "".join(sys.argv[3:])
    isolated = section == "7.4"
    settings = {
        "networks": {
            "enabled": True,
            "namespaceIsolation": isolated,
            "globalNamespaces": ["common"],
        }
    }
    conf = directory / "conf.yml"
    conf.write_text(json.dumps(settings))
    options = ("--config", str(conf), "--networks-cache", str(directory / "notes"), "--timeout", "120")
    agent = AgentProcess(directory, *options)
    shim.install(agent.plugins, [NAME])
    store = SQLiteStore(agent.data)
    node = Node(directory, agent, plugins, store)
    lay_cable(UPLINK)
    # macvlan and ipvlan do not stand on one card.
    run("ip", "link", "add", SECOND_UPLINK, "type", "veth", "peer", "name", "fabric1")
    for end in (SECOND_UPLINK, "fabric1"):
        run("ip", "link", "set", end, "up")
    files = directory / "net.d"
    files.mkdir()
    on_disk = listed(node.bridge("br-disk", "10.11.0.0/24"), name="on-disk")
    (files / "10-list.conflist").write_text(json.dumps(on_disk))
    single = {"cniVersion": "1.0.0", "name": "one-on-disk", **node.bridge("br-one", "10.12.0.0/24")}
    (files / "20-single.conf").write_text(json.dumps(single))
    (files / "30-broken.conf").write_text("{")
    objects = {json.dumps(obj): obj for make in OBJECTS for obj in make(node)}
    for obj in (*POOLS, *objects.values()):
        store.create(dict(obj))
    chosen = [name for name in CASES if (name in ISOLATED) == isolated and name.startswith(section)]
    with agent:
        for name in chosen:
            wrong = ""
            try:
                CASES[name](node)
            except BaseException:
                wrong = traceback.format_exc()
            print(json.dumps({"case": name, "wrong": wrong}), flush=True)


if __name__ == "__main__":
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    main()
