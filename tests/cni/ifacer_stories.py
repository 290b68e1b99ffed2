"""What `ifacer` does with a card of its own. Runs in a sandbox: `python tests/cni/ifacer_stories.py DIRECTORY`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[2]))

import pytest

from actors.errors import OrbweaverError
from cni.sandbox import Network, lay_cable, run
from tests.agent_process import AgentProcess


def network(agent: AgentProcess, version: str = "1.1.0", **conf: Any) -> Network:
    base = {"cniVersion": version, "name": "blue", "type": "ifacer"}
    return Network({**base, "ipam_unix_socket_path": str(agent.socket), **conf}, (agent.plugins,))


POD = {
    "CNI_CONTAINERID": "c1",
    "CNI_NETNS": "/run/netns/none",
    "CNI_IFNAME": "eth0",
    "CNI_ARGS": "K8S_POD_NAMESPACE=default;K8S_POD_NAME=web",
}


def _links() -> dict[str, bool]:
    """Whether each is up, as it was told; not its carrier, which follows in its own time."""
    return {one["ifname"]: "UP" in one["flags"] for one in json.loads(run("ip", "-j", "link"))}


def one_card(directory: Path) -> None:
    lay_cable("uplink0")
    lay_cable("uplink1", "fabric1")
    run("ip", "addr", "add", "10.6.0.5/16", "dev", "uplink1")
    before = _links()
    with AgentProcess(directory) as agent:
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
            else:
                with pytest.raises(
                    OrbweaverError, match=rf"kernel does not support.*modprobe {module}"
                ) as no:
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


if __name__ == "__main__":
    one_card(Path(sys.argv[1]))
