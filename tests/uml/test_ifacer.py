"""The plugin `ifacer` with a kernel's real bonds and VLANs: shim, socket, worker, netlink."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.errors import OrbweaverError
from cni.command.sandbox import CniNetwork, run
from cni.dataplane.ifacer.apply import take
from cni.dataplane.ifacer.plan import CreateVlan
from cni.dataplane.netlink.links import add_link, delete_link, set_link
from cni.dataplane.netlink.rtnetlink import Netlink
from cni.uninstall.node import NodeCleanup, NodeDirectories, NodeOutcome
from tests.cni.ifacer_stories import PATIENT, POD, network
from tests.support.agent_process import AgentProcess


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    with AgentProcess(tmp_path_factory.mktemp("ifacer"), *PATIENT) as agent:
        yield agent


@pytest.fixture(autouse=True)
def cards() -> Iterator[None]:
    """Two cards, `nic0` down and `nic1` up; afterwards the host has none. Without programs, which start slowly here."""
    with Netlink() as host:
        host.send([add_link(name, "dummy") for name in ("nic0", "nic1")])
        host.send([set_link(name="nic1", up=True)])
        yield
        for namespace in Path("/run/netns").iterdir():
            run("ip", "netns", "del", namespace.name)
        host.send([delete_link(link.name) for link in host.links() if link.name != "lo"])
        assert [link.name for link in host.links()] == ["lo"]


def links() -> dict[str, dict[str, Any]]:
    return {one["ifname"]: one for one in json.loads(run("ip", "-j", "-d", "link"))}


def snapshot() -> dict[str, Any]:
    """What somebody configured; not the state of the links, which follows in its own time."""
    found = {}
    for name, link in links().items():
        info = link.get("linkinfo", {})
        data = {key: value for key, value in info.get("info_data", {}).items() if key not in _STATE}
        kept = {key: link.get(key) for key in ("address", "link", "master", "mtu")}
        found[name] = {**kept, "up": "UP" in link["flags"], "kind": info.get("info_kind"), "data": data}
    return found


_STATE = ("active_slave", "mii_status", "ad_info")


def is_up(name: str) -> bool:
    return "UP" in links()[name]["flags"]


def add(network: CniNetwork) -> Any:
    """ADD and CHECK; a second ADD changes nothing."""
    result = network.call("ADD", POD)
    network.call("CHECK", POD, {"prevResult": result})
    there = snapshot()
    assert network.call("ADD", POD) == result
    assert snapshot() == there
    return result


def bond(agent: AgentProcess, mode: int = 1, options: str = "", **conf: Any) -> CniNetwork:
    settings = {"name": "bond0", "mode": mode, "options": options}
    return network(agent, interfaces=["nic0", "nic1"], bond=settings, **conf)


def sysfs(name: str) -> str:
    return Path("/sys/class/net/bond0/bonding", name).read_text().strip()


def test_a_vlan(agent: AgentProcess):
    """It and its master come up; it is kept at DEL, brought up when it is down, and made anew when it is gone."""
    vlan = network(agent, interfaces=["nic0"], vlanID=100)
    assert add(vlan)["interfaces"] == [{"name": "nic0.100"}]
    made = links()["nic0.100"]
    assert (made["link"], made["linkinfo"]["info_data"]["id"]) == ("nic0", 100)
    assert is_up("nic0")
    assert is_up("nic0.100")
    vlan.call("DEL", POD)
    run("ip", "link", "set", "nic0.100", "down")
    with pytest.raises(OrbweaverError, match=r"nic0\.100 is not up"):
        vlan.call("CHECK", POD, {"prevResult": {}})
    vlan.call("ADD", POD)
    assert is_up("nic0.100")
    run("ip", "link", "del", "nic0.100")  # as after a reboot
    with pytest.raises(OrbweaverError, match=r"there is no VLAN interface nic0\.100"):
        vlan.call("CHECK", POD, {"prevResult": {}})
    add(vlan)


def test_another_interface_with_the_same_vlan_is_refused(agent: AgentProcess):
    network(agent, interfaces=["nic1"], vlanID=100).call("ADD", POD)
    before = snapshot()
    with pytest.raises(OrbweaverError, match=r"VLAN 100 is on this node already, as nic1\.100 on nic1"):
        network(agent, interfaces=["nic0"], vlanID=100).call("ADD", POD)
    assert snapshot() == before
    run("ip", "link", "add", "nic0.7", "type", "dummy")
    with pytest.raises(OrbweaverError, match=r"nic0\.7 already, which is dummy and not VLAN 7 on nic0"):
        network(agent, interfaces=["nic0"], vlanID=7).call("ADD", POD)


MODES = {
    0: ("balance-rr", "packets_per_slave=4;miimon=100"),
    1: ("active-backup", "primary=nic1;miimon=100;updelay=200;num_grat_arp=3"),
    2: ("balance-xor", "xmit_hash_policy=layer3+4;arp_interval=200;arp_ip_target=10.6.0.1,10.6.0.2"),
    3: ("broadcast", "resend_igmp=2;all_slaves_active=1"),
    4: ("802.3ad", "lacp_rate=fast;ad_select=bandwidth;ad_actor_system=02:00:00:00:00:01;miimon=100;min_links=1"),
    5: ("balance-tlb", "primary=nic0;tlb_dynamic_lb=0;lp_interval=5"),
    6: ("balance-alb", "fail_over_mac=none;primary_reselect=better;use_carrier=1"),
}  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
def test_a_bond(agent: AgentProcess, mode: int):
    """In each mode, with options; both members; and DEL keeps it."""
    word, options = MODES[mode]
    made = bond(agent, mode, options)
    assert add(made)["interfaces"] == [{"name": "bond0"}]
    assert sysfs("mode") == f"{word} {mode}"
    assert sysfs("slaves").split() == ["nic0", "nic1"]
    assert all(map(is_up, ("bond0", "nic0", "nic1")))
    for option in options.split(";"):
        name, _, value = option.partition("=")
        found = sysfs(name).split()
        assert set(value.split(",")) <= set(found), (name, value, found)
    made.call("DEL", POD)
    assert is_up("bond0")


def test_a_bond_with_other_settings_is_refused(agent: AgentProcess):
    bond(agent, 1, "miimon=100").call("ADD", POD)
    for mode, options, said in (
        (0, "", r"mode 1 \(active-backup\) and not 0"),
        (1, "miimon=200", r"miimon 100 and not 200"),
        (1, "primary=nic0", r"primary none and not nic0"),
    ):
        with pytest.raises(OrbweaverError, match=said):
            bond(agent, mode, options).call("ADD", POD)
    add(bond(agent, 1, "miimon=100"))


def test_a_vlan_on_a_bond(agent: AgentProcess):
    both = bond(agent, vlanID=7)
    assert add(both)["interfaces"] == [{"name": "bond0.7"}]
    assert links()["bond0.7"]["link"] == "bond0"
    assert is_up("bond0.7")
    with pytest.raises(OrbweaverError, match=r"nic1 belongs to the bond bond0.*take frames of VLAN 8"):
        network(agent, interfaces=["nic1"], vlanID=8).call("ADD", POD)


def test_what_would_cut_the_node_off_is_refused(agent: AgentProcess):
    """The card is not even taken down for a moment: its address, routes and MAC stay."""
    run("ip", "addr", "add", "10.6.0.5/16", "dev", "nic1")
    run("ip", "route", "add", "default", "via", "10.6.0.1")
    before = (snapshot(), run("ip", "route"))
    with pytest.raises(OrbweaverError, match=r"10\.6\.0\.5/16, carries the default route.*off the network"):
        bond(agent).call("ADD", POD)
    assert (snapshot(), run("ip", "route")) == before
    network(agent, interfaces=["nic1"], vlanID=9).call("ADD", POD)
    run("ip", "addr", "flush", "dev", "nic1")
    with pytest.raises(OrbweaverError, match=r"is what nic1\.9 stands on"):
        bond(agent).call("ADD", POD)


def test_a_bond_half_made_is_undone(agent: AgentProcess):
    """The second card carries a pod's macvlan in a namespace of its own, which only the kernel knows of: the bond goes,
    the first card gets its MAC, MTU and state back, the second one never goes down."""
    run("ip", "link", "set", "nic0", "mtu", "1400", "up")
    run("ip", "netns", "add", "pod")
    run("ip", "link", "add", "mac0", "link", "nic1", "type", "macvlan", "mode", "bridge")
    run("ip", "link", "set", "mac0", "netns", "pod")
    before = snapshot()
    with pytest.raises(
        OrbweaverError, match=r"cannot make nic1 a member of bond0: pods.*is undone"
    ) as refused:
        bond(agent, vlanID=7).call("ADD", POD)
    assert refused.value.cni_code == 5
    assert snapshot() == before
    run("ip", "netns", "del", "pod")
    add(bond(agent, vlanID=7))
    assert links()["bond0"]["mtu"] == 1400


def test_what_a_killed_worker_left_is_completed(agent: AgentProcess):
    half = ("type", "bond", "mode", "active-backup", "primary", "nic1")
    run("ip", "link", "add", "bond0", *half)
    run("ip", "link", "set", "nic0", "master", "bond0")
    add(bond(agent, 1, "primary=nic1", vlanID=7))
    assert sysfs("slaves").split() == ["nic0", "nic1"]


def test_many_pods_at_once(agent: AgentProcess):
    """Networks that share a bond, all on a host that has nothing yet."""
    failed: list[str] = []

    def one(number: int) -> None:
        try:
            bond(agent, 1, "miimon=100", vlanID=10 + number % 3).call("ADD", POD)
        except OrbweaverError as error:
            failed.append(str(error))

    threads = [threading.Thread(target=one, args=(number,), daemon=True) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert {name for name in links() if "." in name} == {"bond0.10", "bond0.11", "bond0.12"}
    assert all(is_up(name) for name in links())


# ---- and off the node again -------------------------------------------------------------------------------


def uninstall(directory: Path, *, dry: bool = False) -> NodeOutcome:
    """As `orbweaver uninstall node` does, which starts slowly here. Whoever may change interfaces may do it."""
    places = (directory / name for name in ("bin", "net.d", "sockets", "state"))
    outcome = NodeCleanup(NodeDirectories(*places)).run(print, dry=dry)
    assert outcome.failed == []
    return outcome


def test_uninstalling_takes_off_what_was_made(agent: AgentProcess, tmp_path: Path):
    """The bond and its VLAN, and a VLAN whose maker was killed before it marked it; what the node has itself stays, and is
    named. The cards are as before, but up: pods of before had them up too."""
    with Netlink() as host:
        host.send([set_link(name="nic0", up=True)])
        host.send([add_link("nic2", "dummy"), add_link("nic3", "dummy")])
        before = snapshot()
        bond(agent, vlanID=7).call("ADD", POD)
        take(host, CreateVlan("nic2.8", "nic2", 8), [])
        own = add_link("nic3.9", "vlan", [("IFLA_VLAN_ID", 9)], parent=links()["nic3"]["ifindex"])
        host.send([own])
    made = snapshot()
    assert links()["bond0"]["ifalias"] == "orbweaver ifacer of nic0 nic1"
    assert (links()["bond0.7"]["ifalias"], links()["bond0.7"]["group"]) == ("orbweaver ifacer", "default")

    would = uninstall(tmp_path, dry=True)
    assert snapshot() == made
    outcome = uninstall(tmp_path)

    assert outcome.removed == would.removed == ["vlan bond0.7", "bond bond0", "vlan nic2.8"]
    assert [line for line in outcome.left if "nic3.9; ifacer of Orbweaver 0.1.0 left no mark" in line]
    after = snapshot()
    assert after.pop("nic3.9")
    assert after == before
    assert uninstall(tmp_path).removed == []


def test_uninstalling_leaves_what_is_used(agent: AgentProcess, tmp_path: Path):
    """A pod in a namespace of its own stands on the VLAN, which only the kernel tells; then the host has an address on it."""
    network(agent, interfaces=["nic1"], vlanID=100).call("ADD", POD)
    run("ip", "netns", "add", "pod")
    run("ip", "link", "add", "mac0", "link", "nic1.100", "netns", "pod", "type", "macvlan", "mode", "bridge")
    Path("/run/netns/stale").touch()
    before = snapshot()

    outcome = uninstall(tmp_path)
    assert outcome.removed == []
    used = "it is what interfaces in other network namespaces stand on"
    remedy = "when that is over, repeat this command or remove it (ip link delete nic1.100)"
    assert outcome.left == [f"vlan nic1.100, which ifacer made: {used}; {remedy}"]
    run("ip", "netns", "del", "pod")
    run("ip", "addr", "add", "10.6.0.5/16", "dev", "nic1.100")
    assert "it has the address 10.6.0.5/16, carries the route to 10.6.0.0/16" in uninstall(tmp_path).left[0]
    assert snapshot() == before

    run("ip", "addr", "flush", "dev", "nic1.100")
    Path("/run/netns/stale").unlink()
    assert uninstall(tmp_path).removed == ["vlan nic1.100"]


def test_uninstalling_sees_pods_whose_namespaces_containerd_keeps(agent: AgentProcess, tmp_path: Path):
    """With `netns_mounts_under_state_dir`, in a directory of its own."""
    network(agent, interfaces=["nic1"], vlanID=100).call("ADD", POD)
    run("ip", "netns", "add", "pod")
    run("ip", "link", "add", "mac0", "link", "nic1.100", "netns", "pod", "type", "macvlan", "mode", "bridge")
    kept = Path("/run/containerd/io.containerd.grpc.v1.cri/netns/cni-1")
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.touch()
    run("mount", "--bind", "/run/netns/pod", str(kept))
    try:
        run("ip", "netns", "del", "pod")
        assert uninstall(tmp_path).removed == []
    finally:
        run("umount", str(kept))
        kept.unlink()

    assert uninstall(tmp_path).removed == ["vlan nic1.100"]


def test_who_may_not_look_into_pods_is_told_so(agent: AgentProcess):
    network(agent, interfaces=["nic1"], vlanID=100).call("ADD", POD)
    run("ip", "netns", "add", "pod")
    nowhere = NodeDirectories(*[Path("/nowhere")] * 4)

    os.seteuid(65534)
    try:
        outcome = NodeCleanup(nowhere).run(print, dry=True)
    finally:
        os.seteuid(0)

    assert outcome.removed == []
    (why,) = outcome.failed
    assert why.startswith("whether pods stand on nic1.100 cannot be seen without the rights of root: ")
