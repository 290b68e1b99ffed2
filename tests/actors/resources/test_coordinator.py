"""SpiderCoordinator objects, and a network's configuration on top of one."""

from __future__ import annotations

from typing import Any

import pytest

from actors.errors import InvalidObject
from actors.resources.admission import admit
from actors.resources.coordinator import SpiderCoordinator


def coordinator(status: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    found = {
        "apiVersion": "spiderpool.spidernet.io/v2beta1",
        "kind": "SpiderCoordinator",
        "metadata": {"name": "default"},
        "spec": spec,
    }
    return found if status is None else {**found, "status": status}


def test_an_object_reads_as_a_network_configuration() -> None:
    """The object of Spiderpool's installation guide."""
    found = SpiderCoordinator.from_object(
        coordinator(
            {"phase": "Synced", "overlayPodCIDR": [], "serviceCIDR": ["10.233.0.0/18"]},
            detectGateway=False, detectIPConflict=False, hijackCIDR=["169.254.0.0/16", "10.0.0.10"], podRPFilter=0,
            hostRPFilter=0, hostRuleTable=500, mode="auto", podCIDRType="calico", podDefaultRouteNIC="",
            podMACPrefix="", tunePodRoutes=True,
        )
    )  # fmt: skip

    assert (found.pod_cidr_type, found.phase) == ("calico", "Synced")
    assert found.conf == {
        "mode": "auto", "detectGateway": False, "detectIPConflict": False, "podRPFilter": 0, "hostRPFilter": 0,
        "hostRuleTable": 500, "tunePodRoutes": True, "hijackCIDR": ["169.254.0.0/16", "10.0.0.10/32"],
        "serviceCIDR": ["10.233.0.0/18"],
    }  # fmt: skip


def test_a_network_outranks_the_object_where_it_says_something() -> None:
    found = SpiderCoordinator.from_object(
        coordinator(mode="disabled", podMACPrefix="0a:1b", podRPFilter=1, hijackCIDR=["10.0.0.0/8"])
    )

    assert found.under({"mode": "auto", "podMACPrefix": "", "podRPFilter": 0, "hijackCIDR": []}) == {
        "mode": "auto", "podMACPrefix": "0a:1b", "podRPFilter": 0, "hijackCIDR": ["10.0.0.0/8"]
    }  # fmt: skip
    assert found.under({})["mode"] == "disable"


@pytest.mark.parametrize(
    "spec, words",
    [
        ({"podCIDRType": "weave"}, "podCIDRType"),
        ({"mode": "sideways"}, "mode"),
        ({"hijackCIDR": ["10.0.0.0/33"]}, r"hijackCIDR\[0\]"),
        ({"hijackCIDR": ["x"]}, r"hijackCIDR\[0\]: 'x' is not a subnet in CIDR form"),
        ({"txQueueLen": "many"}, "txQueueLen"),
        ({"tunePodRuotes": True}, "did you mean tunePodRoutes"),
    ],
)
def test_a_wrong_field_is_refused_by_name(spec: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidObject, match=words):
        admit(coordinator(**spec))
