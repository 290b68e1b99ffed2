"""What watches pods while something is swapped, without a cluster."""

from __future__ import annotations

import threading
from typing import Any, cast

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.processes import ClusterFailed
from tests.cluster.watch import Watch


class Stammering:
    """A cluster without pods, which gives no answer to one of the questions, counted from 1."""

    def __init__(self, silent: int) -> None:
        self.silent, self.asked = silent, 0
        self.looked_at_again = threading.Event()

    def items(self, *_words: str) -> list[dict[str, Any]]:
        self.asked += 1
        if self.asked == self.silent:
            raise ClusterFailed("not now")
        if self.asked > self.silent + 2:
            self.looked_at_again.set()
        return []


@pytest.mark.parametrize("silent", [3, 4])
def test_a_look_that_the_api_server_does_not_answer_is_left_out(silent: int) -> None:
    """The first two questions are those of the beginning; a look has two as well."""
    cluster = Stammering(silent)

    with Watch(cast(Cluster, cluster), "web", {}) as watch:
        assert cluster.looked_at_again.wait(60)

    assert watch.rounds
