"""ownerReferences that a pod's author made up: they give it nobody's address, and keep none past what its owner has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.checker import eventually, records
from tests.support.rig import Rig, instance, launcher, machine, pod, pool, rig, sandbox, statefulset

V4 = pool("v4", "10.6.0.0/16", "10.6.0.1-10.6.0.250")


def owned(obj: dict[str, Any], uid: str) -> dict[str, Any]:
    for owner in obj["metadata"]["ownerReferences"]:
        owner["uid"] = uid
    return obj


def uid_of(one: Rig, kind: str, name: str) -> str:
    return one.inner.get(kind, name, "default")["metadata"]["uid"]


@pytest.mark.parametrize("uid", ["forged", "the machine's"])
def test_a_bare_pod_takes_no_running_machine_s_address(tmp_path: Path, uid: str):
    with rig(tmp_path, V4, machine("vm"), instance("vm"), has_pods=True) as one:
        one.apply(owned(launcher("vm", "a"), uid_of(one, "VirtualMachineInstance", "vm")))
        runs = one.add(sandbox("c1", pod="virt-launcher-vm-a"))
        # The VirtualMachine is the owner of the instance, and not of the pod.
        forged = uid if uid == "forged" else uid_of(one, "VirtualMachine", "vm")
        one.apply(owned(launcher("vm", "evil"), forged))

        assert one.add(sandbox("c2", pod="virt-launcher-vm-evil")) != runs
        stored = records(one.inner)
        assert stored[runs[0]]["container"] == "c1"
        assert stored[runs[0]]["machine"] == "vm"
        one.delete(sandbox("c2", pod="virt-launcher-vm-evil"))
        assert set(records(one.inner)) == set(runs), "and nothing is kept for it"


def bare_pods(one: Rig, uid: str) -> None:
    """Forty pods, one after the other, as a quota of ten lets a tenant have them."""
    for number in range(40):
        name = f"big-{number}"
        one.apply(owned(pod(name, statefulset="big"), uid))
        one.add(sandbox(f"c{number}", pod=name))
        one.delete(sandbox(f"c{number}", pod=name))
        one.inner.delete("Pod", name, "default")


def huge(one: Rig, has: int) -> str:
    """A StatefulSet that wants more pods than there are, and has a few."""
    found = one.inner.get("StatefulSet", "big", "default")
    one.inner.update_status({**found, "status": {"replicas": has}})
    cache = one.agent.catalog.informer("StatefulSet")
    eventually(lambda: _seen(cache.get("big", "default"), has))
    return str(found["metadata"]["uid"])


def _seen(found: Any, has: int) -> None:
    assert found.seen is not None
    assert found.seen >= has


def test_an_owner_with_another_uid_keeps_nothing(tmp_path: Path):
    with rig(tmp_path, V4, statefulset("big", 2**31 - 1), has_pods=True) as one:
        huge(one, 10)
        bare_pods(one, "forged")

        assert records(one.inner) == {}


@pytest.mark.parametrize(("has", "kept"), [(0, 16), (10, 16), (30, 30)])
def test_a_statefulset_keeps_as_many_addresses_as_it_had_pods(tmp_path: Path, has: int, kept: int):
    with rig(tmp_path, V4, statefulset("big", 2**31 - 1), has_pods=True) as one:
        uid = huge(one, has)
        if has == 30:
            huge(one, 3)  # for a moment, because its pods were deleted by force
        bare_pods(one, uid)

        held = records(one.inner)
        assert {entry["pod"] for entry in held.values()} == {
            f"default/big-{number}" for number in range(kept)
        }
