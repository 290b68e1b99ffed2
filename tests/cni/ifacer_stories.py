"""Stories of `ifacer` with cards of its own. Each runs in a sandbox of its own:

python tests/cni/ifacer_stories.py STORY DIRECTORY CNI_BIN
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[2]))

import pytest

from actors.errors import OrbweaverError
from cni.command.sandbox import CniNetwork, lay_cable, run
from tests.cni.dataplane_stories import (
    HOST,
    HOST6,
    MAIN,
    V4,
    V6,
    Chain,
    capture,
    from_multus_config,
    make,
)
from tests.support.agent_process import AgentProcess

PATIENT = ("--timeout", "120")
"""For an agent on a machine on which a worker process takes ten seconds to start, as in User-Mode Linux."""
POD = {
    "CNI_CONTAINERID": "c1",
    "CNI_NETNS": "/run/netns/none",
    "CNI_IFNAME": "eth0",
    "CNI_ARGS": "K8S_POD_NAMESPACE=default;K8S_POD_NAME=web",
}


def network(agent: AgentProcess, version: str = "1.1.0", **conf: Any) -> CniNetwork:
    base = {"cniVersion": version, "name": "blue", "type": "ifacer"}
    return CniNetwork({**base, "ipam_unix_socket_path": str(agent.socket), **conf}, (agent.plugins,))


def _links() -> dict[str, bool]:
    """Whether each is up, as it was told; not its carrier, which follows in its own time."""
    return {one["ifname"]: "UP" in one["flags"] for one in json.loads(run("ip", "-j", "link"))}


def own_cards(agent: AgentProcess, plugins: Path) -> None:
    """What would cut the node off is refused and leaves the card as it was; a kernel without VLANs or bonds is named as
    the reason, and nothing half made stays."""
    lay_cable("uplink0")
    lay_cable("uplink1", "fabric1")
    run("ip", "addr", "add", "10.6.0.5/16", "dev", "uplink1")
    before = _links()
    two = network(agent, interfaces=["uplink0", "uplink1"], bond={"name": "bond0", "mode": 1})
    with pytest.raises(
        OrbweaverError, match=r"uplink1 cannot.*has the address 10\.6\.0\.5/16.*off the network"
    ):
        two.call("ADD", POD)
    run("ip", "addr", "flush", "dev", "uplink1")
    for wanted, kind, module in (
        (network(agent, interfaces=["uplink0"], vlanID=5), "vlan", "8021q"),
        (two, "bond", "bonding"),
    ):
        if _has(kind):
            wanted.call("ADD", POD)
            wanted.call("CHECK", POD, {"prevResult": {}})
            run("ip", "link", "delete", "uplink0.5" if kind == "vlan" else "bond0")
        else:
            with pytest.raises(OrbweaverError, match=rf"kernel does not support.*modprobe {module}") as no:
                wanted.call("ADD", POD)
            assert no.value.cni_code == 5
            with pytest.raises(OrbweaverError, match=r"there is no (VLAN interface|bond)"):
                wanted.call("CHECK", POD, {"prevResult": {}})
            assert _links() == before


def _has(kind: str) -> bool:
    on = ("link", "uplink1") if kind == "vlan" else ()
    tail = ("id", "9") if kind == "vlan" else ()
    probe = ("ip", "link", "add", *on, "name", "probe0", "type", kind, *tail)
    if subprocess.run(probe, capture_output=True, check=False).returncode:
        return False
    run("ip", "link", "delete", "probe0")
    return True


def vlan_of_a_bond(agent: AgentProcess, plugins: Path) -> None:
    """Two cards to one switch, with the network in VLAN 100, as a SpiderMultusConfig says it. Pods reach each other, the
    host and the gateway, in both families, by tagged frames; they still do when one card loses its cable."""
    _switch()
    bond = {"name": "bond0", "mode": 1, "options": "miimon=50;primary=uplink0"}
    section = {"master": ["uplink0", "uplink1"], "vlanID": 100, "bond": bond}
    ifacer, main, _ = from_multus_config(MAIN, "blue", section)
    first = network(agent, "1.0.0", **ifacer)
    chain = Chain(agent, plugins, {**main, "ipam": main["ipam"] | agent.ipam})
    pods = [make("a"), make("b")]
    for pod in pods:
        result = first.call("ADD", pod.environment())
        assert result["interfaces"] == [{"name": "bond0.100"}]
        assert chain.add(pod) == pod.result
    gateways = ("10.6.0.1", "fd00:6::1")
    for one, other in (pods, reversed(pods)):
        for address in (*other.addresses, HOST, HOST6):
            one.ping(address)
    with capture("/run/netns/outside", "switch.100") as tagged:
        for gateway in gateways:
            pods[0].ping(gateway)
    address = pods[0].addresses[0].partition("/")[0]
    assert ("in", address, "10.6.0.1") in tagged, tagged
    run("nsenter", "--net=/run/netns/outside", "ip", "link", "set", "fabric0", "down")
    for gateway in gateways:
        run("nsenter", f"--net={pods[0].netns}", "ping", "-n", "-c", "1", "-w", "20", "-W", "1", gateway)
    for pod in pods:
        first.call("CHECK", pod.environment(), {"prevResult": pod.result})
        chain.check(pod)
        chain.delete(pod)
        first.call("DEL", pod.environment())
    assert _links()["bond0.100"]


def _switch() -> None:
    """Outside: a bridge with both cables, and the gateway in VLAN 100. The node's own addresses are on no card."""
    lay_cable("uplink0")
    run("ip", "netns", "add", "outside")
    run("ip", "link", "add", "uplink1", "type", "veth", "peer", "name", "fabric1")
    inner = "ip link add switch type bridge; ip link add link switch name switch.100 type vlan id 100;"
    for number in (0, 1):
        run("ip", "link", "set", f"fabric{number}", "netns", "outside")
        inner += f"ip link set fabric{number} up master switch;"
    inner += (
        "ip link set switch up; ip link set switch.100 up; ip addr add 10.6.0.1/16 dev switch.100;"
        "ip addr add fd00:6::1/64 dev switch.100 nodad"
    )
    run("nsenter", "--net=/run/netns/outside", "sh", "-ec", inner)
    run("ip", "link", "add", "node0", "type", "dummy")
    script = f"ip link set node0 up; ip addr add {HOST}/32 dev node0; ip addr add {HOST6}/128 dev node0 nodad"
    run("sh", "-ec", script)


STORIES: dict[str, Callable[[AgentProcess, Path], None]] = {
    story.__name__: story for story in (own_cards, vlan_of_a_bond)
}


def main() -> None:
    name, directory, plugins = sys.argv[1:]
    agent = AgentProcess(Path(directory), *PATIENT)
    agent.apply(V4, V6)
    with agent:
        STORIES[name](agent, Path(plugins))


if __name__ == "__main__":
    main()
