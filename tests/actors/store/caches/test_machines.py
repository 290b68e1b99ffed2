"""KubeVirt need not be installed: without its CRDs no machine exists, and when they come the machines are seen."""

from __future__ import annotations

import pytest

from actors.store.caches import informer
from actors.store.caches.catalog import Catalog
from actors.store.caches.informer import ObjectKey
from actors.store.kubernetes.store import KubernetesStore
from tests.support.checker import eventually
from tests.support.rig import instance, machine
from tests.tools.apiserver import ApiServer
from tests.tools.kubevirt import install, remove


def test_machines_come_and_go_with_their_kind(api_server: ApiServer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(informer, "NOT_SERVED_WAIT", 0.1)
    remove(api_server)
    store = KubernetesStore(api_server.access())
    alone = Catalog(store, has_pods=False)  # never started: it asks the API server each time
    watching = Catalog(store, has_pods=False)
    told: list[ObjectKey] = []
    watching.follow_machines(told.append)
    try:
        assert not alone.machine_lives("default", "vm")
        watching.start()
        assert watching.wait_synced(60)

        install(api_server)
        assert not alone.machine_lives("default", "vm")
        store.create(machine("vm"))
        eventually(lambda: _assert(ObjectKey("VirtualMachine", "default", "vm") in told))
        assert all(one.machine_lives("default", "vm") for one in (alone, watching))

        store.delete("VirtualMachine", "vm", "default")
        eventually(lambda: _assert(not watching.machine_lives("default", "vm")))
        store.create(instance("vm", of_machine=False))
        eventually(lambda: _assert(ObjectKey("VirtualMachineInstance", "default", "vm") in told))

        remove(api_server)
        eventually(lambda: _assert(not watching.machine_lives("default", "vm")))
        assert not alone.machine_lives("default", "vm")
    finally:
        watching.stop()
        remove(api_server)
        store.close()


def _assert(value: object) -> None:
    assert value
