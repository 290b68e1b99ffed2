"""Which new CIDRs a running pod is given ways to, and that it is told of them once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest

from actors.errors import StoreUnavailable
from actors.runtime import ObjectRef
from cni.dataplane.coordinator.cidr_changes import CidrChanges, with_more_cidrs
from cni.dataplane.coordinator.settings import CoordinatorSettings
from cni.dataplane.workers.job import Job
from tests.support.checker import eventually

TOLD = CoordinatorSettings(hijack=("10.96.0.0/12", "fd00:96::/112"))


@pytest.mark.parametrize(
    "wanted, subnets, hijack",
    [
        (("10.96.0.0/12", "fd00:96::/112"), (), None),
        ((), (), None),
        (("10.112.0.0/16",), (), (*TOLD.hijack, "10.112.0.0/16")),
        (("10.112.0.0/16",), ("10.6.0.5/16", "fd00::5/64"), (*TOLD.hijack, "10.112.0.0/16")),
        (("10.6.9.0/24",), ("10.6.0.5/16",), None),
        (("10.0.0.0/8", "10.1.0.0/16"), ("10.6.0.5/16",), (*TOLD.hijack, "10.1.0.0/16")),
        (("fd00::/48",), ("fd00::5/64", "10.6.0.5/16"), None),
        (("0.0.0.0/0",), ("10.6.0.5/16",), None),
    ],
)
def test_only_what_is_new_and_none_of_the_pods_own_is_added(
    wanted: tuple[str, ...], subnets: tuple[str, ...], hijack: tuple[str, ...] | None
) -> None:
    found = with_more_cidrs(TOLD, CoordinatorSettings(hijack=wanted, queue=7), subnets)

    assert found == (None if hijack is None else replace(TOLD, hijack=hijack))


class Node:
    """Two pods, and what is planned for them."""

    def __init__(self) -> None:
        self.planned: list[tuple[str, tuple[str, ...]]] = []
        self.wanted: dict[str, tuple[str, ...]] = {}
        self.refuse = 0
        self.changes = CidrChanges(self._wish, self._plan)
        for container in ("c1", "c2"):
            previous = {"ips": [{"address": "10.6.0.5/16"}, {"address": "nonsense"}, 7]}
            job = Job("ADD", TOLD, container, "eth0", "/run/netns/x", f"default/{container}", previous)
            self.changes.note(cast("Any", container), job)

    def _wish(self, request: Any) -> CoordinatorSettings:
        return CoordinatorSettings(hijack=self.wanted.get(request, TOLD.hijack))

    def _plan(self, request: Any, job: Job) -> ObjectRef[int]:
        assert isinstance(job.settings, CoordinatorSettings)
        assert job.again
        ref: ObjectRef[int] = ObjectRef(label="plan")
        if self.refuse:
            self.refuse -= 1
            ref.fail(StoreUnavailable("not now", maybe_written=False))
        else:
            self.planned.append((request, job.settings.hijack))
            ref.complete(1)
        return ref


@pytest.fixture
def node() -> Any:
    made = Node()
    made.changes.start()
    yield made
    made.changes.stop()


def _is(found: object, wanted: object) -> None:
    assert found == wanted


def test_each_pod_is_told_once_of_what_concerns_it(node: Node) -> None:
    node.wanted = {"c1": ("10.112.0.0/16", "10.6.1.0/24")}
    node.changes.changed()
    told = ("c1", (*TOLD.hijack, "10.112.0.0/16"))
    eventually(lambda: _is(node.planned, [told]))

    node.wanted["c2"] = ("10.113.0.0/16",)
    node.changes.changed()
    eventually(lambda: _is(node.planned, [told, ("c2", (*TOLD.hijack, "10.113.0.0/16"))]))
    assert node.changes.current(replace(_job("c2"))).settings != TOLD


def test_a_pod_that_cannot_be_told_is_told_with_the_next_change(node: Node) -> None:
    node.refuse = 1
    node.wanted = {"c1": ("10.112.0.0/16",)}
    node.changes.changed()
    eventually(lambda: _is(node.refuse, 0))
    node.changes.changed()
    eventually(lambda: _is([pod for pod, _ in node.planned], ["c1"]))


def test_a_pod_that_is_gone_is_not_told(node: Node) -> None:
    node.changes.forget("c1", "eth0")
    node.wanted = {"c1": ("10.112.0.0/16",), "c2": ("10.112.0.0/16",)}
    node.changes.changed()
    eventually(lambda: _is([pod for pod, _ in node.planned], ["c2"]))


def _job(container: str) -> Job:
    return Job("ADD", TOLD, container, "eth0", "/run/netns/x", "default/x")
