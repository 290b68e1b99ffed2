"""Applications with pools of their own in a real cluster: every kind of controller, and the guide of two interfaces."""

from __future__ import annotations

import json
from collections.abc import Iterator
from ipaddress import IPv4Address
from typing import Any

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.deployment import pods, records, workload
from tests.cluster.pod_logs import NAMESPACE
from tests.support.other_kinds import API_VERSION, FLEET, GROUP

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(1800)]

API = "spiderpool.spidernet.io/v2beta1"
NAME = "ipam.spidernet.io/owner-application-name"
FLOOR = {"ipam.spidernet.io/subnet": '{"ipv4": ["floor"]}'}


WATCH_FLEETS: tuple[dict[str, Any], ...] = (
    {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": "tests-fleets"},
        "rules": [{"apiGroups": [GROUP], "resources": ["fleets"], "verbs": ["get", "list", "watch"]}],
    },
    {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "tests-fleets"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "tests-fleets"},
        "subjects": [{"kind": "ServiceAccount", "name": "orbweaver-controller", "namespace": NAMESPACE}],
    },
)


def subnet(name: str, cidr: str, *ips: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": API,
        "kind": "SpiderSubnet",
        "metadata": {"name": name},
        "spec": {"ipVersion": 4, "subnet": cidr, "ips": list(ips), **spec},
    }


def asking(obj: dict[str, Any], annotations: dict[str, str] = FLOOR) -> dict[str, Any]:
    """The same, whose pods ask for addresses of subnets."""
    template = obj["spec"]["template"]
    template["metadata"]["annotations"] = annotations
    return obj


def job(name: str, completions: int) -> dict[str, Any]:
    made = asking(workload("Job", name, 0, command=["sleep", "3600"]))
    template = made["spec"]["template"]
    template["spec"]["restartPolicy"] = "Never"
    spec = {"completions": completions, "parallelism": completions, "template": template}
    return {**made, "apiVersion": "batch/v1", "spec": spec}


def cronjob(name: str) -> dict[str, Any]:
    made = job(name, 1)
    spec = {"schedule": "0 0 1 1 *", "jobTemplate": {"spec": made["spec"]}}
    return {**made, "kind": "CronJob", "spec": spec}


def daemonset(name: str) -> dict[str, Any]:
    made = asking(workload("DaemonSet", name, 0))
    del made["spec"]["replicas"]
    del made["spec"]["template"]["spec"]["topologySpreadConstraints"]
    return made


def pod_of_fleet(cluster: Cluster, fleet: str, number: int) -> dict[str, Any]:
    """A pod as the controller of that kind would make it."""
    uid = cluster.get("fleet", fleet)["metadata"]["uid"]
    owner = {"apiVersion": API_VERSION, "kind": "Fleet", "name": fleet, "uid": uid, "controller": True}
    template = workload("Deployment", fleet, 1)["spec"]["template"]
    del template["spec"]["topologySpreadConstraints"]
    metadata = {
        **template["metadata"],
        "name": f"{fleet}-{number}",
        "annotations": FLOOR,
        "ownerReferences": [owner],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}


def fleet(name: str, ships: int) -> dict[str, Any]:
    return {"apiVersion": API_VERSION, "kind": "Fleet", "metadata": {"name": name}, "spec": {"ships": ships}}


def auto_pools(cluster: Cluster) -> dict[str, dict[str, Any]]:
    """The pools that were made for applications, by those."""
    return {
        labels[NAME]: one
        for one in cluster.items("spiderippools")
        if NAME in (labels := one["metadata"].get("labels") or {})
        and "deletionTimestamp" not in one["metadata"]
    }


def sizes(cluster: Cluster) -> dict[str, int]:
    return {
        name: (one.get("status") or {}).get("totalIPCount", 0) for name, one in auto_pools(cluster).items()
    }


def addresses(ranges: list[str]) -> set[str]:
    found = set()
    for text in ranges:
        first, _, last = text.partition("-")
        low, high = int(IPv4Address(first)), int(IPv4Address(last or first))
        found |= {str(IPv4Address(value)) for value in range(low, high + 1)}
    return found


def in_their_pools(cluster: Cluster, counts: dict[str, int]) -> bool:
    """Whether so many pods of each application run, each on an address of its application's pool."""
    pools = auto_pools(cluster)
    for name, count in counts.items():
        running = [address for _, address, _ in pods(cluster, name).values()]
        if len(running) != count or not set(running) <= addresses(pools[name]["spec"]["ips"]):
            return False
    return True


def allocated(cluster: Cluster, name: str) -> int:
    status: dict[str, int] = cluster.get("spidersubnet", name).get("status") or {}
    return status.get("allocatedIPCount", 0)


def columns(cluster: Cluster, *arguments: str) -> list[list[str]]:
    """What `kubectl get` prints, without the age of things."""
    return [line.split() for line in cluster.kubectl("get", *arguments).splitlines()]


@pytest.fixture(scope="module")
def subnets(deployed: Cluster) -> Iterator[Cluster]:
    """A SpiderSubnet in the underlay's own range, and a kind of controller that nobody has heard of, which the controller is
    given the right to watch."""
    deployed.apply(subnet("floor", "10.99.0.0/17", "10.99.102.10-10.99.102.60"), FLEET, *WATCH_FLEETS)
    deployed.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=180s")
    yield deployed
    deployed.kubectl("delete", "spidersubnet", "--all", "--timeout=180s")
    deployed.kubectl("delete", "clusterrole,clusterrolebinding", "tests-fleets")
    deployed.kubectl("delete", "crd", FLEET["metadata"]["name"])


def test_every_kind_of_application_has_a_pool_that_follows_it(subnets: Cluster) -> None:
    """Made, scaled, rolled, deleted, and made again: Deployment, ReplicaSet, StatefulSet, DaemonSet, Job, CronJob, and a kind
    of somebody's own, known by its `scale` alone."""
    cluster = subnets
    cluster.apply(
        asking(workload("Deployment", "web", 2)),
        asking(workload("ReplicaSet", "rs", 1)),
        asking(workload("StatefulSet", "db", 2)),
        daemonset("node"),
        job("once", 2),
        cronjob("nightly"),
        fleet("armada", 2),
    )
    cluster.kubectl("create", "job", "nightly-now", "--from=cronjob/nightly")
    cluster.apply(*(pod_of_fleet(cluster, "armada", number) for number in (1, 2)))
    wanted = {"web": 2, "rs": 1, "db": 2, "node": 2, "once": 2, "nightly": 1, "armada": 2}
    cluster.wait("all pods run in their pools", lambda: in_their_pools(cluster, wanted), 180)
    cluster.wait(
        "each has one to spare", lambda: sizes(cluster) == {name: count + 1 for name, count in wanted.items()}
    )
    cluster.wait(
        "the subnet says what they have",
        lambda: allocated(cluster, "floor") == sum(wanted.values()) + len(wanted),
    )

    names = {name: one["metadata"]["name"] for name, one in auto_pools(cluster).items()}
    cluster.kubectl(
        "scale", "deployment/web", "replicaset/rs", "statefulset/db", "fleet/armada", "--replicas=3"
    )
    cluster.apply(pod_of_fleet(cluster, "armada", 3))
    wanted |= {"web": 3, "rs": 3, "db": 3, "armada": 3}
    cluster.wait("the new pods run in the same pools", lambda: in_their_pools(cluster, wanted), 180)
    cluster.wait(
        "the pools have grown", lambda: sizes(cluster) == {name: count + 1 for name, count in wanted.items()}
    )

    kept = {name: address for name, (_, address, _) in pods(cluster, "db").items()}
    cluster.kubectl("rollout", "restart", "deployment/web", "statefulset/db")
    cluster.kubectl("rollout", "status", "deployment/web", "--timeout=180s")
    cluster.kubectl("rollout", "status", "statefulset/db", "--timeout=180s")
    cluster.wait("the rolled pods run in the same pools", lambda: in_their_pools(cluster, wanted), 180)
    assert {name: address for name, (_, address, _) in pods(cluster, "db").items()} == kept
    assert {name: one["metadata"]["name"] for name, one in auto_pools(cluster).items()} == names

    cluster.kubectl("delete", "pod", "armada-3", "--timeout=180s")
    cluster.kubectl("scale", "deployment/web", "replicaset/rs", "statefulset/db", "--replicas=1")
    cluster.kubectl("scale", "fleet/armada", "--replicas=2")
    wanted |= {"web": 1, "rs": 1, "db": 1, "armada": 2}
    cluster.wait(
        "the pools have shrunk with their pods",
        lambda: (
            in_their_pools(cluster, wanted)
            and sizes(cluster) == {name: count + 1 for name, count in wanted.items()}
        ),
    )

    everything = (
        "deployment/web",
        "replicaset/rs",
        "statefulset/db",
        "daemonset/node",
        "job/once",
        "cronjob/nightly",
    )
    cluster.kubectl("delete", *everything, "fleet/armada", "--timeout=180s")
    cluster.wait("no pod is left", lambda: cluster.items("pods") == [], 180)
    cluster.wait("no pool is left", lambda: auto_pools(cluster) == {}, 180)
    cluster.wait("the subnet has all of its addresses back", lambda: allocated(cluster, "floor") == 0)
    assert records(cluster) == []

    cluster.apply(asking(workload("Deployment", "web", 1)))
    cluster.wait(
        "made again it has a pool",
        lambda: in_their_pools(cluster, {"web": 1}) if sizes(cluster) else False,
    )
    assert auto_pools(cluster)["web"]["metadata"]["name"] != names["web"]
    cluster.kubectl("delete", "deployment/web", "--timeout=180s")
    cluster.wait("the subnet has all of its addresses back", lambda: allocated(cluster, "floor") == 0, 180)
    logs = [cluster.controller_log(), *(one.agent_log() for one in cluster.nodes.values())]
    assert [line for log in logs for line in log.splitlines() if "may not" in line] == []


def test_the_guide_of_two_interfaces_line_by_line(subnets: Cluster) -> None:
    """Spiderpool's "Pod annotation of multi-NIC", "multiple NICs by subnet", and the article on fixed ranges, with this
    cluster's addresses. The pods' second network is not attached here; what it reserves is."""
    cluster = subnets
    cluster.apply(
        subnet("subnet-test-ens192", "10.99.128.0/17", "10.99.168.171-10.99.168.180", gateway="10.99.128.1"),
        subnet("subnet-test-ens224", "10.7.0.0/16", "10.7.168.171-10.7.168.180", gateway="10.7.0.1"),
    )
    cluster.wait(
        "the subnets are counted",
        lambda: (
            columns(cluster, "spidersubnet", "subnet-test-ens192", "subnet-test-ens224")
            == [
                ["NAME", "VERSION", "SUBNET", "ALLOCATED-IP-COUNT", "TOTAL-IP-COUNT"],
                ["subnet-test-ens192", "4", "10.99.128.0/17", "0", "10"],
                ["subnet-test-ens224", "4", "10.7.0.0/16", "0", "10"],
            ]
        ),
    )
    annotations = {
        "ipam.spidernet.io/subnets": json.dumps(
            [
                {"interface": "eth0", "ipv4": ["subnet-test-ens192"]},
                {"interface": "net1", "ipv4": ["subnet-test-ens224"]},
            ]
        ),
        "ipam.spidernet.io/ippool-ip-number": "+1",
        "k8s.v1.cni.cncf.io/networks": "kube-system/macvlan-conf-ens224",
    }
    cluster.apply(asking(workload("Deployment", "test-app", 2), annotations))
    cluster.wait("both pods run", lambda: len(pods(cluster, "test-app")) == 2, 180)
    uid = cluster.get("deployment", "test-app")["metadata"]["uid"].rpartition("-")[2]

    def printed(allocated: int, total: int) -> list[list[str]]:
        return [
            ["NAME", "VERSION", "SUBNET", "ALLOCATED-IP-COUNT", "TOTAL-IP-COUNT", "DEFAULT", "DISABLE"],
            [
                f"auto4-test-app-eth0-{uid[:5]}",
                "4",
                "10.99.128.0/17",
                str(allocated),
                str(total),
                "false",
                "false",
            ],
            [
                f"auto4-test-app-net1-{uid[:5]}",
                "4",
                "10.7.0.0/16",
                str(allocated),
                str(total),
                "false",
                "false",
            ],
        ]

    chosen = ("spiderippool", "-l", f"{NAME}=test-app")
    cluster.wait("the pools are as in the guide", lambda: columns(cluster, *chosen) == printed(2, 3))
    ips = {
        name: json.loads(cluster.kubectl("get", "spiderippool", name, "-o", "jsonpath={.spec.ips}"))
        for name in (f"auto4-test-app-eth0-{uid[:5]}", f"auto4-test-app-net1-{uid[:5]}")
    }
    assert list(ips.values()) == [["10.99.168.171-10.99.168.173"], ["10.7.168.171-10.7.168.173"]]
    mine = addresses(ips[f"auto4-test-app-eth0-{uid[:5]}"])
    assert {address for _, address, _ in pods(cluster, "test-app").values()} <= mine
    both = ("ss", "subnet-test-ens192", "subnet-test-ens224")
    cluster.wait(
        "the subnets say so", lambda: [line[3] for line in columns(cluster, *both)[1:]] == ["3", "3"]
    )

    cluster.kubectl("delete", "pod", "-l", "app=test-app", "--timeout=180s")
    cluster.wait("the pods' successors run", lambda: len(pods(cluster, "test-app")) == 2, 180)
    assert {address for _, address, _ in pods(cluster, "test-app").values()} <= mine
    cluster.kubectl("scale", "deployment", "test-app", "--replicas", "3")
    cluster.wait("one more of each", lambda: columns(cluster, *chosen) == printed(3, 4), 180)
    cluster.kubectl("delete", "deployment/test-app", "--timeout=180s")
    cluster.wait("nothing is left", lambda: sizes(cluster) == {} and records(cluster) == [], 180)
