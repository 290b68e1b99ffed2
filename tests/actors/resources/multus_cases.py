"""SpiderMultusConfigs, right and wrong, for both who decide: `admission.admit` and the manifests in `deploy/`.

Each case gives an object's specification and annotations, and the places that the refusal must name, all of them: none for
what is let in. What CEL cannot read, JSON above all, `admit` alone refuses (`by_us`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from actors.resources.admission import SPIDERPOOL
from actors.resources.multus_config import (
    ATTACHMENT_NAME,
    CNI_VERSION,
    NETWORK_INJECT,
    NETWORK_NAME,
    RDMA_INJECT,
)

Spec = dict[str, Any]
Marks = dict[str, str]
POOLS = {"ipv4": ["blue"]}
BOND = {"name": "bond0", "mode": 1}
ETH0 = ["eth0"]


@dataclass(frozen=True, slots=True)
class MultusCase:
    """`old`: the annotations of what it replaces, which has the same specification; None for a new object."""

    title: str
    spec: Spec
    names: tuple[str, ...] = ()
    annotations: Marks = field(default_factory=dict)
    old: Marks | None = None
    by_us: bool = False

    def obj(self, name: str = "case", annotations: Marks | None = None) -> dict[str, Any]:
        return multus_config(self.spec, name, self.annotations if annotations is None else annotations)


def multus_config(spec: Spec, name: str = "case", annotations: Marks | None = None) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": name, "namespace": "default"}
    if annotations:
        metadata["annotations"] = annotations
    return {"apiVersion": SPIDERPOOL, "kind": "SpiderMultusConfig", "metadata": metadata, "spec": spec}


def macvlan(beside: Spec | None = None, **section: Any) -> Spec:
    return {"cniType": "macvlan", "macvlan": {"master": ETH0, **section}, **(beside or {})}


def vlan(**section: Any) -> Spec:
    return {"cniType": "vlan", "vlan": {"master": ETH0, **section}}


def sriov(**section: Any) -> Spec:
    return {"cniType": "sriov", "sriov": {"resourceName": "a.com/vf", **section}}


def ib_sriov(**section: Any) -> Spec:
    return {"cniType": "ib-sriov", "ibsriov": {"resourceName": "a.com/ib", **section}}


def ovs(**section: Any) -> Spec:
    return {"cniType": "ovs", "ovs": {"bridge": "br1", **section}}


def custom(text: str, **beside: Any) -> Spec:
    return {"cniType": "custom", "customCNI": text, **beside}


RIGHT = [
    MultusCase("macvlan", macvlan()),
    MultusCase("ipvlan", {"cniType": "ipvlan", "ipvlan": {"master": ETH0, "mtu": 9000, "ippools": POOLS}}),
    MultusCase("a VLAN", macvlan(vlanID=4094)),
    MultusCase("no VLAN", macvlan(vlanID=0)),
    MultusCase("a bond", macvlan(master=["eth0", "eth1"], bond={**BOND, "options": "miimon=100"})),
    MultusCase("a bond of one", macvlan(bond=BOND)),
    MultusCase("an alternative name", macvlan(master=["enp0s31f6-of-the-first-card"])),
    MultusCase("vlan, manual", vlan(vlanMode="manual", vlanID=100)),
    MultusCase("vlan, auto", vlan(vlanMode="auto")),
    MultusCase("vlan, auto, with VLAN 0", vlan(vlanMode="auto", vlanID=0)),
    MultusCase("sriov", sriov(vlanID=5, minTxRateMbps=100, maxTxRateMbps=100, ippools={"matchMasterSubnet": True})),
    MultusCase("sriov without a highest rate", sriov(minTxRateMbps=100, maxTxRateMbps=0)),
    MultusCase("ib-sriov", ib_sriov(pkey="0x8001", linkState="auto")),
    MultusCase("ipoib", {"cniType": "ipoib", "ipoib": {"master": "ib0"}}),
    MultusCase("ovs", ovs(vlan=7, trunk=[{"id": 3}, {"minID": 5, "maxID": 5}, {"minID": 9}])),
    MultusCase("custom", custom('{"cniVersion": "1.0.0", "name": "x", "type": "ptp"}')),
    MultusCase("custom, over several lines", custom('\n {\n  "type": "ptp"\n }\n')),
    MultusCase("custom that says nothing", {"cniType": "custom"}),
    MultusCase("nothing", {}),
    MultusCase("an empty customCNI of another type", macvlan({"customCNI": ""})),
    MultusCase("a chain", macvlan({"chainCNIJsonData": ['{"type": "tuning"}', ' {"type": "sbr"} ']})),
    MultusCase("without coordinator and IPAM", macvlan({"enableCoordinator": False, "disableIPAM": True})),
    MultusCase("a coordinator", macvlan({"coordinator": {"mode": "overlay", "hijackCIDR": ["10.0.0.1", "fd00::/8"]}})),
    MultusCase("macvlan as Spiderpool stores it", {
        "cniType": "macvlan", "enableCoordinator": True, "disableIPAM": False, "chainCNIJsonData": [],
        "macvlan": {"master": ETH0, "vlanID": 0, "mtu": 0, "rdmaResourceName": "",
                    "ippools": {"ipv4": ["blue"], "ipv6": [], "matchMasterSubnet": False}},
        "coordinator": {"mode": "auto", "hijackCIDR": [], "policyRoutes": [], "vethLinkAddress": "", "podMACPrefix": "",
                        "podDefaultRouteNIC": "", "podRPFilter": 0, "tunePodRoutes": True, "hostRuleTable": 500,
                        "txQueueLen": 0},
    }),
    MultusCase("custom as Spiderpool stores it", custom("{}", enableCoordinator=False, chainCNIJsonData=[])),
    MultusCase("names", macvlan(), annotations={ATTACHMENT_NAME: "a.b", NETWORK_NAME: "A_b.c-1"}),
    *(
        MultusCase(f"CNI {version}", macvlan(), annotations={CNI_VERSION: version})
        for version in ("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
    ),
    MultusCase("the name stays", macvlan(mtu=1400), annotations={ATTACHMENT_NAME: "a"}, old={ATTACHMENT_NAME: "a"}),
    MultusCase("the name is removed", macvlan(), old={ATTACHMENT_NAME: "a"}),
    MultusCase("RDMA for pods", macvlan(rdmaResourceName="a.com/r", ippools=POOLS), annotations={RDMA_INJECT: "x"}),
    MultusCase("RDMA over ipoib", {"cniType": "ipoib", "ipoib": {"master": "ib0", "ippools": {"ipv6": ["b"]}}},
               annotations={RDMA_INJECT: "x"}),
    MultusCase("networks for pods", macvlan(), annotations={NETWORK_INJECT: "x"}),
    MultusCase("networks for pods, of virtual functions", sriov(ippools=POOLS), annotations={NETWORK_INJECT: "x"}),
]  # fmt: skip

NAMES = [
    MultusCase("the name is added", macvlan(), (ATTACHMENT_NAME,), {ATTACHMENT_NAME: "b"}, old={}),
    MultusCase("the name changes", macvlan(), (ATTACHMENT_NAME,), {ATTACHMENT_NAME: "b"}, {ATTACHMENT_NAME: "a"}),
    *(
        MultusCase(f"{title} for a name", macvlan(), (ATTACHMENT_NAME,), {ATTACHMENT_NAME: value})
        for title, value in (
            *(("nothing", ""), ("upper case", "Blue"), ("an underscore", "a_b"), ("a dot at its end", "a.")),
            *(("254 letters", "a" * 254), ("a blank", "a b"), ("two lines", "a\nb")),
        )
    ),
    *(
        MultusCase(f"CNI {value or 'empty'}", macvlan(), (CNI_VERSION,), {CNI_VERSION: value})
        for value in ("", "0.2.0", "1.2.0", "0.3", "v1.0.0")
    ),
    *(
        MultusCase(f"a CNI network {value or 'without name'}", macvlan(), (NETWORK_NAME,), {NETWORK_NAME: value})
        for value in ("", "-a", "a b", "a/b", "a" * 254)
    ),
]  # fmt: skip

SECTIONS = [
    MultusCase("no such type", {"cniType": "bridge"}, ("spec.cniType",)),
    *(
        MultusCase(f"{kind} without its section", {"cniType": kind}, (f"spec.{section}",))
        for kind, section in (
            *(("macvlan", "macvlan"), ("ipvlan", "ipvlan"), ("vlan", "vlan"), ("sriov", "sriov")),
            *(("ovs", "ovs"), ("ib-sriov", "ibsriov"), ("ipoib", "ipoib")),
        )
    ),
    *(
        MultusCase(f"a section {section} beside macvlan", macvlan({section: content}), (f"spec.{section}",))
        for section, content in (
            *(("ipvlan", {"master": ETH0}), ("vlan", {"master": ETH0}), ("sriov", {"resourceName": "a.com/vf"})),
            *(("ovs", {"bridge": "b"}), ("ibsriov", {"resourceName": "a.com/ib"}), ("ipoib", {"master": "ib0"})),
            ("customCNI", "{}"),
        )
    ),
    MultusCase("a section beside custom", custom("{}", macvlan={"master": ETH0}), ("spec.macvlan",)),
    MultusCase("a misspelt section", {**macvlan(), "macVlan": {}}, ("macVlan",)),
    *(
        MultusCase(f"{key} {value!r} of macvlan", {"cniType": "macvlan", "macvlan": {"master": ETH0, key: value}},
                   (f"spec.macvlan.{key}",))
        for key, value in (
            *(("vlanID", -1), ("vlanID", 4095), ("vlanID", "5"), ("mtu", -1), ("mtu", "1500"), ("mtu", 2**31)),
            *(("master", []), ("master", None), ("master", ["eth 0"]), ("master", [""]), ("master", ["a/b"])),
            *(("master", ["a" * 128]), ("master", "eth0"), ("master", ["eth0", "eth0"])),
            *(("master", [f"e{n}" for n in range(33)]), ("ippools", {"ipv4": [""]}), ("ippools", {"ipv4": "blue"})),
            *(("ippools", {"ipv4": ["b"] * 257}), ("rdmaResourceName", 1)),
        )
    ),
    *(
        MultusCase(f"a master {name!a} that cannot be shown", macvlan(master=[name]), ("spec.macvlan.master[0]",),
                   by_us=True)
        for name in ("eth\u202e0", "eth\x9b2J")
    ),
    *(
        MultusCase(f"several masters of {kind} without a bond",
                   {"cniType": kind, kind: {"master": ["eth0", "eth1"]}}, (f"spec.{kind}.bond",))
        for kind in ("macvlan", "ipvlan", "vlan")
    ),
    *(
        MultusCase(f"a bond {bond}", macvlan(master=["eth0", "eth1"], bond=bond), ("spec.macvlan.bond",))
        for bond in ({"mode": 1}, {"name": "", "mode": 1}, {"name": "b", "mode": 7}, {"name": "b", "mode": -1},
                     {"name": "a b", "mode": 1}, {"name": "b"}, {"name": "b", "mode": 1, "option": ""})
    ),
    *(
        MultusCase(f"matchMasterSubnet of {kind}",
                   {"cniType": kind, kind: {"master": ETH0, "ippools": {"matchMasterSubnet": True}}},
                   (f"spec.{kind}.ippools", "matchMasterSubnet"))
        for kind in ("macvlan", "ipvlan", "vlan")
    ),
    MultusCase("no such vlanMode", vlan(vlanMode="both"), ("spec.vlan.vlanMode",)),
    MultusCase("vlanMode auto with a VLAN", vlan(vlanMode="auto", vlanID=5), ("spec.vlan.vlanID",)),
    MultusCase("vlanMode of macvlan", macvlan(vlanMode="auto"), ("vlanMode",)),
    MultusCase("sriov without a resource", {"cniType": "sriov", "sriov": {}}, ("spec.sriov.resourceName",)),
    MultusCase("sriov with an empty resource", sriov(resourceName=""), ("spec.sriov.resourceName",)),
    MultusCase("ib-sriov without a resource", {"cniType": "ib-sriov", "ibsriov": {}}, ("spec.ibsriov.resourceName",)),
    MultusCase("rates the wrong way round", sriov(minTxRateMbps=9, maxTxRateMbps=8), ("spec.sriov.minTxRateMbps",)),
    MultusCase("a negative rate", sriov(minTxRateMbps=-1), ("spec.sriov.minTxRateMbps",)),
    MultusCase("a VLAN of sriov", sriov(vlanID=4095), ("spec.sriov.vlanID",)),
    MultusCase("no such link state", ib_sriov(linkState="up"), ("spec.ibsriov.linkState",)),
    MultusCase("ipoib without a master", {"cniType": "ipoib", "ipoib": {}}, ("spec.ipoib.master",)),
    MultusCase("ipoib with an empty master", {"cniType": "ipoib", "ipoib": {"master": ""}}, ("spec.ipoib.master",)),
    MultusCase("ovs without a bridge", {"cniType": "ovs", "ovs": {}}, ("spec.ovs.bridge",)),
    MultusCase("a VLAN of ovs", ovs(vlan=4095), ("spec.ovs.vlan",)),
    MultusCase("a trunk the wrong way round", ovs(trunk=[{"minID": 6, "maxID": 5}]), ("spec.ovs.trunk[0].minID",)),
    *(
        MultusCase(f"a trunk {key} {value}", ovs(trunk=[{"id": 1}, {key: value}]), (f"spec.ovs.trunk[1].{key}",))
        for key in ("id", "minID", "maxID") for value in (-1, 4095)
    ),
]  # fmt: skip

TEXTS = [
    *(
        MultusCase(f"customCNI {text}", custom(text), ("spec.customCNI",), by_us=only)
        for text, only in (("ptp", False), ("[]", False), ('"x"', False), ("{", False), ("{]}", True), ("{'a': 1}", True))
    ),
    MultusCase("a long customCNI", custom("{" + " " * 65536 + "}"), ("spec.customCNI",)),
    MultusCase("nesting without end", custom('{"a": ' * 9000 + "1" + "}" * 9000), ("spec.customCNI",), by_us=True),
    *(
        MultusCase(f"chained {text or 'nothing'}", macvlan({"chainCNIJsonData": ['{"type": "a"}', text]}),
                   ("spec.chainCNIJsonData[1]",), by_us=only)
        for text, only in (("", False), ("x", False), ("[]", False), ("{}", False), ('{"type": ""}', True),
                           ('{"type": 1}', True), ('{"type": "a",}', True))
    ),
]  # fmt: skip

INJECTED = [
    MultusCase("RDMA without a resource", macvlan(ippools=POOLS), (RDMA_INJECT, "resource"), {RDMA_INJECT: "x"}),
    MultusCase("RDMA without a pool", macvlan(rdmaResourceName="r"), (RDMA_INJECT, "pool"), {RDMA_INJECT: "x"}),
    MultusCase("RDMA with neither", macvlan(), (RDMA_INJECT,), {RDMA_INJECT: "x"}),
    MultusCase("RDMA of virtual functions without a pool", ib_sriov(), (RDMA_INJECT, "pool"), {RDMA_INJECT: "x"}),
    MultusCase("RDMA over ipoib without a pool", {"cniType": "ipoib", "ipoib": {"master": "ib0"}}, (RDMA_INJECT, "pool"),
               {RDMA_INJECT: "x"}),
    MultusCase("networks with a resource and no pool", sriov(), (NETWORK_INJECT, "pool"), {NETWORK_INJECT: "x"}),
    *(
        MultusCase(f"{key} for {spec['cniType']}", spec, (key, spec["cniType"]), {key: "x"})
        for key in (RDMA_INJECT, NETWORK_INJECT) for spec in (ovs(ippools=POOLS), custom("{}"))
    ),
]  # fmt: skip

COORDINATOR = [
    MultusCase(f"{key} {value!r}", macvlan({"coordinator": {key: value}}), (f"spec.coordinator.{key}",))
    for key, value in (
        *(("mode", "sideways"), ("podCIDRType", "weave"), ("hijackCIDR", ["x"]), ("podMACPrefix", "0b:1b")),
        *(("podMACPrefix", "zz:zz"), ("txQueueLen", -1), ("podRPFilter", 3), ("vethLinkAddress", "x"), ("vethMTU", 0)),
        *(("vethMTU", -5), ("policyRoutes", [{"dst": "10.0.0.0/8", "gw": "fd00::1"}])),
        *(("policyRoutes", [{"dst": "x", "gw": "10.0.0.1"}]), ("policyRoutes", [{"dst": "10.0.0.0/8", "gw": "x"}])),
        *(("hostRuleTable", 254), ("hostRPFilter", 3), ("detectGateway", "yes")),
    )
]  # fmt: skip

SEVERAL = [
    MultusCase(
        "several things of the specification",
        {
            **macvlan({"ovs": {"bridge": "b"}, "coordinator": {"podRPFilter": 7, "vethMTU": 1}}),
            "macvlan": {"master": ["eth0", "eth1"], "vlanID": 5000, "mtu": -1},
        },
        ("spec.ovs", "spec.macvlan.bond", "spec.macvlan.vlanID", "spec.macvlan.mtu", "podRPFilter", "vethMTU"),
    ),
    MultusCase(
        "several things of the annotations",
        ovs(),
        (ATTACHMENT_NAME, CNI_VERSION, NETWORK_NAME, RDMA_INJECT),
        {ATTACHMENT_NAME: "A", CNI_VERSION: "9", NETWORK_NAME: "/", RDMA_INJECT: "x"},
    ),
]  # fmt: skip

CASES = RIGHT + NAMES + SECTIONS + TEXTS + INJECTED + COORDINATOR + SEVERAL


def titles(cases: list[MultusCase]) -> Iterator[str]:
    for case in cases:
        yield ascii(case.title)[1:61].replace(" ", "-")
