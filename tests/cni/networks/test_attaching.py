"""Detaching executes plugins in the container's own network namespace, or in none."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest

from actors.decisions.settings import NetworkSettings
from actors.errors import CheckFailed
from cni.networks.attaching import FORGOTTEN, Cluster, Networks
from cni.networks.attachment_cache import Attached, AttachmentCache, AttachmentNote
from cni.networks.execution import Stop
from cni.networks.network_list import judge_network_list
from cni.server import protocol
from cni.server.libcni_cache import Namespaces
from cni.server.reserved_addresses import ReservedAddresses

RED = judge_network_list({"cniVersion": "1.1.0", "name": "red", "type": "recorder"}, "it", "")


@dataclass(frozen=True, slots=True)
class Node:
    """A node whose one plugin writes down what it was executed for; its processes are directories."""

    directory: Path

    @property
    def networks(self) -> Networks:
        return Networks(
            cast(Cluster, None),  # who has a note asks nobody
            NetworkSettings(),
            AttachmentCache(self.directory / "notes"),
            ReservedAddresses(),
            "kube-system",
            namespaces=Namespaces(self.directory / "netns", self.directory / "proc"),
        )

    def process(self, pid: int) -> int:
        """Let there be a process with a namespace of its own; the namespace's number."""
        namespace = self.directory / "proc" / str(pid) / "ns" / "net"
        namespace.parent.mkdir(parents=True, exist_ok=True)
        namespace.unlink(missing_ok=True)
        fresh = namespace.with_name(f"net-{time.monotonic_ns()}")
        fresh.touch()
        (namespace.parent / f"kept-{time.monotonic_ns()}").hardlink_to(
            fresh
        )  # so that its number stays taken
        fresh.rename(namespace)
        return namespace.stat().st_ino

    def note(self, inode: int | None) -> None:
        """A container was attached while process 4000000 had the namespace of this number."""
        attached = (Attached("default/red", "net1", RED),)
        path = str(self.directory / "bin")
        note = AttachmentNote("c1", "default/web", "/proc/4000000/ns/net", "eth0", path, attached, inode)
        self.networks.cache.write(note)

    def request(self, command: str, netns: str = "/proc/4000000/ns/net") -> protocol.CniRequest:
        environment = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": "c1",
            "CNI_IFNAME": "eth0",
            "CNI_NETNS": netns,
            "CNI_PATH": str(self.directory / "bin"),
        }
        stdin = b'{"cniVersion":"1.1.0","name":"node","cni.dev/valid-attachments":[],"prevResult":{}}'
        return protocol.parse(environment, stdin)

    @property
    def executed(self) -> list[str]:
        """Command and namespace of each execution."""
        return (self.directory / "executed").read_text().splitlines()


@pytest.fixture
def node(tmp_path: Path) -> Node:
    plugin = tmp_path / "bin" / "recorder"
    plugin.parent.mkdir()
    (tmp_path / "netns").mkdir()
    plugin.write_text(f'#!/bin/sh\necho "$CNI_COMMAND ${{CNI_NETNS-none}}" >> {tmp_path}/executed\n')
    plugin.chmod(0o755)
    return Node(tmp_path)


@pytest.fixture
def stop() -> Iterator[Stop]:
    with Stop() as one:
        yield one


def soon() -> float:
    return time.monotonic() + 60


def test_the_namespace_of_the_same_process_is_meant(node: Node, stop: Stop) -> None:
    node.note(node.process(4_000_000))
    node.networks.check(node.request("CHECK"), soon(), stop)
    node.networks.delete(node.request("DEL"), soon(), stop)

    assert node.executed == ["CHECK /proc/4000000/ns/net", "DEL /proc/4000000/ns/net"]


@pytest.mark.parametrize(
    "netns", ["/proc/4000000/ns/net", "/proc/4000001/ns/net", "/proc/thread-self/ns/net"]
)
def test_the_namespace_of_another_process_is_not_touched(node: Node, stop: Stop, netns: str) -> None:
    """The number of a process is given again, after a reboot at the latest."""
    node.note(node.process(4_000_000))
    assert node.process(4_000_000) != node.process(4_000_001)
    with pytest.raises(CheckFailed, match="is not the network namespace of pod default/web any more"):
        node.networks.check(node.request("CHECK", netns), soon(), stop)
    node.networks.delete(node.request("DEL", netns), soon(), stop)

    assert node.executed == ["DEL none"]
    assert node.networks.cache.read("c1") is None


def _collected(networks: Networks, node: Node, stop: Stop) -> Any:
    networks.collect(node.request("GC"), soon(), stop)


def _swept(networks: Networks, node: Node, stop: Stop) -> Any:
    note = node.directory / "notes" / "c1.json"
    long_ago = time.time() - 2 * FORGOTTEN
    os.utime(note, (long_ago, long_ago))
    assert networks.sweep(soon(), stop) == 1


@pytest.mark.parametrize("detach", [_collected, _swept])
def test_nor_is_it_by_who_cleans_up(node: Node, stop: Stop, detach: Any) -> None:
    node.note(node.process(4_000_000))
    node.process(4_000_000)
    detach(node.networks, node, stop)

    assert node.executed == ["DEL none"]


def test_what_an_earlier_version_noted_is_detached_as_it_says(node: Node, stop: Stop) -> None:
    node.process(4_000_000)
    node.note(None)
    node.networks.delete(node.request("DEL"), soon(), stop)

    assert node.executed == ["DEL /proc/4000000/ns/net"]
