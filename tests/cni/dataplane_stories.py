"""Stories of the coordinator with real plugins in real network namespaces. Each runs in a sandbox of its own:

    python tests/cni/dataplane_stories.py STORY DIRECTORY CNI_BIN

It exits with 0 when everything it says came true. `test_dataplane.py` starts them.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[2]))

import pytest

from actors.errors import OrbweaverError
from actors.networks.attachment import cni_configuration
from actors.resources.multus_config import MultusConfig
from cni.command.sandbox import CniNetwork, SandboxPod, lay_cable, run
from cni.dataplane.coordinator import reply_marks
from cni.dataplane.netlink.namespaces import inside
from tests.actors.resources.multus_cases import multus_config
from tests.support.agent_process import PROGRAM, AgentProcess, pool
from tests.support.checker import eventually
from tests.support.listening import listening

TIMEOUT = 40
"""Seconds that the agent takes for a request at most; half of it for the work in a namespace."""
MAIN = os.environ.get("ORBWEAVER_MAIN_PLUGIN", "macvlan")
"""The plugin that makes the pods' interfaces, in the stories that are true of others than macvlan too."""
HOST, HOST6 = "10.6.168.123", "fd00:6::123"
SERVICES = ["10.96.0.0/12", "fd00:96::/112"]
V4 = pool("blue-v4", "10.6.0.0/16", "10.6.168.172-10.6.168.199", "10.6.0.1")
V6 = pool("blue-v6", "fd00:6::/64", "fd00:6::10-fd00:6::40", "fd00:6::1")
GREEN = pool("green-v4", "10.8.0.0/16", "10.8.168.174-10.8.168.199", "10.8.0.1", default=False)
RED = pool("red-v4", "10.7.0.0/16", "10.7.168.173-10.7.168.199", "10.7.0.1", default=False)


@dataclass(slots=True)
class Chain:
    """A plugin list: what a runtime does with a conflist. `host`: the node's namespace, None for this one."""

    agent: AgentProcess
    plugins: Path
    main: Mapping[str, Any]
    coordinator: Mapping[str, Any] = field(default_factory=dict)
    name: str = "blue"
    host: str | None = None

    def networks(self) -> tuple[CniNetwork, CniNetwork]:
        base = {"cniVersion": "1.0.0", "name": self.name}
        places = (self.plugins, self.agent.plugins)
        last = {"type": "coordinator", "serviceCIDR": SERVICES, **self.agent.ipam, **self.coordinator}
        return CniNetwork({**base, **self.main}, places), CniNetwork(
            {**base, **last, "type": "coordinator"}, places
        )

    def add(self, pod: SandboxPod) -> dict[str, Any]:
        main, last = self.networks()
        with within(self.host):  # a program that is started there is there
            pod.result = main.call("ADD", pod.environment())
            pod.addresses = tuple(one["address"] for one in pod.result["ips"])
            result: dict[str, Any] = last.call("ADD", pod.environment(), {"prevResult": pod.result})
        return result

    def again(self, pod: SandboxPod) -> dict[str, Any]:
        result: dict[str, Any] = self.networks()[1].call("ADD", pod.environment(), {"prevResult": pod.result})
        return result

    def check(self, pod: SandboxPod) -> None:
        for network in self.networks():
            network.call("CHECK", pod.environment(), {"prevResult": pod.result})

    def delete(self, pod: SandboxPod) -> None:
        for network in reversed(self.networks()):
            network.call("DEL", pod.environment(), {"prevResult": pod.result})


@contextmanager
def within(netns: str | None) -> Iterator[None]:
    """Be in a named namespace with this thread; in the story's own for None."""
    if netns is None:
        yield
        return
    descriptor = os.open(f"/run/netns/{netns}", os.O_RDONLY)
    try:
        with inside(descriptor):
            yield
    finally:
        os.close(descriptor)


def make(name: str, interface: str = "eth0", container: str | None = None) -> SandboxPod:
    """A pod with a namespace and nothing in it; a second interface of one shares its namespace."""
    pod = SandboxPod(name, CniNetwork({"type": "none"}, ()), interface=interface)
    if container is not None:
        pod.container = container
    else:
        run("ip", "netns", "add", name)
        quiet = "echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad; ip link set lo up"
        run("nsenter", f"--net=/run/netns/{name}", "sh", "-c", quiet)
    return pod


def in_pod(pod: SandboxPod, *command: str) -> str:
    return run("nsenter", f"--net={pod.netns}", *command)


def snapshot(pod: SandboxPod) -> str:
    """Everything that a plan may change, in the pod and on the host."""
    ours, theirs = _state(), _state("nsenter", f"--net={pod.netns}")
    return "\n".join(
        (*theirs, *run("nsenter", f"--net={pod.netns}", "nft", "list", "ruleset").splitlines(), *ours)
    )


def _state(*prefix: str) -> list[str]:
    """Rules, routes, permanent neighbours and links of a namespace, but for what the kernel adds to an IPv6 interface when
    it pleases. One program for each family, because a slow machine takes a second to start one."""
    found = []
    for family in ("-4", "-6"):
        asked = "rule show\nroute show table all\nneigh show nud permanent\nlink show\n"
        lines = run(*prefix, "sh", "-c", f"printf '{asked}' | ip -br {family} -batch -").splitlines()
        found += sorted(
            line
            for line in lines
            if not any(word in line for word in ("multicast", "anycast", "fe80:", "ff00::"))
        )
    return found


def cable() -> None:
    """The node's card with the node's own addresses; its other end is the segment, with the gateway."""
    lay_cable("uplink0")
    run("ip", "netns", "add", "outside")
    run("ip", "link", "set", "fabric0", "netns", "outside")
    for address in (f"{HOST}/16", f"{HOST6}/64"):
        run("ip", "addr", "add", address, "dev", "uplink0", *(("nodad",) if ":" in address else ()))
    script = (
        "ip link set lo up; ip link set fabric0 up; ip addr add 10.6.0.1/16 dev fabric0;"
        "ip addr add fd00:6::1/64 dev fabric0 nodad; echo 1 > /proc/sys/net/ipv4/ip_forward"
    )
    run("nsenter", "--net=/run/netns/outside", "sh", "-c", script)


@contextmanager
def capture(netns: str, interface: str) -> Iterator[list[tuple[str, str, str]]]:
    """Packets (ICMP, TCP, IPv6 echo) seen on an interface meanwhile: (direction, source, destination)."""
    seen: list[tuple[str, str, str]] = []

    def take(data: bytes, origin: Any) -> None:
        if origin[1] == 0x0800 and data[9] in (1, 6):
            source, target = socket.inet_ntoa(data[12:16]), socket.inet_ntoa(data[16:20])
        elif origin[1] == 0x86DD and data[6] == 58 and data[40] in (128, 129):  # echo, not discovery
            source, target = (socket.inet_ntop(socket.AF_INET6, data[at : at + 16]) for at in (8, 24))
        else:
            return
        seen.append(("out" if origin[2] == 4 else "in", source, target))

    with listening(netns, interface, socket.SOCK_DGRAM, take):
        yield seen


def serve_tcp(pod: SandboxPod, port: int) -> socket.socket:
    """A server in the pod that answers every connection with the client's address."""
    descriptor = os.open(pod.netns, os.O_RDONLY)
    with inside(descriptor):
        listener = socket.socket(socket.AF_INET6)
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind(("::", port))
    os.close(descriptor)
    listener.listen(16)

    def answer() -> None:
        while True:
            try:
                client, address = listener.accept()
            except OSError:
                return
            with client:
                client.sendall(str(address[0]).encode())

    threading.Thread(target=answer, daemon=True).start()
    return listener


def ask_tcp(netns: str | None, address: str, port: int) -> str:
    """What the server at the address says to a client in the namespace."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    if netns is None:
        client = socket.socket(family)
    else:
        descriptor = os.open(netns, os.O_RDONLY)
        with inside(descriptor):
            client = socket.socket(family)
        os.close(descriptor)
    with client:
        client.settimeout(120)
        client.connect((address, port))
        return client.recv(100).decode().removeprefix("::ffff:")


def reach(agent: AgentProcess, plugins: Path) -> None:
    """Pods of one node: pod to pod, pod to host, host to pod, pod to gateway, both families; CHECK; no rest."""
    cable()
    chain = Chain(agent, plugins, {"type": MAIN, "master": "uplink0", "ipam": agent.ipam})
    before = _host()
    pods = [make("a"), make("b")]
    for pod in pods:
        with pytest.raises(
            OrbweaverError
        ):  # what plain macvlan and ipvlan do not allow, and the coordinator brings
            in_pod(pod, "ping", "-n", "-c", "1", "-W", "1", HOST)
        result = chain.add(pod)
        assert result == pod.result, (result, pod.result)
    for one, other in (pods, reversed(pods)):
        for address in (*other.addresses, HOST, HOST6, "10.6.0.1", "fd00:6::1"):
            one.ping(address)
        for address in one.addresses:
            run("ping", "-n", "-c", "1", "-W", "5", address.partition("/")[0])
        chain.check(one)
    for pod in pods:
        there = snapshot(pod)
        assert chain.again(pod) == pod.result
        assert snapshot(pod) == there
    assert "veth0" in in_pod(pods[0], "ip", "route", "get", HOST)
    in_pod(pods[1], "ip", "route", "del", "10.96.0.0/12")
    with pytest.raises(OrbweaverError, match=r"10\.96\.0\.0/12"):
        chain.check(pods[1])
    run("ip", "link", "del", "veth" + pods[1].container[:11])  # half of it is gone
    for pod in pods:
        chain.delete(pod)
        chain.delete(pod)
        in_pod(pod, "sh", "-c", '! ip link show veth0 2>/dev/null; test -z "$(nft list ruleset)"')
        assert "lookup 500" not in in_pod(pod, "ip", "rule")
        pod.vanish()
        chain.delete(pod)  # and without the namespace
    assert _host() == before


def _host() -> list[str]:
    """The host's state, but for the one rule that all pods share."""
    return [line for line in _state() if "lookup 500" not in line]


def uninstalled(agent: AgentProcess, plugins: Path) -> None:
    """`orbweaver uninstall node` leaves the host's rules, routes and interfaces as they were before the first pod, also where
    a pod's DEL never came; while an agent answers it does nothing. What leads into other tables stays."""
    cable()
    for rule in ("from 10.9.0.0/16 lookup 501", "from all fwmark 0x7 lookup 77"):
        run("ip", "rule", "add", *rule.split())
    run("ip", "route", "add", "10.9.0.0/16", "dev", "uplink0", "table", "501")
    before = _state()
    chain = Chain(agent, plugins, {"type": MAIN, "master": "uplink0", "ipam": agent.ipam})
    pods = [make("a"), make("b")]
    for pod in pods:
        chain.add(pod)
    chain.delete(pods[0])
    changed = _state()
    assert [line for line in changed if "lookup 500" in line]
    command = [*PROGRAM, "uninstall", "node", f"--root={agent.socket.parent}", "--socket-dir=/"]
    refused = subprocess.run([*command, "--yes"], capture_output=True, text=True, check=False)
    assert refused.returncode == 1, refused.stdout
    assert f"an agent answers at {agent.socket}" in refused.stderr
    agent.stop()
    told = run(*command)
    assert "Nothing was changed" in told
    assert _state() == changed
    done = run(*command, "--yes")
    assert _state() == before, done
    assert f"removed interface veth{pods[1].container[:11]} to a pod" in done
    assert [line for line in told.splitlines() if "rule" in line] == [
        f"would remove {family} rule 1000: from all lookup 500" for family in ("IPv4", "IPv6")
    ]
    assert run(*command, "--yes").splitlines()[-1] == "nothing of it is here"


def seeds(agent: AgentProcess, plugins: Path) -> None:
    """Two NICs: the rules and tables of Spiderpool's document "Pod annotation of multi-NIC", line by line; a client
    outside the second NIC's subnet is answered by that NIC."""
    pod, chains = _two_nics(agent, plugins)
    address = in_pod(pod, "ip", "-4", "-br", "addr", "show", "net1").split()[2]
    assert address == "10.7.168.173/16", address
    rules = [" ".join(line.split()) for line in in_pod(pod, "ip", "rule").splitlines()]
    assert [line for line in rules if "fwmark" not in line] == [
        "0: from all lookup local",
        "32764: from 10.7.168.173 lookup 100",
        "32765: from all to 10.7.168.173/16 lookup 100",
        "32766: from all lookup main",
        "32767: from all lookup default",
    ], rules
    main = [line.strip() for line in in_pod(pod, "ip", "-4", "route", "show", "table", "main").splitlines()]
    assert main == [
        "default via 10.6.0.1 dev eth0",
        "10.6.0.0/16 dev eth0 proto kernel scope link src 10.6.168.172",
        "10.6.168.123 dev veth0 scope link src 10.6.168.172",
        "10.96.0.0/12 via 10.6.168.123 dev veth0 src 10.6.168.172",
    ], main
    table = [line.strip() for line in in_pod(pod, "ip", "-4", "route", "show", "table", "100").splitlines()]
    assert sorted(table) == sorted(
        [
            "default via 10.7.0.1 dev net1",
            "10.6.168.123 dev veth0 scope link",
            "10.7.0.0/16 dev net1 proto kernel scope link src 10.7.168.173",
            "10.96.0.0/12 via 10.6.168.123 dev veth0",
        ]
    ), table
    # A client behind the second NIC's gateway, in neither subnet.
    client = ("nsenter", "--net=/run/netns/far")
    with capture(pod.netns, "net1") as net1, capture(pod.netns, "eth0") as eth0:
        run(*client, "ping", "-n", "-c", "2", "-i", "0.2", "-W", "5", "10.7.168.173")
    assert ("out", "10.7.168.173", "192.0.2.2") in net1, net1
    assert not [packet for packet in eth0 if "192.0.2.2" in packet], eth0
    with capture(pod.netns, "net1") as net1, capture(pod.netns, "eth0") as eth0:
        run(*client, "ping", "-n", "-c", "2", "-i", "0.2", "-W", "5", "10.6.168.172")
    assert ("out", "10.6.168.172", "192.0.2.2") in eth0, eth0
    assert not [packet for packet in net1 if "192.0.2.2" in packet], net1
    if reply_marks.supported():
        # A client in the second NIC's subnet that calls the first is answered by the first.
        router = ("nsenter", "--net=/run/netns/outside")
        with capture(pod.netns, "net1") as net1, capture(pod.netns, "eth0") as eth0:
            run(*router, "ping", "-n", "-c", "2", "-i", "0.2", "-W", "5", "-I", "10.7.0.1", "10.6.168.172")
        assert ("out", "10.6.168.172", "10.7.0.1") in eth0, eth0
        assert not [packet for packet in net1 if "10.6.168.172" in packet], net1
    in_pod(pod, "ping", "-n", "-c", "1", "-W", "5", HOST)
    for target in ("10.6.168.172", "10.7.168.173"):
        run("ping", "-n", "-c", "1", "-W", "5", target)
    second = SandboxPod(pod.name, pod.network, interface="net1", container=pod.container)
    second.result = {"ips": [{"address": address}], "cniVersion": "1.0.0"}
    there = snapshot(pod)
    chains[1].again(second)
    chains[0].again(pod)
    assert snapshot(pod) == there
    chains[0].check(pod)
    chains[1].networks()[1].call("CHECK", second.environment(), {"prevResult": second.result})
    status, told = _explained(agent, chains[1])
    assert status == 0, told
    assert "rule 32764: from 10.7.168.173 lookup 100" in told and told.count("and so it is") == 2, told
    in_pod(pod, "ip", "route", "del", "10.96.0.0/12", "table", "100")
    in_pod(pod, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/conf/eth0/rp_filter")
    status, told = _explained(agent, chains[1])
    assert status == 1 and "pod: route 10.96.0.0/12 via 10.6.168.123 dev veth0 table 100" in told, told
    assert "sysctl net.ipv4.conf.eth0.rp_filter is 1, not 0" in told, told
    chains[1].networks()[1].call("DEL", second.environment(), {"prevResult": second.result})
    assert "lookup 100" not in in_pod(pod, "ip", "rule")
    assert "10.7.168.173" not in run("ip", "route", "show", "table", "500")
    run("ping", "-n", "-c", "1", "-W", "5", "10.6.168.172")


def _explained(agent: AgentProcess, chain: Chain) -> tuple[int, str]:
    """The exit status and the output of `explain --routes` for the pod `two`."""
    conf = agent.directory / "explain.conf"
    conf.write_text(json.dumps({"name": chain.name, "type": "coordinator", **chain.coordinator}))
    done = subprocess.run(
        [*PROGRAM, "explain", "default/two", "--routes", "--conf", str(conf), "--data", str(agent.data)],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def _cables() -> None:
    """Three segments behind the node, one router on all, and a client beyond it."""
    cable()
    for number in (1, 2):
        peer = ("peer", "name", f"fabric{number}", "netns", "outside")
        run("ip", "link", "add", f"uplink{number}", "type", "veth", *peer)
        run("ip", "link", "set", f"uplink{number}", "up")
    run("ip", "netns", "add", "far")
    script = (
        "ip link set fabric1 up; ip addr add 10.7.0.1/16 dev fabric1;"
        "ip link set fabric2 up; ip addr add 10.8.0.1/16 dev fabric2;"
        "ip link add far0 type veth peer name far1 netns far; ip addr add 192.0.2.1/24 dev far0; ip link set far0 up;"
        "nsenter --net=/run/netns/far sh -c 'ip link set far1 up; ip addr add 192.0.2.2/24 dev far1;"
        " ip route add default via 192.0.2.1'"
    )
    run("nsenter", "--net=/run/netns/outside", "sh", "-c", script)


def from_multus_config(kind: str, name: str, section: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The plugins of the network that the controller makes of a SpiderMultusConfig."""
    obj = multus_config({"cniType": kind, kind: section}, name, {"multus.spidernet.io/cni-version": "1.0.0"})
    made = cni_configuration(MultusConfig.from_object(obj))
    assert made is not None
    plugins: list[dict[str, Any]] = made["plugins"]
    assert plugins[-1] == {"type": "coordinator"}
    return plugins


def _chains(agent: AgentProcess, plugins: Path, conf: Mapping[str, Any]) -> tuple[Chain, ...]:
    """A network on each segment, IPv4 alone, made from a SpiderMultusConfig."""
    last = {"serviceCIDR": SERVICES[:1], **conf}
    found = []
    for number, name in enumerate(("blue", "red", "green")):
        section = {"master": [f"uplink{number}"], "ippools": {"ipv4": [f"{name}-v4"]}}
        main = from_multus_config(MAIN, name, section)[0]
        main["ipam"] |= agent.ipam
        found.append(Chain(agent, plugins, main, last, name=name))
    return tuple(found)


def _two_nics(agent: AgentProcess, plugins: Path, **conf: Any) -> tuple[SandboxPod, tuple[Chain, Chain]]:
    _cables()
    agent.apply(RED)
    first, second, _ = _chains(agent, plugins, conf)
    pod = make("two")
    first.add(pod)
    second.add(make("two", "net1", pod.container))
    return pod, (first, second)


def default_on_second(agent: AgentProcess, plugins: Path) -> None:
    """The annotation puts the default route on the second NIC; a NIC that is not there is refused by name."""
    chosen = {"ipam.spidernet.io/default-route-nic": "net1", "k8s.v1.cni.cncf.io/networks": "red"}
    agent.apply(_pod_object("two", chosen))
    pod, chains = _two_nics(agent, plugins)
    assert "via 10.7.0.1 dev net1" in in_pod(pod, "ip", "route", "get", "198.51.100.1")
    found = in_pod(pod, "ip", "route", "get", "198.51.100.1", "from", "10.6.168.172")
    assert "via 10.6.0.1 dev eth0" in found, found
    for target in ("10.6.168.172", "10.7.168.173"):
        run("nsenter", "--net=/run/netns/far", "ping", "-n", "-c", "1", "-W", "5", target)
        run("ping", "-n", "-c", "1", "-W", "5", target)
    second = make("two", "net1", pod.container)
    second.result = {"ips": [{"address": "10.7.168.173/16"}]}
    there = snapshot(pod)
    chains[1].again(second)
    assert snapshot(pod) == there
    agent.apply(_pod_object("two", {"ipam.spidernet.io/default-route-nic": "net7"}))
    with pytest.raises(OrbweaverError, match=r"net7.*eth0, net1"):
        chains[1].again(second)


def default_on_third(agent: AgentProcess, plugins: Path) -> None:
    """The third NIC is chosen before it exists, by the pod's annotation or by the configuration; a choice that the pod's
    list of networks does not name is refused at the first ADD."""
    _cables()
    agent.apply(RED, GREEN)
    for name, choice in (("by-pod", {"ipam.spidernet.io/default-route-nic": "net2"}), ("by-conf", {})):
        agent.apply(_pod_object(name, {**choice, "k8s.v1.cni.cncf.io/networks": "red, green"}))
        conf = {} if choice else {"podDefaultRouteNic": "net2"}
        chains = _chains(agent, plugins, conf)
        pod = make(name)
        pods = [pod, make(name, "net1", pod.container), make(name, "net2", pod.container)]
        for chain, nic in zip(chains, pods, strict=True):
            chain.add(nic)
        assert "via 10.8.0.1 dev net2" in in_pod(pod, "ip", "route", "get", "198.51.100.1")
        for nic, gateway in zip(pods, ("10.6.0.1", "10.7.0.1", "10.8.0.1"), strict=True):
            address = next(one for one in nic.addresses if "." in one).partition("/")[0]
            found = in_pod(pod, "ip", "route", "get", "198.51.100.1", "from", address)
            assert f"via {gateway} dev {nic.interface}" in found, found
            with capture(pod.netns, nic.interface) as seen:
                run("nsenter", "--net=/run/netns/far", "ping", "-n", "-c", "1", "-W", "5", address)
            assert ("out", address, "192.0.2.2") in seen, seen
            run("ping", "-n", "-c", "1", "-W", "5", address)
        there = snapshot(pod)
        for chain, nic in zip(chains, pods, strict=True):
            chain.again(nic)
            chain.networks()[1].call("CHECK", nic.environment(), {"prevResult": nic.result})
        assert snapshot(pod) == there
    agent.apply(_pod_object("never", {"ipam.spidernet.io/default-route-nic": "net3",
                                      "k8s.v1.cni.cncf.io/networks": "red, green"}))  # fmt: skip
    with pytest.raises(OrbweaverError, match=r"net3.*eth0, net1, net2"):
        _chains(agent, plugins, {})[0].add(make("never"))


def _pod_object(name: str, annotations: Mapping[str, str]) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "default", "annotations": dict(annotations)}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata}


def two_nodes(agent: AgentProcess, plugins: Path) -> None:
    """Pods of two nodes: they reach each other without a host between them, and both hosts reach both; a service address
    that one's host translates to the other answers; a client beyond the router is answered by the second interface of
    a pod on the other node."""
    _join_nodes()
    inside_node2 = ("nsenter", "--net=/run/netns/node2")
    there = AgentProcess(agent.directory / "node2", "--timeout", "120", wrapper=inside_node2)
    there.apply(
        pool("blue-v4", "10.6.0.0/16", "10.6.169.1-10.6.169.9", "10.6.0.1"),
        pool("blue-v6", "fd00:6::/64", "fd00:6::2:1-fd00:6::2:9", "fd00:6::1"),
        pool("red-v4", "10.7.0.0/16", "10.7.169.1-10.7.169.9", "10.7.0.1", default=False),
    )
    with there:
        here = Chain(agent, plugins, {"type": "macvlan", "master": "uplink0", "ipam": agent.ipam})
        far = Chain(
            there, plugins, {"type": "macvlan", "master": "uplink0", "ipam": there.ipam}, host="node2"
        )
        red = {**there.ipam, "default_ipv4_ippool": ["red-v4"]}
        second = Chain(
            there, plugins, {"type": "macvlan", "master": "uplink1", "ipam": red}, name="red", host="node2"
        )
        one, other = make("one"), make("other")
        here.add(one)
        far.add(other)
        second.add(make("other", "net1", other.container))
        mine, theirs = one.addresses[0].partition("/")[0], other.addresses[0].partition("/")[0]
        with capture(one.netns, "eth0") as eth0, capture(one.netns, "veth0") as veth:
            for target in (*other.addresses, "10.6.168.124", "fd00:6::124"):
                one.ping(target)
            other.ping(mine)
        assert {("out", mine, theirs), ("in", theirs, mine)} <= set(eth0), eth0
        assert not [packet for packet in veth if theirs in packet], veth
        for address in (*one.addresses, *other.addresses):
            bare = address.partition("/")[0]
            run("ping", "-n", "-c", "1", "-W", "5", bare)
            run(*inside_node2, "ping", "-n", "-c", "1", "-W", "5", bare)

        listener = serve_tcp(other, 8080)
        rules = "table ip nat { chain pre { type nat hook prerouting priority dstnat; "
        rules += f"ip daddr 10.96.0.10 tcp dport 80 dnat to {theirs}:8080; }}\n"
        rules += "chain post { type nat hook postrouting priority srcnat; ct status dnat masquerade; }\n}"
        run("sh", "-c", f"echo '{rules}' | nft -f -; echo 1 > /proc/sys/net/ipv4/ip_forward")
        assert ask_tcp(one.netns, "10.96.0.10", 80) == HOST
        listener.close()

        with capture(other.netns, "net1") as net1, capture(other.netns, "eth0") as eth0:
            run("nsenter", "--net=/run/netns/far", "ping", "-n", "-c", "1", "-W", "5", "10.7.169.1")
            one.ping("10.7.169.1")
        assert {("out", "10.7.169.1", "192.0.2.2"), ("out", "10.7.169.1", mine)} <= set(net1), net1
        assert not [packet for packet in eth0 if "10.7.169.1" in packet], eth0


def _join_nodes() -> None:
    """This node and node2 on two segments, a router on both, and a client beyond it."""
    run("mount", "-t", "tmpfs", "tmpfs", "/run")
    run("ip", "link", "set", "lo", "up")
    for name in ("outside", "node2", "far"):
        run("ip", "netns", "add", name)
    outside = ["ip link set lo up; echo 1 > /proc/sys/net/ipv4/ip_forward"]
    for number in (0, 1):
        subnet = 6 + number
        outside.append(f"ip link add br{number} type bridge; ip addr add 10.{subnet}.0.1/16 dev br{number}")
        for node, port in (((), f"near{number}"), (("netns", "node2"), f"away{number}")):
            peer = ("type", "veth", "peer", "name", port, "netns", "outside")
            run("ip", "link", "add", f"uplink{number}", *node, *peer)
            outside.append(f"ip link set {port} master br{number} up")
        outside.append(f"ip link set br{number} up")
    outside += [
        "ip addr add fd00:6::1/64 dev br0 nodad",
        "ip link add far0 type veth peer name far1 netns far; ip addr add 192.0.2.1/24 dev far0; ip link set far0 up",
    ]
    run("nsenter", "--net=/run/netns/outside", "sh", "-ec", "; ".join(outside))
    client = "ip link set far1 up; ip addr add 192.0.2.2/24 dev far1; ip route add default via 192.0.2.1"
    run("nsenter", "--net=/run/netns/far", "sh", "-ec", client)
    for host, addresses in ((None, (HOST, HOST6)), ("node2", ("10.6.168.124", "fd00:6::124"))):
        with within(host):
            run("ip", "link", "set", "lo", "up")
            for number in (0, 1):
                run("ip", "link", "set", f"uplink{number}", "up")
            run("ip", "addr", "add", f"{addresses[0]}/16", "dev", "uplink0")
            run("ip", "addr", "add", f"{addresses[1]}/64", "dev", "uplink0", "nodad")


def advertised(agent: AgentProcess, plugins: Path) -> None:
    """The second NIC gets an IPv6 address from a router after its ADD: it has rules, the router's default route is in its
    table and does not come back to the main one, a client beyond the router is answered by that NIC, and the host
    reaches the address."""
    _cables()
    agent.apply(RED)
    first, second, _ = _chains(agent, plugins, {})
    dual = {**agent.ipam, "default_ipv4_ippool": ["blue-v4"], "default_ipv6_ippool": ["blue-v6"]}
    first.main = {**first.main, "ipam": dual}
    pod = make("slaac")
    other = make("slaac", "net1", pod.container)
    first.add(pod)
    second.add(other)
    prepare = (
        "ip addr add fd00:7::1/64 dev fabric1 nodad; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding;"
        "ip addr add 2001:db8::1/64 dev far0 nodad; nsenter --net=/run/netns/far sh -c"
        " 'ip addr add 2001:db8::2/64 dev far1 nodad; ip -6 route add default via 2001:db8::1'"
    )
    run("nsenter", "--net=/run/netns/outside", "sh", "-ec", prepare)

    def address() -> str:
        found = in_pod(pod, "ip", "-6", "-br", "addr", "show", "net1", "scope", "global").split()
        return found[2].partition("/")[0] if len(found) > 2 else ""

    def ruled() -> None:
        advertise("outside", "fabric1", "fd00:7::")
        assert f"from {address() or '?'} lookup 100" in in_pod(pod, "ip", "-6", "rule")

    eventually(ruled)
    for _ in range(3):
        advertise("outside", "fabric1", "fd00:7::")
    mine = address()
    defaults = in_pod(pod, "ip", "-6", "route", "show", "default", "table", "all").splitlines()
    assert [line for line in defaults if "dev net1" in line and "table 100" not in line] == [], defaults
    assert "dev net1" in in_pod(pod, "ip", "-6", "route", "get", "2001:db8::2", "from", mine)
    assert "dev eth0" in in_pod(pod, "ip", "-6", "route", "get", "2001:db8::2")
    with capture(pod.netns, "net1") as net1, capture(pod.netns, "eth0") as eth0:
        run("nsenter", "--net=/run/netns/far", "ping", "-n", "-c", "1", "-W", "5", mine)
    assert ("out", mine, "2001:db8::2") in net1, net1
    assert not [packet for packet in eth0 if mine in packet], eth0

    def reached_by_the_host() -> None:
        assert mine in run("ip", "-6", "route", "show", "table", "500")

    eventually(reached_by_the_host)
    run("ping", "-n", "-c", "3", "-W", "5", mine)
    there = snapshot(pod)
    for chain, nic in ((first, pod), (second, other)):
        chain.again(nic)
        chain.networks()[1].call("CHECK", nic.environment(), {"prevResult": nic.result})
    assert [line for line in snapshot(pod).splitlines() if "expires" not in line] == [
        line for line in there.splitlines() if "expires" not in line
    ]
    second.networks()[1].call("DEL", other.environment(), {"prevResult": other.result})
    assert mine not in in_pod(pod, "ip", "-6", "rule")
    assert mine not in run("ip", "-6", "route", "show", "table", "500")


def claimed(agent: AgentProcess, plugins: Path) -> None:
    """A pod with NET_ADMIN gives itself addresses: the host's traffic to them does not go to the pod, nor does the pod's
    end take away another pod's way."""
    cable()
    chain = Chain(agent, plugins, {"type": "macvlan", "master": "uplink0", "ipam": agent.ipam})
    pod, other = make("claims"), make("other")
    chain.add(pod)
    chain.add(other)
    for_life = ("valid_lft", "1000", "preferred_lft", "1000")
    theirs = [address.partition("/")[0] for address in other.addresses]
    claims = ("198.51.100.7/32", "2001:db8:dead::7/64", "2001:db8:bad::7/64", f"{theirs[1]}/64", f"{HOST6}/64",
              f"{theirs[0]}/32")  # fmt: skip
    before = routes_to_pods()
    advertise("claims", "eth0", "2001:db8:bad::")  # which goes out by uplink0, and does not come in there
    for claim in claims:
        in_pod(
            pod, "ip", "addr", "add", claim, "dev", "eth0", *(("nodad", *for_life) if ":" in claim else ())
        )
    eventually(lambda: said(agent, "planning it again"))
    for _ in range(2):
        chain.again(pod)
        chain.check(pod)
    assert routes_to_pods() == before
    assert "198.51.100.7" not in run("ip", "route", "show", "table", "all")
    chain.delete(pod)
    assert [route for route in before if any(route.startswith(one) for one in theirs)] == routes_to_pods()
    run("ping", "-n", "-c", "1", "-W", "5", theirs[0])


def vandal(agent: AgentProcess, plugins: Path) -> None:
    """A pod with NET_ADMIN fills its namespace with what can hardly be read: names of bytes that are no text, addresses of
    which all have one hash, routes and rules of every kind. Others are served as ever, and its own DEL succeeds."""
    cable()
    chain = Chain(agent, plugins, {"type": "macvlan", "master": "uplink0", "ipam": agent.ipam})
    pod, other = make("vandal"), make("other")
    chain.add(pod)
    for batch in VANDALISM:
        subprocess.run(
            ["nsenter", f"--net={pod.netns}", "ip", "-force", "-batch", "-"],
            input="\n".join(batch).encode(),
            check=False,
        )
    names = "b'd7'.ljust(16, b'\\0') + b'\\xff\\xfe'.ljust(16, b'\\0')"
    rename = f"import fcntl, socket; s = socket.socket(); fcntl.ioctl(s, 0x8923, {names})"  # SIOCSIFNAME
    in_pod(pod, sys.executable, "-c", rename)
    later = make("vandal", "net1", pod.container)
    _outcome(lambda: chain.again(pod))
    _outcome(lambda: chain.check(pod))
    _outcome(lambda: chain.add(later))
    chain.add(other)
    chain.check(other)
    run("ping", "-n", "-c", "1", "-W", "5", other.addresses[0].partition("/")[0])
    chain.delete(other)
    chain.delete(pod)
    assert "Traceback" not in agent.log.read_text()


_MODULUS = (1 << 61) - 1


def _same_hash(count: int) -> Iterator[str]:
    for number in range(1, count + 1):
        value = (0xFD000066 << 96) + number * _MODULUS
        yield socket.inet_ntop(socket.AF_INET6, value.to_bytes(16, "big"))


VANDALISM = (
    [f"link add d{number} type veth peer name e{number}" for number in range(100)],
    [
        f"addr add {address}/128 dev eth0 nodad valid_lft 900 preferred_lft 900"
        for address in _same_hash(1500)
    ],
    [f"addr add 198.18.{number >> 8}.{number & 255}/32 dev eth0" for number in range(500)],
    [
        f"route add 198.19.{number >> 8}.{number & 255}/32 dev eth0 table {1 + number % 252}"
        for number in range(500)
    ],
    [f"route add fd00:99::{number:x} dev eth0 table {1 + number % 252}" for number in range(500)],
    [f"rule add pref {number} from 198.18.0.{number % 256} lookup {number}" for number in range(1, 1000)],
    [f"rule add pref {number} from fd00:77::{number:x} lookup {number}" for number in range(1, 500)],
    [
        f"neigh add 10.6.{number >> 8}.{number & 255} lladdr 02:00:00:00:00:01 nud permanent dev eth0"
        for number in range(500)
    ],
    [
        "nexthop add id 7 dev eth0",
        "nexthop add id 8 group 7",
        "route add 203.0.113.0/24 nhid 8",
        "route add blackhole 203.0.113.0/25",
        "route add unreachable 203.0.113.128/25",
        "route add prohibit 192.0.2.0/25 metric 4294967295",
        "route add fd00:55::/64 encap seg6 mode encap segs fd00::1,fd00::2 dev eth0",
        "route add 192.0.2.128/25 encap ip id 7 dst 10.6.0.9 dev eth0",
        "link add vx type vxlan id 5 dev eth0 dstport 4789",
        "link add br0 type bridge",
        "link add bond7 type bond",
        "link add vrf7 type vrf table 7",
        "link add v9 link eth0 type vlan id 9",
    ],
)


def routes_to_pods() -> list[str]:
    """The host's routes to its pods."""
    return sorted(
        line.strip()
        for family in ("-4", "-6")
        for line in run("ip", family, "route", "show", "table", "500").splitlines()
        if line.strip()
    )


def said(agent: AgentProcess, text: str) -> None:
    assert text in agent.log.read_text()


def advertise(netns: str, interface: str, prefix: str) -> None:
    """Send one router advertisement (RFC 4861 section 4.2) with a prefix for autonomous addresses."""
    with within(netns), socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as channel:
        index = socket.if_nametoindex(interface)
        channel.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        channel.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
        head = struct.pack(">BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0)
        option = struct.pack(">BBBBIII", 3, 4, 64, 0xC0, 86400, 14400, 0)
        channel.sendto(head + option + socket.inet_pton(socket.AF_INET6, prefix), ("ff02::1", 0, 0, index))


def service(agent: AgentProcess, plugins: Path) -> None:
    """A service address that the host translates to a pod answers from a pod, in both families; a connection that the
    host forwards unchanged through the veth is answered through the veth."""
    cable()
    chain = Chain(agent, plugins, {"type": "macvlan", "master": "uplink0", "ipam": agent.ipam})
    server, client = make("server"), make("client")
    for pod in (server, client):
        chain.add(pod)
    listener = serve_tcp(server, 8080)
    bare = [address.partition("/")[0] for address in server.addresses]
    rules = "table inet nat { chain pre { type nat hook prerouting priority dstnat; "
    rules += f"ip daddr 10.96.0.10 tcp dport 80 dnat ip to {bare[0]}:8080; "
    rules += f"ip6 daddr fd00:96::10 tcp dport 80 dnat ip6 to [{bare[1]}]:8080; }}\n"
    rules += "chain post { type nat hook postrouting priority srcnat; ct status dnat masquerade; }\n}"
    run("sh", "-c", f"echo '{rules}' | nft -f -")
    for path in ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"):
        Path("/proc/sys", path).write_text("1")
    for address in ("10.96.0.10", "fd00:96::10"):
        assert ask_tcp(client.netns, address, 80) in (HOST, HOST6)
    # From beyond the host, not masqueraded, as with externalTrafficPolicy Local: without the mark, eth0 would answer.
    run("ip", "link", "add", "branch0", "type", "veth", "peer", "name", "branch1")
    run("ip", "netns", "add", "branch")
    run("ip", "link", "set", "branch1", "netns", "branch")
    run("sh", "-c", "ip addr add 203.0.113.1/24 dev branch0; ip link set branch0 up")
    script = (
        "ip addr add 203.0.113.2/24 dev branch1; ip link set branch1 up; ip route add default via 203.0.113.1"
    )
    run("nsenter", "--net=/run/netns/branch", "sh", "-c", script)
    with capture(server.netns, "veth0") as veth, capture(server.netns, "eth0") as eth0:
        assert ask_tcp("/run/netns/branch", bare[0], 8080) == "203.0.113.2"
    assert ("out", bare[0], "203.0.113.2") in veth, veth
    assert not [packet for packet in eth0 if "203.0.113.2" in packet], eth0
    listener.close()


def bridge(agent: AgentProcess, plugins: Path) -> None:
    """The coordinator behind the bridge plugin."""
    cable()
    chain = Chain(agent, plugins, {"type": "bridge", "bridge": "br0", "ipam": agent.ipam})
    pods = [make("a"), make("b")]
    for pod in pods:
        chain.add(pod)
        run("ping", "-n", "-c", "1", "-W", "5", pod.addresses[0].partition("/")[0])
        pod.ping(HOST)
    pods[0].ping(pods[1].addresses[0])
    for pod in pods:
        # Not the bridge plugin's CHECK, which holds the bridge to the MAC that it had before it got its first port.
        chain.networks()[1].call("CHECK", pod.environment(), {"prevResult": pod.result})
        chain.delete(pod)


def options(agent: AgentProcess, plugins: Path) -> None:
    """MAC prefix, queue length, veth address and MTU, rp_filter, policy routes, and the mode disable."""
    cable()
    asked = {
        "podMACPrefix": "0a:1b", "txQueueLen": 2000, "vethLinkAddress": "169.254.100.1", "vethMTU": 1400,
        "podRPFilter": 2, "policyRoutes": [{"dst": "10.10.0.0/16", "gw": "10.6.0.1"}],
    }  # fmt: skip
    chain = Chain(agent, plugins, {"type": "macvlan", "master": "uplink0", "ipam": agent.ipam}, asked)
    pod = make("a")
    chain.add(pod)
    link = in_pod(pod, "ip", "link", "show", "eth0")
    octets = bytes(map(int, pod.addresses[0].partition("/")[0].split(".")))
    assert f"0a:1b:{octets.hex(':')}" in link, link
    assert "qlen 2000" in link, link
    veth = in_pod(pod, "ip", "addr", "show", "veth0")
    assert "169.254.100.1/32" in veth and "mtu 1400" in veth, veth
    assert in_pod(pod, "cat", "/proc/sys/net/ipv4/conf/eth0/rp_filter").strip() == "2"
    assert "10.10.0.0/16 via 10.6.0.1 dev eth0" in in_pod(pod, "ip", "route")
    for address in (HOST, HOST6):
        pod.ping(address)
    there = snapshot(pod)
    chain.again(pod)
    assert snapshot(pod) == there
    chain.coordinator = {**asked, "podRPFilter": 7}
    with pytest.raises(OrbweaverError, match="podRPFilter"):
        chain.again(pod)
    chain.coordinator = {"mode": "disable"}
    off = make("off")
    assert chain.add(off) == off.result
    assert "veth0" not in in_pod(off, "ip", "link")


def defaults(agent: AgentProcess, plugins: Path) -> None:
    """A SpiderCoordinator gives what the network leaves out, and a network outranks it."""
    cable()
    obj = {
        "apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": "SpiderCoordinator", "metadata": {"name": "default"},
        "spec": {"mode": "auto", "txQueueLen": 3000, "hijackCIDR": ["169.254.0.0/16"], "podMACPrefix": "0a:1b"},
    }  # fmt: skip
    agent.apply(obj)
    chain = Chain(agent, plugins, {"type": "macvlan", "master": "uplink0", "ipam": agent.ipam})
    chain.coordinator = {"serviceCIDR": [], "txQueueLen": 2000}
    pod = make("a")
    chain.add(pod)

    def made() -> None:
        chain.again(pod)
        assert "169.254.0.0/16 via 10.6.168.123 dev veth0" in in_pod(pod, "ip", "route")
        link = in_pod(pod, "ip", "link", "show", "eth0")
        assert "qlen 2000" in link and " 0a:1b:" in link, link

    eventually(made)
    agent.apply({**obj, "spec": {"mode": "disabled"}})
    numbers = iter(range(100))

    def left_alone() -> None:
        off = make(f"off{next(numbers)}")
        chain.add(off)
        try:
            assert "veth0" not in in_pod(off, "ip", "link")
        finally:
            chain.delete(off)  # the pool has fewer addresses than a slow agent may need attempts

    eventually(left_alone)


def new_cidrs(agent: AgentProcess, plugins: Path) -> None:
    """A CIDR that comes to the SpiderCoordinator reaches running pods, but for one that overlaps with a subnet of theirs;
    one that goes stays with them; new pods have what it says."""
    cable()
    obj = {
        "apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": "SpiderCoordinator", "metadata": {"name": "default"},
        "spec": {"mode": "auto", "hijackCIDR": ["169.254.0.0/16"]},
    }  # fmt: skip
    agent.apply(obj)
    chain = Chain(agent, plugins, {"type": "macvlan", "master": "uplink0", "ipam": agent.ipam})
    numbers = iter(range(100))

    def fresh() -> SandboxPod:
        pod = make(f"new{next(numbers)}")
        chain.add(pod)
        return pod

    def leads(pod: SandboxPod, *cidrs: str) -> None:
        routes = in_pod(pod, "ip", "route")
        assert [cidr for cidr in cidrs if f"{cidr} via {HOST} dev veth0" not in routes] == [], routes

    def knows() -> None:
        found.append(fresh())
        try:
            leads(found[-1], "169.254.0.0/16")
        except AssertionError:
            chain.delete(found.pop())
            raise

    found: list[SandboxPod] = []
    eventually(knows)
    pod, gone = found[0], fresh()
    chain.delete(gone)
    before = snapshot(pod)
    agent.apply(
        {**obj, "spec": {"mode": "auto", "hijackCIDR": ["169.254.0.0/16", "10.6.9.0/24", "10.233.0.0/16"]}}
    )
    eventually(lambda: leads(pod, "169.254.0.0/16", "10.233.0.0/16", SERVICES[0]))
    assert "10.6.9.0/24" not in in_pod(pod, "ip", "route")
    new = [line for line in snapshot(pod).splitlines() if line not in before.splitlines()]
    assert [line for line in new if "10.233.0.0/16" not in line] == []

    agent.apply({**obj, "spec": {"mode": "auto", "hijackCIDR": ["10.234.0.0/16"]}})
    eventually(lambda: leads(pod, "169.254.0.0/16", "10.233.0.0/16", "10.234.0.0/16"))
    late = fresh()
    leads(late, "10.234.0.0/16")
    assert "10.233.0.0/16" not in in_pod(late, "ip", "route")
    chain.delete(pod)


def stale(agent: AgentProcess, plugins: Path) -> None:
    """What an earlier pod with the same address left on the host gives way to the new pod."""
    cable()
    run("ip", "link", "add", "vethdead", "type", "veth", "peer", "name", "vethdead0")
    run("ip", "link", "set", "vethdead", "up")
    run("ip", "link", "set", "vethdead0", "up")
    run("ip", "rule", "add", "pref", "1000", "lookup", "500")
    run("ip", "rule", "add", "pref", "900", "to", "10.6.168.172", "lookup", "500")
    run("ip", "route", "add", "10.6.168.172/32", "dev", "vethdead", "scope", "link", "table", "500")
    run(
        "ip",
        "neigh",
        "add",
        "10.6.168.172",
        "dev",
        "vethdead",
        "lladdr",
        "02:00:00:00:00:99",
        "nud",
        "permanent",
    )
    chain = Chain(agent, plugins, {"type": "macvlan", "master": "uplink0", "ipam": agent.ipam})
    pod = make("a")
    chain.main = {**chain.main, "args": {"cni": {"ips": ["10.6.168.172"]}}}
    chain.add(pod)
    assert pod.addresses[0] == "10.6.168.172/16", pod.addresses
    run("ping", "-n", "-c", "1", "-W", "5", "10.6.168.172")
    assert "vethdead" not in run("ip", "route", "show", "table", "500")
    assert "10.6.168.172" not in run("ip", "neigh", "show", "dev", "vethdead")
    assert "10.6.168.172" not in run("ip", "rule")


def collect(agent: AgentProcess, plugins: Path) -> None:
    """CNI GC: the pair of a container that is gone goes with its routes; a further interface's route goes with the
    interface; what another network's pods have stays, and so does everything that is valid."""
    pod, chains = _two_nics(agent, plugins)
    other, lost = make("other"), make("lost")
    for one in (other, lost):
        chains[0].add(one)
    run("ip", "rule", "add", "pref", "900", "to", "10.6.168.250", "lookup", "500")
    before = _host()

    def gc(chain: Chain, *alive: SandboxPod) -> None:
        valid = [{"containerID": one.container, "ifname": one.interface} for one in alive]
        extra = {"cniVersion": "1.1.0", "cni.dev/valid-attachments": valid}
        chain.networks()[1].call("GC", {}, extra)

    gc(chains[0], pod, other, lost)
    assert _host() == [line for line in before if "10.6.168.250" not in line]
    before = _host()
    gc(chains[1])  # another network: its second interface is there still
    assert _host() == before
    in_pod(pod, "ip", "link", "del", "net1")
    gc(chains[1])
    assert _host() == [line for line in before if "10.7.168.173" not in line]
    before = _host()
    gc(chains[0], pod, other)
    assert _host() == [line for line in before if f"veth{lost.container[:11]}" not in line], (
        "only the lost container's"
    )
    in_pod(lost, "sh", "-c", "! ip link show veth0 2>/dev/null")
    for one in (pod, other):
        run("ping", "-n", "-c", "1", "-W", "5", next(a for a in one.addresses if "." in a).partition("/")[0])


def _outcome(call: Callable[[], object]) -> str:
    """ "ok", or the code of the error."""
    try:
        call()
    except OrbweaverError as error:
        return str(error.cni_code)
    return "ok"


def hung(agent: AgentProcess, plugins: Path) -> None:
    """Namespaces that do not answer end at the deadline with an error, and other pods do not wait for them; a killed
    worker is replaced; a namespace that vanished is an error at once."""
    cable()
    chain = Chain(agent, plugins, {"type": "macvlan", "master": "uplink0", "ipam": agent.ipam})
    fine = make("fine")
    chain.add(fine)
    os.mkfifo("/run/netns/hung")
    refused: list[str] = []

    def hang(number: int) -> None:
        pod = SandboxPod("hung", fine.network)
        pod.result = fine.result
        started = time.monotonic()
        try:
            chain.again(pod)
        except OrbweaverError as error:
            refused.append(f"{error} {error.cni_code}")
        assert time.monotonic() - started < TIMEOUT

    threads = [threading.Thread(target=hang, args=(number,), daemon=True) for number in range(5)]
    for thread in threads:
        thread.start()
    chain.add(make("other0"))  # no more of them: it is a matter of time
    assert any(thread.is_alive() for thread in threads), "the others waited for the hung ones"
    for number in range(1, 4):
        chain.add(make(f"other{number}"))
    for thread in threads:
        thread.join()
    assert len(refused) == 5, refused
    assert all(
        "default/hung" in text and "/run/netns/hung" in text and text.endswith(" 11") for text in refused
    ), refused
    workers = run("pgrep", "-P", str(agent.pid), "-f", "cni.dataplane.workers.worker").split()
    for pid in workers:
        with suppress(ProcessLookupError):  # one whose namespace hung ends by itself
            os.kill(int(pid), 9)
    outcomes: list[str] = []

    def served() -> None:
        outcomes.append(_outcome(lambda: chain.again(fine)))
        assert outcomes[-5:] == ["ok"] * 5, outcomes

    eventually(served)
    assert set(outcomes) <= {"ok", "11"}, outcomes
    gone = SandboxPod("gone", fine.network)
    gone.result = fine.result
    started = time.monotonic()
    with pytest.raises(OrbweaverError, match=r"default/gone.*") as missing:
        chain.again(gone)
    assert missing.value.cni_code == 3
    assert time.monotonic() - started < TIMEOUT / 2, "it waited for its deadline"


def overlay(agent: AgentProcess, plugins: Path) -> None:
    """The first interface is an overlay's veth, the second one macvlan: services and the host stay on the first, and
    the host reaches the second one through it; auto finds the mode."""
    cable()
    pod = make("mixed")
    script = (
        f"ip link add cali1 type veth peer name eth0 netns {pod.name}; ip link set cali1 up;"
        "echo 1 > /proc/sys/net/ipv4/conf/cali1/proxy_arp; ip route add 10.233.64.7 dev cali1"
    )
    run("sh", "-c", script)
    inner = (
        "ip link set eth0 up; ip addr add 10.233.64.7/32 dev eth0; ip route add 169.254.1.1 dev eth0;"
        "ip route add default via 169.254.1.1 dev eth0"
    )
    in_pod(pod, "sh", "-c", inner)
    only = {**agent.ipam, "default_ipv4_ippool": ["blue-v4"]}
    chain = Chain(
        agent, plugins, {"type": "macvlan", "master": "uplink0", "ipam": only},
        {"serviceCIDR": SERVICES[:1], "overlayPodCIDR": ["10.233.64.0/18"]}, name="blue",
    )  # fmt: skip
    second = make("mixed", "net1", pod.container)
    chain.add(second)
    address = next(one for one in second.addresses if "." in one)
    assert "veth0" not in in_pod(pod, "ip", "link")
    for target in ("10.233.64.7", address.partition("/")[0]):
        run("ping", "-n", "-c", "1", "-W", "5", target)
    in_pod(pod, "ping", "-n", "-c", "1", "-W", "5", HOST)
    assert "dev eth0" in in_pod(pod, "ip", "route", "get", "10.96.0.10")
    assert "dev net1" in in_pod(pod, "ip", "route", "get", "10.6.0.1")
    assert "dev eth0" in in_pod(pod, "ip", "route", "get", "10.6.0.1", "from", "10.233.64.7")
    there = snapshot(pod)
    chain.again(second)
    assert snapshot(pod) == there
    # Not macvlan's CHECK: it looks for the route to its subnet in the main table only.
    chain.networks()[1].call("CHECK", second.environment(), {"prevResult": second.result})
    chain.delete(second)
    assert address.partition("/")[0] not in run("ip", "route", "show", "table", "500")
    run("ping", "-n", "-c", "1", "-W", "5", "10.233.64.7")


def strangers(agent: AgentProcess, plugins: Path) -> None:
    """DEL with a path that has become the host's or another pod's, ADD with one, and an interface of the host that is
    merely named like ours: nothing is touched that is not the container's own."""
    cable()
    chain = Chain(agent, plugins, {"type": "macvlan", "master": "uplink0", "ipam": agent.ipam})
    last = chain.networks()[1]
    gone, alive = make("gone"), make("alive")
    for pod in (gone, alive):
        chain.add(pod)
    assert "lookup 500" in run("ip", "rule")
    there = snapshot(alive)
    own = f"/proc/{os.getpid()}/ns/net"
    paths = (own, "/proc/1/ns/net", "/proc/self/ns/net", alive.netns, "", "/run/netns/none", "/etc/hostname")

    # A container whose ADD another node, or an earlier boot, served; its address is another pod's by now.
    for path in paths:
        for interface in ("eth0", "net1"):
            lost = {"CNI_CONTAINERID": "lost", "CNI_IFNAME": interface, "CNI_NETNS": path}
            last.call("DEL", lost, {"prevResult": alive.result})
            last.call("DEL", lost)
            assert snapshot(alive) == there, (path, interface)

    # The path of a pod that is still there has become another's: what is its own on the host goes, and nothing else.
    last.call("DEL", {**gone.environment(), "CNI_NETNS": alive.netns}, {"prevResult": gone.result})
    assert "veth0" not in in_pod(gone, "ip", "link")
    left = run("ip", "route", "show", "table", "500")
    assert gone.addresses[0].partition("/")[0] not in left
    assert all(address.partition("/")[0] in left + run("ip", "-6", "route", "show", "table", "500")
               for address in alive.addresses)  # fmt: skip
    run("ping", "-n", "-c", "1", "-W", "5", alive.addresses[0].partition("/")[0])
    chain.check(alive)

    # ADD and CHECK in a namespace that is not the container's are refused, and change nothing.
    there, new = snapshot(alive), make("new")
    for network in chain.networks():
        for path in (own, alive.netns) if network is last else (own,):
            asked = {**new.environment(), "CNI_NETNS": path}
            ipam = network is not last and {"type": "spiderpool"}
            caller = CniNetwork({**network.conf, **(ipam or {})}, network.plugins)
            with pytest.raises(OrbweaverError, match="CNI_NETNS") as refused:
                caller.call("ADD", asked, {"prevResult": gone.result} if network is last else None)
            assert refused.value.cni_code == 4
    with pytest.raises(OrbweaverError, match="own network namespace"):
        last.call("CHECK", {**alive.environment(), "CNI_NETNS": own}, {"prevResult": alive.result})
    assert snapshot(alive) == there

    # Interfaces of somebody else's that have the name of a container's pair.
    run("ip", "link", "add", "vethdocker", "type", "veth", "peer", "name", "other0")
    new.container = "docker"
    chain.delete(new)
    with pytest.raises(OrbweaverError, match="vethdocker"):
        chain.add(new)
    chain.delete(new)
    assert "vethdocker" in run("ip", "link")
    assert "lookup 500" in run("ip", "rule")


def link_local_gateway(agent: AgentProcess, plugins: Path) -> None:
    """The router of both segments is fe80::1, as usual with IPv6: the pod's default route leads there by its first NIC, and
    what was asked by the second one is answered by that, through the router of the same address on its link."""
    _cables()
    lines = [
        "echo 1 > /proc/sys/net/ipv6/conf/all/forwarding",
        *(f"ip addr add fe80::1/64 dev fabric{number} nodad" for number in (0, 1)),
        "ip addr add fd00:7::1/64 dev fabric1 nodad",
        "ip addr add fd00:f::1/64 dev far0 nodad",
        "nsenter --net=/run/netns/far ip addr add fd00:f::2/64 dev far1 nodad",
        "nsenter --net=/run/netns/far ip route add default via fd00:f::1",
    ]
    run("nsenter", "--net=/run/netns/outside", "sh", "-ec", "; ".join(lines))
    agent.apply(  # pools of new names: the agent may have an older word of those that it knows
        pool("near-v6", "fd00:6::/64", "fd00:6::50-fd00:6::60", "fe80::1", default=False),
        pool("next-v6", "fd00:7::/64", "fd00:7::10-fd00:7::40", "fe80::1", default=False),
    )
    chains = []
    for number, name in enumerate(("near", "next")):
        ipam = {**agent.ipam, "default_ipv4_ippool": [], "default_ipv6_ippool": [f"{name}-v6"]}
        main = {"type": MAIN, "master": f"uplink{number}", "ipam": ipam}
        chains.append(
            Chain(agent, plugins, main, {"serviceCIDR": SERVICES[1:], "detectGateway": True}, name=name)
        )
    pod = make("two")
    second = make("two", "net1", pod.container)
    chains[0].add(pod)
    chains[1].add(second)

    told = [(route["dst"], route.get("gw")) for route in pod.result["routes"]]
    assert ("::/0", "fe80::1") in told, pod.result
    assert "via fe80::1 dev eth0" in in_pod(pod, "ip", "-6", "route", "get", "fd00:f::2")
    in_pod(pod, "ping", "-n", "-c", "1", "-W", "5", "fd00:f::2")
    source = second.addresses[0].partition("/")[0]
    found = in_pod(pod, "ip", "-6", "route", "get", "fd00:f::2", "from", source)
    assert "via fe80::1 dev net1" in found, found
    run("nsenter", "--net=/run/netns/far", "ping", "-n", "-c", "1", "-W", "5", source)
    there = snapshot(pod)
    chains[0].check(pod)
    # The main plugin's own CHECK looks for the gateway in the main table, where a second NIC has none.
    chains[1].networks()[1].call("CHECK", second.environment(), {"prevResult": second.result})
    for chain, nic in zip(chains, (pod, second), strict=True):
        chain.again(nic)
    assert snapshot(pod) == there


STORIES: dict[str, Callable[[AgentProcess, Path], None]] = {
    story.__name__: story
    for story in (
        reach,
        uninstalled,
        seeds,
        default_on_second,
        default_on_third,
        two_nodes,
        advertised,
        claimed,
        vandal,
        service,
        bridge,
        options,
        defaults,
        new_cidrs,
        stale,
        collect,
        hung,
        overlay,
        strangers,
        link_local_gateway,
    )
}


def main() -> None:
    name, directory, plugins = sys.argv[1:]
    # A worker process takes ten seconds to start where the machine is slow, as in User-Mode Linux.
    agent = AgentProcess(Path(directory), "--timeout", str(TIMEOUT if name == "hung" else 120))
    agent.apply(V4, V6)
    with agent:
        STORIES[name](agent, Path(plugins))


if __name__ == "__main__":
    main()
