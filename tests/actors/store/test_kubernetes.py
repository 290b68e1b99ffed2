"""The store on a real API server, under the contract, and what is its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from actors.store.kubernetes import KubernetesStore
from tests.actors.store.contract_suite import StoreContract, follow
from tests.tools.apiserver import ApiServer

__all__ = ["follow"]


@pytest.fixture
def store(api_server: ApiServer) -> Iterator[KubernetesStore]:
    opened = KubernetesStore(api_server.access())
    yield opened
    opened.close()


class TestContract(StoreContract):
    pass
