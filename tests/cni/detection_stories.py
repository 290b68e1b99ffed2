"""Stories of conflict and gateway detection with real plugins in real network namespaces. Each runs in a sandbox of its
own:

    python tests/cni/detection_stories.py STORY DIRECTORY CNI_BIN

It exits with 0 when everything it says came true. `test_detection.py` starts them.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[2]))


from cni.dataplane import frames
from cni.netlink import inside
from cni.sandbox import Network, SandboxPod, lay_cable, run
from tests.agent_process import AgentProcess, pool

V4 = pool("blue-v4", "10.6.0.0/16", "10.6.9.10-10.6.9.99", "10.6.0.1")
V6 = pool("blue-v6", "fd00:6::/64", "fd00:6::10-fd00:6::99", "fd00:6::1")
PATIENT = {"timeout": "500ms", "interval": "100ms"}
"""A kernel that answers other tests' softirqs first is slow, and what it does not say in time is not heard."""
ON: dict[str, Any] = {"detectIPConflict": True, "detectOptions": PATIENT}
OTHER = "/run/netns/other"


@dataclass(frozen=True, slots=True)
class Seen:
    """One frame on the segment: what it says, and as it was."""

    said: frames.Claimed
    frame: bytes
    at: float


def segment() -> None:
    """The node's card, and on the other end of its cable another host."""
    lay_cable("uplink0")
    run("ip", "netns", "add", "other")
    run("ip", "link", "set", "fabric0", "netns", "other")
    in_other("ip link set lo up; ip link set fabric0 up")


def in_other(script: str) -> None:
    run("nsenter", f"--net={OTHER}", "sh", "-c", script)


def owns(*addresses: str) -> str:
    """Give the other host these addresses; its MAC."""
    for address in addresses:
        in_other(f"ip addr add {address} dev fabric0{' nodad' if ':' in address else ''}")
    return json.loads(run("nsenter", f"--net={OTHER}", "ip", "-j", "link", "show", "fabric0"))[0]["address"]


def network(
    agent: AgentProcess, plugins: Path, main: Mapping[str, Any] | None = None, **ipam: Any
) -> Network:
    kind = main or {"type": "macvlan", "master": "uplink0"}
    conf = {"cniVersion": "1.0.0", "name": "blue", **kind, "ipam": {**agent.ipam, **ipam}}
    return Network(conf, (plugins, agent.plugins))


def bare(pod: SandboxPod) -> list[str]:
    return [address.partition("/")[0] for address in pod.addresses]


@contextmanager
def watching() -> Iterator[list[Seen]]:
    """What is said about addresses on the segment meanwhile, as the other host's card hears it."""
    seen: list[Seen] = []
    descriptor = os.open(OTHER, os.O_RDONLY)
    with inside(descriptor):
        channel = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        channel.bind(("fabric0", 3))
    os.close(descriptor)
    channel.settimeout(0.05)
    done = threading.Event()

    def read() -> None:
        while True:
            try:
                frame, origin = channel.recvfrom(2048)
            except TimeoutError:
                if done.is_set():
                    return
                continue
            said = frames.read(frame)
            if said is not None and origin[2] != socket.PACKET_OUTGOING:
                seen.append(Seen(said, frame, time.monotonic()))

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join()
        channel.close()


def of(seen: Sequence[Seen], address: str) -> list[Seen]:
    return [one for one in seen if one.said.address == frames.packed(address)]


def probes(seen: Sequence[Seen], address: str) -> list[Seen]:
    return [one for one in of(seen, address) if one.said.probing]


def conflict(agent: AgentProcess, plugins: Path) -> None:
    """Another host has the first addresses: the pod gets the next ones in the same ADD, both families; the others are
    set aside, with the reason; the capture shows RFC 5227 probes and no announcement of an address that was in use."""
    segment()
    mac = owns("10.6.9.10/16", "10.6.9.11/16", "fd00:6::10/64")
    pod = SandboxPod("a", network(agent, plugins, **ON))
    with watching() as seen:
        pod.start()
    assert bare(pod) == ["10.6.9.12", "fd00:6::11"], pod.addresses
    assert sorted(agent.records()) == sorted(bare(pod))
    for address in ("10.6.9.10", "10.6.9.11", "fd00:6::10"):
        shown = agent.orbweaver("ip", "show", address)
        assert "set aside until" in shown and mac in shown and "default/a" in shown, shown
        assert probes(seen, address), address
        assert all(one.said.probing for one in of(seen, address)), "an address in use was announced"
    (first, *more) = probes(seen, "10.6.9.12")
    assert len(more) == 2, "retries"
    # RFC 5227 section 2.1.1: a broadcast request, sender address zero, target hardware address zero.
    own = first.said.mac
    assert first.frame[:42] == (
        b"\xff" * 6 + own + bytes.fromhex("0806 0001 0800 06 04 0001") + own + bytes(4) + bytes(6)
        + socket.inet_aton("10.6.9.12")
    )  # fmt: skip
    assert len({one.frame for one in (first, *more)}) == 1
    # RFC 4862 section 5.4.2: from the unspecified address to the solicited-node group, hop limit 255.
    (six, *_) = probes(seen, "fd00:6::11")
    assert six.frame[:14] == bytes.fromhex("3333ff000011") + own + bytes.fromhex("86dd")
    assert six.frame[20:54] == bytes((58, 255)) + bytes(16) + socket.inet_pton(
        socket.AF_INET6, "ff02::1:ff00:11"
    )
    second = SandboxPod("b", network(agent, plugins, **ON))
    with watching() as seen:
        second.start()
    assert bare(second) == ["10.6.9.13", "fd00:6::12"]
    assert not of(seen, "10.6.9.10"), "what is set aside is not probed again"
    for one in (pod, second):
        one.stop()


def bridge(agent: AgentProcess, plugins: Path) -> None:
    """The same behind the bridge plugin, whose bridge sends a port's own frames to all other ports."""
    segment()
    run("ip", "link", "add", "br0", "type", "bridge")
    run("sh", "-c", "ip link set br0 up; ip link set uplink0 master br0")
    owns("10.6.9.10/16", "fd00:6::10/64")
    made = network(agent, plugins, {"type": "bridge", "bridge": "br0"}, **ON)
    pods = [SandboxPod(f"pod{number}", made) for number in range(2)]
    assert [bare(pod) for pod in pods if pod.start()] == [
        ["10.6.9.11", "fd00:6::11"],
        ["10.6.9.12", "fd00:6::12"],
    ]
    for pod in pods:
        pod.stop()


STORIES: dict[str, Callable[[AgentProcess, Path], None]] = {
    story.__name__: story for story in (conflict, bridge)
}


def main() -> None:
    name, directory, plugins = sys.argv[1:]
    agent = AgentProcess(Path(directory), "--timeout", "20", *OPTIONS.get(name, ()))
    agent.apply(V4, V6)
    with agent:
        STORIES[name](agent, Path(plugins))


OPTIONS: dict[str, Sequence[str]] = {}


if __name__ == "__main__":
    main()
