"""What forbids taking Orbweaver off a cluster; tests/deploy/test_uninstall.py has the rest, on a real API server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.errors import InvalidRequest
from actors.resources.addresses import parse_address
from actors.resources.blocks.block import Block, base_of
from actors.resources.blocks.record import Record
from actors.resources.pool_status import DIGEST, digest_of
from actors.store.sqlite.store import SQLiteStore
from cni.command.uninstall import in_use
from cni.uninstall.cluster import ClusterUninstall, UninstallOptions
from cni.uninstall.node import NodeDirectories
from tests.support.rig import pool
from tests.support.spiderpool_objects import SPIDER, install


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLiteStore]:
    opened = SQLiteStore(tmp_path / "orbweaver.db")
    yield opened
    opened.close()


def test_a_spiderpool_of_another_name_forbids_it(store: SQLiteStore) -> None:
    """Its pools are the same objects, and its chart lets the DaemonSet's name be chosen."""
    install(store)
    options = UninstallOptions("orbweaver-system", "", NodeDirectories())

    with pytest.raises(InvalidRequest, match=f"Spiderpool runs in namespace {SPIDER} .* --spiderpool-stays"):
        ClusterUninstall(store, options, print).refuse_beside_spiderpool()


@pytest.mark.parametrize(
    "stays, remedy",
    [
        (False, "delete these pods first"),
        (True, "give them back first, by `orbweaver takeover --from spiderpool --back --yes`"),
    ],
)
def test_addresses_in_use_forbid_it_also_where_spiderpool_stays(
    store: SQLiteStore, stays: bool, remedy: str
) -> None:
    """The records go with it in both cases, and nobody else has them."""
    recorded(store)
    assert in_use(store, spiderpool_stays=stays) is None  # its pod is gone

    running(store, "web")

    refusal = str(in_use(store, spiderpool_stays=stays))
    assert f"1 address is in use (10.6.2.10 by pod default/web): {remedy}" in refusal


@pytest.mark.parametrize("stays", [False, True])
def test_records_that_cannot_be_judged_forbid_it(store: SQLiteStore, stays: bool) -> None:
    """They may be those of pods that run."""
    for address, records in (("10.6.0.10", "# 10:!99:web-a!"), ("10.6.1.10", "{")):
        family, value = parse_address(address)
        block = Block(family, base_of(value)).to_object()
        store.create({**block, "spec": {**block["spec"], "records": records}})

    refusal = str(in_use(store, spiderpool_stays=stays))

    assert "it cannot be told whether pods have addresses: " in refusal
    assert "nobody can tell who has 10.6.0.10: " in refusal
    assert "SpiderIPBlock v4-0a060100 is damaged" in refusal
    assert "`orbweaver ip release --force`" in refusal

    running(store, "web")
    recorded(store)
    refusal = str(in_use(store, spiderpool_stays=stays))
    assert "1 address is in use (10.6.2.10 by pod default/web): " in refusal
    assert "nobody can tell who has 10.6.0.10: " in refusal


def test_what_a_pool_s_status_says_and_no_block_records_yet_forbids_it(store: SQLiteStore) -> None:
    """Spiderpool wrote it, and nobody has taken it over: the pool was asked for no address since."""
    blue = store.create(pool("blue", "10.6.0.0/16", "10.6.0.1-10.6.0.9"))
    red = store.create(pool("red", "10.7.0.0/16", "10.7.0.1-10.7.0.9"))
    entries = {
        "10.6.0.1": {"pod": "default/web", "podUid": "u"},
        "10.6.0.2": {"pod": "default/vm", "podUid": "u"},
        "10.6.0.3": {"pod": "default/gone", "podUid": "u"},
    }
    told = json.dumps(entries)
    blue = store.update_status({**blue, "status": {"allocatedIPs": told}})
    assert in_use(store, spiderpool_stays=False) is None  # all of these pods are gone

    running(store, "web")
    owner = {"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance", "name": "vm", "uid": "v"}
    running(store, "virt-launcher-vm-x1", ownerReferences=[owner])
    refusal = str(in_use(store, spiderpool_stays=False))
    assert "2 addresses are in use (10.6.0.1 by pod default/web, 10.6.0.2 by pod default/vm)" in refusal
    assert in_use(store, spiderpool_stays=True) is None  # the status stays

    store.update_status({**blue, "status": {"allocatedIPs": told, DIGEST: digest_of(told)}})
    assert in_use(store, spiderpool_stays=False) is None  # it was written here, and the blocks count

    store.update_status({**red, "status": {"allocatedIPs": "?"}})
    assert "pool red: status.allocatedIPs was written by another IPAM and cannot be read" in str(
        in_use(store, spiderpool_stays=False)
    )
    assert in_use(store, spiderpool_stays=True) is None


def running(store: SQLiteStore, name: str, **metadata: Any) -> None:
    """A pod that runs."""
    named = {"name": name, "namespace": "default", **metadata}
    created = store.create({"apiVersion": "v1", "kind": "Pod", "metadata": named})
    store.update_status({**created, "status": {"phase": "Running"}})


def recorded(store: SQLiteStore) -> None:
    """An address of pod web."""
    family, value = parse_address("10.6.2.10")
    record = Record("blue", "default/web", "u", "c1", "eth0", "n1", "", "2025-01-31T12:00:00Z")
    store.create(Block(family, base_of(value), records={value: record}).to_object())
