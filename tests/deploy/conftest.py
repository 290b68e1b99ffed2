"""A store on the real API server, empty but for what the deployment makes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cluster import Cluster, ClusterStore
from tests.tools.apiserver import ApiServer


@pytest.fixture
def store(api_server: ApiServer, tmp_path: Path) -> Iterator[ClusterStore]:
    opened = Cluster(api_server).open(tmp_path / "store")
    yield opened
    opened.close()
