"""Pods of one workload that are replaced all the time, while something else is tried."""

from __future__ import annotations

import threading
from typing import Self

from tests.cluster.cluster import Cluster
from tests.cluster.deployment import pods


class Churn:
    """Deletes all pods of a workload as often as all of them run, until it is left."""

    def __init__(self, cluster: Cluster, name: str, replicas: int) -> None:
        self.rounds = 0
        self.error: BaseException | None = None
        self._cluster, self._name, self._replicas = cluster, name, replicas
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._guarded, name="churn", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def wait(self, more: int, seconds: float = 240.0) -> None:
        """Go on until all were replaced so many times more."""
        goal = self.rounds + more
        self._cluster.wait(
            "pods are replaced", lambda: self.rounds >= goal or self.error is not None, seconds
        )
        assert self.error is None, self.error

    def _guarded(self) -> None:
        try:
            while not self._over.is_set():
                self._replace_all()
        except BaseException as error:
            self.error = error

    def _replace_all(self) -> None:
        self._cluster.wait(
            "all pods of the churn run",
            lambda: len(pods(self._cluster, self._name)) == self._replicas,
            240,
        )
        self._cluster.kubectl("delete", "pods", "-l", f"app={self._name}", "--wait=false")
        self.rounds += 1
