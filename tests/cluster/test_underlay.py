"""Macvlan pods with the coordinator in a real cluster: kubelet, Services, and a second interface."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.deployment import CONFLIST, POOL, pods, records, workload
from tests.cluster.node import Node

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(1800)]

NETWORKS = "network-attachment-definitions"
SERVICES = "10.96.0.0/16"
ROUTER, RED_ROUTER = "10.99.0.1", "10.98.0.1"
# Not wget's own -T: the static busybox crashes on it where there are no shared libraries.
FETCH = ("busybox", "timeout", "60", "busybox", "wget", "-q", "-O", "-")
PAGE = "served by a macvlan pod"
BLUE = {**POOL, "metadata": {"name": "blue"},
        "spec": {"subnet": "10.99.0.0/16", "ips": ["10.99.101.10-10.99.101.20"], "gateway": ROUTER}}  # fmt: skip
RED = {**POOL, "metadata": {"name": "red"},
       "spec": {"subnet": "10.98.0.0/16", "ips": ["10.98.101.10-10.98.101.20"], "gateway": RED_ROUTER}}  # fmt: skip


def subnet(name: str, cidr: str, *ips: str, **spec: Any) -> dict[str, Any]:
    """A SpiderSubnet."""
    body = {"subnet": cidr, "ips": list(ips), **spec}
    return {
        "apiVersion": POOL["apiVersion"],
        "kind": "SpiderSubnet",
        "metadata": {"name": name},
        "spec": body,
    }


def multus_config(name: str) -> dict[str, Any]:
    """A macvlan network on the node's card; the coordinator behind it learns the Services' CIDR."""
    return {
        "apiVersion": "spiderpool.spidernet.io/v2beta1",
        "kind": "SpiderMultusConfig",
        "metadata": {"name": name, "annotations": {"multus.spidernet.io/cni-version": "1.0.0"}},
        "spec": {"cniType": "macvlan", "macvlan": {"master": ["eth0"], "ippools": {"ipv4": [name]}}},
    }


def network(cluster: Cluster, name: str) -> dict[str, Any]:
    """What the controller made of it."""
    made: dict[str, Any] = json.loads(cluster.get(NETWORKS, name)["spec"]["config"])
    return made


@pytest.fixture(scope="module")
def underlay(deployed: Cluster) -> Iterator[Cluster]:
    """A Deployment with a readiness probe, and its Service, on the underlay."""
    deployed.apply(BLUE, RED, multus_config("blue"), multus_config("red"))
    deployed.kubectl("wait", "--for=condition=Ready", "smc", "blue", "red", "--timeout=180s")
    blue = network(deployed, "blue")
    for node in deployed.nodes.values():
        node.configure(blue)
    probe = {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1, "timeoutSeconds": 5}
    serve = f"mkdir /www; echo {PAGE} > /www/index.html; exec httpd -f -p 8080 -h /www"
    deployed.apply(
        workload("Deployment", "web", 4, command=["sh", "-c", serve], readinessProbe=probe),
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "web"},
            "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]},
        },
    )
    yield deployed
    deployed.kubectl("delete", "deployment/web", "service/web", "--timeout=180s", "--ignore-not-found")
    deployed.wait("nothing is recorded any more", lambda: records(deployed) == [])
    deployed.kubectl("delete", "spiderippool", "blue", "red", "--timeout=180s")
    deployed.kubectl("delete", "smc", "blue", "red")
    deployed.wait("Kubernetes removes their networks", lambda: deployed.items(NETWORKS) == [])
    for node in deployed.nodes.values():
        node.configure(CONFLIST)


def plugin(node: Node, network: dict[str, Any], number: int, command: str, **call: Any) -> Any:
    """Execute one plugin of a network as containerd would; its result."""
    conf = {**network["plugins"][number], "cniVersion": network["cniVersion"], "name": network["name"]}
    if "previous" in call:
        conf["prevResult"] = call.pop("previous")
    file = node.directory / "call.json"
    file.write_text(json.dumps(conf))
    variables = [f"CNI_{key.upper()}={value}" for key, value in call.items()]
    run = f"exec {node.plugins / conf['type']} < {file}"
    said = node.call("env", f"CNI_COMMAND={command}", f"CNI_PATH={node.plugins}", *variables, "sh", "-c", run)
    return json.loads(said) if said.strip() else None


@contextmanager
def second_interface(cluster: Cluster, pod: str, where: str, uid: str) -> Iterator[str]:
    """The address of `net1`, which a pod has of the network `red` meanwhile: macvlan and the coordinator are called as Multus
    calls them."""
    node, red = cluster.nodes[where], network(cluster, "red")
    container, netns = node.sandbox(uid)
    call = {
        "containerid": container,
        "netns": netns,
        "ifname": "net1",
        "args": f"IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={pod};K8S_POD_UID={uid}",
    }
    attached = plugin(node, red, 0, "ADD", **call)
    try:
        assert plugin(node, red, 1, "ADD", **call, previous=attached) == attached
        yield attached["ips"][0]["address"].partition("/")[0]
        plugin(node, red, 1, "CHECK", **call, previous=attached)
    finally:
        for number in (1, 0):
            plugin(node, red, number, "DEL", **call, previous=attached)


def lines(cluster: Cluster, pod: str, *command: str) -> list[str]:
    """What a command in a pod prints, with single spaces. Who made a route is left out, as in the guide: one busybox
    prints it, another does not."""
    said = cluster.kubectl("exec", pod, "--", *command)
    return [re.sub(r" proto \w+", "", " ".join(line.split())) for line in said.splitlines() if line.strip()]


def served_by(node: Node, addresses: list[str]) -> bool:
    """Whether the node's rules for Services lead to each of these addresses."""
    rules = node.call("nft", "list", "table", "ip", "kube-proxy")
    return all(f"dnat to {address}:8080" in rules for address in addresses)


def test_the_kubelet_finds_the_pods_ready_and_their_service_answers_everywhere(underlay: Cluster) -> None:
    """The kubelet's probe comes from the pod's own node, which plain macvlan does not reach."""
    underlay.kubectl("rollout", "status", "deployment/web", "--timeout=180s")
    web = pods(underlay, "web")
    assert {node for node, _, _ in web.values()} == set(underlay.nodes)
    service = underlay.get("service", "web")["spec"]["clusterIP"]
    underlay.wait(
        "each kube-proxy knows of all pods",
        lambda: all(served_by(node, [one for _, one, _ in web.values()]) for node in underlay.nodes.values()),
    )

    for pod, (here, _, _) in web.items():
        for url in (f"http://{service}/", *(f"http://{address}:8080/" for _, address, _ in web.values())):
            # More often than there are pods, so that both an endpoint here and one on the other node are met.
            for _ in range(6 if service in url else 1):
                assert lines(underlay, pod, *FETCH, url) == [PAGE]
        assert lines(underlay, pod, "ping", "-c", "1", "-W", "60", underlay.nodes[here].address)
    for node in underlay.nodes.values():
        for url in (f"http://{service}/", *(f"http://{address}:8080/" for _, address, _ in web.values())):
            for _ in range(6 if service in url else 1):
                assert node.call(*FETCH, url).strip() == PAGE


def test_a_second_interface_has_the_tables_of_the_guide(underlay: Cluster) -> None:
    """Spiderpool's guide "Pod annotation of multi-NIC", from SpiderMultusConfigs, line by line, with this cluster's
    addresses; the plugins are called as Multus calls them, since that is not to be had here."""
    underlay.kubectl("rollout", "status", "deployment/web", "--timeout=180s")
    pod, (where, blue, uid) = next(iter(pods(underlay, "web").items()))
    node = underlay.nodes[where]
    with second_interface(underlay, pod, where, uid) as address:
        rules = [line for line in lines(underlay, pod, "ip", "rule") if "fwmark" not in line]
        assert rules == [
            "0: from all lookup local",
            f"32764: from {address} lookup 100",
            f"32765: from all to {address}/16 lookup 100",
            "32766: from all lookup main",
            "32767: from all lookup default",
        ]
        assert sorted(lines(underlay, pod, "ip", "route", "show", "table", "main")) == sorted(
            [
                f"default via {ROUTER} dev eth0",
                f"{SERVICES} via {node.address} dev veth0 src {blue}",
                f"10.99.0.0/16 dev eth0 scope link src {blue}",
                f"{node.address} dev veth0 scope link src {blue}",
            ]
        )
        assert sorted(lines(underlay, pod, "ip", "route", "show", "table", "100")) == sorted(
            [
                f"default via {RED_ROUTER} dev net1",
                f"{node.address} dev veth0 scope link",
                f"10.98.0.0/16 dev net1 scope link src {address}",
                f"{SERVICES} via {node.address} dev veth0",
            ]
        )
        for target in (blue, address):
            node.call("busybox", "ping", "-c", "1", "-W", "60", target)
        service = underlay.get("service", "web")["spec"]["clusterIP"]
        assert lines(underlay, pod, *FETCH, f"http://{service}/") == [PAGE]
    assert not [line for line in lines(underlay, pod, "ip", "rule") if "lookup 100" in line]


def test_the_guide_of_two_interfaces_by_subnets_has_its_addresses_rules_and_routes(underlay: Cluster) -> None:
    """Spiderpool's guide "multiple NICs by subnet" in the pod's own namespace, line by line, with this cluster's addresses;
    what is there beside the guide's lines is what `cni/dataplane/README.md` shows."""
    first = subnet(
        "subnet-test-ens192", "10.99.128.0/17", "10.99.169.171-10.99.169.180", gateway="10.99.128.1"
    )
    second = subnet("subnet-test-ens224", "10.7.0.0/16", "10.7.169.171-10.7.169.180", gateway="10.7.0.1")
    underlay.apply(first, second)
    wished = [
        {"interface": "eth0", "ipv4": ["subnet-test-ens192"]},
        {"interface": "net1", "ipv4": ["subnet-test-ens224"]},
    ]
    application = workload("Deployment", "test-app", 2)
    application["spec"]["template"]["metadata"]["annotations"] = {
        "ipam.spidernet.io/subnets": json.dumps(wished),
        "ipam.spidernet.io/ippool-ip-number": "+1",
        "k8s.v1.cni.cncf.io/networks": "default/red",
    }
    underlay.apply(application)
    try:
        underlay.wait("both pods run", lambda: len(pods(underlay, "test-app")) == 2, 180)
        pod, (where, eth0, uid) = next(iter(pods(underlay, "test-app").items()))
        host = underlay.nodes[where].address
        with second_interface(underlay, pod, where, uid) as net1:
            for interface, address, broadcast, length in (
                ("eth0", eth0, "10.99.255.255", 17),
                ("net1", net1, "10.7.255.255", 16),
            ):
                shown = lines(underlay, pod, "ip", "-4", "addr", "show", "dev", interface)
                guide = f"inet {address}/{length} brd {broadcast} scope global {interface}"
                assert shown[1:] == [guide, "valid_lft forever preferred_lft forever"]
            assert net1 in {f"10.7.169.{last}" for last in (171, 172, 173)}
            assert eth0 in {f"10.99.169.{last}" for last in (171, 172, 173)}
            assert lines(underlay, pod, "ip", "rule", "show") == [
                "0: from all lookup local",
                "1000: from all fwmark 0x1 lookup 500",  # not in the guide
                "1000: from all fwmark 0x2 lookup main",  # not in the guide
                f"32764: from {net1} lookup 100",
                f"32765: from all to {net1}/16 lookup 100",
                "32766: from all lookup main",
                "32767: from all lookup default",
            ]
            assert set(lines(underlay, pod, "ip", "route", "show", "table", "main")) == {
                "default via 10.99.128.1 dev eth0",
                f"{SERVICES} via {host} dev veth0 src {eth0}",  # these three are not in the guide
                f"{host} dev veth0 scope link src {eth0}",
                f"10.99.128.0/17 dev eth0 scope link src {eth0}",
            }
            assert set(lines(underlay, pod, "ip", "route", "show", "table", "100")) == {
                "default via 10.7.0.1 dev net1",
                f"10.7.0.0/16 dev net1 scope link src {net1}",
                f"{SERVICES} via {host} dev veth0",
                f"{host} dev veth0 scope link",
            }
    finally:
        underlay.kubectl("delete", "deployment/test-app", "--timeout=180s")
        underlay.wait(
            "its pools are gone",
            lambda: not underlay.items("spiderippools", "-l", "ipam.spidernet.io/owner-application-name"),
            180,
        )
        underlay.kubectl("delete", "spidersubnet", "--all", "--timeout=180s")


def test_a_network_is_right_again_within_a_second_of_what_is_done_to_it(underlay: Cluster) -> None:
    """By kubectl, as a person would; the controller has only the rights of deploy/."""
    before = underlay.get(NETWORKS, "red")
    for change in (
        ("patch", NETWORKS, "red", "--type=merge", "-p", '{"spec":{"config":"{}"}}'),
        ("delete", NETWORKS, "red"),
    ):
        underlay.kubectl(*change)
        underlay.wait("the network is as before", lambda: restored(underlay, before["spec"]))
    assert (
        underlay.get(NETWORKS, "red")["metadata"]["ownerReferences"] == before["metadata"]["ownerReferences"]
    )
    underlay.wait(
        "an Event tells of it",
        lambda: (
            "NetworkRepaired" in underlay.kubectl("get", "events", "--field-selector=involvedObject.name=red")
        ),
    )


def restored(cluster: Cluster, spec: dict[str, Any]) -> bool:
    return any(one["metadata"]["name"] == "red" and one["spec"] == spec for one in cluster.items(NETWORKS))
