"""A cluster for the session, or the reason why there is none."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.cluster import programs
from tests.cluster.cluster import Cluster
from tests.cluster.deployment import deploy
from tests.cluster.node import Node
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
def deployed(cluster: Cluster, image_archive: Path) -> Iterator[Cluster]:
    """The cluster with Orbweaver on it; at the end every agent stops as it should."""
    for node in cluster.nodes.values():
        node.note_state()
    deploy(cluster, image_archive)
    yield cluster
    logs = {name: node.agent_log() for name, node in cluster.nodes.items()}
    with ThreadPoolExecutor() as threads:
        stopped = dict(zip(cluster.nodes, threads.map(Node.stop_agent, cluster.nodes.values()), strict=True))
    assert stopped == dict.fromkeys(cluster.nodes, 0), logs
