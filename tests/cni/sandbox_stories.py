"""Stories with real plugins in real network namespaces. Each runs in a sandbox of its own:

    python tests/cni/sandbox_stories.py STORY DIRECTORY CNI_BIN [CNITOOL]

It exits with 0 when everything it says came true. `test_reference_plugins.py` starts them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[2]))

import pytest

from actors.errors import OrbweaverError
from cni.command.sandbox import CniNetwork, SandboxPod, lay_cable, run
from tests.support.agent_process import AgentProcess, pool

UPLINK = "uplink0"
V4 = pool("blue-v4", "10.6.0.0/16", "10.6.1.10-10.6.1.40", "10.6.0.1")
V6 = pool("blue-v6", "fd00:6::/64", "fd00:6::10-fd00:6::40", "fd00:6::1")


def _network(agent: AgentProcess, plugins: Path, version: str = "1.0.0", **conf: Any) -> CniNetwork:
    base = {"cniVersion": version, "name": "blue", "ipam": agent.ipam}
    return CniNetwork({**base, **conf}, (plugins, agent.plugins))


def _meet(agent: AgentProcess, first: SandboxPod, second: SandboxPod) -> None:
    """Two pods start, reach each other over both families, pass CHECK, and leave nothing behind."""
    for pod in (first, second):
        pod.start()
    assert not set(first.addresses) & set(second.addresses)
    for one, other in ((first, second), (second, first)):
        assert len(other.addresses) == 2, other.addresses
        for address in other.addresses:
            one.ping(address)
        inside = run("nsenter", f"--net={one.netns}", "ip", "-o", "addr", "show", "dev", "eth0")
        assert all(address in inside for address in one.addresses), inside
        one.check()
    recorded = {ip for pod in (first, second) for ip in (one.partition("/")[0] for one in pod.addresses)}
    assert set(agent.records()) == recorded
    for pod in (first, second):
        pod.stop()
        # A runtime may repeat it (CNI spec, "DEL"). To our plugin alone: host-device itself fails without the interface.
        CniNetwork({**pod.network.conf, "type": "spiderpool"}, pod.network.plugins).call(
            "DEL", pod.environment()
        )
    assert agent.records() == {}


def macvlan(agent: AgentProcess, plugins: Path, _: Path | None) -> None:
    """The main plugin of underlay networks, in the oldest and the newest version of the specification."""
    lay_cable(UPLINK)
    for version in ("0.3.1", "0.4.0", "1.0.0"):
        network = _network(
            agent, plugins, "0.4.0" if version == "0.3.1" else version, type="macvlan", master=UPLINK
        )
        if version == "0.3.1":
            network = _network(agent, plugins, version, type="macvlan", master=UPLINK)
            pod = SandboxPod("old", network)
            assert len(pod.start()) == 2
            pod.stop()
        else:
            _meet(agent, SandboxPod("a", network), SandboxPod("b", network))
    routes = _default_routes(agent, plugins)
    assert routes == {"default via 10.6.0.1", "default via fd00:6::1"}, routes


def _default_routes(agent: AgentProcess, plugins: Path) -> set[str]:
    pod = SandboxPod("routed", _network(agent, plugins, type="macvlan", master=UPLINK))
    pod.start()
    lines = [
        line
        for family in ("-4", "-6")
        for line in run(
            "nsenter", f"--net={pod.netns}", "ip", family, "route", "show", "default"
        ).splitlines()
    ]
    pod.stop()
    return {" ".join(line.split()[:3]) for line in lines}


def bridge(agent: AgentProcess, plugins: Path, _: Path | None) -> None:
    """The bridge plugin takes the pool's gateway for the bridge itself."""
    lay_cable(UPLINK)
    network = _network(agent, plugins, type="bridge", bridge="br0", isGateway=True)
    _meet(agent, SandboxPod("a", network), SandboxPod("b", network))
    pod = SandboxPod("c", network)
    pod.start()
    for gateway in ("10.6.0.1", "fd00:6::1"):
        pod.ping(gateway)
    pod.stop()


def host_device(agent: AgentProcess, plugins: Path, _: Path | None) -> None:
    """Interfaces of the host move into the pods, as SR-IOV virtual functions do."""
    lay_cable(UPLINK)
    run("ip", "link", "add", "switch0", "type", "bridge")
    run("ip", "link", "set", "switch0", "up")
    networks = []
    for name in ("vf0", "vf1"):
        run("ip", "link", "add", name, "type", "veth", "peer", "name", f"{name}p")
        run("ip", "link", "set", f"{name}p", "master", "switch0", "up")
        networks.append(_network(agent, plugins, type="host-device", device=name))
    _meet(agent, SandboxPod("a", networks[0]), SandboxPod("b", networks[1]))


def two_interfaces(agent: AgentProcess, plugins: Path, _: Path | None) -> None:
    """A pod names pools for two interfaces: the first ADD reserves both, the second finds its own."""
    lay_cable(UPLINK)
    agent.apply(pool("red-v4", "10.7.0.0/16", "10.7.1.10-10.7.1.20", "10.7.0.1", default=False))
    pools = [
        {"interface": "eth0", "ipv4": ["blue-v4"]},
        {"interface": "net1", "ipv4": ["red-v4"], "cleangateway": True},
    ]
    agent.apply(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": "two",
                "namespace": "default",
                "annotations": {"ipam.spidernet.io/ippools": json.dumps(pools)},
            },
        }
    )
    first = SandboxPod("two", _network(agent, plugins, type="macvlan", master=UPLINK))
    first.start()
    assert sorted(agent.records()) == ["10.6.1.10", "10.7.1.10"]
    red = CniNetwork({**first.network.conf, "name": "red"}, first.network.plugins)
    second = SandboxPod("two", red, interface="net1", container=first.container)
    result = red.call("ADD", second.environment())
    assert [one["address"] for one in result["ips"]] == ["10.7.1.10/16"]
    assert result.get("routes", []) == [], result
    red.call("DEL", second.environment())
    first.stop()
    assert agent.records() == {}


def exhausted(agent: AgentProcess, plugins: Path, _: Path | None) -> None:
    """The last address is given out, the next pod is refused with every reason, and the main plugin cleans up."""
    lay_cable(UPLINK)
    agent.apply(pool("tiny", "10.8.0.0/24", "10.8.0.5", default=False))
    ipam = {**agent.ipam, "default_ipv4_ippool": ["tiny"]}
    network = CniNetwork(
        {**_network(agent, plugins, type="macvlan", master=UPLINK).conf, "ipam": ipam},
        (plugins, agent.plugins),
    )
    only = SandboxPod("only", network)
    only.start()
    with pytest.raises(OrbweaverError, match=r"late") as refused:
        SandboxPod("late", network).start()
    assert "tiny" in str(refused.value)
    assert list(agent.records()) == ["10.8.0.5"]
    only.stop()
    assert agent.records() == {}


def cnitool(agent: AgentProcess, plugins: Path, tool: Path | None) -> None:
    """The reference client of the CNI project drives a list in version 1.1.0: STATUS, ADD, CHECK, DEL."""
    assert tool is not None
    lay_cable(UPLINK)
    conf = agent.directory / "net.d"
    conf.mkdir()
    plugin = {"type": "macvlan", "master": UPLINK, "ipam": agent.ipam}
    (conf / "10-blue.conflist").write_text(
        json.dumps({"cniVersion": "1.1.0", "name": "blue", "plugins": [plugin]})
    )
    environment = {
        **os.environ,
        "CNI_PATH": f"{plugins}:{agent.plugins}",
        "NETCONFPATH": str(conf),
        "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin",
        "CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAMESPACE=web;K8S_POD_NAME=tool",
    }

    def call(*arguments: str) -> str:
        done = subprocess.run(
            [tool, *arguments], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, (arguments, done.stdout, done.stderr)
        return done.stdout

    for name in ("one", "two"):
        run("ip", "netns", "add", name)
    call("status", "blue", "/run/netns/one")
    addresses = {}
    for name in ("one", "two"):
        result = json.loads(call("add", "blue", f"/run/netns/{name}"))
        assert result["cniVersion"] == "1.1.0"
        addresses[name] = [ip["address"].partition("/")[0] for ip in result["ips"]]
        call("check", "blue", f"/run/netns/{name}")
    for address in addresses["two"]:
        run("nsenter", "--net=/run/netns/one", "ping", "-n", "-c", "1", "-W", "5", address)
    assert sorted(agent.records()) == sorted(addresses["one"] + addresses["two"])

    # A sandbox goes behind the back of everybody, as all do when the host restarts: the agent finds it out.
    agent.stop()
    run("ip", "netns", "del", "two")
    agent.start()
    assert sorted(agent.records()) == sorted(addresses["one"])
    for name in ("one", "two"):
        for _ in range(2):
            call("del", "blue", f"/run/netns/{name}")
    assert agent.records() == {}


def garbage(agent: AgentProcess, plugins: Path, _: Path | None) -> None:
    """A container vanishes without DEL; GC of its network releases its addresses and no others."""
    lay_cable(UPLINK)
    network = _network(agent, plugins, "1.1.0", type="macvlan", master=UPLINK)
    stays, lost = SandboxPod("stays", network), SandboxPod("lost", network)
    other = SandboxPod("other", CniNetwork({**network.conf, "name": "another"}, network.plugins))
    for pod in (stays, lost, other):
        pod.start()
    lost.vanish()
    # To our plugin: the reference plugins take GC (1.9.1) and do not pass it on to the IPAM plugin, as they should.
    CniNetwork({**network.conf, "type": "spiderpool"}, network.plugins).call(
        "GC", {}, {"cni.dev/valid-attachments": [{"containerID": stays.container, "ifname": "eth0"}]}
    )
    assert {record["pod"] for record in agent.records().values()} == {"default/stays", "default/other"}


STORIES: dict[str, Callable[[AgentProcess, Path, Path | None], None]] = {
    story.__name__: story
    for story in (macvlan, bridge, host_device, two_interfaces, exhausted, garbage, cnitool)
}


def main() -> None:
    name, directory, plugins, *tool = sys.argv[1:]
    agent = AgentProcess(Path(directory), "--timeout", "120")
    agent.apply(V4, V6)
    with agent:
        STORIES[name](agent, Path(plugins), Path(tool[0]) if tool else None)


if __name__ == "__main__":
    main()
