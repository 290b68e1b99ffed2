"""What an agent can say of each sandbox of its node: alive, ended, or unseen, and never ended by guess."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from actors.allocation.messages import NodeSandbox, Sandbox
from actors.allocation.sandbox_evidence import SandboxState
from cni.server.libcni_cache import Namespaces
from cni.server.node_sandboxes import NodeSandboxes

ALIVE, ENDED, UNSEEN = SandboxState.ALIVE, SandboxState.ENDED, SandboxState.UNSEEN


class Node:
    """A node's directories."""

    def __init__(self, path: Path) -> None:
        self.cache, self.mounted = path / "results", path / "netns"
        self.cache.mkdir()
        self.mounted.mkdir()
        self.sandboxes = NodeSandboxes(self.cache, Namespaces(self.mounted, None))

    def namespace(self, name: str) -> Path:
        (self.mounted / name).touch()
        return Path("/var/run/netns") / name

    def end(self, name: str) -> None:
        (self.mounted / name).unlink()

    def note(self, container: str, netns: str, interface: str = "eth0") -> None:
        body = {"containerId": container, "ifName": interface, "netns": netns}
        (self.cache / f"net-{container}-{interface}").write_text(json.dumps(body))

    def began(self, container: str, netns: str | Path, interface: str = "eth0") -> None:
        self.sandboxes.began(Sandbox(container, interface, "default", f"pod-{container}", "u1", str(netns)))

    def deleted(self, container: str, interface: str = "eth0") -> None:
        self.sandboxes.deleted(Sandbox(container, interface, "default", f"pod-{container}", "u1", ""))

    @property
    def known(self) -> set[str]:
        return {one.container for one in self.sandboxes.known()}


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def test_the_namespace_that_an_add_named_tells_before_there_is_a_note(node: Node):
    node.began("c1", node.namespace("n1"))
    assert node.sandboxes.state("c1") is ALIVE
    node.end("n1")
    assert node.sandboxes.state("c1") is ENDED


def test_a_container_that_was_started_again_is_judged_by_its_new_namespace(node: Node):
    node.began("c1", node.namespace("n1"))
    node.note("c1", "/run/netns/n1")
    node.end("n1")
    node.began("c1", node.namespace("n2"))
    assert node.sandboxes.state("c1") is ALIVE
    node.end("n2")
    assert node.sandboxes.state("c1") is ENDED


def test_after_a_restart_of_the_agent_the_runtime_s_notes_tell(node: Node):
    node.namespace("n1")
    for container, name in (("c1", "n1"), ("c2", "away")):
        node.sandboxes.remember([NodeSandbox(container, "default/web", "u1", "eth0")])
        node.note(container, f"/run/netns/{name}")

    assert (node.sandboxes.state("c1"), node.sandboxes.state("c2")) == (ALIVE, ENDED)


def test_what_nobody_saw_is_unseen(node: Node):
    """No note, and a namespace that was not to be seen when the ADD named it: as of a runtime that mounts elsewhere."""
    node.began("c1", "/somewhere/else")
    node.began("c2", "/run/netns/never-there")
    node.sandboxes.remember([NodeSandbox("c3", "default/web", "u1", "eth0")])
    node.note("c4", "/somewhere/else")
    node.note("c4", "/run/netns/away", "net1")

    assert {node.sandboxes.state(f"c{number}") for number in range(1, 6)} == {UNSEEN}


def test_one_of_two_interfaces_in_a_namespace_that_is_there_is_enough(node: Node):
    node.note("c1", "/run/netns/away")
    node.note("c1", str(node.namespace("n1")), "net1")

    assert node.sandboxes.state("c1") is ALIVE


def test_a_container_is_forgotten_with_the_del_of_its_last_interface(node: Node):
    for interface in ("eth0", "net1"):
        node.began("c1", node.namespace("n1"), interface)
    node.sandboxes.remember(
        [NodeSandbox("c2", "default/web", "u1", "eth0"), NodeSandbox("c3", "default/web")]
    )
    node.deleted("c1")
    assert node.known == {"c1", "c2", "c3"}
    for container, interface in (("c1", "net1"), ("c2", "eth0"), ("c3", "eth0"), ("c4", "eth0")):
        node.deleted(container, interface)

    assert node.known == set()
    assert node.sandboxes.of_pod("default/web") == ()
