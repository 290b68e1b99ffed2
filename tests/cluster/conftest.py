"""A cluster for the session, or the reason why there is none."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster import programs
from tests.cluster.cluster import Cluster
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
