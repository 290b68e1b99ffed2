"""IPAMClaims: addresses that stay until the claim goes, whatever pod has it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from actors.decisions.annotations import NETWORKS
from actors.errors import AddressTaken, PodRefused
from actors.runtime import get
from tests.support.checker import equal, eventually, records
from tests.support.faulty_store import Write
from tests.support.rig import Rig, add_request, pod, pool, rig, sandbox

BLUE = pool("blue", "10.6.0.0/16", "10.6.0.1-10.6.0.9")
BLUE6 = pool("blue6", "fd00:6::/64", "fd00:6::1-fd00:6::9")


def network(name: str = "red", **conf: Any) -> dict[str, Any]:
    config = {"cniVersion": "1.0.0", "type": "macvlan", "allowPersistentIPs": True, **conf}
    return {
        "apiVersion": "k8s.cni.cncf.io/v1",
        "kind": "NetworkAttachmentDefinition",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"config": json.dumps(config)},
    }


def claim(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "k8s.cni.cncf.io/v1alpha1",
        "kind": "IPAMClaim",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"network": "red", "interface": "net1"},
    }


def claiming(name: str, claim: str = "vm.red", owner: str = "", interface: str = "") -> dict[str, Any]:
    made = pod(name, owner=owner)
    element = {
        "name": "red",
        "ipam-claim-reference": claim,
        **({"interface": interface} if interface else {}),
    }
    made["metadata"]["annotations"][NETWORKS] = json.dumps([element])
    return made


def status(one: Rig, name: str = "vm.red") -> dict[str, Any]:
    found: dict[str, Any] = one.inner.get("IPAMClaim", name, "default").get("status", {})
    return found


def add(one: Rig, container: str, name: str, interface: str = "net1", **asks: Any) -> list[str]:
    return one.add(sandbox(container, interface, pod=name), **asks)


def delete(one: Rig, container: str, name: str, interface: str = "net1") -> int:
    return one.delete(sandbox(container, interface, pod=name))


def test_addresses_stay_until_the_claim_goes_whatever_pod_has_it(tmp_path: Path) -> None:
    with rig(tmp_path, BLUE, BLUE6, network(), claim("vm.red"), claiming("first"), claiming("second")) as one:
        assert add(one, "c1", "first") == ["10.6.0.1", "fd00:6::1"]
        assert status(one) == {"ips": ["10.6.0.1/16", "fd00:6::1/64"], "ownerPod": {"name": "first"}}
        assert delete(one, "c1", "first") == 2
        one.add(sandbox("other", pod="other"))
        assert set(records(one.inner)) == {"10.6.0.1", "fd00:6::1", "10.6.0.2", "fd00:6::2"}

        assert add(one, "c2", "second") == ["10.6.0.1", "fd00:6::1"]
        assert status(one)["ownerPod"] == {"name": "second"}
        delete(one, "c2", "second")
        one.delete(sandbox("other", pod="other"))
        one.inner.delete("IPAMClaim", "vm.red", "default")

        eventually(lambda: _nothing(one))


def test_the_pod_that_ends_after_its_claim_keeps_nothing(tmp_path: Path) -> None:
    with rig(tmp_path, BLUE, network(), claim("vm.red"), claiming("first")) as one:
        add(one, "c1", "first")
        one.inner.delete("IPAMClaim", "vm.red", "default")

        assert list(records(one.inner)) == ["10.6.0.1"], "a pod that runs keeps its address"
        delete(one, "c1", "first")
        eventually(lambda: _nothing(one))


def test_a_claim_that_goes_while_the_address_is_being_kept_for_it_keeps_nothing(tmp_path: Path) -> None:
    """Whoever looks at what is kept at the claim's end finds the address in use still."""

    def plan(write: Write) -> None:
        if write.kind == "SpiderIPBlock" and write.among_alike("*", "SpiderIPBlock") == 2:
            one.inner.delete("IPAMClaim", "vm.red", "default")
            eventually(lambda: equal(one.agent.catalog.claim_lives("default", "vm.red"), False))
            assert get(one.system.get_actor("node-gc/local").sweep_kept.remote(), 60) == 0

    with rig(tmp_path, BLUE, network(), claim("vm.red"), claiming("first"), plan=plan) as one:
        add(one, "c1", "first")
        assert delete(one, "c1", "first") == 1
        assert records(one.inner) == {}


def test_a_claim_is_for_its_interface_alone(tmp_path: Path) -> None:
    with rig(
        tmp_path, BLUE, network(), claim("vm.red"), claiming("first"), claiming("second", interface="lan0")
    ) as one:
        assert add(one, "c1", "first", "eth0") == ["10.6.0.1"]
        assert add(one, "c1", "first") == ["10.6.0.2"]
        assert delete(one, "c1", "first", "eth0") == 1
        delete(one, "c1", "first")
        assert list(records(one.inner)) == ["10.6.0.2"]

        assert add(one, "c2", "second", "lan0") == ["10.6.0.2"], (
            "the interface may have another name in another pod"
        )
        delete(one, "c2", "second", "lan0")


def test_addresses_in_a_claims_status_are_its_own(tmp_path: Path) -> None:
    """A cluster that was restored from a backup of its objects but for the blocks."""
    with rig(tmp_path, BLUE, network(), claim("vm.red"), claiming("first")) as one:
        restored = one.inner.get("IPAMClaim", "vm.red", "default")
        one.inner.update_status({**restored, "status": {"ips": ["10.6.0.7/16"]}})

        assert add(one, "c1", "first") == ["10.6.0.7"]
        delete(one, "c1", "first")


def test_two_pods_do_not_have_one_claim_at_once_but_for_a_machine_that_moves(tmp_path: Path) -> None:
    owner = "kubevirt.io/v1 VirtualMachineInstance vm"
    pods = [
        claiming("first"),
        claiming("second"),
        claiming("moves", owner=owner),
        claiming("moved", owner=owner),
        claiming("another", owner=f"{owner}2"),
    ]
    with rig(tmp_path, BLUE, network(), claim("vm.red"), *pods) as one:
        add(one, "c1", "first")
        with pytest.raises(AddressTaken, match=r"IPAMClaim default/vm.red is used by pod default/first"):
            add(one, "c2", "second")
        one.journal.doubtful.clear()
        delete(one, "c1", "first")

        assert add(one, "c3", "moves") == ["10.6.0.1"]
        one.journal.releasing(("c3", "net1"))  # both have it until the machine has moved
        assert add(one, "c4", "moved") == ["10.6.0.1"]
        with pytest.raises(AddressTaken, match=r"IPAMClaim default/vm.red is used by pod default/mov"):
            add(one, "c5", "another")  # a pod of another machine
        one.journal.doubtful.clear()
        assert delete(one, "c3", "moves") == 1
        assert records(one.inner)["10.6.0.1"]["container"] == "c4"
        assert delete(one, "c4", "moved") == 1
        assert list(records(one.inner)) == ["10.6.0.1"]


def test_a_claim_is_for_one_interface_of_a_pod(tmp_path: Path) -> None:
    twice = claiming("first")
    element = {"name": "red", "ipam-claim-reference": "vm.red"}
    twice["metadata"]["annotations"][NETWORKS] = json.dumps([element, element])
    with rig(tmp_path, BLUE, network(), claim("vm.red"), twice) as one:
        with pytest.raises(PodRefused, match=r"vm.red for net1 and for net2; make another IPAMClaim"):
            add(one, "c1", "first")

        assert records(one.inner) == {}


def test_a_network_has_to_opt_in(tmp_path: Path) -> None:
    listed = network(plugins=[{"type": "macvlan"}], allowPersistentIPs=False)
    with rig(tmp_path, BLUE, listed, claim("vm.red"), claiming("first")) as one:
        add(one, "c1", "first")
        delete(one, "c1", "first")

        assert records(one.inner) == {}
        assert status(one) == {}


def test_a_claim_that_is_not_there_is_waited_for(tmp_path: Path) -> None:
    with rig(tmp_path, BLUE, network(), claiming("first")) as one:
        with pytest.raises(
            PodRefused, match=r"IPAMClaim default/vm.red of its network default/red does not exist"
        ):
            add(one, "c1", "first")
        one.journal.doubtful.clear()
        assert records(one.inner) == {}

        one.apply(claim("vm.red"))
        assert add(one, "c1", "first") == ["10.6.0.1"]
        delete(one, "c1", "first")


def test_all_interfaces_of_a_pod_in_one_request_write_the_claim_too(tmp_path: Path) -> None:
    with rig(tmp_path, BLUE, network(), claim("vm.red"), claiming("first")) as one:
        requests = tuple(add_request(sandbox("c1", interface, pod="first")) for interface in ("eth0", "net1"))
        endpoint = one.system.get_actor("endpoint/default/first")
        get(endpoint.reserve.options(timeout=30).remote(requests), 60)

        assert status(one)["ips"] == ["10.6.0.2/16"]
        for request in requests:
            one.delete(request.sandbox)
        assert list(records(one.inner)) == ["10.6.0.2"]


def _nothing(one: Rig) -> None:
    assert records(one.inner) == {}
