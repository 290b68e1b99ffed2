"""What forbids taking Orbweaver off a cluster; tests/deploy/test_uninstall.py has the rest, on a real API server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.errors import InvalidRequest
from actors.resources.addresses import parse_address
from actors.resources.blocks.block import Block, base_of
from actors.resources.blocks.record import Record
from actors.store.sqlite.store import SQLiteStore
from cni.command.uninstall import in_use
from cni.uninstall.cluster import ClusterUninstall, UninstallOptions
from cni.uninstall.node import NodeDirectories
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
    family, value = parse_address("10.6.0.10")
    record = Record("blue", "default/web", "u", "c1", "eth0", "n1", "", "2025-01-31T12:00:00Z")
    store.create(Block(family, base_of(value), records={value: record}).to_object())
    assert in_use(store, spiderpool_stays=stays) is None  # its pod is gone

    metadata = {"name": "web", "namespace": "default"}
    pod = store.create({"apiVersion": "v1", "kind": "Pod", "metadata": metadata})
    store.update_status({**pod, "status": {"phase": "Running"}})

    refusal = str(in_use(store, spiderpool_stays=stays))
    assert f"1 address is in use (10.6.0.10 by pod default/web): {remedy}" in refusal
