"""The actors on a real API server: the same tests that they pass on the embedded store's file.

Left out are those that open the file themselves.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import pytest

from tests.actors.allocation import test_endpoint, test_fixed, test_pool
from tests.faults import test_store_faults
from tests.support import rig
from tests.support.cluster import Cluster
from tests.tools.apiserver import ApiServer
from tests.tools.kubevirt import install, remove

LEFT_OUT: frozenset[str] = frozenset()


@pytest.fixture(scope="module")
def cluster(api_server: ApiServer) -> Iterator[Cluster]:
    """Without the policy that keeps addresses in use in their pool: some tests take them away to see what follows."""
    with api_server.without_policy("orbweaver-pools-in-use"):
        install(api_server)
        yield Cluster(api_server)
        remove(api_server)


@pytest.fixture(autouse=True)
def on_kubernetes(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rig, "SQLiteStore", cluster.open)


def _adopt(module: ModuleType) -> None:
    """Collect a module's tests and fixtures here a second time, under this module's own fixtures."""
    for name, value in vars(module).items():
        fixture = type(value).__name__ == "FixtureFunctionDefinition"
        if (name.startswith("test_") and callable(value) and name not in LEFT_OUT) or fixture:
            globals()[name] = value


for _module in (test_endpoint, test_fixed, test_pool, test_store_faults):
    _adopt(_module)
