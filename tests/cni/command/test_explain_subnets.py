"""explain: which pool a pod's application has, or would get."""

from __future__ import annotations

import json

SUBNET = """
apiVersion: spiderpool.spidernet.io/v2beta1
kind: SpiderSubnet
metadata: {name: floor}
spec: {subnet: 10.6.0.0/16, ips: [10.6.1.1-10.6.1.6]}
"""


def deployment(name, replicas, **annotations):
    told = {f"ipam.spidernet.io/{key.replace('_', '-')}": value for key, value in annotations.items()}
    spec = {"replicas": replicas, "template": {"metadata": {"annotations": told}}}
    return json.dumps(
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}
    )


def pod(name, application=None, **annotations):
    told = {f"ipam.spidernet.io/{key.replace('_', '-')}": value for key, value in annotations.items()}
    metadata = {"name": name, "annotations": told}
    if application is not None:
        owner = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "name": application,
            "uid": "u",
            "controller": True,
        }
        metadata["ownerReferences"] = [owner]
    return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": metadata})


FLOOR = '{"ipv4": ["floor"]}'


def test_it_says_what_pool_would_be_made(orbweaver):
    orbweaver.apply(
        "\n---\n".join((SUBNET, deployment("web", 2, subnet=FLOOR), pod("web-a", "web", subnet=FLOOR)))
    )

    done = orbweaver("explain", "web-a")

    assert done.status == 0, done.err
    assert "eth0 IPv4: an address of pool auto4-web-eth0-" in done.out
    assert "(3 of 3 free)" in done.out
    assert (
        "is not there yet; it would be made with 3 addresses of SpiderSubnet floor for Deployment default/web"
        in done.out
    )
    assert "(from pod annotation ipam.spidernet.io/subnet)" in done.out
    assert orbweaver("get", "sp", "-o", "json").json["items"] == []


def test_it_says_that_a_subnet_has_too_few(orbweaver):
    taken = """
apiVersion: spiderpool.spidernet.io/v2beta1
kind: SpiderIPPool
metadata: {name: by-hand}
spec: {subnet: 10.6.0.0/16, ips: [10.6.1.1-10.6.1.6]}
"""
    orbweaver.apply(
        "\n---\n".join((SUBNET, taken, deployment("web", 9, subnet=FLOOR), pod("web-a", "web", subnet=FLOOR)))
    )

    done = orbweaver("explain", "web-a", "-o", "json")

    assert (done.status, done.json["allowed"]) == (1, False)
    assert "required 10, left 0" in done.json["error"]["details"][0]


def test_it_says_that_a_pod_would_get_what_is_left(orbweaver):
    orbweaver.apply(
        "\n---\n".join((SUBNET, deployment("web", 9, subnet=FLOOR), pod("web-a", "web", subnet=FLOOR)))
    )

    done = orbweaver("explain", "web-a")

    assert done.status == 0, done.err
    assert "it would be made with 1 address of SpiderSubnet floor for Deployment default/web" in done.out


def test_it_refuses_what_an_add_would(orbweaver):
    orbweaver.apply(
        "\n---\n".join((SUBNET, pod("bare", subnet=FLOOR), pod("orphan", "nobody", subnet=FLOOR)))
    )

    for name, why in (
        ("bare", "the pod has no controller"),
        ("orphan", "Deployment nobody as its controller, which is not"),
    ):
        done = orbweaver("explain", name)
        assert done.status == 1
        assert why in done.err
