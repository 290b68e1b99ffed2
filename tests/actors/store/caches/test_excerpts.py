"""What tenants' objects cost the caches of every agent and controller, however large they are made."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from actors.decisions.annotations import NAMESPACE_POOLS
from actors.resources.namespace import Namespace
from actors.resources.pod import Pod
from actors.resources.statefulset import StatefulSet
from actors.resources.virtualmachine import VirtualMachine
from actors.resources.workload import workload_excerpt
from actors.store.caches.catalog import Catalog
from actors.store.caches.excerpts import (
    EXCERPTS,
    TOLERATIONS,
    USUAL,
    cached_namespace,
    cached_pod,
    machine_excerpt,
    namespace_excerpt,
    pod_excerpt,
)
from actors.store.contract import Object
from actors.store.kubernetes.store import PAGE_BYTES, KubernetesStore
from tests.actors.store.contract_suite import fresh
from tests.support.cluster import Cluster, _completed
from tests.support.rig import instance, machine, pod, pool, statefulset
from tests.tools.apiserver import ApiServer


def labels(size: int) -> dict[str, str]:
    """So many characters of labels."""
    return {f"k{number:040}": "v" * 59 for number in range(size // 100)}


def large(obj: Object, size: int) -> Object:
    return {**obj, "metadata": {**obj["metadata"], "labels": labels(size)}}


@pytest.mark.parametrize(
    ("obj", "excerpt", "parse"),
    [
        (statefulset("web", 3), workload_excerpt, StatefulSet.from_object),
        (machine("vm"), machine_excerpt, VirtualMachine.from_machine),
        (instance("vm"), machine_excerpt, VirtualMachine.from_instance),
        (
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "labels": {"a": "b"}}},
            namespace_excerpt,
            Namespace.from_object,
        ),
        (
            {
                **pod("web-0", statefulset="web", ippool='{"ipv4":["blue"]}'),
                "spec": {
                    "nodeName": "n1",
                    "restartPolicy": "Never",
                    "tolerations": [{"key": "x", "tolerationSeconds": 3}, {"operator": "Exists"}],
                    "containers": [{"name": "c", "env": [{"name": "A", "value": "x" * 1000}]}],
                },
                "status": {"phase": "Failed", "reason": "Evicted", "podIPs": [{"ip": "10.6.0.1"}]},
            },
            pod_excerpt,
            Pod.from_object,
        ),
    ],
    ids=lambda value: value["kind"] if isinstance(value, dict) else "",
)
def test_an_excerpt_says_what_the_whole_object_says(
    obj: Object, excerpt: Callable[[Object], Object], parse: Callable[[Object], Any]
) -> None:
    obj = {**obj, "metadata": {**obj["metadata"], "uid": "u", "resourceVersion": "7", "managedFields": [{}]}}
    kept = excerpt(obj)

    assert parse(kept) == parse(obj)
    assert "managedFields" not in kept["metadata"]
    assert "containers" not in kept["spec"]


def test_tolerations_are_kept_up_to_a_bound() -> None:
    many = {**pod("web-0"), "spec": {"tolerations": [{"operator": "Exists"}] * 100_000}}

    assert len(pod_excerpt(many)["spec"]["tolerations"]) == TOLERATIONS


def test_labels_of_an_ordinary_size_are_cached_and_larger_ones_are_not() -> None:
    usual, huge = large(pod("web"), USUAL - 1000), large(pod("web"), USUAL + 1000)
    assert cached_pod(usual) == Pod.from_object(usual)
    found = cached_pod(huge)
    assert (found.is_whole, len(found.labels), len(found.annotations)) == (False, 0, 0)

    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}
    assert cached_namespace(namespace).is_whole
    assert not cached_namespace(large(namespace, USUAL + 1000)).labels


def test_what_a_cache_left_out_is_read_when_it_is_needed(api_server: ApiServer, tmp_path: Path) -> None:
    store = Cluster(api_server).open(tmp_path / "store")
    name, namespace = fresh("web"), fresh("shop")
    annotations = {NAMESPACE_POOLS[4]: '["blue"]'}
    store.create(
        large({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "annotations": annotations}}, 2 * USUAL)
    )  # fmt: skip
    uid = store.create(large(pod(name), 2 * USUAL))["metadata"]["uid"]
    catalog = Catalog(store, has_pods=True)
    catalog.start()
    try:
        assert catalog.wait_synced(60)
        cached = (catalog.informer("Pod").get(name, "default"), catalog.informer("Namespace").get(namespace))
        assert [one is None or one.is_whole for one in cached] == [False, False]

        assert catalog.pod("default", name, uid).labels == labels(2 * USUAL)
        found = catalog.namespace(namespace)
        assert found is not None
        assert found.annotations == annotations
    finally:
        catalog.stop()
        store.delete("Namespace", namespace)
        store.close()


def test_a_tenants_large_objects_cost_whoever_lists_them_a_bounded_sum(
    api_server: ApiServer, tmp_path: Path
) -> None:
    """Without one pod, and so past every quota of pods: each agent and controller lists the StatefulSets of the cluster."""
    count, size = 32, 1_100_000
    maker = Cluster(api_server).open(tmp_path / "store")
    maker.create(pool("blue", "10.6.0.0/16", "10.6.0.1"))
    makers = [KubernetesStore(api_server.access()) for _ in range(4)]
    store = KubernetesStore(api_server.access(), trim=EXCERPTS)
    names = [fresh(f"large-{number}") for number in range(count)]

    def make(number: int) -> None:
        makers[number % len(makers)].create(
            _completed(large(statefulset(names[number], 0), size)), timeout=60
        )

    try:
        with ThreadPoolExecutor(len(makers)) as executor:
            list(executor.map(make, range(count)))
        tracemalloc.start()
        listing = store.list("StatefulSet", timeout=120)
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        for name in names:
            maker.delete("StatefulSet", name, "default")
        for one in (*makers, store, maker):
            one.close()

    found = {obj["metadata"]["name"]: obj for obj in listing.items}
    assert found.keys() >= set(names)
    assert all(StatefulSet.from_object(found[name]).replicas == 0 for name in names)
    # As text, twice while it is put together, and as values: all of it at once took 130 MB and more.
    assert peak < 8 * PAGE_BYTES, peak
    assert kept < 1_000_000, kept


def test_pages_of_ordinary_objects_follow_the_large_ones(api_server: ApiServer, tmp_path: Path) -> None:
    """One that is larger than a page may be comes alone, and none is left out or told twice."""
    maker = Cluster(api_server).open(tmp_path / "store")
    store = KubernetesStore(api_server.access(), page=8, page_bytes=30_000)
    try:
        made = [fresh(f"p{number:02}") for number in range(24)]
        for number, name in enumerate(made):
            maker.create(large(pod(name), 50_000 if number in (3, 4, 11) else 100))
        listed = [obj["metadata"]["name"] for obj in store.list("Pod", "default").items]
    finally:
        store.close()
        maker.close()
    assert sorted(listed) == sorted(made)
