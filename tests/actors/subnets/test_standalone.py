"""A whole agent on the embedded store: SpiderSubnets, applied Deployments, and pods of theirs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from actors.decisions.auto_pool import NAME
from actors.decisions.settings import Settings
from actors.errors import NoAddress, PodRefused, SubnetsExhausted
from actors.runtime import get
from tests.support.checker import eventually
from tests.support.rig import Rig, pod, pool, rig, sandbox

API = "spiderpool.spidernet.io/v2beta1"
FLOOR = '{"ipv4":["floor"]}'


def subnet(name: str, cidr: str, *ips: str, **spec: Any) -> dict[str, Any]:
    body = {"subnet": cidr, "ips": list(ips), **spec}
    return {"apiVersion": API, "kind": "SpiderSubnet", "metadata": {"name": name}, "spec": body}


def deployment(name: str, replicas: int, **annotations: str) -> dict[str, Any]:
    told = {f"ipam.spidernet.io/{key.replace('_', '-')}": value for key, value in annotations.items()}
    template = {"metadata": {"annotations": told}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"replicas": replicas, "template": template},
    }


def of(name: str, application: str, kind: str = "Deployment", **annotations: str) -> dict[str, Any]:
    """A pod of an application."""
    told = {key.replace("_", "-"): value for key, value in annotations.items()}
    return pod(name, owner=f"apps/v1 {kind} {application}", **told)


FLOOR_SUBNET = subnet("floor", "10.6.0.0/16", "10.6.1.1-10.6.1.6", gateway="10.6.0.1")


def sizes(found: Rig) -> dict[str, int]:
    """Automatic pools by their application, and how many addresses each has."""
    return {
        labels[NAME]: one["status"]["totalIPCount"]
        for one in found.inner.list("SpiderIPPool").items
        if "totalIPCount" in (one.get("status") or {})
        and NAME in (labels := one["metadata"].get("labels") or {})
    }


def scale(found: Rig, name: str, replicas: int) -> None:
    there = found.inner.get("Deployment", name, "default")
    found.inner.update({**there, "spec": {**there["spec"], "replicas": replicas}})


def test_an_applied_deployment_has_a_pool_of_its_own_that_follows_its_replicas(tmp_path: Path) -> None:
    with rig(tmp_path, FLOOR_SUBNET) as found:
        found.apply(deployment("web", 2, subnet=FLOOR))
        eventually(lambda: _is(sizes(found) == {"web": 3}))
        for name in ("web-a", "web-b"):
            found.apply(of(name, "web", subnet=FLOOR))
        first, second = (found.add(sandbox(name)) for name in ("web-a", "web-b"))
        assert first != second
        assert {one[0].rpartition(".")[0] for one in (first, second)} == {"10.6.1"}

        scale(found, "web", 4)
        eventually(lambda: _is(sizes(found) == {"web": 5}))
        scale(found, "web", 0)
        eventually(lambda: _is(sizes(found) == {"web": 2}))
        found.delete(sandbox("web-a"))
        eventually(lambda: _is(sizes(found) == {"web": 1}))
        found.delete(sandbox("web-b"))
        found.prove()
        found.inner.delete("Deployment", "web", "default")
        eventually(lambda: _is(found.inner.list("SpiderIPPool").items == ()))
        eventually(lambda: _is(_allocated(found) == 0))


def test_the_first_add_makes_the_pool_of_an_application_that_nobody_has_heard_of(tmp_path: Path) -> None:
    with rig(tmp_path, FLOOR_SUBNET) as found:
        found.apply(deployment("web", 1))
        found.apply(of("web-a", "web", subnet=FLOOR, ippool_ip_number="2"))

        assert found.add(sandbox("web-a"))
        eventually(lambda: _is(sizes(found) == {"web": 2}))


def test_growth_that_nobody_has_heard_of_reaches_a_pod_that_finds_its_pool_full(tmp_path: Path) -> None:
    with rig(tmp_path, FLOOR_SUBNET) as found:
        found.apply(deployment("web", 1, subnet=FLOOR, ippool_ip_number="+0"))
        for name in ("web-a", "web-b"):
            found.apply(of(name, "web", subnet=FLOOR, ippool_ip_number="+0"))
        assert found.add(sandbox("web-a"))
        scale(found, "web", 2)

        assert found.add(sandbox("web-b"))


def test_pods_of_an_application_that_found_its_subnet_exhausted_get_what_is_left(tmp_path: Path) -> None:
    with rig(tmp_path, FLOOR_SUBNET) as found:
        found.apply(deployment("big", 2, subnet=FLOOR))
        eventually(lambda: _is(sizes(found) == {"big": 3}))
        found.apply(deployment("web", 9, subnet=FLOOR))
        names = [f"web-{number}" for number in range(3)]
        for name in names:
            found.apply(of(name, "web", subnet=FLOOR))

        assert len({found.add(sandbox(name))[0] for name in names}) == 3


def test_exhaustion_is_told_to_the_pod(tmp_path: Path) -> None:
    with rig(tmp_path, FLOOR_SUBNET) as found:
        found.apply(deployment("big", 5, subnet=FLOOR))
        eventually(lambda: _is(sizes(found) == {"big": 6}))
        found.apply(deployment("web", 3, subnet=FLOOR))
        found.apply(of("web-a", "web", subnet=FLOOR))

        with pytest.raises(SubnetsExhausted) as refused:
            found.add(sandbox("web-a"))
        told = refused.value.brief
        assert "pod default/web-a of Deployment default/web" in told
        assert (
            "SpiderSubnet floor has too few free addresses: required 4, left 0; most are in the pools auto4-big-eth0"
            in told
        )
        assert len(told) <= 600


def test_a_subnet_is_not_exhausted_any_more_when_who_lacked_addresses_has_gone(tmp_path: Path) -> None:
    def condition() -> list[str]:
        status = found.inner.get("SpiderSubnet", "floor")["status"]
        return [condition["status"] for condition in status.get("conditions") or ()]

    with rig(tmp_path, FLOOR_SUBNET) as found:
        found.apply(deployment("big", 4, subnet=FLOOR))
        eventually(lambda: _is(sizes(found) == {"big": 5}))
        found.apply(deployment("web", 6, subnet=FLOOR))
        eventually(lambda: _is(condition() == ["True"]))
        scale(found, "web", 0)
        eventually(lambda: _is(condition() == ["False"]))
        scale(found, "web", 6)
        eventually(lambda: _is(condition() == ["True"]))
        found.inner.delete("Deployment", "web", "default")

        eventually(lambda: _is(condition() == ["False"]))


def test_a_pool_that_a_person_deletes_is_followed_by_one_pool_and_nothing_is_lost(tmp_path: Path) -> None:
    def pools() -> list[str]:
        return [obj["metadata"]["name"] for obj in found.inner.list("SpiderIPPool").items]

    with rig(tmp_path, FLOOR_SUBNET) as found:
        found.apply(deployment("web", 1, subnet=FLOOR))
        for name in ("web-a", "web-b"):
            found.apply(of(name, "web", subnet=FLOOR))
        found.add(sandbox("web-a"))
        (first,) = pools()
        found.inner.delete("SpiderIPPool", first)
        eventually(lambda: _is(len(pools()) == 2))
        assert found.add(sandbox("web-b")), "while the old one keeps the address of a pod"
        found.delete(sandbox("web-a"))
        eventually(lambda: _is(first not in pools()))
        scale(found, "web", 2)
        eventually(lambda: _is(sizes(found) == {"web": 3}))
        assert len(pools()) == 1
        eventually(lambda: _is(_allocated(found) == 3))

        found.delete(sandbox("web-b"))
        found.inner.delete("Deployment", "web", "default")
        eventually(lambda: _is(pools() == []))
        eventually(lambda: _is(_allocated(found) == 0))


def test_a_pod_whose_pool_was_deleted_a_moment_ago_gets_an_address_of_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before whoever makes the pools has heard of it."""
    monkeypatch.setattr(
        "actors.subnets.application_follower.ApplicationFollower._pool_changed", lambda *_: None
    )
    with rig(tmp_path, FLOOR_SUBNET) as found:
        found.apply(deployment("web", 2, subnet=FLOOR))
        found.apply(of("web-a", "web", subnet=FLOOR))
        eventually(lambda: _is(sizes(found) == {"web": 3}))
        (pool_of_web,) = found.inner.list("SpiderIPPool").items
        found.inner.delete("SpiderIPPool", pool_of_web["metadata"]["name"])
        eventually(lambda: _is(_allocated(found) == 0))

        assert found.add(sandbox("web-a"))


@pytest.mark.parametrize(
    ("number", "says"),
    [
        ("1", "write a larger number into its application's annotation ipam.spidernet.io/ippool-ip-number"),
        ("0", "Deployment default/web wants no addresses: it has no replicas, or"),
    ],
)
def test_a_pod_for_which_its_application_s_pool_is_too_small_is_told_what_helps(
    tmp_path: Path, number: str, says: str
) -> None:
    """Nobody may edit the pool itself."""
    with rig(tmp_path, FLOOR_SUBNET) as found:
        found.apply(deployment("web", 3, subnet=FLOOR, ippool_ip_number=number))
        for name in ("web-a", "web-b"):
            found.apply(of(name, "web", subnet=FLOOR, ippool_ip_number=number))
        if number == "1":
            assert found.add(sandbox("web-a"))

        with pytest.raises(NoAddress) as refused:
            found.add(sandbox("web-b"))

        assert says in refused.value.brief
        assert any(says in line for line in refused.value.details)
        assert "spec.ips" not in refused.value.brief


def test_others_get_nothing_of_an_application_s_pool(tmp_path: Path) -> None:
    with rig(tmp_path, FLOOR_SUBNET, pool("other", "10.7.0.0/16", "10.7.0.9")) as found:
        found.apply(deployment("web", 1, subnet=FLOOR))
        eventually(lambda: _is(sizes(found).get("web") == 2))
        names = {one["metadata"]["name"] for one in found.inner.list("SpiderIPPool").items}
        (name,) = names - {"other"}
        found.apply(pod("thief", ippool=f'{{"ipv4":["{name}"]}}'))
        found.apply(pod("bare", subnet=FLOOR))

        with pytest.raises(
            Exception, match="it was made for the pods of Deployment default/web and serves no other"
        ):
            found.add(sandbox("thief"))
        with pytest.raises(PodRefused, match="the pod has no controller that such a pool could follow"):
            found.add(sandbox("bare"))
        assert found.add(sandbox("anybody")) == ["10.7.0.9"]


def test_the_switches(tmp_path: Path) -> None:
    ordinary = pool("other", "10.7.0.0/16", "10.7.0.9")
    (tmp_path / "1").mkdir()
    (tmp_path / "2").mkdir()
    with rig(tmp_path / "1", FLOOR_SUBNET, ordinary, settings=Settings(enable_subnets=False)) as found:
        found.apply(deployment("web", 1, subnet=FLOOR))
        found.apply(of("web-a", "web", subnet=FLOOR))
        assert found.add(sandbox("web-a")) == ["10.7.0.9"]
        assert len(found.inner.list("SpiderIPPool").items) == 1
    with rig(tmp_path / "2", FLOOR_SUBNET, ordinary, settings=Settings(enable_auto_pools=False)) as found:
        found.apply(of("web-a", "web", subnet=FLOOR))
        with pytest.raises(PodRefused, match="enableAutoPoolForApplication: false"):
            found.add(sandbox("web-a"))


def test_a_statefulset_keeps_addresses_in_its_pool(tmp_path: Path) -> None:
    body = {**deployment("db", 2, subnet=FLOOR), "kind": "StatefulSet"}
    with rig(tmp_path, FLOOR_SUBNET) as found:
        found.apply(body)
        for name in ("db-0", "db-1"):
            found.apply(of(name, "db", "StatefulSet", subnet=FLOOR))
        kept = found.add(sandbox("c1", pod="db-0"))
        found.delete(sandbox("c1", pod="db-0"))
        assert found.add(sandbox("c2", pod="db-1")) != kept

        assert found.add(sandbox("c3", pod="db-0")) == kept


def test_flapping_between_2_and_50_replicas_refuses_no_pod_and_ends_in_the_right_size(tmp_path: Path) -> None:
    """As a HorizontalPodAutoscaler does it that cannot decide: each time all pods ask at once, before anything has settled."""
    wide = subnet("floor", "10.6.0.0/16", "10.6.1.1-10.6.1.60")
    with rig(tmp_path, wide) as found:
        found.apply(deployment("web", 2, subnet=FLOOR))
        names = [f"web-{number}" for number in range(50)]
        for name in names:
            found.apply(of(name, "web", subnet=FLOOR))
        running = {name: found.add(sandbox(name))[0] for name in names[:2]}
        for turn in range(3):
            scale(found, "web", 50)
            asked = {name: found.send_add(sandbox(f"{name}-{turn}", pod=name), 60.0) for name in names[2:]}
            got = {name: get(ref).addresses[0].address.partition("/")[0] for name, ref in asked.items()}
            assert len({*running.values(), *got.values()}) == 50
            scale(found, "web", 2)
            for name in names[2:]:
                found.delete(sandbox(f"{name}-{turn}", pod=name))
        eventually(lambda: _is(sizes(found) == {"web": 3}))
        assert found.add(sandbox("web-0")) == [running["web-0"]]


def _allocated(found: Rig) -> int:
    status: dict[str, int] = found.inner.get("SpiderSubnet", "floor").get("status") or {}
    return status.get("allocatedIPCount", 0)


def _is(so: bool) -> None:
    assert so
