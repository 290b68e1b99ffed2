"""Who is about to give addresses back: what the caches tell, and what does not count."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from actors.reclaim.leaving_pods import GONE_FOR, LeavingPods, leaving
from actors.resources.blocks.record import Record
from actors.resources.node import Node
from actors.resources.pod import Pod
from actors.store.caches.informer import ObjectKey

HELD = Record("blue", "default/web", "u1", "c1", "eth0", "node1", "", "2025-01-31T12:00:00Z")
RUNS = Pod("default", "web", "u1", node="node1", phase="Running")
READY = Node.from_object(
    {"metadata": {"name": "node1"}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}}
)
LOST = Node.from_object(
    {"metadata": {"name": "node1"}, "status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}
)


@pytest.mark.parametrize(
    ("pod", "node", "complete", "why"),
    [
        (RUNS, READY, True, None),
        (replace(RUNS, deleted_at=5.0), READY, True, "pod default/web is Terminating"),
        (replace(RUNS, deleted_at=5.0), None, True, "pod default/web is Terminating"),
        (replace(RUNS, deleted_at=5.0), LOST, True, None),
        (replace(RUNS, phase="Succeeded"), READY, True, "pod default/web has ended"),
        (replace(RUNS, uid="u2"), READY, True, "pod default/web was replaced by another one of its name"),
        (None, READY, True, "pod default/web is gone"),
        (None, READY, False, None),
        (None, LOST, True, None),
    ],
)
def test_whether_an_address_is_on_its_way_back(
    pod: Pod | None, node: Node | None, complete: bool, why: str | None
):
    assert leaving(HELD, pod, node, complete) == why


class Cache:
    def __init__(self) -> None:
        self.now = 0.0
        self.pods: dict[str, Pod] = {}
        self.kept: set[str] = set()
        cache: Any = SimpleNamespace(pod=self.pods.get, node=lambda name: READY)
        self.leaving = LeavingPods(
            cache,
            stays=lambda record: record.pod in self.kept,
            complete=lambda record: True,
            clock=lambda: self.now,
        )

    def change(self, pod: Pod | None) -> None:
        self.pods.pop("default/web", None)
        if pod is not None:
            self.pods["default/web"] = pod
        self.leaving.changed(ObjectKey("Pod", "default", "web"))


def test_a_pod_counts_from_its_deletion_until_it_is_long_gone():
    cache = Cache()
    cache.change(RUNS)
    assert cache.leaving.pods() == ()
    cache.change(replace(RUNS, deleted_at=5.0))
    assert cache.leaving.pods() == ("default/web",)
    cache.change(None)
    assert cache.leaving.pods() == ("default/web",)
    assert cache.leaving.why(HELD) == "pod default/web is gone"
    cache.now += GONE_FOR + 1
    assert cache.leaving.pods() == ()


def test_what_is_kept_for_the_next_incarnation_stays():
    cache = Cache()
    cache.change(replace(RUNS, deleted_at=5.0))
    cache.kept.add("default/web")
    assert cache.leaving.why(HELD) is None
    cache.kept.clear()
    assert cache.leaving.why(HELD.retained()) is None


def test_a_pod_counts_while_its_del_is_served():
    cache = Cache()
    cache.change(RUNS)
    with cache.leaving.stopping(("default/web",)):
        with cache.leaving.stopping(("default/web",)):
            pass
        assert cache.leaving.pods() == ("default/web",)
        assert cache.leaving.why(HELD) == "pod default/web is being stopped"
    assert cache.leaving.pods() == ()
    assert cache.leaving.why(HELD) is None
