"""Plans: candidates, filters and order together, for every documented rule, and that nothing is dropped
silently."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.decisions.auto_pool import ApplicationPools, InterfacePools, pool_affinity, pool_labels
from actors.decisions.candidates import (
    FROM_CLUSTER,
    FROM_CNI,
    FROM_NAMESPACE,
    FROM_PODS_POOL,
    FROM_PODS_POOLS,
    AddressRequest,
    expand,
)
from actors.decisions.filters import FILTERS, by_affinity, rank
from actors.decisions.plan import Plan, Slot, plan
from actors.decisions.settings import Settings
from actors.errors import (
    AddressTaken,
    DeadlineExceeded,
    InvalidObject,
    NoAddress,
    PodRefused,
    SubnetsExhausted,
)
from actors.resources.addresses import parse_address
from actors.resources.application import Application
from actors.resources.ippool import IPPool
from actors.resources.metadata import Owner
from actors.resources.namespace import Namespace
from actors.resources.node import Node
from actors.resources.pod import Pod

SUBNETS = {4: "10.6.0.0/16", 6: "fd00:6::/64"}
NODE = Node("n1", {"zone": "a"})
IPS = {4: ["10.6.0.10-10.6.0.20"], 6: ["fd00:6::10-fd00:6::20"]}


def pool(
    name: str, family: int = 4, *, deleting: bool = False, labels: dict[str, str] | None = None, **spec: Any
) -> IPPool:
    meta: dict[str, Any] = {"name": name, "labels": labels or {}}
    if deleting:
        meta["deletionTimestamp"] = "2025-01-31T12:00:00Z"
    spec = {"subnet": SUBNETS[family], "ips": IPS[family], **spec}
    return IPPool.from_object({"kind": "SpiderIPPool", "metadata": meta, "spec": spec})


def decide(
    *pools: IPPool,
    annotations: dict[str, Any] | None = None,
    namespace: dict[str, Any] | None = None,
    request: AddressRequest | None = None,
    settings: Settings | None = None,
    node: Node | None = NODE,
    labels: dict[str, str] | None = None,
) -> Plan:
    """A plan for pod shop/web-0 in namespace shop on node n1; annotation values that are not text become
    JSON."""

    def texts(values: dict[str, Any] | None) -> dict[str, str]:
        return {
            key: value if isinstance(value, str) else json.dumps(value)
            for key, value in (values or {}).items()
        }

    return plan(
        Pod("shop", "web-0", "u", labels or {"app": "web"}, texts(annotations)),
        Namespace("shop", {"env": "prod"}, texts(namespace)),
        node,
        {one.name: one for one in pools},
        request or AddressRequest(),
        settings or Settings(),
    )


def shape(made: Plan) -> list[tuple[str, int, tuple[str, ...]]]:
    return [(slot.interface, slot.family, slot.candidates) for slot in made.slots]


def rules(slot: Slot) -> list[tuple[str, str]]:
    return [(refusal.pool, refusal.rule) for refusal in slot.refusals]


POOLS = "ipam.spidernet.io/ippools"
POOL = "ipam.spidernet.io/ippool"
ALL_RULES = [
    (FROM_PODS_POOLS, "a"),
    (FROM_PODS_POOL, "b"),
    (FROM_NAMESPACE, "c"),
    (FROM_CNI, "d"),
    (FROM_CLUSTER, "e"),
]


def test_only_interfaces_that_the_pod_s_networks_name_are_reserved() -> None:
    """4,001 addresses for interfaces that do not exist would be nobody's. Whoever asks by itself is always served."""
    entries = [{"interface": name, "ipv4": ["a"]} for name in ("eth0", "net1", "net2", "net7")]
    one = {POOLS: entries, "k8s.v1.cni.cncf.io/networks": "x/y@net1"}
    listed, unlisted = Settings(networks_annotated=True), Settings()

    def served(annotations: dict[str, Any], settings: Settings, asking: str = "eth0") -> tuple[str, ...]:
        request = AddressRequest(asking)
        return decide(pool("a"), annotations=annotations, settings=settings, request=request).interfaces

    assert served(one, listed) == served(one, unlisted) == ("eth0", "net1")
    assert served(one, listed, "net7") == ("eth0", "net1", "net7")
    assert served({POOLS: entries}, listed) == ("eth0",)
    assert served({POOLS: entries}, listed, "net2") == ("eth0", "net2")
    assert served({POOLS: entries}, unlisted) == ("eth0", "net1", "net2", "net7")


def test_one_pod_can_ask_for_so_many_interfaces_only() -> None:
    entries = [{"interface": f"net{number}", "ipv4": ["a"]} for number in range(1200)]

    with pytest.raises(PodRefused, match="it has 1200 interfaces, but may have 32"):
        decide(pool("a"), annotations={POOLS: entries})


def test_a_search_ends_when_the_request_s_time_is_over() -> None:
    asked = iter(range(1000))

    def go_on() -> None:
        if next(asked) == 40:
            raise DeadlineExceeded("the time is over")

    names = json.dumps({"ipv4": ["p*", "q*"]})
    pools = {f"p{number}": pool(f"p{number}") for number in range(100)}
    with pytest.raises(DeadlineExceeded):
        plan(Pod("shop", "web-0", annotations={POOL: names}), None, None, pools, AddressRequest(), Settings(),
             go_on=go_on)  # fmt: skip
    assert next(asked) == 41


def test_names_like_a_misspelt_one_are_looked_for_a_few_times_only() -> None:
    pools = [pool(f"blue-{number}") for number in range(20)]
    made = decide(*pools, annotations={POOL: {"ipv4": [f"bleu-{number}" for number in range(200)]}})

    reasons = [refusal.reason for refusal in made.slots[0].refusals]
    assert len(reasons) == 200
    assert sum("similar names are" in reason for reason in reasons) == 3
    assert reasons[-1] == (
        "there is no such pool; IPv4 pools are blue-0, blue-1, blue-10, blue-11, blue-12 and 15 more"
    )


def test_a_refusal_shows_a_few_of_a_thousand_labels() -> None:
    labels = {f"l{number}": "x" for number in range(1000)}
    made = decide(pool("a", podAffinity={"matchLabels": {"app": "db"}}), annotations={POOL: {"ipv4": ["a"]}},
                  labels=labels)  # fmt: skip

    [refusal] = made.slots[0].refusals
    assert "and 984 more" in refusal.reason
    assert len(refusal.reason) < 400


@pytest.mark.parametrize("skip", range(5))
def test_the_first_rule_that_applies_decides(skip: int) -> None:
    """ippools, ippool, namespace, CNI configuration, cluster default: each outranks the ones after it."""
    pools = [pool(name, default=name == "e") for name in "abcde"]
    annotations = {POOLS: [{"interface": "eth0", "ipv4": ["a"]}], POOL: {"ipv4": ["b"]}}
    for key in [POOLS, POOL][:skip]:
        del annotations[key]
    made = decide(
        *pools,
        annotations=annotations,
        namespace={"ipam.spidernet.io/default-ipv4-ippool": ["c"]} if skip < 3 else {},
        request=AddressRequest(ipv4_pools=("d",) if skip < 4 else ()),
    )
    source, name = ALL_RULES[skip]

    assert shape(made) == [("eth0", 4, (name,))]
    assert made.slots[0].source == source
    assert made.notes == tuple(f"{rule}: not given" for rule, _ in ALL_RULES[:skip])
    assert made.require() is made


def test_without_any_rule_the_error_lists_the_rules() -> None:
    made = decide(pool("a"))

    assert made.slots == ()
    with pytest.raises(NoAddress, match="pod shop/web-0: no rule names a pool") as refusal:
        made.require()
    assert len(refusal.value.details) == 5


def test_cluster_defaults_come_from_settings_then_from_pools_for_each_family() -> None:
    made = decide(
        pool("z"),
        pool("b", default=True),
        pool("a", default=True),
        pool("six", 6, default=True),
        settings=Settings(default_ipv4_pools=("z",)),
    )

    assert shape(made) == [("eth0", 4, ("z", "a", "b")), ("eth0", 6, ("six",))]


def test_a_rule_with_one_family_gives_one_family_in_a_dual_stack_cluster() -> None:
    """As in Spiderpool: no IPv6 from a later rule, no error."""
    made = decide(pool("a"), pool("six", 6, default=True), annotations={POOL: {"ipv4": ["a"]}})

    assert shape(made.require()) == [("eth0", 4, ("a",))]


def test_cluster_defaults_of_one_family_only_give_that_family() -> None:
    assert shape(decide(pool("a", default=True)).require()) == [("eth0", 4, ("a",))]


def test_a_disabled_family_is_left_out_with_a_note() -> None:
    made = decide(
        pool("a"),
        pool("six", 6),
        annotations={POOL: {"ipv4": ["a"], "ipv6": ["six"]}},
        settings=Settings(enable_ipv6=False),
    )

    assert shape(made) == [("eth0", 4, ("a",))]
    assert "eth0 IPv6: left out, IPv6 is disabled in the settings" in made.reasons()


def test_only_disabled_families_is_no_address_with_the_reason() -> None:
    made = decide(pool("six", 6), annotations={POOL: {"ipv6": ["six"]}}, settings=Settings(enable_ipv6=False))

    with pytest.raises(NoAddress) as refusal:
        made.require()
    assert "IPv6 is disabled in the settings" in str(refusal.value)


def test_settings_without_any_family_are_refused() -> None:
    with pytest.raises(InvalidObject, match="enable at least one"):
        Settings(enable_ipv4=False, enable_ipv6=False)


def test_a_pool_that_does_not_exist_is_refused_and_the_others_are_tried() -> None:
    made = decide(pool("blue-1"), pool("blue-2"), annotations={POOL: {"ipv4": ["blue-3", "blue-2"]}})

    assert shape(made.require()) == [("eth0", 4, ("blue-2",))]
    assert rules(made.slots[0]) == [("blue-3", "exists")]
    assert "similar names are blue-2, blue-1" in made.slots[0].refusals[0].reason


def test_a_pool_that_cannot_be_read_is_refused_with_the_reason() -> None:
    pod = Pod("shop", "web-0", annotations={POOL: '{"ipv4": ["bad", "good"]}'})
    why = {"bad": "SpiderIPPool bad: spec.subnet is null"}
    made = plan(pod, None, None, {"good": pool("good")}, AddressRequest(), Settings(), why)

    assert shape(made) == [("eth0", 4, ("good",))]
    assert (
        "pool bad refused: damaged: SpiderIPPool bad: spec.subnet is null; mend the object"
        in made.reasons()[-1]
    )


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["b*"], ("blue-1", "blue-2", "bluf")),
        (["blue-?"], ("blue-1", "blue-2")),
        (["blue-[2-9]"], ("blue-2",)),
        (["blue-[^1]"], ("blue-2",)),
        (["blue-[!1]"], ("blue-2",)),
        (["green", "b*", "blue-1", "*"], ("green", "blue-1", "blue-2", "bluf")),
    ],
)
def test_wildcards_give_the_pools_of_the_family_by_name_once(
    patterns: list[str], expected: tuple[str, ...]
) -> None:
    pools = [pool(name) for name in ("bluf", "blue-2", "green", "blue-1")] + [pool("blue-6", 6)]

    assert shape(decide(*pools, annotations={POOL: {"ipv4": patterns}})) == [("eth0", 4, expected)]


def test_a_wildcard_that_matches_nothing_is_a_refusal() -> None:
    made = decide(pool("a"), pool("six", 6), annotations={POOL: {"ipv4": ["a"], "ipv6": ["x*"]}})

    assert rules(made.slots[1]) == [("x*", "exists")]
    with pytest.raises(NoAddress, match="no pool may give it an address for eth0 IPv6"):
        made.require()


def test_several_interfaces_are_planned_in_one_request() -> None:
    entries = [
        {"interface": "eth0", "ipv4": ["a"], "ipv6": ["six"]},
        {"interface": "net1", "ipv4": ["b"], "cleangateway": True},
    ]
    made = decide(
        pool("a"), pool("b"), pool("six", 6), annotations={POOLS: entries}, request=AddressRequest("net1")
    )

    assert shape(made) == [("eth0", 4, ("a",)), ("eth0", 6, ("six",)), ("net1", 4, ("b",))]
    assert [slot.clean_gateway for slot in made.slots] == [False, False, True]
    assert made.interfaces == ("eth0", "net1")
    assert [slot.family for slot in made.of("eth0")] == [4, 6]


def test_interfaces_left_out_follow_the_order_of_the_networks() -> None:
    entries = [{"ipv4": ["a"]}, {"ipv4": ["b"]}, {"ipv4": ["a"]}]
    networks = {"k8s.v1.cni.cncf.io/networks": "orbweaver-system/macvlan@data"}
    made = decide(pool("a"), pool("b"), annotations={POOLS: entries, **networks})

    assert made.interfaces == ("eth0", "data")
    assert made.notes[-1].startswith("net2: left out, no network in the pod's annotation ")


def test_a_single_entry_without_interface_is_for_whoever_asks() -> None:
    made = decide(pool("a"), annotations={POOLS: [{"ipv4": ["a"]}]}, request=AddressRequest("net1"))

    assert made.interfaces == ("net1",)


def test_cni_configuration_decides_the_gateway_unless_the_annotation_names_interfaces() -> None:
    request = AddressRequest(clean_gateway=True)

    assert decide(pool("a"), annotations={POOL: {"ipv4": ["a"]}}, request=request).slots[0].clean_gateway
    named = [{"interface": "eth0", "ipv4": ["a"]}]
    assert not decide(pool("a"), annotations={POOLS: named}, request=request).slots[0].clean_gateway


def test_field_names_are_taken_in_any_case() -> None:
    made = decide(
        pool("a"), annotations={POOLS: [{"Interface": "eth0", "IPv4": ["a"], "cleanGateway": True}]}
    )

    assert made.slots[0].clean_gateway


LABELS = {"matchLabels": {"app": "web"}}
REFUSING: list[tuple[str, IPPool, str]] = [
    ("terminating", pool("p", deleting=True), "is being deleted"),
    ("disabled", pool("p", disable=True), "set it to false"),
    ("family", pool("p", 6), "name it under ipv6"),
    ("node name", pool("p", nodeName=["n2", "n3"]), "spec.nodeName [n2, n3] does not have node n1"),
    (
        "node affinity",
        pool("p", nodeAffinity={"matchLabels": {"zone": "b"}}),
        "zone=b does not match node n1 (labels zone=a)",
    ),
    ("namespace name", pool("p", namespaceName=["bank"]), "does not have namespace shop"),
    (
        "namespace affinity",
        pool("p", namespaceAffinity=LABELS),
        "app=web does not match namespace shop (labels env=prod)",
    ),
    (
        "pod affinity",
        pool("p", podAffinity={"matchLabels": {"app": "db"}}),
        "app=db does not match pod shop/web-0 (labels app=web)",
    ),
    (
        "pod affinity",
        pool("p", podAffinity=LABELS, labels={"ipam.spidernet.io/owner-application-name": "x"}),
        "SpiderSubnet",
    ),
    (
        "multus name",
        pool("p", multusName=["macvlan"]),
        "spec.multusName [orbweaver-system/macvlan] does not fit interface eth0",
    ),
]


@pytest.mark.parametrize(("rule", "refused", "says"), REFUSING)
def test_each_filter_refuses_with_its_rule_and_reason_and_spares_the_rest(
    rule: str, refused: IPPool, says: str
) -> None:
    made = decide(refused, pool("good"), annotations={POOL: {"ipv4": ["p", "good"]}})

    assert made.slots[0].candidates == ("good",)
    assert rules(made.slots[0]) == [("p", rule)]
    assert says in made.slots[0].refusals[0].reason
    assert any(line.startswith(f"eth0 IPv4: pool p refused: {rule}: ") for line in made.reasons())


@pytest.mark.parametrize(
    "fitting",
    [
        pool("p", nodeName=["n1"], nodeAffinity={"matchLabels": {"zone": "b"}}),
        pool("p", nodeAffinity={"matchLabels": {"zone": "a"}}),
        pool("p", namespaceName=["shop"], namespaceAffinity=LABELS),
        pool("p", namespaceAffinity={"matchLabels": {"env": "prod"}}),
        pool("p", podAffinity=LABELS),
        pool("p", multusName=["other", "orbweaver-system/macvlan"]),
        pool("p", multusName=["macvlan"]),
    ],
)
def test_what_fits_is_taken_and_names_outrank_affinities(fitting: IPPool) -> None:
    annotations = {POOL: {"ipv4": ["p"]}, "v1.multus-cni.io/default-network": "macvlan"}

    assert shape(decide(fitting, annotations=annotations).require()) == [("eth0", 4, ("p",))]


def test_all_reasons_of_all_pools_are_reported() -> None:
    made = decide(
        pool("a", disable=True, nodeName=["n2"]),
        pool("b", 6),
        annotations={POOL: {"ipv4": ["a", "b", "c"]}},
    )

    assert rules(made.slots[0]) == [("c", "exists"), ("a", "disabled"), ("a", "node name"), ("b", "family")]
    with pytest.raises(NoAddress) as refusal:
        made.require()
    assert all(any(f"pool {name} refused" in line for line in refusal.value.details) for name in "abc")


def test_without_a_node_object_node_affinity_cannot_be_checked_but_names_can() -> None:
    affine = pool("a", nodeAffinity={"matchLabels": {"zone": "a"}})
    made = decide(affine, annotations={POOL: {"ipv4": ["a"]}}, node=None)

    assert rules(made.slots[0]) == [("a", "node affinity")]
    assert "apply a Node object" in made.slots[0].refusals[0].reason


def test_without_a_namespace_object_its_name_label_is_known() -> None:
    selector = {"matchLabels": {"kubernetes.io/metadata.name": "default"}}
    one = pool("a", namespaceAffinity=selector, default=True)
    made = plan(Pod.bare("default", "c1"), None, None, {"a": one}, AddressRequest(), Settings())

    assert shape(made.require()) == [("eth0", 4, ("a",))]


@pytest.mark.parametrize(
    ("interface", "annotations", "settings", "fits"),
    [
        ("eth0", {}, Settings(), False),
        ("eth0", {}, Settings(multus_cluster_network="orbweaver-system/macvlan"), True),
        (
            "eth0",
            {"v1.multus-cni.io/default-network": "other"},
            Settings(multus_cluster_network="macvlan"),
            False,
        ),
        ("eth0", {"v1.multus-cni.io/default-network": [{"name": "macvlan"}]}, Settings(), True),
        ("net1", {"k8s.v1.cni.cncf.io/networks": "macvlan"}, Settings(), False),
        ("net1", {"k8s.v1.cni.cncf.io/networks": "orbweaver-system/macvlan"}, Settings(), True),
        ("net2", {"k8s.v1.cni.cncf.io/networks": "other, orbweaver-system/macvlan"}, Settings(), True),
        ("data", {"k8s.v1.cni.cncf.io/networks": "orbweaver-system/macvlan@data"}, Settings(), True),
        ("net1", {"k8s.v1.cni.cncf.io/networks": "orbweaver-system/macvlan@data"}, Settings(), False),
        (
            "net1",
            {"k8s.v1.cni.cncf.io/networks": [{"name": "macvlan", "namespace": "orbweaver-system"}]},
            Settings(),
            True,
        ),
    ],
)
def test_the_network_of_an_interface(
    interface: str, annotations: dict[str, Any], settings: Settings, fits: bool
) -> None:
    """eth0: the pod's default network, else the cluster's, in the agent's namespace. Others: in the pod's."""
    made = decide(
        pool("a", multusName=["orbweaver-system/macvlan"]),
        annotations={POOL: {"ipv4": ["a"]}, **annotations},
        request=AddressRequest(interface),
        settings=settings,
    )

    assert made.slots[0].candidates == (("a",) if fits else ())


def test_an_exact_address_is_one_slot_and_pools_without_it_are_refused() -> None:
    made = decide(
        pool("a", excludeIPs=["10.6.0.15"]),
        pool("b", ips=["10.6.0.15"]),
        pool("c", ips=["10.6.9.1"]),
        pool("six", 6),
        annotations={POOL: {"ipv4": ["a", "b", "c"], "ipv6": ["six"]}},
        request=AddressRequest(exact=(parse_address("10.6.0.15"),)),
    )

    assert shape(made) == [("eth0", 4, ("b",)), ("eth0", 6, ("six",))]
    assert [slot.exact for slot in made.slots] == [0x0A06000F, None]
    assert [refusal.rule for refusal in made.slots[0].refusals] == ["address", "address"]
    assert "spec.excludeIPs" in made.slots[0].refusals[0].reason
    assert "10.6.9.1" in made.slots[0].refusals[1].reason


@pytest.mark.parametrize(
    ("ips", "refusal"), [(["10.6.9.1"], AddressTaken), ([], NoAddress)], ids=["not its", "no pool"]
)
def test_an_address_that_no_pool_has_is_refused_for_itself(ips: list[str], refusal: type[NoAddress]) -> None:
    """CNI code 102 says that another address would do; 101 that no pool would."""
    made = decide(
        pool("a", ips=ips or ["10.6.0.15"], disable=not ips),
        annotations={POOL: {"ipv4": ["a"]}},
        request=AddressRequest(exact=(parse_address("10.6.0.15"),)),
    )
    with pytest.raises(NoAddress) as refused:
        made.require()

    assert type(refused.value) is refusal


def test_exact_addresses_of_the_networks_annotation() -> None:
    networks = [{"name": "macvlan", "interface": "net1", "ips": ["10.6.0.15/16", "fd00:6::15"]}]
    annotations = {POOL: {"ipv4": ["a"], "ipv6": ["six"]}, "k8s.v1.cni.cncf.io/networks": networks}
    same = AddressRequest("net1", exact=(parse_address("10.6.0.15"),))

    made = decide(pool("a"), pool("six", 6), annotations=annotations, request=same)
    assert [slot.exact for slot in made.slots] == [0x0A06000F, parse_address("fd00:6::15")[1]]
    assert [slot.exact for slot in decide(pool("a"), pool("six", 6), annotations=annotations).slots] == [
        None,
        None,
    ]
    with pytest.raises(
        PodRefused, match=r"asks for two IPv4 addresses, 10\.6\.0\.16 \(the CNI request\) and 10\.6\.0\.15"
    ):
        decide(
            pool("a"),
            annotations=annotations,
            request=AddressRequest("net1", exact=(parse_address("10.6.0.16"),)),
        )


def test_an_exact_address_of_a_family_that_is_not_considered_is_refused() -> None:
    with pytest.raises(PodRefused, match=r"asks for fd00:6::15, but no IPv6 pool is considered"):
        decide(pool("a", default=True), request=AddressRequest(exact=(parse_address("fd00:6::15"),)))


def test_an_ended_pod_is_refused() -> None:
    with pytest.raises(PodRefused, match="because it was evicted"):
        plan(
            Pod("shop", "web-0", phase="Failed", reason="Evicted"),
            None,
            None,
            {},
            AddressRequest(),
            Settings(),
        )


SUBNET = "ipam.spidernet.io/subnet"
OF_WEB = Pod(
    "shop",
    "web-0",
    owner=Owner("apps/v1", "ReplicaSet", "web", "u"),
    annotations={SUBNET: '{"ipv4": ["floor"], "ipv6": ["floor-v6"]}', POOL: '{"ipv4": ["a"]}'},
)
WEB = Application("apps", "v1", "Deployment", "shop", "web", "w")


def of_web(
    *pools: IPPool,
    made: Sequence[InterfacePools],
    settings: Settings | None = None,
    interface: str = "eth0",
    application: Application = WEB,
) -> Plan:
    return plan(
        OF_WEB,
        None,
        None,
        {one.name: one for one in pools},
        AddressRequest(interface),
        settings or Settings(),
        auto=ApplicationPools(application, SUBNET, tuple(made)),
    )


def test_the_pools_of_the_application_outrank_every_other_rule() -> None:
    made = of_web(
        pool("a"),
        pool("auto-1"),
        pool("auto-2"),
        pool("auto-6", 6),
        made=[InterfacePools("eth0", 4, ("auto-2", "auto-1")), InterfacePools("eth0", 6, ("auto-6",))],
    )

    assert [(slot.label, slot.candidates) for slot in made.slots] == [
        ("eth0 IPv4", ("auto-2", "auto-1")),
        ("eth0 IPv6", ("auto-6",)),
    ]
    assert {slot.source for slot in made.slots} == {f"pod annotation {SUBNET}"}


def test_a_family_without_a_pool_refuses_the_pod_and_not_only_the_family() -> None:
    made = [
        InterfacePools("eth0", 4, ("auto-1",)),
        InterfacePools("eth0", 6, (), "floor-v6: required 3, left 0"),
    ]

    with pytest.raises(SubnetsExhausted, match=r"pod shop/web-0 of Deployment shop/web.*required 3, left 0"):
        of_web(pool("auto-1"), made=made)
    only_four = of_web(pool("auto-1"), made=made, settings=Settings(enable_ipv6=False))
    assert [slot.label for slot in only_four.slots] == ["eth0 IPv4"]


def test_what_an_application_has_to_spare_serves_nobody_else() -> None:
    """Whatever names the pool: an annotation of another pod, a wildcard, or the cluster's default."""
    mine = dict(pool_labels(WEB, "eth0", reclaim=True))
    auto = pool("auto-1", labels=mine, podAffinity={"matchLabels": dict(pool_affinity(WEB))})
    theirs = {"app": "web", **dict(pool_affinity(WEB)), **mine}

    other = replace(WEB, name="other")
    assert of_web(auto, made=[InterfacePools("eth0", 4, ("auto-1",))]).slots[0].candidates == ("auto-1",)
    for found in (
        decide(auto, annotations={POOL: {"ipv4": ["auto-1"]}}, labels=theirs),
        decide(auto, annotations={POOL: {"ipv4": ["auto-*"]}}, labels=theirs),
        of_web(auto, made=[InterfacePools("eth0", 4, ("auto-1",))], application=other),
    ):
        assert found.slots[0].candidates == ()
        (refusal,) = found.slots[0].refusals
        assert (refusal.rule, refusal.reason.partition(";")[0]) == (
            "pod affinity",
            "it was made for the pods of Deployment shop/web and serves no other",
        )


def test_an_interface_that_the_annotation_does_not_name_is_refused() -> None:
    with pytest.raises(PodRefused, match="has entries for eth0 but none for interface net1"):
        of_web(pool("auto-1"), made=[InterfacePools("eth0", 4, ("auto-1",))], interface="net1")


def test_a_pod_that_asks_for_subnets_goes_no_other_way() -> None:
    pools = {"a": pool("a", default=True)}
    asks = (None, None, pools, AddressRequest())

    with pytest.raises(PodRefused, match="which pools were made for its application is not known"):
        plan(OF_WEB, *asks, Settings())
    with pytest.raises(PodRefused, match=r"switch those off \(enableAutoPoolForApplication: false\)"):
        plan(OF_WEB, *asks, Settings(enable_auto_pools=False))
    with pytest.raises(PodRefused, match="the pod has no controller that such a pool could follow"):
        plan(replace(OF_WEB, owner=None), *asks, Settings())
    without = plan(OF_WEB, *asks, Settings(enable_subnets=False))
    assert without.slots[0].candidates == ("a",), "as if the annotation were not there"


def test_the_default_route_interface_must_be_one_of_the_pods() -> None:
    key = "ipam.spidernet.io/default-route-nic"
    networks = {"k8s.v1.cni.cncf.io/networks": "macvlan@data"}

    assert decide(pool("a", default=True), annotations={key: "data", **networks}).default_route_nic == "data"
    with pytest.raises(
        PodRefused, match=r"default-route-nic is net7, but the pod's interfaces are eth0, data"
    ):
        decide(pool("a", default=True), annotations={key: "net7", **networks})


def test_a_broken_namespace_annotation_hurts_only_pods_that_reach_its_rule() -> None:
    broken = {"ipam.spidernet.io/default-ipv4-ippool": "blue"}

    assert decide(pool("a"), annotations={POOL: {"ipv4": ["a"]}}, namespace=broken).slots
    with pytest.raises(
        PodRefused,
        match=r"namespace shop: annotation ipam\.spidernet\.io/default-ipv4-ippool: it is not JSON",
    ):
        decide(pool("a"), namespace=broken)


SPECS: list[dict[str, Any]] = [
    {"podAffinity": LABELS},
    {"nodeName": ["n1"]},
    {"nodeAffinity": {"matchLabels": {"zone": "a"}}},
    {"namespaceName": ["shop"]},
    {"namespaceAffinity": {"matchLabels": {"env": "prod"}}},
    {"multusName": ["orbweaver-system/macvlan"]},
    {},
]


def test_the_more_specific_pool_is_tried_first() -> None:
    """Pod, node name, node, namespace name, namespace, multus name, none: whatever the annotation's order."""
    pools = [pool(f"p{index}", **spec) for index, spec in enumerate(SPECS)]
    made = decide(
        *pools,
        annotations={POOL: {"ipv4": [f"p{index}" for index in (3, 6, 0, 5, 1, 4, 2)]}},
        settings=Settings(multus_cluster_network="macvlan"),
    )

    assert made.slots[0].candidates == tuple(f"p{index}" for index in range(7))


def test_equal_pools_keep_the_order_of_the_annotation() -> None:
    made = decide(pool("a"), pool("b"), pool("c"), annotations={POOL: {"ipv4": ["c", "a", "b"]}})

    assert made.slots[0].candidates == ("c", "a", "b")


merged = st.lists(st.sampled_from(SPECS), max_size=3).map(
    lambda parts: {k: v for part in parts for k, v in part.items()}
)
some_pools = st.lists(
    st.tuples(merged, st.sampled_from([4, 6]), st.booleans(), st.booleans()), max_size=8
).map(
    lambda rows: [
        pool(f"p{index}", family, deleting=deleting, disable=disabled, **spec)
        for index, (spec, family, deleting, disabled) in enumerate(rows)
    ]
)
names = st.lists(
    st.sampled_from([*(f"p{index}" for index in range(9)), "p*", "p[0-3]", "q?"]), min_size=1, max_size=6
)


@given(
    some_pools, names, names, st.dictionaries(st.sampled_from(["app", "x"]), st.sampled_from(["web", "y"]))
)
def test_every_named_pool_is_a_candidate_or_refused_and_never_both(
    pools: list[IPPool], four: list[str], six: list[str], labels: dict[str, str]
) -> None:
    """Candidates are of the family, exist, are in order of rank, and once; all others have a reason. It is a
    pure function: asked again it says the same."""
    by_name = {one.name: one for one in pools}
    annotations = {POOL: {"ipv4": four, "ipv6": six}}
    made = decide(*pools, annotations=annotations, labels=labels)

    assert decide(*pools, annotations=annotations, labels=labels) == made
    assert [slot.family for slot in made.slots] == [4, 6]
    for slot, wanted in zip(made.slots, (four, six), strict=True):
        expanded, missing = expand(wanted, slot.family, by_name, {})
        refused = {refusal.pool for refusal in slot.refusals}
        assert set(slot.candidates) | refused == set(expanded) | {refusal.pool for refusal in missing}
        assert not set(slot.candidates) & refused
        assert len(set(slot.candidates)) == len(slot.candidates)
        chosen = [by_name[name] for name in slot.candidates]
        assert all(one.family == slot.family and not one.disabled and not one.terminating for one in chosen)
        assert [rank(one) for one in chosen] == sorted(rank(one) for one in chosen)


@given(some_pools)
def test_order_is_a_stable_permutation(pools: list[IPPool]) -> None:
    ordered = by_affinity(pools)

    assert sorted(one.name for one in ordered) == sorted(one.name for one in pools)
    for first, second in pairwise(ordered):
        assert rank(first) < rank(second) or pools.index(first) < pools.index(second)


@given(st.text(st.sampled_from("ab*?[]^!-\\"), max_size=8))
def test_no_pattern_breaks_the_expansion(pattern: str) -> None:
    found, missing = expand([pattern], 4, {"a": pool("a"), "ab": pool("ab")}, {})

    assert bool(found) != bool(missing)


def test_every_filter_has_a_refusing_example() -> None:
    assert len(FILTERS) - 1 == len(
        {rule.split()[0] for rule, _, _ in REFUSING}
    )  # by_address has tests of its own
