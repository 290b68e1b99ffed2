"""What pods ask for with their networks (the cases with real plugins are in tests/cni/network_stories.py)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from actors.decisions.annotations import DEFAULT_NETWORK, NETWORKS
from actors.decisions.attachment_requests import (
    AttachmentRequest,
    read_attachments,
    read_default_attachment,
)
from actors.errors import PodRefused
from actors.resources.pod import Pod


def pod(networks: Any, **annotations: str) -> Pod:
    text = networks if isinstance(networks, str) else json.dumps(networks)
    return Pod("shop", "web-0", annotations={NETWORKS: text, **annotations})


def test_the_whole_element() -> None:
    (found,) = read_attachments(
        pod(
            [
                {
                    "name": "net-b",
                    "namespace": "other",
                    "interface": "lan0",
                    "ips": ["10.2.2.42/24", "2001:db8::5/64"],
                    "mac": "02-23-45-67-89-0A",
                    "infiniband-guid": "24:8A:07:03:00:8d:ae:2f",
                    "default-route": ["10.2.2.1", "2001:db8::1"],
                    "cni-args": {"spoofchk": "on", "deep": [{"a": 1}]},
                    "portMappings": [
                        {"hostPort": 8080, "containerPort": 80, "protocol": "UDP", "hostIP": "10.0.0.1"}
                    ],
                    "bandwidth": {"ingressRate": 2048, "ingressBurst": 300, "egressRate": 8000},
                    "org.foo.bar": "not ours",
                }
            ]
        )
    )

    assert found == AttachmentRequest(
        "other",
        "net-b",
        "lan0",
        ("10.2.2.42/24", "2001:db8::5/64"),
        "02:23:45:67:89:0a",
        "24:8a:07:03:00:8d:ae:2f",
        ("10.2.2.1", "2001:db8::1"),
        {"spoofchk": "on", "deep": [{"a": 1}]},
        ({"hostPort": 8080, "containerPort": 80, "protocol": "udp", "hostIP": "10.0.0.1"},),
        {"ingressRate": 2048, "ingressBurst": 300, "egressRate": 8000, "egressBurst": 8000},
    )
    assert set(found.capabilities) == {"ips", "mac", "infinibandGUID", "portMappings", "bandwidth"}


def test_the_short_form_asks_for_nothing_more() -> None:
    assert read_attachments(pod("a, b/c ,d@x")) == (
        AttachmentRequest("shop", "a", "net1"),
        AttachmentRequest("b", "c", "net2"),
        AttachmentRequest("shop", "d", "x"),
    )
    assert read_attachments(pod(" \n")) == ()


@pytest.mark.parametrize(
    "element, said",
    [
        ({"ips": []}, "ips"),
        ({"ips": ["10.2.2.42/33"]}, "length"),
        ({"ips": ["10.2.2.42/x"]}, "length"),
        ({"ips": "10.2.2.42"}, "must be a list"),
        ({"mac": "02:23:45:67:89"}, "mac"),
        ({"mac": "02:23-45:67:89:01"}, "mac"),
        ({"mac": 5}, "must be a text"),
        ({"infiniband-guid": "24:8a"}, "GUID"),
        ({"default-route": ["10.0.0.1", "10.0.0.2"]}, "one gateway of each family"),
        ({"default-route": ["10.0.0.1"] * 50}, "one gateway of each family"),
        ({"default-route": ["x"]}, "default-route"),
        ({"cni-args": "a=b"}, "must be a mapping"),
        ({"portMappings": []}, "1 to 64"),
        ({"portMappings": [{"hostPort": 1, "containerPort": 1}] * 65}, "1 to 64"),
        ({"portMappings": [{"hostPort": 80}]}, "containerPort"),
        ({"portMappings": [{"hostPort": 80, "containerPort": 70000}]}, "containerPort"),
        ({"portMappings": [{"hostPort": 80, "containerPort": 80, "protocol": "icmp"}]}, "protocol"),
        ({"portMappings": [{"hostPort": 80, "containerPort": 80, "hostIP": "x"}]}, "hostIP"),
        ({"bandwidth": {}}, "ingressRate"),
        ({"bandwidth": {"egressRate": 0}}, "egressRate"),
        ({"bandwidth": {"egressBurst": 1}}, "means nothing without egressRate"),
        ({"bandwidth": {"egressRate": 10**30}}, "egressRate"),
        ({"ipam-claim-reference": "Not A Name"}, "not the name of an object"),
        ({"ipam-claim-reference": "vm.red", "ips": ["10.0.0.1"]}, "keep one"),
    ],
)
def test_a_wrong_value_is_refused_with_its_field(element: dict[str, Any], said: str) -> None:
    with pytest.raises(PodRefused, match=said) as told:
        read_attachments(pod([{"name": "red", **element}]))
    assert "pod shop/web-0" in str(told.value)
    assert NETWORKS in str(told.value)


def test_more_networks_than_a_pod_may_have_are_refused() -> None:
    with pytest.raises(PodRefused, match="more than 32"):
        read_attachments(pod(",".join(["red"] * 33)))


def test_the_first_network_is_the_pods_choice_else_the_clusters() -> None:
    chosen = pod("", **{DEFAULT_NETWORK: '[{"name": "red", "mac": "02:00:00:00:00:01"}]'})

    assert read_default_attachment(chosen, "system", "system/blue", "eth0") == AttachmentRequest(
        "system", "red", "eth0", mac="02:00:00:00:00:01"
    )
    assert read_default_attachment(pod(""), "system", "blue", "ens0") == AttachmentRequest(
        "system", "blue", "ens0"
    )
    assert read_default_attachment(pod(""), "system", None, "eth0") is None
