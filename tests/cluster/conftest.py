"""A cluster for the session, or the reason why there is none."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster import programs
from tests.cluster.cluster import Cluster
from tests.cluster.deployment import deploy
from tests.tools.gomodule import ProgramMissing


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Two nodes that run no pods yet, because they have no CNI configuration."""
    try:
        found = programs.find()
    except ProgramMissing as missing:
        pytest.skip(str(missing))
    started = Cluster(found)
    try:
        started.start()
        yield started
    finally:
        started.stop()


@pytest.fixture(scope="session")
def deployed(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster with Orbweaver on it; at the end every agent stops as it should."""
    deploy(cluster)
    yield cluster
    for node in cluster.nodes.values():
        log = node.agent_log()
        assert node.stop_agent() == 0, log
