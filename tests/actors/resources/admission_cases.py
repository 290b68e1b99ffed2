"""What is let in and what is refused, for both who decide: `admission.admit` and the manifests in `deploy/`.

Each case gives the specification, for an update the one before, and, where it is to be refused, what the message
must name. Rules that only one of the two can know are not here: overlap with other pools takes all pools.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from actors.errors import InvalidObject
from actors.resources.admission import SPIDERPOOL, admit

Spec = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Case:
    """`names`: the field that the refusal names, "" for what is let in. `old`: the specification replaced."""

    title: str
    spec: Spec
    names: str = ""
    old: Spec | None = None
    kind: str = "SpiderIPPool"
    status: Spec = field(default_factory=dict)

    def obj(self, name: str) -> dict[str, Any]:
        return manifest(self.kind, name, self.spec)


def manifest(kind: str, name: str, spec: Spec) -> dict[str, Any]:
    return {"apiVersion": SPIDERPOOL, "kind": kind, "metadata": {"name": name}, "spec": spec}


def v4(**spec: Any) -> Spec:
    return {"subnet": "10.6.0.0/16", "ips": ["10.6.0.10-10.6.0.19"], **spec}


def v6(**spec: Any) -> Spec:
    return {"subnet": "fd00:6::/112", "ips": ["fd00:6::10-fd00:6::19"], **spec}


def route(dst: str, gw: str) -> list[dict[str, str]]:
    return [{"dst": dst, "gw": gw}]


def requirement(operator: str, *values: str) -> dict[str, Any]:
    return {"matchExpressions": [{"key": "a", "operator": operator, "values": list(values)}]}


POOLS = [
    Case("a range", v4()),
    Case("IPv6", v6()),
    Case("no address", {"subnet": "10.6.0.0/16"}),
    Case("an empty list", v4(ips=[])),
    Case("a /32", {"subnet": "10.6.0.1/32", "ips": ["10.6.0.1"]}),
    Case("the whole of IPv4", {"subnet": "0.0.0.0/0", "ips": ["0.0.0.0-255.255.255.255"]}),
    Case("the whole of IPv6", {"subnet": "::/0", "ips": ["::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"]}),
    Case("host bits in the subnet", v4(subnet="10.6.0.1/16")),
    Case("a family that agrees", v4(ipVersion=4)),
    Case("entries that overlap", v4(ips=["10.6.0.1-10.6.0.9", "10.6.0.5", "10.6.0.5"])),
    Case("a range of one", v4(ips=["10.6.0.5-10.6.0.5"])),
    Case("a range over a digit's edge", v4(ips=["10.6.0.9-10.6.0.100"])),
    Case("a range over an octet's edge", v4(ips=["10.6.9.250-10.6.10.3"])),
    Case("a range over a group's edge", {"subnet": "fd00:6::/64", "ips": ["fd00:6::ffff-fd00:6::1:0"]}),
    Case("a range out of zeros", {"subnet": "::/64", "ips": ["::-::1:0:0"]}),
    Case("upper case IPv6", v6(ips=["FD00:6::A-FD00:6::B"])),
    Case("a gateway", v4(gateway="10.6.0.1")),
    Case("a gateway in the subnet's IPv6", v6(gateway="fd00:6::1")),
    Case("a gateway that is excluded", v4(gateway="10.6.0.12", excludeIPs=["10.6.0.11-10.6.0.13"])),
    Case("an empty gateway", v4(gateway="")),
    Case("routes", v4(routes=route("10.7.0.0/16", "10.6.0.1") + route("10.8.0.9/16", "10.6.0.1"))),
    Case("a VLAN", v4(vlan=4094)),
    Case("flags", v4(default=True, disable=True)),
    Case("affinities", v4(podAffinity={"matchLabels": {"a": "b"}}, nodeAffinity={}, namespaceAffinity={})),
    Case("an expression", v4(podAffinity=requirement("NotIn", "x"))),
    Case("an expression without values", v4(podAffinity=requirement("Exists"))),
    Case("names", v4(nodeName=["n1"], namespaceName=["shop"], multusName=["kube-system/mv"])),
    Case("nulls", v4(gateway=None, routes=None, excludeIPs=None, podAffinity=None)),
    # -- the subnet
    Case("no subnet", {"ips": ["10.6.0.1"]}, "subnet"),
    Case("a prefix length too long", v4(subnet="10.6.0.0/33"), "subnet"),
    Case("an IPv6 prefix length too long", v6(subnet="fd00:6::/129"), "subnet"),
    Case("no prefix length", v4(subnet="10.6.0.0"), "subnet"),
    Case("a prefix length with a zero in front", v4(subnet="10.6.0.0/016"), "subnet"),
    Case("an octet with a zero in front", v4(subnet="10.06.0.0/16"), "subnet"),
    Case("an octet too large", v4(subnet="10.256.0.0/16"), "subnet"),
    Case("an IPv4-mapped subnet", v6(subnet="::ffff:10.6.0.0/112", ips=[]), "subnet"),
    Case("a number for a subnet", v4(subnet=10), "subnet"),
    # -- the family
    Case("another family", v4(ipVersion=6), "ipVersion"),
    Case("no such family", v4(ipVersion=5), "ipVersion"),
    Case("a family in quotes", v4(ipVersion="4"), "ipVersion"),
    # -- addresses
    Case("no address at all", v4(ips=["here"]), "ips"),
    Case("an empty entry", v4(ips=[""]), "ips"),
    Case("a number", v4(ips=[1]), "ips"),
    Case("a text for a list", v4(ips="10.6.0.1"), "ips"),
    Case("half a range", v4(ips=["10.6.0.1-"]), "ips"),
    Case("a range of three", v4(ips=["10.6.0.1-10.6.0.2-10.6.0.3"]), "ips"),
    Case("spaces in a range", v4(ips=["10.6.0.1 - 10.6.0.2"]), "ips"),
    Case("a range by its last octet", v4(ips=["10.6.0.1-9"]), "ips"),
    Case("a CIDR among the addresses", v4(ips=["10.6.0.0/24"]), "ips"),
    Case("an address outside", v4(ips=["10.7.0.1"]), "ips"),
    Case("a range that begins outside", v4(ips=["10.5.255.255-10.6.0.9"]), "ips"),
    Case("a range that ends outside", v4(ips=["10.6.0.1", "10.6.0.9-10.7.0.0"]), "ips"),
    Case("a range that ends before it starts", v4(ips=["10.6.0.9-10.6.0.2"]), "ips"),
    Case("the same over a digit's edge", v4(ips=["10.6.0.100-10.6.0.9"]), "ips"),
    Case(
        "the same over a group's edge", {"subnet": "fd00:6::/64", "ips": ["fd00:6::1:0-fd00:6::ffff"]}, "ips"
    ),
    Case("an address of the other family", v4(ips=["fd00::1"]), "ips"),
    Case("a range of both families", v4(ips=["10.6.0.1-fd00::1"]), "ips"),
    Case("an IPv4-mapped address", {"subnet": "::/0", "ips": ["::ffff:10.6.0.1"]}, "ips"),
    Case("an address with a zone", {"subnet": "fd00::/64", "ips": ["fd00::1%eth0"]}, "ips"),
    # -- where no host can be
    *(
        Case(f"a subnet in {subnet}", {"subnet": subnet}, "subnet")
        for subnet in (
            *("0.0.0.0/8", "0.1.0.0/16", "127.0.0.0/24", "127.0.0.0/8", "224.0.0.0/4", "239.1.2.0/24"),
            *("255.255.255.255/32", "fe80::/10", "fe80::/64", "ff02::/64", "::1/128", "::/127"),
        )
    ),
    *(
        Case(f"{ips} in a subnet of everything", {"subnet": subnet, "ips": [ips]}, "ips")
        for subnet, ips in (
            *(
                ("0.0.0.0/0", "127.0.0.1"),
                ("0.0.0.0/0", "224.0.0.1-239.255.255.255"),
                ("0.0.0.0/0", "0.0.0.0"),
            ),
            *(
                ("0.0.0.0/0", "255.255.255.255"),
                ("::/0", "::"),
                ("::/0", "::-::1"),
                ("::/0", "fe80::1"),
                ("::/0", "ff02::1"),
            ),
        )
    ),
    Case("a subnet beside it", {"subnet": "128.0.0.0/24", "ips": ["128.0.0.0-128.0.0.255"]}),
    Case("the class for experiments", {"subnet": "240.0.0.0/8", "ips": ["240.0.0.1"]}),
    Case("a range over its edge", {"subnet": "126.0.0.0/7", "ips": ["126.255.255.1-127.0.0.9"]}),
    # -- gateways of one link
    Case("a link-local IPv6 gateway", v6(gateway="fe80::1")),
    Case("a link-local IPv4 gateway", v4(gateway="169.254.1.1"), "gateway"),
    Case("a link-local gateway of the other family", v4(gateway="fe80::1"), "gateway"),
    Case("a link-local router", v6(routes=route("fd00:7::/64", "fe80::1"))),
    Case("a link-local router of the other family", v4(routes=route("10.7.0.0/16", "fe80::1")), "gw"),
    Case("the network's address as gateway", v4(gateway="10.6.0.0", ips=["10.6.0.0-10.6.0.9"]), "gateway"),
    # -- what no object can match
    *(
        Case(f"a label {title} in {field}", v4(**{field: {"matchLabels": {key: value}}}), names)
        for field in ("podAffinity", "namespaceAffinity", "nodeAffinity")
        for title, key, value, names in (
            ("as Kubernetes has them", "a.b-c/d_E.f", "v_1.X", ""),
            ("without value", "a", "", ""),
            ("of 63 letters", "k" * 63, "v" * 63, ""),
            ("with a dot in front", ".starts.with.dot", "x", field),
            ("with a blank", "my key!", "x", field),
            ("with an empty key", "", "x", field),
            ("with two slashes", "a/b/c", "x", field),
            ("with an upper-case prefix", "A.b/c", "x", field),
            ("with a key of 64 letters", "k" * 64, "x", field),
            ("with a prefix of 254", f"{'p' * 254}/a", "x", field),
            ("with a prefix of 253", f"{'p' * 253}/a", "x", ""),
            ("whose value has a blank", "a", "a b", field),
            ("whose value has two lines", "a", "a\nb", field),
            ("whose value ends in a dot", "a", "x.", field),
            ("whose value has 64 letters", "a", "v" * 64, field),
        )
    ),
    *(
        Case(f"{title} in {field}", v4(**{field: {"matchExpressions": [expression]}}), names)
        for field in ("podAffinity", "namespaceAffinity", "nodeAffinity")
        for title, expression, names in (
            ("a right expression", {"key": "a/b", "operator": "In", "values": ["x", ""]}, ""),
            ("a wrong key", {"key": "my key!", "operator": "Exists"}, field),
            ("a wrong value", {"key": "a", "operator": "In", "values": ["a b"]}, field),
            ("a second wrong value", {"key": "a", "operator": "NotIn", "values": ["x", "a b"]}, field),
        )
    ),
    *(
        Case(f"{field} {value or 'empty'}", v4(**{field: ["ok", value]}), names)
        for field, value, names in (
            ("nodeName", "node-1.example", ""),
            ("nodeName", "Node 1", "nodeName"),
            ("nodeName", "node_1", "nodeName"),
            ("nodeName", "", "nodeName"),
            ("nodeName", "n" * 254, "nodeName"),
            ("namespaceName", "shop-1", ""),
            ("namespaceName", "shop.eu", "namespaceName"),
            ("namespaceName", "n" * 64, "namespaceName"),
            ("namespaceName", "n" * 63, ""),
            ("namespaceName", "a b", "namespaceName"),
            ("multusName", "mv", ""),
            ("multusName", "kube-system/mv.eth0", ""),
            ("multusName", "a/b/c", "multusName"),
            ("multusName", "/mv", "multusName"),
            ("multusName", "kube.system/mv", "multusName"),
            ("multusName", "kube-system/", "multusName"),
        )
    ),
    Case("a name that was wrong already", v4(vlan=3, nodeName=["n1"]), old=v4(nodeName=["n1"])),
    Case("an exclusion outside", v4(excludeIPs=["10.7.0.1"]), "excludeIPs"),
    Case("an exclusion that ends before it starts", v4(excludeIPs=["10.6.0.9-10.6.0.2"]), "excludeIPs"),
    Case("an exclusion that is no address", v4(excludeIPs=["x"]), "excludeIPs"),
    # -- the gateway
    Case("a gateway that is no address", v4(gateway="10.6.0"), "gateway"),
    Case("a gateway with a prefix length", v4(gateway="10.6.0.1/16"), "gateway"),
    Case("a gateway outside", v4(gateway="10.7.0.1"), "gateway"),
    Case("a gateway of the other family", v4(gateway="fd00::1"), "gateway"),
    Case("a gateway that is given out", v4(gateway="10.6.0.12"), "gateway"),
    Case("the first address as gateway", v4(gateway="10.6.0.10"), "gateway"),
    Case("the last IPv6 address as gateway", v6(gateway="fd00:6::19"), "gateway"),
    Case("a gateway beside what is excluded", v4(gateway="10.6.0.12", excludeIPs=["10.6.0.13"]), "gateway"),
    # -- routes
    Case("a route to no subnet", v4(routes=route("10.7.0.0", "10.6.0.1")), "dst"),
    Case("a route to the other family", v4(routes=route("fd00::/64", "10.6.0.1")), "dst"),
    Case("the default route", v4(routes=route("0.0.0.0/0", "10.6.0.1")), "dst"),
    Case(
        "the same route twice",
        v4(routes=route("10.8.0.0/16", "10.6.0.1") + route("10.8.0.9/16", "10.6.0.2")),
        "dst",
    ),
    Case("a router outside", v4(routes=route("10.7.0.0/16", "10.7.0.1")), "gw"),
    Case("a router that is no address", v4(routes=route("10.7.0.0/16", "x")), "gw"),
    Case("a route without router", v4(routes=[{"dst": "10.7.0.0/16"}]), "gw"),
    Case(
        "a field that routes do not have",
        v4(routes=[{"dst": "10.7.0.0/16", "gw": "10.6.0.1", "via": "x"}]),
        "via",
    ),
    # -- the rest
    Case("a VLAN id too large", v4(vlan=4095), "vlan"),
    Case("a negative VLAN id", v4(vlan=-1), "vlan"),
    Case("a flag in quotes", v4(default="true"), "default"),
    Case("an empty podAffinity", v4(podAffinity={}), "podAffinity"),
    Case("an operator that does not exist", v4(nodeAffinity=requirement("in", "x")), "operator"),
    Case("In without values", v4(nodeAffinity=requirement("In")), "values"),
    Case("Exists with values", v4(namespaceAffinity=requirement("Exists", "x")), "values"),
    Case("a selector's unknown field", v4(podAffinity={"matchLabel": {"a": "b"}}), "matchLabel"),
    Case("a misspelt field", v4(excludeIps=[]), "excludeIps"),
    # -- updates
    Case("more addresses", v4(ips=["10.6.0.10-10.6.0.99"]), old=v4()),
    Case("the same subnet in another form", v4(subnet="10.6.7.8/16"), old=v4()),
    Case("a family that was inferred", v4(ipVersion=4), old=v4()),
    Case("another subnet", v4(subnet="10.6.0.0/17"), "subnet", old=v4()),
    Case("another family and subnet", v6(ipVersion=6), "ipVersion", old=v4(ipVersion=4)),
    Case("an update to bad addresses", v4(ips=["10.7.0.1"]), "ips", old=v4()),
]

IN_USE = {
    "allocatedIPs": '{"10.6.0.15":{"pod":"shop/web-0","podUid":"u"},"10.6.0.9":{"pod":"shop/web-1","podUid":"v"}}'
}
SPACED = {"allocatedIPs": IN_USE["allocatedIPs"].replace(":", ": ").replace(",", ", ")}
HELD = v4(ips=["10.6.0.9-10.6.0.15"])
POOLS += [
    Case("what is in use stays", v4(ips=["10.6.0.9", "10.6.0.15"]), old=HELD, status=IN_USE),
    Case("an address in use is left out", v4(ips=["10.6.0.9-10.6.0.14"]), "ips", HELD, status=IN_USE),
    Case("it is written with spaces", v4(ips=["10.6.0.9"]), "ips", HELD, status=SPACED),
    Case("an address in use is excluded", {**HELD, "excludeIPs": ["10.6.0.9"]}, "ips", HELD, status=IN_USE),
    Case("all addresses are left out", {"subnet": "10.6.0.0/16"}, "ips", HELD, status=IN_USE),
]


def reserved(title: str, spec: Spec, names: str = "", old: Spec | None = None) -> Case:
    return Case(title, spec, names, old, "SpiderReservedIP")


RESERVED = [
    reserved("addresses and ranges", {"ips": ["10.0.0.1", "10.0.0.9-10.0.0.100"]}),
    reserved("IPv6", {"ipVersion": 6, "ips": ["fd00::a-fd00::b"]}),
    reserved("nothing", {}, "ips"),
    reserved("no address", {"ips": []}, "ips"),
    reserved("only a family", {"ipVersion": 4}),
    reserved("no address at all", {"ips": ["x"]}, "ips"),
    reserved("a range that ends before it starts", {"ips": ["10.0.0.1", "10.0.0.9-10.0.0.8"]}, "ips"),
    reserved("both families", {"ips": ["10.0.0.1", "fd00::1"]}, "ips"),
    reserved("a range of both families", {"ips": ["10.0.0.1-fd00::1"]}, "ips"),
    reserved("another family", {"ipVersion": 6, "ips": ["10.0.0.1"]}, "ips"),
    reserved("no such family", {"ipVersion": 5, "ips": ["10.0.0.1"]}, "ipVersion"),
    reserved("a misspelt field", {"ip": ["10.0.0.1"], "ips": ["10.0.0.1"]}, "ip"),
    reserved("more addresses", {"ips": ["10.0.0.1", "10.0.0.2"]}, old={"ips": ["10.0.0.1"]}),
    reserved(
        "another family than before",
        {"ipVersion": 6, "ips": ["fd00::1"]},
        "ipVersion",
        {"ipVersion": 4, "ips": ["10.0.0.1"]},
    ),
]


def subnet(
    title: str, spec: Spec, names: str = "", old: Spec | None = None, status: Spec | None = None
) -> Case:
    return Case(title, spec, names, old, "SpiderSubnet", status or {})


HAD = {
    "controlledIPPools": '{"10.6.0.11":{"ips":["10.6.0.12-10.6.0.13","10.6.0.15"],"application":'
    '"apps_v1_Deployment_shop_web"},"made-by-hand":{"ips":["10.6.0.19"]}}'
}
HAD_IPV6 = {"controlledIPPools": '{"auto6-web-eth0-1a2b3":{"ips":["fd00:6::12-fd00:6::13"]}}'}
SUBNETS = [
    subnet("a range", v4()),
    subnet("IPv6", v6()),
    subnet("no address", {"subnet": "10.6.0.0/16"}),
    subnet("host bits in the subnet", v4(subnet="10.6.0.1/16")),
    subnet("a family that agrees", v4(ipVersion=4)),
    subnet("a gateway, routes and exclusions", v4(gateway="10.6.0.1", routes=route("10.7.0.0/16", "10.6.0.2"),
                                                  excludeIPs=["10.6.0.15"])),
    subnet("a link-local IPv6 gateway", v6(gateway="fe80::1")),
    subnet("no subnet", {"ips": ["10.6.0.1"]}, "subnet"),
    subnet("a subnet that is none", v4(subnet="10.6.0.0"), "subnet"),
    subnet("a subnet of loopback", {"subnet": "127.0.0.0/8"}, "subnet"),
    subnet("another family", v4(ipVersion=6), "ipVersion"),
    subnet("no address at all", v4(ips=["here"]), "ips"),
    subnet("an address outside", v4(ips=["10.7.0.1"]), "ips"),
    subnet("a range that ends before it starts", v4(ips=["10.6.0.9-10.6.0.2"]), "ips"),
    subnet("an exclusion outside", v4(excludeIPs=["10.7.0.1"]), "excludeIPs"),
    subnet("a gateway outside", v4(gateway="10.7.0.1"), "gateway"),
    subnet("a gateway that is given out", v4(gateway="10.6.0.12"), "gateway"),
    subnet("the default route", v4(routes=route("0.0.0.0/0", "10.6.0.1")), "dst"),
    subnet("a route to the other family", v4(routes=route("fd00::/64", "10.6.0.1")), "dst"),
    subnet("the same route twice", v4(routes=route("10.8.0.0/16", "10.6.0.1") * 2), "dst"),
    subnet("a router outside", v4(routes=route("10.7.0.0/16", "10.7.0.1")), "gw"),
    subnet("a field that only pools have", v4(vlan=7), "vlan"),
    subnet("a misspelt field", v4(excludeIps=[]), "excludeIps"),
    # -- updates
    subnet("more addresses", v4(ips=["10.6.0.10-10.6.0.99"]), old=v4()),
    subnet("another subnet", v4(subnet="10.6.0.0/17"), "subnet", old=v4()),
    subnet("addresses that no pool has are left out", v4(ips=["10.6.0.12-10.6.0.19"]), old=v4(), status=HAD),
    subnet("what pools have stays in other words", v4(ips=["10.6.0.12-10.6.0.15", "10.6.0.19"]), old=v4(), status=HAD),
    subnet("another gateway", v4(gateway="10.6.0.1"), old=v4(), status=HAD),
    subnet("a pool's address is left out", v4(ips=["10.6.0.10-10.6.0.18"]), "ips", v4(), HAD),
    subnet("the first of a pool's range is left out", v4(ips=["10.6.0.13-10.6.0.19"]), "ips", v4(), HAD),
    subnet("the last of a pool's range is left out", v4(ips=["10.6.0.10-10.6.0.12", "10.6.0.15-10.6.0.19"]), "ips",
           v4(), HAD),
    subnet("a pool's address is excluded", v4(excludeIPs=["10.6.0.15"]), "ips", v4(), HAD),
    subnet("the middle of a pool's addresses is excluded", v4(excludeIPs=["10.6.0.14-10.6.0.16"]), "ips", v4(), HAD),
    subnet("all addresses are left out", {"subnet": "10.6.0.0/16"}, "ips", v4(), HAD),
    subnet("a pool's IPv6 address is left out", v6(ips=["fd00:6::13-fd00:6::19"]), "ips", v6(), HAD_IPV6),
    subnet("IPv6 addresses that no pool has are left out", v6(ips=["fd00:6::12-fd00:6::13"]), old=v6(), status=HAD_IPV6),
]  # fmt: skip
CASES = POOLS + RESERVED + SUBNETS


def judged(case: Case) -> str:
    """What `admit` says: "" or the refusal."""
    old = None
    if case.old is not None:
        old = {**admit(manifest(case.kind, "case", case.old)), "status": case.status}
    return refusal(case.obj("case"), old)


def refusal(obj: dict[str, Any], old: dict[str, Any] | None = None) -> str:
    try:
        admit(obj, old)
    except InvalidObject as error:
        return error.message
    return ""


_ADDRESSES = st.one_of(
    st.integers(0, 300).map(lambda low: f"10.6.0.{low}"),
    st.integers(0, 0x1FFFF).map(lambda low: f"fd00:6::{low >> 16:x}:{low & 0xFFFF:x}"),
    st.ip_addresses().map(str),
    st.sampled_from(["10.6.0.0", "10.6.255.255", "10.7.0.1", "fd00::1", "::", "x", "", "10.6.0.1 "]),
)
_RANGES = _ADDRESSES | st.tuples(_ADDRESSES, _ADDRESSES).map("-".join)
_SUBNETS = st.sampled_from(
    ["10.6.0.0/16", "10.6.0.9/24", "fd00:6::/64", "fd00:6::/112", "0.0.0.0/0", "::/0", "10.6.0.0"]
)
SPECS = st.fixed_dictionaries(
    {"subnet": _SUBNETS},
    optional={
        "ipVersion": st.sampled_from([4, 6]),
        "ips": st.lists(_RANGES, max_size=3),
        "excludeIPs": st.lists(_RANGES, max_size=3),
        "gateway": _ADDRESSES,
        "vlan": st.sampled_from([0, 5, 4095]),
        "routes": st.lists(
            st.fixed_dictionaries({"dst": _SUBNETS | _ADDRESSES, "gw": _ADDRESSES}), max_size=2
        ),
        "podAffinity": st.sampled_from([{}, {"matchLabels": {"a": "b"}}, {"matchExpressions": []}]),
    },
)


def titles(cases: list[Case]) -> Iterator[str]:
    for case in cases:
        yield f"{case.kind}-{case.title}".replace(" ", "-")
