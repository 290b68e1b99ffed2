"""The node's watch over sandboxes: what one held is back when it has ended, and not before.

Network namespaces are files here, as a runtime mounts them, and pods are objects that the test changes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from actors.allocation.messages import NodeSandbox, Sandbox
from actors.allocation.sandbox_evidence import SandboxState
from actors.errors import NotFound
from actors.reclaim.sandbox_watch import Watched
from actors.reclaim.stale_sandboxes import is_on_its_way_out
from actors.resources.addresses import parse_address
from actors.resources.blocks.block import Block, Claim, Release, block_name
from actors.resources.blocks.record import Fence, Record
from actors.resources.pod import Pod
from actors.runtime import get
from cni.process.agent import Agent
from cni.server.libcni_cache import Namespaces
from tests.support.checker import equal, eventually, records
from tests.support.rig import Rig, pod, pool, rig, sandbox, statefulset

BLUE = pool("blue", "10.6.0.0/16", "10.6.0.1-10.6.0.9")
ALIVE = Pod("default", "web", "u1", phase="Running")


@pytest.mark.parametrize(
    "now, uid, out",
    [
        (ALIVE, "u1", False),
        (ALIVE, "", False),
        (replace(ALIVE, uid=""), "u1", False),
        (None, "u1", True),
        (replace(ALIVE, uid="u2"), "u1", True),
        (replace(ALIVE, phase="Succeeded"), "u1", True),
        (replace(ALIVE, deleted_at=4e9), "u1", True),
    ],
)
def test_a_sandbox_has_nothing_to_come_back_for_when_its_pod_goes(now: Pod | None, uid: str, out: bool):
    assert is_on_its_way_out(now, uid) is out


def test_what_stays_unseen_is_looked_at_less_and_less_often_until_it_is_seen() -> None:
    watched, looks, now = Watched(NodeSandbox("c1", "default/web", "u1")), list[float](), 100.0
    while now < 220.0:
        if now >= watched.look_again:
            looks.append(now)
            watched.saw(SandboxState.UNSEEN, now)
        now += 0.25

    assert looks[:3] == [100.0, 100.25, 100.5]
    pauses = [after - before for before, after in pairwise(looks)]
    assert max(pauses) == 5.0
    assert pauses == sorted(pauses)
    assert len(looks) < 50, "four a second were 480"

    watched.saw(SandboxState.ENDED, now)
    assert (watched.ended, watched.is_unseen(now)) == (1, False)


class Node:
    """An agent, and the network namespaces of its node."""

    def __init__(self, rig: Rig, mounted: Path) -> None:
        self.rig, self.mounted = rig, mounted

    def uid(self, pod: str) -> str:
        """That of the pod's object, empty where there is none."""
        try:
            return str(self.rig.inner.get("Pod", pod, "default")["metadata"]["uid"])
        except NotFound:
            return ""

    def version(self, pod: str) -> str:
        try:
            return str(self.rig.inner.get("Pod", pod, "default")["metadata"]["resourceVersion"])
        except NotFound:
            return ""

    def box(self, container: str, pod: str) -> Sandbox:
        netns = f"/run/netns/{container}"
        return replace(sandbox(container, pod=pod, uid=self.uid(pod)), netns=netns)

    def run(self, container: str, pod: str) -> str:
        """A sandbox with an address."""
        (self.mounted / container).touch()
        return self.rig.add(self.box(container, pod))[0]

    def end(self, container: str) -> None:
        """The sandbox ends, and no DEL comes."""
        self.rig.journal.releasing((container, "eth0"))
        (self.mounted / container).unlink()
        self.rig.journal.released((container, "eth0"))

    def held(self) -> set[str]:
        return {str(record.get("container", "")) for record in records(self.rig.inner).values()}


@contextmanager
def node(
    path: Path, monkeypatch: pytest.MonkeyPatch, *objects: dict[str, Any], **options: Any
) -> Iterator[Node]:
    """An agent that looks more often than in earnest."""
    monkeypatch.setattr("actors.reclaim.sandbox_watch.LOOK", 0.02)
    monkeypatch.setattr("actors.reclaim.sandbox_watch.SWEEP", 0.1)
    mounted, notes = path / "netns", path / "results"
    for directory in (mounted, notes):
        directory.mkdir(exist_ok=True)
    namespaces = Namespaces(mounted, None)
    with rig(path, *objects, attachments=notes, namespaces=namespaces, **options) as one:
        yield Node(one, mounted)


@pytest.mark.parametrize("change", ["gone", "replaced", "finished", "terminating"])
def test_an_address_is_back_when_the_sandbox_has_ended_and_not_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
):
    web = pod("web")
    web["metadata"]["finalizers"] = ["example.com/slow"] if change == "terminating" else []
    objects = [BLUE, web, pod("other")]
    with node(tmp_path, monkeypatch, *objects, has_pods=True) as one:
        store = one.rig.inner
        one.run("c-web", "web")
        one.run("c-other", "other")
        if change == "finished":
            store.update_status(store.get("Pod", "web", "default") | {"status": {"phase": "Succeeded"}})
        else:  # Terminating for as long as somebody's finalizer is there
            store.delete("Pod", "web", "default")
        if change == "replaced":
            store.create(pod("web"))

        watched(one, "web")
        assert one.held() == {"c-web", "c-other"}, "its sandbox lives"
        one.end("c-web")
        eventually(lambda: equal(one.held(), {"c-other"}))
        assert not [
            mark for obj in store.list("SpiderIPBlock").items for mark in Block.from_object(obj).suspect
        ]
        one.rig.prove(views=False)


def watched(one: Node, pod: str) -> None:
    """Wait until the agent knows the pod as it is now, and has looked at its sandboxes."""

    def known() -> None:
        found = one.rig.agent.catalog.informer("Pod").get(pod, "default")
        equal("" if found is None else found.uid + found.version, one.uid(pod) + one.version(pod))

    eventually(known)
    get(one.rig.system.get_actor("sandbox-watch/local").pod_changed.remote(f"default/{pod}"), 60)
    get(one.rig.system.get_actor(f"endpoint/default/{pod}").ended.remote("nothing"), 60)


def test_the_address_of_a_pod_that_lives_stays_when_its_sandbox_dies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The kubelet makes another one, which takes it over."""
    with node(tmp_path, monkeypatch, BLUE, pod("web"), has_pods=True) as one:
        address = one.run("c1", "web")
        one.end("c1")
        watched(one, "web")
        assert one.held() == {"c1"}
        assert one.run("c2", "web") == address
        watched(one, "web")
        assert one.held() == {"c2"}


def test_a_statefulset_s_pod_finds_its_address_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with node(tmp_path, monkeypatch, BLUE, statefulset("db", 1), has_pods=True) as one:

        def start(container: str) -> str:
            made = pod("db-0", statefulset="db")
            owner = one.rig.inner.get("StatefulSet", "db", "default")["metadata"]["uid"]
            made["metadata"]["ownerReferences"][0]["uid"] = owner
            one.rig.inner.create(made)
            return one.run(container, "db-0")

        address = start("c1")
        one.rig.inner.delete("Pod", "db-0", "default")
        one.end("c1")
        eventually(lambda: equal(one.held(), {""}))
        assert start("c2") == address


def test_what_ran_before_the_agent_is_watched_by_the_runtime_s_notes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The agent ends in the middle: the pod goes, and its sandbox, while none runs, and another's after it is back."""
    objects = [BLUE, pod("a"), pod("b")]
    with node(tmp_path, monkeypatch, *objects, has_pods=True) as one:
        for name in ("a", "b"):
            one.run(f"c-{name}", name)
            note = f'{{"containerId": "c-{name}", "netns": "/var/run/netns/c-{name}"}}'
            (tmp_path / "results" / f"net-c-{name}-eth0").write_text(note)
        one.rig.inner.delete("Pod", "a", "default")
        one.rig.agent.stop()
        one.end("c-a")
        one.rig.inner.delete("Pod", "b", "default")
    with node(tmp_path, monkeypatch, has_pods=True) as one:
        eventually(lambda: equal(one.held(), {"c-b"}))
        watched(one, "b")
        assert one.held() == {"c-b"}
        (tmp_path / "netns" / "c-b").unlink()
        eventually(lambda: equal(one.held(), set()))


def test_what_cannot_be_seen_is_left_alone_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    told: list[tuple[bool, tuple[NodeSandbox, ...]]] = []
    monkeypatch.setattr(Agent, "_announce", lambda agent, sees, unseen: told.append((sees, unseen)))
    monkeypatch.setattr("actors.reclaim.sandbox_watch.UNSEEN_FOR", 0.1)
    with node(tmp_path, monkeypatch, BLUE, pod("web"), has_pods=True) as one:
        uid = one.uid("web")
        one.rig.add(replace(one.box("c1", "web"), netns="/somewhere/else"))
        one.rig.inner.delete("Pod", "web", "default")

        eventually(lambda: equal(told[-1], (True, (NodeSandbox("c1", "default/web", uid),))))
        assert one.held() == {"c1"}


def test_what_cannot_be_seen_for_a_moment_is_not_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Its DEL may be on its way to this agent, which began a moment ago."""
    told: list[tuple[bool, tuple[NodeSandbox, ...]]] = []
    monkeypatch.setattr(Agent, "_announce", lambda agent, sees, unseen: told.append((sees, unseen)))
    monkeypatch.setattr("actors.reclaim.sandbox_watch.UNSEEN_FOR", 3600.0)
    monkeypatch.setattr("actors.reclaim.sandbox_watch.ANNOUNCE", 0.05)
    with node(tmp_path, monkeypatch, BLUE, pod("web"), has_pods=True) as one:
        one.rig.add(replace(one.box("c1", "web"), netns="/somewhere/else"))
        one.rig.inner.delete("Pod", "web", "default")
        watched(one, "web")
        before = len(told)
        eventually(lambda: equal(len(told) > before + 3, True))

        assert set(told[before:]) == {(True, ())}
        assert one.held() == {"c1"}


def test_a_release_that_fails_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr("actors.reclaim.sandbox_watch.RETRY_FIRST", 0.05)
    monkeypatch.setattr("actors.allocation.deallocation.UNDO_TIMEOUT", 0.2)
    with node(tmp_path, monkeypatch, BLUE, pod("web"), has_pods=True) as one:
        one.run("c1", "web")
        one.rig.inner.delete("Pod", "web", "default")
        watched(one, "web")
        one.rig.store.away = True
        one.end("c1")
        eventually(lambda: equal("could not be released yet" in caplog.text, True))
        assert one.held() == {"c1"}
        one.rig.store.away = False
        eventually(lambda: equal(one.held(), set()))


def test_on_a_host_without_kubernetes_an_end_that_nobody_tells_is_seen_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with node(tmp_path, monkeypatch, BLUE) as one:
        for name in ("a", "b", "c"):
            one.run(f"c-{name}", name)
        one.end("c-a")
        # It is started again under its id, as podman does: the namespace that the ADD names counts.
        (tmp_path / "netns" / "again").touch()
        (tmp_path / "netns" / "c-b").unlink()
        one.rig.add(replace(one.box("c-b", "b"), netns="/run/netns/again"))

        eventually(lambda: equal(one.held(), {"c-b", "c-c"}))
        one.rig.prove(views=False)


def test_the_end_of_a_last_holder_ends_the_suspicion_against_his_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The leader had taken it by force while this agent was away, which reads of it when it is back."""

    def suspects(one: Node) -> list[str]:
        blocks = [Block.from_object(obj) for obj in one.rig.inner.list("SpiderIPBlock").items]
        return [suspect.container for block in blocks for suspect in block.suspect.values()]

    with node(tmp_path, monkeypatch, BLUE, pod("web"), has_pods=True) as one:
        one.run("c1", "web")
        note = '{"containerId": "c1", "netns": "/run/netns/c1"}'
        (tmp_path / "results" / "net-c1-eth0").write_text(note)
        one.rig.inner.delete("Pod", "web", "default")
        (held,) = get(one.rig.system.get_actor("ledger/local").everything.remote(), 60)
        block = one.rig.system.get_actor("block/" + block_name(held.family, held.value))
        forced = Release(held.value, Fence.of(held.record), 1.0, forced=True)
        assert get(block.release.remote(forced), 60).done
        one.rig.agent.stop()
    with node(tmp_path, monkeypatch, has_pods=True) as one:
        watched(one, "web")
        assert suspects(one) == ["c1"]
        (tmp_path / "netns" / "c1").unlink()
        eventually(lambda: equal(suspects(one), []))


def test_what_somebody_else_recorded_is_watched_once_a_leader_tells_that_there_is_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """As a takeover from an IPAM whose plugin is asked for the DEL; the pod went before it was recorded."""
    with node(tmp_path, monkeypatch, BLUE, has_pods=True) as one:
        (tmp_path / "results" / "net-c1-eth0").write_text('{"containerId": "c1", "netns": "/run/netns/c1"}')
        record = Record("blue", "default/web", "u1", "c1", "eth0", one.rig.agent.options.node, "", "")
        value = parse_address("10.6.0.5")[1]
        block = one.rig.system.get_actor("block/" + block_name(4, value))
        watch = one.rig.system.get_actor("sandbox-watch/local")
        get(watch.pod_changed.remote("default/web"), 60)
        assert get(block.claim.remote(Claim(value, record)), 60).fresh
        assert one.held() == {"c1"}

        get(watch.heard.remote(1), 60)
        eventually(lambda: equal(one.held(), set()))
